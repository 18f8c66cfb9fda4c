"""Arguments and options that several commands share."""

from typing import Annotated

import typer

What = Annotated[
    list[str], typer.Argument(metavar="WHAT...", help="An exhibit (tab-3.12), a system (nola), a notebook, or all.")
]
ExhibitId = Annotated[str, typer.Argument(metavar="ID", help="An exhibit.")]
Profile = Annotated[str, typer.Option(help="smoke, mini, lab or paper.")]
Seeds = Annotated[int | None, typer.Option(min=1, max=1000, help="Run this many seeds, not the profile's.")]
Jobs = Annotated[int, typer.Option(min=1, max=1000, help="Runs at a time, each in a process of its own.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Plain lines, no bars.")]
Chapter = Annotated[str | None, typer.Option(help="introduction, cmsf, simreg, compgs, nola or slowformer.")]
Csv = Annotated[bool, typer.Option("--csv", help="Comma-separated values, for programs.")]
