"""Group commit: requests that arrive while a call is in flight share the next one.

Alone, a request waits for nothing; under load the batch grows by itself, and one durable write serves all.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from app.errors import HoldfastError, OutcomeUnknown, Overloaded, StoreUnavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_LOOKS = 4
"""At the sockets, as long as each finds more requests."""

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
        self._waiting: deque[tuple[Request, int, Callable[[Any], None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, request: Request, weight: int, done: Callable[[Answer | HoldfastError], None]) -> None:
        """Calls `done` with the answer, or with the error that the whole batch met: a callback costs a tenth
        of a future and the task that waits for it.

        Raises Overloaded at once if too many wait.
        """
        if len(self._waiting) >= self._queue_limit:
            raise Overloaded("Too many requests are waiting.", retry_after=1)
        self._waiting.append((request, weight, done))
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def submit(self, request: Request, weight: int) -> asyncio.Future[Answer | HoldfastError]:
        """The same with a future."""
        future: asyncio.Future[Answer | HoldfastError] = asyncio.get_running_loop().create_future()

        def done(answer: Answer | HoldfastError) -> None:
            if not future.done():  # its caller may have gone
                future.set_result(answer)

        self.add(request, weight, done)
        return future

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._run_batch()
                await self._gather()
        finally:
            self._task = None

    async def _gather(self) -> None:
        """Lets the loop read what has arrived while answers were sent: two half batches take a fifth more of
        everybody's time than a whole one."""
        for _ in range(_LOOKS):
            waiting = len(self._waiting)
            await asyncio.sleep(0)
            if len(self._waiting) == waiting:
                return

    async def _run_batch(self) -> None:
        requests: list[Request] = []
        waiting: list[Callable[[Answer | HoldfastError], None]] = []
        weight = 0
        while self._waiting and (not requests or weight + self._waiting[0][1] <= self._weight_limit):
            request, its_weight, done = self._waiting.popleft()
            weight += its_weight
            requests.append(request)
            waiting.append(done)
        answers: Sequence[Answer | HoldfastError]
        try:
            answers = await self._decide(requests)
        except HoldfastError as error:
            answers = [error] * len(waiting)
            self._give_up(error)
        except Exception:
            log.exception("a batch failed", requests=len(requests))
            answers = [OutcomeUnknown(retry_after=1)] * len(waiting)
        _answer_all(waiting, answers)

    def _give_up(self, error: HoldfastError) -> None:
        """The store is away: who still waits was not sent, and need not wait for a time-out of its own."""
        if isinstance(error, OutcomeUnknown):
            error = StoreUnavailable(retry_after=error.retry_after)
        waiting = [done for _, _, done in self._waiting]
        self._waiting.clear()
        _answer_all(waiting, [error] * len(waiting))


def _answer_all(
    waiting: Sequence[Callable[[Answer | HoldfastError], None]], answers: Sequence[Answer | HoldfastError]
) -> None:
    for done, answer in zip(waiting, answers, strict=True):
        try:
            done(answer)
        except Exception:  # one caller's fault is not the others'
            log.exception("an answer could not be handed over")
