"""What a hold costs Redis as a sale grows: SKUs, living holds, carts, sales, and holds of one customer."""

import random
from dataclasses import dataclass

from rich.console import Console

from app.models import Item
from loadtests.bench.growth_lab import BATCH, LARGE, Cart, Cost, Lab, one_unit, without_syncs

SKUS = (1, 10, 100, 1_000, 10_000)
LIVING = (1_000, 10_000, 100_000, 1_000_000, 2_000_000)
CARTS = (1, 2, 5, 10, 20)
CART_SKUS = 1_000
SALES = (1, 100, 10_000, 50_000)
SALES_IN_A_BATCH = (1, 4, 16, 64)
CUSTOMERS = (1, 10, 100, 900)
_BATCHES = 50


@dataclass(frozen=True)
class Axis:
    name: str
    costs: dict[int, Cost]


@dataclass(frozen=True)
class Growth:
    """`fork_ms`: how long Redis stood still to copy its page tables at the largest sale."""

    axes: list[Axis]
    fork_ms: float
    fork_holds: int


def _carts_of(lines: int) -> Cart:
    skus = [f"sku-{i}" for i in range(CART_SKUS)]

    def cart(number: int) -> tuple[str, tuple[Item, ...]]:
        return f"c{number:09}", tuple(Item(sku, 1) for sku in random.sample(skus, lines))

    return cart


def _any_of(skus: int) -> Cart:
    return lambda number: (f"c{number:09}", (Item(f"sku-{random.randrange(skus)}", 1),))


def _few_customers(number: int) -> tuple[str, tuple[Item, ...]]:
    return f"c{number % BATCH:09}", (Item("sku-0", 1),)


@dataclass(frozen=True)
class _Measurement:
    lab: Lab
    rounds: int
    quick: bool
    console: Console

    def points(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return sizes[:3] if self.quick else sizes

    def say(self, name: str, size: int, cost: Cost) -> None:
        self.console.print(
            f"{name} {size:,}: {cost.cpu:.1f} µs of Redis' CPU, {cost.script:.1f} in the script"
        )

    async def skus(self) -> Axis:
        costs = {}
        for size in self.points(SKUS):
            sale = f"skus-{size}"
            await self.lab.open_sale(sale, size)
            costs[size] = await self.lab.median_cost([sale], _BATCHES, self.rounds, _any_of(size))
            self.say("SKUs of the sale", size, costs[size])
        return Axis("SKUs of the sale", costs)

    async def carts(self) -> Axis:
        costs = {}
        for size in self.points(CARTS):
            sale = f"carts-{size}"
            await self.lab.open_sale(sale, CART_SKUS)
            costs[size] = await self.lab.median_cost([sale], _BATCHES, self.rounds, _carts_of(size))
            self.say("lines of the cart", size, costs[size])
        return Axis("lines of the cart", costs)

    async def customers(self) -> Axis:
        costs = {}
        for size in self.points(CUSTOMERS):
            sale = f"customers-{size}"
            await self.lab.open_sale(sale)
            await self.lab.fill(sale, size * BATCH, _few_customers)
            batches = min(_BATCHES // self.rounds, max(size // 10, 2))
            costs[size] = await self.lab.median_cost([sale], batches, self.rounds, _few_customers)
            self.say("living holds of the customer", size, costs[size])
        return Axis("living holds of the customer", costs)

    async def sales(self) -> list[Axis]:
        """Sales in the partition, of which one is asked; then as many as share a batch."""
        costs, made = {}, 0
        for size in self.points(SALES):
            async with without_syncs(self.lab.redis):
                for number in range(made, size):
                    await self.lab.open_sale(f"sale-{number}")
            made = size
            costs[size] = await self.lab.median_cost(["sale-0"], _BATCHES, self.rounds)
            self.say("sales in the partition", size, costs[size])
        shared = {}
        for size in self.points(SALES_IN_A_BATCH):
            names = [f"sale-{number}" for number in range(min(size, made))]
            shared[size] = await self.lab.median_cost(names, _BATCHES, self.rounds)
            self.say("sales in a batch", size, shared[size])
        return [Axis("sales in the partition", costs), Axis("sales in a batch of 64", shared)]

    async def living(self) -> Axis:
        await self.lab.open_sale("living")
        costs, made = {}, 0
        for size in self.points(LIVING):
            await self.lab.fill("living", size - made, per_call=LARGE)
            batches = max(4, min(_BATCHES, size // (10 * BATCH)))
            costs[size] = await self.lab.median_cost(["living"], batches, self.rounds, one_unit)
            made = size + self.rounds * batches * BATCH
            self.say("living holds of the sale", size, costs[size])
        return Axis("living holds of the sale", costs)

    async def fork(self) -> float:
        """Milliseconds; the rewriting of the file goes on behind it."""
        await self.lab.redis.bgrewriteaof()
        return float((await self.lab.redis.info("stats"))["latest_fork_usec"]) / 1000


async def measure_inventory(lab: Lab, rounds: int, quick: bool, console: Console) -> Growth:
    run = _Measurement(lab, rounds, quick, console)
    axes = [
        await run.skus(),
        await run.carts(),
        await run.customers(),
        *await run.sales(),
        await run.living(),
    ]
    return Growth(axes, await run.fork(), list(axes[-1].costs)[-1])
