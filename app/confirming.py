"""Confirmations: gathered into batches, like requests for holds, and decided by lua/confirm.lua."""

from collections.abc import Callable
from typing import NamedTuple

from redis.asyncio import Redis

from app import errors
from app.batching import Batcher
from app.errors import HoldfastError
from app.ids import RESERVATION_PREFIX
from app.keys import Keys
from app.models import Reservation
from app.packing import read_hold
from app.partition_calls import ScriptAnswer
from app.refusals import refusal
from app.reserving import Reserving
from app.settings import Settings

_WEIGHT = 4
"""Of a confirmation, in lines of a cart: it writes three times as much as a hold."""


class Confirmation(NamedTuple):
    """`metadata`: a JSON object."""

    sale_id: str
    hold_id: str
    payment_reference: str
    metadata: bytes


def read_confirmation(request: Confirmation, answer: ScriptAnswer) -> Reservation:
    """The reservation with its order, new or as a replay.

    Raises SaleNotFound, ReservationNotFound, ReservationConfirmed (another reference), ReservationReleased or
    ReservationExpired (with refund_required).
    """
    word, _, packed = answer.words.partition(" ")
    if word in ("confirmed", "confirmed_already"):
        return read_hold(request.sale_id, request.hold_id, packed, answer.now)
    if word == "sale_not_found":
        raise errors.SaleNotFound(f"There is no sale {request.sale_id}.")
    if word == "reservation_not_found":
        raise errors.ReservationNotFound(
            f"The sale has no reservation {RESERVATION_PREFIX}{request.hold_id}."
        )
    if word == "reservation_expired":
        raise errors.ReservationExpired(
            "The units are gone; the payment has to be refunded.", refund_required=True
        )
    raise refusal(word) or AssertionError(f"confirm answered {word!r}")


class Confirming(Reserving):
    """Raises as `Inventory` does."""

    def __init__(self, redis: Redis, keys: Keys, settings: Settings) -> None:
        super().__init__(redis, keys, settings)
        self._confirmations = [self._confirmer(partition) for partition in range(keys.partitions)]

    def _confirmer(self, partition: int) -> Batcher[Confirmation, ScriptAnswer]:
        async def decide(requests: list[Confirmation]) -> list[ScriptAnswer | HoldfastError]:
            return await self._call_batch("confirm", partition, [], requests, _words)

        return Batcher(
            decide, weight_limit=self._settings.batch_lines, queue_limit=self._settings.request_limit
        )

    def submit_confirmation(
        self, request: Confirmation, done: Callable[[ScriptAnswer | HoldfastError], None]
    ) -> None:
        """Has it decided in the next batch, and `done` called with what the script says.

        Raises Overloaded at once if too many wait.
        """
        self._confirmations[self.keys.partition(request.sale_id)].add(request, _WEIGHT, done)

    async def confirm(
        self, sale_id: str, hold_id: str, payment_reference: str, metadata: bytes
    ) -> Reservation:
        """Raises as `read_confirmation` does."""
        request = Confirmation(sale_id, hold_id, payment_reference, metadata)
        batcher = self._confirmations[self.keys.partition(sale_id)]
        answer = await batcher.submit(request, _WEIGHT)
        if isinstance(answer, HoldfastError):
            raise answer
        return read_confirmation(request, answer)


def _words(request: Confirmation) -> tuple[str | bytes, ...]:
    return request.hold_id, request.payment_reference, request.metadata
