"""Those who load the service: buyers of several habits, and an operator who moves stock."""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from loadtests.tally import Fate
from loadtests.torture.ledger import Hold, Ledger, Movement
from loadtests.torture.wire import Answer, GaveUp, Wire

CUSTOMERS = 120
"""Of a sale: so few that their limits matter."""
SKUS = ("plenty", "steady", "scarce")
_WEIGHTS = (4, 4, 1)
HOLD_SECONDS = 2
EXTENSION_SECONDS = 3
_EARLY_SECONDS = 0.05
"""Nobody may be told of the end of a hold earlier than this before it, by this machine's clock."""
_CLOCK_SECONDS = 0.1
"""A hold begins between question and answer, by this machine's clock, which Redis reads as well."""
_REFUSALS = frozenset(("sold_out", "customer_limit_reached"))


class Market(NamedTuple):
    """Where clients meet: the sales, what they were told, and until when they come."""

    sales: tuple[str, ...]
    ledger: Ledger
    over: asyncio.Event
    on_hold: Callable[[float], None]
    """Told when a hold is acknowledged: when the try that succeeded was sent."""
    gate: asyncio.Event
    """Clients begin nothing new while it is not set."""


class Client(ABC):
    """One visit after another, until the market is over; what has begun is brought to its end."""

    def __init__(self, name: str, market: Market, wire: Wire, rng: random.Random) -> None:
        self._name = name
        self._market = market
        self._ledger = market.ledger
        self._wire = wire
        self._rng = rng
        self.idle = asyncio.Event()

    @property
    @abstractmethod
    def _pause_seconds(self) -> tuple[float, float]: ...

    @abstractmethod
    async def _visit(self, key: str) -> None: ...

    async def run(self) -> None:
        number = 0
        while not self._market.over.is_set():
            number += 1
            try:
                await self._visit(f"{self._name}.{number}")
            except GaveUp as error:
                self._ledger.fail(str(error))
            self.idle.set()
            await asyncio.sleep(self._rng.uniform(*self._pause_seconds))
            await self._market.gate.wait()
            self.idle.clear()


class Buyer(Client):
    """Holds units, and then does what buyers do."""

    _pause_seconds = (0.01, 0.06)

    async def _visit(self, key: str) -> None:
        hold = await self._reserve(key)
        if hold is None:
            return
        habits = (self._confirm, self._release, self._extend, self._ask_again, self._pay_late, self._forget)
        (habit,) = self._rng.choices(habits, (30, 30, 15, 10, 2, 13))
        await habit(hold)

    def _path(self, hold: Hold) -> str:
        return f"/v1/sales/{hold.sale_id}/reservations/{hold.reservation_id}"

    async def _reserve(self, key: str) -> Hold | None:
        sale = self._rng.choice(self._market.sales)
        skus = set(self._rng.choices(SKUS, _WEIGHTS, k=self._rng.choice((1, 1, 1, 2))))
        items = [(sku, self._rng.choice((1, 1, 2))) for sku in sorted(skus)]
        customer = f"c{self._rng.randrange(CUSTOMERS)}"
        began = time.time()
        answer = await self._ask_for(sale, customer, items, key)
        if answer.status == 201:
            hold = Hold(
                reservation_id=answer.body["id"],
                customer_id=customer,
                items=items,
                asked_at=began,
                told_at=time.time(),
                sale_id=sale,
                key=key,
                expires_at=moment(answer.body["expires_at"]),
            )
            self._ledger.holds.append(hold)
            self._ledger.acknowledged["hold"] += 1
            if not began - _CLOCK_SECONDS < hold.expires_at - HOLD_SECONDS < hold.told_at + _CLOCK_SECONDS:
                self._ledger.fail(f"{hold.reservation_id}: {answer.body['expires_at']} is by another clock")
            self._market.on_hold(answer.asked_at)
            return hold
        if answer.status == 409 and answer.code in _REFUSALS:
            self._ledger.refusals[answer.code] += 1
        else:
            self._ledger.fail(f"reserve was answered {answer.status} {answer.body}")
        return None

    async def _ask_for(self, sale: str, customer: str, items: list[tuple[str, int]], key: str) -> Answer:
        body = {
            "customer_id": customer,
            "items": [{"sku": sku, "quantity": quantity} for sku, quantity in items],
        }
        return await self._wire.ask("POST", f"/v1/sales/{sale}/reservations", body, key)

    async def _confirm(self, hold: Hold) -> None:
        hold.fate = Fate.CONFIRMING
        body = {"payment_reference": f"pay.{hold.key}"}
        answer = await self._wire.ask("POST", f"{self._path(hold)}/confirm", body)
        if answer.status in (200, 202):
            hold.fate, hold.order_id = Fate.CONFIRMED, answer.body["id"]
            hold.reacquired_at = time.time() if answer.body["reacquired"] else 0.0
            self._ledger.acknowledged["confirm"] += 1
        elif answer.code == "reservation_expired" and answer.told_at > hold.expires_at - _EARLY_SECONDS:
            hold.fate = Fate.REFUND
            self._ledger.refusals[answer.code] += 1
        else:
            self._contradicted(hold, "confirm", answer)

    async def _release(self, hold: Hold) -> None:
        hold.fate, hold.released_at = Fate.RELEASING, time.time()
        answer = await self._wire.ask("DELETE", self._path(hold))
        if answer.body.get("status") == "released":
            hold.fate = Fate.RELEASED
            self._ledger.acknowledged["release"] += 1
        elif answer.body.get("status") != "expired" or answer.told_at < hold.expires_at - _EARLY_SECONDS:
            self._contradicted(hold, "release", answer)

    async def _extend(self, hold: Hold) -> None:
        answer = await self._wire.ask("POST", f"{self._path(hold)}/extend", {"seconds": EXTENSION_SECONDS})
        if answer.status == 200:
            hold.extended, hold.expires_at = True, moment(answer.body["expires_at"])
            self._ledger.acknowledged["extend"] += 1
        elif answer.code != "reservation_expired" or answer.told_at < hold.expires_at - _EARLY_SECONDS:
            self._contradicted(hold, "extend", answer)
        if self._rng.random() < 0.5:
            await self._confirm(hold)

    async def _ask_again(self, hold: Hold) -> None:
        """The same key must give the same hold, whatever happened meanwhile."""
        answer = await self._ask_for(hold.sale_id, hold.customer_id, hold.items, hold.key)
        if answer.status != 201 or answer.body["id"] != hold.reservation_id or not answer.replayed:
            self._contradicted(hold, "reserve again", answer)
        await self._release(hold)

    async def _pay_late(self, hold: Hold) -> None:
        await asyncio.sleep(max(0.0, hold.expires_at - time.time()) + self._rng.random())
        await self._confirm(hold)

    async def _forget(self, hold: Hold) -> None:
        """The hold expires."""

    def _contradicted(self, hold: Hold, asked: str, answer: Answer) -> None:
        hold.contradictions.append(
            f"{hold.reservation_id}: {asked} was answered {answer.status} {answer.code or answer.body}"
        )


class Operator(Client):
    """Brings units of the SKU `steady`, and takes some away."""

    _pause_seconds = (0.1, 0.4)

    async def _visit(self, key: str) -> None:
        sale = self._rng.choice(self._market.sales)
        verb, quantity = self._rng.choice((("restock", 3), ("restock", 5), ("restock", 8), ("withdraw", 2)))
        path = f"/v1/admin/sales/{sale}/skus/steady/{verb}"
        # The key is repeated as the reason, by which the movement is found in the list afterwards.
        answer = await self._wire.ask("POST", path, {"quantity": quantity, "reason": key}, key)
        if answer.status == 200:
            signed = quantity if verb == "restock" else -quantity
            self._ledger.movements.append(Movement(sale, "steady", signed, key))
            self._ledger.acknowledged[verb] += 1
        elif answer.code == "insufficient_stock":
            self._ledger.refusals[answer.code] += 1
        else:
            self._ledger.fail(f"{verb} was answered {answer.status} {answer.body}")


def moment(text: str) -> float:
    """Seconds since 1970 of a time as the service writes it."""
    return datetime.fromisoformat(text).timestamp()
