"""Who may call, and what each may do."""

import time
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app import api_keys
from app.errors import ConfigurationError
from app.http.auth import Authenticator
from app.settings import JwtAlgorithm, Settings
from tests.http.conftest import (
    ADMIN_KEY,
    AUDIENCE,
    ISSUER,
    STOREFRONT_KEY,
    Api,
    assert_problem,
    cart,
    sale,
    token,
)

RESERVATIONS = "/v1/sales/sale/reservations"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None}, {"exp": time.time() - 60}, {"iss": "https://other.example"}, {"iss": None},
        {"aud": "other"},
        {"aud": None}, {"sub": None}, {"sub": ""}, {"sub": "a b"}, {"sub": "x" * 65}, {"sub": "é"},
        {"nbf": time.time() + 600}, {"key": "another secret of 32 bytes or more"},
    ],
)  # fmt: skip
async def test_a_token_that_is_not_good_is_refused(settings: Settings, claims: dict[str, object]) -> None:
    given = token(**{"customer": "ada"} | claims)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="not accepted"):
        Authenticator(settings).authenticate(f"Bearer {given}".encode())


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic YTpi",
        b"Bearer a.b.c",
        b"Bearer \xff\xfe",
        b"Bearer " + b"[" * 9000,
    ],
)
def test_what_is_no_token_is_refused(settings: Settings, header: bytes) -> None:
    with pytest.raises(Exception, match=r"not accepted|must be"):
        Authenticator(settings).authenticate(header)


def test_an_unsigned_token_is_refused(settings: Settings) -> None:
    import jwt

    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + 60}
    with pytest.raises(Exception, match="not accepted"):
        Authenticator(settings).authenticate(f"Bearer {jwt.encode(claims, '', 'none')}".encode())


def test_a_verified_token_does_not_outlive_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = Authenticator(settings)
    header = f"Bearer {token('ada')}".encode()
    assert authenticator.authenticate(header).customer_id == "ada"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 71)
    monkeypatch.setattr("app.http.auth.CustomerTokens._remember", lambda *_: None)
    with pytest.raises(Exception, match="not accepted"):
        authenticator.authenticate(header)


def jwt_settings(settings: Settings, **update: object) -> Settings:
    return settings.model_copy(update={"jwt_key": None} | update)


def test_a_key_that_does_not_fit_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "public").write_bytes(public)
    (tmp_path / "private").write_bytes(private)
    (tmp_path / "empty").write_bytes(b"")
    Authenticator(jwt_settings(settings, jwt_algorithm=JwtAlgorithm.ES256, jwt_key_file=tmp_path / "public"))
    for algorithm, name in (
        ("ES256", "private"), ("RS256", "public"), ("HS256", "public"), ("ES256", "empty"),
        ("ES256", "missing"), ("EdDSA", "public"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match="HOLDFAST_JWT_KEY_FILE"):
            Authenticator(
                jwt_settings(settings, jwt_algorithm=JwtAlgorithm(algorithm), jwt_key_file=tmp_path / name)
            )


async def test_every_jwt_is_refused_where_none_is_configured(settings: Settings) -> None:
    bare = settings.model_copy(update={"jwt_algorithm": None})
    with pytest.raises(Exception, match="not accepted"):
        Authenticator(bare).authenticate(f"Bearer {token('ada')}".encode())


async def test_only_admin_keys_reach_the_admin_side(shop: Api) -> None:
    for by in (STOREFRONT_KEY, token("ada", holdfast_confirm=True)):
        for method, path in (("GET", ""), ("PUT", "/sale"), ("GET", "/sale/audit"), ("POST", "/sale/close")):
            body = sale(a=5) if method == "PUT" else None
            response = await shop.call(method, f"/v1/admin/sales{path}", body, by=by)
            assert_problem(response, 403, "forbidden")


async def test_an_admin_key_is_a_storefront_key_and_the_same_shop(shop: Api) -> None:
    first = await shop.reserve(key="k", by=STOREFRONT_KEY)
    again = await shop.reserve(key="k", by=ADMIN_KEY)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_principals_do_not_share_idempotency_keys(shop: Api) -> None:
    made = [await shop.reserve(key="k", by=by) for by in (STOREFRONT_KEY, token("ada"))]
    assert [response.status_code for response in made] == [201, 201]
    assert made[0].json()["id"] != made[1].json()["id"]
    again = await shop.reserve(key="k", by=token("ada", holdfast_confirm=True))
    assert again.json()["id"] == made[1].json()["id"]


async def test_a_customer_handles_their_own(shop: Api) -> None:
    ada = token("ada")
    hold = (await shop.reserve(by=ada)).json()
    path = f"{RESERVATIONS}/{hold['id']}"
    assert (await shop.call("GET", path, by=ada)).json() == hold
    assert (await shop.call("GET", RESERVATIONS, by=ada)).json()["items"] == [hold]
    assert (await shop.call("POST", f"{path}/extend", {"seconds": 90}, by=ada)).status_code == 200
    assert_problem(await shop.confirm(hold, by=ada), 403, "forbidden")
    trusted = token("ada", holdfast_confirm=True)
    order = (await shop.confirm(hold, by=trusted)).json()
    assert (await shop.call("GET", f"/v1/sales/sale/orders/{order['id']}", by=ada)).status_code == 200
    second = (await shop.reserve(by=ada)).json()
    released = await shop.call("DELETE", f"{RESERVATIONS}/{second['id']}", by=ada)
    assert released.json()["status"] == "released"
    for claim in ("true", 1, None):
        doubtful = token("ada", holdfast_confirm=claim)
        assert_problem(await shop.confirm(second, by=doubtful), 403, "forbidden")


async def test_what_is_not_theirs_is_the_same_403_existing_or_not(shop: Api) -> None:
    ada = token("ada", holdfast_confirm=True)
    bobs = await shop.hold("bob")
    bobs_order = await shop.hold("bob", b=1)
    await shop.confirm(bobs_order)
    names = [bobs["id"], bobs_order["id"], f"res_{'0' * 26}", "nonsense"]
    answers = set()
    for name in names:
        path = f"{RESERVATIONS}/{name}"
        order = name.replace("res_", "ord_")
        for response in (
            await shop.call("GET", path, by=ada),
            await shop.call("DELETE", path, by=ada),
            await shop.call("POST", f"{path}/extend", {"seconds": 1}, by=ada),
            await shop.call("POST", f"{path}/confirm", {"payment_reference": "p"}, by=ada),
            await shop.call("GET", f"/v1/sales/sale/orders/{order}", by=ada),
            await shop.call("GET", f"/v1/sales/no-such-sale/orders/{order}", by=ada),
        ):
            problem = assert_problem(response, 403, "forbidden")
            answers.add(response.text.replace(problem["instance"], ""))
    response = await shop.call("GET", f"{RESERVATIONS}?customer_id=bob", by=ada)
    answers.add(response.text.replace(assert_problem(response, 403, "forbidden")["instance"], ""))
    assert len(answers) == 1
    assert (await shop.call("GET", f"{RESERVATIONS}/{bobs['id']}")).json()["status"] == "held"


async def test_a_shop_must_say_which_customer(shop: Api) -> None:
    problem = assert_problem(await shop.call("GET", RESERVATIONS), 422, "validation_failed")
    assert [error["path"] for error in problem["errors"]] == ["/customer_id"]
    bad = await shop.call("GET", f"{RESERVATIONS}?customer_id=a%00b")
    assert_problem(bad, 422, "validation_failed")


async def test_a_stored_key_works_at_once_and_not_after_it_is_revoked(shop: Api, pool: asyncpg.Pool) -> None:
    key, secret = await api_keys.create(pool, "webshop", "storefront")
    assert await eventually(shop, secret, 201)
    assert_problem(await shop.call("GET", "/v1/admin/sales", by=secret), 403, "forbidden")
    await api_keys.revoke(pool, key.id)
    assert await eventually(shop, secret, 401)


async def eventually(shop: Api, secret: str, status: int) -> bool:
    """Does a reservation with this key come to this answer within 5 seconds?"""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if (await shop.reserve(cart("eve"), key="k", by=secret)).status_code == status:
            return True
    return False


async def test_authorization_given_twice_is_refused(shop: Api) -> None:
    headers = [("Authorization", f"Bearer {STOREFRONT_KEY}")] * 2
    for method in ("GET", "POST"):
        assert_problem(await shop.client.request(method, RESERVATIONS, headers=headers), 401, "unauthorized")
