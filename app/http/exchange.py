"""One request on its way through FastAPI, and its answer on the way back."""

import time
from typing import Any

from starlette.types import Message, Scope, Send

from app.errors import HoldfastError
from app.http import metrics, problems

_NO_STORE = (b"cache-control", b"no-store")
"""Of every answer that says nothing else: most are about somebody, and none is worth a stale copy."""


class Exchange:
    """`common`: the headers that every answer carries. `state` is the request's, as endpoints see it."""

    def __init__(self, scope: Scope, send: Send, common: problems.Headers, started: float) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.state: dict[str, Any] = {"principal": None, "headers": {}, "outcome": "ok"}
        # HEAD is a GET whose body the server leaves away.
        routed = "GET" if self.method == "HEAD" else self.method
        self.scope: Scope = {**scope, "method": routed, "state": self.state}
        self.finished = False
        self._send = send
        self._common = common
        self._started = started
        self._status = 0

    @property
    def begun(self) -> bool:
        return self._status > 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = [*message["headers"], *self._common]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append(_NO_STORE)
            message["headers"] = headers
        else:
            self.finished = not message.get("more_body", False)
        await self._send(message)

    async def respond(self, status: int, headers: problems.Headers, body: bytes) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: HoldfastError) -> None:
        self.state["outcome"] = error.code
        await self.respond(*problems.render(error, problems.instance_of(self.scope)))

    @property
    def route(self) -> str:
        """The path's template, without anything that the client has put into it."""
        return str(getattr(self.scope.get("route"), "path_format", "unmatched"))

    def observe(self) -> None:
        """Counts the request."""
        seconds = time.perf_counter() - self._started
        metrics.observe(self.route, self.method, self._status, str(self.state["outcome"]), seconds)
