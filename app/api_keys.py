"""API keys: made once, shown once, stored as SHA-256 (they are random, so a slow hash would add nothing)."""

import secrets
from hashlib import sha256
from typing import NamedTuple

import asyncpg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import audit_log
from app.database import QUERIES, connection
from app.errors import ConfigurationError
from app.migrate import current_pool
from app.models import UNKNOWN, Actor
from app.settings import Settings

SCOPES = ("storefront", "admin")


class ApiKey(NamedTuple):
    """`scope`: storefront or admin."""

    id: str
    name: str
    scope: str


def hash_key(key: str) -> bytes:
    return sha256(key.encode()).digest()


async def create(pool: asyncpg.Pool, name: str, scope: str, by: Actor = UNKNOWN) -> tuple[ApiKey, str]:
    """A new key and its secret, which nobody can read again.

    Raises ConfigurationError for another scope or a name that is not 1 to 200 characters.
    """
    if scope not in SCOPES:
        raise ConfigurationError(f"the scope must be {' or '.join(SCOPES)}, not {scope!r}")
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise ConfigurationError("the name must have 1 to 200 printable characters")
    key = ApiKey(f"key_{secrets.token_hex(6)}", name, scope)
    secret = f"hf_{secrets.token_urlsafe(32)}"
    async with connection(pool) as database, database.transaction():
        await database.execute(QUERIES["api_keys_create"], *key, hash_key(secret))
        after = {"name": name, "scope": scope}
        await audit_log.record(database, by, "key.created", subject=key.id, after=after)
    return key, secret


async def revoke(pool: asyncpg.Pool, key_id: str, by: Actor = UNKNOWN) -> bool:
    """Revokes the key; False if there is none of this id."""
    async with connection(pool) as database, database.transaction():
        key = await database.fetchrow(QUERIES["api_keys_revoke"], key_id)
        if key is not None:
            before = {"name": key["name"], "scope": key["scope"], "revoked": key["was_revoked"]}
            after = before | {"revoked": True}
            await audit_log.record(database, by, "key.revoked", subject=key_id, before=before, after=after)
    return key is not None


async def load(pool: asyncpg.Pool) -> dict[bytes, ApiKey]:
    """The accepted keys by the hash of their secret."""
    async with connection(pool) as database:
        rows = await database.fetch(QUERIES["api_keys_load"])
    return {row["hash"]: ApiKey(row["id"], row["name"], row["scope"]) for row in rows}


# The commands `holdfast keys …`: each returns an exit code.


async def create_command(settings: Settings, name: str, scope: str) -> int:
    async with current_pool(settings) as pool:
        key, secret = await create(pool, name, scope, audit_log.command_actor("keys create"))
    Console(stderr=True).print(f"{key.id} ({key.scope}): the key is shown only now", highlight=False)
    Console().print(secret, soft_wrap=True, highlight=False, markup=False)
    return 0


async def list_command(settings: Settings) -> int:
    async with current_pool(settings) as pool, connection(pool) as database:
        rows = await database.fetch(QUERIES["api_keys_list"])
    table = Table("id", "name", "scope", "created", "revoked")
    for row in rows:
        times = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (row["created_at"], row["revoked_at"]))
        table.add_row(row["id"], escape(row["name"]), row["scope"], *times)
    Console().print(table)
    return 0


async def revoke_command(settings: Settings, key_id: str) -> int:
    """Raises ConfigurationError if there is no such key."""
    async with current_pool(settings) as pool:
        if not await revoke(pool, key_id, audit_log.command_actor("keys revoke")):
            raise ConfigurationError(f"there is no key {key_id}: `holdfast keys list` shows them")
    Console(stderr=True).print(f"{key_id} is revoked", highlight=False)
    return 0
