"""A wrong start of the command is one sentence, and an exit code."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.demo.stage import without_settings
from tests.conftest import ID_SECRET

NOWHERE = {
    "HOLDFAST_REDIS_URL": "unix:///nowhere/redis.sock",
    "HOLDFAST_DATABASE_URL": "postgresql://postgres@/holdfast?host=/nowhere",
    "HOLDFAST_ID_SECRET": ID_SECRET,
    "HOLDFAST_STARTUP_TIMEOUT_SECONDS": "0.2",
}
JWT = {
    "HOLDFAST_JWT_ISSUER": "shop",
    "HOLDFAST_JWT_AUDIENCE": "holdfast",
    "HOLDFAST_JWT_ALGORITHM": "RS256",
    "HOLDFAST_JWT_KEY": "not a key",
}


def complaint(folder: Path, command: str, code: int, **settings: str) -> str:
    """The one sentence that `holdfast command` ends with, under `settings`."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "app.cli", *command.split()],
        cwd=folder,
        env=without_settings() | settings | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("holdfast: ")
    assert "Traceback" not in done.stderr
    return last


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("HOLDFAST_REDIS_URL", "redis://localhost:abc"),
        ("HOLDFAST_REDIS_URL", "redis://:pa/ss@localhost:6379"),
        ("HOLDFAST_DATABASE_URL", "postgresql://localhost:abc/x"),
    ],
)
def test_an_address_that_cannot_be_read_is_named(tmp_path: Path, command: str, name: str, url: str) -> None:
    sentence = complaint(tmp_path, command, 2, **(NOWHERE | {name: url}))
    assert sentence.startswith(f"holdfast: {name}: ")
    assert url not in sentence
    assert "abc" not in sentence
    assert "pa" not in sentence.replace("part", "").replace("password", "")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("serve --port 0", "HOLDFAST_REDIS_URL"),
        ("worker", "HOLDFAST_REDIS_URL"),
        ("migrate", "HOLDFAST_DATABASE_URL"),
        ("keys list", "HOLDFAST_DATABASE_URL"),
    ],
)
def test_a_store_that_is_away_is_named(tmp_path: Path, command: str, name: str) -> None:
    assert name in complaint(tmp_path, command, 1, **NOWHERE)


def test_serve_names_a_missing_secret(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, "serve --port 0", 2, **(NOWHERE | {"HOLDFAST_ID_SECRET": ""}))
    assert "HOLDFAST_ID_SECRET is not set" in sentence


def test_serve_names_a_key_that_is_none(tmp_path: Path) -> None:
    assert "HOLDFAST_JWT_KEY" in complaint(tmp_path, "serve --port 0", 2, **(NOWHERE | JWT))


def test_serve_names_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} " in complaint(tmp_path, f"serve --port {port}", 2, **NOWHERE)


@pytest.mark.parametrize("command", ["audit", "migrate", "rebuild", "keys list"])
def test_the_installation_in_this_folder_is_pointed_to(tmp_path: Path, command: str) -> None:
    (tmp_path / ".holdfast").mkdir()
    (tmp_path / ".holdfast/env").touch()
    assert "--data .holdfast" in complaint(tmp_path, command, 2)
