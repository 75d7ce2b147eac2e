"""How a client asks: the same request with the same key, until there is a definite answer."""

import asyncio
import random
import time
from collections import Counter
from typing import Any, NamedTuple

import httpx
import orjson

TIMEOUT_SECONDS = 5.0
"""A client's patience with one try; longer than the service's with its store."""
PATIENCE_SECONDS = 90.0
"""With one operation, over all tries; longer than any fault lasts."""
PAUSE_SECONDS = (0.1, 0.3)
"""Between tries, sooner than Retry-After says: the time to recover is seen, and the service pressed."""


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    replayed: bool
    asked_at: float
    """When the try that was answered was sent."""
    told_at: float

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))


class GaveUp(Exception):
    """No definite answer in all that time."""


class Wire:
    """Calls one of several addresses, and another where nobody listens."""

    def __init__(self, urls: tuple[str, ...], token: str, retries: Counter[str], rng: random.Random) -> None:
        self._clients = [
            httpx.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                timeout=TIMEOUT_SECONDS,
                trust_env=False,
            )
            for url in urls
        ]
        self._at = rng.randrange(len(urls))
        self._retries = retries
        self._rng = rng

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Answer:
        """The definite answer; raises GaveUp."""
        started = time.monotonic()
        self._at = self._rng.randrange(len(self._clients))
        while time.monotonic() - started < PATIENCE_SECONDS:
            answer = await self.ask_once(method, path, body, key)
            if isinstance(answer, Answer) and answer.status not in (429, 503):
                return answer
            self._retries[answer.code if isinstance(answer, Answer) else type(answer).__name__] += 1
            await asyncio.sleep(self._rng.uniform(*PAUSE_SECONDS))
        raise GaveUp(f"{method} {path}: no definite answer in {PATIENCE_SECONDS:.0f} s")

    async def ask_once(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> Answer | httpx.TransportError:
        """The answer to one try, or why there is none; another address is taken next where that may help."""
        asked_at = time.time()
        try:
            response = await self._clients[self._at].request(
                method,
                path,
                content=None if body is None else orjson.dumps(body),
                headers={} if key is None else {"Idempotency-Key": key},
            )
        except httpx.TransportError as error:
            self._at = (self._at + 1) % len(self._clients)
            return error
        content = orjson.loads(response.content) if response.content else {}
        replayed = response.headers.get("idempotent-replayed") == "true"
        return Answer(response.status_code, content, replayed, asked_at, time.time())

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
