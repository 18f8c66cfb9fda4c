"""A claim as the register has it: a sentence of the dissertation as tests over cells."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from effbook.exhibits.parts import Name, Part, Text

Op = Literal[">", ">=", "<", "<="]


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


class Measurement(Part):
    """A line of the chapter's ledger whose ratio stands for a test of times that separate runs cannot measure.

    Its quartiles over the pairs must lie on the right side of `margin` (the test's own where it is not given).
    """

    line: Text
    margin: float | None = None


class Test(Part):
    """`left - right op margin`, or with `ratio` `left / right op margin`; seed by seed where both sides have seeds.

    With `over` it is one test for each column named there, which replaces the column "*". `bench` decides a test on
    times under all profiles but `paper`, whose runs are timed themselves.
    """

    __test__ = False  # for pytest, which would collect a class of this name

    left: Operand
    right: Operand = 0.0
    op: Op
    margin: float = 0.0
    ratio: bool = False
    over: tuple[str, ...] = ()
    bench: Measurement | None = None

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
    also an `all` claim is judged on the tests that ran, where a profile runs only some of the data sets. `paper_only`:
    a test compares with a number of the dissertation's scale, so that no other profile can judge it. `disputed`: the
    dissertation's own printed values contradict the sentence, as an erratum of the exhibit says.
    """

    id: Name
    text: Text
    source: Text
    all: tuple[Test, ...] = ()
    most: tuple[Test, ...] = ()
    share: float = 0.5
    partial: bool = False
    paper_only: bool = False
    disputed: bool = False
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
