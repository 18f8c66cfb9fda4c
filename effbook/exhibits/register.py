"""The register: every exhibit, read from `register/*.yaml`; and the recipes that an exhibit or a name stands for."""

import functools
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from effbook import experiments
from effbook.chapters import SYSTEMS
from effbook.errors import EffbookError
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.runs import remembered
from effbook.runs.profiles import NotInProfileError, check_profile, scale, seeds, with_seeds
from effbook.runs.recipe import Recipe, make, nearest, recipe_names

FOLDER = Path(__file__).parent / "register"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe, and a key that is there twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            key = next(key for key in keys if keys.count(key) > 1)
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Exhibit:
    """The exhibit of one file; EffbookError with file and key if it is not valid."""
    return _valid(path, _parsed(path))


def _parsed(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise EffbookError(f"{path.name}, line {line}: {error.problem}", "correct the file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # a character that YAML, or UTF-8, does not know
        raise EffbookError(f"{path.name}: {' '.join(str(error).split())}", "correct the file") from None
    except OSError as error:
        raise EffbookError(f"{path} cannot be read ({error.strerror.lower()})", "restore it from git") from None


def _valid(path: Path, content: Any) -> Exhibit:
    try:
        found = Exhibit.model_validate(content)
    except ValidationError as error:
        raise EffbookError(f"{path.name}: {_sentence(error)}", "correct the file") from None
    if found.id != path.stem:
        raise EffbookError(f"{path.name} holds the exhibit {found.id}", f"name the file {found.id}.yaml")
    return found


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    *where, key = first["loc"] or ("the file",)
    place = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}" + (f" in {place}" if place else "")
    message = first["msg"].removeprefix("Value error, ")
    return message if first["type"] == "value_error" else f"{place}{'.' if place else ''}{key}: {message}"


@functools.cache
def _read_one(path: Path) -> Exhibit:
    """An exhibit whose claims read cells that are there."""
    found = _read(path)
    for claim in found.claims:
        for cell in (c for test in claim.tests for c in test.cells if c.exhibit is not None):
            there = path.with_name(f"{cell.exhibit}.yaml")
            other = _read(there) if there.exists() else None
            if (
                other is None
                or cell.row not in {r.id for r in other.rows}
                or cell.column not in {c.id for c in other.columns}
            ):
                raise EffbookError(
                    f"{found.id}.yaml: claim {claim.id} reads {cell.exhibit} / {cell.row} / {cell.column}, "
                    "which is not there",
                    "correct the file",
                )
    return found


@functools.cache
def _read(path: Path) -> Exhibit:
    _, contents = _remembered(path.parent)
    if path.stem not in contents:
        contents[path.stem] = _parsed(path)
    return _valid(path, contents[path.stem])


@functools.cache
def _read_all(folder: Path) -> dict[str, Exhibit]:
    state, contents = _remembered(folder)
    known = len(contents)
    found = {name: _read_one(path) for name, path in _files(folder).items()}
    if len(contents) > known:
        remembered.remember("register", state, contents)
    return found


@functools.cache
def _remembered(folder: Path) -> tuple[str, dict[str, Any]]:
    """The state of a register's files, and the content of those that were parsed in it: YAML is slow to read."""
    state = remembered.state_of([Path(__file__), Path(yaml.__file__), *_files(folder).values()])
    return state, remembered.recall("register", state)


@functools.cache
def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=_in_book_order)}


def _in_book_order(path: Path) -> tuple:
    kind, _, number = path.stem.partition("-")
    parts = number.partition("-")[0].split(".")
    return (kind == "prose", [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts], path.stem)


def register(folder: Path = FOLDER) -> dict[str, Exhibit]:
    """Every exhibit by its id, in the book's order; EffbookError if a file is not valid."""
    return dict(_read_all(folder))


def exhibit(exhibit_id: str) -> Exhibit:
    """The exhibit of an id such as "tab-3.12", without reading all others; EffbookError with near names if none is."""
    known = _files(FOLDER)
    if exhibit_id not in known:
        raise EffbookError(f"there is no exhibit {exhibit_id!r}", nearest(exhibit_id, list(known)))
    return _read_one(known[exhibit_id])


def recipe_of(found: Exhibit, row: Row, column: Column) -> Recipe | None:
    """The recipe, at paper scale, that measures a cell; None where nothing does."""
    fields = found.recipe_fields(row, column)
    return None if fields is None else _made(tuple(sorted(fields.items())))


def unit_of(column: Column) -> Recipe | None:
    """The recipe, at paper scale, whose metric is a column's unit (`per`); None for a unit of its own."""
    return None if column.per is None else _made(tuple(sorted({**column.per, **column.recipe}.items())))


@functools.lru_cache(maxsize=4096)
def _made(items: tuple[tuple[str, Any], ...]) -> Recipe:
    experiments.load()  # the register names their recipes
    fields = dict(items)
    return make(fields.pop("name"), **fields)


@functools.lru_cache(maxsize=8192)
def runs_of(recipe: Recipe, profile: str) -> tuple[Recipe, ...]:
    """What runs under `profile` for a recipe of the dissertation, one a seed; () if nothing does."""
    try:
        scaled = scale(recipe, profile)
    except NotInProfileError:
        return ()
    return tuple(with_seeds(scaled, seeds(recipe, profile)))


def recipes_of_exhibit(found: Exhibit, profile: str, *, arithmetic: bool | None = None) -> list[Recipe]:
    """The runs of one exhibit; parameter counts are among them under `paper` only, unless `arithmetic` says."""
    counts = profile == "paper" if arithmetic is None else arithmetic
    runs: dict[Recipe, None] = {}
    for row in found.rows:
        for column in found.columns:
            if (recipe := recipe_of(found, row, column)) is not None and (counts or not column.arithmetic):
                runs.update(dict.fromkeys(runs_of(recipe, "paper" if column.arithmetic else profile)))
                if (unit := unit_of(column)) is not None:
                    runs.update(dict.fromkeys(runs_of(unit, profile)))
    return list(runs)


def places_of(profile: str) -> dict[Recipe, tuple[str, str]]:
    """The exhibit and the row that first ask for each run under a profile, in the order of the book."""
    experiments.load()
    places: dict[Recipe, tuple[str, str]] = {}
    for found in register().values():
        for row in found.rows:
            for column in found.columns:
                for recipe in (recipe_of(found, row, column), unit_of(column)):
                    for run in runs_of(recipe, profile) if recipe is not None else ():
                        places.setdefault(run, (found.id, row.name))
    return places


def recipes_of(what: str, profile: str) -> list[Recipe]:
    """The runs that `what` stands for, scaled to `profile`, one a seed, without doubles.

    `what` is an exhibit's id, a system, a recipe's name, a notebook's path or stem, or "all". Raises EffbookError with
    near names for anything else, and for an exhibit that has no run under the profile.
    """
    check_profile(profile)
    experiments.load()
    known = {what: exhibit(what)} if what in _files(FOLDER) else register()
    if what in known:
        chosen = [known[what]]
    elif what == "all":
        chosen = list(known.values())
    elif what in SYSTEMS:
        chosen = [one for one in known.values() if what in one.systems]
    elif not (chosen := _of_notebook(what)):
        if what not in recipe_names():
            stems = {PurePosixPath(one.notebook).stem: None for one in known.values()}
            names = [*known, *SYSTEMS, *stems, *recipe_names(), "all"]
            near = nearest(what, names)
            kinds = "name an exhibit (tab-3.12), a system (nola), a notebook or all; 'effbook exhibits' lists them"
            raise EffbookError(
                f"{what!r} is no exhibit, system, notebook or recipe", near if near.startswith("did") else kinds
            )
        every = (run for one in known.values() for run in recipes_of_exhibit(one, profile))
        return list(dict.fromkeys(run for run in every if run.name == what))
    found = list(dict.fromkeys(run for one in chosen for run in recipes_of_exhibit(one, profile)))
    if not found and len(chosen) == 1:
        raise _no_run(chosen[0], what, profile)
    if not found and chosen and all(one.waits_for for one in chosen):
        raise EffbookError(
            f"{what} cannot run under {profile} yet, as all its {len(chosen)} exhibits wait for what is not built",
            f"'effbook exhibits --chapter {chosen[0].chapter}' lists them, 'effbook show {chosen[0].id}' says for what",
        )
    return found


def _of_notebook(what: str) -> list[Exhibit]:
    """The exhibits of a notebook, told by its path, the end of it, or its stem; EffbookError if several are meant."""
    path = f"/{what.removesuffix('.ipynb')}.ipynb"
    chosen = [one for one in register().values() if path.endswith(f"/{one.notebook}") or one.notebook.endswith(path)]
    if len(notebooks := dict.fromkeys(one.notebook for one in chosen)) > 1:
        raise EffbookError(f"{len(notebooks)} notebooks are called {what!r}", f"say which: {' or '.join(notebooks)}")
    return chosen


def _no_run(one: Exhibit, what: str, profile: str) -> EffbookError:
    """Why an exhibit has no run under a profile, and what there is instead."""
    counts = profile != "paper" and bool(recipes_of_exhibit(one, "paper", arithmetic=True))
    there = f"'effbook plan {one.id} --profile paper' tells what runs there"
    if one.waits_for:
        first, rest = one.waits_for[0], one.waits_for[1:].rstrip(".")
        awaited = (first.lower() if rest[:1].islower() or rest[:1] == " " else first) + rest
        shown = f"'effbook show {one.id}' prints what is reported"
        return EffbookError(f"{what} cannot run yet, as it waits for {awaited}", there if counts else shown)
    if counts:
        return EffbookError(f"{what} has no {profile} run: what it has is arithmetic, which runs under paper", there)
    why = one.why or "none of its rows has a recipe that runs at this scale"
    return EffbookError(f"{what} has no {profile} run: {why}", "choose another profile or exhibit")
