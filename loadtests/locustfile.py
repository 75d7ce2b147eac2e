"""Shoppers for locust: `locust -f loadtests/locustfile.py --host URL`; docs/loadtests.md tells the rest."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import Semaphore
from locust import FastHttpUser, constant, events
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

# locust loads this file by its path; its neighbours are a package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests import options, report
from loadtests.admin import Admin, AdminError
from loadtests.campaign import Campaign
from loadtests.options import Plan, RunRefused, check_options
from loadtests.shoppers import TEMPERS, Temper
from loadtests.verification import verify

log = logging.getLogger("holdfast.loadtests")

OPENS_IN_SECONDS = 1.5
EARLY_SECONDS = 0.5
"""The first shoppers come this long before the doors open."""
SALE_LASTS_AFTER_RUN_SECONDS = 600.0
PROGRESS_SECONDS = 0.25
LAST_VISIT_SECONDS = 30.0
"""On top of the holds' time, for those still in the shop when the time is up."""
REPORT_SECONDS = 15.0
"""A worker of locust that takes longer is taken for lost."""
TALLY_MESSAGE = "holdfast_tally"


class Run:
    """The run that `environment` performs now: made at its start, verified once at its end."""

    current: "Run | None" = None

    def __init__(self, environment: Any, plan: Plan, admin: Admin | None) -> None:
        self.environment = environment
        self.plan = plan
        self.admin = admin
        worker = getattr(environment.runner, "worker_index", 0)
        self.campaign = Campaign(plan, worker, environment.events.request.fire)
        self.reported = Semaphore(0)
        """Released for each worker of a distributed run that has sent its tally."""
        self.ending = False
        self.ended = Event()
        self.lines = environment.parsed_options.holdfast_json_lines

    def watch(self) -> None:
        """Shows progress, and stops the run when the last shopper has left or the time is up."""
        runner = self.environment.runner
        latest = self.plan.ends_at + self.plan.hold_seconds * 2 + LAST_VISIT_SECONDS
        while runner.user_count and time.time() < latest:
            if self.lines:
                report.print_line("progress", **report.progress(self.environment, self.campaign.tally))
            gevent.sleep(PROGRESS_SECONDS)
        # First stop: workers of a master that quits at once have no time to report.
        runner.stop()
        if self.environment.parsed_options.headless:
            runner.quit()

    def verify(self, admin: Admin) -> None:
        """Compares, prints, and sets the exit code."""
        tally = self.campaign.tally
        if isinstance(self.environment.runner, MasterRunner):
            for _ in range(self.plan.workers):
                if not self.reported.acquire(timeout=REPORT_SECONDS):
                    tally.fail("a worker of locust did not report what its shoppers saw")
        try:
            verdict = verify(admin, self.plan, tally)
        except (AdminError, OSError) as error:
            return fail(self.environment, f"The run could not be verified: {error}")
        if self.lines:
            report.print_line("progress", **report.progress(self.environment, tally))
            report.print_line("verdict", **report.verdict_message(self.plan, tally, verdict))
        else:
            report.print_table(self.plan, tally, verdict)
        self.environment.process_exit_code = 0 if verdict.ok else 1
        return None


def fail(environment: Any, sentence: str) -> None:
    """Says why there is nothing to see, to people or to a program."""
    environment.process_exit_code = 1
    if environment.parsed_options.holdfast_json_lines:
        report.print_line("failed", reason=sentence)
    else:
        print(sentence, file=sys.stderr)


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    options.add_to_locust(parser)


@events.init.add_listener
def _listen_to_workers(environment: Any, **_: Any) -> None:
    def merge(msg: Any, **_: Any) -> None:
        if Run.current:
            Run.current.campaign.tally.merge(msg.data)
            Run.current.reported.release()

    if isinstance(environment.runner, MasterRunner):
        environment.runner.register_message(TALLY_MESSAGE, merge)


@events.test_start.add_listener
def _start(environment: Any, **_: Any) -> None:
    chosen, Run.current = environment.parsed_options, None
    if isinstance(environment.runner, WorkerRunner):
        if chosen.holdfast_plan:
            Run.current = Run(environment, Plan.from_message(chosen.holdfast_plan), None)
        return
    chosen.holdfast_plan = None
    try:
        host = check_options(environment.host, chosen)
        admin = Admin(host, chosen.holdfast_admin_key)
        admin.require_answer()
        workers = environment.runner.worker_count if isinstance(environment.runner, MasterRunner) else 1
        plan = make_plan(admin, host, chosen, workers)
    except (RunRefused, AdminError, OSError) as error:
        fail(environment, str(error))
        if chosen.headless:
            gevent.spawn(environment.runner.quit)
        return
    environment.process_exit_code = 1  # until it is verified
    # locust sends its options to the workers before they start.
    chosen.holdfast_plan = plan.as_message()
    Run.current = Run(environment, plan, admin)


def make_plan(admin: Admin, host: str, chosen: Any, workers: int) -> Plan:
    """Creates the sale, or reads the one to shop in. Raises RunRefused, AdminError, OSError."""
    opens_at = time.time() + OPENS_IN_SECONDS
    sale_id = chosen.holdfast_sale or f"load-{opens_at:.0f}"
    if chosen.holdfast_existing:
        sale = admin.sale(sale_id)
    else:
        lasts = chosen.holdfast_seconds + SALE_LASTS_AFTER_RUN_SECONDS
        sale = admin.create_sale(
            sale_id, share_stock(chosen.holdfast_stock, chosen.holdfast_skus), chosen.holdfast_limit,
            chosen.holdfast_hold_seconds, opens_at, lasts,
        )  # fmt: skip
    starts_at = opens_at - EARLY_SECONDS
    return Plan(
        host=host,
        sale_id=sale_id,
        own_sale=not chosen.holdfast_existing,
        skus=tuple(item["sku"] for item in sale["items"]),
        limit=min(item["limit_per_customer"] or chosen.holdfast_limit for item in sale["items"]),
        hold_seconds=sale["hold_seconds"],
        buyers=chosen.holdfast_buyers,
        workers=workers,
        connections=chosen.holdfast_connections,
        starts_at=starts_at,
        arrive_over=chosen.holdfast_arrive_over or chosen.holdfast_seconds / 2,
        ends_at=starts_at + chosen.holdfast_seconds,
        settle_seconds=chosen.holdfast_settle_seconds,
        storefront_key=chosen.holdfast_storefront_key or chosen.holdfast_admin_key,
    )


def share_stock(units: int, skus: int) -> dict[str, int]:
    """Units per SKU, as evenly as it goes."""
    if not 1 <= skus <= units:
        raise RunRefused("--skus must be at least 1 and not more than --stock")
    return {f"sneaker-{40 + n}": units // skus + (n < units % skus) for n in range(skus)}


@events.spawning_complete.add_listener
def _watch(**_: Any) -> None:
    run = Run.current
    if run and run.admin:
        gevent.spawn(run.watch)


@events.test_stop.add_listener
def _finish(environment: Any, **_: Any) -> None:
    run = Run.current
    if run is None or run.ending:
        return
    run.ending = True
    message = run.campaign.close()
    try:
        if run.admin:
            run.verify(run.admin)
        else:
            environment.runner.send_message(TALLY_MESSAGE, message)
    finally:
        Run.current = None
        run.ended.set()


@events.quitting.add_listener
def _verify_before_exit(environment: Any, **_: Any) -> None:
    """After a signal locust asks for the exit code before it stops the run."""
    run = Run.current
    if run:
        environment.runner.stop()
        run.ended.wait()  # it may be another greenlet that verifies


def _as_task(temper: Temper) -> Callable[["Shopper"], None]:
    def task(user: "Shopper") -> None:
        if not (Run.current and Run.current.campaign.run_next(temper)):
            raise StopUser

    task.__name__ = temper.__name__
    return task


class Shopper(FastHttpUser):
    """One shopper after another, each a customer of its own, until all buyers have come."""

    wait_time = constant(0)
    # locust takes shares by task, and spreads them over a list.
    tasks = {_as_task(temper): share for temper, share in TEMPERS.items()}  # type: ignore[assignment] # noqa: RUF012
