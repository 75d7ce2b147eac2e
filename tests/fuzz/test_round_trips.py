"""Whatever the API lets through comes back byte for byte: from the scripts, from Postgres and its outbox, and
from the scripts again after a rebuild."""

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app import errors
from app.http.body import parse
from app.http.schemas import ConfirmRequest, MovementRequest, ReservationRequest, SaleRequest
from app.ids import random_hold_id
from app.inventory import Inventory
from app.keys import Keys
from app.models import Item, Reservation, SaleRules
from app.reserving import Reserved, ReserveRequest
from app.settings import Settings
from app.workers.drain import Drain
from app.workers.keeper import Action
from app.workers.runner import build_keeper

HOLDS = 250
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
IDENTIFIER = "ABCabc019._~-"
CONTROLS = "".join(map(chr, [*range(1, 0x20), 0x7F]))
ODD = "\x80\x85\xa0\u2028\u2029\ufeff\ufffd\uffff\u202e\u0301\U0001f600\U0010ffff'\"\\/ \t=,{}[]%;$&\u00e9"
NUMBERS = (
    "0", "-0", "-0.0", "1e5", "1E400", "-1e-400", "9007199254740993", "123456789012345678901234567890", "0.1",
    "1.0", "9" * 600, "5e-324", "1.7976931348623157e308", "true", "null",
)  # fmt: skip
"""As JSON has them."""


def text(random: Random, alphabet: str, longest: int) -> str:
    return "".join(random.choices(alphabet, k=random.choice((1, 2, 5, longest))))


def written(random: Random, value: str) -> str:
    """A JSON string, with escapes or without."""
    return json.dumps(value, ensure_ascii=random.random() < 0.5)


def value_of(random: Random, depth: int = 0) -> str:
    """Any JSON value, as text."""
    match random.randrange(5 if depth < 6 else 2):
        case 0:
            return random.choice(NUMBERS)
        case 1:
            return written(random, text(random, CONTROLS + ODD, 60))
        case 2:
            return f"[{','.join(value_of(random, depth + 1) for _ in range(random.randrange(4)))}]"
        case 3:
            return "[" * 60 + "]" * 60
        case _:
            return object_of(random, depth + 1)


def object_of(random: Random, depth: int = 0) -> str:
    names = ["", "a", "a", text(random, CONTROLS + ODD, 20)]
    members = [
        f"{written(random, random.choice(names))}:{value_of(random, depth)}"
        for _ in range(random.randrange(4))
    ]
    return f"{{ {' , '.join(members)} }}"


@dataclass
class Sent:
    """One reservation's way: `metadata` and `reason` as the models let them through."""

    hold: Reservation
    reference: str
    metadata: bytes
    order: Reservation | None = None


@dataclass
class Trip:
    """A sale and what is done with it, straight from the models that the API validates with."""

    inventory: Inventory
    random: Random
    sale_id: str = ""
    name: str = ""
    skus: list[str] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)

    async def configure(self) -> None:
        self.sale_id = text(self.random, IDENTIFIER, 64)
        self.skus = [text(self.random, IDENTIFIER, 60) + str(number) for number in range(5)]
        name = text(self.random, ODD.replace("\t", "") + VISIBLE, 200)
        items = [{"sku": sku, "quantity": 1_000_000} for sku in self.skus]
        fields = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2120-01-01T00:00:00Z", "items": items}
        rest = json.dumps({**fields, "hold_seconds": 60, "max_hold_seconds": 600})[1:]
        rules = parse(SaleRequest, f'{{"name":{written(self.random, name)},{rest}'.encode())
        self.name = rules.name
        stock = tuple((item.sku, item.quantity, None) for item in rules.items)
        configured = SaleRules(rules.name, rules.opens_at, rules.closes_at, 60, 600, stock)
        await self.inventory.configure(self.sale_id, configured)

    async def sell(self) -> None:
        """Makes a reservation, and confirms it with metadata that the API would take."""
        customer = text(self.random, VISIBLE, 64)
        skus = self.random.sample(self.skus, self.random.randint(1, 5))
        body = {"customer_id": customer, "items": [{"sku": sku, "quantity": 3} for sku in skus]}
        wanted = parse(ReservationRequest, json.dumps(body).encode())
        items = tuple(Item(item.sku, item.quantity) for item in wanted.items)
        request = ReserveRequest(self.sale_id, random_hold_id(), "", wanted.customer_id, "d" * 24, items)
        outcome = await self.inventory.reserve(request)
        assert isinstance(outcome, Reserved), outcome
        assert (outcome.reservation.customer_id, outcome.reservation.items) == (customer, items)
        confirmed = self._confirmation()
        reference, metadata = confirmed.payment_reference, confirmed.metadata
        sent = Sent(outcome.reservation, reference, metadata)
        sent.order = await self.inventory.confirm(self.sale_id, sent.hold.hold_id, reference, metadata)
        self.sent.append(sent)

    def _confirmation(self) -> ConfirmRequest:
        """One that is not refused, for its numbers out of range or its size."""
        while True:
            reference = text(self.random, VISIBLE, 255)
            body = f'{{"payment_reference":{json.dumps(reference)},"metadata":{object_of(self.random)}}}'
            try:
                return parse(ConfirmRequest, body.encode())
            except errors.ValidationFailed:
                continue

    async def move(self, number: int) -> None:
        reason = self.random.choice((None, text(self.random, ODD.replace("\t", "") + VISIBLE, 1000)))
        body = parse(MovementRequest, json.dumps({"quantity": 1, "reason": reason}).encode())
        await self.inventory.restock(self.sale_id, self.skus[0], 1, f"{number:032x}", "d" * 24, body.reason)
        self.reasons.append(body.reason)

    async def cancel(self, sent: Sent, reason: str | None) -> None:
        sent.order = await self.inventory.cancel(self.sale_id, sent.hold.hold_id, True, reason)


async def read(trip: Trip) -> tuple[str, list[tuple[Any, ...]]]:
    """What the scripts say of the sale and of its reservations."""
    found = []
    for sent in trip.sent:
        hold = await trip.inventory.reservation(trip.sale_id, sent.hold.hold_id)
        assert hold is not None
        assert hold.order is not None
        order = hold.order
        found.append((hold.customer_id, hold.items, order.payment_reference, order.metadata, order.status))
    return (await trip.inventory.snapshot(trip.sale_id)).name, found


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_the_api_lets_through_survives_every_store(
    redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings, seed: int
) -> None:
    drain = Drain(redis, pool, keys, settings)
    keeper = build_keeper(redis, pool, keys, drain)
    for partition in range(keys.partitions):
        assert await keeper.run_once(partition) is Action.REBUILT
    trip = Trip(Inventory(redis, keys, settings), Random(seed))
    await trip.configure()
    partition = keys.partition(trip.sale_id)
    for number in range(HOLDS // 2):
        await trip.sell()
        if number % 10 == 0:
            await trip.move(number)
            await trip.cancel(trip.sent[-1], trip.reasons[-1])
    before = await read(trip)
    expected = [(s.hold.customer_id, s.hold.items, s.reference, s.metadata) for s in trip.sent]
    assert (before[0], [row[:4] for row in before[1]]) == (trip.name, expected)

    assert await drain.run_partition(partition)
    assert await pool.fetch("SELECT * FROM rejects") == []
    await compare_with_postgres(trip, pool)

    gone = [*keys.for_partition(partition), keys.sales(partition), *keys.for_sale(trip.sale_id)]
    assert await redis.delete(*gone) >= 8
    assert await keeper.run_once(partition) is Action.REBUILT
    assert await read(trip) == before


async def compare_with_postgres(trip: Trip, pool: asyncpg.Pool) -> None:
    assert await pool.fetchval("SELECT name FROM sales WHERE id = $1", trip.sale_id) == trip.name
    orders = {row["id"]: row for row in await pool.fetch("SELECT * FROM orders")}
    events = await pool.fetch("SELECT aggregateid, payload FROM outbox WHERE type = 'order.confirmed'")
    payloads = {row["aggregateid"]: row["payload"] for row in events}
    for sent in trip.sent:
        id_ = f"ord_{sent.hold.hold_id}"
        assert (orders[id_]["customer_id"], orders[id_]["payment_reference"]) == (
            sent.hold.customer_id,
            sent.reference,
        )
        assert orders[id_]["metadata"].encode() == sent.metadata
        assert b'"metadata":' + sent.metadata in payloads[id_].encode()
        assert json.loads(payloads[id_])["payment_reference"] == sent.reference
    query = "SELECT reason FROM movements WHERE kind = 'restocked' ORDER BY id"
    assert [row["reason"] for row in await pool.fetch(query)] == trip.reasons
    reasons = await pool.fetch(
        "SELECT cancel_reason FROM orders WHERE status = 'cancelled' ORDER BY cancelled_at"
    )
    assert sorted(map(str, (row["cancel_reason"] for row in reasons))) == sorted(map(str, trip.reasons))
