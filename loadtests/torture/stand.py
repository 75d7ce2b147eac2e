"""An installation to break: a supervisor in a process of its own, and the services that it starts."""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.demo.stage import without_settings
from app.embedded.launch import identity
from app.embedded.ports import free_port
from loadtests.options import read_env_file

START_SECONDS = 120.0
STOP_SECONDS = 60.0
PARTITIONS = 4
_POLL_SECONDS = 0.02


class StandFailed(Exception):
    """The installation did not start, or a service did not come back."""


class Stand:
    """`command` is `holdfast up`, or loadtests.torture.pieces for more processes than it starts."""

    def __init__(self, data: Path, command: Sequence[str], ports: Sequence[int], **settings: str) -> None:
        self.data = data
        self.urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
        self._command = [sys.executable, "-P", "-m", *command]
        self._settings = {"HOLDFAST_PARTITIONS": str(PARTITIONS), **settings}
        self._log = data.parent / "supervisor.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it says that it is ready; raises StandFailed."""
        said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**without_settings(), **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        deadline = time.monotonic() + START_SECONDS
        while "\nready http://" not in self.log()[said:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StandFailed(f"no start: {self.log()[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise StandFailed(f"no stop: {self.log()[-2000:]}") from None

    def kill(self) -> None:
        """kill -9 of the supervisor itself."""
        assert self._process is not None  # noqa: S101
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def log(self) -> str:
        """What the supervisor, and services without a log of their own, have printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def pid(self, service: str) -> int | None:
        """The process id of a service that runs at this moment."""
        try:
            pid, _, known = (self.data / "run" / f"{service}.pid").read_text().split(" ", 2)
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if identity(int(pid)) == known else None

    def services(self) -> list[str]:
        return sorted(file.stem for file in (self.data / "run").glob("*.pid"))

    @property
    def variables(self) -> Mapping[str, str]:
        """The URLs and keys of the installation."""
        return read_env_file(self.data)

    @property
    def admin_key(self) -> str:
        return self.variables["HOLDFAST_ADMIN_KEY"]

    @property
    def storefront_key(self) -> str:
        return self.variables["HOLDFAST_STOREFRONT_KEY"]


@contextlib.contextmanager
def stand_of_up(workers: int = 2, **settings: str) -> Iterator[Stand]:
    """`holdfast up` on a folder that is removed afterwards."""
    with scratch_folder() as folder:
        port = free_port("127.0.0.1", 0)
        words = ["app.cli", "up", "--data", str(folder / "data"), "--port", str(port)]
        words += ["--workers", str(workers)]
        with running(Stand(folder / "data", words, [port], **settings)) as stand:
            yield stand


@contextlib.contextmanager
def stand_of_pieces(*, serves: int = 1, workers: int = 1, clocks: str = "") -> Iterator[Stand]:
    """Several API processes and workers beside Redis and Postgres; see loadtests.torture.pieces."""
    with scratch_folder() as folder:
        ports = [free_port("127.0.0.1", 0) for _ in range(serves)]
        words = words_of_pieces(folder / "data", ports, workers, clocks)
        with running(Stand(folder / "data", words, ports)) as stand:
            yield stand


def words_of_pieces(data: Path, ports: Sequence[int], workers: int, clocks: str = "") -> list[str]:
    words = ["loadtests.torture.pieces", "--data", str(data), "--workers", str(workers)]
    words += [word for port in ports for word in ("--port", str(port))]
    return [*words, "--clocks", clocks] if clocks else words


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-torture-", dir="/tmp"))
    try:
        # Postgres may have to run as another user than this process.
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(stand: Stand) -> Iterator[Stand]:
    try:
        stand.start()
        yield stand
    finally:
        stand.stop()
