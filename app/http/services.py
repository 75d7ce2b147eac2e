"""What the endpoints work with, made once per process."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

import asyncpg
from fastapi import Depends, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.http.auth import Authenticator, Principal
from app.http.availability import Availability, read_sale
from app.http.gate import Gate
from app.http.rate_limits import RateLimits
from app.inventory import Inventory
from app.keys import Keys
from app.models import Actor, Sale
from app.orders import Orders
from app.progress import DrainProgress
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    keys: Keys
    redis: Redis
    pool: asyncpg.Pool
    inventory: Inventory
    orders: Orders
    progress: DrainProgress
    authenticator: Authenticator
    availability: Availability
    gate: Gate
    limits: RateLimits | None
    """Shared by all ways in, or each would have a rate of its own."""
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every partition has been open that a worker may open."""

    async def sale(self, sale_id: str) -> Sale:
        """The sale as it is now, or as Postgres remembers it once Redis has forgotten it.

        Raises SaleNotFound.
        """
        return await read_sale(self.inventory, self.orders, sale_id)

    async def redis_time(self) -> int | None:
        """The time by which sales open and close, in milliseconds; None while Redis is away."""
        try:
            seconds, microseconds = await self.redis.time()
        except (RedisError, OSError):
            return None
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def drain_seen(self, sale_id: str, timeout: float) -> None:
        """Waits, if it is soon, until all that this process knows of the sale's partition is in Postgres."""
        partition = self.keys.partition(sale_id)
        await self.progress.wait(partition, self.inventory.seen(partition), timeout)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _actor(request: Request) -> Actor:
    """Who is written down for what the request changes."""
    return Actor(request.state.principal.key, request.state.request_id)


ServicesDep = Annotated[Services, Depends(_services)]
PrincipalDep = Annotated[Principal, Depends(_principal)]
ActorDep = Annotated[Actor, Depends(_actor)]
