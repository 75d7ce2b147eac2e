"""`holdfast audit` as a process: its exit code tells a broken invariant from an audit without a verdict."""

import asyncio
import os
import subprocess
import sys

import orjson
import pytest
from redis.asyncio import Redis

from app.inventory import Inventory
from app.settings import Settings
from tests.conftest import ID_SECRET
from tests.shop import Shop


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"SALE": "stranger"}, 3),
        ({"REDIS_URL": "unix:///nowhere/redis.sock"}, 3),
        ({"DATABASE_URL": "postgresql://nobody@/nowhere?host=/nowhere"}, 3),
    ],
)
async def test_no_verdict_is_not_a_broken_invariant(
    inventory: Inventory, redis: Redis, database: str, settings: Settings, changed: dict[str, str], code: int
) -> None:
    shop = Shop(inventory, redis)
    await shop.configure(a=2)
    await shop.confirm(await shop.hold("buyer", a=1))
    variables = {
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": database,
        "NAMESPACE": settings.namespace,
        "PARTITIONS": str(settings.partitions),
        "ID_SECRET": ID_SECRET,
        "ALLOW_VOLATILE": "true",
        "STARTUP_TIMEOUT_SECONDS": "1",
        "SALE": "sale",
    } | changed
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "audit", "--json", "--sale", variables.pop("SALE"),
        env=os.environ | {f"HOLDFAST_{name}": value for name, value in variables.items()},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, complaint = await process.communicate()
    assert process.returncode == code, complaint.decode()
    if code == 0:
        assert orjson.loads(out)["ok"]
    else:
        assert out == b""
        assert complaint.splitlines()[-1].startswith(b"holdfast: ")
        assert b"Traceback" not in complaint
