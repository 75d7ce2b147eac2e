"""What the shoppers themselves saw: it is compared with what the service says afterwards."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MAX_FAILURES_KEPT = 20


class Fate(StrEnum):
    """What became of a reservation, as far as its shopper was told. The `-ing` ones: no answer came."""

    HELD = "held"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    RELEASING = "releasing"
    RELEASED = "released"
    REFUND = "refund"


@dataclass(slots=True)
class Told:
    """A reservation that a shopper was told of. Times: seconds since 1970 on the shopper's clock."""

    reservation_id: str
    customer_id: str
    items: list[tuple[str, int]]
    asked_at: float
    told_at: float
    fate: Fate = Fate.HELD
    order_id: str = ""
    released_at: float = 0.0
    """When the release was asked for."""
    reacquired_at: float = 0.0
    """When the late payment was told to have succeeded."""


@dataclass
class Tally:
    """Counts and reservations of one process; `merge` adds another's."""

    told: list[Told] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How visits went (`visit …`), refusals by code (`refused …`), and the rest by name."""
    failures: list[str] = field(default_factory=list)
    """The first few; `counts["failures"]` has how many."""

    def fail(self, sentence: str) -> None:
        self.counts["failures"] += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(sentence)

    def merge(self, message: dict[str, Any]) -> None:
        for told in message["told"]:
            items = [(sku, quantity) for sku, quantity in told["items"]]
            self.told.append(Told(**{**told, "items": items, "fate": Fate(told["fate"])}))
        self.counts.update(message["counts"])
        self.failures = (self.failures + message["failures"])[:MAX_FAILURES_KEPT]

    def as_message(self) -> dict[str, Any]:
        return {
            "told": [{**asdict(told), "fate": told.fate.value} for told in self.told],
            "counts": dict(self.counts),
            "failures": self.failures,
        }

    def with_fate(self, *fates: Fate) -> list[Told]:
        return [told for told in self.told if told.fate in fates]

    def section(self, prefix: str) -> dict[str, int]:
        """Counts whose name starts with `prefix`, most frequent first."""
        return {
            name.removeprefix(prefix): count
            for name, count in self.counts.most_common()
            if name.startswith(prefix)
        }
