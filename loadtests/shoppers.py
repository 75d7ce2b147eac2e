"""Shoppers of several tempers. Each visit is one customer, who keeps one Idempotency-Key per wish."""

import random
import time
from collections.abc import Callable
from typing import Any

import gevent

from loadtests.options import Plan
from loadtests.shop import Answer, Request, Shop, Unexpected
from loadtests.tally import Fate, Told

PATIENT = 0.4
"""Part of the shoppers who come back after "sold out", as held units may return."""
MAX_RETURNS = 3
CUT_SHORT = "cut short"


class Visit:
    """One customer in the shop."""

    def __init__(self, shop: Shop, plan: Plan, customer_id: str) -> None:
        self.shop = shop
        self.tally = shop.tally
        self.customer_id = customer_id
        self.plan = plan
        self.outcome = CUT_SHORT
        self._patience = MAX_RETURNS if random.random() < PATIENT else 0

    def key(self, wish: str = "1") -> str:
        return f"{self.customer_id}.{wish}"

    def cart(self, skus: int = 1) -> list[tuple[str, int]]:
        chosen = random.sample(self.plan.skus, min(skus, len(self.plan.skus)))
        most = min(2, self.plan.limit)
        return [(sku, most if random.random() < 0.2 else 1) for sku in chosen]

    def think(self) -> None:
        """Long enough to pay, well within the hold."""
        gevent.sleep(self.plan.hold_seconds * random.uniform(0.05, 0.4))

    def oversleep(self, told: Told) -> None:
        """Until the hold is surely over: some by a moment, when it may not be swept yet, some by more."""
        late = random.choice((0.02, random.uniform(0.1, 1.0)))
        gevent.sleep(max(0.0, told.told_at + self.plan.hold_seconds - time.time()) + late)

    def in_time(self, told: Told) -> bool:
        """Whether the hold surely lives: it was made after it was asked for."""
        return time.time() < told.asked_at + self.plan.hold_seconds

    def reserve(self, items: list[tuple[str, int]], key: str | None = None) -> Told | None:
        """A reservation, or None when this customer leaves without one."""
        request = self.shop.reservation(self.customer_id, items, key or self.key())
        while True:
            asked_at = time.time()
            answer = self.shop.ask(request)
            if answer.status == 201:
                return self._remember(request, answer, asked_at)
            if not self._comes_again(answer):
                self.outcome = "sold out" if answer.body["code"] == "sold_out" else "turned away"
                return None

    def _remember(self, request: Request, answer: Answer, asked_at: float) -> Told:
        body = request.body or {}
        items = [(item["sku"], item["quantity"]) for item in body["items"]]
        told = Told(answer.body["id"], self.customer_id, items, asked_at, time.time())
        self.tally.told.append(told)
        self.tally.counts["holds"] += 1
        got = [(item["sku"], item["quantity"]) for item in answer.body["items"]]
        if got != items or answer.body["customer_id"] != self.customer_id:
            self.tally.fail(f"{told.reservation_id}: asked for {items}, was given {got}")
        return told

    def _comes_again(self, answer: Answer) -> bool:
        if time.time() > self.plan.ends_at:
            return False
        if answer.body["code"] == "sale_not_open" and answer.retry_after:
            gevent.sleep(min(answer.retry_after, 5.0) + random.random() / 2)
            return True
        if answer.body["code"] == "sold_out" and answer.body["held"] and self._patience:
            self._patience -= 1
            gevent.sleep(self.plan.hold_seconds * random.uniform(0.2, 0.7))
            return True
        return False

    def confirm(self, told: Told) -> None:
        """Pays; the answer is an order, or that the money goes back."""
        told.fate = Fate.CONFIRMING
        answer = self._pay(told)
        early = self.in_time(told)
        if answer.status == 409:
            told.fate = Fate.REFUND
            if early or answer.body.get("refund_required") is not True:
                self.tally.fail(
                    f"{told.reservation_id}: refused a payment that came in time, or without refund"
                )
            self.outcome = "to refund"
            return
        told.fate, told.order_id = Fate.CONFIRMED, answer.body["id"]
        if answer.body["reacquired"]:
            told.reacquired_at = time.time()
            if early:
                self.tally.fail(f"{told.reservation_id}: the hold ended before its time")
        self.outcome = "bought late" if told.reacquired_at else "bought"

    def confirm_again(self, told: Told) -> None:
        """The same payment once more must be answered with the same outcome."""
        answer = self._pay(told)
        same = answer.body.get("id", "") == told.order_id
        self._count_replay(same, f"{told.reservation_id}: paid twice, answered differently")

    def _pay(self, told: Told) -> Answer:
        return self.shop.ask(self.shop.confirmation(told.reservation_id, f"pay.{told.reservation_id}"))

    def reserve_again(self, told: Told) -> None:
        """The same key once more must give the same reservation, and say that it is a replay."""
        request = self.shop.reservation(self.customer_id, told.items, self.key(), "replay")
        answer = self.shop.ask(request)
        same = answer.status == 201 and answer.body["id"] == told.reservation_id and answer.replayed
        self._count_replay(same, f"{told.reservation_id}: its key was answered {answer.status} {answer.body}")

    def _count_replay(self, same: bool, sentence: str) -> None:
        self.tally.counts["replays"] += 1
        if same:
            self.tally.counts["replays answered the same"] += 1
        else:
            self.tally.fail(sentence)

    def release(self, told: Told) -> None:
        told.fate, told.released_at = Fate.RELEASING, time.time()
        early = self.in_time(told)
        answer = self.shop.ask(self.shop.release(told.reservation_id))
        told.fate = Fate.RELEASED if answer.body["status"] == "released" else Fate.HELD
        if early and self.in_time(told) and told.fate is not Fate.RELEASED:
            self.tally.fail(f"{told.reservation_id}: released in time, but is {answer.body['status']}")


def buy(visit: Visit) -> None:
    """Reserves, pays in time."""
    told = visit.reserve(visit.cart())
    if told:
        visit.think()
        visit.confirm(told)


def buy_two_skus(visit: Visit) -> None:
    """A cart of two SKUs: all or none."""
    told = visit.reserve(visit.cart(skus=2))
    if told:
        visit.think()
        visit.confirm(told)


def abandon(visit: Visit) -> None:
    """Reserves and never returns: the hold expires."""
    if visit.reserve(visit.cart()):
        visit.outcome = "walked away"


def change_mind(visit: Visit) -> None:
    """Reserves, then gives it back."""
    told = visit.reserve(visit.cart())
    if told:
        visit.think()
        visit.release(told)
        visit.outcome = "changed their mind"


def retry(visit: Visit) -> None:
    """Loses an answer, asks again, asks twice at once, pays twice: one reservation, one order."""
    items = visit.cart()
    visit.shop.lose_answer(visit.shop.reservation(visit.customer_id, items, visit.key()))
    told = visit.reserve(items)
    if told:
        replays = [gevent.spawn(guarded, visit, visit.reserve_again, told) for _ in range(2)]
        gevent.joinall(replays)
        visit.confirm(told)
        visit.confirm_again(told)
        visit.reserve_again(told)


def pay_late(visit: Visit) -> None:
    """Pays after the hold is over: the units are taken again, or the money goes back."""
    told = visit.reserve(visit.cart())
    if told:
        visit.oversleep(told)
        visit.confirm(told)
        visit.confirm_again(told)


def grab(visit: Visit) -> None:
    """Buys up to the limit, and asks for one more, which no customer may get."""
    sku = visit.cart()[0][0]
    told = visit.reserve([(sku, visit.plan.limit)])
    if not told:
        return
    more = visit.shop.reservation(visit.customer_id, [(sku, 1)], visit.key("2"))
    if visit.shop.ask(more).status == 201 and visit.in_time(told):
        visit.tally.fail(f"{visit.customer_id} was given more of {sku} than the limit")
    visit.confirm(told)


Temper = Callable[[Visit], Any]

TEMPERS: dict[Temper, int] = {
    buy: 50, buy_two_skus: 10, abandon: 12, change_mind: 8, retry: 10, pay_late: 7, grab: 3,
}  # fmt: skip
"""Each with its share of the shoppers, in percent."""


def guarded(visit: Visit, step: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the step went through; what went wrong is a failure in the tally."""
    try:
        step(*arguments)
    except Unexpected:  # in the tally already
        return False
    except Exception as error:
        visit.tally.fail(f"{visit.customer_id}: {error!r}")
        return False
    return True


def run_visit(visit: Visit, temper: Temper) -> None:
    """Lets the customer shop, and counts how the visit went."""
    visit.tally.counts["visits"] += 1
    try:
        if not guarded(visit, temper, visit):
            visit.outcome = CUT_SHORT
    finally:  # a killed greenlet comes by here too
        visit.tally.counts[f"visit {visit.outcome}"] += 1
