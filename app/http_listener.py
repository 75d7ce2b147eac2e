"""A listening port that is about to close, without a reset for those who have connected."""

import select
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress

_IP_MINTTL, _IPV6_MINHOPCOUNT = 21, 73
_ANY_HOPS, _NO_HOPS = 0, 255


def refuse_new(listeners: Iterable[socket.socket]) -> None:
    """Lets no further handshake begin, while those that have can end.

    Closing a port resets whoever has connected and was not accepted yet, with a request perhaps already sent.
    After this they can all be accepted first; who comes later finds the port closed. Only Linux can.
    """
    for listener in listeners:
        _demand_hops(listener, _NO_HOPS)


def welcome(connection: socket.socket) -> None:
    """Lets a connection speak that a refusing listener has let in. What was dropped is sent again."""
    _demand_hops(connection, _ANY_HOPS)


def _demand_hops(socket_: socket.socket, hops: int) -> None:
    """Has the kernel drop packets that have come too far (RFC 5082). Hosts send them with 64 or 128 to go, so
    255 drops them all: at a listener the first packet of a handshake, then what its new connections hear.

    A packet filter could do the same, but some kernels let only root attach one.
    """
    if sys.platform != "linux" or socket_.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # a kernel that only resembles Linux
        if socket_.family == socket.AF_INET6:
            socket_.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, hops)
        socket_.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, hops)


def waits_for_accept(listeners: Iterable[socket.socket]) -> bool:
    poll = select.poll()
    for listener in listeners:
        poll.register(listener.fileno(), select.POLLIN)
    return bool(poll.poll(0))
