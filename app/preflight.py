"""Is this Redis fit to hold stock? Judged at the start, so that the first sale does not find out."""

from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from app.cluster import ClusterIncomplete, RoutedRedis
from app.database import tells_if_slow
from app.errors import ConfigurationError, StoreUnavailable
from app.settings import Settings

log = structlog.get_logger(__name__)

_OLDEST = (7, 0)
"""The first with script flags, which let confirms through when memory is short."""
_REQUIRED = {"maxmemory-policy": "noeviction", "appendonly": "yes"}
_ADVISED = ("appendfsync", "maxmemory", "cluster-require-full-coverage")


async def check_redis(redis: Redis, settings: Settings) -> None:
    """Waits until Redis, of a cluster each master, answers, at most `startup_timeout_seconds`.

    Raises ConfigurationError if it is too old, evicts or does not persist; StoreUnavailable if it stays away.
    """
    with tells_if_slow("waiting for Redis", settings):
        servers = await _wait_for(redis, settings)
    for server, info in servers:
        await _check_server(server, info, settings)


async def _check_server(redis: Redis, info: dict[str, Any], settings: Settings) -> None:
    version, replicas = str(info["redis_version"]), int(info["connected_slaves"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ConfigurationError(f"HOLDFAST_REDIS_URL: Redis 7.0 or newer is needed, this one is {version}")
    if replicas < settings.replica_acks:
        # They may come later; until then nothing is acknowledged.
        wanted = settings.replica_acks
        log.warning("too few replicas for HOLDFAST_REPLICA_ACKS", connected=replicas, wanted=wanted)
    if settings.allow_volatile:
        return
    try:
        found = await redis.config_get(*_REQUIRED, *_ADVISED)
    except ResponseError:
        log.warning("CONFIG GET is forbidden: whether Redis evicts or persists could not be checked")
        return
    for name, value in _REQUIRED.items():
        if found.get(name, value) != value:
            raise ConfigurationError(
                f"HOLDFAST_REDIS_URL: Redis has `{name} {found[name]}`, which can lose holds: "
                f"set it to {value}, or HOLDFAST_ALLOW_VOLATILE=1"
            )
    if found.get("appendfsync", "always") != "always":
        log.warning(
            "Redis has not `appendfsync always`: a power cut may take the last second's holds with it"
        )
    if found.get("maxmemory") == "0":
        log.warning("Redis has no `maxmemory`: holds are given until the machine's memory ends")
    if info["cluster_enabled"] and found.get("cluster-require-full-coverage") == "yes":
        log.warning("Redis has `cluster-require-full-coverage yes`: no sale goes on while one master is away")


async def _wait_for(redis: Redis, settings: Settings) -> list[tuple[Redis, dict[str, Any]]]:
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((RedisError, OSError)),
            stop=stop_after_delay(settings.startup_timeout_seconds),
            wait=wait_random_exponential(0.05, max=1.0),
            reraise=True,
        ):
            with attempt:
                try:
                    return await _servers(redis)
                except AuthenticationError as error:
                    raise ConfigurationError(f"HOLDFAST_REDIS_URL: {error}") from None
    except ClusterIncomplete as error:
        raise StoreUnavailable(f"HOLDFAST_REDIS_URL: {error}") from None
    except (RedisError, OSError):
        raise StoreUnavailable("Redis cannot be reached: see HOLDFAST_REDIS_URL.") from None
    raise AssertionError("the last attempt returns or raises")


async def _servers(redis: Redis) -> list[tuple[Redis, dict[str, Any]]]:
    """The one server, or each master of its cluster, with what it says of itself."""
    info = dict(await redis.info())
    if not (isinstance(redis, RoutedRedis) and info["cluster_enabled"]):
        return [(redis, info)]
    await redis.learn()
    if not redis.is_whole:
        raise ClusterIncomplete("The cluster has slots without a master.")
    return [(master, dict(await master.info())) for master in redis.masters]
