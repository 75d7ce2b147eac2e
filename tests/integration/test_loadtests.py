"""The load test tells right from wrong: on a real service, with violations that are planted."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from app.demo.stage import Stage, running_stage
from loadtests.admin import Admin
from loadtests.options import Plan
from loadtests.tally import Fate, Tally, Told
from loadtests.verification import peak_units, verify

PROJECT = Path(__file__).resolve().parents[2]

PLANTED = """
from loadtests.locustfile import *
from loadtests.tally import Told

@events.test_stopping.add_listener
def claim_a_reservation_that_is_not_there(**_):
    Run.current.campaign.tally.told.append(Told("res_none", "liar", [("sneaker-40", 1)], 0.0, 0.0))
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with running_stage(Console(quiet=True)) as stage:
        yield stage


@pytest.fixture
def admin(stage: Stage) -> Admin:
    return Admin(stage.url, stage.variables["HOLDFAST_ADMIN_KEY"])


def run_python(
    *arguments: str, stage: Stage | None = None, folder: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    keys = stage.variables if stage else {}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder,
        env={**clean, **keys, "PYTHONPATH": str(PROJECT), "COLUMNS": "200"},
    )  # fmt: skip


def test_shoppers_and_auditor_agree(stage: Stage) -> None:
    done = run_python(
        "-m", "loadtests", "--host", stage.url, "--buyers", "100", "--stock", "20", "--seconds", "3",
        "--hold-seconds", "2", stage=stage,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the shoppers and the auditor agree" in done.stdout
    assert "✗" not in done.stdout


def test_claim_of_a_missing_reservation_fails_the_run(stage: Stage, tmp_path: Path) -> None:
    locustfile = tmp_path / "locustfile.py"
    locustfile.write_text(PLANTED)
    done = run_python(
        "-m", "locust", "-f", str(locustfile), "--headless", "--only-summary", "--users", "5",
        "--spawn-rate", "5", "--host", stage.url, "--buyers", "10", "--stock", "20",
        "--seconds", "2", "--hold-seconds", "1",
        stage=stage,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "res_none is missing" in " ".join(done.stdout.split())
    assert "VIOLATED" in done.stdout


def plan_of(stage: Stage, sale_id: str) -> Plan:
    now = time.time()
    return Plan(
        host=stage.url, sale_id=sale_id, own_sale=True, skus=("a",), limit=2, hold_seconds=1, buyers=1,
        workers=1, connections=1, starts_at=now, arrive_over=0, ends_at=now, settle_seconds=5,
        storefront_key="",
    )  # fmt: skip


def failed_checks(stage: Stage, admin: Admin, tally: Tally, sale_id: str) -> set[str]:
    verdict = verify(admin, plan_of(stage, sale_id), tally)
    failed = {check.name for check in verdict.checks if not check.ok}
    assert verdict.ok == (not failed)
    return failed


def told(
    reservation_id: str,
    customer: str = "c",
    fate: Fate = Fate.HELD,
    asked_at: float = 0.0,
    told_at: float = 0.1,
    released_at: float = 0.0,
    reacquired_at: float = 0.0,
) -> Told:
    times = {"released_at": released_at, "reacquired_at": reacquired_at}
    return Told(reservation_id, customer, [("a", 1)], asked_at, told_at, fate, "", **times)


def test_every_kind_of_violation_is_found(stage: Stage, admin: Admin) -> None:
    sale_id = f"checks-{time.time_ns()}"
    admin.create_sale(sale_id, {"a": 1}, limit=2, hold_seconds=1, opens_at=time.time() - 1, lasts=60)
    body = {"customer_id": "c", "items": [{"sku": "a", "quantity": 1}]}
    held = admin.call("POST", f"/v1/sales/{sale_id}/reservations", body)["id"]
    paid = {"payment_reference": "p"}
    order = admin.call("POST", f"/v1/sales/{sale_id}/reservations/{held}/confirm", paid)["id"]

    def bought(customer: str = "c") -> Told:
        one = told(held, customer, Fate.CONFIRMED)
        one.order_id = order
        return one

    assert failed_checks(stage, admin, Tally([bought()]), sale_id) == set()
    assert failed_checks(stage, admin, Tally([bought("other")]), sale_id) == {
        "reservations told, but not found so"
    }
    assert failed_checks(stage, admin, Tally([told(held)]), sale_id) == {
        "reservations told, but not found so", "orders that no shopper asked for",
    }  # fmt: skip
    assert failed_checks(stage, admin, Tally([]), sale_id) == {"orders that no shopper asked for"}
    assert failed_checks(stage, admin, Tally([bought(), bought("d")]), sale_id) == {
        "reservations, each told to one shopper", "reservations told, but not found so",
        "SKUs handed out beyond their units",
    }  # fmt: skip
    failing = Tally([bought()])
    failing.fail("reserve was answered 500")
    assert failed_checks(stage, admin, failing, sale_id) == {"unexpected answers"}


def test_peak_counts_only_units_that_are_surely_taken() -> None:
    def peak(*those: Told) -> int:
        return peak_units(those, hold_seconds=10)["a"]

    assert peak(told("1"), told("2")) == 2
    assert peak(told("1"), told("2", asked_at=10.0, told_at=10.1)) == 1
    assert peak(told("1", released_at=5.0), told("2", asked_at=5.0, told_at=5.1)) == 1
    assert peak(told("1", fate=Fate.CONFIRMED), told("2", asked_at=50.0, told_at=50.1)) == 2
    late = told("1", fate=Fate.CONFIRMED, reacquired_at=20.0)
    assert peak(late, told("2", asked_at=10.0, told_at=11.0, released_at=19.0)) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "No admin key"),
        (("--admin-key", "k", "--host", "http://192.0.2.1"), "is not this machine"),
        (("--admin-key", "k", "--host", "http://127.0.0.1:9"), "`holdfast up`"),
        (("--admin-key", "k", "--buyers", "1000001"), "--buyers"),
        (("--admin-key", "k", "--seconds", "3601"), "--seconds"),
        (("--admin-key", "k", "--existing"), "--existing needs --sale"),
    ],
)
def test_a_run_that_cannot_start_says_what_to_do(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = run_python("-m", "loadtests", *arguments, folder=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
