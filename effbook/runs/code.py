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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from effbook.errors import EffbookError
from effbook.runs import remembered
from effbook.runs.syntax import ROOT, assigns, body, is_import, parsed, plain, residue, running, within

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)

_NOTHING = hashlib.sha256(b"").hexdigest()[:16]  # of a module that only passes names on
NOT_NUMBERS = re.compile(
    r"effbook(\.(errors|files|places|chapters|runs(\..+)?|experiments))?"
    r"|effbook\.data\.(cache|fetch|manifest|sources)"  # the digests of what they bring are in a recipe's key
    r"|effbook\.experiments\.\w+\.profiles\w*|effbook\.experiments\.shared\.arithmetic"  # the fields chosen are, too
)


def fingerprint(modules: tuple[str, ...], device: Device = "cpu") -> str:
    """The first 16 hexadecimal digits of the sha256 over the code of the modules and of all that they import.

    EffbookError for a module without a source.
    """
    return here().fingerprint(modules, device)


def here() -> "Sources":
    """The sources of the code that runs, as they are now. Who asks thousands of times in a row asks for them once."""
    package = Path(sys.modules[ROOT].__file__).parent
    files = sorted(f"{top}/{name}" for top, _, names in os.walk(package) for name in names if name.endswith(".py"))
    return _here(package, remembered.state_of(files))


@functools.lru_cache(maxsize=2)
def _here(package: Path, state: str) -> "Sources":
    return Sources(package, state)


@dataclass(frozen=True)
class Import:
    """One name that a module has from effbook: as it is called here and there, and the modules that it leads through.

    The last of these is where it is defined, or the package that is meant as a whole.
    """

    bound: str
    name: str
    through: tuple[str, ...]


class Sources:
    """The source files of a copy of effbook, each looked at once."""

    def __init__(self, package: Path, state: str | None = None) -> None:
        """`package` is the folder that holds `__init__.py`; with the `state` of its files, fingerprints are kept."""
        self.package, self.state = package, state
        self._fingerprints: dict[str, str] = remembered.recall("fingerprints", state) if state else {}
        self.source = functools.cache(self._source)
        self.tree = functools.cache(self._tree)
        self.imports = functools.cache(self._imports)
        self.own = functools.cache(self._own)

    def fingerprint(self, modules: tuple[str, ...], device: Device = "cpu") -> str:
        """As the function of this name."""
        asked = f"{device} {' '.join(modules)}"
        if asked not in self._fingerprints:
            parts = []
            for module in self.closure(modules, device):
                uses = {(i.bound, i.name, self.own(i.through[-1])) for i in self._counted(module, device)}
                if self.own(module) != _NOTHING or uses:
                    parts.append(f"{self.own(module)} {sorted(uses)}")
            digest = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
            self._fingerprints[asked] = digest[:16]
            if self.state:
                ours = {key: one for key, one in self._fingerprints.items() if all(map(within, key.split(" ")[1:]))}
                remembered.remember("fingerprints", self.state, ours)  # the state is of effbook's own files only
        return self._fingerprints[asked]

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
        statements = residue(self.tree(module)) if source.name == "__init__.py" else body(self.tree(module))
        others = sorted({ast.unparse(n) for n in statements if is_import(n) and not self._of_effbook(module, n)})
        defined = plain([node for node in statements if not is_import(node)])
        return hashlib.sha256(repr((others, defined)).encode()).hexdigest()[:16] if others or defined else _NOTHING

    def _imports(self, module: str) -> tuple[Import, ...]:
        """What the module imports of effbook at any depth of its code, names followed to where they are defined."""
        found: list[Import] = []
        for node in running(self.tree(module)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if within(alias.name):
                        found += self._whole(alias.asname or alias.name, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                if base is not None and within(base):
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
        if module == ROOT or not self._is_package(module):
            return found
        for name, origin in self._passed_on(module).items():
            if origin != module:
                found += self._whole(f"{bound}.{name}", origin)
        return found

    def _passed_on(self, package: str) -> dict[str, str]:
        """Name -> module, for each name that the package's `__init__` has from within effbook.

        Names come by import statements, or late as a table `_FROM = {"name": "submodule"}` has it, where a
        module that lies elsewhere is named in full.
        """
        names: dict[str, str] = {}
        for node in self.tree(package).body:
            if isinstance(node, ast.ImportFrom) and (base := self._absolute(package, node)) and within(base):
                for alias in node.names:
                    submodule = f"{base}.{alias.name}"
                    names[alias.asname or alias.name] = submodule if self.source(submodule) is not None else base
            elif assigns(node, "_FROM"):
                table = ast.literal_eval(node.value)
                names |= {name: where if within(where) else f"{package}.{where}" for name, where in table.items()}
        return names

    def _passes_on_only(self, module: str) -> bool:
        return self._is_package(module) and not residue(self.tree(module))

    def _meant(self, argument: ast.expr) -> list[str]:
        """Modules that import_module("effbook.x") or import_module(f"effbook.x_{y}") can mean: all that begin so."""
        if isinstance(argument, ast.Constant):
            return [argument.value] if within(str(argument.value)) else []
        first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else None
        if not isinstance(first, ast.Constant) or not first.value.startswith(f"{ROOT}."):
            return []
        package, _, start = first.value.rpartition(".")
        folder = self.source(package).parent if self._is_package(package) else None
        return [f"{package}.{path.stem}" for path in sorted(folder.glob(f"{start}*.py"))] if folder else []

    def _device(self, module: str) -> str | None:
        """The device whose engine a module says it is."""
        for node in self.tree(module).body:
            if assigns(node, "DEVICE") and isinstance(node.value, ast.Constant):
                return node.value.value
        return None

    def _of_effbook(self, module: str, node: ast.Import | ast.ImportFrom) -> bool:
        if isinstance(node, ast.Import):
            return all(within(alias.name) for alias in node.names)
        base = self._absolute(module, node)
        return base is not None and within(base)

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
        if within(module):
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
        return parsed(path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
