"""What a process may say of sold-out SKUs without asking, by a clock that the test moves."""

from app.shield import BOUND_SECONDS, SoldOutShield


def test_no_returned_unit_may_stay_invisible_for_longer_than_was_promised() -> None:
    assert BOUND_SECONDS <= 0.25


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def gone(clock: Clock) -> SoldOutShield:
    shield = SoldOutShield(clock)
    shield.learn("sale", "sold_out a 2 0 5", clock.now)
    return shield


def test_what_is_sold_out_is_said_for_every_quantity_until_the_bound() -> None:
    clock = Clock()
    shield = gone(clock)
    clock.now += BOUND_SECONDS - 0.001
    assert shield.words("sale", "a", 1) == "sold_out a 1 0 5"
    clock.now += 0.001
    assert shield.words("sale", "a", 1) is None


def test_the_bound_counts_from_the_question_not_from_its_answer() -> None:
    clock = Clock()
    shield = SoldOutShield(clock)
    asked_at = clock.now
    clock.now += 0.2
    shield.learn("sale", "sold_out a 1 0 0", asked_at)
    clock.now += 0.06
    assert shield.words("sale", "a", 1) is None


def test_units_that_are_left_are_not_sold_out() -> None:
    clock = Clock()
    shield = SoldOutShield(clock)
    shield.learn("sale", "sold_out a 3 2 0", clock.now)
    assert shield.words("sale", "a", 3) is None


def test_other_skus_and_sales_are_asked_for() -> None:
    shield = gone(Clock())
    assert shield.words("sale", "b", 1) is None
    assert shield.words("other", "a", 1) is None


def test_it_forgets_a_sale_whose_stock_may_have_moved() -> None:
    clock = Clock()
    shield = gone(clock)
    shield.learn("other", "sold_out a 1 0 0", clock.now)
    shield.forget("sale")
    assert shield.words("sale", "a", 1) is None
    assert shield.words("other", "a", 1) is not None


def test_an_answer_that_was_asked_for_before_units_came_back_is_not_learnt() -> None:
    clock = Clock()
    shield = SoldOutShield(clock)
    asked_at = clock.now
    clock.now += 0.01
    shield.forget("sale")
    shield.learn("sale", "sold_out a 1 0 0", asked_at)
    assert shield.words("sale", "a", 1) is None


def test_what_it_remembers_is_bounded() -> None:
    clock = Clock()
    shield = SoldOutShield(clock)
    for sale in range(101):
        shield.learn(f"sale-{sale}", "sold_out a 1 0 0", clock.now)
    assert shield.words("sale-0", "a", 1) is None
