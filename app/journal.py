"""The journal's records, as the scripts write them and the drain reads them.

An entry of a partition's stream has the id `epoch-sequence` (the sequence is dense) and these fields: `at`
(milliseconds), `records`, a line per change: its kind, then its words, separated by spaces, which no id
contains, and for an operator's act `by`, who it was: the id of the request and the API key's. Free text is
JSON, so it has no line breaks, and comes last. `items` is `sku=quantity,…`.

| kind | words |
|---|---|
| opened | previous_id: the head of the epoch before, `0-0` at the very first |
| configured | sale opens_at closes_at hold_seconds max_hold_seconds skus name |
| paused, resumed, closed | sale |
| held | sale hold customer expires_at digest items |
| extended | sale hold customer expires_at |
| released, expired | sale hold customer items |
| confirmed | sale hold customer items reacquired payment_reference metadata |
| refund_required | sale hold customer items payment_reference |
| cancelled | sale hold customer items restock reason |
| restocked, withdrawn | sale sku quantity allocated available held sold key digest reason |
| audited | sale audit, five counts, eight rules, stock name |
| repaired | sale kind change |

`skus` is `sku=quantity/limit/position,…`, `stock` is
`sku=allocated/available/held/sold/limit/first_quantity/position,…`; `-` where empty. The counts are reserved
confirmed released expired cancelled, the rules opens_at closes_at hold_seconds max_hold_seconds paused closed
created_at updated_at.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.models import Actor, Item, JournalId

WORDS: Mapping[str, tuple[str, ...]] = {
    "opened": ("previous_id",),
    "configured": ("sale", "opens_at", "closes_at", "hold_seconds", "max_hold_seconds", "skus", "name"),
    "paused": ("sale",),
    "resumed": ("sale",),
    "closed": ("sale",),
    "held": ("sale", "hold", "customer", "expires_at", "digest", "items"),
    "extended": ("sale", "hold", "customer", "expires_at"),
    "released": ("sale", "hold", "customer", "items"),
    "expired": ("sale", "hold", "customer", "items"),
    "confirmed": ("sale", "hold", "customer", "items", "reacquired", "payment_reference", "metadata"),
    "refund_required": ("sale", "hold", "customer", "items", "payment_reference"),
    "cancelled": ("sale", "hold", "customer", "items", "restock", "reason"),
    "restocked": (
        "sale", "sku", "quantity", "allocated", "available", "held", "sold", "key", "digest", "reason",
    ),
    "withdrawn": (
        "sale", "sku", "quantity", "allocated", "available", "held", "sold", "key", "digest", "reason",
    ),
    "audited": (
        "sale", "audit", "reserved", "confirmed", "released", "expired", "cancelled",
        "opens_at", "closes_at", "hold_seconds", "max_hold_seconds", "paused", "closed", "created_at",
        "updated_at", "stock", "name",
    ),
    "repaired": ("sale", "kind", "change"),
}  # fmt: skip
"""The words of each kind, in their order."""

LAST_DATE = 253_402_300_799_999
"""Milliseconds, the end of the year 9999: dates that Postgres and Python can both read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One change. `ordinal`: its place in its entry, from 0. `at`: milliseconds. `by`: None for shoppers."""

    id: JournalId
    ordinal: int
    at: int
    kind: str
    text: str
    by: Actor | None = None

    def words(self) -> dict[str, str]:
        """The words by name.

        Raises ValueError if the record has not the words that its kind has.
        """
        names = WORDS.get(self.kind)
        if names is None:
            raise ValueError(f"unknown kind of record {self.kind!r}")
        values = self.text.split(" ", len(names) - 1)
        if len(values) != len(names):
            raise ValueError(f"a record {self.kind!r} has {len(names)} words, not {len(values)}")
        return dict(zip(names, values, strict=True))


def parse_entry(entry_id: str, fields: Mapping[str, str]) -> list[Record]:
    """The records of one stream entry.

    Raises ValueError if it is not an entry of this journal.
    """
    if fields.keys() - {"by"} != {"at", "records"} or not fields.get("by", "").isprintable():
        raise ValueError(f"entry {entry_id} is not of this journal")
    place, at = JournalId.parse(entry_id), int(fields["at"])
    if not 0 <= at <= LAST_DATE:
        raise ValueError(f"entry {entry_id} is of no date")
    by = Actor.parse(fields["by"]) if "by" in fields else None
    lines = (line.partition(" ") for line in fields["records"].split("\n"))
    return [Record(place, ordinal, at, kind, words, by) for ordinal, (kind, _, words) in enumerate(lines)]


def parse_items(items: str) -> tuple[Item, ...]:
    """`sku=quantity,…` as items."""
    return tuple(
        Item(sku, int(quantity)) for sku, _, quantity in (line.partition("=") for line in items.split(","))
    )


def format_items(items: Iterable[Item]) -> str:
    return ",".join([f"{item.sku}={item.quantity}" for item in items])
