"""Secrets wherever one can be, and none of them in logs, answers, metrics or what commands print."""

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from app import api_keys
from app.embedded.servers import EmbeddedServers
from app.errors import ConfigurationError
from app.http.auth import Authenticator
from app.lineage import Lineage
from app.settings import Settings, load_settings
from tests.http.conftest import AUDIENCE, ISSUER, Api, sale, token, until

# None of them is a word of anything else, and none has a form by which it could be recognized.
ADMIN, STOREFRONT = "admin-sesame-opens", "storefront-sesame-opens"
ID_SECRET, JWT_KEY = "id-sesame-that-is-long", "jwt-sesame-that-is-thirty-two-bytes-long"
REDIS_PASSWORD, DATABASE_PASSWORD = "redis-sesame", "database-sesame"
GUESS, PAYMENT, METADATA = "guessed-sesame-of-somebody", "payment-sesame", "metadata-sesame"
POISON = "poison-sesame"
CUSTOMER_TOKEN = token("ada", key=JWT_KEY, exp=time.time() + 36_000)
FORGED_TOKEN = token("ada", key=GUESS + GUESS)
SECRETS = [
    ADMIN, STOREFRONT, ID_SECRET, JWT_KEY, REDIS_PASSWORD, DATABASE_PASSWORD, GUESS,
    *CUSTOMER_TOKEN.split(".")[1:], *FORGED_TOKEN.split(".")[1:],
]  # fmt: skip
PRIVATE = [PAYMENT, METADATA, POISON]
"""Answers to those who may see them have these, and the auditor's report of an order that differs."""


def found(text: str, *more: str) -> list[str]:
    return [secret for secret in (*SECRETS, *more) if secret in text]


class Programs:
    """`holdfast …` with secrets in every setting, and what it has printed."""

    def __init__(self, folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
        self._folder = folder
        self._environment = environment
        self._stack = stack

    def start(self, name: str, *words: str, **settings: str) -> None:
        output = self._stack.enter_context((self._folder / name).open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *words],
            env=self._environment | settings, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)

    def run(self, *words: str) -> None:
        with (self._folder / words[0]).open("ab") as output:
            subprocess.run(
                [sys.executable, "-m", "app.cli", *words],
                env=self._environment, stdout=output, stderr=subprocess.STDOUT, timeout=60, check=False,
            )  # fmt: skip

    async def said(self, name: str, words: str) -> bool:
        return words in self.printed()[name]

    def printed(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in self._folder.iterdir()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def programs(
    settings: Settings, lineage: Lineage, pool: asyncpg.Pool, redis: Redis, tmp_path: Path
) -> AsyncIterator[Programs]:
    await redis.acl_setuser(
        "shop", enabled=True, passwords=[f"+{REDIS_PASSWORD}"], keys="*", commands=["+@all"]
    )
    redis_url = settings.redis_url.replace("unix://", f"unix://shop:{REDIS_PASSWORD}@")
    database_url = settings.database_url.get_secret_value().replace("@", f":{DATABASE_PASSWORD}@", 1)
    variables = {
        "REDIS_URL": redis_url, "DATABASE_URL": database_url, "NAMESPACE": settings.namespace,
        "PARTITIONS": "4", "ALLOW_VOLATILE": "1", "LOG_LEVEL": "DEBUG", "ID_SECRET": ID_SECRET,
        "ADMIN_KEY": ADMIN, "STOREFRONT_KEY": STOREFRONT, "JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE,
        "JWT_ALGORITHM": "HS256", "JWT_KEY": JWT_KEY,
    }  # fmt: skip
    environment = os.environ | {f"HOLDFAST_{name}": value for name, value in variables.items()}
    with ExitStack() as stack:
        yield Programs(tmp_path, environment, stack)
    await redis.acl_deluser("shop")


async def call(apis: list[Api], method: str, path: str, body: object = None, *, by: str | None) -> list[str]:
    """The answers of all; none of them may have a secret."""
    answers = [await api.call(method, path, body, by=by) for api in apis]
    for answer in answers:
        assert not found(f"{answer.headers}{answer.text}"), (method, path)
    return [answer.text for answer in answers]


async def test_secrets_are_nowhere_to_be_read(
    programs: Programs, servers: EmbeddedServers, settings: Settings, pool: asyncpg.Pool, redis: Redis
) -> None:
    ports = {name: free_port() for name in ("text", "json")}
    for name, port in ports.items():
        programs.start(name, "serve", "--port", str(port), HOLDFAST_LOG_FORMAT=name)
    programs.start("worker", "worker")
    _, stored = await api_keys.create(pool, "webshop", "storefront")
    async with AsyncExitStack() as stack:
        apis = [
            Api(url, await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30)))
            for url in (f"http://127.0.0.1:{port}" for port in ports.values())
        ]
        await use(programs, apis, pool, stored)
        elsewhere = await asyncpg.connect(servers.database_url)
        stack.push_async_callback(elsewhere.close)
        await break_everything(apis, settings, pool, redis, elsewhere)
    printed = programs.printed()
    for name, text in printed.items():
        assert not found(text, stored, *(PRIVATE if name != "audit" else ())), name
    for name in ports:  # what was provoked did get into the logs
        assert "UndefinedTableError" in printed[name]
        assert "InvalidSignatureError" in printed[name]
    assert "record rejected" in printed["worker"]
    assert "no_rejects" in printed["audit"]


async def use(programs: Programs, apis: list[Api], pool: asyncpg.Pool, stored: str) -> None:
    for api in apis:
        await until(partial(_answers, api.client), seconds=60)
    await call(apis, "PUT", "/v1/admin/sales/sale", sale(a=50), by=ADMIN)
    await drive(apis, stored)
    await poison(apis[0], pool)
    for words in (["keys", "list"], ["audit", "--json"], ["migrate"]):
        await asyncio.to_thread(programs.run, *words)
    for api in apis:
        metrics = (await api.client.get("/metrics")).text
        assert "holdfast_http_requests_total" in metrics
        assert not found(metrics, stored, *PRIVATE)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/livez")).status_code == 200
    except httpx.TransportError:
        return False


async def drive(apis: list[Api], stored: str) -> None:
    """Requests with secrets wherever somebody may put one."""
    basic = base64.b64encode(f"shop:{GUESS}".encode()).decode()
    cart = {"customer_id": "ada", "items": [{"sku": "a", "quantity": 1}]}
    for api in apis:
        hold = (await api.call("POST", "/v1/sales/sale/reservations", cart, by=STOREFRONT)).json()
        confirm = {"payment_reference": PAYMENT, "metadata": {"card": METADATA}}
        path = f"/v1/sales/sale/reservations/{hold['id']}/confirm"
        assert (await api.call("POST", path, confirm, by=STOREFRONT)).status_code in (200, 202)
        wrong = await api.call(
            "POST", path, {"payment_reference": f"{PAYMENT} é", "metadata": METADATA}, by=ADMIN
        )
        assert wrong.status_code == 422
        assert not found(wrong.text, *PRIVATE)
        for value in (f"Basic {basic}", GUESS, f"Bearer {GUESS}", f"Bearer  {FORGED_TOKEN}"):
            refused = await api.call("GET", "/v1/sales/sale", by=None, headers={"Authorization": value})
            assert refused.status_code == 401
            assert not found(f"{refused.headers}{refused.text}", basic)
    for by in (STOREFRONT, CUSTOMER_TOKEN, FORGED_TOKEN, stored, None):
        for query in (
            f"api_key={STOREFRONT}",
            f"access_token={CUSTOMER_TOKEN}",
            f"cursor={GUESS}&limit={GUESS}",
        ):
            await call(apis, "GET", f"/v1/sales/sale/reservations?{query}", by=by)
            await call(apis, "POST", f"/v1/sales/sale/reservations?{query}", cart | {"secret": GUESS}, by=by)
    for secret in (STOREFRONT, GUESS):  # which it reads back itself, and nobody else
        for api in apis:
            answer = await api.call("GET", f"/v1/sales/{secret}", by=STOREFRONT)
            assert answer.json()["instance"] == f"/v1/sales/{secret}"


async def poison(api: Api, pool: asyncpg.Pool) -> None:
    """An order that Postgres refuses with the row in its message."""
    await pool.execute(f"ALTER TABLE orders ADD CHECK (payment_reference <> '{POISON}')")
    cart = {"customer_id": "eve", "items": [{"sku": "a", "quantity": 1}]}
    hold = (await api.call("POST", "/v1/sales/sale/reservations", cart, by=STOREFRONT)).json()
    path = f"/v1/sales/sale/reservations/{hold['id']}/confirm"
    await api.call("POST", path, {"payment_reference": POISON}, by=STOREFRONT)
    await until(lambda: pool.fetchval("SELECT EXISTS (SELECT FROM rejects)"), seconds=20)


async def break_everything(
    apis: list[Api], settings: Settings, pool: asyncpg.Pool, redis: Redis, elsewhere: asyncpg.Connection
) -> None:
    """Failures of all kinds, with secrets in the requests that meet them. `elsewhere`: another database."""
    await pool.execute("ALTER TABLE orders RENAME TO hidden")
    await call(apis, "GET", f"/v1/admin/sales/sale/orders?customer_id={GUESS}", by=ADMIN)
    await call(apis, "GET", f"/v1/sales/sale/orders/ord_{'0' * 26}?key={GUESS}", by=CUSTOMER_TOKEN)
    await pool.execute("ALTER TABLE api_keys RENAME TO hidden_keys")
    await redis.acl_setuser("shop", enabled=False)
    await redis.acl_setuser("shop", reset_passwords=True, enabled=True)
    await redis.client_kill_filter(user="shop")
    cart = {"customer_id": "ada", "items": [{"sku": "a", "quantity": 1}]}
    await call(apis, "POST", f"/v1/sales/sale/reservations?key={GUESS}", cart, by=CUSTOMER_TOKEN)
    await call(apis, "GET", "/readyz", by=STOREFRONT)
    name = urlsplit(settings.database_url.get_secret_value()).path[1:]
    await elsewhere.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await elsewhere.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    await call(apis, "GET", "/v1/admin/sales/sale/orders", by=ADMIN)
    await call(apis, "GET", "/readyz", by=STOREFRONT)


@pytest.mark.parametrize(
    "settings",
    [
        {"REDIS_URL": f"redis://:{GUESS}/@redis:6379"},
        {"REDIS_URL": f"redis://:{GUESS}@redis:sesame"},
        {"REDIS_URL": f"{GUESS}@redis"},
        {"REDIS_URL": f"redis://:{GUESS}@redis?socket_timeout={GUESS}"},
        {"DATABASE_URL": f"postgresql://shop:{GUESS}@postgres:sesame/shop"},
        {"DATABASE_URL": f"mysql://shop:{GUESS}@postgres/shop"},
        {"ID_SECRET": GUESS[:15]},
        {"ADMIN_KEY": GUESS[:15]},
        {"STOREFRONT_KEY": GUESS * 20},
        {"JWT_KEY": GUESS},
        {"JWT_ISSUER": "x", "JWT_AUDIENCE": "x", "JWT_ALGORITHM": "RS256", "JWT_KEY": GUESS},
        {"JWT_ISSUER": "x", "JWT_AUDIENCE": "x", "JWT_ALGORITHM": "HS256", "JWT_KEY": GUESS},
        {"JWT_ISSUER": "x", "JWT_AUDIENCE": "x", "JWT_ALGORITHM": GUESS, "JWT_KEY": GUESS},
        {"ADMIN_KEYS": GUESS},
        {"RATE_LIMIT_KEY": GUESS},
    ],
)
def test_a_wrong_setting_is_named_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"HOLDFAST_{name}", value)
    with pytest.raises(ConfigurationError, match="HOLDFAST_") as raised:
        Authenticator(load_settings())
    assert GUESS[:15] not in str(raised.value)


def test_settings_can_be_shown() -> None:
    secret = Settings(
        redis_url=f"redis://:{GUESS}@redis", database_url=f"postgresql://:{GUESS}@postgres/shop",
        id_secret=GUESS, admin_key=GUESS, storefront_key=GUESS, jwt_key=GUESS * 2, jwt_issuer="x",
        jwt_audience="x", jwt_algorithm="HS256",
    )  # fmt: skip
    assert GUESS not in repr(secret)
    assert GUESS not in str(secret)
