"""A wrong start of the command is one sentence, and an exit code."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.demo.stage import without_settings
from app.embedded.installation import settings_from
from app.errors import ConfigurationError
from app.setting_names import unknown_settings
from app.settings import Settings
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


def test_a_setting_that_is_no_text_is_named(tmp_path: Path) -> None:
    secret = os.fsdecode(b"\xff" * 16)
    sentence = complaint(tmp_path, "serve --port 0", 2, **(NOWHERE | {"HOLDFAST_ID_SECRET": secret}))
    assert sentence.endswith("HOLDFAST_ID_SECRET is not UTF-8")


def test_serve_names_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} " in complaint(tmp_path, f"serve --port {port}", 2, **NOWHERE)


@pytest.mark.parametrize("command", ["audit", "migrate", "rebuild", "keys list"])
def test_the_installation_in_this_folder_is_pointed_to(tmp_path: Path, command: str) -> None:
    (tmp_path / ".holdfast").mkdir()
    (tmp_path / ".holdfast/env").touch()
    assert "--data .holdfast" in complaint(tmp_path, command, 2)


@pytest.mark.parametrize("command", ["serve", "worker", "up", "keys list"])
def test_a_misspelt_setting_is_named_with_the_nearest_one(tmp_path: Path, command: str) -> None:
    sentence = complaint(tmp_path, command, 2, HOLDFAST_RATE_LIMIT_ADRESS="7/s", HOLDFAST_LOG_LEVEL="chatty")
    assert (
        "HOLDFAST_RATE_LIMIT_ADRESS is not a setting; did you mean HOLDFAST_RATE_LIMIT_ADDRESS?" in sentence
    )
    assert "HOLDFAST_LOG_LEVEL: " in sentence
    assert "7/s" not in sentence


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("HOLDFAST_ADMINKEY", "x", "HOLDFAST_ADMIN_KEY?"),
        ("holdfast_storefront_keys", "x", "HOLDFAST_STOREFRONT_KEY?"),
        ("HOLDFAST_RATELIMIT_CUSTOMER", "", "HOLDFAST_RATE_LIMIT_CUSTOMER?"),
        ("HOLDFAST_WORKER_METRIC_PORT", "9100", "HOLDFAST_WORKER_METRICS_PORT?"),
        ("HOLDFAST_", "x", "README.md"),
        ("HOLDFAST_XYZZY_42", "x", "README.md"),
    ],
)
def test_what_is_no_setting_is_named(name: str, value: str, advice: str) -> None:
    (sentence,) = unknown_settings({name: value}, Settings.model_fields)
    assert sentence.startswith(f"{name} is not a setting")
    assert advice in sentence


@pytest.mark.parametrize(
    "assignment",
    [
        "HOLDFAST_ADMIN_KEY=x", "holdfast_admin_key=x", "PROMETHEUS_MULTIPROC_DIR=/tmp/x", "HOLDFASTER=1",
        # From Kubernetes, beside a service named holdfast or holdfast-api.
        "HOLDFAST_SERVICE_HOST=10.0.0.1", "HOLDFAST_SERVICE_PORT=8000", "HOLDFAST_SERVICE_PORT_HTTP=8000",
        "HOLDFAST_PORT=tcp://10.0.0.1:8000", "HOLDFAST_PORT_8000_TCP=tcp://10.0.0.1:8000",
        "HOLDFAST_PORT_8000_TCP_ADDR=10.0.0.1", "HOLDFAST_API_SERVICE_HOST=10.0.0.1",
        "HOLDFAST_API_PORT_8000_TCP_PROTO=tcp",
    ],
)  # fmt: skip
def test_what_is_a_setting_or_somebody_elses_passes(assignment: str) -> None:
    name, _, value = assignment.partition("=")
    assert unknown_settings({name: value}, Settings.model_fields) == []


def test_a_misspelt_line_of_an_installation_is_named() -> None:
    variables = {"HOLDFAST_ADMIN_KEI": "x", "OTHER": "y"}
    with pytest.raises(
        ConfigurationError, match=r"^HOLDFAST_ADMIN_KEI is not a setting; .* HOLDFAST_ADMIN_KEY\?$"
    ):
        settings_from(variables)
