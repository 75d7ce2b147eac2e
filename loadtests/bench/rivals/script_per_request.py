"""One EVALSHA per request through redis-py: stock, hold and its place in a list of what expires.

Durable only where Redis has `appendfsync always`, and nothing of it is in a database. It takes one SKU a
cart, checks no token and keeps no idempotency keys, which is to its advantage.
"""

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from redis.asyncio import BlockingConnectionPool, Redis

from app.http.schemas import ReservationRequest

SCRIPT = """
local quantity = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or 0) < quantity then return 0 end
redis.call('DECRBY', KEYS[1], quantity)
redis.call('HSET', KEYS[2], 'customer', ARGV[3], 'quantity', quantity, 'expires', ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[2])
return 1
"""
HOLD_SECONDS = 600


def connect(store: str) -> Redis:
    """As many connections as requests are under way."""
    return Redis.from_pool(BlockingConnectionPool.from_url(store, max_connections=64))


async def hold(redis: Redis, sha: str, sale_id: str, customer_id: str, sku: str, quantity: int) -> str | None:
    """The hold's id, or None if there is not enough left."""
    hold_id = str(uuid.uuid4())
    expires = time.time() + HOLD_SECONDS
    keys = (f"stock:{sale_id}:{sku}", f"hold:{hold_id}", f"due:{sale_id}")
    held = await redis.evalsha(sha, len(keys), *keys, quantity, hold_id, customer_id, expires)
    return hold_id if held else None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with connect(os.environ["RIVAL_STORE"]) as app.state.redis:
        app.state.sha = await app.state.redis.script_load(SCRIPT)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/sales/{sale_id}/reservations", status_code=201)
async def reserve(sale_id: str, body: ReservationRequest) -> Any:
    item = body.items[0]
    hold_id = await hold(app.state.redis, app.state.sha, sale_id, body.customer_id, item.sku, item.quantity)
    if hold_id is None:
        return JSONResponse({"code": "sold_out"}, 409)
    return {"id": hold_id, "sale_id": sale_id}


async def prepare(store: str, sale: str, units: int) -> None:
    """Opens a sale of `units` units of the SKU a."""
    async with connect(store) as redis:
        await redis.set(f"stock:{sale}:a", units)


async def given(store: str, sale: str) -> int:
    """Units that customers hold: one in each hold."""
    async with connect(store) as redis:
        return int(await redis.zcard(f"due:{sale}"))
