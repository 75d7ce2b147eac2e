"""How often somebody may do something: rates, and a limiter with bounded state."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"([0-9]{1,9})/([smh])(?::([0-9]{1,9}))?")
MAX_COUNT = 1_000_000
MAX_KEYS = 65_536
"""Some 15 MB. Who can call from more addresses than that within seconds is not stopped by limits of one."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` in `seconds`, evenly refilled; after a pause up to `burst` at once."""

    count: int
    seconds: float
    burst: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """`20/s`, `600/m`, `1000/h`; the burst is the count, or stands behind a colon: `600/m:50`.

        Raises ValueError.
        """
        match = _RATE.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be a number per s, m or h, such as 20/s, or 600/m:50 with a burst of 50")
        count, burst = int(match[1]), int(match[3] or match[1])
        if not (1 <= count <= MAX_COUNT and 1 <= burst <= MAX_COUNT):
            raise ValueError(f"must have numbers from 1 to {MAX_COUNT}")
        return cls(count, _SECONDS[match[2]], burst)

    def __str__(self) -> str:
        unit = next(unit for unit, seconds in _SECONDS.items() if seconds == self.seconds)
        return f"{self.count}/{unit}" if self.burst == self.count else f"{self.count}/{unit}:{self.burst}"


class RateLimiter:
    """A rate for each key, by GCRA (ITU-T I.371): of a key one number is kept, the moment at which its burst
    will be whole again. At most `max_keys` are known; when there are more, the one that was longest silent
    goes, which the rate has usually forgiven already."""

    def __init__(
        self, rate: Rate, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._max_keys = max_keys
        self._interval = rate.seconds / rate.count
        self._tolerance = self._interval * (rate.burst - 1)
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._whole_at)

    def take(self, key: Hashable) -> float:
        """0 if the key may act, which counts; else the seconds until it may, and trying costs nothing."""
        now = self._clock()
        whole_at = max(now, self._whole_at.get(key, now))
        self._whole_at[key] = whole_at
        self._whole_at.move_to_end(key)
        wait = whole_at - self._tolerance - now
        if wait > 0:
            return wait
        self._whole_at[key] = whole_at + self._interval
        if len(self._whole_at) > self._max_keys:
            self._whole_at.popitem(last=False)
        return 0.0
