"""Ids of reservations and orders, and digests of requests.

With an Idempotency-Key, the id derives from the key: a replay finds the same hold by its id, with no second
table to keep. Without one, it is random. Both have 130 bits, written as 26 characters of Crockford's base 32,
of which each is made of five bits of a byte.
"""

import secrets
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26
_CHARACTERS = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))

RESERVATION_PREFIX = "res_"
ORDER_PREFIX = "ord_"


def random_hold_id() -> str:
    return secrets.token_bytes(_LENGTH).translate(_CHARACTERS).decode()


def _length_prefixed(parts: Iterable[str]) -> bytes:
    """No two different lists of parts give the same bytes."""
    return "".join([f"{len(part)}:{part}" for part in parts]).encode()


def derived_hold_id(secret: bytes, principal: tuple[str, str], sale_id: str, idempotency_key: str) -> str:
    """The id that this key has for this principal (kind and name) on this sale.

    Not to be guessed without `secret` (at most 64 bytes).
    """
    hasher = _begun(secret, principal, sale_id).copy()
    hasher.update(_length_prefixed((idempotency_key,)))
    return hasher.digest().translate(_CHARACTERS).decode()


@lru_cache(maxsize=1024)
def _begun(secret: bytes, principal: tuple[str, str], sale_id: str) -> blake2b:
    """The hash up to the key: a shop's requests for a sale share it."""
    return blake2b(_length_prefixed((*principal, sale_id)), key=secret, digest_size=_LENGTH)


def request_digest(*parts: str) -> str:
    """24 characters that tell one request from another under the same key."""
    return blake2b(_length_prefixed(parts), digest_size=12).hexdigest()


def hold_id_of(public_id: str, prefix: str) -> str | None:
    """The hold id inside `res_…` or `ord_…`, or None if it cannot be one."""
    hold_id = public_id.removeprefix(prefix)
    if hold_id == public_id or len(hold_id) != _LENGTH or not set(hold_id) <= set(_ALPHABET):
        return None
    return hold_id
