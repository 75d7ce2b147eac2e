"""Removes drained entries from the journals: not at once, for a Postgres that loses its last commits."""

import time
from collections import defaultdict, deque
from math import ceil
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.keys import Keys
from app.models import JournalId
from app.settings import Settings


class _Drained(NamedTuple):
    """`at`: by the monotonic clock."""

    place: JournalId
    at: float


class Trimmer:
    """Keeps drained entries `journal_retention_seconds`, as long as their journal is no more than half full:
    the other half is for what Postgres does not have yet."""

    def __init__(self, redis: Redis, keys: Keys, settings: Settings) -> None:
        self._redis = redis
        self._keys = keys
        self._retention_seconds = settings.journal_retention_seconds
        self._most_entries = settings.max_journal_entries // 2
        self._most_bytes = settings.max_journal_bytes // 2
        self._drained: defaultdict[int, deque[_Drained]] = defaultdict(deque)
        """Per partition what this process has seen drained, and is still kept; the oldest first."""

    def remember(self, partition: int, position: JournalId) -> None:
        """The partition was drained to `position`."""
        self._drained[partition].append(_Drained(position, time.monotonic()))

    async def trim(self, partition: int, position: JournalId) -> None:
        """Removes what need not be kept any longer, and `position`, what Postgres says now, still covers."""
        last = max(
            filter(None, (self._outdated(partition, position), await self._surplus(partition))), default=None
        )
        if last is not None:
            last = min(last, position)
            first_kept = JournalId(last.epoch, last.sequence + 1)
            await self._redis.xtrim(self._keys.journal(partition), minid=str(first_kept), approximate=False)

    def _outdated(self, partition: int, position: JournalId) -> JournalId | None:
        """The last entry that was drained long enough ago."""
        drained = self._drained[partition]
        if drained and position < drained[-1].place:
            drained.clear()  # Postgres lost commits: what they told is needed again
        last = None
        while drained and drained[0].at <= time.monotonic() - self._retention_seconds:
            last = drained.popleft().place
        return last

    async def _surplus(self, partition: int) -> JournalId | None:
        """The last entry of those by which the journal is more than half full, whoever drained them."""
        key = self._keys.journal(partition)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xlen(key)
            pipe.memory_usage(key)
            entries, size = await pipe.execute()
        surplus = max(entries - self._most_entries, ceil(entries * (1 - self._most_bytes / (size or 1))))
        if surplus <= 0:
            return None
        oldest: Any = await self._redis.xrange(key, count=1)
        if not oldest:
            return None
        first = JournalId.parse(oldest[0][0])
        # Those of an epoch follow one another without a gap; of the next one some may go the next time.
        return JournalId(first.epoch, first.sequence + surplus - 1)
