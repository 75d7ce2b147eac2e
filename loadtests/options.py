"""What a run can be told: the same options for locust, for `python -m loadtests` and for `holdfast demo`."""

import ipaddress
import os
import shlex
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

MAX_BUYERS = 1_000_000
MAX_SECONDS = 3600.0


class RunRefused(Exception):
    """The run cannot start; the message says what to change."""


class Option(NamedTuple):
    flag: str
    env_var: str
    default: Any
    help: str


OPTIONS = (
    Option("--buyers", "LOADTEST_BUYERS", 1000, "shoppers in all, each with a customer id of its own"),
    Option("--stock", "LOADTEST_STOCK", 100, "units of the new sale, spread over its SKUs"),
    Option("--skus", "LOADTEST_SKUS", 3, "SKUs of the new sale"),
    Option("--limit", "LOADTEST_LIMIT", 2, "units of a SKU that a customer of the new sale may take"),
    Option("--hold-seconds", "LOADTEST_HOLD_SECONDS", 3, "how long the new sale's holds live"),
    Option("--seconds", "LOADTEST_SECONDS", 30.0, "nobody starts to shop later than this"),
    Option("--arrive-over", "LOADTEST_ARRIVE_OVER", 0.0, "seconds in which all come; 0: half of --seconds"),
    Option("--settle-seconds", "LOADTEST_SETTLE_SECONDS", 30.0, "wait for the last holds and the drain"),
    Option("--connections", "LOADTEST_CONNECTIONS", 64, "open at the same time, per process"),
    Option("--sale", "LOADTEST_SALE", "", "id of the sale; without it, a new one"),
    Option("--existing", "LOADTEST_EXISTING", False, "shop in the sale named by --sale, don't create it"),
    Option("--allow-remote", "LOADTEST_ALLOW_REMOTE", False, "permit a host that is not this machine"),
    Option("--json-lines", "LOADTEST_JSON_LINES", False, "print progress and result as lines of JSON"),
)  # fmt: skip
SECRETS = (
    Option("--admin-key", "HOLDFAST_ADMIN_KEY", "", "creates and verifies the sale"),
    Option("--storefront-key", "HOLDFAST_STOREFRONT_KEY", "", "the shoppers' key; without it, the admin key"),
)


def destination(flag: str) -> str:
    """The attribute that holds an option; prefixed, as locust has many of its own."""
    return "holdfast_" + flag.removeprefix("--").replace("-", "_")


def add_to_parser(parser: ArgumentParser, option: Option, set_value: str | None = None, **extra: Any) -> None:
    """Adds one option; `set_value` is what the environment says, instead of the default."""
    given: dict[str, Any] = {"dest": destination(option.flag), "default": option.default, **extra}
    if isinstance(option.default, bool):
        given |= {"action": "store_true", "help": option.help}
        if set_value is not None:
            given["default"] = set_value.lower() in ("1", "true", "yes")
    else:
        default = f" (default: {option.default})" if option.default else ""
        given |= {"type": type(option.default), "metavar": "X", "help": option.help + default}
        if set_value is not None:
            given["default"] = set_value  # argparse converts texts
    parser.add_argument(option.flag, **given)


def add_to_locust(parser: ArgumentParser) -> None:
    """Adds all options, read from the command line, the environment and locust's web page."""
    for option in OPTIONS:
        add_to_parser(parser, option, env_var=option.env_var)
    for option in SECRETS:
        add_to_parser(parser, option, env_var=option.env_var, include_in_web_ui=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Times are seconds since 1970 on the shoppers' clock."""

    host: str
    sale_id: str
    own_sale: bool
    skus: tuple[str, ...]
    limit: int
    hold_seconds: float
    buyers: int
    workers: int
    """Processes that share the buyers."""
    connections: int
    starts_at: float
    arrive_over: float
    ends_at: float
    settle_seconds: float
    storefront_key: str

    def as_message(self) -> dict[str, Any]:
        """For the other processes of a distributed run."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Plan":
        return cls(**{**message, "skus": tuple(message["skus"])})


def check_options(host: str | None, options: Namespace) -> str:
    """The host without its last slash.

    Raises RunRefused if a bound is passed, a key is missing or the host is another machine.
    """
    if not host or urlsplit(host).scheme not in ("http", "https"):
        raise RunRefused("Name the deployment: --host http://127.0.0.1:8000")
    if not options.holdfast_allow_remote and not is_loopback(host):
        raise RunRefused(f"{host} is not this machine. If you may load it, add --allow-remote.")
    if not 1 <= options.holdfast_buyers <= MAX_BUYERS:
        raise RunRefused(f"--buyers must be 1 to {MAX_BUYERS}")
    if not 1 <= options.holdfast_seconds <= MAX_SECONDS:
        raise RunRefused(f"--seconds must be 1 to {MAX_SECONDS:.0f}")
    if not options.holdfast_admin_key:
        raise RunRefused(
            "No admin key: set HOLDFAST_ADMIN_KEY, or run where `holdfast up` keeps its .holdfast folder."
        )
    if options.holdfast_existing and not options.holdfast_sale:
        raise RunRefused("--existing needs --sale")
    return host.rstrip("/")


def is_loopback(host: str) -> bool:
    name = urlsplit(host).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def read_env_file(folder: Path) -> dict[str, str]:
    """The URLs and keys that `holdfast up` keeps in its data folder; empty without one."""
    path = folder / "env"
    if not path.is_file():
        return {}
    words = shlex.split(path.read_text(), comments=True)
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def fill_environment(folder: Path) -> None:
    """Keys from `folder` for what the environment leaves open."""
    for name, value in read_env_file(folder).items():
        if name in ("HOLDFAST_ADMIN_KEY", "HOLDFAST_STOREFRONT_KEY"):
            os.environ.setdefault(name, value)
