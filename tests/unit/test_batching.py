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


async def settled() -> None:
    """Until nothing is under way any more."""
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})


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


async def test_a_lone_request_is_decided_without_a_look_for_others(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=100, queue_limit=100)
    store.go_on.set()
    for number in (1, 2):  # the second one when the batcher has been used
        answer = batcher.submit(number, 1)
        await asyncio.sleep(0)  # what was due before this turn has run, and nothing else
        assert store.batches[-1] == [number]
        await answer
        await settled()


async def test_what_comes_while_answers_are_sent_and_right_after_shares_the_next_call(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=100, queue_limit=100)
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[int | HoldfastError] = asyncio.Queue()

    def answered(answer: int | HoldfastError) -> None:
        batcher.add(2, 1, answers.put_nowait)
        loop.call_soon(in_the_next_turn)

    def in_the_next_turn() -> None:
        batcher.add(3, 1, answers.put_nowait)
        loop.call_soon(batcher.add, 4, 1, answers.put_nowait)

    store.go_on.set()
    batcher.add(1, 1, answered)
    assert [await answers.get() for _ in range(3)] == [20, 30, 40]
    assert store.batches == [[1], [2, 3, 4]]


async def test_a_turn_in_which_nothing_comes_is_the_last_that_is_waited_for(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=100, queue_limit=100)
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[int | HoldfastError] = asyncio.Queue()

    def answered(_answer: int | HoldfastError) -> None:
        batcher.add(2, 1, answers.put_nowait)
        loop.call_soon(loop.call_soon, batcher.add, 3, 1, answers.put_nowait)

    store.go_on.set()
    batcher.add(1, 1, answered)
    assert [await answers.get() for _ in range(2)] == [20, 30]
    assert store.batches == [[1], [2], [3]]


async def test_requests_without_end_do_not_keep_those_before_them_waiting(store: Store) -> None:
    batcher = Batcher(store.decide, weight_limit=100, queue_limit=1000)
    loop = asyncio.get_running_loop()

    def one_more_each_turn(number: int) -> None:
        if len(store.batches) < 2 and number < 100:
            batcher.submit(number, 1)
            loop.call_soon(one_more_each_turn, number + 1)

    first = batcher.submit(0, 1)
    await store.called.wait()
    one_more_each_turn(1)
    store.go_on.set()
    await first
    await settled()
    assert len(store.batches[1]) < 20


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
