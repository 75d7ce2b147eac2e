"""Limits by a clock that the test moves: what they let through, and that they stay small."""

import pytest

from app.http.rate_limits import RateLimits, network_of
from app.rates import MAX_KEYS, Rate, RateLimiter
from app.settings import Settings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(rate: str, clock: Clock, max_keys: int = MAX_KEYS) -> RateLimiter:
    return RateLimiter(Rate.parse(rate), clock, max_keys)


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    clock = Clock()
    some = limiter("10/s:3", clock)
    assert [some.take("a") for _ in range(3)] == [0, 0, 0]
    assert some.take("a") == pytest.approx(0.1)
    passed = 0
    for _ in range(1000):  # ten seconds, asked a hundred times in each
        clock.now += 0.01
        passed += some.take("a") == 0
    assert passed == pytest.approx(100, abs=1)


def test_who_was_silent_has_the_whole_burst_again_and_not_more() -> None:
    clock = Clock()
    some = limiter("2/s", clock)
    for pause in (0, 3600):
        clock.now += pause
        assert [some.take("a") == 0 for _ in range(3)] == [True, True, False]


def test_a_refusal_says_how_long_to_wait_and_costs_nothing() -> None:
    clock = Clock()
    some = limiter("6/m:1", clock)
    assert some.take("a") == 0
    for _ in range(50):
        assert some.take("a") == pytest.approx(10)
    clock.now += 10
    assert some.take("a") == 0


def test_keys_do_not_share_a_rate() -> None:
    some = limiter("1/h", Clock())
    assert [some.take(key) > 0 for key in ("a", "b", "a", "b")] == [False, False, True, True]


def test_a_million_addresses_fit_and_whoever_asks_all_the_time_stays_limited() -> None:
    clock = Clock()
    some = limiter("1/h", clock, max_keys=1000)
    some.take(b"loud")
    for number in range(1_000_000):
        some.take(number)
        if number % 500 == 0:
            assert some.take(b"loud") > 0
    assert len(some) == 1000
    assert some.take(999_999) > 0
    assert some.take(0) == 0, "the one that was longest silent is forgotten"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20/s", Rate(20, 1, 20)),
        (" 600/m:50 ", Rate(600, 60, 50)),
        ("1/h:1000000", Rate(1, 3600, 1_000_000)),
    ],
)
def test_a_rate_is_read(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate
    assert str(rate) == text.strip()


@pytest.mark.parametrize("text", ["20", "0/s", "20/d", "-1/s", "1.5/s", "20/s:0", "9/s:", "9999999/s", "٣/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::9", True),
        ("2001:db8::1", "2001:DB8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("unknown", "x" * 100_000, True),
        ("\0", ":é", True),
        ("192.0.2.1", "unknown", False),
    ],
)
def test_an_ipv6_network_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
    assert len(network_of(other)) <= 8


def test_without_limits_there_is_nothing_to_call() -> None:
    assert RateLimits.of(Settings()) is None
    assert RateLimits.of(Settings(rate_limit_key="1/s")) is not None
