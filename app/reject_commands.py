"""`holdfast rejects …`"""

from typing import Annotated

import typer

from app.invocation import Data, run_command

rejects_app = typer.Typer(
    no_args_is_help=True, help="List, retry and discard journal records that Postgres refused."
)


@rejects_app.command("list")
def list_rejects(
    everything: Annotated[bool, typer.Option("--all", help="Settled ones, too.")] = False, data: Data = None
) -> None:
    """List the records that wait for a person, and why Postgres refused them.

    Example: `holdfast rejects list --all`
    """
    from app.rejects import list_command

    run_command(data, lambda settings: list_command(settings, everything))


@rejects_app.command("retry")
def retry_rejects(
    reject_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="As `holdfast rejects list` shows it.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait, in journal order.")] = False,
    data: Data = None,
) -> None:
    """Apply a record to Postgres again, with its events, once what was in its way is put right.

    Exit code 1: it is still refused.

    Example: `holdfast rejects retry 3/1-42/0`
    """
    from app.rejects import retry_command

    if everything == (reject_id is not None):
        raise typer.BadParameter("give the ID of one, or --all")
    raise typer.Exit(run_command(data, lambda settings: retry_command(settings, reject_id)))


@rejects_app.command("discard")
def discard_reject(
    reject_id: Annotated[str, typer.Argument(metavar="ID", help="As `holdfast rejects list` shows it.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with it.")],
    data: Data = None,
) -> None:
    """Give a record up: Postgres will never have it.

    Example: `holdfast rejects discard 3/1-42/0 --reason "written by hand"`
    """
    from app.rejects import discard_command

    run_command(data, lambda settings: discard_command(settings, reject_id, reason))
