"""How long and how hard a benchmark run measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    rounds: int = 5
    """Of each contender, in turn."""
    seconds: float = 3.0
    """Per round and contender."""
    connections: int = 64
    """Kept alive, one request in flight on each."""
    quick: bool = False
    """A trial: everything runs, nothing is precise."""

    @classmethod
    def for_trial(cls) -> "Options":
        return cls(rounds=1, seconds=1.0, quick=True)
