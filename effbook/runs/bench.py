"""The ledger: speed, memory and bytes as ratios, both sides measured in turns in one process or read from records.

Accuracies are compared as differences.

What is read from records names them: where it came from is theirs to tell, and the line is as stale as they are.
"""

import gc
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from effbook.chapters import SYSTEMS
from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.runs import machine, records
from effbook.runs.cache import now
from effbook.runs.recipe import Recipe, nearest

SCHEMA = 1
LEDGERS = (*SYSTEMS, "exhibits")  # the systems', and that of the commands which show the register


@dataclass(frozen=True)
class FromRecords:
    """A number that was read from records, with their paths below the records' folder; `each` are its seeds'."""

    value: float
    records: tuple[str, ...]
    each: tuple[float, ...] = ()

    def map(self, function: Callable[[float], float]) -> "FromRecords":
        """Another number that follows from it."""
        return FromRecords(function(self.value), self.records, tuple(function(one) for one in self.each))

    def __sub__(self, other: "FromRecords") -> "FromRecords":
        read = tuple(dict.fromkeys(self.records + other.records))
        paired = zip(self.each, other.each, strict=True) if len(self.each) == len(other.each) else ()
        return FromRecords(self.value - other.value, read, tuple(a - b for a, b in paired))


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A / B with its quartiles over the pairs, and the medians of both sides in `unit`; `records` if read from them.

    With the sign "-" it is A - B, in the same unit.
    """

    value: float
    low: float
    high: float
    a: float
    b: float
    unit: str
    pairs: int
    records: tuple[str, ...] = ()
    sign: Literal["/", "-"] = "/"

    @property
    def iqr(self) -> float:
        """Interquartile range of the ratio."""
        return self.high - self.low


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One line of the ledger: what measures it, the figure to reach, and what the dissertation reports."""

    system: str
    name: str
    function: Callable[[], Ratio]
    threshold: str
    reported: str
    needs: tuple[str, ...]

    def reached(self, value: float) -> bool | None:
        """Whether the ratio meets the threshold; None where there is none."""
        if not self.threshold:
            return None
        sign, limit = _parse(self.threshold)
        return value <= limit if sign == "<=" else value >= limit


@dataclass(frozen=True, kw_only=True)
class Line:
    """A bench's outcome: a ratio, or the reason why it wasn't measured."""

    bench: Bench
    ratio: Ratio | None
    why: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the figure is reached; None where nothing is measured or no figure is set."""
        return self.bench.reached(self.ratio.value) if self.ratio else None


_benches: dict[tuple[str, str], Bench] = {}


def register_bench(
    system: str,
    name: str,
    function: Callable[[], Ratio],
    threshold: str = "",
    reported: str = "",
    *,
    needs: tuple[str, ...] = (),
) -> None:
    """Add a line to the ledger. `threshold` is such as "<= 1.05" or ">= 4.6"; `needs` as in `Recipe.needs`."""
    if threshold:
        _parse(threshold)
    bench = Bench(system=system, name=name, function=function, threshold=threshold, reported=reported, needs=needs)
    _benches[system, name] = bench


def compare(
    a: Callable[[], object],
    b: Callable[[], object],
    repeats: int = 20,
    *,
    warm_up: int = 2,
    clock: Callable[[], float] | None = None,
) -> Ratio:
    """Time a / time b, in milliseconds a call: A B A B ..., so that a drift of the machine meets both alike.

    `clock` gives seconds; None: those of a watch.
    """
    if repeats < 2:
        raise EffbookError(f"repeats = {repeats} gives no spread", "use 2 or more")
    for _ in range(warm_up):
        a()
        b()
    collected = gc.isenabled()
    gc.disable()
    try:
        times = [(_time_ms(a, clock), _time_ms(b, clock)) for _ in range(repeats)]
    finally:
        if collected:
            gc.enable()
    return of_pairs(times, "ms")


def of_pairs(pairs: Sequence[tuple[float, float]], unit: str) -> Ratio:
    """a / b of two quantities that were measured in turns."""
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4, method="inclusive")
    return Ratio(
        value=middle,
        low=low,
        high=high,
        a=statistics.median(a for a, _ in pairs),
        b=statistics.median(b for _, b in pairs),
        unit=unit,
        pairs=len(pairs),
    )


def ratio(a: float | FromRecords, b: float | FromRecords, unit: str) -> Ratio:
    """a / b of two quantities that don't vary, such as bytes."""
    read = tuple(dict.fromkeys(path for side in (a, b) if isinstance(side, FromRecords) for path in side.records))
    a, b = (side.value if isinstance(side, FromRecords) else float(side) for side in (a, b))
    return Ratio(value=a / b, low=a / b, high=a / b, a=a, b=b, unit=unit, pairs=1, records=read)


def difference(a: FromRecords, b: FromRecords, unit: str) -> Ratio:
    """a - b of two quantities that were read from records, with the quartiles over their seeds."""
    gap = a - b
    sides = {"a": a.value, "b": b.value, "unit": unit, "sign": "-"}
    many = len(gap.each) > 1
    low, _, high = statistics.quantiles(gap.each, n=4, method="inclusive") if many else [gap.value] * 3
    return Ratio(value=gap.value, low=low, high=high, pairs=max(1, len(gap.each)), records=gap.records, **sides)


def mean_of(metric: str, recipes: Sequence[Recipe], profile: str) -> FromRecords:
    """The mean of a metric over the records of recipes, such as seeds.

    EffbookError where one is not recorded, and where one's metric has no value.
    """
    found = [records.find(recipe, profile) for recipe in recipes]
    if None in found:
        name = next(recipe.name for recipe, record in zip(recipes, found, strict=True) if record is None)
        remedy = f"run `effbook run {recipes[0].system} --profile {profile}` first"
        raise EffbookError(f"not every {name} of {profile} is recorded yet", remedy)
    places = tuple(f"{profile}/{one.system}/{records.path_of(one, profile).name}" for one in recipes)
    each = tuple(record.metrics[metric] for record in found)
    if None in each:
        record, place = next(
            (one, place) for one, place in zip(found, places, strict=True) if one.metrics[metric] is None
        )
        told = record.notes.get(metric, "without a reason")
        raise EffbookError(f"{metric} has no value in {place} ({told})", "look at that run")
    return FromRecords(statistics.fmean(each), places, each)


def standing_of(paths: Sequence[str]) -> str:
    """How a line stands that was read from records: as the worst of them, stale for one that is gone; "" for none."""
    found = set()
    for path in paths:
        try:
            found.add(records.standing(records.read(records.records_folder() / path)))
        except EffbookError:
            found.add("stale")
    return next((word for word in ("stale", "rechecked", "measured") if word in found), "")


def check_system(system: str | None) -> None:
    """EffbookError, with near names, unless it is one of those that have a ledger or None for all of them."""
    if system is not None and system not in LEDGERS:
        raise EffbookError(f"there is no system {system!r}", nearest(system, list(LEDGERS)))


def benches(system: str | None = None) -> list[Bench]:
    """The lines of one system's ledger, or of all; EffbookError for a system without one."""
    check_system(system)
    found = [bench for bench in _benches.values() if system in (None, bench.system)]
    if not found:
        raise EffbookError(f"{system or 'effbook'} has no bench yet", "choose another system")
    return found


def bench(system: str | None = None, *, say: Callable[[str], None] = lambda line: None) -> list[Line]:
    """Measure the ledger of a system (or of all) and write it to the records' bench folder, one file a system.

    A bench that cannot run here is told with its reason, and what was recorded for it elsewhere is kept. Where one
    fails in an unforeseen way, those before it are written.
    """
    lines = []
    try:
        for one in benches(system):
            say(f"measuring {one.system}: {one.name}")
            lines.append(_measure(one))
    finally:
        for name in dict.fromkeys(line.bench.system for line in lines):
            _write(name, [line for line in lines if line.bench.system == name])
    return lines


def bench_path(system: str) -> Path:
    """Where a system's ledger is written."""
    return records.records_folder() / "bench" / f"{system}.json"


def recorded(system: str) -> dict[str, dict]:
    """The ledger of a system as it was written, bench name -> entry; {} if there is none.

    An entry has its `provenance`, or the `records` that it was read from.
    """
    path = bench_path(system)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA:
            raise ValueError(f"schema version {content['schema_version']}")
        return {entry["name"]: entry for entry in content["benches"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "restore it from git, or move it away and bench again"
        raise EffbookError(f"the ledger {path} cannot be read ({error})", remedy) from None


def _measure(one: Bench) -> Line:
    if lacks := machine.missing(one.needs):
        return Line(bench=one, ratio=None, why=f"needs {' and '.join(lacks)}")
    try:
        return Line(bench=one, ratio=one.function())
    except EffbookError as error:
        return Line(bench=one, ratio=None, why=str(error))


def _write(system: str, lines: list[Line]) -> None:
    entries = recorded(system)
    commit, dirty = machine.commit()
    provenance = {
        "commit": commit,
        "dirty": dirty,
        "device": machine.device(),
        "threads": machine.threads(),
        "packages": machine.packages(),
        "created": now(),
    }
    for line in lines:
        if line.ratio is None:
            continue
        ratio = asdict(line.ratio)
        read = ratio.pop("records")
        entries[line.bench.name] = {
            "name": line.bench.name,
            "threshold": line.bench.threshold,
            "reported": line.bench.reported,
            "reached": line.reached,
            "ratio": ratio,
            **({"records": read} if read else {"provenance": provenance}),
        }
    known = {name for owner, name in _benches if owner == system}
    kept = [entry for name, entry in sorted(entries.items()) if name in known]
    content = {"schema_version": SCHEMA, "system": system, "benches": kept}
    write_atomically(bench_path(system), json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _time_ms(call: Callable[[], object], clock: Callable[[], float] | None) -> float:
    clock = clock or time.perf_counter
    start = clock()
    call()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (clock() - start)


def _parse(threshold: str) -> tuple[str, float]:
    match = re.fullmatch(r"(<=|>=) *(\d+(?:\.\d+)?)", threshold)
    if not match:
        raise ValueError(f"a threshold is such as '<= 1.05', not {threshold!r}")
    return match[1], float(match[2])
