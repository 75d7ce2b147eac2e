"""The one module that spells Redis keys.

Every key carries the hash tag of a partition, so a script touches one slot whatever the cart, and the same
code runs on Redis Cluster. A sale lives in one partition, by a stable hash of its id.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b


@lru_cache(maxsize=4096)
def partition_of(sale_id: str, partitions: int) -> int:
    """The partition (0-based) of a sale; never changes for a given count of partitions."""
    digest = blake2b(sale_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation: `namespace` separates several on one Redis server."""

    namespace: str
    partitions: int

    def partition(self, sale_id: str) -> int:
        return partition_of(sale_id, self.partitions)

    def _key(self, partition: int, name: str) -> str:
        return f"{{{self.namespace}:{partition}}}:{name}"

    def meta(self, partition: int) -> str:
        """Hash: epoch, sequence, time, server, state (open, closed or gap), token, touched."""
        return self._key(partition, "meta")

    def journal(self, partition: int) -> str:
        """Stream: what every script changed."""
        return self._key(partition, "journal")

    def due(self, partition: int) -> str:
        """Sorted set: `sale_id/hold_id` by the millisecond at which the hold expires."""
        return self._key(partition, "due")

    def sales(self, partition: int) -> str:
        """Set: the ids of the sales that live in the partition."""
        return self._key(partition, "sales")

    def for_partition(self, partition: int) -> list[str]:
        """meta, journal, due: the first three KEYS of every script."""
        return [self.meta(partition), self.journal(partition), self.due(partition)]

    def for_sale(self, sale_id: str) -> list[str]:
        """sale, stock, holds, customers, answers: the KEYS of one sale, in the order of every script.

        sale: its rules; stock: a row per SKU; holds: a packed hold per id; customers: what each customer
        has taken; answers: what was answered to restocks, withdrawals and refunds, for replays.
        """
        partition = self.partition(sale_id)
        return [
            self._key(partition, f"{kind}:{sale_id}")
            for kind in ("sale", "stock", "holds", "customers", "answers")
        ]

    def for_script(self, sale_id: str) -> list[str]:
        """The eight KEYS of a script that works on one sale."""
        return self.for_partition(self.partition(sale_id)) + self.for_sale(sale_id)
