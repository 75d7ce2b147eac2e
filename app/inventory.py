"""The sole caller of the scripts that decide about stock: words become values or domain errors."""

from typing import Any

import orjson

from app import errors
from app.cluster import node_of
from app.confirming import Confirming
from app.ids import ORDER_PREFIX, RESERVATION_PREFIX
from app.models import UNKNOWN, Actor, JournalId, Reservation, Sale, SaleRules, StockRow
from app.packing import read_hold, read_sale, read_stock
from app.partition_calls import Reply
from app.refusals import overloaded, refusal

MAX_SKUS_PER_SALE = 10_000
MAX_ALLOCATED = 10**15
"""Units per SKU: far below 2^53, past which Lua's numbers skip integers."""

EXPIRE_WORK = 40
"""Holds and lines of their carts that one call ends: it blocks Redis for about half a millisecond."""


class Inventory(Confirming):
    """Stock and holds of every sale. Every method raises StoreUnavailable, OutcomeUnknown or SaleRebuilding
    where the store cannot answer, and SaleNotFound where there is no such sale."""

    # Shoppers

    async def reservation(self, sale_id: str, hold_id: str) -> Reservation | None:
        """The reservation as it is now, or None if Redis has none of this id."""
        reply = await self._call_sale("lookup", sale_id, "hold", hold_id)
        if not reply.details:
            return None
        return read_hold(sale_id, hold_id, reply.details[1], reply.now)

    async def living_holds(self, sale_id: str, customer_id: str) -> list[Reservation]:
        """The customer's active holds, newest first."""
        reply = await self._call_sale("lookup", sale_id, "customer", customer_id)
        pairs = zip(reply.details[::2], reply.details[1::2], strict=True)
        holds = [read_hold(sale_id, hold_id, packed, reply.now) for hold_id, packed in pairs]
        return sorted(holds, key=lambda hold: (-hold.created_at, hold.hold_id))

    async def extend(self, sale_id: str, hold_id: str, seconds: int) -> Reservation:
        """Raises ReservationNotFound, ReservationConfirmed, ReservationReleased, ReservationExpired or
        ExtensionLimitReached."""
        return self._hold_or_raise(
            await self._call_sale("extend", sale_id, sale_id, hold_id, seconds), sale_id, hold_id
        )

    async def release(self, sale_id: str, hold_id: str) -> Reservation:
        """Raises ReservationNotFound or ReservationConfirmed; an ended hold is answered as it is."""
        return self._hold_or_raise(
            await self._return_units("release", sale_id, sale_id, hold_id), sale_id, hold_id
        )

    async def cancel(
        self, sale_id: str, hold_id: str, restock: bool, reason: str | None, by: Actor = UNKNOWN
    ) -> Reservation:
        """Raises OrderNotFound; a cancelled order is answered as it is."""
        args = (str(by), hold_id, int(restock), orjson.dumps(reason))
        reply = await self._return_units("cancel", sale_id, sale_id, *args)
        return self._hold_or_raise(reply, sale_id, hold_id)

    @staticmethod
    def _hold_or_raise(reply: Reply, sale_id: str, hold_id: str) -> Reservation:
        if reply.word == "reservation_not_found":
            raise errors.ReservationNotFound(f"The sale has no reservation {RESERVATION_PREFIX}{hold_id}.")
        if reply.word == "order_not_found":
            raise errors.OrderNotFound(f"The sale has no order {ORDER_PREFIX}{hold_id}.")
        error = refusal(reply.word)
        if error is not None:
            raise error
        return read_hold(sale_id, hold_id, reply.details[0], reply.now)

    async def _return_units(self, script: str, sale_id: str, *args: Any) -> Reply:
        """A call after which what was sold out may be there again."""
        try:
            return await self._call_sale(script, sale_id, *args)
        finally:
            self._shield.forget(sale_id)

    # Operators

    async def configure(self, sale_id: str, rules: SaleRules, by: Actor = UNKNOWN) -> bool:
        """Creates the sale (True) or replaces its rules (False).

        Raises SaleClosed; ValidationFailed where a known SKU's quantity is not what it was; Overloaded.
        """
        partition = self.keys.partition(sale_id)
        args: list[Any] = [
            sale_id, str(by), rules.opens_at, rules.closes_at, rules.hold_seconds, rules.max_hold_seconds,
            orjson.dumps(rules.name), MAX_SKUS_PER_SALE, *self._room,
        ]  # fmt: skip
        for sku, quantity, limit in rules.items:
            args += (sku, quantity, limit or 0)
        keys = [*self.keys.for_script(sale_id), self.keys.sales(partition)]
        try:
            reply = await self._call("configure", partition, keys, args)
        finally:
            self._shield.forget(sale_id)
        if reply.word == "quantity_mismatch":
            message = "is not this SKU's first or present allocation; move stock by restock and withdraw"
            raise errors.ValidationFailed(
                [{"path": f"/items/{int(i) - 1}/quantity", "message": message} for i in reply.details]
            )
        if reply.word == "too_many_skus":
            message = f"would give the sale more than {MAX_SKUS_PER_SALE:,} SKUs"
            raise errors.ValidationFailed([{"path": "/items", "message": message}])
        if reply.word == "overloaded":
            raise overloaded(reply.details[0])
        self._raise_if_closed(reply)
        return reply.word == "created"

    async def steer(self, sale_id: str, verb: str, by: Actor = UNKNOWN) -> None:
        """`verb`: paused, resumed or closed. Raises SaleClosed where the sale is past that."""
        self._raise_if_closed(await self._return_units("steer", sale_id, sale_id, str(by), verb))

    @staticmethod
    def _raise_if_closed(reply: Reply) -> None:
        if reply.word == "sale_closed":
            raise refusal(reply.word, reply.details[0], now=reply.now) or AssertionError

    async def restock(
        self,
        sale_id: str,
        sku: str,
        quantity: int,
        key: str,
        digest: str,
        reason: str | None,
        by: Actor = UNKNOWN,
    ) -> tuple[StockRow, bool]:
        """The SKU's stock after it, and whether that is a replay.

        Raises SkuNotFound, IdempotencyKeyReused or ValidationFailed.
        """
        args = (str(by), sku, quantity, key, digest, orjson.dumps(reason), MAX_ALLOCATED)
        return self._movement(await self._return_units("restock", sale_id, sale_id, *args), sku, quantity)

    async def withdraw(
        self,
        sale_id: str,
        sku: str,
        quantity: int,
        key: str,
        digest: str,
        reason: str | None,
        by: Actor = UNKNOWN,
    ) -> tuple[StockRow, bool]:
        """Like `restock`, the other way; raises InsufficientStock too."""
        args = (str(by), sku, quantity, key, digest, orjson.dumps(reason))
        return self._movement(await self._call_sale("withdraw", sale_id, sale_id, *args), sku, quantity)

    @staticmethod
    def _movement(reply: Reply, sku: str, quantity: int) -> tuple[StockRow, bool]:
        if reply.word == "allocation_limit":
            message = f"would take the SKU past {MAX_ALLOCATED:,} units"
            raise errors.ValidationFailed([{"path": "/quantity", "message": message}])
        if reply.word == "insufficient_stock":
            available = read_stock(sku, reply.details[0]).available
            raise errors.InsufficientStock(
                f"{quantity} units of {sku} should be withdrawn, {available} are available.",
                sku=sku, requested=quantity, available=available,
            )  # fmt: skip
        if reply.word == "sku_not_found":
            raise errors.SkuNotFound(f"The sale has no SKU {sku}.", sku=sku)
        error = refusal(reply.word)
        if error is not None:
            raise error
        return read_stock(sku, reply.details[0]), reply.word == "replayed"

    # Everybody who watches

    async def snapshot(self, sale_id: str) -> Sale:
        """The sale and its stock at one moment."""
        # The rows beside the script, not by it: through Lua 10,000 of them take Redis five times as long.
        stock_key = self.keys.for_sale(sale_id)[1]
        reply = await self._call_sale("snapshot", sale_id, also=("HGETALL", stock_key))
        state, rules, stock = reply.details
        return read_sale(sale_id, reply.now, state, rules, stock)

    # Workers

    async def due_holds(self, partition: int, limit: int) -> dict[str, list[str]]:
        """Hold ids past their time by the Redis server's clock, by sale; the longest due first."""
        key = self.keys.due(partition)
        # Of this partition's server: by another's clock all might be due that this one does not expire.
        seconds, microseconds = await node_of(self._redis, key).time()
        now = seconds * 1000 + microseconds // 1000
        due: dict[str, list[str]] = {}
        members: list[Any] = await self._redis.zrange(
            key, "-inf", str(now), byscore=True, offset=0, num=limit
        )
        for member in members:
            sale_id, _, hold_id = member.partition("/")
            due.setdefault(sale_id, []).append(hold_id)
        return due

    async def expire(self, sale_id: str, hold_ids: list[str]) -> int:
        """Ends those of the holds that are past their time, `EXPIRE_WORK` a call; how many these were."""
        expired = 0
        while hold_ids:
            ids = hold_ids[: EXPIRE_WORK // 2]
            reply = await self._call_sale("expire", sale_id, sale_id, EXPIRE_WORK, *ids)
            expired += int(reply.details[0])
            hold_ids = hold_ids[int(reply.details[1]) :]
        self._shield.forget(sale_id)
        return expired

    async def mark(self, sale_id: str, audit_id: str) -> JournalId:
        """Puts the sale's counters into the journal; returns where."""
        return (await self._call_sale("mark", sale_id, sale_id, audit_id)).head

    async def forget(self, sale_id: str, hold_ids: list[str], retention_seconds: float) -> int | None:
        """Lets go of those of the holds (at most 500) that ended; how many, or None as long as the sale lives
        or has been closed for less than `retention_seconds`."""
        reply = await self._call_sale("forget", sale_id, sale_id, int(retention_seconds * 1000), *hold_ids)
        return None if reply.word == "too_soon" else int(reply.details[0])

    async def recall(self, sale_id: str, hold_id: str, packed: str) -> None:
        """Takes a forgotten hold back."""
        await self._call_sale("recall", sale_id, sale_id, hold_id, packed)
