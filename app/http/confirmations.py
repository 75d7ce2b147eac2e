"""POST …/reservations/{id}/confirm in its plain form: by the shop, without a wait for Postgres.

What needs more (a customer's token, `Prefer`) is left to the endpoint in storefront.py, which documents it.
"""

import orjson

from app.confirming import Confirmation, read_confirmation
from app.errors import HoldfastError
from app.http import reservations
from app.http.body import parse
from app.http.hotpath import Answer, refusal_at
from app.http.schemas import ConfirmRequest
from app.http.services import Services
from app.http.views import order_view
from app.ids import RESERVATION_PREFIX
from app.models import OrderStatus, Reservation
from app.partition_calls import ScriptAnswer

ROUTE = "/v1/sales/{sale_id}/reservations/{reservation_id}/confirm"
_NO_STORE = b"cache-control: no-store\r\n"
_NOT_FOUND = ("sale_not_found", "reservation_not_found")


def confirmation(sale_id: str, hold_id: str, body: bytes) -> Confirmation:
    """What the script is asked. Raises MalformedJson or ValidationFailed."""
    parsed = parse(ConfirmRequest, body)
    return Confirmation(sale_id, hold_id, parsed.payment_reference, parsed.metadata)


def answer_of(
    services: Services, request: Confirmation, outcome: ScriptAnswer | HoldfastError
) -> Answer | None:
    """The answer to a confirmation that was decided; None where Postgres may know what Redis does not."""
    if isinstance(outcome, HoldfastError):
        raise outcome
    if outcome.words in _NOT_FOUND:
        return None
    return _confirmed(services, read_confirmation(request, outcome))


async def answer_from_postgres(services: Services, request: Confirmation) -> Answer:
    """The answer once a hold that Redis has forgotten was taken back. Raises as the inventory does."""
    sale_id, hold_id, reference, metadata = request
    confirmed = await reservations.decide(
        services, sale_id, hold_id, lambda: services.inventory.confirm(sale_id, hold_id, reference, metadata)
    )
    return _confirmed(services, confirmed)


def _confirmed(services: Services, confirmed: Reservation) -> Answer:
    order = reservations.order_of(confirmed)
    persisted = reservations.is_known_persisted(services, confirmed)
    body = orjson.dumps(order_view(confirmed, order, persisted))
    head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) + _NO_STORE
    ended = order.status is OrderStatus.CANCELLED
    return Answer(200 if persisted or ended else 202, "ok", head, body)


def refusal(error: HoldfastError, sale_id: str, hold_id: str) -> Answer:
    path = f"/v1/sales/{sale_id}/reservations/{RESERVATION_PREFIX}{hold_id}/confirm"
    answer = refusal_at(error, path)
    return answer._replace(head=answer.head + _NO_STORE)
