"""The tables that the commands print."""

import collections

from rich.console import Console
from rich.table import Table

from effbook.runs.bench import Line, standing_of
from effbook.runs.machine import GIB
from effbook.runs.plan import Plan, PlannedRun
from effbook.runs.progress import duration
from effbook.runs.prune import Item
from effbook.runs.recipe import Recipe


def show_plan(plan: Plan, profile: str, places: dict[Recipe, tuple[str, str]] | None) -> None:
    """The runs of a plan, and the sums of those to do: by exhibit and row, or one by one without `places`."""
    table = Table(title=f"Runs under {profile}")
    for column, side in (("run", "left"), ("seed", "right"), ("state", "left"), ("time", "right")):
        table.add_column(column, justify=side)
    table.add_column("GPU GiB", justify="right")
    table.add_column("missing here")
    if places is None:
        for run in plan.runs:
            table.add_row(f"{run.recipe.name} {run.recipe.key}", *_told([run]))
    else:
        groups: dict[str, dict[tuple[str, str], list[PlannedRun]]] = {}
        for run in plan.runs:
            exhibit, row = places.get(run.recipe, ("of no exhibit's own", ""))
            groups.setdefault(exhibit, {}).setdefault((row, run.recipe.name), []).append(run)
        for exhibit, rows in groups.items():
            table.add_section()
            table.add_row(f"[bold]{exhibit}", *_told([run for runs in rows.values() for run in runs]))
            for (row, name), runs in rows.items():
                table.add_row(f"  {row}: {name}" if row else f"  {name}", *_told(runs))
    console = Console()
    console.print(table)
    to_do = sum(run.to_do for run in plan.runs)
    stale = sum(run.state == "stale" for run in plan.runs)
    console.print(
        f"{len(plan.runs)} runs, {len(plan.runs) - to_do} recorded ({stale} stale), {to_do} to do: "
        f"about {plan.hours:.1f} hours, {plan.gpu_bytes / GIB:.0f} GiB of GPU memory, "
        f"{plan.disk_bytes / GIB:.1f} GiB of disk ({plan.data_bytes / GIB:.1f} of it data to fetch)",
        highlight=False,
    )
    if plan.unknown:
        console.print(f"No manifest tells the size of {', '.join(plan.unknown)}.", highlight=False)


def _told(runs: list[PlannedRun]) -> tuple[str, ...]:
    """Seeds, states, time of those to do, GPU memory and what is missing, of runs that share a line."""
    states = collections.Counter(run.state for run in runs)
    told = ", ".join(state if len(runs) == 1 else f"{count} {state}" for state, count in states.items())
    gpu = max(run.cost.gpu_bytes for run in runs)
    lacks = ", ".join(dict.fromkeys(lack for run in runs for lack in run.lacks))
    seeds = sorted({run.recipe.seed for run in runs})
    many = f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    time = duration(sum(run.seconds for run in runs if run.to_do)) if any(run.to_do for run in runs) else ""
    return many, told, time, f"{gpu / GIB:.0f}" if gpu else "", lacks


def show_data() -> None:
    """Every manifest: kind, licence, splits and whether it is cached."""
    from effbook import data

    table = Table()
    for column in ("name", "kind", "cached", "licence", "splits"):
        table.add_column(column, no_wrap=column == "name")
    for name, found in data.manifests().items():
        splits = ", ".join(f"{split} {'?' if n is None else f'{n:,}'}" for split, n in found.splits.items())
        table.add_row(name, found.kind, "yes" if data.is_cached(name) else "", found.licence, splits)
    Console().print(table)


def show_ledger(lines: list[Line]) -> None:
    """Each ratio with its quartiles beside the figure to reach and the one reported."""
    table = Table(title="Ratios and differences, medians with quartiles")
    for column in ("system", "what", "ratio", "to reach", "", "reported", "both sides"):
        table.add_column(column)
    for line in lines:
        mark = {True: "reached", False: "missed", None: ""}[line.reached]
        if line.ratio is None:
            cells = ("not run", line.bench.threshold, "", line.bench.reported, line.why)
        else:
            r = line.ratio
            spread = f" [{r.low:.3f}, {r.high:.3f}]" if r.pairs > 1 else ""
            sides = f"{r.a:,.4g} {r.sign} {r.b:,.4g} {r.unit}" + (f", {r.pairs} pairs" if r.pairs > 1 else "")
            sides += f", from {len(r.records)} records ({standing_of(r.records)})" if r.records else ""
            cells = (f"{r.value:.3f}{spread}", line.bench.threshold, mark, line.bench.reported, sides)
        table.add_row(line.bench.system, line.bench.name, *cells)
    Console().print(table)


def show_cache(items: list[Item]) -> None:
    """What lies in the caches beside records, the largest first of each state."""
    table = Table()
    for column, side in (("state", "left"), ("size", "right"), ("what", "left"), ("recipe", "left"), ("made", "left")):
        table.add_column(column, justify=side)
    sized = [(item.state, item.size_bytes, item) for item in items]
    for state, size_bytes, item in sorted(sized, key=lambda one: (one[0], -one[1])):
        table.add_row(state, size(size_bytes), item.what, item.recipe, item.created[:16].replace("T", " "))
    console = Console()
    if items:
        console.print(table)
    console.print(f"{len(items)} things, {size(sum(one[1] for one in sized))}.", highlight=False)


def size(size_bytes: int) -> str:
    """Bytes for people: "31 B", "1.5 MiB"."""
    amount, units = float(size_bytes), ["B", "KiB", "MiB", "GiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" or amount >= 100 else f"{amount:.1f} {units[0]}"
