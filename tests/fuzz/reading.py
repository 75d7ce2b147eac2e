"""Reads texts with every decoder. Each function returns what contradicts a round trip, or None, and raises as
the decoder does."""

import asyncio
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr

from app import outbox
from app.embedded.installation import _read_env
from app.http import schemas
from app.http.auth import Authenticator
from app.http.availability import etag_matches
from app.http.body import name_headers, parse, read_body, read_idempotency_key
from app.http.rate_limits import network_of
from app.http.requests import read_wait
from app.ids import RESERVATION_PREFIX, hold_id_of
from app.invariants import parse_stock
from app.journal import Record, format_items, parse_entry, parse_items
from app.models import JournalId
from app.packing import read_hold, read_sale, read_stock
from app.pages import read_cursor, write_cursor
from app.rates import Rate
from app.rejects import RejectId
from app.settings import Settings, load_settings
from app.times import rfc3339
from app.workers.batch import Batch
from tests.http.conftest import AUDIENCE, ISSUER, JWT_SECRET

HOLD_ID = "0123456789abcdefghjkmnpqrs"

_runner = asyncio.Runner()


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def headers(text: str) -> str | None:
    lines = [tuple(line.partition(b": ")[::2]) for line in _raw(text).split(b"\n")]
    named = name_headers(lines)  # type: ignore[arg-type]
    return None if named.keys() == {name for name, _ in lines} else "other names"


def body(text: str) -> str | None:
    """Headers, a blank line and a body, which comes in pieces."""
    head, _, sent = _raw(text).partition(b"\n\n")
    headers = name_headers([tuple(line.partition(b": ")[::2]) for line in head.split(b"\n")])  # type: ignore[misc]
    pieces = [sent[at : at + 700] for at in range(0, len(sent), 700)] or [b""]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    read = _runner.run(read_body(receive, headers, 16_384, 1.0))
    return None if read == sent else "another body"


def key(text: str) -> str | None:
    given = read_idempotency_key(_raw(text))
    return None if given and re.fullmatch(r"[!-~]{1,255}", given) else f"accepted as {given!r}"


def parser(model: type[Any]) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        parsed = parse(model, _raw(text))
        metadata = getattr(parsed, "metadata", b"{}")
        return (
            None
            if orjson.loads(metadata) is not None and b"\n" not in metadata
            else "metadata that is no line"
        )

    return read


def wait(text: str) -> str | None:
    found = read_wait([text])
    return None if found is None or 0 <= found < 10**9 else f"{found}"


def cursor(text: str) -> str | None:
    found = read_cursor(text)
    return None if found[0] is not None and read_cursor(write_cursor(found)) == found else "another key"


def etags(text: str) -> str | None:
    return None if etag_matches(text, 'W/"abc"') in (True, False) else "neither"


def hold_id(text: str) -> str | None:
    found = hold_id_of(text, RESERVATION_PREFIX)
    return None if found is None or RESERVATION_PREFIX + found == text else found


def entry(text: str) -> str | None:
    place, _, rest = text.partition("|")
    at, _, records = rest.partition("|")
    for record in parse_entry(place, {"at": at, "records": records}):
        words = record.words()
        if " ".join(words.values()) != record.text:
            return "other words"
        outbox.events_of("source", record, words)
    return None


def drained(text: str) -> str | None:
    place, at, by, records = (text.split("|", 3) + [""] * 3)[:4]
    Batch("source", 0, parse_entry(place, {"at": at, "by": by, "records": records}))
    return None


def reject_id(text: str) -> str | None:
    read = RejectId.parse(text)
    return None if RejectId.parse(str(read)) == read else "another id"


def rate(text: str) -> str | None:
    read = Rate.parse(text)
    return None if Rate.parse(str(read)) == read else "another rate"


def network(text: str) -> str | None:
    return None if len(network_of(text)) in (0, 4, 8) else "no network"


def events(text: str) -> str | None:
    kind, _, rest = text.partition(" ")
    record = Record(JournalId(1, 2), 0, 1_790_000_000_000, kind, rest)
    for event in outbox.events_of("source", record, record.words()):
        orjson.loads(event.payload)
    return None


def items(text: str) -> str | None:
    parsed = parse_items(text)
    return None if parse_items(format_items(parsed)) == parsed else "other items"


def packed_hold(text: str) -> str | None:
    read_hold("sale", HOLD_ID, text, 1_790_000_000_000)
    return None


def stock_row(text: str) -> str | None:
    row = read_stock("a", text)
    words = f"{row.allocated} {row.available} {row.held} {row.sold}"
    return None if read_stock("a", words) == replace(row, limit_per_customer=None) else "another row"


def audited(text: str) -> str | None:
    return None if all(len(row) == 7 for row in parse_stock(text).values()) else "a row that is not whole"


def skus(text: str) -> str | None:
    return None if text == "-" or len(outbox.parse_skus(text)) == text.count(",") + 1 else "other SKUs"


def sale(text: str) -> str | None:
    rules, _, stock = text.partition("|")
    read_sale("sale", 1_790_000_000_000, "open", rules.split("\t"), stock.split("\t"))
    return None


def instant(text: str) -> str | None:
    moment = schemas._instant(text)
    return None if schemas._instant(rfc3339(moment)) == moment else "another time"


def redis_url(text: str) -> str | None:
    return None if Settings._redis_url_is_one(text) == text else "another URL"


def database_url(text: str) -> str | None:
    return (
        None if Settings._database_url_is_one(SecretStr(text)).get_secret_value() == text else "another URL"
    )


def origins(text: str) -> str | None:
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


def authorization(text: str) -> str | None:
    principal = _authenticator.authenticate(_raw(text))
    return None if principal.is_admin or principal.customer_id == "ada" else f"{principal}"


def env(text: str) -> str | None:
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(_raw(text))
        file.flush()
        _read_env(Path(file.name))
    return None
