"""What a caller is told when Redis answers with an error: did nothing happen, or may something have?"""

from typing import Any

import pytest
from redis._parsers.base import BaseParser
from redis.asyncio import Redis

from app.errors import HoldfastError, OutcomeUnknown, StoreUnavailable
from app.scripts import Scripts

NOT_RUN = (
    "LOADING", "MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "TRYAGAIN", "BUSY", "OOM", "READONLY",
    "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS",
)  # fmt: skip


async def told(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, script: str, answer: str
) -> type[HoldfastError]:
    """The error of one call that Redis answers with this error line, as the client reads it."""

    async def evaluate(*_: Any) -> Any:
        raise BaseParser.parse_error(answer)  # type: ignore[no-untyped-call]

    scripts = Scripts(redis)
    monkeypatch.setattr(scripts, "_evaluate", evaluate)
    with pytest.raises(HoldfastError) as raised:
        await scripts.run(script, ["k"], ["a"])
    return type(raised.value)


@pytest.mark.parametrize("word", NOT_RUN)
async def test_an_error_from_before_the_script_ran_says_that_nothing_was_changed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    assert await told(redis, monkeypatch, "reserve", word) is StoreUnavailable


async def test_any_other_error_is_an_unknown_outcome_for_a_script_that_writes(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await told(redis, monkeypatch, "reserve", "ERR Error running script") is OutcomeUnknown
    assert await told(redis, monkeypatch, "lookup", "ERR Error running script") is StoreUnavailable
