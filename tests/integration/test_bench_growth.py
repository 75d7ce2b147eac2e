"""The lab of the benchmark's section on growth: it makes and ends the holds that it says it does."""

from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from loadtests.bench.growth_lab import Lab, open_lab
from loadtests.bench.growth_meter import metered
from loadtests.bench.growth_sweep import LINES, sweep_steps
from tests.redis_server import RedisServer


@pytest.fixture
async def lab(store: RedisServer) -> AsyncIterator[Lab]:
    async with open_lab(store.url) as lab:
        yield lab


async def test_a_sale_is_filled_with_as_many_holds_as_asked_for(lab: Lab) -> None:
    await lab.open_sale("sale")
    await lab.fill("sale", 150)
    assert await lab.redis.zcard(lab.keys.due(0)) == 150
    assert await lab.redis.xlen(lab.keys.journal(0)) == 0
    assert (await lab.redis.config_get("appendfsync"))["appendfsync"] == "always"
    cost = await lab.cost(["sale"], batches=1)
    assert cost.cpu > 0
    assert await lab.redis.zcard(lab.keys.due(0)) == 150 + 64


async def test_all_that_is_due_is_swept_in_steps(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LINES, 1, 100)
    monkeypatch.setitem(LINES, 5, 20)
    monkeypatch.delitem(LINES, 20)
    single, carts = await sweep_steps(lab, False, Console(quiet=True))
    assert (single.lines, single.holds, carts.lines, carts.holds) == (1, 100, 5, 20)
    assert len(single.cpu) >= 5
    assert len(carts.cpu) >= 4
    assert await lab.redis.zcard(lab.keys.due(0)) == 0


async def test_the_meter_tells_of_each_call_by_its_script(lab: Lab, store: RedisServer) -> None:
    await lab.open_sale("sale")
    async with metered(lab.redis) as (meter, url), open_lab(url) as measured:
        for _ in range(2):  # by the first time the server may not know the scripts
            await meter.take()
            await measured.inventory.snapshot("sale")
            await measured.fill("sale", 1)
        calls = await meter.take()
    assert len(calls["snapshot"]) == 1
    assert len(calls["reserve"]) == 1
    assert all(took >= 0 for took in calls["reserve"])
