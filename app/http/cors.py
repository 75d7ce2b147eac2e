"""Which browser pages may call (CORS)."""

from app.http.problems import Headers

_EXPOSED = b"Location, Retry-After, ETag, Idempotent-Replayed, X-Request-Id"
_METHODS = b"GET, HEAD, POST, PUT, DELETE"
_MAX_AGE_SECONDS = b"600"


class Cors:
    """The allowed origins; `*` is every origin. Tokens travel in Authorization, never in cookies."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = b"*" in self._origins

    def headers(self, request: dict[bytes, bytes]) -> Headers:
        """What every answer to a request with these headers carries."""
        vary: Headers = [] if self._any else [(b"vary", b"Origin")]
        origin = request.get(b"origin")
        if origin is None or not (self._any or origin in self._origins):
            return vary
        allowed = b"*" if self._any else origin
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED),
            *vary,
        ]

    def preflight(self, request: dict[bytes, bytes]) -> Headers | None:
        """The answer to a preflight request, beside `headers`; None if it is not one."""
        if b"origin" not in request or b"access-control-request-method" not in request:
            return None
        if not (self._any or request[b"origin"] in self._origins):
            return []
        answer = [(b"access-control-allow-methods", _METHODS), (b"access-control-max-age", _MAX_AGE_SECONDS)]
        wanted = request.get(b"access-control-request-headers")
        if wanted is not None:
            answer.append((b"access-control-allow-headers", wanted))
        return answer
