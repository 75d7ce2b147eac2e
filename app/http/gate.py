"""Who may come in while the process is busy, and that it is about to close.

A process that takes every request serves none in time. New holds wait in a line of bounded length; past it
they are refused before there is a task for them, so that payments, releases and reads get through. Refusals
are paced, too: each one reserves the next of so many moments a second, names it to the client as Retry-After,
and the connection is not read before it, unless the load has gone. An impatient client then waits in its own
kernel, at no cost here.
"""

import asyncio
import resource
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from starlette.types import Scope

from app import errors
from app.http import metrics, problems
from app.http.body import name_headers
from app.http.cors import Cors
from app.http.paths import PROBES, RESERVATIONS, SALE_RESERVATIONS
from app.settings import Settings

MAX_REST_SECONDS = 5.0
"""A proxy's connection carries somebody else's request next, which must not wait for long."""
REFUSALS_PER_SECOND = 4_000.0
"""While the process keeps up: some 30 µs each, a tenth of its time."""
REFUSALS_PER_SERVED = 0.25
"""While it does not: a refusal costs two fifths of a hold, so a tenth of the holds is lost to them."""
_LEAST_REFUSALS_PER_SECOND = 100.0
_TICK_SECONDS = 0.01
_LATE_SECONDS = 0.02
"""A tick that comes so late says that the process does not keep up."""
_OTHER_FILES = 100
"""Open files that are no connections: logs, metrics, code; and those that are just being closed."""
_LOOKED_AT = 100
"""Connections, for one that is idle: those that wait for an answer may be silent for longer."""

RequestId = Callable[[bytes | None], bytes]


Answer = tuple[int, problems.Headers, bytes]


class Connection(Protocol):
    def wake(self) -> None:
        """Read the connection again."""

    def leave(self) -> None:
        """Close it after the request that is on it."""

    def close_if_idle(self) -> bool:
        """Close it unless there is a request on it; was it closed?"""


class Gate:
    """`request_id` makes the id of a request from the one that was given; `on_closing` is called once, when
    the process has been told to stop."""

    def __init__(
        self, settings: Settings, request_id: RequestId, on_closing: Callable[[], None] = lambda: None
    ) -> None:
        self.closing = asyncio.Event()
        """Set once the process has been told to stop: it is not ready any more, and no request may wait."""
        self._holds = 0
        """Requests for new holds that are under way."""
        self._without_task = 0
        """Requests of any kind that are under way without a task."""
        self.grace_seconds = settings.shutdown_grace_seconds
        self._connections: dict[Connection, None] = {}
        """The one that has been silent for longest comes first."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        reserved = _OTHER_FILES + settings.redis_connections + settings.database_connections
        self.max_connections = min(settings.max_connections, max(files - reserved, 1))
        self._queue_limit = settings.queue_limit
        self._request_limit = settings.request_limit
        self._request_id = request_id
        self._on_closing = on_closing
        self._cors = Cors(settings.cors_origins) if settings.cors_origins else None
        self._resting: deque[tuple[float, Connection]] = deque()
        self._tick: asyncio.TimerHandle | None = None
        self._turn = 0.0
        self._pace = REFUSALS_PER_SECOND
        self._served = 0
        self._ticked = 0.0
        self._loop = asyncio.get_running_loop()

    def has_room_for(self, connection: Connection) -> bool:
        """Takes a new connection in, if need be instead of an idle one."""
        if len(self._connections) >= self.max_connections and not self._make_room():
            return False
        self._connections[connection] = None
        return True

    def heard(self, connection: Connection) -> None:
        """Something came over it."""
        del self._connections[connection]
        self._connections[connection] = None

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def _make_room(self) -> bool:
        for connection in list(islice(self._connections, _LOOKED_AT)):
            if connection.close_if_idle():
                self.forget(connection)
                return True
            self.heard(connection)  # and is not looked at again soon
        return False

    def is_hold(self, scope: Scope) -> bool:
        return scope["method"] == "POST" and SALE_RESERVATIONS.fullmatch(scope["path"]) is not None

    def refusal(self, scope: Scope, is_hold: bool, requests: int) -> str | None:
        """Why the request may not begin beside `requests` that have; None where it may."""
        if is_hold and self._holds >= self._queue_limit:
            return "Too many new holds are under way."
        if requests + self._without_task >= self._request_limit and scope["path"] not in PROBES:
            return "Too many requests are under way."
        return None

    def begin(self, hold: asyncio.Task[None]) -> None:
        """A request for a new hold is under way."""
        self._holds += 1
        hold.add_done_callback(self._end)

    def _end(self, _hold: asyncio.Task[None]) -> None:
        self._holds -= 1
        self._served += 1

    def begin_plain(self, is_hold: bool, requests: int) -> bool:
        """A request wants to begin without a task, beside `requests` that have one: may it?"""
        if (
            (is_hold and self._holds >= self._queue_limit)
            or requests + self._without_task >= self._request_limit
            or self.closing.is_set()
        ):
            return False
        self._holds += is_hold
        self._without_task += 1
        return True

    def end_plain(self, is_hold: bool) -> None:
        self._holds -= is_hold
        self._without_task -= 1
        self._served += is_hold

    def next_turn(self) -> float:
        """When a client that is refused now may come again, by the loop's clock."""
        now = self._loop.time()
        self._turn = min(max(self._turn, now) + 1 / self._pace, now + MAX_REST_SECONDS)
        return self._turn

    def no_room(self) -> Answer:
        """The answer to a connection for which there is no room: 503 `overloaded`."""
        status, headers, body = problems.render(errors.Overloaded("Too many connections are open."), "")
        metrics.count("unmatched", "other", status, errors.Overloaded.code)
        return status, [*headers, (b"x-request-id", self._request_id(None))], body

    def refuse(self, scope: Scope, is_hold: bool, why: str, turn: float) -> Answer:
        """The answer to a request that may not begin: 503 `overloaded`."""
        error = errors.Overloaded(why, retry_after=turn - self._loop.time())
        status, headers, body = problems.render(error, problems.instance_of(scope))
        named = name_headers(scope["headers"])
        headers.append((b"x-request-id", self._request_id(named.get(b"x-request-id"))))
        if self._cors is not None:
            headers += self._cors.headers(named)
        metrics.count(RESERVATIONS if is_hold else "unmatched", scope["method"], status, error.code)
        return status, headers, body

    def rests(self, connection: Connection, turn: float) -> bool:
        """Must the connection not be read for now? It is woken at its turn, or when the load has gone."""
        if self.closing.is_set() or turn - self._loop.time() < _TICK_SECONDS:
            return False
        self._resting.append((turn, connection))
        if self._tick is None:
            self._tick_again(self._loop.time())
        return True

    def close(self) -> None:
        """The process stops. Whoever rests is served, or refused, before it does."""
        if not self.closing.is_set():
            self.closing.set()
            self._on_closing()
        for connection in self._connections:
            connection.leave()
        while self._resting:
            self._resting.popleft()[1].wake()

    def _tick_again(self, now: float) -> None:
        self._ticked = now
        self._tick = self._loop.call_later(_TICK_SECONDS, self._wake)

    def _wake(self) -> None:
        now = self._loop.time()
        self._adapt(now - self._ticked)
        # Under load new arrivals fill what room there is; whoever is woken for it would be refused again.
        room = max(self._queue_limit // 4, 1) - self._holds
        while self._resting and (room > 0 or self._resting[0][0] <= now):
            self._resting.popleft()[1].wake()
            room -= 1
        if self._resting:
            self._tick_again(now)
        else:
            self._tick, self._turn, self._pace = None, now, REFUSALS_PER_SECOND

    def _adapt(self, seconds: float) -> None:
        """Sets the pace of refusals by what the process could do in the `seconds` since the last tick."""
        if seconds < _TICK_SECONDS + _LATE_SECONDS:
            self._pace = min(self._pace * 2, REFUSALS_PER_SECOND)
        else:
            earned = min(REFUSALS_PER_SERVED * self._served / seconds, REFUSALS_PER_SECOND)
            self._pace = max((self._pace + earned) / 2, _LEAST_REFUSALS_PER_SECOND)
        self._served = 0
