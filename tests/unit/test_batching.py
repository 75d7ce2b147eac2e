"""Group commit: who shares a call, and what those are told who wait when the store goes away."""

import asyncio

import pytest

from app.batching import Batcher
from app.errors import HoldfastError, OutcomeUnknown, Overloaded, SaleRebuilding, StoreUnavailable


class Store:
    """Answers a batch when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def decide(self, requests: list[int]) -> list[int | HoldfastError]:
        self.batches.append(requests)
        self.called.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return [request * 10 for request in requests]


@pytest.fixture
async def store() -> Store:
    return Store()


async def test_a_lone_request_waits_for_nothing_and_those_that_come_meanwhile_share_the_next_call(
    store: Store,
) -> None:
    batcher = Batcher(store.decide, weight_limit=100, queue_limit=100)
    first = batcher.submit(1, 1)
    await store.called.wait()
    others = [batcher.submit(number, 1) for number in (2, 3, 4)]
    store.go_on.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert store.batches == [[1], [2, 3, 4]]


async def test_a_batch_weighs_no_more_than_the_limit(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=5, queue_limit=100)
    store.go_on.set()
    assert await asyncio.gather(*(batcher.submit(number, 2) for number in range(5))) == [0, 10, 20, 30, 40]
    assert store.batches == [[0, 1], [2, 3], [4]]
    assert await batcher.submit(7, 99) == 70


async def test_past_the_queues_bound_requests_are_refused(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=1, queue_limit=2)
    batcher.submit(1, 1)
    batcher.submit(2, 1)
    with pytest.raises(Overloaded):
        batcher.submit(3, 1)
    store.go_on.set()


@pytest.mark.parametrize(
    ("error", "unsent"),
    [
        (OutcomeUnknown(), StoreUnavailable),
        (StoreUnavailable(), StoreUnavailable),
        (SaleRebuilding(), SaleRebuilding),
    ],
)
async def test_when_the_store_goes_away_nobody_waits_for_a_time_out_of_their_own(
    store: Store, error: HoldfastError, unsent: type[HoldfastError]
) -> None:
    """Only who was sent may have been served; the others surely were not."""
    batcher = Batcher(store.decide, weight_limit=1, queue_limit=100)
    sent = batcher.submit(1, 1)
    await store.called.wait()
    waiting = [batcher.submit(number, 1) for number in (2, 3)]
    store.error = error
    store.go_on.set()
    assert type(await sent) is type(error)
    assert [type(await one) for one in waiting] == [unsent, unsent]
    assert store.batches == [[1]]


async def test_an_unforeseen_fault_is_an_unknown_outcome(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=1, queue_limit=100)
    store.error = ZeroDivisionError()
    store.go_on.set()
    assert isinstance(await batcher.submit(1, 1), OutcomeUnknown)
