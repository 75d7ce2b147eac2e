"""The embedded servers: they keep what they acknowledged, and nothing of them stays behind."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from app.embedded import resolve
from app.embedded.installation import installation_settings, running_installation
from app.embedded.launch import identity
from app.embedded.servers import EmbeddedServers
from app.errors import ConfigurationError
from tests.servers import temporary_servers

ROOT = os.geteuid() == 0
USERS = ("postgres", "nobody")
PROJECT = Path(__file__).resolve().parents[2]

# redis needs that package on Python before 3.11.3; an environment made by a later one lacks it.
SHIM = """
import asyncio, sys
sys.modules.setdefault("async_timeout", asyncio)
"""
SUPERVISOR = """
import signal, sys
from pathlib import Path
from app.embedded.launch import identity
from app.embedded.servers import EmbeddedServers
with EmbeddedServers(Path(sys.argv[1])) as servers:
    pids = [servers.supervisor.pid(name) for name in ("redis", "postgres")]
    print(servers.redis_url, servers.database_url, *pids, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("data", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def sql(servers: EmbeddedServers, statement: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(servers.database_url, timeout=10)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def eventually(check: Callable[[], object], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            if check():
                return
        except (OSError, redis.RedisError, asyncpg.PostgresError):
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    return identity(pid) is not None


def test_servers_take_no_network_connections_and_are_configured_to_keep_what_they_acknowledge() -> None:
    with temporary_servers(fsync=True) as servers, redis.Redis.from_url(servers.redis_url) as client:
        assert client.config_get("append*")["appendfsync"] == "always"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert sql(servers, "SHOW fsync") == "on"
        assert sql(servers, "SHOW wal_level") == "logical"
        assert sql(
            servers, "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'holdfast'"
        ) == ("UTF8")
        for name in ("redis", "postgres"):
            process = psutil.Process(servers.supervisor.pid(name))
            assert [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN and c.laddr] == []


def test_killed_servers_come_back_with_every_acknowledged_write() -> None:
    with temporary_servers(fsync=True) as servers, redis.Redis.from_url(servers.redis_url) as client:
        for _ in range(200):
            client.incr("written")
        killed = servers.supervisor.pid("redis")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: servers.supervisor.pid("redis") != killed and client.ping())
        assert client.get("written") == b"200"

        sql(servers, "CREATE TABLE written AS SELECT generate_series(1, 200) AS n")
        killed = servers.supervisor.pid("postgres")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: servers.supervisor.pid("postgres") != killed and sql(servers, "SELECT 1"))
        assert sql(servers, "SELECT count(*) FROM written") == 200


def test_a_server_that_is_killed_again_and_again_is_started_again() -> None:
    with temporary_servers() as servers, redis.Redis.from_url(servers.redis_url) as client:
        for _ in range(3):
            killed = servers.supervisor.pid("redis")
            os.kill(killed, signal.SIGKILL)
            eventually(lambda pid=killed: servers.supervisor.pid("redis") != pid and client.ping())  # type: ignore[misc]


def test_data_outlives_a_stop_and_nothing_keeps_running(folder: Path) -> None:
    others = psutil.Process().children(recursive=True)
    with EmbeddedServers(folder) as servers:
        redis.Redis.from_url(servers.redis_url).set("kept", "yes")
        sql(servers, "CREATE TABLE kept (n int)")
        family = [child for child in psutil.Process().children(recursive=True) if child not in others]
        assert len(family) >= 2
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert list((folder / "run").glob("*.pid")) == []
    with EmbeddedServers(folder) as servers:
        assert redis.Redis.from_url(servers.redis_url).get("kept") == b"yes"
        assert sql(servers, "SELECT count(*) FROM kept") == 0


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_works(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    with process:
        assert process.stdout is not None
        redis_url, _, *pids = process.stdout.readline().split()
        redis.Redis.from_url(redis_url).set("kept", "yes")
        process.kill()
    if sys.platform == "linux":
        eventually(lambda: not any(is_running(int(pid)) for pid in pids))
    with EmbeddedServers(folder) as servers:
        assert not any(is_running(int(pid)) for pid in pids)
        assert redis.Redis.from_url(servers.redis_url).get("kept") == b"yes"
        assert sql(servers, "SELECT 1") == 1


def test_what_an_earlier_start_left_running_is_ended_before_the_data_is_opened(folder: Path) -> None:
    with EmbeddedServers(folder):
        forgotten = (folder / "run" / "redis.pid").read_text()
    # A server of that folder without a supervisor, as macOS leaves it, which has no parent-death signal.
    pid_file = folder / "run" / "redis.pid"
    options = {"pid_file": str(pid_file), "signal": 15, "parent": os.getpid(), "uid": None, "gid": None}
    launcher = [sys.executable, "-IS", str(PROJECT / "app/embedded/launch.py")]
    program, data = str(resolve.find_redis().path), str(folder / "redis")
    command = [program, "--port", "0", "--dir", data, "--appendonly", "yes"]
    orphan = subprocess.Popen(
        [*launcher, json.dumps(options | {"needs_name": False}), *command],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    eventually(lambda: pid_file.exists() and pid_file.read_text() != forgotten)
    with EmbeddedServers(folder):
        assert orphan.wait(timeout=10) is not None


def test_a_data_folder_has_one_owner(folder: Path) -> None:
    with (
        EmbeddedServers(folder, fsync=False),
        pytest.raises(ConfigurationError, match=f"in use by another holdfast .process {os.getpid()}"),
    ):
        EmbeddedServers(folder).start()


def test_the_env_file_is_private_and_keeps_its_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
    with running_installation(folder) as (_, first):
        env = folder / "env"
        assert stat.S_IMODE(env.stat().st_mode) == 0o600
        with installation_settings(folder) as settings:
            assert settings.redis_url == first["HOLDFAST_REDIS_URL"]
    with installation_settings(folder) as settings:
        assert redis.Redis.from_url(settings.redis_url).ping()
        assert settings.admin_key is not None
        assert settings.admin_key.get_secret_value() == first["HOLDFAST_ADMIN_KEY"]
        assert settings.id_secret.get_secret_value() == first["HOLDFAST_ID_SECRET"]
    assert not any((folder / "run").glob("*.pid"))


def test_a_folder_without_an_installation_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"holds no installation: `holdfast up"),
        installation_settings(tmp_path),
    ):
        pass


def test_an_env_file_that_a_user_has_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("HOLDFAST_REDIS_URL='unix:///run/redis.sock\n")
    with (
        pytest.raises(ConfigurationError, match=r"env .*No closing quotation"),
        installation_settings(tmp_path),
    ):
        pass


def test_a_long_path_does_not_stop_the_sockets(folder: Path) -> None:
    with EmbeddedServers(folder / ("x" * 120), fsync=False) as servers:
        assert redis.Redis.from_url(servers.redis_url).ping()
        assert sql(servers, "SELECT 1") == 1
        scratch = servers.workspace.scratch
        assert stat.S_IMODE((scratch / "postgres").stat().st_mode) == 0o700
    assert not scratch.exists()


@pytest.mark.skipif(not ROOT, reason="only root has to start Postgres as somebody else")
def test_root_starts_postgres_as_somebody_else_without_opening_its_folders(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedServers(closed / "data") as servers:
        postgres = psutil.Process(servers.supervisor.pid("postgres"))
        assert postgres.uids().real in {user.pw_uid for user in pwd.getpwall() if user.pw_name in USERS}
        assert sql(servers, "CREATE TABLE t (n int)") is None
        killed = postgres.pid
        postgres.kill()
        eventually(lambda: servers.supervisor.pid("postgres") != killed and sql(servers, "SELECT 1"))
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert closed.stat().st_uid == 0


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
@pytest.mark.parametrize("uid", [65534, 54321], ids=["nobody", "a user id without a name"])
def test_any_user_can_start_them(uid: int) -> None:
    python = next(filter(partial(can_import_project, uid), (sys.executable, "/usr/bin/python3")), None)
    if python is None:
        pytest.skip("no Python that this user may run can read the project")
    data = Path(tempfile.mkdtemp(prefix="holdfast-test-", dir="/tmp"))
    os.chown(data, uid, uid)
    try:
        done = run_as(uid, [python, "-c", SHIM + SUPERVISOR, str(data)])
    finally:
        shutil.rmtree(data)
    if "has no name here" in done.stderr:
        pytest.skip("this machine gives unprivileged users no namespaces")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unix://")


def can_import_project(uid: int, python: str) -> bool:
    try:
        return run_as(uid, [python, "-c", f"{SHIM}\nimport app.embedded.servers"]).returncode == 0
    except OSError:
        return False


def run_as(uid: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    packages = Path(redis.__file__).parents[1]
    return subprocess.run(
        command,
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": f"{PROJECT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
