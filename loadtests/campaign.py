"""One process's part of a run: who comes when, and what they saw."""

import time
from collections.abc import Callable
from typing import Any

import gevent
from geventhttpclient.client import HTTPClient

from loadtests.options import Plan
from loadtests.shop import Shop
from loadtests.shoppers import Temper, Visit, run_visit
from loadtests.tally import Tally

NETWORK_TIMEOUT_SECONDS = 15.0


class Campaign:
    """Lets this process's share of the buyers in, spread over the time that the plan names."""

    def __init__(self, plan: Plan, worker: int, fire: Callable[..., None]) -> None:
        self.plan = plan
        self.tally = Tally()
        self._worker = worker
        self._share = plan.buyers // plan.workers + (worker < plan.buyers % plan.workers)
        self._admitted = 0
        self._client = HTTPClient.from_url(
            plan.host,
            concurrency=plan.connections,
            connection_timeout=NETWORK_TIMEOUT_SECONDS,
            network_timeout=NETWORK_TIMEOUT_SECONDS,
        )
        self._shop = Shop(self._client, plan, self.tally, fire)

    def next_visit(self) -> Visit | None:
        """The next customer, at the time of arrival; None once nobody comes any more."""
        number = self._admitted
        if number >= self._share:
            return None
        self._admitted += 1
        arrives_at = self.plan.starts_at + self.plan.arrive_over * number / self._share
        gevent.sleep(max(0.0, arrives_at - time.time()))
        if time.time() > self.plan.ends_at:
            self._admitted = self._share
            return None
        return Visit(self._shop, self.plan, f"{self.plan.starts_at:.0f}-{self._worker}-{number}")

    @property
    def admitted(self) -> int:
        return self._admitted

    def run_next(self, temper: Temper) -> bool:
        """Whether there was one more visit."""
        visit = self.next_visit()
        if visit is None:
            return False
        run_visit(visit, temper)
        return True

    def close(self) -> dict[str, Any]:
        """Hangs up; the tally, as a message for the process that verifies."""
        self._client.close()
        return self.tally.as_message()
