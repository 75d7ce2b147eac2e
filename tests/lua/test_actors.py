"""Who did it: the entry of an operator's act carries the actor, a shopper's does not."""

from app.models import UNKNOWN, Actor, SaleRules
from tests.shop import HOUR_MS, Shop, now_ms

ANN = Actor("key_0123456789ab", "request-1")


async def actors(shop: Shop) -> list[tuple[str, Actor | None]]:
    return [(record.kind, record.by) for record in await shop.journal() if record.kind != "opened"]


async def test_every_act_of_an_operator_says_who_did_it(shop: Shop) -> None:
    rules = SaleRules("A sale", now_ms(), now_ms() + HOUR_MS, 60, 600, (("a", 5, None),))
    inventory = shop.inventory
    await inventory.configure("sale", rules, ANN)
    hold = await shop.hold("c1", a=1)
    await shop.confirm(hold)
    await inventory.cancel("sale", hold.hold_id, True, "a reason", ANN)
    await inventory.restock("sale", "a", 1, "k" * 24, "d", None, ANN)
    await inventory.withdraw("sale", "a", 1, "w" * 24, "d", None, ANN)
    for verb in ("paused", "resumed", "closed"):
        await inventory.steer("sale", verb, ANN)
    operators = ["configured", "cancelled", "restocked", "withdrawn", "paused", "resumed", "closed"]
    assert [kind for kind, by in await actors(shop) if by == ANN] == operators


async def test_what_shoppers_and_workers_do_names_nobody(shop: Shop) -> None:
    await shop.configure(a=10)
    held, released, expired = [await shop.hold(f"c{i}", a=1) for i in range(3)]
    await shop.inventory.extend("sale", held.hold_id, 500)
    await shop.confirm(held)
    await shop.inventory.release("sale", released.hold_id)
    await shop.wait(61)
    await shop.sweep(expired)
    await shop.inventory.mark("sale", "audit")
    assert await actors(shop) == [
        ("configured", UNKNOWN),
        *[("held", None)] * 3,
        *[(kind, None) for kind in ("extended", "confirmed", "released", "expired", "audited")],
    ]


def test_an_actor_is_read_as_it_was_written() -> None:
    for actor in (ANN, UNKNOWN):
        assert Actor.parse(str(actor)) == actor
