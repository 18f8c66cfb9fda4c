"""The commands that show the register: exhibits, show, reported, measured."""

import json
from typing import Annotated

import typer

from effbook.errors import EffbookError

Profile = Annotated[str, typer.Option(help="smoke, mini, lab or paper.")]
Csv = Annotated[bool, typer.Option("--csv", help="Comma-separated values, for programs.")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (exhibits, show, reported, measured):
        app.command()(command)


def exhibits(
    as_json: Annotated[bool, typer.Option("--json", help="Everything, all profiles, as JSON.")] = False,
    profile: Profile = "mini",
) -> None:
    """The register with each exhibit's state and verdicts."""
    from effbook import exhibits as rooms

    if as_json:
        typer.echo(json.dumps(rooms.exhibits_json(), indent=1, ensure_ascii=False))
    else:
        rooms.show_exhibits(profile)


def show(
    exhibit_id: Annotated[str, typer.Argument(metavar="ID", help="An exhibit.")], profile: Profile = "mini"
) -> None:
    """Reported beside measured, with claims and errata."""
    from effbook import exhibits as rooms

    rooms.show_terminal(exhibit_id, profile)


def reported(exhibit_id: Annotated[str, typer.Argument(metavar="ID", help="An exhibit.")], csv: Csv = False) -> None:
    """What the dissertation prints: exhibit,row,column,value,unit."""
    from effbook import exhibits as rooms

    if not csv:
        raise EffbookError("reported gives CSV only", f"call 'effbook reported {exhibit_id} --csv', or 'effbook show'")
    typer.echo(rooms.reported_csv(exhibit_id), nl=False)


def measured(
    exhibit_id: Annotated[str, typer.Argument(metavar="ID", help="An exhibit.")],
    csv: Csv = False,
    profile: Profile = "mini",
) -> None:
    """What our records say: exhibit,row,column,value,unit,seeds,spread,record."""
    from effbook import exhibits as rooms

    if not csv:
        raise EffbookError("measured gives CSV only", f"call 'effbook measured {exhibit_id} --csv', or 'effbook show'")
    typer.echo(rooms.measured_csv(exhibit_id, profile), nl=False)
