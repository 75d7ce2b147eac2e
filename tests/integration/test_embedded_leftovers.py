"""What killed servers and supervisors leave running does not keep the next start from working."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import psutil

from app.demo.stage import without_settings
from app.embedded.accounts import unprivileged_account
from app.embedded.launch import identity
from app.embedded.workspace import Workspace
from tests.servers import temporary_servers

PROJECT = Path(__file__).resolve().parents[2]
LISTENER = """
import signal, socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
signal.pause()
"""


def test_what_services_left_behind_is_gone_after_the_next_start(tmp_path: Path) -> None:
    for _ in range(2):
        workspace = Workspace(tmp_path)
        workspace.open()
        assert list(workspace.temporary.iterdir()) == []
        (workspace.temporary / "left").touch()
        workspace.close()


def test_a_port_that_a_killed_installation_still_has_is_free_for_the_next_start(tmp_path: Path) -> None:
    nowhere = {"HOLDFAST_REDIS_URL": "redis://127.0.0.1:1", "HOLDFAST_STARTUP_TIMEOUT_SECONDS": "0.1"}
    nowhere["HOLDFAST_DATABASE_URL"] = "postgresql://postgres@127.0.0.1:1/holdfast"
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        port = listener.stdout.readline().strip()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "serve.pid").write_text(f"{listener.pid} 15 {identity(listener.pid)}")
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "up", "--data", tmp_path, "--port", port],
            env=without_settings() | nowhere, cwd=PROJECT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        listener.kill()
    assert listener.returncode == -signal.SIGTERM
    assert "Postgres" in done.stderr  # which comes after the port


async def answers(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = await asyncpg.connect(url)
        except (OSError, asyncpg.PostgresError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            await connection.close()
            return


async def test_postgres_starts_again_once_all_of_a_killed_one_has_ended() -> None:
    """One of its processes may be in the middle of a checkpoint, and keeps the shared memory meanwhile."""
    with temporary_servers() as servers:
        killed = servers.supervisor.pid("postgres")
        children = psutil.Process(killed).children()
        busy = next(child for child in children if "checkpointer" in " ".join(child.cmdline()))
        busy.suspend()
        os.kill(killed, signal.SIGKILL)
        await asyncio.sleep(0.5)  # longer than the supervisor waits before it tries
        busy.resume()
        await answers(servers.database_url)
        assert servers.supervisor.pid("postgres") != killed
        assert "still in use" not in servers.workspace.log("postgres").read_text()


def test_postgres_starts_again_although_nobody_has_waited_for_a_killed_one() -> None:
    """As in a container whose first process does not care for orphans: the process id still exists."""
    account = unprivileged_account()
    with temporary_servers() as servers:
        program = Path(shutil.copy("/bin/true", servers.workspace.scratch / "postgres"))
        ended = subprocess.Popen([program], user=account.uid if account else None)
        while identity(ended.pid) is not None:
            time.sleep(0.01)
        killed = servers.supervisor.pid("postgres")
        pid_file = servers.workspace.data / "postgres" / "postmaster.pid"
        _, *others = pid_file.read_text().splitlines()
        os.kill(killed, signal.SIGSTOP)  # it would end if it saw another id there
        pid_file.write_text("\n".join([str(ended.pid), *others, ""]))
        os.kill(killed, signal.SIGKILL)
        asyncio.run(answers(servers.database_url))
        assert "Is another postmaster" not in servers.workspace.log("postgres").read_text()
        assert ended.wait() == 0
