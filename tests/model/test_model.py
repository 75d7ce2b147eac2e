"""Random operations on the real scripts, against a model short enough to be believed."""

import asyncio
import itertools
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app import errors
from app.embedded.servers import EmbeddedServers
from app.errors import HoldfastError
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.reserving import Reserved
from app.scripts import connect
from app.settings import Settings
from tests.conftest import open_partitions
from tests.shop import Shop

SKUS = ("a", "b")
LIMITS = {"a": 3, "b": 0}
HOLD_SECONDS = 60
MAX_HOLD_SECONDS = 600
CUSTOMERS = st.sampled_from(["c1", "c2", "c3"])
CARTS = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 3), min_size=1)


@dataclass
class ModelHold:
    customer: str
    cart: dict[str, int]
    created: float
    expires: float
    status: str = "held"
    payment: str = ""
    cancelled: bool = False
    refunded: set[str] = field(default_factory=set)

    def living(self, now: float) -> bool:
        return self.status == "held" and now < self.expires


@dataclass
class Model:
    """What ought to happen. Time is in seconds since the start."""

    allocated: dict[str, int]
    now: float = 0
    paused: bool = False
    holds: dict[str, ModelHold] = field(default_factory=dict)

    def units(self, sku: str, *statuses: str, customer: str | None = None) -> int:
        return sum(
            hold.cart.get(sku, 0)
            for hold in self.holds.values()
            if hold.status in statuses and not hold.cancelled and customer in (None, hold.customer)
        )

    def available(self, sku: str) -> int:
        return self.allocated[sku] - self.units(sku, "held", "confirmed")

    def fits_limit(self, hold: ModelHold, without_own: bool) -> bool:
        return all(
            not LIMITS[sku]
            or self.units(sku, "held", "confirmed", customer=hold.customer)
            - (quantity if without_own else 0)
            + quantity
            <= LIMITS[sku]
            for sku, quantity in hold.cart.items()
        )

    def reserve(self, hold: ModelHold) -> type[HoldfastError] | None:
        if self.paused:
            return errors.SalePaused
        if any(self.available(sku) < quantity for sku, quantity in hold.cart.items()):
            return errors.SoldOut
        if not self.fits_limit(hold, without_own=False):
            return errors.CustomerLimitReached
        return None

    def confirm(self, hold: ModelHold, payment: str) -> type[HoldfastError] | None:
        if hold.status == "confirmed":
            return None if payment == hold.payment else errors.ReservationConfirmed
        if hold.status == "released":
            return errors.ReservationReleased
        unswept = hold.status == "held"
        if hold.living(self.now):
            return None
        there = unswept or all(self.available(sku) >= quantity for sku, quantity in hold.cart.items())
        if payment in hold.refunded or not (there and self.fits_limit(hold, without_own=unswept)):
            hold.refunded.add(payment)
            return errors.ReservationExpired
        return None


class SaleMachine(RuleBasedStateMachine):
    """Each rule does the same to the real sale and to the model, and compares the answers."""

    servers: ClassVar[EmbeddedServers]
    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys_given = itertools.count()
        self.model = Model({})

    def run(self, awaitable: Any) -> Any:
        async def outcome() -> Any:
            try:
                return await awaitable
            except HoldfastError as error:
                return error

        return self.runner.run(outcome())

    @initialize(a=st.integers(0, 6), b=st.integers(0, 6))
    def open_sale(self, a: int, b: int) -> None:
        settings = Settings(redis_url=self.servers.redis_url, namespace=uuid.uuid4().hex[:12], partitions=1)
        redis, keys = connect(settings), Keys(settings.namespace, 1)
        self.redis = redis
        self.run(open_partitions(Lineage(redis, keys)))
        self.shop = Shop(Inventory(redis, keys, settings), redis)
        self.model = Model({"a": a, "b": b})
        self.run(self.shop.configure(a=(a, LIMITS["a"]), b=b, hold_seconds=HOLD_SECONDS, closes_in=10**10))

    @rule(target=holds, customer=CUSTOMERS, cart=CARTS)
    def reserve(self, customer: str, cart: dict[str, int]) -> Any:
        key = f"key-{next(self.keys_given)}"
        expected = self.model.reserve(
            hold := ModelHold(customer, cart, self.model.now, self.model.now + HOLD_SECONDS)
        )
        outcome = self.run(self.shop.reserve(customer, key, **cart))
        if expected is not None:
            assert type(outcome) is expected
            return multiple()
        assert isinstance(outcome, Reserved)
        self.model.holds[key] = hold
        again = self.run(self.shop.reserve(customer, key, **cart))
        assert again.replayed
        return key, outcome.reservation

    @rule(held=holds, payment=st.sampled_from(["p1", "p2"]))
    def confirm(self, held: Any, payment: str) -> None:
        key, reservation = held
        hold = self.model.holds[key]
        expected = self.model.confirm(hold, payment)
        outcome = self.run(self.shop.confirm(reservation, payment))
        if expected is not None:
            assert type(outcome) is expected
        else:
            assert outcome.order.payment_reference == payment
            hold.status, hold.payment = "confirmed", payment

    @rule(held=holds)
    def release(self, held: Any) -> None:
        key, reservation = held
        hold = self.model.holds[key]
        outcome = self.run(self.shop.inventory.release("sale", reservation.hold_id))
        if hold.status == "confirmed":
            assert type(outcome) is errors.ReservationConfirmed
        elif hold.living(self.model.now):
            hold.status = "released"
            assert outcome.status == "released"

    @rule(held=holds, seconds=st.integers(1, 700))
    def extend(self, held: Any, seconds: int) -> None:
        key, reservation = held
        hold = self.model.holds[key]
        outcome = self.run(self.shop.inventory.extend("sale", reservation.hold_id, seconds))
        longest = hold.created + MAX_HOLD_SECONDS - self.model.now
        if not hold.living(self.model.now):
            assert isinstance(outcome, HoldfastError)
        elif seconds > longest:
            assert type(outcome) is errors.ExtensionLimitReached
        elif seconds < longest:  # at the very limit the milliseconds between two calls decide
            hold.expires = max(hold.expires, self.model.now + seconds)
            assert outcome.expires_at >= reservation.expires_at

    @rule(held=consumes(holds), restock=st.booleans())
    def cancel(self, held: Any, restock: bool) -> None:
        key, reservation = held
        hold = self.model.holds[key]
        outcome = self.run(self.shop.inventory.cancel("sale", reservation.hold_id, restock, None))
        if hold.status != "confirmed":
            assert type(outcome) is errors.OrderNotFound
        elif not hold.cancelled:
            hold.cancelled = True
            if not restock:
                for sku, quantity in hold.cart.items():
                    self.model.allocated[sku] -= quantity

    @rule()
    def sweep(self) -> None:
        due = [member.partition("/")[2] for member in self.run(self.shop.due())]
        self.run(self.shop.inventory.expire("sale", due))
        for hold in self.model.holds.values():
            if hold.status == "held" and self.model.now >= hold.expires:
                hold.status = "expired"

    @rule(seconds=st.sampled_from([20, 61]))
    def wait(self, seconds: int) -> None:
        self.run(self.shop.wait(seconds))
        self.model.now += seconds

    @rule(sku=st.sampled_from(SKUS), quantity=st.integers(1, 3))
    def restock(self, sku: str, quantity: int) -> None:
        key = f"{next(self.keys_given):024}"
        for _ in range(2):
            self.run(self.shop.inventory.restock("sale", sku, quantity, key, "d", None))
        self.model.allocated[sku] += quantity

    @rule(sku=st.sampled_from(SKUS), quantity=st.integers(1, 3))
    def withdraw(self, sku: str, quantity: int) -> None:
        key = f"{next(self.keys_given):024}"
        outcome = self.run(self.shop.inventory.withdraw("sale", sku, quantity, key, "d", None))
        if self.model.available(sku) < quantity:
            assert type(outcome) is errors.InsufficientStock
        else:
            self.model.allocated[sku] -= quantity

    @rule()
    def pause_or_resume(self) -> None:
        self.run(self.shop.inventory.steer("sale", "resumed" if self.model.paused else "paused"))
        self.model.paused = not self.model.paused

    @invariant()
    @precondition(lambda self: self.model.allocated)
    def stock_is_what_the_model_says(self) -> None:
        expected = {
            sku: (
                self.model.allocated[sku],
                self.model.available(sku),
                self.model.units(sku, "held"),
                self.model.units(sku, "confirmed"),
            )
            for sku in SKUS
        }
        assert self.run(self.shop.stock()) == expected
        unswept = [hold for hold in self.model.holds.values() if hold.status == "held"]
        assert len(self.run(self.shop.due())) == len(unswept)

    def teardown(self) -> None:
        if hasattr(self, "redis"):
            self.run(self.redis.aclose())
        self.runner.close()


@pytest.mark.timeout(240)
def test_random_operations_agree_with_the_model(servers: EmbeddedServers) -> None:
    SaleMachine.servers = servers
    run_state_machine_as_test(
        SaleMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
