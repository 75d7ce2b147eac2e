"""Nothing secret reaches the log, whoever writes it and however it is formatted."""

import io
import logging
from collections.abc import Iterator

import jwt
import pytest
import structlog

from app.logs import configure_logs
from app.settings import LogFormat, Settings

PASSWORD = "tiger-in-the-tank"
KEY = "hf_0123456789abcdef"
TOKEN = jwt.encode({"sub": "ada"}, "a shared secret of thirty-two bytes", algorithm="HS256")
SECRETS = (PASSWORD, KEY, *TOKEN.split(".")[1:])


@pytest.fixture(params=LogFormat)
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, in each format."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    configure_logs(Settings(log_format=request.param, log_level="INFO"))
    yield text
    structlog.reset_defaults()


def write_everything() -> None:
    url = f"postgresql://shop:{PASSWORD}@db/shop"
    log = structlog.get_logger("holdfast")
    log.info(f"connecting to {url}", database_url=url, header=f"Bearer {KEY}", attempt=7)
    log.info("settings", values={"admin_key": KEY, "nested": {"password": PASSWORD}}, tokens=[TOKEN, KEY])
    log.warning("refused", authorization=KEY, detail=f"the token {TOKEN} is stale")
    logging.getLogger("uvicorn.error").warning("cannot reach %s as %s", url, f"bearer {KEY}")
    logging.getLogger("asyncpg").warning("refused", extra={"api_key": KEY})
    try:
        raise ConnectionError(f"no route to {url}")
    except ConnectionError as error:
        log.warning("will try again", error=error)
        log.warning(f"the key {KEY} is none")
        log.exception("failed")
        logging.getLogger("asyncpg").exception("failed")


def test_secrets_are_blanked_out(log: io.StringIO) -> None:
    write_everything()
    written = log.getvalue()
    assert [secret for secret in SECRETS if secret in written] == []
    assert written.count("***") > len(SECRETS)


def test_what_is_not_secret_stays(log: io.StringIO) -> None:
    write_everything()
    for word in ("connecting to postgresql://shop:", "@db/shop", "7", "ConnectionError", "is stale"):
        assert word in log.getvalue()
