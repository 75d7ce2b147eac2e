"""Compares, entry by entry, the holds and answers that Redis keeps with what Postgres remembers of them.

In chunks, so not exact while the sale runs: Postgres follows Redis at the drain's distance, so what differs
is looked at again once the drain has passed the head that the journal then had.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

import asyncpg
from redis.asyncio import Redis

from app.database import QUERIES, Database, connection
from app.invariants import Comparison, Pairs, settle
from app.keys import Keys

_CHUNK = 1000
"""Entries per step: some milliseconds of either store's time."""
_ENOUGH_SUSPECTS = 50_000
"""A drain that keeps up is never this far behind; more would only fill the memory."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Copy:
    """A hash of Redis whose entries Postgres has, too."""

    invariant: str
    key: str
    kept: str
    """The query of the fields that Redis must have."""
    entries: str
    """The query of given fields with their values."""
    parameters: Callable[[list[str]], list[list[str]]]
    """Fields as the parameters of `entries`."""
    comparable: Callable[[str], str]
    """Of a value in Redis, what Postgres has of it."""
    forgettable: tuple[str, ...] = ()
    """What the values begin with that Redis need not have."""
    nothing: str | None = None
    """A value in Redis that says the same as none."""

    def agree(self, expected: str | None, found: str | None) -> bool:
        if found is None and expected is not None:
            return expected.startswith(self.forgettable)
        return expected == found or (expected is None and found == self.nothing)


def _hold_in_postgres(packed: str) -> str:
    """Without the order's journal id, which only Redis knows; of its metadata, which is large, a hash."""
    words = packed.split(" ", 11)
    metadata = [sha256(word.encode()).hexdigest() for word in words[11:]]
    return " ".join(words[:9] + words[10:11] + metadata)


def _reservations_made(packed: str) -> str:
    return packed.partition(" ")[0]


def _as_they_are(fields: list[str]) -> list[list[str]]:
    return [fields]


def _answer_parameters(fields: list[str]) -> list[list[str]]:
    """Keys of movements; hold ids and payment references of refunds."""
    keys = [field[4:] for field in fields if field.startswith("key ")]
    refunds = [field[7:].partition(" ") for field in fields if field.startswith("refund ")]
    return [keys, [hold_id for hold_id, _, _ in refunds], [reference for _, _, reference in refunds]]


class CopyChecks:
    """What Redis keeps of one sale entry by entry: holds, answers, and how often each customer reserved.

    `catch_up` returns once the drain has passed the journal's present head.
    """

    def __init__(
        self,
        redis: Redis,
        pool: asyncpg.Pool,
        keys: Keys,
        sale_id: str,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._redis = redis
        self._pool = pool
        self._sale_id = sale_id
        self._catch_up = catch_up
        _, _, holds_key, customers_key, answers_key = keys.for_sale(sale_id)
        self._copies = (
            _Copy(
                "holds_equal_postgres", holds_key, "audit_kept_holds", "audit_holds",
                _as_they_are, _hold_in_postgres, forgettable=("released ", "expired "),
            ),
            _Copy(
                "reservations_made_equal_postgres", customers_key, "audit_customers",
                "audit_reservations_made", _as_they_are, _reservations_made, nothing="0",
            ),
            _Copy(
                "answers_equal_postgres", answers_key, "audit_kept_answers", "audit_answers",
                _answer_parameters, str,
            ),
        )  # fmt: skip

    async def run(self) -> list[Comparison]:
        """What differs is found twice with the same two values. Raises as `catch_up` does, StoreUnavailable
        where Postgres is away, and the Redis client's errors."""
        return [await self._check(copy) for copy in self._copies]

    async def _check(self, copy: _Copy) -> Comparison:
        async def look_again(fields: list[str]) -> Pairs:
            await self._catch_up()
            async with connection(self._pool) as database:
                pairs: Pairs = {}
                for start in range(0, len(fields), _CHUNK):
                    pairs |= await self._look_at(database, copy, fields[start : start + _CHUNK])
                return pairs

        looked_at, suspects = 0, Pairs()
        async with connection(self._pool) as database, database.transaction(readonly=True):
            async for count, pairs in self._first_look(database, copy):
                looked_at += count
                suspects |= pairs
                if len(suspects) >= _ENOUGH_SUSPECTS:
                    break
        return Comparison(copy.invariant, looked_at, await settle(suspects, look_again))

    async def _first_look(self, database: Database, copy: _Copy) -> AsyncIterator[tuple[int, Pairs]]:
        """Chunk by chunk: the count of entries, and what differs: first all that Redis has, then what only
        Postgres has."""
        cursor: int | None = None
        while cursor != 0:
            found: Any = await self._redis.hscan(copy.key, cursor or 0, count=_CHUNK)
            cursor, entries = int(found[0]), {field: value for field, value in found[1].items() if field}
            yield len(entries), await self._differences(database, copy, entries)
        rows = database.cursor(QUERIES[copy.kept], self._sale_id, prefetch=_CHUNK)
        async for fields in _chunks(row["field"] async for row in rows):
            values: list[Any] = await self._redis.hmget(copy.key, fields)
            missing = [field for field, value in zip(fields, values, strict=True) if value is None]
            yield len(missing), await self._differences(database, copy, dict.fromkeys(missing))

    async def _look_at(self, database: Database, copy: _Copy, fields: list[str]) -> Pairs:
        values: list[Any] = await self._redis.hmget(copy.key, fields)
        return await self._differences(database, copy, dict(zip(fields, values, strict=True)))

    async def _differences(self, database: Database, copy: _Copy, entries: Mapping[str, str | None]) -> Pairs:
        if not entries:
            return {}
        rows = await database.fetch(QUERIES[copy.entries], self._sale_id, *copy.parameters(list(entries)))
        expected = {row["field"]: row["value"] for row in rows}
        pairs = {
            field: (expected.get(field), None if value is None else copy.comparable(value))
            for field, value in entries.items()
        }
        return {field: pair for field, pair in pairs.items() if not copy.agree(*pair)}


async def _chunks(items: AsyncIterator[_T]) -> AsyncIterator[list[_T]]:
    chunk: list[_T] = []
    async for item in items:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
