"""Which commands are sent again on a Redis Cluster, and where: those that surely did not run, once."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from app import errors
from app.inventory import Inventory
from app.keys import Keys
from app.lineage import Lineage
from app.models import Reservation
from app.scripts import connect, script_source
from app.settings import Settings
from tests.conftest import open_partitions
from tests.redis_cluster import MASTERS, ClusterNode, RedisCluster, redis_cluster
from tests.redis_server import until
from tests.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")
STOCK = 10


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    """For all tests here: each has a namespace of its own, and so other slots."""
    async with redis_cluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def lonely(cluster: RedisCluster, settings: Settings) -> AsyncIterator[Shop]:
    """Without a worker, and with little patience."""
    hurried = settings.model_copy(update={"redis_url": cluster.url, "redis_timeout_seconds": 0.15})
    keys = Keys(hurried.namespace, hurried.partitions)
    async with connect(hurried) as redis:
        await open_partitions(Lineage(redis, keys))
        shop = Shop(Inventory(redis, keys, hurried), redis)
        await shop.configure(a=STOCK)
        yield shop


async def calls_of(node: ClusterNode) -> dict[str, int]:
    """Of scripts: how many ran, and how many were refused at the door."""
    stats = (await node.client.info("commandstats")).get("cmdstat_evalsha", {})
    return {name: stats.get(name, 0) for name in ("calls", "rejected_calls")}


async def new_calls(node: ClusterNode, before: dict[str, int]) -> tuple[int, int]:
    after = await calls_of(node)
    return after["calls"] - before["calls"], after["rejected_calls"] - before["rejected_calls"]


async def test_moved_is_followed_once(lonely: Shop, cluster: RedisCluster) -> None:
    """To a server that has not written the state: it says so, until a worker has adopted it."""
    meta = lonely.inventory.keys.meta(lonely.partition)
    source = await cluster.owner(meta)
    target = next(node for node in cluster.nodes[:MASTERS] if node is not source)
    await target.say("SCRIPT LOAD", script_source("reserve"))
    await cluster.move(meta, target)
    before = await calls_of(source), await calls_of(target)
    assert isinstance(await lonely.refused("ada", a=1), errors.SaleRebuilding)
    assert isinstance(await lonely.refused("ada", a=1), errors.SaleRebuilding)
    assert await new_calls(source, before[0]) == (0, 1)
    assert await new_calls(target, before[1]) == (2, 0)


@pytest.mark.parametrize("moved", [1, 8])
async def test_a_partition_that_is_half_moved_has_changed_nothing(
    lonely: Shop, cluster: RedisCluster, moved: int
) -> None:
    """The server says TRYAGAIN while it has some of the keys, and ASK once it has none."""
    hold = await lonely.hold("ada", "ada", a=1)
    keys = lonely.inventory.keys.for_script(lonely.sale_id)
    source = await cluster.owner(keys[0])
    target = next(node for node in cluster.nodes[:MASTERS] if node is not source)
    await cluster.begin_move(keys[0], target)
    await cluster.move_keys(source, target, *keys[:moved])
    before = await calls_of(source), await calls_of(target)
    with pytest.raises(errors.StoreUnavailable):
        await lonely.confirm(hold)
    assert isinstance(await lonely.refused("bob", "bob", a=1), errors.StoreUnavailable)
    assert await new_calls(source, before[0]) == (0, 2)
    assert await new_calls(target, before[1]) == (0, 0)


async def test_a_call_whose_answer_was_lost_is_not_sent_again(lonely: Shop, cluster: RedisCluster) -> None:
    hold = await lonely.hold("ada", "ada", a=1)
    owner = await cluster.owner(lonely.inventory.keys.meta(lonely.partition))
    await owner.say("SCRIPT LOAD", script_source("confirm"))
    before = [await calls_of(node) for node in cluster.nodes]
    with owner.paused(), pytest.raises(errors.OutcomeUnknown):
        await lonely.confirm(hold)
    await until(lambda: _is_confirmed(lonely, hold))
    sent = {
        node.port: await new_calls(node, calls) for node, calls in zip(cluster.nodes, before, strict=True)
    }
    confirms = (await lonely.kinds()).count("confirmed")
    assert (confirms, sum(rejected for _, rejected in sent.values())) == (1, 0)
    assert {port for port, (calls, _) in sent.items() if calls} == {owner.port}


async def _is_confirmed(shop: Shop, hold: Reservation) -> bool:
    with suppress(errors.StoreUnavailable):
        found = await shop.inventory.reservation(shop.sale_id, hold.hold_id)
        return found is not None and found.order is not None
    return False
