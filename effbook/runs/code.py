"""The fingerprint of the code that makes a run's numbers; comments, docstrings and formatting have no part in it.

It covers the static import closure, within effbook, of the modules that define a recipe: what each of them defines, and
for each name that one imports what the module behind that name defines. Names of modules have no part, so that a file
may move. Left out is what stores, fetches or chooses but makes no number (NOT_NUMBERS), and what runs on another device
than the run did (a module says `DEVICE = "cuda"`). An `__init__` that only passes names on is looked through, so that
a change in a sibling stales nothing. A package imported as a whole stands for all that its `__init__` imports.
"""

import ast
import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from effbook.errors import EffbookError

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)

_ROOT = "effbook"
NOT_NUMBERS = re.compile(
    r"effbook(\.(errors|files|places|chapters|runs(\..+)?|experiments))?"
    r"|effbook\.data\.(cache|fetch|manifest|sources)"  # the digests of what they bring are in a recipe's key
    r"|effbook\.experiments\.\w+\.profiles\w*|effbook\.experiments\.shared\.arithmetic"  # the fields chosen are, too
)


def fingerprint(modules: tuple[str, ...], device: Device = "cpu", sources: "Sources | None" = None) -> str:
    """The first 16 hexadecimal digits of the sha256 over the code of the modules and of all that they import.

    `sources` are for who asks many times in a row: each file is then looked at once. EffbookError for a module without
    a source.
    """
    return (sources or Sources()).fingerprint(modules, device)


@dataclass(frozen=True)
class Import:
    """One name that a module has from effbook: as it is called here and there, and the modules that it leads through.

    The last of these is where it is defined, or the package that is meant as a whole.
    """

    bound: str
    name: str
    through: tuple[str, ...]


class Sources:
    """The source files of a copy of effbook, each looked at once; by default of the one that runs."""

    def __init__(self, package: Path | None = None) -> None:
        """`package` is the folder that holds `__init__.py`."""
        self.package = package or Path(sys.modules[_ROOT].__file__).parent
        self._fingerprints: dict[tuple[tuple[str, ...], str], str] = {}
        self.source = functools.cache(self._source)
        self.tree = functools.cache(self._tree)
        self.imports = functools.cache(self._imports)
        self.own = functools.cache(self._own)

    def fingerprint(self, modules: tuple[str, ...], device: Device = "cpu") -> str:
        """As the function of this name."""
        if (modules, device) not in self._fingerprints:
            parts = []
            for module in self.closure(modules, device):
                uses = {(i.bound, i.name, self.own(i.through[-1])) for i in self._counted(module, device)}
                if self.own(module) != _NOTHING or uses:
                    parts.append(f"{self.own(module)} {sorted(uses)}")
            digest = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
            self._fingerprints[modules, device] = digest[:16]
        return self._fingerprints[modules, device]

    def listing(self, modules: tuple[str, ...], device: Device = "cpu") -> dict[str, str]:
        """Of every module that the fingerprint covers, the hash of what it defines, by the module's name."""
        owns = {module: self.own(module) for module in self.closure(modules, device)}
        return {module: own for module, own in owns.items() if own != _NOTHING}

    def closure(self, modules: tuple[str, ...], device: Device = "cpu") -> list[str]:
        """Names of the modules whose code counts: the given ones and what they import of effbook, sorted."""
        for name in modules:
            if self.source(name) is None:
                raise EffbookError(f"the module {name} has no source to fingerprint", "check the recipe's `modules`")
        seen: set[str] = set()
        waiting = list(modules)
        while waiting:
            name = waiting.pop()
            if name not in seen and self._counts(name, device):
                seen.add(name)
                if name in modules or not self._passes_on_only(name):  # else whoever imported a name was led past it
                    waiting += [module for one in self.imports(name) for module in one.through]
        return sorted(seen)

    def _counts(self, module: str, device: Device) -> bool:
        if NOT_NUMBERS.fullmatch(module) or self.source(module) is None:
            return False
        return self._device(module) in (None, device)

    def _counted(self, module: str, device: Device) -> list[Import]:
        if self._passes_on_only(module):
            return []
        return [one for one in self.imports(module) if self._counts(one.through[-1], device)]

    def _own(self, module: str) -> str:
        """The hash of what a module defines; what it imports of effbook has no part."""
        source = self.source(module)
        if source is None:
            return _NOTHING
        body = _residue(self.tree(module)) if source.name == "__init__.py" else _body(self.tree(module))
        tree = ast.Module(body=list(body), type_ignores=[])
        others = sorted({ast.unparse(n) for n in tree.body if _is_import(n) and not self._of_effbook(module, n)})
        plain = [_plain(node) for node in tree.body if not _is_import(node)]
        plain = [node for node in plain if node is not None]
        return hashlib.sha256(repr((others, plain)).encode()).hexdigest()[:16] if others or plain else _NOTHING

    def _imports(self, module: str) -> tuple[Import, ...]:
        """What the module imports of effbook at any depth of its code, names followed to where they are defined."""
        found: list[Import] = []
        for node in _running(self.tree(module)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if _within(alias.name):
                        found += self._whole(alias.asname or alias.name, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                if base is not None and _within(base):
                    for alias in node.names:
                        bound = alias.asname or alias.name
                        found += self._whole(bound, base) if alias.name == "*" else self._named(base, bound, alias.name)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
                found += [Import(name, name, (name,)) for name in self._meant(node.args[0])]
        return tuple(found)

    def _named(self, base: str, bound: str, name: str) -> list[Import]:
        """What `from base import name as bound` means: a definition of base or one passed on, or a submodule."""
        through, here = [base], base
        while self._is_package(here):
            origin = self._passed_on(here).get(name)
            submodule = f"{here}.{name}"
            if origin is None or origin == here:
                origin = submodule if self.source(submodule) is not None else None
            if origin is None:
                break
            through.append(origin)
            if origin.rpartition(".")[2] == name and origin != here:  # a module or package, meant as a whole
                return [Import(bound, name, tuple(through)), *self._whole(bound, origin)]
            here = origin
        return [Import(bound, name, tuple(through))]

    def _whole(self, bound: str, module: str) -> list[Import]:
        """A module as such; a package with all that its `__init__` passes on. The root passes on nothing."""
        found = [Import(bound, module.rpartition(".")[2], (module,))]
        if module == _ROOT or not self._is_package(module):
            return found
        for name, origin in self._passed_on(module).items():
            if origin != module:
                found += self._whole(f"{bound}.{name}", origin)
        return found

    def _passed_on(self, package: str) -> dict[str, str]:
        """Name -> module, for each name that the package's `__init__` has from within effbook.

        Names come by import statements, or late from the submodules that a table `_FROM = {"name": "submodule"}` names.
        """
        names: dict[str, str] = {}
        for node in self.tree(package).body:
            if isinstance(node, ast.ImportFrom) and (base := self._absolute(package, node)) and _within(base):
                for alias in node.names:
                    submodule = f"{base}.{alias.name}"
                    names[alias.asname or alias.name] = submodule if self.source(submodule) is not None else base
            elif _assigns(node, "_FROM"):
                table = ast.literal_eval(node.value)
                names |= {name: f"{package}.{submodule}" for name, submodule in table.items()}
        return names

    def _passes_on_only(self, module: str) -> bool:
        return self._is_package(module) and not _residue(self.tree(module))

    def _meant(self, argument: ast.expr) -> list[str]:
        """Modules that import_module("effbook.x") or import_module(f"effbook.x_{y}") can mean: all that begin so."""
        if isinstance(argument, ast.Constant):
            return [argument.value] if _within(str(argument.value)) else []
        first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else None
        if not isinstance(first, ast.Constant) or not first.value.startswith(f"{_ROOT}."):
            return []
        package, _, start = first.value.rpartition(".")
        folder = self.source(package).parent if self._is_package(package) else None
        return [f"{package}.{path.stem}" for path in sorted(folder.glob(f"{start}*.py"))] if folder else []

    def _device(self, module: str) -> str | None:
        """The device whose engine a module says it is."""
        for node in self.tree(module).body:
            if _assigns(node, "DEVICE") and isinstance(node.value, ast.Constant):
                return node.value.value
        return None

    def _of_effbook(self, module: str, node: ast.Import | ast.ImportFrom) -> bool:
        if isinstance(node, ast.Import):
            return all(_within(alias.name) for alias in node.names)
        base = self._absolute(module, node)
        return base is not None and _within(base)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str | None:
        if node.level == 0:
            return node.module
        package = module if self._is_package(module) else module.rpartition(".")[0]
        base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
        return f"{base}.{node.module}" if node.module else base

    def _is_package(self, module: str) -> bool:
        source = self.source(module)
        return source is not None and source.name == "__init__.py"

    def _source(self, module: str) -> Path | None:
        """The module's source file, found without importing it where it belongs to effbook."""
        if _within(module):
            path = self.package.joinpath(*module.split(".")[1:])
            candidates = (path / "__init__.py", path.with_suffix(".py"))
            return next((candidate for candidate in candidates if candidate.is_file()), None)
        loaded = getattr(sys.modules.get(module), "__file__", None)
        if loaded is None:
            spec = importlib.util.find_spec(module) if module != "__main__" else None
            loaded = spec.origin if spec else None
        return Path(loaded) if loaded and Path(loaded).suffix == ".py" else None

    def _tree(self, module: str) -> ast.Module:
        path = self.source(module)
        stat = os.stat(path)
        return _parsed(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, _mtime_ns: int, _size: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


_NOTHING = hashlib.sha256(b"").hexdigest()[:16]


def _plain(node: object) -> object:
    """A syntax tree as nested tuples, without imports of names and what is for type checkers; None for nothing.

    `ast.dump` would do, were its text the same in every version of Python.
    """
    if isinstance(node, list):
        return [plain for item in node if (plain := _plain(item)) is not None]
    if not isinstance(node, ast.AST):
        return node if node is None else repr(node)
    if _is_for_checkers(node):
        return _plain(node.orelse) or None
    if isinstance(node, ast.ImportFrom) and (node.level or _within(node.module or "")):
        return None  # it counts by what it leads to
    if isinstance(node, ast.Import) and all(_within(alias.name) for alias in node.names):
        return None
    pairs = ((name, _body(node) if name == "body" else value) for name, value in ast.iter_fields(node))
    plain = ((name, _plain(value)) for name, value in pairs if name not in ("kind", "ctx"))
    return (type(node).__name__, *((name, value) for name, value in plain if value not in (None, [])))


def _residue(tree: ast.Module) -> list[ast.stmt]:
    """What an `__init__` does besides passing names on."""

    def idle(node: ast.stmt) -> bool:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        hands_on = _assigns(node, "__all__") or _assigns(node, "_FROM")
        late = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
        return _is_import(node) or is_docstring or hands_on or _is_for_checkers(node) or late

    return [node for node in tree.body if not idle(node)]


def _body(node: ast.AST) -> object:
    """The body of a node without its docstring."""
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return node.body[1:] if documented and ast.get_docstring(node, clean=False) is not None else node.body


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but those under `if TYPE_CHECKING:`, which never run."""
    yield node
    for child in node.orelse if _is_for_checkers(node) else ast.iter_child_nodes(node):
        yield from _running(child)


def _is_for_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _assigns(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", "") == name and node.value is not None
    return isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]


def _within(module: str) -> bool:
    return module == _ROOT or module.startswith(f"{_ROOT}.")
