"""Schemathesis on the OpenAPI document: no 500, every answer documented, and no unit lost by any of it."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.http.conftest import ADMIN_KEY, Api

CONFIG = """
[phases.fuzzing.generation]
max-examples = 35
[phases.stateful]
max-steps = 20
[phases.stateful.generation]
max-examples = 50
[phases.stateful.inference]
algorithms = []
"""
"""Links that schemathesis guesses are left out: those of the document are what is tested."""
UNFIT = "positive_data_acceptance,use_after_free"
"""Rules that a JSON Schema cannot say (distinct SKUs, opens_at before closes_at) refuse data that it allows;
and a released reservation is still there to be read."""
SEED = "4"
SCENARIOS, LINKS = 10, 15
"""Of calls that follow each other, and of links followed, at the least; some sixty and forty are usual."""


def schemathesis(url: str, known: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {ADMIN_KEY}", "--exclude-checks", UNFIT,
        "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure", "--seed", SEED,
        "--generation-database", "none", "--no-color",
    ]  # fmt: skip
    (folder / "schemathesis.toml").write_text(CONFIG)
    environment = os.environ | known | {
        "SCHEMATHESIS_HOOKS": "tests.http.schemathesis_hooks", "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.timeout(240)
async def test_no_input_of_any_kind_breaks_the_service(api: Api, pool: asyncpg.Pool, tmp_path: Path) -> None:
    sales = ["sale", *(f"sale-{i}" for i in range(9))]
    for sale_id in (*sales, "closing"):
        await api.sale(sale_id, a=1000, b=1000)
    holds = [await api.hold(f"c{i}", a=1, b=1) for i in range(20)]
    for hold in holds[:5]:
        assert (await api.confirm(hold)).status_code in (200, 202)
    known = {
        "KNOWN_SALE_ID": " ".join(sales),
        "KNOWN_SKU": "a b",
        "KNOWN_RESERVATION_ID": " ".join(hold["id"] for hold in holds),
        "KNOWN_ORDER_ID": " ".join(hold["id"].replace("res_", "ord_") for hold in holds[:5]),
    }
    result = await asyncio.to_thread(schemathesis, api.url, known, tmp_path)
    assert result.returncode == 0, result.stdout[:12000] + result.stderr[-2000:]
    assert "Tested: 27" in result.stdout
    followed = re.search(r"API Links: +(\d+) covered / (\d+) selected", result.stdout)
    scenarios = re.search(r"Scenarios: +(\d+)", result.stdout)
    assert followed is not None, result.stdout[:3000]
    assert scenarios is not None, result.stdout[:3000]
    assert int(scenarios[1]) >= SCENARIOS
    assert int(followed[1]) >= LINKS, followed[0]
    for sale_id in sales:
        audit = await api.admin("GET", f"/{sale_id}/audit", timeout=20)
        assert audit.json()["ok"], audit.text
    assert await pool.fetchval("SELECT count(*) FROM rejects") == 0
