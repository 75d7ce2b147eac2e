"""Scripts over TLS with a login, as managed services have it; TLS ends in a proxy before a real server."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.scripts import Scripts, connect
from app.settings import Settings
from tests.redis_server import RedisServer, until

KEYS = list("abcdefgh")


def certificate(folder: Path) -> Path:
    """Of localhost, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "redis.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        signed.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.fixture
def clients() -> list[asyncio.StreamWriter]:
    """The proxy's connections to them."""
    return []


@pytest.fixture
async def url(store: RedisServer, tmp_path: Path, clients: list[asyncio.StreamWriter]) -> AsyncIterator[str]:
    """Of a proxy that speaks TLS and passes on what it hears, before a server that wants a password."""
    await store.client.config_set("requirepass", "secret")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        from_store, to_store = await asyncio.open_unix_connection(str(store.socket))
        await asyncio.gather(copy(reader, to_store), copy(from_store, writer), return_exceptions=True)

    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    async with await asyncio.start_server(meet, "localhost", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"rediss://:secret@localhost:{port}/0?ssl_ca_certs={file}"


async def test_scripts_run_over_tls(url: str) -> None:
    async with connect(Settings(redis_url=url)) as redis:
        scripts = Scripts(redis)
        large = ["x" * 1000] * 300
        replies = await asyncio.gather(
            *(scripts.run("release", KEYS, ["0-0", "sale", "hold", *large]) for _ in range(20))
        )
        assert replies == [["rebuilding"]] * 20
        assert await redis.ping()


async def test_a_connection_that_was_reset_meanwhile_is_replaced_before_anything_is_sent(
    url: str, clients: list[asyncio.StreamWriter]
) -> None:
    async with connect(Settings(redis_url=url, redis_timeout_seconds=30, redis_connections=2)) as redis:
        scripts = Scripts(redis)
        assert await scripts.run("release", KEYS, ["0-0", "sale", "hold"]) == ["rebuilding"]
        pool: Any = redis.connection_pool
        idle = [connection._writer.transport for connection in pool._available_connections]
        for client in clients:
            at_once = struct.pack("ii", 1, 0)
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            client.transport.abort()
        await until(lambda: _all_closing(idle))
        async with asyncio.timeout(10):
            assert await scripts.run("release", KEYS, ["0-0", "sale", "hold"]) == ["rebuilding"]


async def _all_closing(transports: list[Any]) -> bool:
    return all(transport.is_closing() for transport in transports)
