"""Requests as a client means them, before anything spoils them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

ADMIN_KEY = "admin-key-of-the-fuzzer"
STOREFRONT_KEY = "storefront-key-of-the-fuzzer"
HOT, COLD = "hot", "cold"
"""Sales: of the one, nothing but reservations is asked; of the other, everything."""
SMUGGLED = "smuggled"
"""The customer, and the start of the request id, of requests that lie in bodies."""

Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class World:
    """What exists: reservations of the sale `cold`, of which the first ones are confirmed."""

    holds: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Message:
    """`expected`: the statuses that it may get if nothing spoils it."""

    method: bytes
    target: bytes
    headers: tuple[Header, ...]
    body: bytes = b""
    expected: frozenset[int] = field(default=frozenset())
    version: bytes = b"HTTP/1.1"

    def wire(self) -> bytes:
        lines = [b"%b: %b\r\n" % header for header in self.headers]
        return (
            b"%b %b %b\r\n" % (self.method, self.target, self.version) + b"".join(lines) + b"\r\n" + self.body
        )

    def but(self, **changes: Any) -> "Message":
        return replace(self, **changes)

    def without(self, *names: bytes) -> "Message":
        return replace(self, headers=tuple(h for h in self.headers if h[0].lower() not in names))

    def plus(self, *headers: Header) -> "Message":
        return replace(self, headers=self.headers + headers)


def message(
    method: str, path: str, body: Any = None, *, by: str = STOREFRONT_KEY, expected: tuple[int, ...]
) -> Message:
    """A request as it should be; `body` goes as JSON."""
    headers = [(b"Host", b"shop.example"), (b"Authorization", b"Bearer " + by.encode())]
    encoded = b""
    if body is not None:
        encoded = json.dumps(body).encode()
        headers += [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(encoded))]
    return Message(method.encode(), path.encode(), tuple(headers), encoded, frozenset(expected))


def cart(random: Random, customer: str) -> dict[str, Any]:
    skus = random.sample(("a", "b", "c"), random.choice((1, 1, 1, 2, 3)))
    return {
        "customer_id": customer,
        "items": [{"sku": sku, "quantity": random.randint(1, 3)} for sku in skus],
    }


def reserve(random: Random, world: World) -> Message:
    """A reservation, sometimes under a key that others use too, sometimes of what is sold out."""
    body = cart(random, f"c{random.randrange(20_000)}")
    expected: tuple[int, ...] = (201, 422, 429)
    if random.random() < 0.2:
        body["items"][0]["sku"] = "none"
        expected = (409, 422)
    made = message("POST", f"/v1/sales/{HOT}/reservations", body, expected=expected)
    if random.random() < 0.5:
        made = made.plus((b"Idempotency-Key", b"key-%d" % random.randrange(5_000)))
    return made


def smuggled(random: Random) -> Message:
    """A reservation that is to lie in the body of another request."""
    body = {"customer_id": SMUGGLED, "items": [{"sku": "a", "quantity": 1}]}
    made = message("POST", f"/v1/sales/{HOT}/reservations", body, expected=())
    return made.plus((b"X-Request-Id", f"{SMUGGLED}-{random.randrange(10**9)}".encode()))


def _cold(random: Random, world: World) -> tuple[str, str]:
    hold = random.choice(world.holds)
    return f"/v1/sales/{COLD}/reservations/{hold}", hold


def _get_reservation(random: Random, world: World) -> Message:
    return message("GET", _cold(random, world)[0], expected=(200,))


def _confirm(random: Random, world: World) -> Message:
    path, hold = _cold(random, world)
    body = {"payment_reference": f"pay-{hold}", "metadata": {"cart": random.randrange(10**6)}}
    return message("POST", path + "/confirm", body, expected=(200, 202, 409))


def _extend(random: Random, world: World) -> Message:
    body = {"seconds": random.randint(1, 86_400)}
    return message("POST", _cold(random, world)[0] + "/extend", body, expected=(200, 409))


def _release(random: Random, world: World) -> Message:
    return message("DELETE", _cold(random, world)[0], expected=(200, 409))


def _order(random: Random, world: World) -> Message:
    return message("GET", f"/v1/sales/{COLD}/orders/{random.choice(world.orders)}", expected=(200,))


def _sale(random: Random, world: World) -> Message:
    return message(random.choice(("GET", "HEAD")), f"/v1/sales/{random.choice((HOT, COLD))}", expected=(200,))


def _list(random: Random, world: World) -> Message:
    kind = random.choice(("reservations", "orders", "movements"))
    query = f"?limit={random.randint(1, 500)}"
    return message("GET", f"/v1/admin/sales/{COLD}/{kind}{query}", by=ADMIN_KEY, expected=(200,))


def _restock(random: Random, world: World) -> Message:
    path = f"/v1/admin/sales/{COLD}/skus/a/{random.choice(('restock', 'restock', 'withdraw'))}"
    made = message(
        "POST", path, {"quantity": 1, "reason": "counted again"}, by=ADMIN_KEY, expected=(200, 409, 422)
    )
    return made.plus((b"Idempotency-Key", b"move-%d" % random.randrange(10**6)))


def _cancel(random: Random, world: World) -> Message:
    path = f"/v1/admin/sales/{COLD}/orders/{random.choice(world.orders)}/cancel"
    return message("POST", path, {"reason": "a test"}, by=ADMIN_KEY, expected=(200,))


def _service(random: Random, world: World) -> Message:
    path = random.choice(("/livez", "/openapi.json", "/problems/sold_out", "/docs", "/metrics"))
    return message("GET", path, expected=(200,))


_OTHERS: tuple[Callable[[Random, World], Message], ...] = (
    _get_reservation, _confirm, _extend, _release, _order, _sale, _list, _restock, _cancel, _service,
)  # fmt: skip


def any_message(random: Random, world: World) -> Message:
    """The hot path two times of three, else one of the other calls."""
    return reserve(random, world) if random.random() < 0.67 else random.choice(_OTHERS)(random, world)
