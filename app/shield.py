"""Sold out is the common answer of a flash sale: for a moment a process may give it without asking Redis."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

BOUND_SECONDS = 0.25
"""The longest that units which came back stay invisible to a request without an Idempotency-Key."""
_SALES, _SKUS = 100, 1_000
"""As much as is remembered, of sales and of the SKUs of one; beyond it all is asked again."""


class _Gone(NamedTuple):
    held: str
    until: float


class SoldOutShield:
    """The SKUs of which nothing was available a moment ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._gone: dict[str, dict[str, _Gone]] = {}
        self._forgotten: dict[str, float] = {}
        """When a sale was last forgotten."""
        self._all_forgotten = -math.inf

    def learn(self, sale_id: str, words: str, asked_at: float) -> None:
        """What the script said, to a question that was asked at `asked_at`: units may have come back at any
        moment since."""
        _, sku, _, available, held = words.split(" ")
        if available != "0" or asked_at <= self._forgotten.get(sale_id, self._all_forgotten):
            return
        skus = self._gone.setdefault(sale_id, {})
        skus[sku] = _Gone(held, asked_at + BOUND_SECONDS)
        if len(skus) > _SKUS or len(self._gone) > _SALES:
            self._gone.clear()

    def words(self, sale_id: str, sku: str, quantity: int) -> str | None:
        """What the script would say, as far as is known; None where it has to be asked."""
        skus = self._gone.get(sale_id)
        gone = skus.get(sku) if skus else None
        if gone is None or self.clock() >= gone.until:
            return None
        return f"sold_out {sku} {quantity} 0 {gone.held}"

    def forget(self, sale_id: str) -> None:
        """Stock of the sale may have moved, or its rules."""
        self._gone.pop(sale_id, None)
        self._forgotten[sale_id] = self.clock()
        if len(self._forgotten) > _SALES:
            self._forgotten.clear()
            self._all_forgotten = self.clock()
