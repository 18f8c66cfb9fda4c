"""The door: every command is a few lines that call below. Nothing heavy is imported before a command needs it."""

import sys
from typing import Annotated

import typer

from effbook import experiments
from effbook.cli.exhibits import register_commands
from effbook.errors import EffbookError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
data_app = typer.Typer(no_args_is_help=True, help="The data sets and weights: list, fetch, verify.")
book_app = typer.Typer(no_args_is_help=True, help="The book: build it, look at it.")
app.add_typer(data_app, name="data")
app.add_typer(book_app, name="book")

What = Annotated[
    list[str], typer.Argument(metavar="WHAT...", help="An exhibit (tab-3.12), a system (nola), a notebook, or all.")
]
Profile = Annotated[str, typer.Option(help="smoke, mini, lab or paper.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Run this many seeds, not the profile's.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Plain lines, no bars.")]
Names = Annotated[list[str] | None, typer.Argument(help="Manifests; without names those of the mini profile.")]


@app.callback()
def _top(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """The companion to "Efficiency in Computer Vision: From Compute and Memory to Robustness"."""


@app.command()
def doctor() -> None:
    """What this machine can run, and what is missing."""
    from effbook.cli import doctor

    doctor.show()


@app.command()
def plan(what: What, profile: Profile = "mini", seeds: Seeds = None) -> None:
    """The runs to do, recorded or not, with an estimate of hours, GPU memory and disk."""
    from effbook.cli import tables
    from effbook.runs.plan import plan as planned

    tables.show_plan(planned(_pairs(what, profile, seeds)), profile)


@app.command()
def run(
    what: What,
    profile: Profile = "mini",
    fresh: Annotated[bool, typer.Option("--fresh", help="Recompute; replaces records upon success.")] = False,
    seeds: Seeds = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process of its own.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Run what is not recorded yet, and show the tables. A run that was interrupted goes on where it was."""
    from effbook import exhibits
    from effbook.runs import machine, records
    from effbook.runs.execute import execute_all

    pairs = _pairs(what, profile, seeds)
    lacks = {pair: machine.missing(pair[0].needs()) for pair in pairs if fresh or records.find(*pair) is None}
    lacks = {pair: lack for pair, lack in lacks.items() if lack}
    pairs = [pair for pair in pairs if pair not in lacks]
    try:
        done = execute_all(pairs, jobs=jobs, fresh=fresh, quiet=quiet)
    except KeyboardInterrupt:
        typer.echo("effbook: interrupted; the same command again goes on from the last checkpoint.", err=True)
        raise typer.Exit(130) from None
    ran = {recipe for recipe, _ in pairs}
    for name in exhibits.register():
        if name in what or (not set(what) <= set(exhibits.register()) and ran & _runs_of(name, profile)):
            exhibits.show_terminal(name, profile)
    if lacks:
        what_lacks = " and ".join(sorted({one for lack in lacks.values() for one in lack}))
        raise EffbookError(
            f"{len(lacks)} of {len(pairs) + len(lacks)} runs were left out, as they need {what_lacks}",
            "run them on a machine that has it, or choose another profile",
        )
    if stale := sum(records.is_stale(record) for record in done):
        raise EffbookError(f"{stale} of the records were made by other code", "recompute them with --fresh")


@data_app.command("list")
def data_list() -> None:
    """All manifests, and which are in the cache."""
    from effbook.cli import tables

    tables.show_data()


@data_app.command("fetch")
def data_fetch(names: Names = None, quiet: Quiet = False) -> None:
    """Fetch data sets and weights into the cache, and verify them."""
    from effbook import data

    failures = []
    for name in _named(names):
        try:
            path = data.fetch(name, progress=not quiet and sys.stderr.isatty(), recheck=bool(names))
            typer.echo(f"{name}: {path}")
        except EffbookError as error:
            if names and len(names) == 1:
                raise
            failures.append(name)
            typer.echo(f"effbook: {error}", err=True)
    if failures:
        raise EffbookError(f"{len(failures)} could not be fetched: {', '.join(failures)}", "see the lines above")


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Manifests; without names all that are cached.")] = None,
) -> None:
    """Check cached files against their manifests."""
    from effbook import data

    damaged = []
    for name in names or [name for name in data.manifests() if data.is_cached(name)]:
        problems = data.verify(name)
        typer.echo(f"{name}: {'; '.join(problems) if problems else 'verified'}")
        damaged += [name] if any(not problem.startswith("unpinned") for problem in problems) else []
    if damaged:
        raise EffbookError(f"{', '.join(damaged)} did not verify", f"run 'effbook data fetch {' '.join(damaged)}'")


@book_app.command("build")
def book_build(profile: Profile = "mini") -> None:
    """Run the notebooks and build the site; ends with its path."""
    from effbook import book
    from effbook.runs.profiles import check_profile

    if (site := book.build(profile=check_profile(profile))) is not None:
        typer.echo(site)


@book_app.command("serve")
def book_serve() -> None:
    """Serve the built site on this machine."""
    from effbook import book

    book.serve()


@app.command()
def bench(
    system: Annotated[str | None, typer.Argument(help="A system; all without one.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a figure is missed.")] = False,
) -> None:
    """The ledger: speed, memory and bytes as ratios measured in one process, against the figures to reach."""
    from effbook.cli import tables
    from effbook.runs import bench as ledger

    experiments.load()
    lines = ledger.bench(system, say=lambda line: typer.echo(line, err=True))
    tables.show_ledger(lines)
    if check and (missed := [line.bench.name for line in lines if line.reached is False]):
        raise EffbookError(f"{len(missed)} figures are missed: {', '.join(missed)}", "see the table")


def _pairs(what: list[str], profile: str, seeds: int | None) -> list:
    """Every (recipe, profile) that the words stand for, once."""
    from effbook import exhibits
    from effbook.runs.profiles import check_profile, with_seeds

    recipes = [recipe for word in what for recipe in exhibits.recipes_of(word, check_profile(profile))]
    if seeds is not None:
        recipes = [seeded for recipe in recipes for seeded in with_seeds(recipe, tuple(range(seeds)))]
    if not recipes:
        raise EffbookError(f"{' '.join(what)} has no {profile} run", "see 'effbook exhibits'")
    return [(recipe, profile) for recipe in dict.fromkeys(recipes)]


def _runs_of(name: str, profile: str) -> set:
    from effbook import exhibits

    try:
        return set(exhibits.recipes_of(name, profile))
    except EffbookError:  # an exhibit without a run under the profile
        return set()


def _named(names: list[str] | None) -> list[str]:
    """The manifests named, or those that the mini profile reads."""
    if names:
        return names
    from effbook import exhibits

    return sorted({name for recipe in exhibits.recipes_of("all", "mini") for name in recipe.datasets()})


register_commands(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; every failure is one sentence on standard error, with a traceback only under --debug."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        status = app([word for word in arguments if word != "--debug"], prog_name="effbook", standalone_mode=False)
    except Exception as error:
        status = _failed(error, debug)
    sys.exit(status if isinstance(status, int) else 0)


def _failed(error: Exception, debug: bool) -> int:
    """Print the sentence and give the exit status: 2 for a mistyped command line, 1 otherwise."""
    if hasattr(error, "format_message"):  # a usage error of the command-line library
        message = " ".join(error.format_message().split())
        if message:
            typer.echo(f"effbook: {message.rstrip('.')}; see 'effbook --help'.", err=True)
        return 2
    if debug:
        import traceback

        traceback.print_exception(error)
    elif isinstance(error, EffbookError):
        typer.echo(f"effbook: {error}", err=True)
    else:
        what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        typer.echo(f"effbook: unexpected {what}; call again with --debug for the traceback.", err=True)
    return 1
