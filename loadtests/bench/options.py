"""What a run of the benchmarks is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    rounds: int = 5
    seconds: float = 4.0
    connections: int = 64
    quick: bool = False
