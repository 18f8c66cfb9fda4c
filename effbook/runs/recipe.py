"""A recipe: everything that determines a run, as a frozen dataclass; and what a run gives back."""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

from effbook.errors import EffbookError
from effbook.runs.context import Context

__all__ = [
    "Context",
    "Cost",
    "Recipe",
    "Result",
    "Shared",
    "key_of",
    "make",
    "recipe_class",
    "recipe_names",
    "register_recipe",
]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate of what one run takes: seconds on two cores or, for a run that needs one, on one GPU."""

    seconds: float = 1.0
    gpu_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True)
class Shared:
    """A part of a run's work that others share, as the context keeps it: `context.cached(kind, parts, ...)`."""

    kind: str
    parts: dict[str, object]
    seconds: float  # of the recipe's estimate


@dataclass(frozen=True)
class Result:
    """What a run measured; a metric that could not be had is None, and `notes` says why under its name.

    `artifacts` are small files worth keeping (name -> path in the context's folder); they are copied beside the record.
    `flops` and `joules` are given only where they were counted or measured.
    """

    metrics: dict[str, float | int | None]
    series: dict[str, list[float]] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    flops: float | None = None
    joules: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run, before it has run. Subclass it with more fields: JSON scalars, or tuples of them, each annotated.

    Types are checked strictly when the recipe is made (a whole number serves as a float), then `validate` is called;
    both raise EffbookError. `Literal[...]` limits a field to the values listed, `Annotated[int, Field(ge=2)]` to a
    range; pydantic has names for the usual ones (PositiveInt, NonNegativeFloat).
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    system: ClassVar[str]
    name: ClassVar[str]
    varying: ClassVar[tuple[str, ...]] = ()  # metrics of time and memory, which no two runs share

    def __post_init__(self) -> None:
        names, adapter = _checked(type(self))
        given = [getattr(self, name) for name in names]
        values = tuple([tuple(value) if isinstance(value, list) else value for value in given])
        try:
            values = adapter.validate_python(values, strict=True)
        except ValidationError as error:
            raise _refused(self.name, names, values, error) from None
        for field_name, value in zip(names, values, strict=True):
            if isinstance(value, float | tuple) and not _is_finite(value):
                raise EffbookError(f"{self.name}: {field_name} = {value!r} is not finite", "correct it")
            object.__setattr__(self, field_name, value)  # so that 1 and 1.0 of a float field are one recipe
        self.validate()

    def datasets(self) -> tuple[str, ...]:
        """Names of the manifests (data and weights) that the run reads."""
        return ()

    def validate(self) -> None:
        """Raise EffbookError for values that cannot be run, such as a rank below 1."""

    def cost(self) -> Cost:
        """An estimate for `effbook plan`."""
        return Cost()

    def shares(self) -> tuple[Shared, ...]:
        """What the run takes from the cache or leaves there for others, for `effbook plan`, each counted once.

        A recipe that calls `context.cached(kind, parts, ...)` gives the same kind and parts here, with the seconds that
        making it takes; they are included in `cost().seconds`. Nothing heavy is imported for it.
        """
        return ()

    def depends(self) -> "tuple[Recipe, ...]":
        """The recipes whose records the run asks its context for, for `effbook plan`; not included in `cost()`."""
        return ()

    def needs(self) -> tuple[str, ...]:
        """What the machine must have, in words such as "cuda", "memory-gib:32", "package:NAME", "program:NAME".

        "gpu-gib:40" asks for a GPU of that size, "gpus:4" for so many of them.
        """
        return ()

    def processes(self) -> int:
        """How many processes of one machine do the run together, as `effbook.runs.ranks` starts them.

        `run` is called in each of them, with torch.distributed set up; what rank 0 gives back and saves as a
        checkpoint is kept. It must work in one process without that, too: a probe runs so.
        """
        return 1

    def modules(self) -> tuple[str, ...]:
        """Modules whose import closure is the code that makes the numbers; by default where the recipe is defined."""
        return (type(self).__module__,)

    def group(self) -> int:
        """Which independent draw the seed belongs to; runs of one draw are averaged before their spread counts.

        By default each seed is a draw of its own. A recipe whose neighbouring seeds share, say, their training images
        gives these the same number.
        """
        return self.seed

    def probe(self) -> dict[str, object]:
        """Fields that cap the run to seconds, every phase of it still acting; {} for a run that takes no more.

        `effbook recheck` runs the recipe with them by the code that made a record and by the code that is here.
        """
        return {}

    def run(self, context: Context) -> Result:
        """Do the work. Heavy modules are imported here, not at the top of the recipe's file."""
        raise NotImplementedError

    @property
    def fields(self) -> dict[str, object]:
        """The fields as JSON knows them: tuples as lists."""
        return {name: _as_json(getattr(self, name)) for name in _checked(type(self))[0]}

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """The sha256 of each data set that the run reads, from the manifests; nothing is fetched."""
        if not self.datasets():
            return {}
        from effbook import data
        from effbook.data.manifest import manifest_folder

        folder = manifest_folder()
        states = {name: _state_of(folder / f"{name}.yaml") for name in sorted(set(self.datasets()))}
        return {name: _once(data.digest, name, *state) for name, state in states.items()}

    @functools.cached_property
    def key(self) -> str:
        """Twelve hexadecimal characters that stand for the name, the fields and the data; the profile has no part."""
        return key_of(self.name, self.fields, self.digests)


def key_of(name: str, fields: dict[str, object], digests: dict[str, str]) -> str:
    """The key of a recipe told by its parts: the head of the sha256 of their canonical JSON."""
    parts = {"data": digests, "fields": fields, "name": name}
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _state_of(path: Path) -> tuple[Path, int]:
    return path, path.stat().st_mtime_ns if path.exists() else 0


@functools.lru_cache(maxsize=1024)
def _once(digest: Callable[[str], str], name: str, _path: Path, _mtime_ns: int) -> str:
    """A data set's digest, computed once for each state of its manifest's file."""
    return digest(name)


@functools.cache
def _checked(cls: type[Recipe]) -> tuple[tuple[str, ...], TypeAdapter]:
    """The names of a recipe's fields, and what checks all their values in one go."""
    hints = typing.get_type_hints(cls, include_extras=True)  # with the bounds of Annotated
    names = tuple(f.name for f in dataclasses.fields(cls))
    return names, TypeAdapter(tuple[tuple(hints[name] for name in names)])


def _refused(name: str, names: tuple[str, ...], values: tuple, error: ValidationError) -> EffbookError:
    """What to say of a value that a field's annotation refuses."""
    first = error.errors()[0]
    place = first["loc"][0]
    field_name, value = names[place], values[place]
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    for bound, limit in first.get("ctx", {}).items():
        if bound in words:
            return EffbookError(f"{name}: {field_name} is {value!r}", f"choose {field_name} {words[bound]} {limit}")
    return EffbookError(f"{name}: {field_name} = {value!r} is not valid ({first['msg']})", "correct it")


def _is_finite(value: object) -> bool:
    """Whether no float in a field's value is infinite or not a number."""
    if isinstance(value, tuple):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _as_json(value: object) -> object:
    return [_as_json(v) for v in value] if isinstance(value, tuple) else value


_registered: dict[str, type[Recipe]] = {}


def register_recipe(cls: type[Recipe]) -> type[Recipe]:
    """Class decorator: makes the recipe known under its name. A name belongs to one class."""
    known = _registered.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise EffbookError(f"two recipes are named {cls.name}", "rename one")
    _registered[cls.name] = cls
    return cls


def recipe_names() -> list[str]:
    """Names of all recipes that have registered."""
    return sorted(_registered)


def recipe_class(name: str) -> type[Recipe]:
    """The class of a recipe's name; EffbookError with near names if there is none."""
    if name not in _registered:
        raise EffbookError(f"there is no recipe named {name!r}", nearest(name, sorted(_registered)))
    return _registered[name]


def make(name: str, **fields: object) -> Recipe:
    """A recipe from its name and fields, as a register file gives them; EffbookError for an unknown or mistyped one."""
    cls = recipe_class(name)
    known = _checked(cls)[0]
    for given in fields:
        if given not in known:
            raise EffbookError(f"{name} has no field {given!r}", nearest(given, list(known)))
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - set(fields)):
        raise EffbookError(f"{name} lacks {', '.join(missing)}", "give every field that has no default")
    return cls(**fields)


def nearest(word: str, known: list[str]) -> str:
    """A remedy for a mistyped word: the near ones, or else all, or the first of very many."""
    near = difflib.get_close_matches(word.strip(" /")[:100], known, n=3)
    more = f", ... ({len(known)} in all)" if len(known) > 20 else ""
    return f"did you mean {' or '.join(near)}" if near else f"known are {', '.join(known[:20]) or 'none'}{more}"
