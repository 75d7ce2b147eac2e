"""The command `holdfast`. Each command imports what it needs, so that all of them start fast."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.errors import ConfigurationError, HoldfastError
from app.invocation import INSTALLATION, Data, configure_logs, run_command, settings_of
from app.paths import data_folder
from app.reject_commands import rejects_app
from app.settings import load_settings

app = typer.Typer(
    name="holdfast",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
app.add_typer(keys_app, name="keys")
app.add_typer(rejects_app, name="rejects")

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="API processes.")]


class Scope(StrEnum):
    STOREFRONT = "storefront"
    ADMIN = "admin"


def main() -> None:
    """The entry point. What the user can put right is one sentence, with exit code 2; an absent store, 1."""
    try:
        app()
    except ConfigurationError as error:
        sys.exit(_complain(str(error), 2))
    except HoldfastError as error:
        sys.exit(_complain(error.detail, 1))


def _complain(sentence: str, code: int) -> int:
    typer.echo(f"holdfast: {sentence}", err=True)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def holdfast(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Flash-sale reservations that never sell a unit twice and never lose one.

    Settings come from `HOLDFAST_*` variables. `holdfast demo` shows it at work.
    """


@app.command()
def demo(
    buyers: Annotated[int, typer.Option(min=1, help="Shoppers who want a unit.")] = 5000,
    stock: Annotated[int, typer.Option(min=1, help="Units for sale.")] = 500,
    seconds: Annotated[float, typer.Option(min=1, help="How long the sale runs.")] = 20,
) -> None:
    """Run a whole flash sale on this machine, and audit it.

    Example: `holdfast demo --buyers 2000 --stock 100`
    """
    from app.demo import run

    configure_logs(load_settings())
    raise typer.Exit(run(buyers=buyers, stock=stock, seconds=seconds))


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help="Run only this section; may be repeated.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Of each contender, in turn.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.5, help="Per round and contender.")] = None,
    connections: Annotated[int | None, typer.Option(min=1, max=1000, help="Kept alive.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A trial of a minute or two; not precise.")] = False,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The report.")] = Path("docs/benchmarks.md"),
) -> None:
    """Measure Holdfast beside other designs, and write the report with its plots.

    Example: `holdfast bench --only contenders --rounds 3`
    """
    # The load tests are beside the package in a checkout, inside it in a wheel.
    sys.path.append(str(data_folder("loadtests").parent))
    from loadtests.bench import run
    from loadtests.bench.options import Options

    defaults = Options.for_trial() if quick else Options()
    options = Options(
        rounds or defaults.rounds, seconds or defaults.seconds, connections or defaults.connections, quick
    )
    run(options, only or [], out)


@app.command()
def up(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Keeps everything, over restarts and crashes.")
    ] = INSTALLATION,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Workers = 1,
) -> None:
    """Start Redis, Postgres, API and worker on this machine.

    Example: `holdfast up --data /srv/shop --port 8080`
    """
    from app.embedded.up import up as run

    configure_logs(load_settings())
    raise typer.Exit(run(data, host, port, workers))


@app.command()
def serve(host: Host = "127.0.0.1", port: Port = 8000, workers: Workers = 1) -> None:
    """Serve the API, against HOLDFAST_REDIS_URL and HOLDFAST_DATABASE_URL.

    Example: `holdfast serve --host 0.0.0.0 --workers 4`
    """
    from app.serve import serve as run

    configure_logs(load_settings())
    run(host, port, workers)


@app.command()
def worker() -> None:
    """Run drain, sweeper, keeper and cleaner. Several may run at once.

    Example: `HOLDFAST_LOG_FORMAT=json holdfast worker`
    """
    import uvloop

    from app.workers import run

    settings = load_settings()
    configure_logs(settings)
    uvloop.run(run(settings))


@app.command()
def migrate(data: Data = None) -> None:
    """Bring the database's tables up to date.

    Example: `holdfast migrate --data .holdfast`
    """
    from app.migrate import upgrade

    with settings_of(data) as settings:
        upgrade(settings)
    typer.echo("the tables are up to date")


@app.command()
def audit(
    sale: Annotated[str | None, typer.Option(help="Only this sale.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be.")] = False,
    data: Data = None,
) -> None:
    """Check every invariant across Redis and Postgres.

    Exit code 1: an invariant is broken. 3: no verdict, since a store did not answer, Postgres lags behind, or
    there is no such sale.

    Example: `holdfast audit --sale launch --json`
    """
    from app.auditor import audit_command

    try:
        code = run_command(data, lambda settings: audit_command(settings, sale, as_json, repair))
    except HoldfastError as error:
        code = _complain(error.detail, 3)
    raise typer.Exit(code)


@app.command()
def rebuild(data: Data = None) -> None:
    """Make Redis again from Postgres and the undrained journal.

    Example: `holdfast rebuild --data .holdfast`
    """
    from app.workers.runner import rebuild_command

    raise typer.Exit(run_command(data, rebuild_command))


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[Scope, typer.Option(help="An admin key may do all that a storefront key may.")] = (
        Scope.STOREFRONT
    ),
    data: Data = None,
) -> None:
    """Make an API key; it is shown once.

    Example: `holdfast keys create webshop --scope storefront`
    """
    from app.api_keys import create_command

    run_command(data, lambda settings: create_command(settings, name, scope.value))


@keys_app.command("list")
def list_keys(data: Data = None) -> None:
    """List the API keys, without their secrets.

    Example: `holdfast keys list`
    """
    from app.api_keys import list_command

    run_command(data, list_command)


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="As `holdfast keys list` shows it.")], data: Data = None
) -> None:
    """Revoke an API key.

    Example: `holdfast keys revoke KEY_ID`
    """
    from app.api_keys import revoke_command

    run_command(data, lambda settings: revoke_command(settings, key_id))


if __name__ == "__main__":
    main()
