"""What a team would write in an afternoon: a row per SKU, conditional UPDATE and INSERT in one transaction.

Tuned: both are one prepared statement and so one round trip, which holds the row's lock for as short as can
be. It takes one SKU a cart, checks no token and keeps no idempotency keys, which is to its advantage.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from app.http.schemas import ReservationRequest

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS row_lock;
CREATE TABLE IF NOT EXISTS row_lock.stock (
  sale_id text, sku text, available bigint NOT NULL CHECK (available >= 0), PRIMARY KEY (sale_id, sku));
CREATE TABLE IF NOT EXISTS row_lock.holds (
  id uuid PRIMARY KEY, sale_id text NOT NULL, sku text NOT NULL, quantity bigint NOT NULL,
  customer_id text NOT NULL, expires_at timestamptz NOT NULL);
"""
RESERVE = """
WITH taken AS (
  UPDATE row_lock.stock SET available = available - $3
  WHERE sale_id = $1 AND sku = $2 AND available >= $3 RETURNING 1)
INSERT INTO row_lock.holds SELECT $4, $1, $2, $3, $5, now() + interval '10 minutes' FROM taken RETURNING id
"""
POOL_CONNECTIONS = 16
"""More only wait for the same row's lock."""


async def keep_session(_connection: Any) -> None:
    """Instead of the pool's RESET after each use, a round trip: nothing here changes the session."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["RIVAL_STORE"], min_size=POOL_CONNECTIONS, max_size=POOL_CONNECTIONS, reset=keep_session
    ) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/sales/{sale_id}/reservations", status_code=201)
async def reserve(sale_id: str, body: ReservationRequest) -> Any:
    item, hold_id = body.items[0], uuid.uuid4()
    given = await app.state.pool.fetchval(
        RESERVE, sale_id, item.sku, item.quantity, hold_id, body.customer_id
    )
    if given is None:
        return JSONResponse({"code": "sold_out"}, 409)
    return {"id": str(hold_id), "sale_id": sale_id}


async def prepare(store: str, sale: str, units: int) -> None:
    """Opens a sale of `units` units of the SKU a."""
    connection = await asyncpg.connect(store)
    await connection.execute(SCHEMA)
    await connection.execute("INSERT INTO row_lock.stock VALUES ($1, 'a', $2)", sale, units)
    await connection.close()


async def given(store: str, sale: str) -> int:
    """Units that customers hold."""
    connection = await asyncpg.connect(store)
    units = await connection.fetchval(
        "SELECT coalesce(sum(quantity), 0)::bigint FROM row_lock.holds WHERE sale_id = $1", sale
    )
    await connection.close()
    return int(units)
