"""The commands that show the register: exhibits, show, reported, measured, errata."""

import json
from typing import Annotated

import typer

from effbook.cli.failures import say
from effbook.cli.options import Chapter, Csv, ExhibitId, Profile
from effbook.errors import EffbookError


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (exhibits, show, reported, measured, errata):
        app.command()(command)


def exhibits(
    as_json: Annotated[bool, typer.Option("--json", help="Everything, all profiles, as JSON.")] = False,
    profile: Profile = "mini",
    chapter: Chapter = None,
    kind: Annotated[str | None, typer.Option(help="table, figure or prose.")] = None,
    state: Annotated[
        str | None, typer.Option(help="measured, rechecked, partly, stale, not run, no run, waiting or drawing.")
    ] = None,
    verdict: Annotated[str | None, typer.Option(help="holds, fails, undecided or not run.")] = None,
) -> None:
    """The register with each exhibit's state and verdicts, all of it or what fits."""
    from effbook import exhibits as rooms
    from effbook.runs.profiles import check_profile

    words = {"chapter": chapter, "kind": kind, "state": state, "verdict": verdict}
    rooms.chosen([], check_profile(profile), **words)  # a wrong word is told before any record is read
    look = rooms.Look(past_unreadable=True)
    if as_json:
        fit = rooms.chosen(rooms.entries(look=look), profile, **words)
        typer.echo(json.dumps([one.model_dump(mode="json") for one in fit], indent=1))
    else:
        rooms.show_exhibits(profile, look=look, **words)
    for error in look.unreadable:
        say(str(error))
    if look.unreadable:
        raise typer.Exit(1)


def errata(chapter: Chapter = None) -> None:
    """Where the dissertation contradicts itself, exhibit by exhibit, and what was decided."""
    from effbook import exhibits as rooms

    rooms.show_errata(chapter)


def show(exhibit_id: ExhibitId, profile: Profile = "mini") -> None:
    """Reported beside measured, with claims and errata."""
    from effbook import exhibits as rooms

    rooms.show_terminal(exhibit_id, profile)


def reported(exhibit_id: ExhibitId, csv: Csv = False) -> None:
    """What the dissertation prints: exhibit,row,column,value,unit."""
    from effbook import exhibits as rooms

    if not csv:
        raise EffbookError("reported gives CSV only", f"call 'effbook reported {exhibit_id} --csv', or 'effbook show'")
    typer.echo(rooms.reported_csv(exhibit_id), nl=False)


def measured(exhibit_id: ExhibitId, csv: Csv = False, profile: Profile = "mini") -> None:
    """What our records say: exhibit,row,column,value,unit,seeds,spread,record,state."""
    from effbook import exhibits as rooms

    if not csv:
        raise EffbookError("measured gives CSV only", f"call 'effbook measured {exhibit_id} --csv', or 'effbook show'")
    typer.echo(rooms.measured_csv(exhibit_id, profile), nl=False)
