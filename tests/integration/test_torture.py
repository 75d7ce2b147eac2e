"""A short round of the torture run, and that it notices a loss which is planted in a real installation."""

import asyncpg
import pytest

from loadtests.tally import Fate
from loadtests.torture.__main__ import QUICK, QUICK_SHARE
from loadtests.torture.bench import SCENARIOS, Bench, Scenario
from loadtests.torture.report import BEGIN, END, write
from loadtests.torture.runner import Plan, perform
from loadtests.torture.scenarios.emptied import KEYS, drained, redis_of
from loadtests.torture.stand import stand_of_up

PLAN = Plan(seed=20, share=QUICK_SHARE, clients=12)


async def lose_an_order(bench: Bench) -> None:
    """In both stores, so that they agree with each other: only its client knows of it."""
    assert list((bench.stand.data / "tmp").glob("holdfast-metrics-*")), "services write beside their data"
    async with bench.load.paused():
        bench.expect_done(bench.load.ledger.acknowledged.copy(), "hold")
        await drained(bench.stand)
        bought = next(hold for hold in bench.load.ledger.holds if hold.fate is Fate.CONFIRMED)
        hold_id = bought.reservation_id.removeprefix("res_")
        async with redis_of(bench.stand) as redis:
            assert await redis.hdel(KEYS.for_sale(bought.sale_id)[2], hold_id)
        connection = await asyncpg.connect(bench.stand.variables["HOLDFAST_DATABASE_URL"])
        for table, name in (("orders", bought.order_id), ("reservations", bought.reservation_id)):
            assert await connection.execute(f"DELETE FROM {table} WHERE id = $1", name) == "DELETE 1"  # noqa: S608
        await connection.close()


PLANTED = Scenario("planted", "An order forgotten", "by hand", stand_of_up, 1, 10, lose_an_order)


@pytest.mark.timeout(240)
def test_faults_lose_nothing_and_a_planted_loss_is_noticed() -> None:
    *rows, planted = perform([*(SCENARIOS[name] for name in QUICK), PLANTED], PLAN, lambda _: None)
    for row in rows:
        assert row.verdict.ok, row
        assert row.rounds == len(row.recoveries) >= 1
        assert row.verdict.acknowledged > 100
    emptied = next(row for row in rows if row.scenario.name == "empty-undrained")
    assert emptied.verdict.documented, "the worker was stopped, so something must have been in Redis only"
    assert not planted.verdict.ok
    assert "no hold was acknowledged meanwhile" in planted.verdict.wrong
    assert any("was acknowledged as confirmed, and is not" in lost for lost in planted.verdict.lost)


def test_the_page_has_a_place_for_the_table(tmp_path_factory: pytest.TempPathFactory) -> None:
    page = tmp_path_factory.mktemp("page") / "reliability.md"
    page.write_text(f"before\n{BEGIN}\nearlier table\n{END}\nafter\n")
    write(page, [], PLAN)
    text = page.read_text()
    assert "earlier table" not in text
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no place for the table"):
        write(page, [], PLAN)
