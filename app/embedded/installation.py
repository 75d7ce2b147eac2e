"""An embedded installation as a whole: its servers, and the `env` file with its URLs and keys."""

import os
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.embedded.servers import EmbeddedServers
from app.embedded.workspace import is_in_use
from app.errors import ConfigurationError
from app.setting_names import PREFIX
from app.settings import Settings, load_settings

_URLS = ("HOLDFAST_REDIS_URL", "HOLDFAST_DATABASE_URL")
_SECRETS = ("HOLDFAST_ADMIN_KEY", "HOLDFAST_STOREFRONT_KEY", "HOLDFAST_ID_SECRET")
_OWN_FOLDER = r".*/(?:run|holdfast-\w+)"
"""Of sockets: in a data folder, or the temporary one of a data folder with a long path."""
_OWN_URL = re.compile(
    rf"unix://{_OWN_FOLDER}/redis/redis\.sock\?db=0|postgresql://postgres@/holdfast\?host={_OWN_FOLDER}/postgres"
)


@contextmanager
def running_installation(data: Path) -> Iterator[tuple[EmbeddedServers, dict[str, str]]]:
    """Servers on `data`, and the variables that the other processes need, also written to `data`/env.

    A server whose URL the environment names is not started, unless it is an embedded one: then the shell has
    read an installation's `env`. Raises ConfigurationError as EmbeddedServers does.
    """
    given = _given()
    servers = EmbeddedServers(data, redis_url=given.get(_URLS[0]), database_url=given.get(_URLS[1]))
    with servers:
        urls = dict(zip(_URLS, (servers.redis_url, servers.database_url), strict=True))
        yield servers, _renew_env(data / "env", urls, given)


@contextmanager
def installation_settings(data: Path) -> Iterator[Settings]:
    """The settings of the installation in `data`, whose servers are started for the while if they do not run.

    Raises ConfigurationError if there is none.
    """
    env = data / "env"
    if not env.exists():
        raise ConfigurationError(f"{data} holds no installation: `holdfast up --data {data}` makes one")
    if is_in_use(data):
        yield settings_from(_read_env(env))
    else:
        with running_installation(data) as (_, variables):
            yield settings_from(variables)


def settings_from(variables: Mapping[str, str]) -> Settings:
    """Settings from the environment, with `HOLDFAST_*` variables put over it."""
    given = {name: value for name, value in variables.items() if name.startswith(PREFIX)}
    return load_settings(**{name.removeprefix(PREFIX).lower(): value for name, value in given.items()})


def _given() -> dict[str, str]:
    """What the environment says of servers and secrets, less what it has from an installation's `env`."""
    named = {name: os.environ[name] for name in (*_URLS, *_SECRETS) if os.environ.get(name)}
    own = {name for name in _URLS if _OWN_URL.fullmatch(named.get(name, ""))}
    if own:
        # The secrets beside it are that installation's, which need not be this one.
        own.update(_SECRETS)
    return {name: value for name, value in named.items() if name not in own}


def _renew_env(file: Path, urls: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Write the present URLs and keep the secrets of earlier starts; those that are `given` override them."""
    known = _read_env(file) if file.exists() else {}
    kept = {name: known.get(name) or given.get(name) or secrets.token_urlsafe(32) for name in _SECRETS}
    partial = file.with_suffix(".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as handle:
        os.fchmod(descriptor, 0o600)
        handle.writelines(f"{name}={shlex.quote(value)}\n" for name, value in {**urls, **kept}.items())
        handle.flush()
        os.fsync(descriptor)
    partial.replace(file)
    return {**urls, **{name: given.get(name, value) for name, value in kept.items()}}


def _read_env(file: Path) -> dict[str, str]:
    """Shell assignments, one a line; what the user added is read too. Raises ConfigurationError."""
    try:
        lines = shlex.split(file.read_text(), comments=True)
    except ValueError as error:
        raise ConfigurationError(f"{file} has something else than assignments ({error})") from None
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
