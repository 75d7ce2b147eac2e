"""The worker process: keeper, drain, sweeper and cleaner. Any number of them may run at once."""

from app.workers.runner import run

__all__ = ["run"]
