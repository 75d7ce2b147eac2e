"""Reads answers strictly, and says what is wrong with one."""

import json
import re
from dataclasses import dataclass
from typing import Any

from app.http.problems import MEDIA_TYPE, PROBLEMS

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~]*)")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_WITHOUT_BODY = (204, 304)
_MEMBERS = {"type", "title", "status", "detail", "instance", "code"}
NOT_HTTP = b"Invalid HTTP request received."


class Malformed(Exception):
    """What came is no answer."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def request_id(self) -> bytes:
        return self.headers.get(b"x-request-id", b"")

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection", b"").lower() == b"close"

    @property
    def is_plain_400(self) -> bool:
        """The server's answer to what is not HTTP."""
        return self.status == 400 and self.body == NOT_HTTP

    def json(self) -> Any:
        return json.loads(self.body)


def _read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise Malformed(f"no status line: {first[:200]!r}")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None or header[1].lower() in headers:
            raise Malformed(f"no header, or one twice: {line[:200]!r}")
        headers[header[1].lower()] = header[2]
    return int(status[1]), headers


def take_answer(buffer: bytearray) -> Answer | None:
    """Takes the first answer from the buffer; None as long as it is not whole. Skips 100 Continue.

    An answer to HEAD has no body whatever its length says: it is told by the answer that follows.

    Raises Malformed.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    status, headers = _read_head(bytes(buffer[:end]))
    start = end + 4
    if status == 100:
        del buffer[:start]
        return take_answer(buffer)
    if status in _WITHOUT_BODY:
        length = 0
    elif (given := headers.get(b"content-length", b"")).isdigit():
        length = int(given)
    else:
        raise Malformed(f"{status} without a length: {headers}")
    if buffer[start : start + 9] == b"HTTP/1.1 ":
        length = 0
    if len(buffer) < start + length:
        return None
    answer = Answer(status, headers, bytes(buffer[start : start + length]))
    del buffer[: start + length]
    return answer


def fault_of(answer: Answer) -> str | None:
    """What is wrong with the answer, or None."""
    if answer.is_plain_400:
        return None if answer.closes else "a plain 400 that keeps the connection"
    if not _REQUEST_ID.fullmatch(answer.request_id):
        return "an answer without X-Request-Id"
    if answer.status >= 500 and not _is_shedding(answer):
        return f"an answer {answer.status}: {answer.body[:300]!r}"
    if answer.status >= 400:
        return _fault_of_problem(answer)
    if answer.body and answer.headers.get(b"content-type", b"").endswith(b"json"):
        try:
            answer.json()
        except ValueError:
            return f"an answer that is no JSON: {answer.body[:300]!r}"
    return None


def _is_shedding(answer: Answer) -> bool:
    return answer.status == 503 and b'"overloaded"' in answer.body


def _fault_of_problem(answer: Answer) -> str | None:
    if answer.headers.get(b"content-type") != MEDIA_TYPE.encode():
        return f"an error {answer.status} that is no problem: {answer.headers}"
    if not answer.body:  # to HEAD
        return None
    try:
        problem = answer.json()
    except ValueError:
        return f"a problem that is no JSON: {answer.body[:300]!r}"
    known = PROBLEMS.get(problem.get("code"))
    if not problem.keys() >= _MEMBERS or known is None or known.status != answer.status != problem["status"]:
        return f"a problem that is not like the others: {answer.body[:300]!r}"
    return None
