"""How long a connection may be silent: one timer for each, not one for each answer.

A timer that is set and cancelled with every request costs as much as the bytes of its answer.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class KeepAliveProtocol(HttpToolsProtocol):
    _silent_since = 0.0
    """When the last answer was complete, by the loop's clock."""

    def give_up_if_silent(self) -> bool:
        """Ends the connection, unless something is on it; has it ended?"""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._silent_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        left = self._silent_since + self.timeout_keep_alive - self.loop.time()
        if left > 0 or not self.give_up_if_silent():
            self._look_after(max(left, self.timeout_keep_alive / 2))

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """What uvicorn does with each request; here the timer stays."""
