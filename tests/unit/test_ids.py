"""Ids of reservations: the same for a retry, another for whatever differs, and nobody's to guess."""

from itertools import combinations

from app.ids import RESERVATION_PREFIX, derived_hold_id, hold_id_of, random_hold_id

SECRET = b"s" * 32


def test_a_retry_has_the_same_id() -> None:
    ids = {derived_hold_id(SECRET, ("shop", "shop"), "sale", "key") for _ in range(2)}
    assert len(ids) == 1


def test_whatever_differs_makes_another_id() -> None:
    calls = [
        (SECRET, ("shop", "shop"), "sale", "key"),
        (b"t" * 32, ("shop", "shop"), "sale", "key"),
        (SECRET, ("customer", "shop"), "sale", "key"),
        (SECRET, ("shop", "ada"), "sale", "key"),
        (SECRET, ("shop", "shop"), "another", "key"),
        (SECRET, ("shop", "shop"), "sale", "another"),
        (SECRET, ("shop", "shopsale"), "", "key"),
        (SECRET, ("shop", "shop"), "salekey", ""),
        (SECRET, ("sho", "pshop"), "sale", "key"),
    ]
    ids = [derived_hold_id(*call) for call in calls]
    for (one, first), (other, second) in combinations(zip(calls, ids, strict=True), 2):
        assert first != second, (one, other)
    assert all(hold_id_of(RESERVATION_PREFIX + hold_id, RESERVATION_PREFIX) == hold_id for hold_id in ids)


def test_an_id_without_a_key_is_random_in_every_place() -> None:
    ids = [random_hold_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(set(place)) == 32 for place in zip(*ids, strict=True)), "130 bits, five in each place"
