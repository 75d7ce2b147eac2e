"""The verdict of a torture run can fail: each kind of loss that is planted is found, and counted as such."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from loadtests.tally import Fate
from loadtests.torture.ledger import Hold, Ledger, Movement
from loadtests.torture.load import QUANTITIES
from loadtests.torture.verdict import Found, Operation, Verdict, judge_sale

SALE = "sale"


def hold(name: str, **more: Any) -> Hold:
    return Hold(
        reservation_id=f"res_{name}",
        customer_id=f"c-{name}",
        items=[("scarce", 1)],
        asked_at=100.0,
        told_at=100.1,
        sale_id=SALE,
        key=f"key-{name}",
        expires_at=102.0,
        **more,
    )


def ledger() -> Ledger:
    return Ledger(
        holds=[
            hold("expired"),
            hold("bought", fate=Fate.CONFIRMED, order_id="ord_bought"),
            hold("released", fate=Fate.RELEASED, released_at=101.0),
            hold("extended", extended=True),
        ],
        movements=[Movement(SALE, "steady", 5, "more"), Movement(SALE, "steady", -2, "less")],
    )


def row(name: str, status: str) -> dict[str, Any]:
    return {
        "id": f"res_{name}",
        "customer_id": f"c-{name}",
        "status": status,
        "items": [{"sku": "scarce", "quantity": 1}],
        "expires_at": "1970-01-01T00:01:42.000Z",
    }


def found() -> Found:
    order = row("bought", "confirmed") | {
        "id": "ord_bought", "reservation_id": "res_bought", "persisted": True,
    }  # fmt: skip
    statuses = {"expired": "expired", "bought": "confirmed", "released": "released", "extended": "expired"}
    sold = {"scarce": 1}
    allocated = QUANTITIES | {"steady": QUANTITIES["steady"] + 3}
    return Found(
        {f"res_{name}": row(name, status) for name, status in statuses.items()},
        {"ord_bought": order},
        [
            {"reason": "more", "sku": "steady", "kind": "restocked", "quantity": 5},
            {"reason": "less", "sku": "steady", "kind": "withdrawn", "quantity": -2},
        ],
        [
            {
                "sku": sku,
                "allocated": units,
                "available": units - sold.get(sku, 0),
                "held": 0,
                "sold": sold.get(sku, 0),
            }
            for sku, units in allocated.items()
        ],
        {"ok": True, "invariants": [{"name": "held", "ok": True, "expected": 0, "found": 0}]},
    )


def verdict_on(told: Ledger, state: Found, only_in_redis: frozenset[Operation] = frozenset()) -> Verdict:
    verdict = Verdict()
    judge_sale(SALE, state, told, only_in_redis, verdict)
    return verdict


def scarce(state: Found) -> dict[str, Any]:
    return next(row for row in state.stock if row["sku"] == "scarce")


LOSSES: dict[str, Callable[[Found], Any]] = {
    "held": lambda state: state.reservations.pop("res_expired"),
    "confirmed": lambda state: state.orders.pop("ord_bought"),
    "released": lambda state: state.reservations["res_released"].update(status="expired"),
    "extended": lambda state: state.reservations["res_extended"].update(
        expires_at="1970-01-01T00:01:41.999Z"
    ),
    "restocked": lambda state: state.movements.pop(0),
    "withdrawn": lambda state: state.movements.pop(1),
}
OF = {
    "held": "res_expired", "confirmed": "res_bought", "released": "res_released",
    "extended": "res_extended", "restocked": "more", "withdrawn": "less",
}  # fmt: skip

WRONGS: dict[str, Callable[[Ledger, Found], Any]] = {
    "told to nobody": lambda told, state: state.reservations.update(res_other=row("other", "expired")),
    "ordered by nobody": lambda told, state: state.orders["ord_bought"].update(reservation_id="res_expired"),
    "told to two clients": lambda told, state: told.holds.append(deepcopy(told.holds[0])),
    "moved stock 2 times": lambda told, state: state.movements.append(state.movements[0]),
    "not the whole": lambda told, state: scarce(state).update(available=6),
    "sold, 1 ordered": lambda told, state: scarce(state).update(sold=2, available=6),
    "allocated, by what was told": lambda told, state: scarce(state).update(allocated=9, available=8),
    "expected 0, found 3": lambda told, state: state.audit["invariants"][0].update(ok=False, found=3),
    "is confirmed, its shopper": lambda told, state: state.reservations["res_expired"].update(
        status="confirmed"
    ),
    "confirm was answered": lambda told, state: told.holds[0].contradictions.append("confirm was answered"),
}


def test_what_is_as_it_was_told_passes() -> None:
    assert verdict_on(ledger(), found()) == Verdict()


@pytest.mark.parametrize("kind", LOSSES)
def test_a_lost_operation_is_counted(kind: str) -> None:
    state = found()
    LOSSES[kind](state)
    verdict = verdict_on(ledger(), state)
    assert not verdict.ok
    assert len(verdict.lost) == 1
    assert kind in verdict.lost[0]


@pytest.mark.parametrize("kind", LOSSES)
def test_what_only_an_emptied_redis_knew_is_counted_apart(kind: str) -> None:
    state = found()
    LOSSES[kind](state)
    verdict = verdict_on(ledger(), state, frozenset([(kind, OF[kind])]))
    assert verdict.lost == []
    assert len(verdict.documented) == 1


@pytest.mark.parametrize("sentence", WRONGS)
def test_a_second_effect_or_a_broken_count_is_told(sentence: str) -> None:
    told, state = ledger(), found()
    WRONGS[sentence](told, state)
    verdict = verdict_on(told, state)
    assert not verdict.ok
    assert any(sentence in wrong for wrong in verdict.wrong), verdict


def test_more_units_ordered_than_there_are_is_oversold() -> None:
    told, state = ledger(), found()
    told.holds = [one for one in told.holds if one.fate is Fate.CONFIRMED]
    scarce(state).update(allocated=0, available=-1)
    assert verdict_on(told, state).oversold == 1


def test_more_units_held_at_a_moment_than_there_are_is_oversold() -> None:
    """Although every hold has ended since, and the stock adds up."""
    told, state = ledger(), found()
    for number in range(QUANTITIES["scarce"]):
        told.holds.append(hold(f"more{number}"))
        state.reservations[f"res_more{number}"] = row(f"more{number}", "expired")
    assert verdict_on(told, state).oversold == 4
