"""Removes drained entries from the journals: not at once, for a Postgres that loses its last commits."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import takewhile
from math import ceil
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.keys import Keys
from app.models import JournalId
from app.settings import Settings

_AT_ONCE = 2000
"""Entries that go after a step of the drain: as many as that takes."""
_STEP = 100
"""Of these in one call, which blocks Redis: an entry may carry hundreds of records."""


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
        drained = self._drained[partition]
        while drained and drained[-1].place > position:
            drained.pop()  # Postgres lost commits: what they told is needed again
        surplus = await self._surplus(partition, position)
        if surplus is None:
            return
        outdated = self._outdated(drained)
        if (outdated is None and not surplus) or (oldest := await self._oldest(partition)) is None:
            return
        wanted = max(outdated or oldest, _nth(oldest, surplus))
        last = min(wanted, position, _nth(oldest, _AT_ONCE))
        for first_kept in _steps(oldest, last):
            await self._redis.xtrim(self._keys.journal(partition), minid=str(first_kept), approximate=False)
        while drained and drained[0].place <= last:
            drained.popleft()

    def _outdated(self, drained: deque[_Drained]) -> JournalId | None:
        """The last entry that was drained long enough ago."""
        until = time.monotonic() - self._retention_seconds
        last = None
        for one in takewhile(lambda one: one.at <= until, drained):
            last = one.place
        return last

    async def _surplus(self, partition: int, position: JournalId) -> int | None:
        """By how many entries the journal is more than half full, whoever drained them.

        None if this is not the server that Postgres follows, where a position tells nothing of the entries.
        """
        key = self._keys.journal(partition)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(self._keys.meta(partition), "epoch")
            pipe.xlen(key)
            pipe.memory_usage(key)
            epoch, entries, size = await pipe.execute()
        if epoch is None or int(epoch) != position.epoch:
            return None
        by_size = ceil(entries * (1 - self._most_bytes / (size or 1)))
        surplus: int = max(entries - self._most_entries, by_size, 0)
        return surplus

    async def _oldest(self, partition: int) -> JournalId | None:
        found: Any = await self._redis.xrange(self._keys.journal(partition), count=1)
        return JournalId.parse(found[0][0]) if found else None


def _nth(oldest: JournalId, count: int) -> JournalId:
    """The last one of a journal's first `count` entries. Those of an epoch follow one another without a gap;
    of the next epoch some may go the next time."""
    return JournalId(oldest.epoch, oldest.sequence + count - 1)


def _steps(oldest: JournalId, last: JournalId) -> Iterator[JournalId]:
    """The first entry that each step keeps, until all from `oldest` to `last`, of its epoch, are gone."""
    for sequence in range(oldest.sequence + _STEP, last.sequence + 1, _STEP):
        yield JournalId(last.epoch, sequence)
    yield JournalId(last.epoch, last.sequence + 1)
