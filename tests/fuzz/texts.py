"""Texts for decoders: what their encoders write, spoilt."""

from random import Random

_WORDS = (
    "", " ", "-", "0", "-0", "1", "-1", "9" * 20, "9" * 400, "9" * 5000, "1e5", "1_0", "+1", "\u0663",
    "\u00b2", "0x1", "0.5",
    ",", "=", "/", ":", ";", '"', "'", "\\", "\n", "\r", "\t", "\0", "\x0b", "\x1f", "\x7f", "\x85",
    "\u2028", "\ufeff",
    "\u00e9", "\U0001f600", "{", "}", "[", "]", "{}", "[]", "null", "NaN", "Infinity", "1e400", '"\\u0000"',
    '"\\ud800"',
    "held", "confirmed", "expired", "opened", "T", "Z", "+00:00", "-99:59", "%", "%00", "%ff", "@", "?", "#",
    "..", "*",
    "W/", "wait", "wait=5", "Bearer ", "eyJhbGciOiJub25lIn0", "redis://", "unix://", "?port=", "=" * 300,
    "," * 300,
)  # fmt: skip


def spoil(random: Random, text: str) -> str:
    """None to five changes: pieces cut, doubled, moved, replaced, and words with a meaning put in."""
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 5))):
        start = random.randrange(len(text) + 1)
        end = min(len(text), start + random.choice((0, 1, 1, 2, 5, 30)))
        word = (
            random.choice(_WORDS)
            if random.random() < 0.7
            else chr(random.choice((random.randrange(128), 0x3042)))
        )
        match random.randrange(5):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:start] + word + text[end:]
            case 2:
                text = text[:end] + text[start:end] * random.choice((1, 2, 100)) + text[end:]
            case 3:
                text = " ".join(random.sample(parts := text.split(" "), len(parts)))
            case _:
                text = text[:start] + text[start:end].swapcase() + word + text[end:]
        text = text[:20_000]
    return text
