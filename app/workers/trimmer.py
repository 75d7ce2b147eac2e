"""Removes drained entries from the journals: not at once, for a Postgres that loses its last commits."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from redis.asyncio import Redis

from app.keys import Keys
from app.models import JournalId
from app.settings import Settings


class _Drained(NamedTuple):
    """`at`: by the monotonic clock. `total`: bytes drained up to and with this place."""

    place: JournalId
    at: float
    total: int


@dataclass(slots=True)
class _Kept:
    """What one partition's journal still holds, though Postgres has it; the oldest first."""

    places: deque[_Drained] = field(default_factory=deque)
    total: int = 0


class Trimmer:
    """Keeps entries `journal_retention_seconds`, as long as they fill no more than half of the journal's
    bounds: the other half is for what Postgres does not have yet."""

    def __init__(self, redis: Redis, keys: Keys, settings: Settings) -> None:
        self._redis = redis
        self._keys = keys
        self._retention_seconds = settings.journal_retention_seconds
        self._most_entries = settings.max_journal_entries // 2
        self._most_bytes = settings.max_journal_bytes // 2
        self._kept: dict[int, _Kept] = {}

    def remember(self, partition: int, position: JournalId, size: int) -> None:
        """The partition was drained to `position`; the entries had `size` bytes."""
        kept = self._kept.setdefault(partition, _Kept())
        kept.total += size
        kept.places.append(_Drained(position, time.monotonic(), kept.total))

    async def trim(self, partition: int, position: JournalId) -> None:
        """Removes what need not be kept any longer.

        Only what was remembered here, and `position`, what Postgres says now, still covers.
        """
        kept = self._kept.get(partition)
        if kept is None:
            return
        if kept.places and position < kept.places[-1].place:
            kept.places.clear()  # Postgres lost commits: what they told is needed again
        gone = None
        while kept.places and self._may_go(kept.places[0], kept.places[-1]):
            gone = kept.places.popleft().place
        if gone is not None:
            first_kept = JournalId(gone.epoch, gone.sequence + 1)
            await self._redis.xtrim(self._keys.journal(partition), minid=str(first_kept), approximate=False)

    def _may_go(self, drained: _Drained, newest: _Drained) -> bool:
        old = drained.at <= time.monotonic() - self._retention_seconds
        place, last = drained.place, newest.place
        many = place.epoch == last.epoch and last.sequence - place.sequence > self._most_entries
        return old or many or newest.total - drained.total > self._most_bytes
