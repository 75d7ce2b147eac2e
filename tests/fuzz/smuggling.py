"""Requests whose end two servers could see in different places, with another request where one of them would
look for the next: it must never be answered."""

from random import Random

from tests.fuzz.messages import Header, Message, World, any_message, reserve, smuggled

_CODINGS = (
    b"chunked", b"xchunked", b"chunked, identity", b"identity, chunked", b"identity", b"\tchunked",
    b"chunked\x0b",
    b'"chunked"', b"chunked;q=1", b"CHUNKED", b"chunked, chunked", b",chunked", b"chunked,", b"gzip, chunked",
    b"chunked\0", b"cow", b"", b"chunked ", b"\x0cchunked", b"chun\r\n ked", b"\r\n chunked",
    b"ch\xc3\xbcnked",
)  # fmt: skip
_NAMES = (
    b"Transfer-Encoding ", b"Transfer-Encoding\t", b" Transfer-Encoding", b"Transfer_Encoding",
    b"Transfer-Encoding\0",
    b"X: y\nTransfer-Encoding", b"X: y\rTransfer-Encoding", b"X: y\r\n Transfer-Encoding",
    b"\x0bTransfer-Encoding",
    b"transfer-encoding", b"Transfer\xadEncoding",
)  # fmt: skip
_SIGNS = (
    b"+%d", b"-%d", b"%d,%d", b"%d, 0", b"0, %d", b"%d 0", b"0x%x", b"%d\0", b"%d;", b"%d.0", b"1e%d",
    b'"%d"',
    b"%d\r\n 0", b"\r\n %d", b"\x0b%d", b"\xc2\xa0%d",
)  # fmt: skip
_BROKEN_ENDS = (
    b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\rX", b"1\r\nZZ\r\n0\r\n\r\n", b"1\nZ\r\n0\r\n\r\n",
    b"0x0\r\n\r\n",
    b"-0\r\n\r\n", b"0;\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX y\r\n", b"2;\nxx\r\n0\r\n\r\n",
    b"1\r\nZ0\r\n\r\n",
    b"10000000000000000\r\n\r\n", b"0 0\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\n\n", b"\r\n0\r\n\r\n",
)  # fmt: skip


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _sized(message: Message, length: int, *others: Header, first: bool) -> Message:
    own = ((b"Content-Length", b"%d" % length),)
    return message.without(b"content-length").plus(*(own + others if first else others + own))


def _length_and_coding(random: Random, message: Message, hidden: bytes) -> Message:
    coding = (b"Transfer-Encoding", random.choice(_CODINGS))
    inside = _chunked(hidden)
    if random.random() < 0.5:  # the length ends before the hidden request, the chunk after it
        length = inside.index(hidden)
        return _sized(message, length, coding, first=random.random() < 0.5).but(body=inside)
    whole = b"0\r\n\r\n" + hidden
    return _sized(message, len(whole), coding, first=random.random() < 0.5).but(body=whole)


def _coding_in_disguise(random: Random, message: Message, hidden: bytes) -> Message:
    whole = b"0\r\n\r\n" + hidden
    disguised = (random.choice(_NAMES), b"chunked")
    return _sized(message, len(whole), disguised, first=random.random() < 0.5).but(body=whole)


def _two_lengths(random: Random, message: Message, hidden: bytes) -> Message:
    other = (b"Content-Length", random.choice((b"0", b"1", b"%d" % (len(hidden) + 1), b"", b"-1", b"x")))
    return _sized(message, len(hidden), other, first=random.random() < 0.5).but(body=hidden)


def _odd_length(random: Random, message: Message, hidden: bytes) -> Message:
    form = random.choice(_SIGNS)
    numbers = (len(hidden),) * form.replace(b"%x", b"%d").count(b"%d")
    return message.without(b"content-length").plus((b"Content-Length", form % numbers)).but(body=hidden)


def _broken_chunks(random: Random, message: Message, hidden: bytes) -> Message:
    framed = message.without(b"content-length").plus((b"Transfer-Encoding", b"chunked"))
    return framed.but(body=random.choice(_BROKEN_ENDS) + hidden)


def _unread_body(random: Random, message: Message, hidden: bytes) -> Message:
    """Plain framing, but an answer that comes without reading the body."""
    refused = message.without(b"authorization") if random.random() < 0.5 else message
    method = random.choice((b"GET", b"DELETE", b"POST", b"OPTIONS", b"HEAD", b"PATCH"))
    odd = random.choice(
        ((), ((b"Expect", b"100-continue"),), ((b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")))
    )
    if random.random() < 0.5:
        return _sized(refused.but(method=method), len(hidden), *odd, first=True).but(body=hidden)
    framed = refused.without(b"content-length").plus((b"Transfer-Encoding", b"chunked"), *odd)
    return framed.but(method=method, body=_chunked(hidden))


def _old_version(random: Random, message: Message, hidden: bytes) -> Message:
    """HTTP/1.0 knows no chunks: whoever lies before may have taken all of it for the body."""
    framed = message.without(b"content-length").plus((b"Transfer-Encoding", b"chunked"))
    return framed.but(version=b"HTTP/1.0", body=b"0\r\n\r\n" + hidden)


_WAYS = (
    _length_and_coding, _length_and_coding, _coding_in_disguise, _two_lengths, _odd_length, _broken_chunks,
    _unread_body, _old_version,
)  # fmt: skip


def smuggling(random: Random, world: World) -> bytes:
    """A request with another one hidden where only a wrong reading finds it."""
    carrier = reserve(random, world) if random.random() < 0.7 else any_message(random, world)
    return random.choice(_WAYS)(random, carrier, smuggled(random).wire()).wire()
