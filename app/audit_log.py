"""The audit log: who did what and when, and what was before and after. A trigger keeps it append-only.

What travels in the journal is written by the drain (app/workers/acts.py). An act on Postgres alone is
recorded here, in the very transaction that does it.
"""

import getpass
import os
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from app.database import QUERIES, Database, connection
from app.models import Actor
from app.pages import Page, make_page, read_cursor
from app.times import milliseconds_of


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `before` and `after` are JSON; `at`: milliseconds."""

    id: int
    at: int
    actor: Actor
    action: str
    sale_id: str | None
    subject: str | None
    """What in the sale, or besides: a SKU, an order, a key, a partition."""
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Criteria:
    """Of the list; None filters nothing. `since` and `until`: milliseconds, from and up to, not including."""

    sale_id: str | None = None
    actor: str | None = None
    action: str | None = None
    since: int | None = None
    until: int | None = None


def command_actor(command: str) -> Actor:
    """Who runs a command: `holdfast keys revoke (root)`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        user = str(os.getuid())
    return Actor(f"holdfast {command} ({user})")


async def record(
    database: Database,
    actor: Actor,
    action: str,
    *,
    sale_id: str | None = None,
    subject: str | None = None,
    before: Any = None,
    after: Any = None,
) -> None:
    """Adds a row, in the caller's transaction. `action`: `thing.done`; `before` and `after` become JSON."""
    changed = (None if value is None else orjson.dumps(value).decode() for value in (before, after))
    await database.execute(
        QUERIES["audit_log_record"], actor.name, actor.request_id, action, sale_id, subject, *changed
    )


async def entries(
    pool: asyncpg.Pool, criteria: Criteria, limit: int, cursor: str | None = None
) -> Page[Entry]:
    """Newest first. Raises ValidationFailed for a cursor that this list has not given, StoreUnavailable."""
    last, _ = read_cursor(cursor)
    async with connection(pool) as database:
        rows = await database.fetch(
            QUERIES["audit_log_list"], criteria.sale_id, criteria.actor, criteria.action,
            criteria.since, criteria.until, last, limit + 1,
        )  # fmt: skip
    return make_page(rows, limit, _entry, lambda row: (row["id"], ""))


def _entry(row: asyncpg.Record) -> Entry:
    actor = Actor(row["actor"], row["request_id"])
    words = (row[name] for name in ("action", "sale_id", "subject", "before", "after"))
    return Entry(row["id"], milliseconds_of(row["at"]), actor, *words)
