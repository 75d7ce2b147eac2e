"""Logging: structlog and the libraries' own loggers through one formatter, to standard error."""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.settings import LogFormat, Settings

_SECRET_NAME = re.compile(r"authorization|password|secret|token|api_?key|_key$|_url$|cookie", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?P<bearer>bearer\s+)\S+|(?P<jwt>eyJ[\w-]+\.)[\w-]+\.[\w-]+|(?P<login>://[^\s:/@]*:)[^\s/@]+(?=@)"
    r"|(?P<key>\bhf_)[\w-]{16,}",
    re.IGNORECASE,
)
_HIDDEN = "***"


def configure_logs(settings: Settings) -> None:
    """Set up logging for this process; calling it again replaces what was set."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.format_exc_info,
        _drop_coloured_copy,
        hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error", "asyncpg", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # It reports every look at the schema.
    logging.getLogger("alembic").setLevel(max(logging.WARNING, root.level))


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank out values under names that promise a secret, and secrets that show by their form."""
    return {name: _hidden(name, value) for name, value in event.items()}


def _drop_coloured_copy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """uvicorn adds its message a second time, for terminals."""
    event.pop("color_message", None)
    return event


def _hidden(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(inner): _hidden(str(inner), content) for inner, content in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(name, content) for content in value]
    if _SECRET_NAME.search(name):
        return _HIDDEN
    if isinstance(value, BaseException):
        value = repr(value)
    return _SECRET_TEXT.sub(_blank, value) if isinstance(value, str) else value


def _blank(match: re.Match[str]) -> str:
    return next(kept for kept in match.groups() if kept is not None) + _HIDDEN


def _renderer(settings: Settings) -> Processor:
    if settings.log_format is LogFormat.JSON:
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
