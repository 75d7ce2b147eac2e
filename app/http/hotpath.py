"""POST /v1/sales/{sale_id}/reservations, the one handler written by hand: no router, no dependencies, and the
answer is put together from bytes. storefront.py documents it."""

import orjson
from starlette.types import Receive

from app.errors import HoldfastError
from app.http import problems
from app.http.auth import Principal
from app.http.body import BODY_BYTES, NamedHeaders, parse, read_body, read_idempotency_key
from app.http.schemas import ReservationRequest
from app.http.services import Services
from app.http.views import reservation_view
from app.ids import derived_hold_id, random_hold_id, request_digest
from app.inventory import Reserved, ReserveRequest
from app.journal import format_items
from app.models import Item

Answer = tuple[int, str, problems.Headers, bytes]

_REPLAYED = (b"idempotent-replayed", b"true")
_JSON = (b"content-type", b"application/json")


def _sku(item: Item) -> str:
    return item.sku


class HotPath:
    """Makes reservations."""

    def __init__(self, services: Services) -> None:
        self._inventory = services.inventory
        self._secret, *previous = services.settings.id_secrets
        self._previous_secret = previous[0] if previous else None
        self._body_timeout = services.settings.body_timeout_seconds

    async def answer(
        self, sale_id: str, principal: Principal, path: str, headers: NamedHeaders, receive: Receive
    ) -> Answer:
        """Status, outcome, headers and body. Raises HoldfastError, or ClientDisconnected."""
        key = read_idempotency_key(headers.get(b"idempotency-key"))
        body = parse(ReservationRequest, await read_body(receive, headers, BODY_BYTES, self._body_timeout))
        principal.require_own(body.customer_id)
        outcome = await self._inventory.reserve(self._request(sale_id, principal, key, body))
        if isinstance(outcome, HoldfastError):
            return self._refusal(outcome, path)
        return self._success(sale_id, outcome)

    def _request(
        self, sale_id: str, principal: Principal, key: str | None, body: ReservationRequest
    ) -> ReserveRequest:
        items = tuple([Item(item.sku, item.quantity) for item in body.items])
        # The order of the items is the client's to choose, and no other request.
        ordered = sorted(items, key=_sku) if len(items) > 1 else items
        digest = request_digest(body.customer_id, format_items(ordered))
        previous_id = ""
        if key is None:
            hold_id = random_hold_id()
        else:
            hold_id = derived_hold_id(self._secret, principal.identity, sale_id, key)
            if self._previous_secret is not None:
                previous_id = derived_hold_id(self._previous_secret, principal.identity, sale_id, key)
        return ReserveRequest(sale_id, hold_id, previous_id, body.customer_id, digest, items)

    @staticmethod
    def _refusal(error: HoldfastError, path: str) -> Answer:
        status, headers, body = problems.render(error, path)
        return status, error.code, headers, body

    @staticmethod
    def _success(sale_id: str, outcome: Reserved) -> Answer:
        view = reservation_view(outcome.reservation)
        body = orjson.dumps(view)
        headers: problems.Headers = [
            _JSON,
            (b"content-length", b"%d" % len(body)),
            (b"location", f"/v1/sales/{sale_id}/reservations/{view['id']}".encode()),
        ]
        if outcome.replayed:
            headers.append(_REPLAYED)
            return 201, "replayed", headers, body
        return 201, "held", headers, body
