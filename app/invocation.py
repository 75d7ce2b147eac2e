"""What the commands share: which installation is meant, and running on it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from app.errors import ConfigurationError
from app.settings import Settings, load_settings

_T = TypeVar("_T")
INSTALLATION = Path(".holdfast")

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The installation of `holdfast up --data DIR`."),
]


@contextmanager
def settings_of(data: Path | None) -> Iterator[Settings]:
    """The settings from the environment, or those of the installation in `data`.

    Raises ConfigurationError rather than guess which installation is meant.
    """
    if data is None:
        if INSTALLATION.joinpath("env").exists() and not os.environ.get("HOLDFAST_DATABASE_URL"):
            raise ConfigurationError(
                f"HOLDFAST_DATABASE_URL is not set: set it, or add `--data {INSTALLATION}` for the "
                "installation in this folder"
            )
        settings = load_settings()
        configure_logs(settings)
        yield settings
        return
    from app.embedded.installation import installation_settings

    configure_logs(load_settings())
    with installation_settings(data) as settings:
        yield settings


def run_command(data: Path | None, command: Callable[[Settings], Awaitable[_T]]) -> _T:
    """What the command returns, on the installation that is meant."""

    async def run(settings: Settings) -> _T:
        return await command(settings)

    with settings_of(data) as settings:
        return asyncio.run(run(settings))


def configure_logs(settings: Settings) -> None:
    from app.logs import configure_logs as configure

    configure(settings)
