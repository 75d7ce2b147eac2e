"""A row per unit, of which each request takes one that nobody else is taking: FOR UPDATE SKIP LOCKED.

Tuned like the row lock, with a partial index of the free units. It takes one unit a cart, checks no token and
keeps no idempotency keys, which is to its advantage.
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
from loadtests.bench.rivals.row_lock import keep_session

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS skip_locked;
CREATE TABLE IF NOT EXISTS skip_locked.units (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sale_id text NOT NULL, sku text NOT NULL,
  hold_id uuid, customer_id text, expires_at timestamptz);
CREATE INDEX IF NOT EXISTS free ON skip_locked.units (sale_id, sku, id) WHERE hold_id IS NULL;
"""
RESERVE = """
UPDATE skip_locked.units SET hold_id = $3, customer_id = $4, expires_at = now() + interval '10 minutes'
WHERE id = (
  SELECT id FROM skip_locked.units WHERE sale_id = $1 AND sku = $2 AND hold_id IS NULL
  LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
"""
"""Any free unit does: with an ORDER BY id the planner may walk the primary key, past all that was sold."""
BY_INDEX = {"enable_seqscan": "off"}
"""Nor may it read the table from its start, which it does as long as its statistics know of nothing sold."""
POOL_CONNECTIONS = 32
"""They share the fsyncs of their commits."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["RIVAL_STORE"],
        min_size=POOL_CONNECTIONS,
        max_size=POOL_CONNECTIONS,
        reset=keep_session,
        server_settings=BY_INDEX,
    ) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/sales/{sale_id}/reservations", status_code=201)
async def reserve(sale_id: str, body: ReservationRequest) -> Any:
    hold_id = uuid.uuid4()
    unit = await app.state.pool.fetchval(RESERVE, sale_id, body.items[0].sku, hold_id, body.customer_id)
    if unit is None:
        return JSONResponse({"code": "sold_out"}, 409)
    return {"id": str(hold_id), "sale_id": sale_id}


async def prepare(store: str, sale: str, units: int) -> None:
    """Opens a sale of `units` units of the SKU a."""
    connection = await asyncpg.connect(store)
    await connection.execute(SCHEMA)
    await connection.execute(
        "INSERT INTO skip_locked.units (sale_id, sku) SELECT $1, 'a' FROM generate_series(1, $2)", sale, units
    )
    await connection.execute("VACUUM ANALYZE skip_locked.units")
    await connection.close()


async def given(store: str, sale: str) -> int:
    """Units that customers hold."""
    connection = await asyncpg.connect(store)
    units = await connection.fetchval(
        "SELECT count(DISTINCT hold_id) FROM skip_locked.units WHERE sale_id = $1", sale
    )
    await connection.close()
    return int(units)
