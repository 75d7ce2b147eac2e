"""One call of a script in its partition, and what this process has seen of each journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app import errors
from app.errors import HoldfastError, OutcomeUnknown
from app.keys import Keys
from app.models import JournalId
from app.scripts import RETRY_AFTER_SECONDS, Scripts
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Reply:
    """What a script said, where its partition's journal stood, and the time it went by."""

    word: str
    head: JournalId
    now: int
    details: list[Any]


class ScriptAnswer(NamedTuple):
    """The script's words for one request, and the time it went by, in milliseconds."""

    words: str
    now: int


class SaleRequest(Protocol):
    @property
    def sale_id(self) -> str: ...


Request = TypeVar("Request", bound=SaleRequest)
Words = Callable[[Request], Sequence[str | bytes]]


class PartitionCalls:
    def __init__(self, redis: Redis, keys: Keys, settings: Settings) -> None:
        self.keys = keys
        self._redis = redis
        self._settings = settings
        self._scripts = Scripts(
            redis,
            replica_acks=settings.replica_acks,
            replica_timeout_seconds=settings.replica_timeout_seconds,
        )
        self._seen = [JournalId(0, 0)] * keys.partitions

    def seen(self, partition: int) -> JournalId:
        """The newest journal id that this process has been told of."""
        return self._seen[partition]

    def saw(self, partition: int, journal_id: JournalId) -> None:
        """What Postgres has, Redis must have had: a server that lacks it is refused."""
        self._seen[partition] = max(self._seen[partition], journal_id)

    async def _call(
        self, script: str, partition: int, keys: list[str], args: list[Any], also: Sequence[str] = ()
    ) -> Reply:
        """`also`: a read of the same moment, whose reply is the last of the details."""
        reply = await self._scripts.run(script, keys, [str(self._seen[partition]), *args], also=also)
        word = reply[0]
        if word == "rebuilding":
            raise errors.SaleRebuilding(retry_after=RETRY_AFTER_SECONDS)
        head = JournalId.parse(reply[1])
        self.saw(partition, head)
        return Reply(word, head, int(reply[2]), reply[3:])

    async def _call_batch(
        self, script: str, partition: int, args: Sequence[Any], requests: list[Request], words: Words[Request]
    ) -> list[ScriptAnswer | HoldfastError]:
        """The answers to many requests in their order; `words` are what the script reads of one.

        Where Redis answers that the script failed, each is asked alone: what is damaged about one of them is
        not the others' fault. All are safe to repeat, by their ids.
        """
        try:
            return list(await self._call_together(script, partition, args, requests, words))
        except OutcomeUnknown as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            if len(requests) == 1:
                return [error]
        return [
            (await self._call_batch(script, partition, args, [request], words))[0] for request in requests
        ]

    async def _call_together(
        self, script: str, partition: int, args: Sequence[Any], requests: list[Request], words: Words[Request]
    ) -> list[ScriptAnswer]:
        by_sale: dict[str, list[Request]] = {}
        for request in requests:
            by_sale.setdefault(request.sale_id, []).append(request)
        keys, arguments = self.keys.for_partition(partition), [*args]
        for sale_id, its_requests in by_sale.items():
            keys += self.keys.for_sale(sale_id)
            arguments += (sale_id, len(its_requests))
            for request in its_requests:
                arguments += words(request)
        reply = await self._call(script, partition, keys, arguments)
        if len(reply.details) != len(requests):
            raise AssertionError(f"{script} answered {len(reply.details)} of {len(requests)} requests")
        answers = [ScriptAnswer(words, reply.now) for words in reply.details]
        if len(by_sale) == 1:
            return answers
        of_sale = {sale_id: iter(answers[first:]) for sale_id, first in _starts(by_sale)}
        return [next(of_sale[request.sale_id]) for request in requests]

    async def _call_sale(self, script: str, sale_id: str, *args: Any, also: Sequence[str] = ()) -> Reply:
        partition = self.keys.partition(sale_id)
        reply = await self._call(script, partition, self.keys.for_script(sale_id), list(args), also)
        if reply.word == "sale_not_found":
            raise errors.SaleNotFound(f"There is no sale {sale_id}.")
        return reply


def _starts(by_sale: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, int]]:
    """Where the answers of each sale begin."""
    first = 0
    for sale_id, requests in by_sale.items():
        yield sale_id, first
        first += len(requests)
