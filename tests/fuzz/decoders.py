"""Every decoder, with texts that it can read, and the errors that it says it may raise."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from app.errors import ConfigurationError, HoldfastError
from app.http import schemas
from app.ids import RESERVATION_PREFIX
from app.journal import WORDS
from app.pages import write_cursor
from app.times import rfc3339
from app.workers.drain import DATA_ERRORS
from tests.fuzz import reading
from tests.fuzz.reading import HOLD_ID
from tests.fuzz.texts import spoil
from tests.http.conftest import token

SLOW_SECONDS = 0.5
"""Of a processor, for one text of at most 20,000 characters."""
_HOLD = f"held 1790000000000 1790000060000 {'d' * 24} ada a=1,b=2"
_ORDER = _HOLD.replace("held", "confirmed") + ' confirmed 1790000001000 0 3-17 pay_1 {"a": 1}'
_WORD_VALUES = {
    "previous_id": "1-5", "sale": "sale", "hold": HOLD_ID, "customer": "ada", "items": "a=1,b=2",
    "digest": "d" * 24,
    "name": '"A sale"', "reason": '"found \\n more"', "metadata": '{"a":1}', "skus": "a=5/0/1,b=6/2/2",
    "sku": "a",
    "payment_reference": "pay_1", "reacquired": "0", "restock": "1", "stock": "a=5/3/1/1,b=6/6/0/0",
    "key": "k",
    "audit": "x", "kind": "stock", "change": '{"before":1,"after":2}',
}  # fmt: skip


@dataclass(frozen=True)
class Decoder:
    """`read` may raise `errors`, and nothing else. It returns what contradicts a round trip, or None."""

    name: str
    seeds: tuple[str, ...]
    read: Callable[[str], str | None]
    errors: tuple[type[Exception], ...] = ()


def _record(kind: str) -> str:
    return " ".join((kind, *(_WORD_VALUES.get(name, "1790000000000") for name in WORDS[kind])))


_RULES = "\t".join(
    f"{name}\t{value}"
    for name, value in {
        "name": '"A sale"', "opens_at": 1, "closes_at": 2, "hold_seconds": 60, "max_hold_seconds": 600,
        "created_at": 1, "updated_at": 1,
    }.items()
)  # fmt: skip
_RESERVATION_BODY = '{"customer_id":"ada","items":[{"sku":"a","quantity":1}]}'
_SALE_BODY = (
    '{"name":"A sale","opens_at":"2026-01-01T00:00:00Z","closes_at":"2027-01-01T00:00:00+01:00",'
    '"hold_seconds":60,"max_hold_seconds":600,"items":[{"sku":"a","quantity":1,"limit_per_customer":2}]}'
)
_JSON_HEADERS = (
    f"content-type: application/json\ncontent-length: {len(_RESERVATION_BODY)}\n\n{_RESERVATION_BODY}"
)
_KINDS = tuple(_record(kind) for kind in WORDS)
_INVALID = (HoldfastError,)
_MALFORMED = (ValueError,)
_CONFIRM_BODY = '{"payment_reference":"pay","metadata":{"a":[1,-0.0,"\\n\\u0001\\ud83d\\ude00"]}}'
_ENTRIES = tuple(f"3-17|1790000000000|{one}\n{next_one}" for one, next_one in pairwise(_KINDS))
_DRAINED = tuple(f"3-17|1790000000000|{by}|{one}" for by in ("- bob", "req-1 key") for one in _KINDS[1:])
_INSTANTS = ("2026-11-27T18:00:00.123456789Z", "2026-11-27T18:00:00+05:30", rfc3339(1))
_REDIS_URLS = ("redis://u:p@h:6379/0?socket_timeout=1", "unix:///run/r.sock?db=0", "rediss://[::1]:1")
_DATABASE_URL = "postgresql://u:p@h:5432,i:5433/d?host=/run&port=1,2"
_AUTHORIZATIONS = ("Bearer " + "a" * 20, "Bearer " + token("ada", exp=time.time() + 9_000))
_ENV = "HOLDFAST_REDIS_URL='unix:///r.sock?db=0'\n# more\nX=\"a b\"\n"

DECODERS = (
    Decoder(
        "headers",
        ("host: x\nauthorization: Bearer x\nidempotency-key: k\nidempotency-key: k",),
        reading.headers,
    ),
    Decoder("body", (_JSON_HEADERS,), reading.body, _INVALID),
    Decoder("Idempotency-Key", ("key-1", '"key-1"', "k" * 255), reading.key, _INVALID),
    Decoder("reservation", (_RESERVATION_BODY,), reading.parser(schemas.ReservationRequest), _INVALID),
    Decoder("confirmation", (_CONFIRM_BODY,), reading.parser(schemas.ConfirmRequest), _INVALID),
    Decoder("extension", ('{"seconds":60}',), reading.parser(schemas.ExtendRequest), _INVALID),
    Decoder("sale's definition", (_SALE_BODY,), reading.parser(schemas.SaleRequest), _INVALID),
    Decoder(
        "movement", ('{"quantity":5,"reason":"found"}',), reading.parser(schemas.MovementRequest), _INVALID
    ),
    Decoder(
        "cancellation",
        ('{"restock":false,"reason":"lost"}',),
        reading.parser(schemas.CancelRequest),
        _INVALID,
    ),
    Decoder("Prefer", ("wait=5", 'respond-async, wait="7"; a="b\\"c", x', "a;b=c;d, wait = 3"), reading.wait),
    Decoder("cursor", (write_cursor((1_790_000_000_000, HOLD_ID)),), reading.cursor, _INVALID),
    Decoder("If-None-Match", ('W/"abc", "def"', "*"), reading.etags),
    Decoder("public id", (RESERVATION_PREFIX + HOLD_ID,), reading.hold_id),
    Decoder("journal entry", _ENTRIES, reading.entry, _MALFORMED),
    Decoder("events", _KINDS, reading.events, _MALFORMED),
    Decoder("entry to drain", _DRAINED, reading.drained, DATA_ERRORS),
    Decoder("reject's id", ("3/1-42/0",), reading.reject_id, (ConfigurationError,)),
    Decoder("rate", ("20/s", "600/m:50"), reading.rate, _MALFORMED),
    Decoder("client's address", ("192.0.2.1", "2001:db8::1%eth0", "::ffff:192.0.2.1"), reading.network),
    Decoder("items", ("a=1,b=2", "a=1000"), reading.items, _MALFORMED),
    Decoder("packed hold", (_HOLD, _ORDER), reading.packed_hold, _MALFORMED),
    Decoder("stock row", ("9 5 3 1", "9 5 3 1 2 9 1"), reading.stock_row, _MALFORMED),
    Decoder("sale", (f"{_RULES}|\t\ta\t9 5 3 1 2 9 1\tb\t9 5 3 1 0 9 2",), reading.sale, _MALFORMED),
    Decoder("audited stock", ("a=9/5/3/1/2/9/1,b=1/1/0/0/0/1/2", "-"), reading.audited, _MALFORMED),
    Decoder("skus", ("a=5/0/1,b=6/2/2", "-"), reading.skus, _MALFORMED),
    Decoder("instant", _INSTANTS, reading.instant, _MALFORMED),
    Decoder("Redis URL", _REDIS_URLS, reading.redis_url, _MALFORMED),
    Decoder("database URL", (_DATABASE_URL,), reading.database_url, _MALFORMED),
    Decoder("origins", ("https://shop.example, http://localhost:3000", "*"), reading.origins, _MALFORMED),
    Decoder("token", _AUTHORIZATIONS, reading.authorization, _INVALID),
    Decoder("env file", (_ENV,), reading.env, (ConfigurationError,)),
)


def fuzz(decoder: Decoder, seed: int, inputs: int) -> list[str]:
    """Reads so many texts; what went wrong, and with which text."""
    random = Random(f"{seed}:{decoder.name}")
    faults = []
    for number in range(inputs):
        text = (
            spoil(random, random.choice(decoder.seeds))
            if number >= len(decoder.seeds)
            else decoder.seeds[number]
        )
        started = time.thread_time()
        fault = _fault_of(decoder, text)
        if fault is None and time.thread_time() - started > SLOW_SECONDS:
            fault = f"took {time.thread_time() - started:.1f} s"
        if fault:
            faults.append(f"{decoder.name}: {fault}\n  text: {text[:500]!r}")
    return faults


def _fault_of(decoder: Decoder, text: str) -> str | None:
    try:
        return decoder.read(text)
    except decoder.errors:
        return None
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error)[:200]}"
