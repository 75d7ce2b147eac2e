"""What decides the exit code of `holdfast demo`."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.demo.crowd import Crowd, Sale
from app.demo.report import LAST_LINE, final_table
from app.demo.stage import Persisted, Stage
from app.embedded.servers import EmbeddedServers

SALE = Sale("demo", 2, 1, 1, 1, 3, 1.0, 1.0)


def verdict(ok: bool) -> dict[str, Any]:
    """As loadtests/ reports it."""
    check = {"name": "sold_equals_orders", "ok": ok, "expected": 1, "found": int(ok)}
    return {
        "ok": ok,
        "stock": [{"allocated": 1, "available": 0, "held": 0, "sold": 1}],
        "audit": {"invariants": [check]},
        "checks": [],
    }


@pytest.mark.parametrize(
    ("ok", "with_outbox_row", "agreed"), [(True, 1, True), (False, 1, False), (True, 0, False)]
)
def test_the_account_adds_up_only_if_all_agree(
    tmp_path: Path, ok: bool, with_outbox_row: int, agreed: bool
) -> None:
    text = io.StringIO()
    crowd = Crowd(Stage("http://127.0.0.1:1", EmbeddedServers(tmp_path), {}), SALE, verdict=verdict(ok))
    persisted = Persisted(orders=1, with_outbox_row=with_outbox_row)
    assert final_table(Console(file=text, width=100), SALE, crowd, persisted, 1.0) is agreed
    assert (LAST_LINE in text.getvalue()) is agreed
    assert ("✗" in text.getvalue()) is not agreed
