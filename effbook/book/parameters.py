"""A notebook's parameters, read from its first code cell and checked before anything starts.

papermill only warns of a name that the notebook doesn't know, and takes a value of any type. Here a parameter is one
annotated line, and its comment explains it:

    profile: Profile = "mini"  # smoke, mini, lab or paper: the scale of the tables
    shots: Literal[5, 10] = 10  # training images of each class
    rank: Between[1, 16] = 4  # columns of A and rows of B

An annotation is `str`, `int`, `float`, `bool`, `Literal[...]` or what `effbook.book.choices` names. It is read as it
is written; nothing of the cell is executed.
"""

import ast
import difflib
import io
import linecache
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from effbook.book import choices
from effbook.errors import EffbookError

NAMED = {
    **{"str": str, "int": int, "float": FiniteFloat, "bool": bool},
    **{name: getattr(choices, name) for name in ("Profile", "Runs", "Texts", "Images")},
}
WITH_VALUES = {"Literal": Literal, "Between": choices.Between, "AtLeast": choices.AtLeast}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a notebook: name, annotation as written and as a type, default, and what its comment says."""

    name: str
    annotation: str
    kind: object
    default: object
    help: str = ""

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None if nothing is."""
        try:
            TypeAdapter(self.kind).validate_python(value, strict=True)
        except ValidationError as error:
            return f"{error.errors()[0]['msg'].replace('Input should', 'must')}, not {value!r}"
        return None


def parse_parameters(source: str, where: str = "the notebook") -> dict[str, Parameter]:
    """Read the parameters from the source of a notebook's parameters cell.

    Raises EffbookError where a line, imports aside, isn't `name: type = value  # comment` with a type that is known.
    """
    found = {}
    comments = _comments(source)
    for line in ast.parse(source).body:
        if isinstance(line, ast.Import | ast.ImportFrom):
            continue
        if not _declares(line):
            raise EffbookError(
                f"Line {line.lineno} of the parameters cell of {where} declares no parameter",
                "annotate it as in 'rank: int = 4  # columns of A'",
            )
        name, annotation = line.target.id, ast.unparse(line.annotation)
        if (kind := _type(line.annotation)) is None:
            raise EffbookError(
                f"Parameter {name!r} of {where} has the type {annotation}",
                f"annotate it as one of {', '.join(NAMED)}, or as {', '.join(f'{n}[...]' for n in WITH_VALUES)}",
            )
        try:
            default = ast.literal_eval(line.value)
        except ValueError as error:
            raise EffbookError(f"Parameter {name!r} of {where} is computed", "give it a plain value") from error
        help_ = comments.get(line.end_lineno, "")
        found[name] = Parameter(name=name, annotation=annotation, kind=kind, default=default, help=help_)
    return found


def _comments(source: str) -> dict[int, str]:
    """The comments of a cell by their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _declares(line: ast.stmt) -> bool:
    return isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None


def _type(annotation: ast.expr) -> object | None:
    """The type that an annotation names, None for one that is not known."""
    if isinstance(annotation, ast.Name):
        return NAMED.get(annotation.id)
    if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.value, ast.Name):
        return None
    try:
        return WITH_VALUES[annotation.value.id][ast.literal_eval(annotation.slice)]
    except (KeyError, ValueError, TypeError):  # another name; no plain values; not as many as it takes
        return None


class ParameterError(EffbookError):
    """A parameter that a notebook refuses; in a kernel its sentence stands alone, where papermill ends."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


def check_values(declared: Mapping[str, Parameter], values: Mapping[str, object], where: str = "the notebook") -> None:
    """Check names, types and values against the declared parameters; the first problem is raised as ParameterError."""
    for name, value in values.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "its parameters are " + ", ".join(declared)
            raise ParameterError(f"{where} has no parameter {name!r}", remedy.rstrip("?"))
        if problem := declared[name].problem(value):
            raise ParameterError(f"Parameter {name!r} of {where} {problem}", f"it means: {declared[name].help}")


def check_parameters(namespace: Mapping[str, object]) -> None:
    """Check the parameters of the notebook that is running: `check_parameters(globals())` in its second cell.

    Reads the cells that were run so far from the kernel: the parameters cell, and the cell that papermill injects
    behind it. So a notebook that is run by papermill alone is checked as well.
    """
    cells = [source for source in namespace.get("In", []) if source.strip()] or _compiled_cells()
    declared_at = [place for place, source in enumerate(cells) if _only_declares(source)]
    if not declared_at:
        raise ParameterError("This notebook's parameters cell was not run", "run the notebook from its first cell")
    declared = parse_parameters(cells[declared_at[-1]])
    injected = {}
    for source in cells[declared_at[-1] + 1 :]:
        if source.lstrip().startswith("# Parameters"):  # papermill's heading of the cell that it injects
            injected |= dict.fromkeys(_assigned(source))
    check_values(declared, {name: namespace[name] for name in {**declared, **injected}})


def _compiled_cells() -> list[str]:
    """The cells that the kernel compiled, for runners that keep no history (nbval): Python's line cache has them."""
    cells = [entry for name, entry in linecache.cache.items() if "ipykernel" in name or "ipython-input" in name]
    return ["".join(entry[2]) for entry in cells if len(entry) == 4 and entry[1] is None]  # no time: not a file


def _only_declares(source: str) -> bool:
    """Whether a cell declares parameters and does nothing else but import."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic
        return False
    lines = [line for line in body if not isinstance(line, ast.Import | ast.ImportFrom)]
    return bool(lines) and all(map(_declares, lines))


def _assigned(source: str) -> list[str]:
    targets = [target for line in ast.parse(source).body if isinstance(line, ast.Assign) for target in line.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
