"""Limits of addresses, customers and keys over HTTP. An hour refills them, so none refills during a test."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.http.auth import CustomerTokens
from app.rates import Rate
from app.settings import Settings
from tests.http.conftest import (
    ADMIN_KEY,
    JSON,
    STOREFRONT_KEY,
    Api,
    assert_problem,
    cart,
    sale,
    serving,
    token,
)
from tests.http.test_connections import request
from tests.http.test_plain import exchange

RESERVATIONS = "/v1/sales/sale/reservations"
ORIGIN = {"Origin": "https://shop.example"}
PREFLIGHT = ORIGIN | {"Access-Control-Request-Method": "POST"}


@contextlib.asynccontextmanager
async def limited(settings: Settings, **limits: object) -> AsyncIterator[Api]:
    rates = {name: Rate.parse(value) if isinstance(value, str) else value for name, value in limits.items()}
    with serving(settings.model_copy(update=rates)) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            yield Api(url, client)


def assert_limited(response: httpx.Response, whose: str, seconds: int) -> None:
    problem: JSON = assert_problem(response, 429, "rate_limited")
    assert whose in problem["detail"]
    assert seconds - 60 < int(response.headers["retry-after"]) <= seconds


@pytest.mark.usefixtures("lineage", "pool")
async def test_an_address_has_so_many_requests_with_whichever_token(settings: Settings) -> None:
    async with limited(settings, rate_limit_address="5/h") as api:
        for guess in ("guess", "guess again", None):
            assert_problem(await api.call("GET", "/v1/sales/sale", by=guess), 401, "unauthorized")
        assert (await api.call("OPTIONS", RESERVATIONS, by=None, headers=PREFLIGHT)).status_code == 204
        assert (await api.call("GET", "/docs", by=None)).status_code == 200
        for method, path, by in (
            ("GET", "/v1/sales/sale", STOREFRONT_KEY), ("POST", RESERVATIONS, STOREFRONT_KEY),
            ("GET", "/v1/admin/sales", ADMIN_KEY), ("POST", RESERVATIONS, "guess"),
            ("GET", "/nothing", None), ("GET", "/docs", None), ("OPTIONS", RESERVATIONS, None),
        ):  # fmt: skip
            refused = await api.call(method, path, by=by, headers=PREFLIGHT)
            assert_limited(refused, "address", 720)
            assert refused.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await api.call("GET", path, by=None)).status_code == 200, "balancers and monitors go on"
        metrics = (await api.call("GET", "/metrics", by=None)).text
        assert 'outcome="rate_limited"' in metrics


@pytest.mark.usefixtures("lineage", "pool")
async def test_past_an_addresss_limit_no_token_is_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    verify = CustomerTokens.verify

    def spy(tokens: CustomerTokens, given: bytes, fingerprint: bytes) -> Any:
        read.append(given)
        return verify(tokens, given, fingerprint)

    monkeypatch.setattr(CustomerTokens, "verify", spy)
    forged = f"Authorization: Bearer {token('ada', key='k' * 32)}\r\n"
    body = b'{"payment_reference":"pay"}'
    confirmation = request("POST", f"{RESERVATIONS}/res_{'0' * 26}/confirm", forged, body)
    async with limited(settings, rate_limit_address="1/h") as api:
        statuses = [(await exchange(api, confirmation))[0] for _ in range(3)]
    assert statuses == [401, 429, 429]
    assert len(read) == 1


async def asked(api: Api, forwarded: str | list[str] | None) -> int:
    values = [forwarded] if isinstance(forwarded, str) else forwarded or []
    headers = [("X-Forwarded-For", value) for value in values]
    return (await api.client.get("/v1/sales/sale", headers=headers)).status_code


@pytest.mark.usefixtures("lineage", "pool")
async def test_only_what_a_trusted_proxy_has_seen_names_the_address(settings: Settings) -> None:
    proxies = Settings(trusted_proxies="127.0.0.1, 10.0.0.0/8").trusted_proxies
    async with limited(settings, rate_limit_address="1/h", trusted_proxies=proxies) as api:
        assert await asked(api, "192.0.2.1") == 401
        for forwarded in (
            "192.0.2.1", "198.51.100.7, 192.0.2.1", "192.0.2.1, 10.9.9.9", "192.0.2.1:4711",
            ["198.51.100.8", "192.0.2.1"], "::ffff:192.0.2.1", "203.0.113.1, 192.0.2.1, ::ffff:10.1.1.1",
        ):  # fmt: skip
            assert await asked(api, forwarded) == 429, forwarded
        assert await asked(api, "192.0.2.2") == 401
        assert await asked(api, "2001:db8::1") == 401
        assert await asked(api, "2001:db8::2") == 429
        assert await asked(api, "[2001:db8:0:1::]:99") == 401
        assert await asked(api, "unknown") == 401
        assert await asked(api, "_another") == 429, "what is no address is one address"
        assert await asked(api, None) == 401, "the proxy itself"
        assert await asked(api, None) == 429


@pytest.mark.usefixtures("lineage", "pool")
async def test_without_a_trusted_proxy_a_client_cannot_choose_its_address(settings: Settings) -> None:
    async with limited(settings, rate_limit_address="1/h") as api:
        assert await asked(api, "192.0.2.1") == 401
        for forwarded in ("192.0.2.2", "127.0.0.1", None):
            assert await asked(api, forwarded) == 429


@pytest.mark.usefixtures("lineage", "pool")
async def test_customers_and_keys_have_limits_of_their_own(settings: Settings) -> None:
    async with limited(settings, rate_limit_customer="2/h", rate_limit_key="3/h:2") as api:
        assert (await api.admin("PUT", "/sale", sale(a=5))).status_code == 201
        made = await api.reserve(cart("ada"), key="k", by=token("ada"))
        assert made.status_code == 201
        other = token("ada", holdfast_confirm=True)
        assert (await api.call("GET", RESERVATIONS, by=other)).status_code == 200
        for by in (other, token("ada")):
            assert_limited(await api.reserve(cart("ada"), key="k", by=by), "customer", 1800)
            assert_limited(await api.call("GET", "/v1/sales/sale", by=by), "customer", 1800)
        assert (await api.reserve(cart("bob"), by=token("bob"))).status_code == 201
        for _ in range(2):
            assert (await api.reserve(cart("eve"), by=STOREFRONT_KEY)).status_code == 201
        assert_limited(await api.reserve(cart("eve"), by=STOREFRONT_KEY), "API key", 1200)
        assert (await api.admin("GET", "/sale")).status_code == 200
        assert_limited(await api.admin("GET", "/sale"), "API key", 1200)
        assert_problem(await api.call("GET", "/v1/sales/sale", by="guess"), 401, "unauthorized")
