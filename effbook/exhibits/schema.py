"""What one file of the register may say: an exhibit, its printed values, how each is measured, and its claims."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.\-_]*$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Fields = dict[str, str | int | float | bool | tuple[float, ...] | None]  # of a recipe, at paper scale
Op = Literal[">", ">=", "<", "<="]

NUMBER = re.compile(r"^-?\d+(,\d{3})*(\.\d+)?$")
COUNT = re.compile(r"^\d+(,\d{3})*(\.\d+)?[KM]?$")


class Part(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Part):
    """One measured quantity.

    `metric` names it in the record; `scale` turns the record's unit into the column's. `recipe` holds the fields in
    which this column's run differs from the row's. Arithmetic columns are counts, known without a run; `mega` is the
    number that the table prints as 1M (some divide by 2^20), and 1K is a thousandth of it. `timed` columns are
    wall-clock times of separate runs: claims on them are judged under `paper` only.
    """

    id: Name
    label: Text
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    metric: str | None = None
    scale: float = 1.0
    group: str = ""
    recipe: Fields = {}
    arithmetic: bool = False
    timed: bool = False
    mega: int = 1_000_000


class Row(Part):
    """One line of a table or one curve of a figure.

    `own`: the authors' method. `rerun`: a rival that they ran themselves. `quoted`: numbers of another paper.
    A null value has its reason in `notes`. `count` is the recipe of the arithmetic columns, where it does not follow
    from `recipe`. `waits_for` says what is missing where no recipe can measure the row.
    """

    id: Name
    label: dict[str, str]
    group: str = ""
    origin: Literal["own", "rerun", "quoted"]
    recipe: Fields | None = None
    count: Fields | None = None
    waits_for: str | None = None
    values: dict[str, str | None] = {}
    spreads: dict[str, str] = {}
    marks: dict[str, Literal["best", "near"]] = {}
    notes: dict[str, Text] = {}

    @model_validator(mode="after")
    def _says_how_it_is_measured(self) -> "Row":
        for which in (self.recipe, self.count):
            if which is not None and not isinstance(which.get("name"), str):
                raise ValueError(f"row {self.id}: a recipe needs its name")
        if self.recipe is None and self.count is None and not self.waits_for:
            raise ValueError(f"row {self.id}: without a recipe, waits_for must say what is missing")
        for column, value in self.values.items():
            if value is None and column not in self.notes:
                raise ValueError(f"row {self.id}: the value of {column} is null, so notes must give the reason")
            if value is not None and not COUNT.match(value) and not NUMBER.match(value):
                raise ValueError(f"row {self.id}: {column} = {value!r} is not a number as printed")
        return self

    @property
    def name(self) -> str:
        """The row in words: "GPT-2 M, NOLA, QV, rank 8"."""
        return ", ".join([self.group] * bool(self.group) + [self.short])

    @property
    def short(self) -> str:
        """The row in words, without its group."""
        told = [(key, value) for key, value in self.label.items() if value not in ("", "-")]
        return ", ".join(f"{key.lower()} {value}" if value.isdigit() else value for key, value in told)


class Cell(Part):
    """A value of a claim: a cell of this exhibit or, with `exhibit`, of another; `times` weighs it in a sum."""

    row: str
    column: str
    exhibit: str | None = None
    times: float = 1.0


class Sum(Part):
    """A weighted sum of cells, such as a drop: sum: [{.., times: 1}, {.., times: -1}]."""

    sum: Annotated[tuple[Cell, ...], Field(min_length=1)]


Operand = Cell | Sum | float


class Test(Part):
    """`left - right op margin`, or with `ratio` `left / right op margin`; seed by seed where both sides have seeds.

    With `over` it is one test for each column named there, which replaces the column "*".
    """

    __test__ = False  # for pytest, which would collect a class of this name

    left: Operand
    right: Operand = 0.0
    op: Op
    margin: float = 0.0
    ratio: bool = False
    over: tuple[str, ...] = ()

    def each(self) -> "list[Test]":
        """The tests that `over` stands for; the test itself without it."""

        def put(side: Any, column: str) -> Any:
            if isinstance(side, Cell):
                return side.model_copy(update={"column": column}) if side.column == "*" else side
            return Sum(sum=tuple(put(cell, column) for cell in side.sum)) if isinstance(side, Sum) else side

        changed = [{"left": put(self.left, c), "right": put(self.right, c), "over": ()} for c in self.over]
        return [self.model_copy(update=change) for change in changed] or [self]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that the test reads."""
        both: list[Cell] = []
        for side in (self.left, self.right):
            both += side.sum if isinstance(side, Sum) else [side] if isinstance(side, Cell) else []
        return tuple(both)


class Claim(Part):
    """A sentence of the dissertation as tests.

    `all`: holds if every test holds. `most`: holds if more than `share` of the tests that ran hold. With `partial`,
    also an `all` claim is judged on the tests that ran, where a profile runs only some of the data sets.
    """

    id: Name
    text: Text
    source: Text
    all: tuple[Test, ...] = ()
    most: tuple[Test, ...] = ()
    share: float = 0.5
    partial: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _tests_something(self) -> "Claim":
        if bool(self.all) == bool(self.most):
            raise ValueError(f"claim {self.id}: give tests under `all` or under `most`, one of them")
        return self

    @property
    def tests(self) -> tuple[Test, ...]:
        """The tests one by one, whichever way they are joined."""
        return tuple(one for test in self.all or self.most for one in test.each())


class Erratum(Part):
    """Where the dissertation contradicts itself or the arithmetic, and what was decided."""

    text: Text
    decided: Text


class Exhibit(Part):
    """A numbered table or figure, or (kind prose, counted apart) numbers that stand in the text only."""

    id: Annotated[str, StringConstraints(pattern=r"^(tab|fig|prose)-[A-Z0-9]+(\.\d+)+(-[a-z]+)?$")]
    kind: Literal["table", "figure", "prose"]
    title: Text
    caption: str = ""
    section: Text
    chapter: Text
    notebook: Text
    systems: Annotated[tuple[Literal["cmsf", "simreg", "compgs", "nola", "slowformer"], ...], Field(min_length=1)]
    why: str | None = None  # why no value is reported, or why the exhibit is not measured
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    claims: tuple[Claim, ...] = ()
    errata: tuple[Erratum, ...] = ()
    draw: dict[str, str] = {}  # for figures: x, the number a column stands for

    @model_validator(mode="after")
    def _is_one_piece(self) -> "Exhibit":
        prefix = {"table": "tab-", "figure": "fig-", "prose": "prose-"}[self.kind]
        if not self.id.startswith(prefix):
            raise ValueError(f"a {self.kind} has an id that starts with {prefix}")
        for what, ids in (
            ("column", [c.id for c in self.columns]),
            ("row", [r.id for r in self.rows]),
            ("claim", [c.id for c in self.claims]),
        ):
            if doubled := sorted({i for i in ids if ids.count(i) > 1}):
                raise ValueError(f"{what} {doubled[0]} is there twice")
        columns = {c.id for c in self.columns}
        for row in self.rows:
            for part in ("values", "spreads", "marks", "notes"):
                if strange := sorted(set(getattr(row, part)) - columns):
                    raise ValueError(f"row {row.id}: {part} names the column {strange[0]}, which is not there")
        for claim in self.claims:
            for cell in (c for test in claim.tests for c in test.cells if c.exhibit is None):
                if cell.column not in columns or cell.row not in {r.id for r in self.rows}:
                    raise ValueError(f"claim {claim.id}: there is no cell {cell.row} / {cell.column}")
        if not self.reported and not self.why:
            raise ValueError("why must say why no value is reported")
        return self

    @property
    def reported(self) -> bool:
        """Whether the text gives any value."""
        return any(v is not None for row in self.rows for v in row.values.values())

    def row(self, row_id: str) -> Row:
        """The row of that id."""
        return next(r for r in self.rows if r.id == row_id)

    def column(self, column_id: str) -> Column:
        """The column of that id."""
        return next(c for c in self.columns if c.id == column_id)

    def claim(self, claim_id: str) -> Claim:
        """The claim of that id."""
        return next(c for c in self.claims if c.id == claim_id)

    def recipe_fields(self, row: Row, column: Column) -> dict[str, Any] | None:
        """Name and paper-scale fields of the recipe that measures a cell, or None."""
        if column.arithmetic:
            if row.count is not None:
                return dict(row.count)
            if row.recipe is None or row.recipe.get("name") not in COUNTED:
                return None
            kept = {f: v for f, v in row.recipe.items() if f in ("model", "method", "target", "rank", "k")}
            if row.recipe["name"] == "nola-instruction":
                kept["target"] = "all"  # it adapts every linear layer and has no field for them
            return {"name": "nola-count", **kept}
        if row.recipe is None or column.metric is None:
            return None
        return {**row.recipe, **column.recipe}


COUNTED = ("nola-language", "nola-vision", "nola-instruction")  # whose counts follow from the row's own fields
