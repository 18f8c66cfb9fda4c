"""What one file of the register may say: an exhibit, its printed values, how each is measured, and its claims."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from effbook.chapters import Chapter, System
from effbook.exhibits.parts import Name, Part, Text
from effbook.exhibits.sentences import Claim

Fields = dict[str, str | int | float | bool | tuple[float, ...] | tuple[str, ...] | None]  # of a recipe, at paper scale


PRINTED = re.compile(r"^-?\d+(,\d{3})*(\.\d+)?[KMBh]?$")  # h: hours in a column of minutes


class Follows(Part):
    """The recipe of an arithmetic column where it follows from the row's: its name, and the fields that it takes."""

    name: str
    fields: tuple[str, ...]


class Column(Part):
    """One quantity.

    A `setting` is what the row was run with, as printed (a number of epochs, a yes): it is never measured. For the
    others, `metric` names it in the record; `scale` turns the record's unit into the column's. `recipe` holds the
    fields in which this column's run differs from the row's. Arithmetic columns follow from the settings, without a
    run: by the row's `count`, or else by the recipe that `follows` makes of the row's. `mega` is the number that the
    table prints as 1M (some divide by 2^20), and 1K is a thousandth of it. `timed`
    columns are wall-clock times of separate runs: claims on them are judged under `paper` only. `per` is the recipe of
    the run whose metric is the unit, seed by seed, where a table prints multiples of its smallest model.
    """

    id: Name
    label: Text
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    metric: str | None = None
    scale: float = 1.0
    group: str = ""
    recipe: Fields = Field(default_factory=dict)
    per: Fields | None = None
    setting: bool = False
    arithmetic: bool = False
    follows: Follows | None = None
    timed: bool = False
    mega: int = 1_000_000

    @model_validator(mode="after")
    def _is_set_or_measured(self) -> "Column":
        if self.setting and (self.metric or self.arithmetic or self.direction != "none"):
            raise ValueError(f"column {self.id}: a setting has no metric, no arithmetic and no direction")
        if self.follows is not None and not self.arithmetic:
            raise ValueError(f"column {self.id}: what follows from the row's recipe is arithmetic")
        if self.per is not None and (not self.metric or not isinstance(self.per.get("name"), str)):
            raise ValueError(f"column {self.id}: per needs a metric and a recipe's name")
        return self


class Row(Part):
    """One line of a table or one curve of a figure.

    `own`: the authors' method, run by them. `rerun`: a rival that they ran themselves. `computed`: they worked it out
    and ran nothing. `quoted`: numbers of another paper; no claim reads them, unless the row has a recipe and we run it.
    A null value has its reason in `notes`; a note beside a value says what a reader must know of that cell.
    `footnotes` gives the marks as printed, by column, or under "row" for the whole row. `marks` keeps boldface (best)
    and underlines (near). `count` is the recipe of the arithmetic columns, where it does not follow from `recipe`;
    `by_column` holds the fields in which the recipe of a single cell differs.
    `waits_for` says what is missing where no recipe measures the row, if it is not what the exhibit waits for.
    """

    id: Name
    label: dict[str, str]
    group: str = ""
    origin: Literal["own", "rerun", "computed", "quoted"]
    recipe: Fields | None = None
    count: Fields | None = None
    by_column: dict[str, Fields] = Field(default_factory=dict)
    waits_for: str | None = None
    values: dict[str, str | None] = Field(default_factory=dict)
    spreads: dict[str, str] = Field(default_factory=dict)
    marks: dict[str, Literal["best", "near"]] = Field(default_factory=dict)
    footnotes: dict[str, Text] = Field(default_factory=dict)
    notes: dict[str, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_told_in_full(self) -> "Row":
        for which in (self.recipe, self.count):
            if which is not None and not isinstance(which.get("name"), str):
                raise ValueError(f"row {self.id}: a recipe needs its name")
        for column, value in self.values.items():
            if value is None and column not in self.notes:
                raise ValueError(f"row {self.id}: the value of {column} is null, so notes must give the reason")
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


class Erratum(Part):
    """Where the dissertation contradicts itself or the arithmetic, and what was decided."""

    text: Text
    decided: Text


class Reading(Part):
    """What the text that we read, a machine's reading of a PDF, has garbled, and what was decided from the context."""

    where: Text
    read: Text  # as it stands in our text
    taken: Text  # as the exhibit has it
    because: Text


class Drawing(Part):
    """What a figure shows: its form, its axes and series, what the text gives of its values, what draws it anew."""

    form: Literal["diagram", "curve", "bars", "scatter", "histogram", "photographs", "visualisation"]
    shows: Text
    x: str = ""
    y: str = ""
    series: tuple[Text, ...] = ()
    given: Text
    drawn_by: Text


class Exhibit(Part):
    """A numbered table or figure, or (kind prose, counted apart) numbers that stand in the text only.

    `waits_for` says what must be built before the rows without a recipe can be measured; it holds for all rows that do
    not say otherwise. `footnotes` spells out the marks that rows carry.
    """

    id: Annotated[str, StringConstraints(pattern=r"^(tab|fig|prose)-[A-Z0-9]+(\.\d+)+(-[a-z]+)?$")]
    kind: Literal["table", "figure", "prose"]
    title: Text
    caption: str = ""
    section: Text
    chapter: Chapter
    notebook: Text
    systems: tuple[System, ...]
    why: str | None = None  # why no value is reported, or why the exhibit is not measured
    waits_for: Text | None = None
    figure: Drawing | None = None
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    footnotes: dict[str, Text] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    errata: tuple[Erratum, ...] = ()
    set_right: tuple[Reading, ...] = ()
    draw: dict[str, str] = Field(default_factory=dict)  # for figures: x, the number a column stands for

    @model_validator(mode="after")
    def _is_one_piece(self) -> "Exhibit":
        prefix = {"table": "tab-", "figure": "fig-", "prose": "prose-"}[self.kind]
        if not self.id.startswith(prefix):
            raise ValueError(f"a {self.kind} has an id that starts with {prefix}")
        if not self.systems and self.chapter != "introduction":
            raise ValueError("systems is empty")
        if (self.kind == "figure") != (self.figure is not None):
            raise ValueError("a figure says under `figure` what it shows, and nothing else does")
        for what, ids in (
            ("column", [c.id for c in self.columns]),
            ("row", [r.id for r in self.rows]),
            ("claim", [c.id for c in self.claims]),
        ):
            if doubled := sorted({i for i in ids if ids.count(i) > 1}):
                raise ValueError(f"{what} {doubled[0]} is there twice")
        for row in self.rows:
            self._check_row(row)
        for claim in self.claims:
            self._check_claim(claim)
        if not self.reported and not self.why:
            raise ValueError("why must say why no value is reported")
        return self

    def _check_row(self, row: Row) -> None:
        columns = {c.id for c in self.columns}
        for part in ("values", "spreads", "marks", "footnotes", "notes", "by_column"):
            if strange := sorted(set(getattr(row, part)) - columns - ({"row"} if part == "footnotes" else set())):
                raise ValueError(f"row {row.id}: {part} names the column {strange[0]}, which is not there")
        for column, value in row.values.items():
            if value is not None and not self.column(column).setting and not PRINTED.match(value):
                raise ValueError(f"row {row.id}: {column} = {value!r} is not a number as printed")
        for mark in row.footnotes.values():
            if mark not in self.footnotes:
                raise ValueError(f"row {row.id}: the footnote mark {mark!r} is not spelled out under footnotes")
        if row.origin != "quoted" and not (row.recipe or row.count or row.waits_for or self.waits_for):
            raise ValueError(f"row {row.id}: without a recipe, waits_for must say what is missing")

    def _check_claim(self, claim: Claim) -> None:
        for cell in (c for test in claim.tests for c in test.cells if c.exhibit is None):
            row = next((r for r in self.rows if r.id == cell.row), None)
            column = next((c for c in self.columns if c.id == cell.column), None)
            if row is None or column is None:
                raise ValueError(f"claim {claim.id}: there is no cell {cell.row} / {cell.column}")
            if column.setting:
                raise ValueError(f"claim {claim.id}: {cell.column} is a setting, which nothing measures")
            if row.origin == "quoted" and row.recipe is None and not column.arithmetic:
                raise ValueError(f"claim {claim.id}: {cell.row} is quoted and never measured, so it gets no verdict")

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

    def missing(self, row: Row) -> str:
        """What a row without a recipe waits for."""
        return row.waits_for or ("" if row.origin == "quoted" else self.waits_for or "")

    def claim(self, claim_id: str) -> Claim:
        """The claim of that id."""
        return next(c for c in self.claims if c.id == claim_id)

    def recipe_fields(self, row: Row, column: Column) -> dict[str, Any] | None:
        """Name and paper-scale fields of the recipe that measures a cell, or None."""
        if column.arithmetic:
            made = row.count
            if made is None and column.follows is not None and row.recipe is not None:
                taken = {name: row.recipe[name] for name in column.follows.fields if name in row.recipe}
                made = {"name": column.follows.name, **taken}
            return None if made is None else {**made, **column.recipe, **row.by_column.get(column.id, {})}
        if row.recipe is None or column.metric is None:
            return None
        return {**row.recipe, **column.recipe, **row.by_column.get(column.id, {})}
