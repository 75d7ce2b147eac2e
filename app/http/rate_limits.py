"""Limits per address, customer and API key. They count in this process alone."""

from socket import AF_INET, AF_INET6, inet_pton

from app import errors
from app.http.auth import Principal
from app.rates import RateLimiter
from app.settings import Settings

_MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins where IPv6 sockets take both."""
_IPV6_NETWORK_BYTES = 8


def network_of(host: str) -> bytes:
    """The IPv4 address, or the IPv6 /64, which one subscriber usually has whole. All that is neither is one
    network."""
    try:
        if ":" not in host:
            return inet_pton(AF_INET, host)
        packed = inet_pton(AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed[:_IPV6_NETWORK_BYTES]


class RateLimits:
    """Those limits that are set."""

    @classmethod
    def of(cls, settings: Settings) -> "RateLimits | None":
        """None where none is set."""
        rates = settings.rate_limit_address, settings.rate_limit_customer, settings.rate_limit_key
        return cls(*(RateLimiter(rate) if rate else None for rate in rates)) if any(rates) else None

    def __init__(
        self, addresses: RateLimiter | None, customers: RateLimiter | None, keys: RateLimiter | None
    ) -> None:
        self._addresses = addresses
        self._customers = customers
        self._keys = keys

    def judge_address(self, client: tuple[str, int] | None) -> None:
        """Before the token is read, so that guessing is bounded too; `client` is None on a Unix socket.

        Raises RateLimited.
        """
        if self._addresses is not None and client:
            _take(self._addresses, network_of(client[0]), "address")

    def judge_principal(self, principal: Principal) -> None:
        """Raises RateLimited."""
        if principal.customer_id is not None:
            if self._customers is not None:
                _take(self._customers, principal.name, "customer")
        elif self._keys is not None:
            _take(self._keys, principal.key, "API key")


def _take(limiter: RateLimiter, key: bytes | str | None, what: str) -> None:
    wait = limiter.take(key)
    if wait > 0:
        raise errors.RateLimited(f"More requests of this {what} than {limiter.rate}.", retry_after=wait)
