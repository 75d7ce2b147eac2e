"""Who calls: API keys of the shop, and customers' tokens that the shop signed."""

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jwt
import structlog
from jwt.algorithms import HMACAlgorithm

from app import errors
from app.api_keys import ApiKey, hash_key
from app.errors import ConfigurationError
from app.http.body import GIVEN_TWICE
from app.http.schemas import VISIBLE_64
from app.settings import JwtAlgorithm, Settings

log = structlog.get_logger(__name__)

LEEWAY_SECONDS = 10
"""Clocks of shop and service may differ by this much."""
MAX_TOKEN_BYTES = 8 * 1024
"""Some ten times a customer's token with its signature; longer ones are not worth hashing."""
_CACHE_SECONDS = 60.0
_CACHE_SIZE = 10_000
_CACHED_KEYS, _CACHED_BYTES = 100, 256
_BEARER = b"bearer "
_SUBJECT = re.compile(VISIBLE_64)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for. `kind` and `name` tell one from another for idempotency."""

    kind: str
    name: str
    is_admin: bool = False
    customer_id: str | None = None
    """The one customer whose reservations it may touch; None for the shop, which may touch all."""
    may_confirm: bool = True
    key: str | None = None
    """Which of the shop's API keys it is, by its id or the setting that it is in; None for a customer."""

    @property
    def identity(self) -> tuple[str, str]:
        return self.kind, self.name

    def require_admin(self) -> None:
        if not self.is_admin:
            raise errors.Forbidden()

    def require_own(self, customer_id: str) -> None:
        """Raises Forbidden, the same for everything that is not its own."""
        if self.customer_id is not None and self.customer_id != customer_id:
            raise errors.Forbidden()


def _shop(key: str, scope: str) -> Principal:
    """All API keys are one principal: rotating a key must not turn a retry into a second reservation."""
    return Principal("shop", "shop", is_admin=scope == "admin", key=key)


class Authenticator:
    """Knows the keys. Judging a token touches no store."""

    def __init__(self, settings: Settings) -> None:
        self._secret = secrets.token_bytes(32)
        fixed = (
            (settings.storefront_key, "HOLDFAST_STOREFRONT_KEY", "storefront"),
            (settings.admin_key, "HOLDFAST_ADMIN_KEY", "admin"),
        )
        self._fixed = {
            self._fingerprint(hash_key(key.get_secret_value())): _shop(name, scope)
            for key, name, scope in fixed
            if key is not None
        }
        self._keys: Mapping[bytes, Principal] = self._fixed
        self._accepted: dict[bytes, Principal] = {}
        """Headers with a key that was accepted: storefronts send the same one with every request."""
        algorithm = settings.jwt_algorithm
        self._tokens = CustomerTokens(settings, algorithm) if algorithm else None

    def accept(self, stored: Mapping[bytes, ApiKey]) -> None:
        """Replaces the keys from Postgres, given by their hash."""
        known = {self._fingerprint(digest): _shop(key.id, key.scope) for digest, key in stored.items()}
        self._keys = known | self._fixed
        self._accepted = {}

    def _fingerprint(self, digest: bytes) -> bytes:
        """What tokens are looked up by. No caller can foresee it, so the time that a look-up takes tells
        nothing of the keys that are accepted."""
        return sha256(self._secret + digest).digest()

    def is_known_key(self, authorization: bytes | None) -> bool:
        """Was the header accepted before, as a key of the shop? No token is read for that."""
        return authorization in self._accepted

    def authenticate(self, authorization: bytes | None) -> Principal:
        """The principal of an Authorization header. Raises Unauthorized."""
        if authorization is None:
            raise errors.Unauthorized("The header Authorization is missing.")
        accepted = self._accepted.get(authorization)
        if accepted is not None:
            return accepted
        if authorization == GIVEN_TWICE:
            raise errors.Unauthorized("The header Authorization is given more than once.")
        if authorization[:7].lower() != _BEARER:
            raise errors.Unauthorized("Authorization must be: Bearer, a space, and a token.")
        token = authorization[7:].strip()
        if len(token) > MAX_TOKEN_BYTES:
            raise errors.Unauthorized(f"A token has at most {MAX_TOKEN_BYTES} bytes.")
        fingerprint = self._fingerprint(sha256(token).digest())
        principal = self._keys.get(fingerprint)
        cacheable = len(self._accepted) < _CACHED_KEYS and len(authorization) < _CACHED_BYTES
        if principal is not None and cacheable:
            self._accepted[authorization] = principal
        if principal is None and self._tokens is not None:
            principal = self._tokens.verify(token, fingerprint)
        if principal is None:
            raise errors.Unauthorized("The token is not accepted.")
        return principal


class CustomerTokens:
    """Customers' JWTs: one algorithm, one issuer, one audience."""

    def __init__(self, settings: Settings, algorithm: JwtAlgorithm) -> None:
        self._algorithm = algorithm.value
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._key = _verification_key(settings, algorithm)
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    def verify(self, token: bytes, fingerprint: bytes) -> Principal | None:
        """The customer that the token names, or None if the token is not good; a good one is remembered by
        its fingerprint, for a while."""
        known = self._verified.get(fingerprint)
        if known is not None and time.time() < known[1]:
            return known[0]
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return self._remember(fingerprint, claims)
        except Exception as error:
            # Whatever a token makes the library stumble over, it is a token that is not good.
            log.debug("a customer's token was refused", reason=type(error).__name__)
            return None

    def _remember(self, fingerprint: bytes, claims: dict[str, Any]) -> Principal | None:
        subject = claims["sub"]
        if not _SUBJECT.fullmatch(subject):
            return None
        principal = Principal(
            "customer",
            f"{claims['iss']} {subject}",  # a subject has no space: no two customers share a name
            customer_id=subject,
            may_confirm=claims.get("holdfast_confirm") is True,
        )
        if len(self._verified) >= _CACHE_SIZE:
            self._verified.clear()
        good_until = min(time.time() + _CACHE_SECONDS, int(claims["exp"]) + LEEWAY_SECONDS)
        self._verified[fingerprint] = (principal, good_until)
        return principal


def _verification_key(settings: Settings, algorithm: JwtAlgorithm) -> Any:
    """The key, parsed once. Raises ConfigurationError if it is unreadable or of another algorithm."""
    setting = "HOLDFAST_JWT_KEY_FILE" if settings.jwt_key_file else "HOLDFAST_JWT_KEY"
    text = settings.jwt_key.get_secret_value() if settings.jwt_key else ""
    try:
        if settings.jwt_key_file:
            text = settings.jwt_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting} cannot be read: {type(error).__name__}") from None
    implementation = jwt.get_algorithm_by_name(algorithm.value)
    try:
        if not text:
            raise ValueError("empty")
        key = implementation.prepare_key(text)
        if not isinstance(implementation, HMACAlgorithm) and hasattr(key, "private_bytes"):
            raise ValueError("private")
        if implementation.check_key_length(key) is not None:
            raise ValueError("short")
    except Exception:
        # The reason could quote the key.
        secret = algorithm is JwtAlgorithm.HS256
        kind = "a shared secret of 32 bytes or more" if secret else "a public key in PEM, long enough,"
        raise ConfigurationError(f"{setting} is not {kind} for {algorithm.value}") from None
    return key
