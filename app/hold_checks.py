"""Checks over single holds in Redis, in chunks: what the due list and customers' counts say of them.

A scan is no moment in time, so these are not exact while the sale runs: what differs is looked at again
before it is called broken.
"""

from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import WatchError

from app.invariants import Invariant
from app.journal import parse_items
from app.keys import Keys
from app.packing import Customer

NOT_EXACT = "not exact while the sale runs"
_CHUNK = 1000
"""Fields per step of a scan: well under a millisecond of Redis' time."""
_LOOKS = 4
_SHOWN = 20
"""Differing holds or customers that a report names."""
_REPAIR_TRIES = 5

Counts = tuple[str, frozenset[str], frozenset[str]]
"""Reservations made, `sku=units`, living hold ids."""


@dataclass(slots=True)
class _Seen:
    """One scan of a sale: what the holds imply, and what is kept beside them."""

    living: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    implied: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def due_differences(self) -> set[str]:
        return {
            id_ for id_ in self.living.keys() | self.due.keys() if self.living.get(id_) != self.due.get(id_)
        }

    def customer_differences(self) -> set[str]:
        customers = self.implied.keys() | self.kept.keys()
        return {id_ for id_ in customers if _counts(self.implied.get(id_)) != _counts(self.kept.get(id_))}


def _counts(packed: str | None) -> Counts:
    made, units, living = (packed or "0 - -").split(" ")
    return made, frozenset(units.split(",")), frozenset(living.split(","))


async def _scan(redis: Redis, keys: Keys, sale_id: str) -> _Seen:
    _, _, holds_key, customers_key, _ = keys.for_sale(sale_id)
    seen = _Seen()
    holds: dict[Any, Any] = {id_: packed async for id_, packed in redis.hscan_iter(holds_key, count=_CHUNK)}
    customers: dict[str, Customer] = {}
    for id_, packed in holds.items():
        if id_:
            status, _, expires, _, customer_id, items, *order = packed.split(" ", 6)
            customer = customers.setdefault(customer_id, Customer(customer_id))
            customer.add(id_, parse_items(items), status, order[0].split(" ", 1)[0] if order else None)
            if status == "held":
                seen.living[id_] = int(expires)
    for customer in customers.values():
        id_, packed = customer.fields()
        seen.implied[id_] = packed
    async for customer_id, packed in redis.hscan_iter(customers_key, count=_CHUNK):
        if customer_id:
            seen.kept[str(customer_id)] = str(packed)
    due = redis.zscan_iter(keys.due(keys.partition(sale_id)), match=f"{sale_id}/*", count=_CHUNK)
    async for member, score in due:
        seen.due[str(member).partition("/")[2]] = int(score)
    return seen


async def check_holds(redis: Redis, keys: Keys, sale_id: str) -> list[Invariant]:
    """due_list_equals_holds and customer_counts_equal_holds; broken is what differs in every look."""
    seen = await _scan(redis, keys, sale_id)
    due, customers = seen.due_differences(), seen.customer_differences()
    for _ in range(_LOOKS - 1):
        if not due and not customers:
            break
        seen = await _scan(redis, keys, sale_id)
        due &= seen.due_differences()
        customers &= seen.customer_differences()
    return [
        _invariant("due_list_equals_holds", seen.living, seen.due, due),
        _invariant("customer_counts_equal_holds", seen.implied, seen.kept, customers),
    ]


def _invariant(name: str, expected: dict[str, Any], found: dict[str, Any], differing: set[str]) -> Invariant:
    if not differing:
        # Of a running sale the two scans may count differently without anything being wrong.
        return Invariant(name, True, len(expected), len(expected), NOT_EXACT)
    shown = sorted(differing)[:_SHOWN]
    return Invariant(
        name,
        False,
        {id_: expected.get(id_) for id_ in shown},
        {id_: found.get(id_) for id_ in shown},
        f"{len(differing)} differ; {NOT_EXACT}",
    )


async def repair_holds(redis: Redis, keys: Keys, sale_id: str) -> bool:
    """Writes due list and customers' counts as the holds say; False if the sale moved at every try.

    Takes no unit from anybody: holds, stock and orders stay as they are.
    """
    _, _, holds_key, customers_key, _ = keys.for_sale(sale_id)
    due_key = keys.due(keys.partition(sale_id))
    for _ in range(_REPAIR_TRIES):
        async with redis.pipeline(transaction=True) as pipe:
            await pipe.watch(holds_key, customers_key, due_key)
            seen = await _scan(redis, keys, sale_id)
            pipe.multi()  # type: ignore[no-untyped-call]
            for id_ in seen.due_differences():
                member = f"{sale_id}/{id_}"
                if id_ in seen.living:
                    pipe.zadd(due_key, {member: seen.living[id_]})
                else:
                    pipe.zrem(due_key, member)
            for id_ in seen.customer_differences():
                pipe.hset(customers_key, id_, seen.implied.get(id_, "0 - -"))
            try:
                await pipe.execute()
            except WatchError:
                continue
            return True
    return False
