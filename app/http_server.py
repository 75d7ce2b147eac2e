"""uvicorn's server and its supervisor, with an end that leaves no request without an answer.

Told to stop, a process says so at /readyz and goes on for the grace time, in which balancers leave; each
answer closes its connection. Then it takes who has connected already, closes the port, answers what has
begun, and ends.
"""

import asyncio
import signal
import socket
import threading
import time
from ctypes import c_bool
from math import ceil
from multiprocessing import get_context
from typing import cast

import uvicorn
from uvicorn.config import Config
from uvicorn.supervisors import Multiprocess, multiprocess

from app.http.gate import Gate
from app.http_listener import refuse_new, waits_for_accept

DRAIN_SECONDS = 10
"""Requests that have begun get this long when the server is told to stop; live streams are cut then."""
_SETTLE_SECONDS = 0.3
"""Between the last handshake that may begin and the closing of the port: longer than a handshake takes."""
_BACKLOG_SECONDS = 2.0
_SUPERVISOR_SECONDS = 2.0
"""A supervisor that has nothing else to do says within this time that no further handshake begins."""
_STORES_SECONDS = 5
"""For closing the connections to the stores, which may hang."""


class Server(uvicorn.Server):
    """The server of one process. Where several share the port, `may_close` says when closing it is safe."""

    def __init__(self, config: Config, may_close: c_bool | None = None) -> None:
        super().__init__(config)
        self._may_close = may_close

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        gate: Gate = self.lifespan.state["gate"]
        self._bound(gate.grace_seconds)
        gate.close()
        await self._wait(gate.grace_seconds)
        listeners = [listener for server in self.servers for listener in server.sockets]
        if self._may_close is None:
            refuse_new(listeners)
        else:  # not here: a process that is stopped alone would turn newcomers away from the others
            await self._wait(_SUPERVISOR_SECONDS, self._may_close)
        await self._wait(_SETTLE_SECONDS)
        until = time.monotonic() + _BACKLOG_SECONDS
        while waits_for_accept(listeners) and time.monotonic() < until:  # noqa: ASYNC110 (the loop accepts)
            await asyncio.sleep(0)
        await super().shutdown(sockets)

    async def _wait(self, seconds: float, at_most_until: c_bool | None = None) -> None:
        until = time.monotonic() + seconds
        while not self.force_exit and (left := until - time.monotonic()) > 0:
            if at_most_until is not None and at_most_until.value:
                return
            await asyncio.sleep(min(left, 0.1))

    def _bound(self, grace_seconds: float) -> None:
        """Has the kernel end the process if it does not end itself: a store that hangs must not keep it."""
        if threading.current_thread() is threading.main_thread():
            told = grace_seconds + _SUPERVISOR_SECONDS
            signal.alarm(ceil(told + _SETTLE_SECONDS + _BACKLOG_SECONDS + DRAIN_SECONDS + _STORES_SECONDS))


class _Process(multiprocess.Process):
    """A process with that server, as the supervisor starts it."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        # Not an event: a process that is killed while it holds the lock of one would block the others.
        self.may_close = get_context("spawn").RawValue(c_bool, False)

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(self.config, self.may_close)
        return self._server

    def terminate(self, others_accept: bool = True) -> None:
        if others_accept:
            self.may_close.value = True
        super().terminate()


multiprocess.Process = _Process  # type: ignore[misc]  # uvicorn's supervisor knows it by this name


class Supervisor(Multiprocess):
    """Several processes that accept from the same sockets. SIGHUP replaces them one by one."""

    def __init__(self, config: Config, sockets: list[socket.socket], grace_seconds: float) -> None:
        super().__init__(config, sockets)
        self._grace_seconds = grace_seconds

    def restart_all(self) -> None:
        processes = self.processes
        for index, process in enumerate(processes):
            if signal.SIGTERM in self.signal_queue or signal.SIGINT in self.signal_queue:
                break
            self.processes = [process]
            super().restart_all()
            processes[index] = self.processes[0]
            if processes[index] is process:
                break  # its successor did not start, and neither would the others'
        self.processes = processes

    def terminate_all(self) -> None:
        """None of them closes the port before no further handshake can begin.

        On a busy machine one that waits for a fixed time can, and resets who has just connected.
        """
        processes = cast(list[_Process], self.processes)
        for process in processes:
            process.terminate(others_accept=False)
        time.sleep(self._grace_seconds)
        refuse_new(self.sockets)
        for process in processes:
            process.may_close.value = True
