"""The same code on a real Redis Cluster: sales on all masters, slots that move, masters that die."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg
import pytest
from structlog.testing import capture_logs

from app import errors
from app.auditor import audit_all
from app.errors import HoldfastError
from app.http.auth import Authenticator
from app.http.health import check
from app.http.services import Services
from app.ids import RESERVATION_PREFIX
from app.main import open_services
from app.models import Reservation
from app.reserving import Reserved
from app.scripts import connect
from app.settings import Settings
from app.workers.runner import work
from tests.redis_cluster import MASTERS, ClusterNode, RedisCluster, redis_cluster
from tests.redis_server import until
from tests.shop import Shop

PARTITIONS = 12
STOCK = 400
SHOPPERS = 8
PAUSE_SECONDS = 0.005
PASSING = (errors.StoreUnavailable, errors.OutcomeUnknown, errors.SaleRebuilding, errors.Overloaded)


@pytest.fixture
async def cluster() -> AsyncIterator[RedisCluster]:
    async with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def clustered(cluster: RedisCluster, settings: Settings) -> Settings:
    """With keys whose slots are on all masters."""
    return settings.model_copy(
        update={"redis_url": cluster.url, "namespace": "cluster", "partitions": PARTITIONS}
    )


@dataclass
class Floor:
    """A sale in each partition, an API process and a worker."""

    cluster: RedisCluster
    services: Services
    shops: list[Shop]
    acknowledged: dict[str, Reservation] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    """How often shoppers were told what."""

    def shops_on(self, node: ClusterNode, owners: list[ClusterNode]) -> list[Shop]:
        return [shop for shop in self.shops if owners[shop.partition] is node]

    async def owners(self) -> list[ClusterNode]:
        """By partition."""
        keys = self.services.keys
        return [await self.cluster.owner(keys.meta(partition)) for partition in range(PARTITIONS)]

    async def settled(self, shop: Shop, customer: str, key: str) -> Reserved | HoldfastError:
        """The answer, by asking again with the key until there is one."""
        while True:
            outcome = await self._ask(shop, customer, key)
            self.told[outcome.code if isinstance(outcome, HoldfastError) else "held"] += 1
            if isinstance(outcome, Reserved):
                self.acknowledged[outcome.reservation.hold_id] = outcome.reservation
            if not isinstance(outcome, PASSING):
                return outcome
            await asyncio.sleep(0.02)

    async def _ask(self, shop: Shop, customer: str, key: str) -> Reserved | HoldfastError:
        try:
            return await shop.reserve(customer, key, a=1)
        except HoldfastError as error:
            return error

    @asynccontextmanager
    async def crowded(self) -> AsyncIterator[None]:
        """Shoppers come as long as the block runs; each has an answer at the end."""
        leave = asyncio.Event()

        async def come(number: int) -> None:
            turn = number
            while not leave.is_set():
                turn += 1
                shop = self.shops[
                    turn * SHOPPERS % 7 * number % PARTITIONS if turn % 2 else turn % PARTITIONS
                ]
                await self.settled(shop, f"shopper-{number}-{turn}", f"key-{number}-{turn}")
                await asyncio.sleep(PAUSE_SECONDS)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number in range(SHOPPERS):
                group.create_task(come(number))
            try:
                yield
            finally:
                leave.set()

    async def is_open(self, shop: Shop) -> bool:
        with suppress(*PASSING):
            await shop.sale()
            return True
        return False

    async def are_open(self) -> None:
        for shop in self.shops:
            await until(lambda shop=shop: self.is_open(shop))  # type: ignore[misc]

    async def drained(self) -> None:
        for partition in range(PARTITIONS):
            seen = self.services.inventory.seen(partition)
            assert await self.services.progress.wait(partition, seen, 10)

    async def missing(self) -> set[str]:
        """Holds that were acknowledged and are in neither store; they are in both or in none."""
        await self.are_open()
        await self.drained()
        rows = await self.services.pool.fetch("SELECT id FROM reservations")
        persisted = {row["id"].removeprefix(RESERVATION_PREFIX) for row in rows}
        kept = set()
        for hold in self.acknowledged.values():
            if await self.services.inventory.reservation(hold.sale_id, hold.hold_id):
                kept.add(hold.hold_id)
        assert kept == persisted & self.acknowledged.keys()
        return self.acknowledged.keys() - kept

    async def is_in_order(self) -> None:
        """Nothing is oversold, and the stores agree."""
        services = self.services
        for shop in self.shops:
            for allocated, available, held, sold in (await shop.stock()).values():
                assert available >= 0
                assert held + sold <= allocated
        reports = await audit_all(
            services.inventory, services.pool, services.redis, services.keys, services.progress
        )
        assert len(reports) == PARTITIONS
        assert [i for report in reports for i in report.invariants if not i.ok] == []


@asynccontextmanager
async def open_floor(cluster: RedisCluster, settings: Settings) -> AsyncIterator[Floor]:
    stop = asyncio.Event()
    async with open_services(settings, Authenticator(settings)) as services, connect(settings) as redis:
        await redis.learn()
        working = asyncio.create_task(work(settings, redis, services.pool, stop))
        names = (f"sale-{number}" for number in range(1000))
        by_partition = {services.keys.partition(name): name for name in names}
        shops = [Shop(services.inventory, services.redis, by_partition[i]) for i in range(PARTITIONS)]
        floor = Floor(cluster, services, shops)
        for shop in shops:
            await until(lambda shop=shop: _is_configured(shop))  # type: ignore[misc]
        try:
            yield floor
        finally:
            stop.set()
            await working


async def _is_configured(shop: Shop) -> bool:
    with suppress(errors.SaleRebuilding):
        await shop.configure(a=STOCK, hold_seconds=600)
        return True
    return False


@pytest.fixture
async def floor(cluster: RedisCluster, clustered: Settings, pool: asyncpg.Pool) -> AsyncIterator[Floor]:
    async with open_floor(cluster, clustered) as floor:
        yield floor


async def test_everything_works_on_every_master(floor: Floor, cluster: RedisCluster) -> None:
    assert set(await floor.owners()) == set(cluster.nodes[:MASTERS])
    for shop in floor.shops:
        bought, back, late = [await shop.hold(name, name, a=1) for name in ("bought", "back", "late")]
        assert (await shop.confirm(bought)).order is not None
        await shop.inventory.release(shop.sale_id, back.hold_id)
        await shop.inventory.restock(shop.sale_id, "a", 5, "k" * 24, "d", None)
        await shop.wait(601)
        await until(lambda shop=shop, late=late: _has_expired(shop, late))  # type: ignore[misc]
        assert await shop.stock() == {"a": (STOCK + 5, STOCK + 4, 0, 1)}
    await floor.drained()
    await floor.is_in_order()
    ready, told = await check(floor.services)
    assert (ready, told["status"]) == (True, "pass")


async def _has_expired(shop: Shop, hold: Reservation) -> bool:
    """The sweeper goes by the server's clock, so the due list is moved, too."""
    due, member = shop.inventory.keys.due(shop.partition), f"{shop.sale_id}/{hold.hold_id}"
    await shop.redis.zadd(due, {member: 1}, xx=True)
    found = await shop.inventory.reservation(shop.sale_id, hold.hold_id)
    return found is not None and (await shop.stock())["a"][2] == 0


@pytest.mark.parametrize("way", ["key by key", "at once"])
async def test_slots_move_under_load_and_nothing_is_lost(
    floor: Floor, cluster: RedisCluster, way: str
) -> None:
    owners = await floor.owners()
    masters = cluster.nodes[:MASTERS]
    async with floor.crowded():
        for partition in range(0, PARTITIONS, 2):
            target = masters[(masters.index(owners[partition]) + 1) % MASTERS]
            key = floor.services.keys.meta(partition)
            if way == "at once":
                await cluster.move_at_once(key, target)
            else:
                await cluster.move(key, target, pause=0.02)
            assert await cluster.owner(key) is target
        await floor.are_open()
    assert floor.told["held"] > 10
    assert floor.told["sale_rebuilding"]
    assert await floor.missing() == set()
    await floor.is_in_order()


@pytest.mark.parametrize("acks", [0, 1])
async def test_a_master_dies_under_load(
    cluster: RedisCluster, clustered: Settings, pool: asyncpg.Pool, acks: int
) -> None:
    """What was acknowledged and is not drained may be lost with it, unless a replica had to have it. The
    others' sales go on meanwhile."""
    async with open_floor(cluster, clustered.model_copy(update={"replica_acks": acks})) as floor:
        owners = await floor.owners()
        victim = cluster.nodes[1]
        lucky = {shop.sale_id: shop for shop in floor.shops if owners[shop.partition] is not victim}
        assert (await check(floor.services))[0]
        async with floor.crowded():
            await asyncio.sleep(0.3)
            victim.kill()
            for shop in lucky.values():
                assert (await shop.hold("lucky", a=1)).status == "held"
            await until(lambda: _leads(cluster.replica_of(victim)))
            ready, told = await check(floor.services)
            assert (ready, told["status"]) == (True, "warn")
            await cluster.restart(victim)
            await floor.are_open()
        missing = await floor.missing()
        assert not {floor.acknowledged[id_].sale_id for id_ in missing} & lucky.keys()
        if acks:
            assert missing == set()
        await floor.is_in_order()
        assert set(await floor.owners()) == {cluster.nodes[0], cluster.replica_of(victim), cluster.nodes[2]}


async def _leads(node: ClusterNode) -> bool:
    return bool((await node.client.info("replication"))["role"] == "master")


async def test_a_replica_that_is_behind_is_noticed_and_what_is_drained_is_there(
    floor: Floor, cluster: RedisCluster
) -> None:
    owners = await floor.owners()
    victim = cluster.nodes[2]
    shops = floor.shops_on(victim, owners)
    await cluster.replica_of(victim).cut()
    for shop in floor.shops:
        for number in range(5):
            await floor.settled(shop, f"c{number}", f"key-{number}")
    await floor.drained()
    with capture_logs() as logs:
        victim.kill()
        await until(lambda: _leads(cluster.replica_of(victim)))
        assert await floor.missing() == set()
    rebuilt = {line["partition"] for line in logs if line["event"] == "rebuilt from Postgres"}
    assert rebuilt == {shop.partition for shop in shops}
    for shop in shops:
        assert await shop.stock() == {"a": (STOCK, STOCK - 5, 5, 0)}
        replay = await shop.reserve("c0", "key-0", a=1)
        assert isinstance(replay, Reserved)
        assert replay.replayed
    await floor.is_in_order()
