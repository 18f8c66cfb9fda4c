"""A notebook's parameters, read from its first code cell and checked before anything starts.

papermill only warns of a name that the notebook doesn't know, and takes a value of any type. Here a parameter is one
annotated line with a comment that says which values are allowed:

    profile: str = "mini"  # smoke, mini, lab or paper
    shots: int = 10  # 5 or 10: training images of each class
    k: int = 1000  # 1 or more
    rate: float = 0.1  # 0 to 1
"""

import ast
import difflib
import linecache
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import nbformat
from papermill.translators import PythonTranslator

from effbook.errors import EffbookError

TYPES = {"str": str, "int": int, "float": float, "bool": bool}
_WORD = r"[\w.+-]+"
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_END = r"(?:[:;.]\s|[:;.]?$)"
_AT_LEAST = re.compile(rf"({_NUMBER}) or more{_END}")
_BETWEEN = re.compile(rf"({_NUMBER}) to ({_NUMBER}){_END}")
_CHOICES = re.compile(rf"({_WORD}(?:, {_WORD})*,? or {_WORD}){_END}")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a notebook: name, type, default and the values that its comment allows."""

    name: str
    type: type
    default: object
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    help: str = ""

    def problem(self, value: object) -> str | None:
        """Say what is wrong with `value`, or None if nothing is."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = is_number if self.type is float else type(value) is self.type
        if not fits:
            return f"must be {_name(self.type)}, not {value!r}"
        if is_number and not math.isfinite(value):
            return f"must be a finite number, not {value!r}"
        if self.choices and not any(self._equals(choice, value) for choice in self.choices):
            return f"must be {' or '.join([', '.join(self.choices[:-1]), self.choices[-1]])}, not {value!r}"
        if is_number and not self.low <= value <= self.high:
            bounds = f"{self.low:g} or more" if math.isinf(self.high) else f"from {self.low:g} to {self.high:g}"
            return f"must be {bounds}, not {value!r}"
        return None

    def _equals(self, choice: str, value: object) -> bool:
        if self.type in (int, float):
            return float(choice) == value
        return choice == str(value)


def _name(kind: type) -> str:
    return {"str": "a string", "int": "a whole number", "float": "a number", "bool": "True or False"}[kind.__name__]


def parse_parameters(source: str, where: str = "the notebook") -> dict[str, Parameter]:
    """Read the parameters from the source of a notebook's parameters cell.

    Raises EffbookError where a line isn't `name: type = value  # comment` with type str, int, float or bool.
    """
    found = {}
    for line in PythonTranslator.inspect(nbformat.v4.new_code_cell(source)):
        kind = TYPES.get(line.inferred_type_name)
        if kind is None:
            raise EffbookError(
                f"Parameter {line.name!r} of {where} has the type {line.inferred_type_name}",
                "annotate it as str, int, float or bool",
            )
        allowed = _allowed(line.help) if kind is not bool else {}
        found[line.name] = Parameter(
            name=line.name, type=kind, default=ast.literal_eval(line.default), help=line.help, **allowed
        )
    return found


def _allowed(comment: str) -> dict:
    """Read the allowed values from a comment: 'a, b or c', '1 or more', '0 to 1'; anything else allows all."""
    if match := _AT_LEAST.match(comment):
        return {"low": float(match[1])}
    if match := _BETWEEN.match(comment):
        return {"low": float(match[1]), "high": float(match[2])}
    if match := _CHOICES.match(comment):
        return {"choices": tuple(re.split(r",? or |, ", match[1]))}
    return {}


def check_values(declared: Mapping[str, Parameter], values: Mapping[str, object], where: str = "the notebook") -> None:
    """Check names, types and values against the declared parameters; the first problem is raised as EffbookError."""
    for name, value in values.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "its parameters are " + ", ".join(declared)
            raise EffbookError(f"{where} has no parameter {name!r}", remedy.rstrip("?"))
        if problem := declared[name].problem(value):
            raise EffbookError(f"Parameter {name!r} of {where} {problem}", f"it means: {declared[name].help}")


def check_parameters(namespace: Mapping[str, object]) -> None:
    """Check the parameters of the notebook that is running: `check_parameters(globals())` in its second cell.

    Reads the cells that were run so far from the kernel: the parameters cell, and the cell that papermill injects
    behind it. So a notebook that is run by papermill alone is checked as well.
    """
    cells = [source for source in namespace.get("In", []) if source.strip()] or _compiled_cells()
    declared_at = [place for place, source in enumerate(cells) if _only_annotated(source)]
    if not declared_at:
        raise EffbookError("This notebook's parameters cell was not run", "run the notebook from its first cell")
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


def _only_annotated(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic
        return False
    return bool(body) and all(isinstance(line, ast.AnnAssign) and line.value is not None for line in body)


def _assigned(source: str) -> list[str]:
    targets = [target for line in ast.parse(source).body if isinstance(line, ast.Assign) for target in line.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
