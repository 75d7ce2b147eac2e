"""The worker process: keeper, drain and sweeper. Any number of them may run at once."""

from app.workers.runner import run

__all__ = ["run"]
