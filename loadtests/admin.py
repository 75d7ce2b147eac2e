"""The operator's side of a run: creates the sale, and reads everything back when the shoppers have left."""

import http.client
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

from loadtests.options import RunRefused

PAGE_LIMIT = 500
CONNECT_SECONDS = 15.0


class AdminError(Exception):
    """The service refused an admin call, or did not answer in time."""


class Admin:
    """A client of the admin API; it repeats what was refused with Retry-After.

    `patience`: seconds after which it gives up on one call.
    """

    def __init__(self, host: str, key: str, patience: float = 30.0) -> None:
        self._host = urlsplit(host)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._patience = patience

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The parsed answer. Raises AdminError for a refusal, OSError if nothing answers."""
        deadline = time.monotonic() + self._patience
        while True:
            status, headers, content = self._send(method, path, body)
            if status < 300:
                return orjson.loads(content)
            wait = float(headers.get("retry-after", 0))
            if status not in (429, 503) or not wait or time.monotonic() + wait > deadline:
                raise AdminError(
                    f"{method} {path} answered {status}: {content.decode(errors='replace')[:300]}"
                )
            time.sleep(wait)

    def _send(self, method: str, path: str, body: Any) -> tuple[int, dict[str, str], bytes]:
        kind = http.client.HTTPSConnection if self._host.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._host.netloc, timeout=CONNECT_SECONDS)
        try:
            payload = None if body is None else orjson.dumps(body)
            connection.request(method, self._host.path + path, payload, self._headers)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, response.read()
        except http.client.HTTPException as error:
            raise AdminError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def require_answer(self) -> None:
        """Raises RunRefused if nobody is there."""
        try:
            self._send("GET", "/livez", None)
        except (OSError, AdminError) as error:
            raise RunRefused(
                f"Nothing answers at {self._host.geturl()} ({error}). Start one in another terminal: "
                "`make up`, or `holdfast up`; or name another with --host."
            ) from error

    def create_sale(
        self,
        sale_id: str,
        quantities: dict[str, int],
        limit: int,
        hold_seconds: int,
        opens_at: float,
        lasts: float,
    ) -> dict[str, Any]:
        body = {
            "name": "Load test",
            "opens_at": _rfc3339(opens_at),
            "closes_at": _rfc3339(opens_at + lasts),
            "hold_seconds": hold_seconds,
            "max_hold_seconds": hold_seconds * 10,
            "items": [
                {"sku": sku, "quantity": quantity, "limit_per_customer": limit}
                for sku, quantity in quantities.items()
            ],
        }
        sale: dict[str, Any] = self.call("PUT", _sale_path(sale_id), body)
        return sale

    def sale(self, sale_id: str) -> dict[str, Any]:
        sale: dict[str, Any] = self.call("GET", _sale_path(sale_id))
        return sale

    def stock(self, sale_id: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.call("GET", _sale_path(sale_id) + "/stock")["items"]
        return rows

    def audit(self, sale_id: str) -> dict[str, Any]:
        report: dict[str, Any] = self.call("GET", _sale_path(sale_id) + "/audit")
        return report

    def listed(self, sale_id: str, kind: str) -> Iterator[dict[str, Any]]:
        """All of the sale's `reservations`, `orders` or `movements`."""
        cursor: str | None = None
        while True:
            query = {"limit": PAGE_LIMIT, **({"cursor": cursor} if cursor else {})}
            page = self.call("GET", f"{_sale_path(sale_id)}/{kind}?{urlencode(query)}")
            yield from page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return


def _sale_path(sale_id: str) -> str:
    return f"/v1/admin/sales/{quote(sale_id, safe='')}"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
