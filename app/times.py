"""Times on the wire are RFC 3339 in UTC with milliseconds; inside they are milliseconds since 1970."""

from datetime import UTC, datetime
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    # Formatting a date costs more than all else of an answer; holds of the same second share it.
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, OSError):
        raise ValueError(f"{seconds} seconds since 1970 are no date") from None


def rfc3339(milliseconds: int) -> str:
    """`2026-11-27T18:00:00.000Z`. Raises ValueError for what is no date."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_to_the_second(seconds)}.{rest:03d}Z"


def milliseconds_of(moment: datetime) -> int:
    """Of an aware datetime; parts of a millisecond are dropped."""
    elapsed = moment - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
