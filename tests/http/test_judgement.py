"""In which order a request is judged, and what each refusal looks like."""

import json
import socket

import httpx
import pytest

from tests.http.conftest import ADMIN_KEY, STOREFRONT_KEY, Api, assert_problem, cart, sale, token

RESERVATIONS = "/v1/sales/sale/reservations"
NOBODY = f"{RESERVATIONS}/res_{'0' * 26}"


async def post(api: Api, content: bytes, path: str = RESERVATIONS, **headers: str) -> httpx.Response:
    given = {"content-type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
    return await api.call("POST", path, content=content, headers={n: v for n, v in given.items() if v})


@pytest.mark.parametrize("path", ["/v1/sales/sale", "/v1/nothing", "/", "/v1/admin/sales", RESERVATIONS])
async def test_a_token_is_asked_for_first_on_unknown_paths_too(api: Api, path: str) -> None:
    for method in ("GET", "POST", "PATCH"):
        for by in (None, "no such key"):
            response = await api.call(method, path, by=by)
            assert_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/sales", "/v1/sales/sale/", "/v1%2Fsales/sale", "/v1/sales/sale%2freservations",
     "/problems/%0A", "/problems%2Fsold_out", "/v1/sales/a%20b", "/v1/sales/" + "a" * 65, "/v1/sales/sale%0A",
     RESERVATIONS + "/", "/docs/", "/v1/sales/a%2Fb/reservations", "/problems/unheard_of",
     "/v1/sales/s%C3%A9"],
)  # fmt: skip
async def test_what_is_no_path_is_not_found_and_never_redirected(api: Api, path: str) -> None:
    assert_problem(await api.call("GET", path), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (RESERVATIONS, {"GET", "HEAD", "POST", "OPTIONS"}),
        (NOBODY, {"GET", "HEAD", "DELETE", "OPTIONS"}),
        (NOBODY + "/confirm", {"POST", "OPTIONS"}),
        ("/livez", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_another_method_is_refused_with_those_that_are_allowed(
    api: Api, path: str, allowed: set[str]
) -> None:
    response = await api.call("PATCH", path)
    assert_problem(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == allowed
    options = await api.call("OPTIONS", path)
    assert options.status_code == 204
    assert set(options.headers["allow"].split(", ")) == allowed


async def test_head_is_get_without_a_body(shop: Api) -> None:
    response = await shop.call("HEAD", "/v1/sales/sale")
    assert response.status_code == 200
    assert response.content == b""
    assert int(response.headers["content-length"]) > 0
    assert response.headers["etag"]


async def test_an_encoded_slash_is_no_slash(shop: Api) -> None:
    path = "/v1/sales/sale%2Freservations"
    assert_problem(await shop.call("POST", path, cart(), by=None), 401, "unauthorized")
    assert_problem(await shop.call("POST", path, cart()), 404, "not_found")


@pytest.mark.parametrize(
    "key", ["", '"', '""', "a b", "é".encode("latin-1").decode("latin-1"), "x" * 256, '"abc', 'abc"']
)
async def test_a_bad_idempotency_key_is_judged_before_the_body(shop: Api, key: str) -> None:
    headers = [("Authorization", f"Bearer {STOREFRONT_KEY}"), ("Idempotency-Key", key)]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    response = await shop.client.request("POST", RESERVATIONS, content=b"x" * 20_000, headers=raw)
    assert_problem(response, 400, "malformed_header")


async def test_a_key_given_twice_is_refused(shop: Api) -> None:
    headers = [
        ("Authorization", f"Bearer {STOREFRONT_KEY}"),
        ("Idempotency-Key", "a"),
        ("Idempotency-Key", "a"),
    ]
    response = await shop.client.request("POST", RESERVATIONS, json=cart(), headers=headers)
    assert_problem(response, 400, "malformed_header")


async def test_size_is_judged_before_media_type_before_json_before_fields(shop: Api) -> None:
    assert_problem(await post(shop, b"x" * 16385, content_type="text/plain"), 413, "body_too_large")
    assert_problem(await post(shop, b"x" * 16384, content_type="text/plain"), 415, "unsupported_media_type")
    assert_problem(await post(shop, b"{" + b" " * 16383), 400, "malformed_json")
    assert_problem(await post(shop, b"{}"), 422, "validation_failed")


async def test_a_body_without_a_length_is_counted(shop: Api) -> None:
    async def chunks() -> object:
        for _ in range(20):
            yield b"x" * 1000

    response = await shop.call("POST", RESERVATIONS, content=chunks())
    assert_problem(response, 413, "body_too_large")


@pytest.mark.parametrize(
    "media_type",
    ["", "text/json", "application/jsonp", "application/json; charset=latin-1", "multipart/form-data"],
)
async def test_another_media_type_is_refused(shop: Api, media_type: str) -> None:
    response = await post(shop, json.dumps(cart()).encode(), content_type=media_type)
    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"']
)
async def test_json_by_any_of_its_spellings_is_accepted(shop: Api, media_type: str) -> None:
    assert (await post(shop, json.dumps(cart()).encode(), content_type=media_type)).status_code == 201


async def test_compressed_bodies_are_refused(shop: Api) -> None:
    response = await post(shop, json.dumps(cart()).encode(), content_encoding="gzip")
    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"nul", b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":"\xff"}', b'{"a":"\\ud800"}',
     b"\xef\xbb\xbf{}", b"[" * 300 + b"]" * 300, b"{} {}"],
)  # fmt: skip
async def test_what_is_not_json_is_malformed(shop: Api, content: bytes) -> None:
    for path in (RESERVATIONS, NOBODY + "/confirm"):
        assert_problem(await post(shop, content, path), 400, "malformed_json")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], ""),
        (None, ""),
        ({"items": [{"sku": "a", "quantity": 1}]}, "/customer_id"),
        (cart("") , "/customer_id"),
        (cart("a b"), "/customer_id"),
        (cart("x" * 65), "/customer_id"),
        (cart("é"), "/customer_id"),
        (cart("ada\n"), "/customer_id"),
        (cart() | {"customer_id": 7}, "/customer_id"),
        (cart() | {"items": []}, "/items"),
        (cart() | {"items": {}}, "/items"),
        (cart() | {"items": [{"sku": f"s{i}", "quantity": 1} for i in range(21)]}, "/items"),
        (cart() | {"items": [{"sku": "a", "quantity": 1}] * 2}, "/items"),
        (cart(a=0), "/items/0/quantity"),
        (cart(a=1001), "/items/0/quantity"),
        (cart() | {"items": [{"sku": "a", "quantity": "1"}]}, "/items/0/quantity"),
        (cart() | {"items": [{"sku": "a", "quantity": True}]}, "/items/0/quantity"),
        (cart() | {"items": [{"sku": "a", "quantity": 1.0}]}, "/items/0/quantity"),
        (cart() | {"items": [{"sku": "a", "quantity": 10**30}]}, "/items/0/quantity"),
        (cart() | {"items": [{"sku": "a b", "quantity": 1}]}, "/items/0/sku"),
        (cart() | {"items": [{"sku": "a", "quantity": 1, "x/y~z": 1}]}, "/items/0/x~1y~0z"),
        (cart() | {"custmer": 1}, "/custmer"),
    ],
)  # fmt: skip
async def test_a_wrong_field_is_named_by_its_pointer(shop: Api, body: object, path: str) -> None:
    problem = assert_problem(await post(shop, json.dumps(body).encode()), 422, "validation_failed")
    assert path in [error["path"] for error in problem["errors"]]
    assert all(error["message"] for error in problem["errors"])


async def test_a_number_of_any_length_is_a_wrong_field(shop: Api) -> None:
    body = b'{"customer_id":"ada","items":[{"sku":"a","quantity":' + b"9" * 5000 + b"}]}"
    assert_problem(await post(shop, body), 422, "validation_failed")


async def test_errors_do_not_repeat_what_was_sent(shop: Api) -> None:
    secret = "a very private value"
    response = await post(shop, json.dumps({"customer_id": secret, "items": secret}).encode())
    assert_problem(response, 422, "validation_failed")
    assert secret not in response.text


async def test_whose_it_is_comes_after_fields_and_before_the_sale(api: Api) -> None:
    path, ada = "/v1/sales/no-such-sale/reservations", token("ada")
    assert_problem(await api.call("POST", path, {}, by=ada), 422, "validation_failed")
    assert_problem(await api.call("POST", path, cart("bob"), by=ada), 403, "forbidden")
    assert_problem(await api.call("POST", path, cart("ada"), by=ada), 404, "sale_not_found")


async def test_a_replay_beats_state_stock_and_limit(shop: Api) -> None:
    first = await shop.reserve(cart(a=5), key="k")
    await shop.admin("POST", "/sale/close")
    again = await shop.reserve(cart(a=5), key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    assert_problem(await shop.reserve(cart(a=4), key="k"), 422, "idempotency_key_reused")
    assert_problem(await shop.reserve(cart(nothing=4)), 409, "sale_closed")


async def test_the_first_sku_that_fails_a_step_is_named(shop: Api) -> None:
    limited = sale(a=5, b=5)
    limited["items"][0]["limit_per_customer"] = 2
    await shop.admin("PUT", "/sale", limited)
    missing = assert_problem(await shop.reserve(cart(b=9, a=9, y=1, x=1)), 404, "sku_not_found")
    assert missing["sku"] == "y"
    sold_out = assert_problem(await shop.reserve(cart(a=3, b=9)), 409, "sold_out")
    assert (sold_out["sku"], sold_out["requested"], sold_out["available"], sold_out["held"]) == ("b", 9, 5, 0)
    limit = assert_problem(await shop.reserve(cart(b=5, a=3)), 409, "customer_limit_reached")
    assert (limit["sku"], limit["limit"], limit["taken"]) == ("a", 2, 0)


async def test_a_sale_that_is_not_open_says_when(api: Api) -> None:
    await api.sale("later", opens=1)
    response = await api.reserve(sale_id="later")
    problem = assert_problem(response, 409, "sale_not_open")
    assert problem["state"] == "scheduled"
    assert problem["opens_at"].endswith("Z")
    assert 3590 <= int(response.headers["retry-after"]) <= 3600
    await api.sale("now")
    await api.admin("POST", "/now/pause")
    paused = assert_problem(await api.reserve(sale_id="now"), 409, "sale_paused")
    assert paused["state"] == "paused"


async def test_a_body_that_does_not_come_times_out(shop: Api) -> None:
    host, port = shop.url.removeprefix("http://").split(":")
    for path in (RESERVATIONS, NOBODY + "/confirm"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {STOREFRONT_KEY}\r\n"
                "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
            )
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer


async def test_a_sales_definition_may_be_four_mebibytes(api: Api) -> None:
    body = json.dumps(sale(**{f"sku-{i:0>55}": 1 for i in range(10_000)}))
    padded = body.encode() + b" " * (4 * 1024 * 1024 - len(body))
    response = await api.admin("PUT", "/big", content=padded, headers={"content-type": "application/json"})
    assert response.status_code == 201
    response = await api.admin(
        "PUT", "/big", content=padded + b" ", headers={"content-type": "application/json"}
    )
    assert_problem(response, 413, "body_too_large")


@pytest.mark.parametrize("by", [STOREFRONT_KEY, ADMIN_KEY])
async def test_ids_that_can_be_none_are_not_found(shop: Api, by: str) -> None:
    for path, code in (
        (f"{RESERVATIONS}/nonsense", "reservation_not_found"),
        (NOBODY, "reservation_not_found"),
        ("/v1/sales/sale/orders/res_1", "order_not_found"),
        ("/v1/sales/none/reservations/nonsense", "sale_not_found"),
    ):
        assert_problem(await shop.call("GET", path, by=by), 404, code)
    for verb, body in (("confirm", {"payment_reference": "p"}), ("extend", {"seconds": 1})):
        for name in ("nonsense", f"res_{'0' * 26}"):
            response = await shop.call("POST", f"{RESERVATIONS}/{name}/{verb}", body, by=by)
            assert "res_-" not in assert_problem(response, 404, "reservation_not_found")["detail"]
    cancelled = await shop.admin("POST", "/sale/orders/nonsense/cancel")
    assert "ord_-" not in assert_problem(cancelled, 404, "order_not_found")["detail"]
    assert_problem(await shop.call("DELETE", NOBODY, by=by), 404, "reservation_not_found")
