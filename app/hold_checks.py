"""Checks over single holds in Redis, in chunks: what the due list and customers' counts say of them.

A scan is no moment in time, so these are not exact while the sale runs: what differs is looked at again
before it is called broken.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.invariants import Comparison, Pairs, settle
from app.journal import parse_items
from app.keys import Keys
from app.models import Item
from app.packing import Customer

_CHUNK = 500
"""Fields per step of a scan: well under a millisecond of Redis' time, in the due list about one."""
_NOTHING = "0 - -"
"""The counts of a customer without a reservation."""


@dataclass(slots=True)
class _Seen:
    """One scan of a sale: what the holds imply, and what is kept beside them."""

    living: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    implied: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def due_differences(self) -> Pairs:
        ids = self.living.keys() | self.due.keys()
        return {
            id_: (self.living.get(id_), self.due.get(id_))
            for id_ in ids
            if self.living.get(id_) != self.due.get(id_)
        }

    def customer_differences(self) -> Pairs:
        pairs = {
            id_: (self.implied.get(id_, _NOTHING), self.kept.get(id_, ""))
            for id_ in self.implied.keys() | self.kept.keys()
        }
        return {id_: pair for id_, pair in pairs.items() if not _agree(*pair)}


def _agree(implied: str, kept: str) -> bool:
    """Units and living holds must be the same; of the reservations ever made, some may be forgotten."""
    made, _, taken = implied.partition(" ")
    kept_made, _, kept_taken = _sorted(kept or _NOTHING).partition(" ")
    return taken == kept_taken and kept_made.isdecimal() and int(kept_made) >= int(made)


def _sorted(packed: str) -> str:
    """The scripts write a customer's units and living holds in no order."""
    return " ".join(",".join(sorted(word.split(","))) for word in packed.split(" "))


class _Hold(NamedTuple):
    """`expires`: milliseconds."""

    status: str
    expires: int
    customer_id: str
    items: tuple[Item, ...]
    order_status: str | None


def _read(packed: str | None) -> _Hold | None:
    """None for one that cannot be read: the comparison with Postgres finds it."""
    words = (packed or "").split(" ", 7)
    try:
        items, order_status = parse_items(words[5]), words[6] if len(words) > 6 else None
        return _Hold(words[0], int(words[2]), words[4], items, order_status)
    except (IndexError, ValueError):
        return None


class HoldChecks:
    """due_list_equals_holds and customer_counts_equal_holds of one sale."""

    def __init__(self, redis: Redis, keys: Keys, sale_id: str) -> None:
        self._redis = redis
        self._sale_id = sale_id
        _, _, self._holds_key, self._customers_key, _ = keys.for_sale(sale_id)
        self._due_key = keys.due(keys.partition(sale_id))

    async def run(self) -> list[Comparison]:
        """What differs is found twice with the same two values. Raises the client's errors."""
        seen = await self._scan()
        due = await settle(seen.due_differences(), self._due_again)
        customers = await settle(seen.customer_differences(), self._customers_again)
        return [
            Comparison("due_list_equals_holds", len(seen.living), due),
            Comparison("customer_counts_equal_holds", len(seen.implied), customers),
        ]

    async def _scan(self) -> _Seen:
        seen = _Seen()
        await self._scan_holds(seen, None)
        async for customer_id, packed in self._redis.hscan_iter(self._customers_key, count=_CHUNK):
            if customer_id:
                seen.kept[customer_id] = packed
        due = self._redis.zscan_iter(self._due_key, match=f"{self._sale_id}/*", count=_CHUNK)
        async for member, score in due:
            seen.due[member.partition("/")[2]] = int(score)
        return seen

    async def _scan_holds(self, seen: _Seen, only: Collection[str] | None) -> None:
        """What the holds imply, of all customers or only of these."""
        holds: dict[str, _Hold] = {}
        async for id_, packed in self._redis.hscan_iter(self._holds_key, count=_CHUNK):
            hold = _read(packed)
            if hold and (only is None or hold.customer_id in only):
                holds[id_] = hold
        customers: dict[str, Customer] = {}
        for id_, hold in holds.items():
            customer = customers.setdefault(hold.customer_id, Customer(hold.customer_id))
            customer.add(id_, hold.items, hold.status, hold.order_status)
            if hold.status == "held":
                seen.living[id_] = hold.expires
        for customer in customers.values():
            id_, packed = customer.fields()
            seen.implied[id_] = _sorted(packed)

    async def _due_again(self, ids: list[str]) -> Pairs:
        seen = _Seen()
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hmget(self._holds_key, chunk)
                pipe.zmscore(self._due_key, [f"{self._sale_id}/{id_}" for id_ in chunk])
                holds, scores = await pipe.execute()
            for id_, packed, score in zip(chunk, holds, scores, strict=True):
                hold = _read(packed)
                if hold and hold.status == "held":
                    seen.living[id_] = hold.expires
                if score is not None:
                    seen.due[id_] = int(score)
        return seen.due_differences()

    async def _customers_again(self, ids: list[str]) -> Pairs:
        # A customer's orders are found by a scan alone. What is kept is read before it: if that is still the
        # same at a repair, no hold of the customer has changed since, as every change of one changes it, too.
        seen = _Seen()
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            kept: list[Any] = await self._redis.hmget(self._customers_key, chunk)
            seen.kept |= {id_: packed for id_, packed in zip(chunk, kept, strict=True) if packed is not None}
        await self._scan_holds(seen, set(ids))
        return seen.customer_differences()


def repaired_counts(implied: str, kept: str) -> str:
    """What a customer's counts should be; reservations ever made never fall, as Redis forgets some."""
    made, _, taken = implied.partition(" ")
    kept_made = kept.partition(" ")[0]
    return f"{max(int(made), int(kept_made) if kept_made.isdecimal() else 0)} {taken}"
