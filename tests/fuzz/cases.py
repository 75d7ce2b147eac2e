"""The inputs of a round, each made from the seed and its number alone, so that any one can be sent again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from tests.fuzz import spoiling
from tests.fuzz.messages import World, any_message
from tests.fuzz.smuggling import smuggling


@dataclass(frozen=True)
class Case:
    """What is sent on a connection, in `pieces`. `expected`: for each request its possible statuses, where
    they are known. `leaves`: the client then goes away. `silent`: it sends no more, and waits for the
    server to end the connection."""

    number: int
    kind: str
    pieces: tuple[bytes, ...]
    expected: tuple[frozenset[int], ...] = ()
    leaves: bool = False
    silent: bool = False

    @property
    def wire(self) -> bytes:
        return b"".join(self.pieces)


def pipelines(random: Random, world: World) -> bytes:
    """Several requests at once, one of which may be spoilt."""
    wires = [any_message(random, world).wire() for _ in range(random.randint(2, 12))]
    if random.random() < 0.8:
        at = random.randrange(len(wires))
        wires[at] = random.choice(_SPOILT)(random, world)
    return b"".join(wires)


_SPOILT = (
    spoiling.bits,
    spoiling.truncated,
    spoiling.headers,
    spoiling.framing,
    spoiling.targets,
    spoiling.bodies,
)
KINDS: Mapping[str, tuple[int, Callable[[Random, World], bytes]]] = {
    "bits": (22, spoiling.bits),
    "truncated": (4, spoiling.truncated),
    "headers": (12, spoiling.headers),
    "framing": (14, spoiling.framing),
    "targets": (10, spoiling.targets),
    "bodies": (16, spoiling.bodies),
    "pipelines": (6, pipelines),
    "smuggling": (10, smuggling),
}
"""How often each is sent, and what makes its bytes."""
_NAMES = ("valid", "leaving", "silent", *KINDS)
_WEIGHTS = (3, 3, 0.25, *(weight for weight, _ in KINDS.values()))
"""A silent client costs the server's whole patience, some ten seconds of a connection."""


def make_case(seed: int, number: int, world: World, kind: str = "") -> Case:
    """Of a kind at random, unless one is given."""
    random = Random(f"{seed}:{number}")
    kind = kind or random.choices(_NAMES, _WEIGHTS)[0]
    if kind == "valid":
        messages = [any_message(random, world) for _ in range(random.choice((1, 1, 2, 5)))]
        wire = b"".join(message.wire() for message in messages)
        return Case(number, kind, _split(random, wire), tuple(message.expected for message in messages))
    if kind in ("leaving", "silent"):
        wire = spoiling.truncated(random, world)
        return Case(number, kind, _split(random, wire), leaves=kind == "leaving", silent=kind == "silent")
    return Case(number, kind, _split(random, KINDS[kind][1](random, world)))


def _split(random: Random, wire: bytes) -> tuple[bytes, ...]:
    """In one write, or in a few that part anywhere."""
    if len(wire) < 2 or random.random() < 0.6:
        return (wire,)
    places = sorted(random.randrange(1, len(wire)) for _ in range(random.randint(1, 4)))
    return tuple(
        wire[start:end] for start, end in zip((0, *places), (*places, len(wire)), strict=True) if end > start
    )
