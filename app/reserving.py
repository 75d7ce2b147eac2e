"""Requests for holds: gathered into batches, and each batch decided by one call of lua/reserve.lua."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.asyncio import Redis

from app.batching import Batcher
from app.errors import HoldfastError
from app.journal import format_items
from app.keys import Keys
from app.models import Item, Reservation
from app.partition_calls import PartitionCalls, ScriptAnswer
from app.refusals import reserve_answer
from app.settings import Settings
from app.shield import SoldOutShield


class ReserveRequest(NamedTuple):
    sale_id: str
    hold_id: str
    previous_hold_id: str
    """The id under the secret before, while rotating; else empty."""
    customer_id: str
    digest: str
    items: tuple[Item, ...]
    has_key: bool = True
    """Was there an Idempotency-Key? Then an earlier try may have won, which only Redis knows."""


@dataclass(frozen=True, slots=True)
class Reserved:
    reservation: Reservation
    replayed: bool


def _words(request: ReserveRequest) -> tuple[str, ...]:
    return (
        request.hold_id,
        request.previous_hold_id,
        request.customer_id,
        request.digest,
        format_items(request.items),
    )


def read_reserve(request: ReserveRequest, answer: ScriptAnswer) -> Reserved | HoldfastError:
    """What the script's words mean."""
    outcome = reserve_answer(request.sale_id, request.hold_id, request.customer_id, request.items, *answer)
    return outcome if isinstance(outcome, HoldfastError) else Reserved(*outcome)


class Reserving(PartitionCalls):
    """Raises as `Inventory` does."""

    def __init__(self, redis: Redis, keys: Keys, settings: Settings) -> None:
        super().__init__(redis, keys, settings)
        self._room = (settings.max_journal_entries, settings.max_journal_bytes, settings.memory_watermark)
        self._shield = SoldOutShield()
        self._batchers = [self._batcher(partition) for partition in range(keys.partitions)]

    def _batcher(self, partition: int) -> Batcher[ReserveRequest, ScriptAnswer]:
        async def decide(requests: list[ReserveRequest]) -> list[ScriptAnswer | HoldfastError]:
            return await self._reserve_batch(partition, requests)

        return Batcher(
            decide, weight_limit=self._settings.batch_lines, queue_limit=self._settings.queue_limit
        )

    def submit(self, request: ReserveRequest, done: Callable[[ScriptAnswer | HoldfastError], None]) -> None:
        """Has the request decided in the next batch, and `done` called with what the script says.

        Raises Overloaded at once if too many wait.
        """
        batcher = self._batchers[self.keys.partition(request.sale_id)]
        batcher.add(request, len(request.items), done)

    def known(self, request: ReserveRequest) -> ScriptAnswer | None:
        """The answer that needs no script: nothing is left of the one SKU, and no key to look for."""
        if request.has_key or len(request.items) > 1:
            return None
        words = self._shield.words(request.sale_id, *request.items[0])
        return None if words is None else ScriptAnswer(words, 0)

    async def decide(self, request: ReserveRequest) -> ScriptAnswer | HoldfastError:
        """The same for one who waits."""
        if (known := self.known(request)) is not None:
            return known
        batcher = self._batchers[self.keys.partition(request.sale_id)]
        return await batcher.submit(request, len(request.items))

    async def reserve(self, request: ReserveRequest) -> Reserved | HoldfastError:
        """Decides in the next batch. Returns the refusal instead of raising it: it is the common answer."""
        answer = await self.decide(request)
        return answer if isinstance(answer, HoldfastError) else read_reserve(request, answer)

    async def _reserve_batch(
        self, partition: int, requests: list[ReserveRequest]
    ) -> list[ScriptAnswer | HoldfastError]:
        settings = self._settings
        args: list[Any] = [
            *self._room,
            settings.max_reservations_per_customer,
            settings.max_reservations_per_sale,
        ]
        asked_at = self._shield.clock()
        answers = await self._call_batch("reserve", partition, args, requests, _words)
        for request, answer in zip(requests, answers, strict=True):
            if not isinstance(answer, HoldfastError) and answer.words.startswith("sold_out "):
                self._shield.learn(request.sale_id, answer.words, asked_at)
        return answers
