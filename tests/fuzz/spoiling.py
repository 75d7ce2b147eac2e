"""Ways to spoil a request's bytes: what strangers, broken proxies and attackers send."""

import json
from collections.abc import Callable
from random import Random

from tests.fuzz.messages import Header, World, any_message, reserve

INTERESTING = (
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\x0b", b":", b"%", b"%00", b"%2f", b"\xff",
    b"\xc3",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"[", b",", b"-", b"9" * 30, b"\x7f", b"\x80", b"0",
    b"chunked", b"HTTP/1.0", b"HTTP/2.0", b"GET / HTTP/1.1\r\n", b"Content-Length: 0\r\n", b"\\u0000",
    b"\\ud800",
)  # fmt: skip


def spoil_bytes(random: Random, wire: bytes) -> bytes:
    """One to four changes anywhere: bits, cuts, doublings, moves, and bytes with a meaning."""
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(wire) + 1)
        end = min(len(wire), start + random.choice((1, 1, 2, 4, 16, 64)))
        piece = wire[start:end]
        match random.randrange(6):
            case 0:
                flipped = bytes(byte ^ (1 << random.randrange(8)) for byte in piece)
                wire = wire[:start] + flipped + wire[end:]
            case 1:
                wire = wire[:start] + wire[end:]
            case 2:
                wire = wire[:end] + piece * random.choice((1, 2, 50)) + wire[end:]
            case 3:
                wire = wire[:start] + random.choice(INTERESTING) + wire[end:]
            case 4:
                wire = wire[:start] + random.choice(INTERESTING) + wire[start:]
            case _:
                target = random.randrange(len(wire) + 1)
                rest = wire[:start] + wire[end:]
                wire = rest[:target] + piece + rest[target:]
    return wire


def bits(random: Random, world: World) -> bytes:
    return spoil_bytes(random, any_message(random, world).wire())


def truncated(random: Random, world: World) -> bytes:
    """The beginning of a request; what comes next on the connection is then taken for the rest."""
    wire = any_message(random, world).wire()
    return wire[: random.randrange(1, len(wire))]


_ODD_HEADERS: tuple[Header, ...] = (
    (b"", b"x"), (b" X", b"y"), (b"X ", b"y"), (b"X\0", b"y"), (b"X", b"\0"), (b"X", b"a\rb"), (b"X",
    b"a\nb"),
    (b"X\xff", b"y"), (b"X", b"\xff\xfe"), (b"X", b"y\r\n folded"), (b"X", b"\t y \t"), (b"X" * 5000, b"y"),
    (b"X", b"y" * 30_000), (b"X", b"y" * 70_000), (b"X", b""), (b"Cookie", b"a=b; " * 500), (b"Host", b""),
    (b"Host", b"[::1]:99999"), (b"Host", b"a b"), (b"Idempotency-Key", b""), (b"Idempotency-Key", b'"'),
    (b"Idempotency-Key", b'"quoted"'), (b"Idempotency-Key", b"\xc3\xa9"), (b"Idempotency-Key", b"k" * 256),
    (b"Idempotency-Key", b"a b"), (b"Authorization", b"Bearer"), (b"Authorization", b"Bearer  x"),
    (b"Authorization", b"Basic eDp5"), (b"Authorization", b"Bearer a.b.c"), (b"Authorization", b"\xff"),
    (b"Authorization", b"Bearer eyJhbGciOiJub25lIn0.e30."), (b"Content-Type", b"text/plain"),
    (b"Content-Type", b"application/json; charset=utf-16"), (b"Content-Type", b"application/json;"),
    (b"Content-Encoding", b"gzip"), (b"Content-Encoding", b"identity"), (b"X-Request-Id", b"a b"),
    (b"X-Request-Id", b"x" * 200), (b"X-Request-Id", b"\xff"), (b"Prefer", b'wait="'), (b"Prefer",
    b"wait=1;" * 900),
    (b"Prefer", b"wait=" + b"9" * 400), (b"Range", b"bytes=0-0,-1"), (b"If-None-Match", b"*"), (b"TE",
    b"trailers"),
    (b"If-None-Match", b'W/"' + b"," * 3000), (b"Origin", b"https://evil.example"), (b"Via", b"1.1 x" * 99),
    (b"Connection", b"close"), (b"Connection", b"keep-alive, close"), (b"Connection", b"\0"),
    (b"Connection", b"Authorization"), (b"Keep-Alive", b"timeout=-1"), (b"X-Forwarded-For", b"\x7f"),
    (b"X-HTTP-Method-Override", b"DELETE"), (b"Accept", b"*/*;q=" + b"0" * 999), (b"Max-Forwards", b"-1"),
)  # fmt: skip


def headers(random: Random, world: World) -> bytes:
    """Headers dropped, doubled, moved, odd, and very many."""
    message = any_message(random, world)
    for _ in range(random.randint(1, 3)):
        lines = list(message.headers)
        at = random.randrange(len(lines)) if lines else 0
        match random.randrange(6):
            case 0 if lines:
                del lines[at]
            case 1 if lines:
                lines.insert(random.randrange(len(lines)), lines[at])
            case 2:
                random.shuffle(lines)
            case 3 if lines:
                name, value = lines[at]
                lines[at] = (random.choice((name.upper(), name.lower(), name + b" ", b" " + name)), value)
            case 4:
                lines += [(b"X-%d" % number, b"y") for number in range(random.choice((20, 200, 2_000)))]
            case _:
                lines.insert(at, random.choice(_ODD_HEADERS))
        message = message.but(headers=tuple(lines))
    return message.wire()


def chunks(random: Random, body: bytes) -> bytes:
    """The body in chunks, some of them odd."""
    wire, at = b"", 0
    while at < len(body):
        size = random.choice((1, 2, 7, 64, len(body)))
        piece = body[at : at + size]
        at += size
        head = random.choice((b"%x", b"%X", b"0%x", b"%x;a=b", b'%x;a="\\""', b"%x ")) % len(piece)
        wire += head + b"\r\n" + piece + b"\r\n"
    ends = (b"0\r\n\r\n", b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nX: y\r\n\r\n",
            b"0\r\nContent-Length: 5\r\nAuthorization: Bearer x\r\n\r\n")  # fmt: skip
    return wire + random.choice(ends)


_ODD_CHUNKS = (
    b"-1\r\nx\r\n", b"0x5\r\nhello\r\n", b"5\nhello\n", b"5\r\nhell", b"5\r\nhelloworld\r\n", b"g\r\n",
    b"\r\n",
    b"ffffffffffffffff\r\n", b"10000000000000000\r\nx", b"fffffff\r\nx", b"5;" + b"x" * 70_000,
    b"1\r\nx\r\n" * 3000,
    b"4000\r\n" + b"x" * 0x4000 + b"\r\n", b"0\r\n" + b"X: y\r\n" * 9000, b"0\r\n\0: y\r\n\r\n",
    b"+5\r\nhello\r\n",
)  # fmt: skip
_ODD_LENGTHS = (
    b"", b"-1", b"+5", b"0x10", b"5 5", b"5,5", b"5;", b"1e2", b"\xd9\xa3", b"9" * 19, b"9" * 400, b"0" * 400,
    b"16385", b"16384", b"4194305", b"99", b"0", b"1", b"NaN", b"5\0", b"\t5",
)  # fmt: skip
_ODD_FRAMES: tuple[Header, ...] = (
    (b"Expect", b"100-continue"), (b"Expect", b"100-Continue, x"), (b"Expect", b"200-ok"),
    (b"Upgrade", b"h2c"), (b"Upgrade", b"websocket"), (b"Upgrade", b"\0"), (b"Connection", b"Upgrade"),
    (b"Connection", b"close"), (b"Trailer", b"Authorization"), (b"Transfer-Encoding", b"gzip, chunked"),
    (b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"identity"), (b"Content-Length", b"0"),
)  # fmt: skip


def framing(random: Random, world: World) -> bytes:
    """Lengths that lie, chunks that do not fit, and headers about the connection."""
    message = any_message(random, world)
    body = message.body or b"{}"
    match random.randrange(4):
        case 0:
            message = message.without(b"content-length").plus(
                (b"Content-Length", random.choice(_ODD_LENGTHS))
            )
        case 1:
            message = message.without(b"content-length").plus((b"Transfer-Encoding", b"chunked"))
            message = message.but(body=chunks(random, body))
        case 2:
            message = message.without(b"content-length").plus((b"Transfer-Encoding", b"chunked"))
            message = message.but(body=random.choice(_ODD_CHUNKS) + chunks(random, body))
        case _:
            message = message.plus(*random.sample(_ODD_FRAMES, random.randint(1, 3)))
    return message.but(version=random.choice((b"HTTP/1.1",) * 6 + (b"HTTP/1.0", b"HTTP/1.2"))).wire()


def targets(random: Random, world: World) -> bytes:
    """Request lines that few clients send."""
    message = any_message(random, world)
    path = message.target
    method, target = message.method, path
    match random.randrange(5):
        case 0:
            target = random.choice((b"*", b"", b"//" + path, b"http://evil.example" + path, b"http://" + path,
                b"x:1", b"/..%2f.." + path, b"/." + path, path + b"#f", path + b"?" + b"a=b&" * 900,
                b"/" * 9000,
                path + b"/", b"/%" + path, path + b"%", path + b"?\xff", b"/\xc3\xa9", b"/%c3%28", b"/%ff",
                path + b"\x0a", path + b" x", path.replace(b"/", b"%2F"), path.replace(b"/", b"\\"),
                b"https://a:b@c:99999" + path, b"http://[::1" + path, path + b"%00",
                b"/" + b"%61" * 3000))  # fmt: skip
        case 1:
            at = random.randrange(len(path))
            target = path[:at] + b"%%%02x" % path[at] + path[at + 1 :]
        case 2:
            at = random.randrange(len(path))
            target = path[:at] + random.choice(INTERESTING) + path[at:]
        case 3:
            method = random.choice((b"get", b"POST ", b"PATCH", b"PUT", b"DELETE", b"OPTIONS", b"HEAD",
            b"TRACE",
                b"CONNECT", b"PROPFIND", b"X" * 3000, b"", b"\xff", b"PRI", b"QUERY", b"POST\t"))  # fmt: skip
        case _:
            query = random.choice((b"limit=0", b"limit=501", b"limit=5&limit=6", b"cursor=" + b"A" * 400,
            b"x",
                b"cursor=W10", b"from=2026-01-01T00:00:00Z", b"to=9999-12-31T23:59:59.999%2B00:00",
                b"from=%ff",
                b"customer_id=", b"status=held", b"sku=%00", b"limit=%D9%A3",
                b"cursor=%5B1%5D&limit=1"))  # fmt: skip
            target = path.partition(b"?")[0] + b"?" + query
    return message.but(method=method, target=target).wire()


_TEXTS = (
    '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\0"', '"\x7f"', '"\u2028"', '"' + "x" * 300 + '"', '""',
    '"\\x"',
    "null", "true", "NaN", "Infinity", "-0", "-0.0", "1e400", "-1e400", "1.0", "1E0", "01", "+1", "9" * 400,
    "9" * 5000,
    "9007199254740993", "18446744073709551616", "1e-400", "[]", "{}", "[[]]", "[" * 10_000,
    "[" * 5000 + "]" * 5000,
    '{"a":' * 3000 + "1" + "}" * 3000, '"a', "'a'", "a", "", "/**/1", '"\ud800"', '"\uffff"', '"\U0001f600"',
    "0x1",
)  # fmt: skip


_ODD_ITEMS: tuple[object, ...] = (
    [], [{}], {"sku": "a"}, [["a", 1]], [{"sku": "a", "quantity": 10**9}], [{"sku": "a" * 65, "quantity": 1}],
    [{"sku": "a", "quantity": True}], [{"sku": "a", "quantity": "1"}], [{"sku": "a", "quantity": 1.0}],
    [{"sku": "a\n", "quantity": 1}],
)  # fmt: skip


def _around(random: Random, text: str) -> bytes:
    """The text as bytes that are JSON no longer, or other JSON than meant."""
    encoded = text.encode("utf-8", "surrogatepass")
    whole: tuple[Callable[[], bytes], ...] = (
        lambda: b"\xef\xbb\xbf" + encoded,
        lambda: text.encode("utf-16", "surrogatepass"),
        lambda: text.encode("utf-32", "surrogatepass"),
        lambda: text.encode("latin-1", "replace") + b"\xe9",
        lambda: encoded + encoded,
        lambda: b"[" + encoded + b"]",
        lambda: encoded[: random.randrange(len(encoded) + 1)],
        lambda: encoded + b"\0",
        lambda: b"\n\t\r " * 900 + encoded,
        lambda: encoded + b" " * 16_000,
        lambda: encoded.replace(b'"', b"'"),
        lambda: b"\xc0\xaf" + encoded,
    )
    return random.choice(whole)()


def bodies(random: Random, world: World) -> bytes:
    """Bodies with a right length that say something odd."""
    message = reserve(random, world) if random.random() < 0.6 else any_message(random, world)
    text = message.body.decode() or "{}"
    fields = json.loads(text)
    name = random.choice([*fields, "extra", "customer_id"])
    odd = random.choice(_TEXTS)
    match random.randrange(5):
        case 0:
            body = _around(random, text)
        case 1:  # a member twice
            body = (text[:-1] + f',"{name}":{odd}}}').encode("utf-8", "surrogatepass")
        case 2:
            rest = json.dumps({key: value for key, value in fields.items() if key != name})
            body = (rest[:-1] + f'{"," if rest != "{}" else ""}"{name}":{odd}}}').encode(
                "utf-8", "surrogatepass"
            )
        case 3:
            items = random.choice((*_ODD_ITEMS, fields.get("items", [0]) * 30))
            body = json.dumps({**fields, "items": items}).encode()
        case _:
            body = spoil_bytes(random, text.encode())
    length = b"%d" % len(body)
    kept = message.without(b"content-length", b"content-type")
    return (
        kept.plus((b"Content-Type", b"application/json"), (b"Content-Length", length)).but(body=body).wire()
    )
