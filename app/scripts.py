"""Loads lua/ and runs it: one EVALSHA, and an honest error when the answer does not come.

A command that surely did not run, or that only reads, is `StoreUnavailable`; one that may have changed
something is `OutcomeUnknown`.
"""

import asyncio
import math
import re
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    InvalidResponse,
    MaxConnectionsError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from app.breaker import GuardedPool
from app.cluster import RoutedRedis, node_of
from app.errors import OutcomeUnknown, Overloaded, StoreUnavailable
from app.exchange import exchange
from app.paths import data_folder
from app.settings import Settings

_INCLUDE = re.compile(r"^--- include (\w+)$", re.MULTILINE)

_READS_ONLY = re.compile(r"#!lua\b.*\bflags=\S*\bno-writes\b")

_NOT_RUN = (
    "NOSCRIPT", "MOVED", "ASK", "TRYAGAIN", "LOADING", "BUSY", "OOM", "READONLY", "CLUSTERDOWN",
    "MASTERDOWN", "NOREPLICAS", "MISCONF", "NOAUTH",
)  # fmt: skip
"""Errors that Redis gives before a script has had an effect: at the door, or at its first write."""

_MULTI, _EXEC = (bytes(hiredis.pack_command((word,))) for word in ("MULTI", "EXEC"))

RETRY_AFTER_SECONDS = 1.0
"""Long enough for a failover to have moved on, short enough for a shopper who waits."""


def script_source(name: str) -> str:
    """The script's text, with the includes in their places."""
    folder = data_folder("lua")
    return _INCLUDE.sub(
        lambda match: (folder / "includes" / f"{match[1]}.lua").read_text(),
        (folder / f"{name}.lua").read_text(),
    )


def script_names() -> list[str]:
    return sorted(path.stem for path in Path(data_folder("lua")).glob("*.lua"))


def connect(settings: Settings) -> RoutedRedis:
    """A client whose waits are all bounded, and which does not wait for a Redis that is known to be away.

    It connects when it is first used.
    """
    pool: GuardedPool = GuardedPool.from_url(
        settings.redis_url,
        decode_responses=True,
        # Bytes that are no text are a journal record's fault, which must be read to be set aside.
        encoding_errors="surrogateescape",
        protocol=2,
        max_connections=settings.redis_connections,
        timeout=settings.redis_timeout_seconds,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        # A retry inside the client could run a script twice; callers decide what may be repeated.
        retry=Retry(NoBackoff(), 0),
    )
    # The URL's options win over those above; with the third protocol, servers send what nobody has asked for.
    pool.connection_kwargs["protocol"] = 2
    return RoutedRedis(pool)


class Scripts:
    """The project's scripts on one Redis, or on the masters of its cluster."""

    def __init__(self, redis: Redis, *, replica_acks: int = 0, replica_timeout_seconds: float = 1.0) -> None:
        """Scripts that write answer once `replica_acks` replicas have what they say."""
        self._redis = redis
        self._replica_acks = replica_acks
        self._replica_timeout_seconds = replica_timeout_seconds
        self._sources = {name: script_source(name) for name in script_names()}
        self._sha = {
            name: sha1(source.encode(), usedforsecurity=False).hexdigest()
            for name, source in self._sources.items()
        }
        self._read_only = {name for name, source in self._sources.items() if _READS_ONLY.match(source)}

    async def run(
        self, name: str, keys: list[str], args: list[str | bytes | int], also: Sequence[str] = ()
    ) -> list[Any]:
        """The reply of one call of the script `name`.

        `also`: beside a script that only reads, a command that does so, too, at the same moment; its reply
        comes last.

        Raises StoreUnavailable if it changed nothing, Overloaded if it was not sent since too many wait,
        OutcomeUnknown if it may have changed something.
        """
        try:
            return await self._run(name, keys, args, also)
        except MovedError as error:
            await self._follow(name, error)
        try:
            return await self._run(name, keys, args, also)
        except MovedError as error:
            raise self._failed(name, error) from error

    async def _run(
        self, name: str, keys: list[str], args: list[str | bytes | int], also: Sequence[str]
    ) -> list[Any]:
        """As `run`; raises MovedError where another server has the keys: nothing ran."""
        pool, connection = await self._connection(keys[0])
        try:
            try:
                return await self._evaluate(connection, name, keys, args, also)
            except NoScriptError:
                await self._load(pool, connection, name)
                return await self._evaluate(connection, name, keys, args, also)
        except AuthenticationError as error:
            raise StoreUnavailable("Redis refused the login.", retry_after=RETRY_AFTER_SECONDS) from error
        except MovedError:
            raise
        except (ResponseError, BusyLoadingError) as error:
            raise self._failed(name, error) from error
        except (ConnectionError, TimeoutError, InvalidResponse, OSError) as error:
            pool.report_lost()
            raise self._lost(name) from error
        finally:
            await pool.release(connection)

    async def _connection(self, key: str) -> tuple[Any, Any]:
        """The pool of the server that has the key, and a connection of it."""
        try:
            pool: Any = node_of(self._redis, key).connection_pool
            return pool, await pool.get_connection()
        except MaxConnectionsError as error:
            raise Overloaded("Too many calls wait for Redis.", retry_after=RETRY_AFTER_SECONDS) from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(
                "Redis cannot be reached; nothing was changed.", retry_after=RETRY_AFTER_SECONDS
            ) from error

    async def _follow(self, name: str, moved: MovedError) -> None:
        try:
            if isinstance(self._redis, RoutedRedis):
                await self._redis.follow(moved)
        except (RedisError, OSError):
            raise self._failed(name, moved) from moved

    def _failed(self, name: str, error: RedisError) -> StoreUnavailable | OutcomeUnknown:
        if _surely_not_run(error):
            return StoreUnavailable(
                "Redis refuses commands at the moment; nothing was changed.", retry_after=RETRY_AFTER_SECONDS
            )
        return self._lost(name)

    def _lost(self, name: str) -> StoreUnavailable | OutcomeUnknown:
        """What a lost answer means: a script that only reads has changed nothing, run or not."""
        if name in self._read_only:
            return StoreUnavailable(
                "Redis does not answer; nothing was changed.", retry_after=RETRY_AFTER_SECONDS
            )
        return OutcomeUnknown(retry_after=RETRY_AFTER_SECONDS)

    async def _evaluate(
        self,
        connection: Any,
        name: str,
        keys: list[str],
        args: list[str | bytes | int],
        also: Sequence[str],
    ) -> list[Any]:
        # hiredis packs a batch in a fraction of the time that the client's own packer takes.
        words: Any = ("EVALSHA", self._sha[name], len(keys), *keys, *args)
        command = hiredis.pack_command(words)
        if self._replica_acks and name not in self._read_only:
            await connection.send_packed_command([command + self._wait_command(keys[0])])
            return await self._acknowledged(connection)
        if also:
            return await self._together(connection, command, also)
        reply: list[Any] = await exchange(connection, command)
        return reply

    async def _together(self, connection: Any, command: bytes, also: Sequence[str]) -> list[Any]:
        """A transaction of the script and another command. Raises the first error among the replies."""
        words: Any = tuple(also)
        await connection.send_packed_command([_MULTI + command + hiredis.pack_command(words) + _EXEC])
        replies = await self._next_replies(connection, 4, connection.socket_timeout)
        both = replies[3]
        for reply in (*replies, *(both if isinstance(both, list) else ())):
            if isinstance(reply, ResponseError):
                raise reply
        return [*both[0], both[1]]

    def _wait_command(self, meta_key: str) -> bytes:
        """Behind the script in the same write, so that both share one sync to the disk."""
        milliseconds = max(1, int(self._replica_timeout_seconds * 1000))  # 0 would be for ever
        touch: Any = ("EVAL", self._sources["touch"], 1, meta_key)
        wait: Any = ("WAIT", self._replica_acks, milliseconds)
        return bytes(hiredis.pack_command(touch) + hiredis.pack_command(wait))

    async def _acknowledged(self, connection: Any) -> list[Any]:
        """The script's reply, once enough replicas have all that it has read and written.

        Raises OutcomeUnknown if they don't in time.
        """
        seconds = connection.socket_timeout + self._replica_timeout_seconds
        replies = await self._next_replies(connection, 3, seconds)
        reply, touched, replicas = replies
        if isinstance(reply, ResponseError):
            raise reply
        counted = touched == ["touched"] and not isinstance(replicas, ResponseError)
        if reply != ["rebuilding"] and not (counted and replicas >= self._replica_acks):
            raise OutcomeUnknown("Too few replicas have it yet.", retry_after=RETRY_AFTER_SECONDS)
        return list(reply)

    async def _next_replies(self, connection: Any, count: int, seconds: float) -> list[Any]:
        """Raises TimeoutError where they don't come in time; the client closes the connection then."""
        async with asyncio.timeout(seconds):
            return [await self._next_reply(connection) for _ in range(count)]

    @staticmethod
    async def _next_reply(connection: Any) -> Any:
        """A reply or an error; the replies behind an error must be read all the same.

        Not with a time-out of the client's: it keeps a connection that owes answers.
        """
        try:
            return await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            return error

    async def _load(self, pool: Any, connection: Any, name: str) -> None:
        try:
            await connection.send_command("SCRIPT LOAD", self._sources[name])
            await connection.read_response()
        except (RedisError, OSError) as error:
            if not isinstance(error, ResponseError):
                pool.report_lost()
            raise StoreUnavailable(
                "Redis took no script; nothing was changed.", retry_after=RETRY_AFTER_SECONDS
            ) from error


def _surely_not_run(error: RedisError) -> bool:
    # redis-py drops the first word of some errors and makes a class of it instead.
    words = (str(error).split(" ", 1)[0], getattr(error, "status_code", ""), _class_word(error))
    return any(word in _NOT_RUN for word in words)


def _class_word(error: RedisError) -> str:
    return {
        "NoScriptError": "NOSCRIPT",
        "ReadOnlyError": "READONLY",
        "OutOfMemoryError": "OOM",
        "BusyLoadingError": "LOADING",
        "ClusterDownError": "CLUSTERDOWN",
        "MasterDownError": "MASTERDOWN",
        "TryAgainError": "TRYAGAIN",
        "MovedError": "MOVED",
        "AskError": "ASK",
    }.get(type(error).__name__, "")
