"""What idle connections cost: memory of the API process for each, and a hold's time beside all of them."""

import argparse
import statistics
import sys
import time

import httpx
import psutil
import uvloop
from rich.console import Console

from app.demo.stage import Stage, running_stage
from app.serve import raise_file_limit
from loadtests.bench.field import create_sale
from loadtests.bench.saturation import PATH
from loadtests.open_loop import Pool

ONCE_SECONDS = 6.0
"""For one request on each: a connection that has never asked is closed after ten seconds."""
HOLDS = 100


async def measure(stage: Stage, connections: int, console: Console) -> None:
    process = psutil.Process(stage.servers.supervisor.pid("serve"))
    headers = {"Authorization": f"Bearer {stage.variables['HOLDFAST_STOREFRONT_KEY']}"}
    async with httpx.AsyncClient(base_url=stage.url, headers=headers, timeout=30) as client:

        async def hold(number: int) -> float:
            body = {"customer_id": f"idle{number}", "items": [{"sku": "a", "quantity": 1}]}
            started = time.perf_counter()
            (await client.post(PATH.format(sale="idle"), json=body)).raise_for_status()
            return (time.perf_counter() - started) * 1000

        async def holds(first: int) -> float:
            return statistics.median([await hold(number) for number in range(first, first + HOLDS)])

        alone, before = await holds(0), process.memory_info().rss
        pool = Pool(stage.url)
        await pool.open(connections)
        # Each has asked for something once, as those of a proxy or a browser have.
        request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await pool.drive(lambda: request, connections / ONCE_SECONDS, ONCE_SECONDS, warm_up=0)
        beside, after = await holds(HOLDS), process.memory_info().rss
        opened = len(process.net_connections("tcp"))
        pool.close()
    console.print(
        f"{opened:,} connections: {(after - before) / connections / 1024:.1f} KiB each, "
        f"{after / 2**20:.0f} MiB in all; a hold takes {beside:.1f} ms beside them, {alone:.1f} ms alone"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.idle",
        description=__doc__,
        epilog="example: python -m loadtests.idle --connections 2000",
    )
    parser.add_argument("--connections", type=int, default=10_000, help="default: 10000")
    options = parser.parse_args()
    raise_file_limit()
    console = Console(width=120)
    with running_stage(console) as stage:
        create_sale(stage, "idle", 10**9)
        uvloop.run(measure(stage, options.connections, console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
