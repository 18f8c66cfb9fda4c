"""Claims and their verdicts: a sentence of the dissertation as tests over measured values.

A test compares two cells (or sums of cells, or a number) seed by seed. The 95 % t-interval of the difference against
the margin decides: wholly on the right side, the test holds; wholly on the wrong side, it fails; else it is undecided.
Seeds that share an independent draw, such as their training images, are averaged first: a draw counts once. Fewer than
three draws decide nothing, unless both sides are arithmetic.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from effbook.errors import EffbookError
from effbook.exhibits.look import Look
from effbook.exhibits.measure import Table, mean_by, measured
from effbook.exhibits.register import exhibit
from effbook.exhibits.schema import Exhibit
from effbook.exhibits.sentences import Cell, Claim, Operand, Sum, Test
from effbook.runs import bench as ledger
from effbook.runs.summary import summarise

Verdict = Literal["holds", "fails", "undecided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("holds", "fails", "undecided", "not run")
LEAST_SEEDS = 3
NOT_YET = "not run yet"
PAPER_ONLY = "it compares with a number of the dissertation's scale"

Tables = Callable[[str | None], Table]  # None: the claim's own exhibit


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test: what it compared, the estimate with half its 95 % interval, and in words why there is no verdict."""

    test: Test
    verdict: Verdict
    estimate: float | None = None
    half_width: float | None = None
    n: int = 0
    why: str = ""
    unit: str = ""  # of a difference
    column: str = ""  # that it compares in
    ledger: bool = False  # decided by a line of the ledger


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim's verdict with its tests; `arithmetic` if it rests on counts alone, which no profile changes."""

    claim: Claim
    profile: str
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    arithmetic: bool = False

    @property
    def ran(self) -> int:
        """How many of the tests have run."""
        return sum(outcome.verdict != "not run" for outcome in self.outcomes)

    @property
    def numbers(self) -> str:
        """The test that the verdict hangs on in numbers, such as "ratio 1.08 ±0.02, asked for ≤ 1.05"."""
        one = decisive(self.outcomes)
        if one is None or one.ledger or self.arithmetic:
            return ""
        test, unit = one.test, "" if one.test.ratio else f" {one.unit}".rstrip()
        single = isinstance(test.right, int | float) and isinstance(test.left, Cell)
        what = "ratio" if test.ratio else "value" if single else "difference"
        half = f" ±{_digits(one.half_width)}" if one.half_width else ""
        sign = {">=": "≥", "<=": "≤"}.get(test.op, test.op)
        value, asked = (_digits(v, signed=what == "difference") for v in (one.estimate, test.margin))
        if what == "difference" and one.unit == "%":
            unit = " points"
        if what == "value":
            value, asked = _digits(one.estimate + test.right), _digits(test.margin + test.right)
        which = f" in {one.column}" if len(self.outcomes) > 1 and one.column else ""
        return f"{what}{which} {value}{half}{unit}, asked for {sign} {asked}"

    @property
    def why(self) -> str:
        """In words, what the verdict rests on."""
        held = sum(o.verdict == "holds" for o in self.outcomes)
        counted = f"{held} of {self.ran} tests hold" if len(self.outcomes) > 1 and self.ran else ""
        if 0 < self.ran < len(self.outcomes):
            counted += f", {len(self.outcomes) - self.ran} not run"
        reasons = [o.why for o in self.outcomes if o.why and (o.verdict == "undecided" or self.verdict == "not run")]
        reasons += [o.why for o in self.outcomes if o.test.bench and o.ledger]
        if NOT_YET in reasons:  # what is still to run matters more than what never runs at this scale
            reasons = []
        return "; ".join([*[counted] * bool(counted), *dict.fromkeys(reasons)][:3])


def decisive(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The measured test that the verdict hangs on: one that fails, else one in the noise, else the closest that holds.

    Of several, the one that is worst, or least far on the right side, in units of its own interval.
    """
    for word in ("fails", "undecided", "holds"):
        if known := [one for one in outcomes if one.verdict == word and one.estimate is not None]:
            return min([one for one in known if one.half_width] or known, key=_room)  # counts are told by their cells
    return None


def _room(one: Outcome) -> float:
    """How far on the right side of the margin an estimate is, by its interval; below 0 on the wrong side."""
    gap = (one.estimate - one.test.margin) * (1 if one.test.op in (">", ">=") else -1)
    return gap / (one.half_width or abs(one.test.margin) or 1.0)


Quantity = tuple[tuple[str, ...], str | None]  # what was measured: the keys of the runs, and the metric


@dataclass(frozen=True)
class _Side:
    """A side of a test: exact, or one value a seed; or neither, and why.

    `draws` as in `Measured`; `terms` says what is added up, each quantity with its weight.
    """

    exact: float | None = None
    by_seed: dict[int, float] | None = None
    draws: dict[int, int] = field(default_factory=dict)
    terms: dict[Quantity, float] = field(default_factory=dict)
    why: str = ""


def verdict(claim: Claim | str, of: Exhibit | str, profile: str) -> Verdict:
    """The verdict on a claim (or its id) of an exhibit under a profile."""
    return judge(claim, of, profile).verdict


def judge(
    claim: Claim | str,
    of: Exhibit | str,
    profile: str,
    table: Table | None = None,
    others: Sequence[Table] = (),
    *,
    look: Look | None = None,
) -> Judgement:
    """The verdict on a claim with all that it rests on; `table` and `others`, if given, stand for the records."""
    found = exhibit(of) if isinstance(of, str) else of
    if isinstance(claim, str):
        known = [c.id for c in found.claims]
        if claim not in known:
            raise EffbookError(f"{found.id} has no claim {claim!r}", f"it has {', '.join(known) or 'none'}")
        claim = found.claim(claim)
    look = look or Look()
    own = table or measured(found, profile, look)
    seen: dict[str, Table] = {found.id: own, **{other.exhibit.id: other for other in others}}

    def tables(exhibit_id: str | None) -> Table:
        name = exhibit_id or found.id
        if name not in seen:
            seen[name] = measured(name, profile, look)
        return seen[name]

    tests = claim.tests
    arithmetic = all(tables(c.exhibit).cell(c.row, c.column).exact for test in tests for c in test.cells)
    if claim.paper_only and profile != "paper" and not arithmetic:
        outcomes = tuple(Outcome(test=test, verdict="not run", why=PAPER_ONLY) for test in tests)
    else:
        outcomes = tuple(
            _benched(test, found) if _by_bench(test, profile) else _decide(test, tables, profile) for test in tests
        )
    return Judgement(
        claim=claim, profile=profile, verdict=_join(claim, outcomes), outcomes=outcomes, arithmetic=arithmetic
    )


def judgements(table: Table, look: Look | None = None) -> list[Judgement]:
    """Every claim of the exhibit, judged."""
    look = look or Look()
    return [judge(claim, table.exhibit, table.profile, table, look=look) for claim in table.exhibit.claims]


def _join(claim: Claim, outcomes: tuple[Outcome, ...]) -> Verdict:
    verdicts = [o.verdict for o in outcomes]
    ran = [v for v in verdicts if v != "not run"]
    if not ran or ("not run" in verdicts and claim.all and not claim.partial and "fails" not in ran):
        return "not run"
    if claim.most:
        if ran.count("holds") > claim.share * len(ran):
            return "holds"
        return "undecided" if ran.count("holds") + ran.count("undecided") > claim.share * len(ran) else "fails"
    return "fails" if "fails" in ran else "undecided" if "undecided" in ran else "holds"


def _decide(test: Test, tables: Tables, profile: str) -> Outcome:
    left, right = _side(test.left, tables), _side(test.right, tables)
    if why := left.why or right.why:
        return Outcome(test=test, verdict="not run", why=why)
    if left.terms == right.terms and None in (left.exact, right.exact):
        return Outcome(test=test, verdict="not run", why=f"both sides are the same run under {profile}")
    if left.exact is not None and right.exact is not None:
        compared = _compare(left.exact, right.exact, test)
        if compared is None:
            return Outcome(test=test, verdict="undecided", why="the ratio's divisor is 0")
        return Outcome(test=test, verdict=_place(compared, compared, test), estimate=compared, half_width=0.0)
    if profile == "smoke":
        return Outcome(test=test, verdict="not run", why="the numbers of smoke mean nothing")
    if profile != "paper" and any(tables(c.exhibit).exhibit.column(c.column).timed for c in test.cells):
        why = f"times of separate {profile} runs are no measure; effbook bench times both sides in turns"
        return Outcome(test=test, verdict="not run", why=why)
    seeds = sorted(set(left.by_seed or right.by_seed or ()) & set(right.by_seed or left.by_seed or ()))
    pairs = {seed: _compare(_at(left, seed), _at(right, seed), test) for seed in seeds}
    if None in pairs.values():
        return Outcome(test=test, verdict="undecided", n=len(pairs), why="the ratio's divisor is 0")
    compared = list(mean_by(pairs, _coarsest([left, right], seeds)).values())
    if len(compared) < LEAST_SEEDS:
        return Outcome(test=test, verdict="undecided", n=len(compared), why=f"fewer than {LEAST_SEEDS} seeds in common")
    mean, half, n = summarise(compared)
    place = _place(mean - half, mean + half, test)
    column = next(tables(c.exhibit).exhibit.column(c.column) for c in test.cells)
    known = {"unit": column.unit, "column": f"{column.group or ''} {column.label}".strip()}
    return Outcome(test=test, verdict=place, estimate=mean, half_width=half, n=n, **known)


def _by_bench(test: Test, profile: str) -> bool:
    return test.bench is not None and profile in ("mini", "lab")


def _benched(test: Test, found: Exhibit) -> Outcome:
    """A test of times by the chapter's ledger, which has measured both sides in turns on this or another machine."""
    entry = ledger.recorded(found.chapter).get(test.bench.line)
    if entry is None:
        return Outcome(test=test, verdict="not run", why=f"effbook bench {found.chapter} has not measured it yet")
    measured_ratio = entry["ratio"]
    value, low, high, pairs = (measured_ratio[name] for name in ("value", "low", "high", "pairs"))
    if pairs < LEAST_SEEDS:
        return Outcome(test=test, verdict="undecided", n=pairs, why=f"the ledger has fewer than {LEAST_SEEDS} pairs")
    margin = test.margin if test.bench.margin is None else test.bench.margin
    place = _place(low, high, test.model_copy(update={"margin": margin}))
    why = f"the ledger's {test.bench.line} is {value:.3g} ({low:.3g} to {high:.3g})"
    return Outcome(test=test, verdict=place, estimate=value, half_width=(high - low) / 2, n=pairs, why=why, ledger=True)


def _coarsest(sides: list[_Side], seeds: list[int]) -> dict[int, int]:
    """The draws of the side that has fewest: what is compared is no more independent than any of its values."""
    return min((side.draws for side in sides), key=lambda draws: len({draws.get(seed, seed) for seed in seeds}))


def _digits(value: float, *, signed: bool = False) -> str:
    """Three significant digits, without exponents below a million."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"+{text}" if signed and value > 0 else text


def _compare(left: float, right: float, test: Test) -> float | None:
    if not test.ratio:
        return left - right
    return left / right if right else None


def _place(low: float, high: float, test: Test) -> Verdict:
    """Where the interval [low, high] lies against the margin."""
    m, low, high = test.margin, round(low, 9), round(high, 9)  # 0.3 - 0.1 is not to miss a margin of 0.2
    holds = {">": low > m, ">=": low >= m, "<": high < m, "<=": high <= m}[test.op]
    fails = {">": high <= m, ">=": high < m, "<": low >= m, "<=": low > m}[test.op]
    return "holds" if holds else "fails" if fails else "undecided"


def _side(operand: Operand, tables: Tables) -> _Side:
    if isinstance(operand, int | float):
        return _Side(exact=float(operand))
    cells = operand.sum if isinstance(operand, Sum) else (operand,)
    sides = [_read(cell, tables) for cell in cells]
    if why := next((side.why for side in sides if side.why), ""):
        return _Side(why=why)
    if all(side.exact is not None for side in sides):
        return _Side(exact=sum(side.exact * cell.times for side, cell in zip(sides, cells, strict=True)))
    seeds = sorted(set.intersection(*(set(side.by_seed) for side in sides if side.by_seed is not None)))
    sums = {s: sum(_at(side, s) * cell.times for side, cell in zip(sides, cells, strict=True)) for s in seeds}
    terms: dict[Quantity, float] = {}
    for side, cell in zip(sides, cells, strict=True):
        for quantity, weight in side.terms.items():
            terms[quantity] = terms.get(quantity, 0.0) + weight * cell.times
    terms = {quantity: weight for quantity, weight in terms.items() if weight}  # the same twice may cancel out
    return _Side(by_seed=sums, draws=_coarsest(sides, seeds), terms=terms)


def _read(cell: Cell, tables: Tables) -> _Side:
    found = tables(cell.exhibit).cell(cell.row, cell.column)
    if found.state == "partial":
        return _Side(why=f"{found.n} of {found.planned} seeds recorded")
    if found.state != "measured":
        words = {"no value": found.note, "no run": found.note, "none": "no recipe measures it yet"}
        return _Side(why=words.get(found.state) or NOT_YET)
    if found.exact:
        return _Side(exact=found.value)
    column = tables(cell.exhibit).exhibit.column(cell.column)
    return _Side(by_seed=found.by_seed, draws=found.draws, terms={(found.keys, column.metric): column.scale})


def _at(side: _Side, seed: int) -> float:
    return side.exact if side.exact is not None else side.by_seed[seed]
