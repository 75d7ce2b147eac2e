"""Times on the wire are RFC 3339 in UTC with milliseconds; inside they are milliseconds since 1970."""

from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(milliseconds: int) -> str:
    """`2026-11-27T18:00:00.000Z`"""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def milliseconds_of(moment: datetime) -> int:
    """Of an aware datetime; parts of a millisecond are dropped."""
    elapsed = moment - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
