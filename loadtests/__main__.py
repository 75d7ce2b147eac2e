"""`python -m loadtests`: shoppers against a running Holdfast, with defaults that fit `holdfast up`."""

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from loadtests.options import (
    OPTIONS,
    SECRETS,
    RunRefused,
    add_to_parser,
    check_options,
    destination,
    fill_environment,
)

EXAMPLES = """\
examples:
  holdfast up                                    in one terminal, and in another
  python -m loadtests                            1,000 shoppers for 100 units
  python -m loadtests --buyers 20000 --stock 2000 --seconds 60
  python -m loadtests --web                      with locust's web page on port 8089
  make load ARGS="--host http://127.0.0.1:8001 --buyers 5000"

Other options go to locust as they are. The exit code is 0 only if the shoppers and the auditor agree.
"""
MAX_USERS = 1000


def main() -> int:
    """Runs locust with the options, and does not return if it could start."""
    parser = _parser()
    chosen, for_locust = parser.parse_known_args()
    fill_environment(chosen.data)
    for option in SECRETS:
        os.environ[option.env_var] = given = getattr(chosen, destination(option.flag)) or os.environ.get(
            option.env_var, ""
        )
        setattr(chosen, destination(option.flag), given)
    try:
        # Early, as locust has much to say before it looks.
        host = check_options(chosen.host, chosen)
        from loadtests.admin import Admin

        Admin(host, chosen.holdfast_admin_key).require_answer()
    except RunRefused as refused:
        print(refused, file=sys.stderr)
        return 1
    sys.argv = ["locust", *_locust_arguments(host, chosen), *for_locust]
    from locust.main import main as locust  # late: it patches sockets and threads

    locust()
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "python -m loadtests",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="http://127.0.0.1:8000", help="default: %(default)s")
    parser.add_argument(
        "--data", type=Path, default=Path(".holdfast"), help="folder of `holdfast up`, read for its keys"
    )
    parser.add_argument("--web", action="store_true", help="show locust's web page, start from there")
    parser.add_argument(
        "--users",
        type=int,
        default=0,
        metavar="X",
        help=f"at the same time (default: all, up to {MAX_USERS})",
    )
    for option in OPTIONS + SECRETS:
        add_to_parser(parser, option, os.environ.get(option.env_var))
    return parser


def _locust_arguments(host: str, chosen: Namespace) -> list[str]:
    users = chosen.users or min(chosen.holdfast_buyers, MAX_USERS)
    arguments = ["-f", str(Path(__file__).with_name("locustfile.py")), "--host", host]
    arguments += ["--users", str(users), "--spawn-rate", str(users)]
    if not chosen.web:
        # Without its periodic tables; what fails is in the verification, and in the exit code.
        arguments += ["--headless", "--only-summary", "--loglevel", "WARNING"]
    if chosen.holdfast_json_lines:
        arguments.append("--skip-log-setup")
    for option in OPTIONS:
        value = getattr(chosen, destination(option.flag))
        if isinstance(option.default, bool):
            arguments += [option.flag] * value
        elif value != option.default:
            arguments += [option.flag, str(value)]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
