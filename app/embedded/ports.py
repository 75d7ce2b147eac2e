"""Whether a port can be had, asked before anything else is started."""

import socket

from app.errors import ConfigurationError


def free_port(host: str, port: int) -> int:
    """The port itself, or for 0 one that nobody uses. Raises ConfigurationError if it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot listen on {host} port {port} ({reason}): choose another --port (0: a free one) or --host"
        ) from error
