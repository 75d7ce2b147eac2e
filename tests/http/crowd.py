"""Shoppers on plain sockets, who notice each request that got no answer."""

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.http.test_connections import RESERVATIONS, TOKEN, request


def reservation(customer: str, key: str | None) -> bytes:
    body = f'{{"customer_id":"{customer}","items":[{{"sku":"a","quantity":1}}]}}'
    named = f"Idempotency-Key: {key}\r\n" if key else ""
    return request("POST", RESERVATIONS, TOKEN + named, body.encode())


class Shopper(threading.Thread):
    """Asks for one unit after the other, now and then pausing on its kept connection."""

    def __init__(self, port: int, name: str, keyed: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._customer = name
        self._keyed = keyed
        self._end = threading.Event()
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []
        """Requests that were sent and not answered."""
        self.turned_away = 0
        """Connections that were refused, before anything was sent."""

    def end(self) -> None:
        self._end.set()
        self.join(20)

    def run(self) -> None:
        number = 0
        while not self._end.is_set():
            if (connection := self._connect()) is None:
                continue
            with connection:
                closes = False
                while not (closes or self._end.is_set() or _was_closed(connection)):
                    number += 1
                    closes = self._ask(connection, f"{self._customer}-{number}")
                    self._end.wait(0.002 * (number % 5))

    def _ask(self, connection: socket.socket, name: str) -> bool:
        """One reservation; does the connection end with it?"""
        try:
            connection.sendall(reservation(name, name if self._keyed else None))
            status, closes = read(connection)
        except (OSError, EOFError) as error:
            self.faults.append(repr(error))
            return True
        self.answers[status] += 1
        return closes

    def _connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", self._port), timeout=20)
        except ConnectionRefusedError:
            self.turned_away += 1
            self._end.wait(0.01)
            return None


def _was_closed(connection: socket.socket) -> bool:
    """What every client looks at before it uses a kept connection again."""
    return bool(select.select([connection], [], [], 0)[0])


def read(connection: socket.socket) -> tuple[int, bool]:
    """An answer's status, and whether it is the connection's last."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (piece := connection.recv(65536)):
            raise EOFError(answer)
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head[9:12]), b"connection: close" in head


@contextmanager
def shoppers(port: int, count: int) -> Iterator[list[Shopper]]:
    crowd = [Shopper(port, f"shopper{n}", keyed=n % 2 == 0) for n in range(count)]
    for shopper in crowd:
        shopper.start()
    try:
        while any(sum(shopper.answers.values()) < 5 for shopper in crowd):
            time.sleep(0.01)
        yield crowd
    finally:
        for shopper in crowd:
            shopper.end()
