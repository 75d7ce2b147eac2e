"""Which server wrote a partition's state, and who may go on with it.

Every script refuses (`rebuilding`) on a server other than the one that the partition's meta record names,
so an emptied, restarted or stale Redis is noticed before a hold is given. A worker opens it again: it claims
the partition, has Postgres give out the next epoch, and opens it in that one, rebuilt where it has to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import SaleRebuilding, StoreUnavailable
from app.keys import Keys
from app.models import JournalId
from app.scripts import RETRY_AFTER_SECONDS, Scripts


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition's meta record. `same_server`: was it written under this server's replication id?"""

    head: JournalId
    is_open: bool
    same_server: bool
    has_gap: bool
    """Are journal entries missing that Postgres does not have? Then only a person may open it."""

    def is_healthy(self, position: JournalId | None) -> bool:
        """May it go on as it is? `position`: Postgres', if that is known."""
        return self.is_open and self.same_server and (position is None or self.head >= position)


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition as it was when it was claimed. `was_open`: its keys are as the scripts have left them."""

    head: JournalId
    was_open: bool


class Lineage:
    """Raises StoreUnavailable or OutcomeUnknown where Redis cannot answer."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.keys = keys
        self._redis = redis
        self._scripts = Scripts(redis)

    async def inspect(self, partition: int) -> PartitionState | None:
        """None where the server knows nothing of the partition."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(self.keys.meta(partition))
                pipe.info("replication")
                meta, replication = await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable("Redis cannot be reached.", retry_after=RETRY_AFTER_SECONDS) from error
        if "epoch" not in meta:
            return None
        return PartitionState(
            JournalId(int(meta["epoch"]), int(meta["sequence"])),
            is_open=meta.get("state") == "open",
            same_server=meta.get("server") == replication["master_replid"],
            has_gap=meta.get("state") == "gap",
        )

    async def report_gap(self, partition: int, *, epoch: int | None = None, token: str = "") -> bool:
        """Lets nobody write until a person has decided: a rebuild would lose what only Redis knows.

        By the drain, which found it in `epoch`, or by the rebuild that holds `token`. False if the partition
        was closed, claimed or opened anew meanwhile.
        """
        args: list[Any] = ["" if epoch is None else epoch, token]
        return bool((await self._scripts.run("gap", [self.keys.meta(partition)], args))[0] == "gap")

    async def sale_ids(self, partition: int) -> set[str]:
        """The sales that Redis has in the partition."""
        try:
            # At once: the cursor of a scan means nothing on a server that takes over meanwhile.
            members: set[Any] = await self._redis.smembers(self.keys.sales(partition))
        except (RedisError, OSError) as error:
            raise StoreUnavailable("Redis cannot be reached.", retry_after=RETRY_AFTER_SECONDS) from error
        return members

    async def claim(self, partition: int, token: str) -> Claim:
        """Closes the partition; the holder of `token` may write and open it."""
        _, epoch, sequence, state = await self._scripts.run("claim", [self.keys.meta(partition)], [token])
        return Claim(JournalId(int(epoch), int(sequence)), state == "open")

    async def restore(
        self, partition: int, token: str, verb: str, key: str, words: Sequence[str | bytes | int] = ()
    ) -> None:
        """One write of a rebuild: `verb` delete, hash, set or sorted; `words` at most 4000.

        Raises SaleRebuilding where another rebuild has taken over.
        """
        await self._run_as_owner("restore", [self.keys.meta(partition), key], [token, verb, *words])

    async def reopen(
        self, partition: int, token: str, epoch: int, previous: JournalId, not_before: int
    ) -> None:
        """Opens the partition in `epoch`; its clock never shows less than `not_before` (milliseconds).

        Raises SaleRebuilding where another rebuild has taken over.
        """
        keys = [self.keys.meta(partition), self.keys.journal(partition)]
        await self._run_as_owner("reopen", keys, [token, epoch, str(previous), not_before])

    async def _run_as_owner(self, script: str, keys: list[str], args: list[Any]) -> None:
        if (await self._scripts.run(script, keys, args))[0] == "not_mine":
            raise SaleRebuilding("Another worker rebuilds the partition.", retry_after=RETRY_AFTER_SECONDS)
