"""What Postgres remembers, read back: the same values that Redis gives, and pages that do not shift."""

import asyncpg
import pytest
from redis.asyncio import Redis

from app import api_keys
from app.errors import ConfigurationError, SaleNotFound, ValidationFailed
from app.inventory import Inventory
from app.keys import Keys
from app.models import OrderStatus, ReservationStatus, SaleState
from app.orders import Filters, Orders
from app.settings import Settings
from app.workers.drain import Drain
from tests.shop import HOUR_MS, Shop, now_ms


@pytest.fixture
async def shop(
    inventory: Inventory, redis: Redis, pool: asyncpg.Pool, keys: Keys, settings: Settings
) -> Shop:
    """A drained sale: five shoppers hold, of whom the first two have bought."""
    shop = Shop(inventory, redis)
    await shop.configure(a=10, b=(3, 2))
    holds = [await shop.hold(f"c{i}", a=1) for i in range(4)]
    holds.append(await shop.hold("c4", a=2, b=1))
    for i, hold in enumerate(holds[:2]):
        await shop.confirm(hold, f"pay-{i}", b'{"b":1,  "a":1e2}')
    await inventory.restock("sale", "a", 5, "key", "digest", "found")
    await Drain(redis, pool, keys, settings).run_partition(shop.partition)
    return shop


@pytest.fixture
def orders(pool: asyncpg.Pool) -> Orders:
    return Orders(pool)


async def test_a_reservation_reads_as_redis_has_it(shop: Shop, orders: Orders) -> None:
    for i in range(5):
        page = await orders.reservations("sale", Filters(customer_id=f"c{i}"), 10)
        (remembered,) = page.items
        known = await shop.inventory.reservation("sale", remembered.hold_id)
        assert known is not None
        again = await orders.reservation("sale", known.hold_id)
        assert again == remembered
        assert (known.status, known.items, known.created_at, known.expires_at) == (
            remembered.status, remembered.items, remembered.created_at, remembered.expires_at,
        )  # fmt: skip
        if known.order is not None and remembered.order is not None:
            assert remembered.order.metadata == known.order.metadata
            assert remembered.order.persisted
            assert await orders.is_persisted(known.hold_id, OrderStatus.CONFIRMED)
    assert await orders.reservation("sale", "0" * 26) is None
    assert await orders.reservation("other", remembered.hold_id) is None
    assert not await orders.is_persisted("0" * 26)


async def test_pages_hold_every_row_once(shop: Shop, orders: Orders) -> None:
    whole = (await orders.reservations("sale", Filters(), 500)).items
    assert sorted(reservation.customer_id for reservation in whole) == [f"c{i}" for i in range(5)]
    assert [reservation.created_at for reservation in whole] == sorted(
        (reservation.created_at for reservation in whole), reverse=True
    )
    seen, cursor = [], None
    while True:
        page = await orders.reservations("sale", Filters(), 2, cursor)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == whole
    first = await orders.orders("sale", Filters(), 1)
    second = await orders.orders("sale", Filters(), 1, first.next_cursor)
    assert {page.items[0].customer_id for page in (first, second)} == {"c0", "c1"}
    assert second.next_cursor is None


async def test_filters(shop: Shop, orders: Orders) -> None:
    async def customers(**filters: object) -> set[str]:
        page = await orders.reservations("sale", Filters(**filters), 500)  # type: ignore[arg-type]
        return {reservation.customer_id for reservation in page.items}

    everybody = {f"c{i}" for i in range(5)}
    assert await customers(status="confirmed") == {"c0", "c1"}
    assert await customers(status="held") == {"c2", "c3", "c4"}
    assert await customers(sku="b") == {"c4"}
    assert await customers(status="expired", now=now_ms() + HOUR_MS) == {"c2", "c3", "c4"}
    assert await customers(since=now_ms() - HOUR_MS) == everybody
    assert await customers(until=now_ms() - HOUR_MS) == set()
    late = await orders.reservations("sale", Filters(customer_id="c2", now=now_ms() + HOUR_MS), 1)
    assert late.items[0].status is ReservationStatus.EXPIRED


async def test_movements(shop: Shop, orders: Orders) -> None:
    page = await orders.movements("sale", Filters(), 1)
    assert (page.items[0].kind, page.items[0].quantity, page.items[0].reason) == ("restocked", 5, "found")
    assert page.items[0].stock is not None
    assert page.items[0].stock.allocated == 15
    rest = await orders.movements("sale", Filters(), 10, page.next_cursor)
    assert [(movement.sku, movement.quantity) for movement in rest.items] == [("b", 3), ("a", 10)]
    assert len((await orders.movements("sale", Filters(sku="a", status="allocated"), 10)).items) == 1


async def test_sales(shop: Shop, orders: Orders) -> None:
    live = await shop.sale()
    archived = await orders.archived_sale("sale", live.server_time)
    assert archived == live
    assert (await orders.sales(Filters(now=live.server_time), 10)).items == [live]
    assert (await orders.sales(Filters(status="closed"), 10)).items == []
    assert (await orders.archived_sale("sale", now_ms() + 2 * HOUR_MS)).state is SaleState.CLOSED
    with pytest.raises(SaleNotFound):
        await orders.archived_sale("other")


@pytest.mark.parametrize(
    "cursor", ["", "x", "WzFd", "WzEsMl0", "bnVsbA", "é", "WzEsIlx1MDAwMCJd", "W" * 5000]
)
async def test_foreign_cursors_are_refused(orders: Orders, cursor: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await orders.reservations("sale", Filters(), 10, cursor)
    assert refused.value.extra["errors"][0]["path"] == "/cursor"


async def test_api_keys(pool: asyncpg.Pool) -> None:
    key, secret = await api_keys.create(pool, "webshop", "storefront")
    assert secret.startswith("hf_")
    assert await api_keys.load(pool) == {api_keys.hash_key(secret): key}
    stored = await pool.fetchrow("SELECT * FROM api_keys")
    assert secret not in str(stored)
    assert await api_keys.revoke(pool, key.id)
    assert await api_keys.revoke(pool, key.id)
    assert await api_keys.load(pool) == {}
    assert not await api_keys.revoke(pool, "key_none")
    with pytest.raises(ConfigurationError):
        await api_keys.create(pool, "webshop", "root")


async def test_api_key_commands(
    pool: asyncpg.Pool, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await api_keys.create_command(settings, "a [bold] name", "admin") == 0
    secret = capsys.readouterr().out.strip()
    ((hashed, key),) = (await api_keys.load(pool)).items()
    assert hashed == api_keys.hash_key(secret)
    assert await api_keys.list_command(settings) == 0
    listed = capsys.readouterr().out
    assert key.id in listed
    assert "[bold]" in listed
    assert await api_keys.revoke_command(settings, key.id) == 0
    with pytest.raises(ConfigurationError):
        await api_keys.revoke_command(settings, "key_none")
