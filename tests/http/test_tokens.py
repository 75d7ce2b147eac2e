"""Customers' tokens: real keys of each algorithm, and everything that must not pass for one of theirs."""

import base64
import hmac
import json
import select
import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app import errors
from app.errors import ConfigurationError
from app.http import auth
from app.http.auth import Authenticator
from app.settings import JwtAlgorithm, Settings
from tests.http.conftest import AUDIENCE, ISSUER, JWT_SECRET, serving, token

ASYMMETRIC = ("RS256", "ES256", "EdDSA")
GENERATE: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@cache
def private_key(algorithm: str, _which: str = "the shop's") -> Any:
    return GENERATE[algorithm]()


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def claims(**more: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60} | more


def encoded(content: Any) -> bytes:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def hs256(key: bytes, header: dict[str, Any], content: dict[str, Any]) -> str:
    """Signed by hand: the library refuses to sign with a public key as if it were a secret."""
    signed = encoded(header) + b"." + encoded(content)
    return (signed + b"." + encoded(hmac.digest(key, signed, "sha256"))).decode()


def with_key(settings: Settings, **update: Any) -> Settings:
    return settings.model_copy(update={"jwt_key": None} | update)


def forgeries(algorithm: str, jku: str) -> dict[str, str]:
    """Tokens that look like the shop's, for a service that knows its public key of this algorithm."""
    key, other = private_key(algorithm), private_key(algorithm, "a stranger's")
    good = jwt.encode(claims(), key, algorithm)
    head, body, signature = good.split(".")
    found = {
        f"public key as a secret ({name})": hs256(secret, {"alg": "HS256", "typ": "JWT"}, claims())
        for name, secret in {"PEM": public_pem(key), "stripped": public_pem(key).strip()}.items()
    }
    found |= {
        "alg none": jwt.encode(claims(), "", "none"),
        "alg nOnE": f"{encoded({'alg': 'nOnE'}).decode()}.{body}.",
        "no signature": f"{head}.{body}.",
        "another body": f"{head}.{encoded(claims(sub='bob')).decode()}.{signature}",
        "another key": jwt.encode(claims(), other, algorithm),
        "key in jwk": jwt.encode(claims(), other, algorithm, {"jwk": public_jwk(other, algorithm)}),
        "key at jku and x5u": jwt.encode(claims(), other, algorithm, {"jku": jku, "x5u": jku, "kid": jku}),
        "critical header": jwt.encode(claims(), key, algorithm, {"crit": ["exp2"], "exp2": 1}),
        "critical b64": jwt.encode(claims(), key, algorithm, {"crit": ["b64"], "b64": False}),
        "empty crit": jwt.encode(claims(), key, algorithm, {"crit": []}),
        "HS256 with the test's secret": token("ada"),
    }
    if algorithm == "RS256":
        found |= {name: jwt.encode(claims(), key, name) for name in ("RS512", "PS256")}
    for name in ASYMMETRIC:
        if name != algorithm:
            found[name] = jwt.encode(claims(), private_key(name), name)
    return found


def public_jwk(key: Any, algorithm: str) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return jwk


@pytest.mark.usefixtures("lineage", "pool")
@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_only_tokens_signed_by_the_shop_in_its_algorithm_are_let_in(
    settings: Settings, tmp_path: Path, algorithm: str
) -> None:
    key, file = private_key(algorithm), tmp_path / "key"
    file.write_bytes(public_pem(key))
    configured = with_key(settings, jwt_algorithm=JwtAlgorithm(algorithm), jwt_key_file=file)
    with serving(configured) as url, socket.create_server(("127.0.0.1", 0)) as stranger:
        jku = f"http://127.0.0.1:{stranger.getsockname()[1]}/keys"
        async with httpx.AsyncClient(base_url=url) as client:

            async def status(given: str) -> int:
                headers = {"Authorization": f"Bearer {given}"}
                return (await client.get("/v1/sales/none", headers=headers)).status_code

            for header in ({}, {"kid": "../../etc/passwd"}, {"jku": jku, "x5u": jku, "jwk": {}}):
                assert await status(jwt.encode(claims(), key, algorithm, header)) == 404, header
            for name, forged in forgeries(algorithm, jku).items():
                assert await status(forged) == 401, name
        assert select.select([stranger], [], [], 0)[0] == [], "nobody asked the stranger for a key"


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": None}, {"exp": time.time() - 60}, {"exp": "soon"}, {"exp": float("inf")}, {"exp": True},
        {"iss": "https://other.example"}, {"iss": None}, {"iss": [ISSUER]},
        {"aud": "other"}, {"aud": None}, {"aud": []},
        {"sub": None}, {"sub": ""}, {"sub": "a b"}, {"sub": "x" * 65}, {"sub": "é"}, {"sub": "ada\n"},
        {"nbf": time.time() + 36_000}, {"iat": time.time() + 36_000},
        {"key": "another secret of 32 bytes or more"},
    ],
)  # fmt: skip
def test_a_token_that_is_not_good_is_refused(settings: Settings, wrong: dict[str, Any]) -> None:
    content = {name: value for name, value in claims(**wrong).items() if value is not None}
    key = str(content.pop("key", JWT_SECRET)).encode()
    assert not accepts(Authenticator(settings), hs256(key, {"alg": "HS256"}, content))


def accepts(authenticator: Authenticator, given: str) -> bool:
    try:
        return authenticator.authenticate(f"Bearer {given}".encode()).customer_id == "ada"
    except errors.Unauthorized:
        return False


@pytest.mark.parametrize(("claim", "sign"), [("exp", -1), ("nbf", 1), ("iat", 1)])
def test_clocks_may_differ_by_ten_seconds_and_no_more(settings: Settings, claim: str, sign: int) -> None:
    for seconds, accepted in ((8, True), (12, False)):
        moments: dict[str, Any] = {claim: time.time() + sign * seconds}
        given = token("ada", **moments)
        assert accepts(Authenticator(settings), given) is accepted


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic YTpi",
        b"Bearer a.b.c",
        b"Bearer \xff\xfe",
        b"Bearer " + b"[" * 8000,
    ],
)
def test_what_is_no_token_is_refused(settings: Settings, header: bytes) -> None:
    with pytest.raises(errors.Unauthorized, match=r"not accepted|must be"):
        Authenticator(settings).authenticate(header)


def test_a_token_may_be_long_but_not_endless(settings: Settings) -> None:
    authenticator = Authenticator(settings)
    assert accepts(authenticator, token("ada", more="x" * 4000))
    assert not accepts(authenticator, token("ada", more="x" * 8000))


def test_the_right_secret_in_another_algorithm_is_refused(settings: Settings) -> None:
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        given = jwt.encode(claims(), JWT_SECRET, "HS512")
    assert not accepts(Authenticator(settings), given)


async def test_every_token_is_refused_where_none_is_configured(settings: Settings) -> None:
    assert not accepts(Authenticator(settings.model_copy(update={"jwt_algorithm": None})), token("ada"))


def test_a_verified_token_is_remembered_no_longer_than_it_lives(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    soon, later = token("ada", exp=now + 5), token("ada", exp=now + 3600)
    authenticator = Authenticator(settings)
    assert accepts(authenticator, soon)
    assert accepts(authenticator, later)
    monkeypatch.setattr(jwt, "decode", None)  # from here on only what is remembered is accepted
    for seconds, remembered in ((13, [True, True]), (16, [False, True]), (61, [False, False])):
        monkeypatch.setattr(time, "time", lambda moment=now + seconds: moment)
        assert [accepts(authenticator, given) for given in (soon, later)] == remembered


def test_remembered_tokens_are_bounded_in_number_and_length(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_CACHE_SIZE", 3)
    authenticator = Authenticator(settings)
    for number in range(10):
        assert accepts(authenticator, token("ada", number=number))
    remembered = authenticator._tokens._verified  # type: ignore[union-attr]
    assert 1 <= len(remembered) <= 3
    assert all(len(fingerprint) == 32 for fingerprint in remembered)


def test_look_ups_go_by_what_no_caller_can_foresee(settings: Settings) -> None:
    one, other = Authenticator(settings), Authenticator(settings)
    assert one._keys
    assert one._keys.keys().isdisjoint(other._keys.keys())


def test_a_key_that_does_not_fit_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    def start(algorithm: str, key: bytes) -> None:
        (tmp_path / "key").write_bytes(key)
        name = JwtAlgorithm(algorithm)
        Authenticator(with_key(settings, jwt_algorithm=name, jwt_key_file=tmp_path / "key"))

    public = {name: public_pem(private_key(name)) for name in ASYMMETRIC}
    private = {
        name: private_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for name in ASYMMETRIC
    }
    for name in ASYMMETRIC:
        start(name, public[name])
    start("HS256", JWT_SECRET.encode())
    wrong = [(one, public[other]) for one in ASYMMETRIC for other in ASYMMETRIC if one != other]
    wrong += [(name, private[name]) for name in ASYMMETRIC]
    wrong += [("HS256", key) for key in (*public.values(), b"31 bytes are too few for HS256.", b" \n")]
    wrong += [
        ("ES256", public_pem(ec.generate_private_key(ec.SECP384R1()))),
        ("RS256", public_pem(rsa.generate_private_key(65537, 1024))),  # noqa: S505 (that is the test)
        ("ES256", b""),
        ("ES256", b"\xff\xfe"),
    ]
    for name, key in wrong:
        with pytest.raises(ConfigurationError, match="HOLDFAST_JWT_KEY_FILE") as raised:
            start(name, key)
        assert not key.strip() or key.strip() not in str(raised.value).encode()
    (tmp_path / "key").unlink()
    with pytest.raises(ConfigurationError, match="HOLDFAST_JWT_KEY_FILE cannot be read"):
        Authenticator(with_key(settings, jwt_algorithm=JwtAlgorithm.ES256, jwt_key_file=tmp_path / "key"))
