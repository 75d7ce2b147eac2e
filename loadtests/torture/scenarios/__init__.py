"""The scenarios: importing this registers all of them, in the order of the table."""

from loadtests.torture.scenarios import kills  # isort: skip
from loadtests.torture.scenarios import emptied  # isort: skip
from loadtests.torture.scenarios import outages  # isort: skip
from loadtests.torture.scenarios import restored  # isort: skip
from loadtests.torture.scenarios import redis_faults  # isort: skip
from loadtests.torture.scenarios import bounds  # isort: skip
from loadtests.torture.scenarios import overlap  # isort: skip
from loadtests.torture.scenarios import clocks  # isort: skip
from loadtests.torture.scenarios import rolling  # isort: skip
from loadtests.torture.scenarios import failover  # isort: skip

__all__ = [
    "bounds", "clocks", "emptied", "failover", "kills", "outages", "overlap", "redis_faults", "restored",
    "rolling",
]  # fmt: skip
