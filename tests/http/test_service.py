"""Health, metrics, documentation, request ids, CORS."""

import base64
import re
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from redis.asyncio import Redis

from app.http.problems import PROBLEMS
from app.http.requests import read_wait
from app.keys import Keys
from tests.http.conftest import ADMIN_KEY, STOREFRONT_KEY, Api, cart

ORIGIN = "https://shop.example"


async def test_health_and_documentation_are_open_to_all(api: Api) -> None:
    for path, media_type in (
        ("/livez", "application/health+json"), ("/readyz", "application/health+json"),
        ("/metrics", "text/plain"), ("/openapi.json", "application/json"), ("/docs", "text/html"),
        ("/problems/sold_out", "text/html"),
        ("/problems/", "text/html"),
    ):  # fmt: skip
        response = await api.call("GET", path, by=None)
        assert response.status_code == 200, path
        assert response.headers["content-type"].startswith(media_type)
        assert response.headers["x-request-id"]


async def test_every_problem_has_a_page(api: Api) -> None:
    for problem in PROBLEMS.values():
        page = await api.call("GET", problem.type, by=None)
        assert problem.code in page.text


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]
        assert tag not in ("script", "link", "img")


async def test_pages_need_nothing_from_elsewhere(api: Api) -> None:
    for path in ("/docs", "/problems/", "/problems/sold_out"):
        links = Links()
        links.feed((await api.call("GET", path, by=None)).text)
        assert links.found
        assert all(re.match(r"[/#]\w*", link) and not link.startswith("//") for link in links.found)


async def test_a_page_can_do_nothing_but_look_like_itself(api: Api) -> None:
    for path in ("/docs", "/problems/", "/problems/sold_out"):
        page = await api.call("GET", path, by=None)
        styles = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
        digests = [base64.b64encode(sha256(style.encode()).digest()).decode() for style in styles]
        rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
        assert rules == {
            "default-src": "'none'",
            "style-src": f"'sha256-{digests[0]}'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert len(styles) == 1
        assert not re.search(r"\s(style|on\w+)=", page.text), "attributes that the policy would not apply"
        expected = {
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-cache",
        }
        assert expected.items() <= dict(page.headers).items()


async def test_no_answer_is_sniffed_or_stored(shop: Api) -> None:
    hold = await shop.hold()
    path = f"/v1/sales/sale/reservations/{hold['id']}"
    for method, where, by in (
        ("GET", path, STOREFRONT_KEY), ("GET", "/v1/sales/sale/reservations?customer_id=ada", STOREFRONT_KEY),
        ("DELETE", path, STOREFRONT_KEY), ("GET", path, None), ("GET", "/nothing", STOREFRONT_KEY),
        ("PATCH", path, STOREFRONT_KEY), ("GET", "/metrics", None), ("GET", "/readyz", None),
        ("GET", "/v1/admin/sales/sale/orders", ADMIN_KEY), ("OPTIONS", path, STOREFRONT_KEY),
    ):  # fmt: skip
        headers = (await shop.call(method, where, by=by)).headers
        assert headers.get_list("x-content-type-options") == ["nosniff"]
        assert headers.get_list("cache-control") == ["no-store"]
    made = await shop.reserve()
    assert made.headers.get_list("x-content-type-options") == ["nosniff"]
    sale = await shop.call("GET", "/v1/sales/sale")
    assert sale.headers.get_list("cache-control") == ["private, no-cache"]


async def test_metrics_count_by_route_and_outcome(shop: Api) -> None:
    await shop.hold()
    await shop.reserve(cart(a=99))
    await shop.call("GET", "/v1/sales/none")
    text = (await shop.call("GET", "/metrics", by=None)).text
    for route, outcome in (
        ("/v1/sales/{sale_id}/reservations", "held"), ("/v1/sales/{sale_id}/reservations", "sold_out"),
        ("/v1/sales/{sale_id}", "sale_not_found"), ("/v1/admin/sales/{sale_id}", "ok"),
    ):  # fmt: skip
        assert re.search(
            rf'_requests_total{{.*outcome="{outcome}",route="{re.escape(route)}".*}} [1-9]', text
        ) or re.search(rf'_requests_total{{.*route="{re.escape(route)}".*outcome="{outcome}".*}} [1-9]', text)
    assert "none" not in re.findall(r'route="([^"]*)"', text)


@pytest.mark.parametrize("given", ["a", "x" * 128, "a/b:c"])
async def test_the_callers_request_id_is_kept(shop: Api, given: str) -> None:
    for method, path in (("GET", "/livez"), ("POST", "/v1/sales/sale/reservations"), ("GET", "/nothing")):
        response = await shop.call(method, path, headers={"X-Request-Id": given})
        assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b"])
async def test_another_request_id_is_replaced(api: Api, given: str) -> None:
    response = await api.call("GET", "/livez", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", response.headers["x-request-id"])


async def test_allowed_origins_may_call_and_read_the_headers(shop: Api) -> None:
    preflight = await shop.call(
        "OPTIONS",
        "/v1/sales/sale/reservations",
        by=None,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization,idempotency-key"
    for method, path in (
        ("GET", "/v1/sales/sale"),
        ("POST", "/v1/sales/sale/reservations"),
        ("GET", "/nothing"),
    ):
        response = await shop.call(method, path, headers={"Origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        exposed = set(response.headers["access-control-expose-headers"].split(", "))
        assert exposed == {"Location", "Retry-After", "ETag", "Idempotent-Replayed", "X-Request-Id"}
        assert response.headers["vary"] == "Origin"


async def test_other_origins_may_not(shop: Api) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        response = await shop.call(method, "/v1/sales/sale", by=None, headers=headers)
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("prefer", "wait"),
    [
        (["wait=5"], 5), (["WAIT = 5"], 5), (['wait="7"'], 7), (["respond-async, wait=3; x=y"], 3),
        (["a", "wait=2"], 2), (["wait=1, wait=9"], 1), (['a="wait=9, x", wait=4'], 4), (["a;wait=9"], None),
        (["wait"], None), (["wait=x"], None), (["wait=-1"], None), ([""], None),
        ([], None), ([",wait=5"], 5), (["wait=5,"], 5),
        (["wait=99999999999999999999"], 999999999), (["wait=1.5"], None), (['wait="5'], None),
        (["wait=٣"], None),
    ],
)  # fmt: skip
def test_preferences_are_read_as_rfc_7240_writes_them(prefer: list[str], wait: int | None) -> None:
    assert read_wait(prefer) == wait


async def test_readiness_waits_at_the_start_for_every_partition_and_later_bears_a_closed_one(
    api: Api, redis: Redis, keys: Keys
) -> None:
    meta = keys.meta(1)
    await redis.hset(meta, "state", "closed")
    assert (await api.call("GET", "/readyz", by=None)).status_code == 503
    await redis.hset(meta, "state", "gap")
    ready = await api.call("GET", "/readyz", by=None)
    assert (ready.status_code, ready.json()["status"]) == (200, "warn")
    await redis.hset(meta, "state", "open")
    ready = await api.call("GET", "/readyz", by=None)
    assert (ready.status_code, ready.json()["status"]) == (200, "pass")
    await redis.hset(meta, "state", "closed")
    ready = await api.call("GET", "/readyz", by=None)
    assert (ready.status_code, ready.json()["status"]) == (200, "warn")
