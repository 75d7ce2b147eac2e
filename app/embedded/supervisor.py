"""Keeps child processes running, and leaves none behind."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from app.embedded import launch
from app.embedded.accounts import Account
from app.errors import ConfigurationError

_BACKOFF_SECONDS = 0.1
_BACKOFF_SECONDS_MAX = 5.0
_STEADY_SECONDS = 30.0
"""A child that ran this long and then died starts again without waiting for its earlier failures."""
_POLL_SECONDS = 0.01

_log = structlog.get_logger("holdfast.supervisor")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Service:
    """A command that runs until it gets `stop_signal`."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path = Path("/")
    account: Account | None = None
    needs_name: bool = False
    """Whether its user must have an entry in the user database."""
    log: Path | None = None
    """Takes what the command prints; None: it prints where this process does."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    """After which it is killed."""
    prepare: Callable[[], None] = lambda: None
    """Called before each start."""

    def spawn(self, pid_file: Path) -> subprocess.Popen[bytes]:
        """Start it as the leader of a session of its own, so that a Ctrl-C reaches only its supervisor."""
        self.prepare()
        options = {
            "pid_file": str(pid_file),
            "signal": int(self.stop_signal),
            "parent": os.getpid(),
            "uid": self.account and self.account.uid,
            "gid": self.account and self.account.gid,
            "needs_name": self.needs_name,
        }
        launcher = [sys.executable, "-I", "-S", launch.__file__, json.dumps(options)]
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self.log.open("ab")) if self.log else None
            return subprocess.Popen(
                [*launcher, *self.command],
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@dataclass(eq=False)
class _Child:
    service: Service
    process: subprocess.Popen[bytes]
    failures: int = 0
    steady: bool = False
    """Whether it became ready once, and so is started again when it dies."""
    started: float = field(default_factory=time.monotonic)
    ended: threading.Event = field(default_factory=threading.Event)


class Supervisor:
    """Starts services and, once they were ready, starts again what dies.

    One thread forks, and lives as long as the children: the kernel ends them when it ends. So the process can
    be killed in any way, and (on Linux) its children stop as if asked to.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` takes the pid files."""
        self._folder = folder
        self._children: dict[str, _Child] = {}
        self._due: dict[str, float] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._running = True
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
        self._thread.start()

    def start(self, service: Service) -> None:
        """Start it; wait_ready() says whether that worked."""
        self._call(lambda: self._spawn(service))

    def wait_ready(self, checks: Mapping[str, Callable[[int], bool]], timeout: float) -> None:
        """Wait until the check of each service says yes to its process id.

        From then on they are started again when they die. Raises ConfigurationError, with the last line that
        it printed, if one of them ends before that, or takes longer than `timeout` seconds.
        """
        waiting = {self._children[name]: check for name, check in checks.items()}
        deadline = time.monotonic() + timeout
        while waiting:
            for child in [child for child, check in waiting.items() if check(child.process.pid)]:
                del waiting[child]
                self._call(partial(self._settle, child))
            for child in waiting:
                name, words = child.service.name, _last_words(child.service)
                if child.ended.wait(_POLL_SECONDS):
                    raise ConfigurationError(f"{name} ended before it was ready{words}")
                if time.monotonic() > deadline:
                    raise ConfigurationError(f"{name} was not ready within {timeout:.0f} s{words}")

    def run(self, service: Service) -> None:
        """Run a service that ends by itself. Raises ConfigurationError if it fails."""
        pid_file = self._folder / f"{service.name}.pid"
        process = self._call(lambda: service.spawn(pid_file))
        code = process.wait()
        pid_file.unlink(missing_ok=True)
        if code != 0:
            raise ConfigurationError(f"{service.name} failed{_last_words(service)}")

    def pid(self, name: str) -> int:
        """The process id of a service, which changes when it is started again."""
        return self._children[name].process.pid

    def stop(self) -> None:
        """End all services, the last one first. Calling it again does nothing."""
        if self._running:
            self._call(self._stop)
        self._thread.join()

    def _call(self, action: Callable[[], _T]) -> _T:
        future: Future[_T] = Future()

        def act() -> None:
            try:
                future.set_result(action())
            except Exception as error:
                future.set_exception(error)

        self._inbox.put(act)
        return future.result()

    def _loop(self) -> None:
        while self._running:
            pause = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
            try:
                self._inbox.get(timeout=pause)()
            except queue.Empty:
                self._start_due()

    def _spawn(self, service: Service, failures: int = 0, steady: bool = False) -> None:
        process = service.spawn(self._folder / f"{service.name}.pid")
        child = _Child(service, process, failures, steady)
        self._children[service.name] = child

        def watch() -> None:
            process.wait()
            child.ended.set()
            self._inbox.put(lambda: self._after_end(child))

        threading.Thread(target=watch, name=f"watch-{service.name}", daemon=True).start()

    def _settle(self, child: _Child) -> None:
        child.steady = True
        if child.ended.is_set():
            self._after_end(child)

    def _after_end(self, child: _Child) -> None:
        name = child.service.name
        _kill_group(child.process.pid)
        if not child.steady or name in self._due or self._children[name] is not child:
            return
        failures = 0 if time.monotonic() - child.started > _STEADY_SECONDS else child.failures
        pause = min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2**failures)
        child.failures = min(failures + 1, 10)
        self._due[name] = time.monotonic() + pause
        _log.warning(f"{name} {_how(child.process.returncode)}; starting it again", in_seconds=pause)

    def _start_due(self) -> None:
        now = time.monotonic()
        for name in [name for name, due in self._due.items() if due <= now]:
            child = self._children[name]
            try:
                self._spawn(child.service, child.failures, steady=True)
            except (OSError, ConfigurationError) as error:
                _log.error(f"{name} cannot be started", error=str(error))
                self._due[name] = now + _BACKOFF_SECONDS_MAX
            else:
                del self._due[name]

    def _stop(self) -> None:
        self._running = False
        for child in reversed(self._children.values()):
            service, process = child.service, child.process
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(service.stop_signal)
            if not child.ended.wait(service.stop_seconds):
                _log.warning(f"{service.name} did not stop in {service.stop_seconds:.0f} s; killing it")
                process.kill()
                child.ended.wait()
            _kill_group(process.pid)
            (self._folder / f"{service.name}.pid").unlink(missing_ok=True)


def end_leftovers(folder: Path) -> None:
    """End what a killed supervisor left running, by the pid files in `folder`, the last started first."""
    files = sorted(folder.glob("*.pid"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        pid, stop_signal, identity = file.read_text().split(" ", 2)
        if launch.identity(int(pid)) == identity:
            _log.warning(f"{file.stem} still runs from an earlier start; ending it", pid=int(pid))
            _end(int(pid), int(stop_signal), identity)
        file.unlink()


def _end(pid: int, stop_signal: int, identity: str, timeout: float = 30.0) -> None:
    """End a process that is no child of this one: its end cannot be waited for, only seen."""
    deadline = time.monotonic() + timeout
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, stop_signal)
        while launch.identity(pid) == identity:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)


def _kill_group(pid: int) -> None:
    """Kill what a dead leader left of its process group, such as the workers of a killed `serve`."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_words(service: Service) -> str:
    if service.log is None or not service.log.exists():
        return ""
    lines = service.log.read_text(errors="replace").strip().splitlines()
    return f": {lines[-1]} ({service.log})" if lines else ""
