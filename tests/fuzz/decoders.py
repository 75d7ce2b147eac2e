"""Every decoder, with texts that it can read, and the errors that it says it may raise."""

import asyncio
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson
from pydantic import SecretStr

from app import outbox
from app.embedded.installation import _read_env
from app.errors import ConfigurationError, HoldfastError
from app.http import schemas
from app.http.auth import Authenticator
from app.http.availability import etag_matches
from app.http.body import name_headers, parse, read_body, read_idempotency_key
from app.http.requests import read_wait
from app.ids import RESERVATION_PREFIX, hold_id_of, random_hold_id
from app.invariants import parse_stock
from app.journal import WORDS, Record, format_items, parse_entry, parse_items
from app.models import JournalId
from app.packing import read_hold, read_sale, read_stock
from app.pages import read_cursor, write_cursor
from app.settings import Settings, load_settings
from app.times import rfc3339
from tests.fuzz.texts import spoil
from tests.http.conftest import AUDIENCE, ISSUER, JWT_SECRET, token

SLOW_SECONDS = 0.5
"""Of a processor, for one text of at most 20,000 characters."""
HOLD_ID = "0123456789abcdefghjkmnpqrs"
_HOLD = f"held 1790000000000 1790000060000 {'d' * 24} ada a=1,b=2"
_ORDER = "confirmed 1790000001000 0 3-17 pay_1 "
_WORD_VALUES = {
    "previous_id": "1-5", "sale": "sale", "hold": HOLD_ID, "customer": "ada", "items": "a=1,b=2", "digest": "d" * 24,
    "name": '"A sale"', "reason": '"found \\n more"', "metadata": '{"a":1}', "skus": "a=5/0/1,b=6/2/2", "sku": "a",
    "payment_reference": "pay_1", "reacquired": "0", "restock": "1", "stock": "a=5/3/1/1,b=6/6/0/0", "key": "k",
    "audit": "x",
}  # fmt: skip


@dataclass(frozen=True)
class Decoder:
    """`read` may raise `errors`, and nothing else. It returns what contradicts a round trip, or None."""

    name: str
    seeds: tuple[str, ...]
    read: Callable[[str], str | None]
    errors: tuple[type[Exception], ...] = ()


_runner = asyncio.Runner()


def _record(kind: str) -> str:
    return " ".join((kind, *(_WORD_VALUES.get(name, "1790000000000") for name in WORDS[kind])))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _headers(text: str) -> str | None:
    lines = [tuple(line.partition(b": ")[::2]) for line in _raw(text).split(b"\n")]
    named = name_headers(lines)  # type: ignore[arg-type]
    return None if named.keys() == {name for name, _ in lines} else "other names"


def _body(text: str) -> str | None:
    """Headers, a blank line and a body, which comes in pieces."""
    head, _, body = _raw(text).partition(b"\n\n")
    headers = name_headers([tuple(line.partition(b": ")[::2]) for line in head.split(b"\n")])  # type: ignore[misc]
    pieces = [body[at : at + 700] for at in range(0, len(body), 700)] or [b""]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    read = _runner.run(read_body(receive, headers, 16_384, 1.0))
    return None if read == body else "another body"


def _key(text: str) -> str | None:
    key = read_idempotency_key(_raw(text))
    return None if key and re.fullmatch(r"[!-~]{1,255}", key) else f"accepted as {key!r}"


def _parser(model: type[Any]) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        parsed = parse(model, _raw(text))
        metadata = getattr(parsed, "metadata", b"{}")
        return (
            None
            if orjson.loads(metadata) is not None and b"\n" not in metadata
            else "metadata that is no line"
        )

    return read


def _wait(text: str) -> str | None:
    found = read_wait([text])
    return None if found is None or 0 <= found < 10**9 else f"{found}"


def _cursor(text: str) -> str | None:
    key = read_cursor(text)
    return None if key[0] is not None and read_cursor(write_cursor(key)) == key else "another key"


def _hold_id(text: str) -> str | None:
    found = hold_id_of(text, RESERVATION_PREFIX)
    return None if found is None or RESERVATION_PREFIX + found == text else found


def _entry(text: str) -> str | None:
    place, _, rest = text.partition("|")
    at, _, records = rest.partition("|")
    for record in parse_entry(place, {"at": at, "records": records}):
        words = record.words()
        if " ".join(words.values()) != record.text:
            return "other words"
        outbox.events_of("source", record, words)
    return None


def _events(text: str) -> str | None:
    kind, _, rest = text.partition(" ")
    record = Record(JournalId(1, 2), 0, 1_790_000_000_000, kind, rest)
    for event in outbox.events_of("source", record, record.words()):
        orjson.loads(event.payload)
    return None


def _items(text: str) -> str | None:
    items = parse_items(text)
    return None if parse_items(format_items(items)) == items else "other items"


def _packed_hold(text: str) -> str | None:
    read_hold("sale", HOLD_ID, text, 1_790_000_000_000)
    return None


def _sale(text: str) -> str | None:
    rules, _, stock = text.partition("|")
    read_sale("sale", 1_790_000_000_000, "open", rules.split("\t"), stock.split("\t"))
    return None


def _instant(text: str) -> str | None:
    moment = schemas._instant(text)
    return None if schemas._instant(rfc3339(moment)) == moment else "another time"


def _redis_url(text: str) -> str | None:
    return None if Settings._redis_url_is_one(text) == text else "another URL"


def _database_url(text: str) -> str | None:
    return (
        None if Settings._database_url_is_one(SecretStr(text)).get_secret_value() == text else "another URL"
    )


def _origins(text: str) -> str | None:
    Settings._origins_are_origins(Settings._split_origins(text))
    return None


_authenticator = Authenticator(
    load_settings(
        admin_key="a" * 20,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_algorithm="HS256",
        jwt_key=JWT_SECRET,
    )
)


def _authorization(text: str) -> str | None:
    principal = _authenticator.authenticate(_raw(text))
    return None if principal.is_admin or principal.customer_id == "ada" else f"{principal}"


def _env(text: str) -> str | None:
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(_raw(text))
        file.flush()
        _read_env(Path(file.name))
    return None


_RULES = "\t".join(
    f"{name}\t{value}"
    for name, value in {
        "name": '"A sale"', "opens_at": 1, "closes_at": 2, "hold_seconds": 60, "max_hold_seconds": 600,
        "created_at": 1, "updated_at": 1,
    }.items()
)  # fmt: skip
_RESERVATION_BODY = '{"customer_id":"ada","items":[{"sku":"a","quantity":1}]}'
_SALE_BODY = (
    '{"name":"A sale","opens_at":"2026-01-01T00:00:00Z","closes_at":"2027-01-01T00:00:00+01:00","hold_seconds":60,'
    '"max_hold_seconds":600,"items":[{"sku":"a","quantity":1,"limit_per_customer":2}]}'
)
_JSON_HEADERS = (
    f"content-type: application/json\ncontent-length: {len(_RESERVATION_BODY)}\n\n{_RESERVATION_BODY}"
)
_KINDS = tuple(_record(kind) for kind in WORDS)
_INVALID = (HoldfastError,)
_MALFORMED = (ValueError,)

DECODERS = (
    Decoder("headers", ("host: x\nauthorization: Bearer x\nidempotency-key: k\nidempotency-key: k",), _headers),
    Decoder("body", (_JSON_HEADERS,), _body, _INVALID),
    Decoder("Idempotency-Key", ("key-1", '"key-1"', "k" * 255), _key, _INVALID),
    Decoder("reservation", (_RESERVATION_BODY,), _parser(schemas.ReservationRequest), _INVALID),
    Decoder("confirmation", ('{"payment_reference":"pay","metadata":{"a":[1,-0.0,"\\n\\u0001\\ud83d\\ude00"]}}',),
            _parser(schemas.ConfirmRequest), _INVALID),
    Decoder("extension", ('{"seconds":60}',), _parser(schemas.ExtendRequest), _INVALID),
    Decoder("sale's definition", (_SALE_BODY,), _parser(schemas.SaleRequest), _INVALID),
    Decoder("movement", ('{"quantity":5,"reason":"found"}',), _parser(schemas.MovementRequest), _INVALID),
    Decoder("cancellation", ('{"restock":false,"reason":"lost"}',), _parser(schemas.CancelRequest), _INVALID),
    Decoder("Prefer", ("wait=5", 'respond-async, wait="7"; a="b\\"c", x', "a;b=c;d, wait = 3"), _wait),
    Decoder("cursor", (write_cursor((1_790_000_000_000, random_hold_id())),), _cursor, _INVALID),
    Decoder("If-None-Match", ('W/"abc", "def"', "*"), lambda text: etag_matches(text, 'W/"abc"') and None),
    Decoder("public id", (RESERVATION_PREFIX + HOLD_ID,), _hold_id),
    Decoder("journal entry", tuple(f"3-17|1790000000000|{a}\n{b}" for a, b in zip(_KINDS, _KINDS[1:], strict=False)),
            _entry, _MALFORMED),
    Decoder("events", _KINDS, _events, _MALFORMED),
    Decoder("items", ("a=1,b=2", "a=1000"), _items, _MALFORMED),
    Decoder("packed hold", (_HOLD, _HOLD.replace("held", "confirmed") + " " + _ORDER + '{"a": 1}'), _packed_hold,
            _MALFORMED),
    Decoder("stock row", ("9 5 3 1", "9 5 3 1 2 9 1"), lambda text: read_stock("a", text) and None, _MALFORMED),
    Decoder("sale", (f"{_RULES}|\t\ta\t9 5 3 1 2 9 1\tb\t9 5 3 1 0 9 2",), _sale, _MALFORMED),
    Decoder("audited stock", ("a=9/5/3/1,b=1/1/0/0", "-"), lambda text: None if parse_stock(text) is not None else "", _MALFORMED),
    Decoder("skus", ("a=5/0/1,b=6/2/2", "-"), lambda text: None if outbox.parse_skus(text) is not None else "", _MALFORMED),
    Decoder("instant", ("2026-11-27T18:00:00.123456789Z", "2026-11-27T18:00:00+05:30", rfc3339(1)), _instant, _MALFORMED),
    Decoder("Redis URL", ("redis://u:p@h:6379/0?socket_timeout=1", "unix:///run/r.sock?db=0", "rediss://[::1]:1"),
            _redis_url, _MALFORMED),
    Decoder("database URL", ("postgresql://u:p@h:5432,i:5433/d?host=/run&port=1,2",), _database_url, _MALFORMED),
    Decoder("origins", ("https://shop.example, http://localhost:3000", "*"), _origins, _MALFORMED),
    Decoder("token", ("Bearer " + "a" * 20, "Bearer " + token("ada", exp=time.time() + 9_000)), _authorization, _INVALID),
    Decoder("env file", ("HOLDFAST_REDIS_URL='unix:///r.sock?db=0'\n# more\nX=\"a b\"\n",), _env, (ConfigurationError,)),
)  # fmt: skip


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
