"""Group commit: requests that arrive while a call is in flight share the next one.

Alone, a request waits for nothing; under load the batch grows by itself, and one durable write serves all.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from app.errors import HoldfastError, OutcomeUnknown, Overloaded, StoreUnavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Batcher(Generic[Request, Answer]):
    """One queue in front of `decide`, which answers a list of requests in their order.

    `weight_limit` caps what one batch may weigh, `queue_limit` how many requests may wait.
    """

    def __init__(
        self,
        decide: Callable[[list[Request]], Awaitable[Sequence[Answer | HoldfastError]]],
        *,
        weight_limit: int,
        queue_limit: int,
    ) -> None:
        self._decide = decide
        self._weight_limit = weight_limit
        self._queue_limit = queue_limit
        self._waiting: deque[tuple[Request, int, asyncio.Future[Answer | HoldfastError]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def submit(self, request: Request, weight: int) -> asyncio.Future[Answer | HoldfastError]:
        """A future of the answer, or of the error that the whole batch met.

        Raises Overloaded at once if too many wait.
        """
        if len(self._waiting) >= self._queue_limit:
            raise Overloaded("Too many requests are waiting.", retry_after=1)
        future: asyncio.Future[Answer | HoldfastError] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, weight, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._run_batch()
        finally:
            self._task = None

    async def _run_batch(self) -> None:
        requests: list[Request] = []
        futures: list[asyncio.Future[Answer | HoldfastError]] = []
        weight = 0
        while self._waiting and (not requests or weight + self._waiting[0][1] <= self._weight_limit):
            request, its_weight, future = self._waiting.popleft()
            weight += its_weight
            requests.append(request)
            futures.append(future)
        answers: Sequence[Answer | HoldfastError]
        try:
            answers = await self._decide(requests)
        except HoldfastError as error:
            answers = [error] * len(futures)
            self._give_up(error)
        except Exception:
            log.exception("a batch failed", requests=len(requests))
            answers = [OutcomeUnknown(retry_after=1)] * len(futures)
        _answer_all(futures, answers)

    def _give_up(self, error: HoldfastError) -> None:
        """The store is away: who still waits was not sent, and need not wait for a time-out of its own."""
        if isinstance(error, OutcomeUnknown):
            error = StoreUnavailable(retry_after=error.retry_after)
        futures = [future for _, _, future in self._waiting]
        self._waiting.clear()
        _answer_all(futures, [error] * len(futures))


def _answer_all(
    futures: Sequence[asyncio.Future[Answer | HoldfastError]], answers: Sequence[Answer | HoldfastError]
) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if not future.done():  # its caller may have gone
            future.set_result(answer)
