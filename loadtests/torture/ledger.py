"""What clients were told: each operation that was acknowledged, and each answer that no client should get."""

from collections import Counter
from dataclasses import dataclass, field

from loadtests.tally import MAX_FAILURES_KEPT, Told


@dataclass(slots=True, kw_only=True)
class Hold(Told):
    """A reservation that a client was told of. Times: seconds since 1970 by this machine's clock."""

    sale_id: str
    key: str
    """Empty if it was asked for without one."""
    expires_at: float
    """As it was told last; an acknowledged extension moves it."""
    extended: bool = False
    contradictions: list[str] = field(default_factory=list)
    """Answers that can't be true if the service remembers what it acknowledged."""


@dataclass(frozen=True, slots=True)
class Movement:
    """Units that an operator was told are added, or with a negative quantity taken away."""

    sale_id: str
    sku: str
    quantity: int
    key: str


@dataclass(slots=True)
class Ledger:
    """Of one load. `acknowledged` counts operations by name, `retries` tries without a definite answer."""

    holds: list[Hold] = field(default_factory=list)
    movements: list[Movement] = field(default_factory=list)
    acknowledged: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """Answers that the contract does not know, and operations without a definite answer; the first few."""

    @property
    def total(self) -> int:
        return self.acknowledged.total()

    def fail(self, sentence: str) -> None:
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(sentence)
