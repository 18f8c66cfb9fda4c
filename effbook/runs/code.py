"""The fingerprint of the code that makes a run's numbers; comments, docstrings and formatting have no part in it.

It covers the static import closure, within effbook, of the module that defines the recipe. Not in it: the spine, which
stores numbers but doesn't make them, and the errors. An `__init__` that only passes names on is looked through: a name
imported from a package leads to the module that defines it, so that a change in a sibling stales nothing. A package
imported as a whole stands for all that its `__init__` imports.
"""

import ast
import functools
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effbook.errors import EffbookError

_ROOT = "effbook"
_SPINE = re.compile(  # a system's profiles choose fields, which are in the key already
    r"effbook(\.errors|\.experiments"
    r"(\.(context|execute|fingerprint|ledger|machine|plan|profiles|progress|recipe|records|[a-z]+\.profiles\w*))?)?"
)


_known: dict | None = None  # inside `standing_still`: fingerprints by modules, imports by module


@contextmanager
def standing_still() -> Iterator[None]:
    """Inside, the source files are looked at once for each set of modules: for who asks thousands of times in a row."""
    global _known
    before, _known = _known, {} if _known is None else _known
    try:
        yield
    finally:
        _known = before


def fingerprint(modules: tuple[str, ...]) -> str:
    """The first 16 hexadecimal characters of the sha256 over the code of the modules and of all that they import."""
    if _known is not None and modules in _known:
        return _known[modules]
    folder = Path(sys.modules[_ROOT].__file__).parent
    files = {str(path) for path in filter(None, map(_source, modules))}
    files |= {f"{top}/{name}" for top, _, names in os.walk(folder) for name in names if name.endswith(".py")}
    found = _fingerprint(modules, tuple((file, *_stat(file)[1:]) for file in sorted(files)))
    if _known is not None:
        _known[modules] = found
    return found


@functools.lru_cache(maxsize=256)
def _fingerprint(modules: tuple[str, ...], _state: tuple) -> str:
    """Computed once for each state of the source files."""
    hashed = hashlib.sha256()
    for name in closure(modules):
        if code := _code(*_stat(_source(name))):
            hashed.update(f"{name}\n{code}\n".encode())
    return hashed.hexdigest()[:16]


def closure(modules: tuple[str, ...]) -> list[str]:
    """Names of the modules whose code counts: the given ones and what they import of effbook, sorted."""
    for name in modules:
        if _source(name) is None:
            raise EffbookError(f"the module {name} has no source to fingerprint", "check the recipe's `modules`")
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in seen and not _SPINE.fullmatch(name) and _source(name) is not None:
            seen.add(name)
            waiting += _imports(name, given=name in modules)
    return sorted(seen)


def _imports(module: str, *, given: bool) -> list[str]:
    """Modules of effbook that the module imports at any depth of its code, names followed to where they are defined."""
    if _known is None:
        return _imports_now(module, given=given)
    if (module, given) not in _known:
        _known[module, given] = _imports_now(module, given=given)
    return _known[module, given]


def _imports_now(module: str, *, given: bool) -> list[str]:
    path = _source(module)
    if _is_package(module) and not given and not _residue(path):
        return []  # it only passes names on, and whoever imported one was led past it
    package = module if _is_package(module) else module.rpartition(".")[0]
    found: list[str] = []
    for node in _running(_parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _within(alias.name):
                    found += _whole(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
            if base is not None and _within(base):
                for alias in node.names:
                    found += _whole(base) if alias.name == "*" else _defining(base, alias.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            found += _named_like(node.args[0])
    return found


def _named_like(argument: ast.expr) -> list[str]:
    """Modules that import_module("effbook.x") or import_module(f"effbook.x_{y}") can mean: all that begin so."""
    if isinstance(argument, ast.Constant):
        return [argument.value] if _within(str(argument.value)) else []
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else None
    if not isinstance(first, ast.Constant) or not first.value.startswith(f"{_ROOT}."):
        return []
    package, _, start = first.value.rpartition(".")
    folder = _source(package).parent if _is_package(package) else None
    return [f"{package}.{path.stem}" for path in sorted(folder.glob(f"{start}*.py"))] if folder else []


def _defining(base: str, name: str) -> list[str]:
    """Where `from base import name` leads: the module that the package has the name from, a submodule, or base."""
    if not _is_package(base):
        return [base]
    origin = _passed_on(base).get(name)
    if origin is not None and origin != base:
        # the package's `from .layer import NOLALinear`: go on from there, for chains of packages
        further = _whole(origin) if origin.rpartition(".")[2] == name else _defining(origin, name)
        return [base, *further]
    if _source(f"{base}.{name}") is not None:
        return [base, *_whole(f"{base}.{name}")]
    return [base]


def _whole(module: str) -> list[str]:
    """A module as such; a package with all that its `__init__` passes on. The root passes on nothing."""
    if module == _ROOT or not _is_package(module):
        return [module]
    others = [origin for origin in _passed_on(module).values() if origin != module]
    return [module, *(found for origin in dict.fromkeys(others) for found in _whole(origin))]


def _passed_on(package: str) -> dict[str, str]:
    """Name -> module, for each name that the package's `__init__` imports from within effbook."""
    names: dict[str, str] = {}
    for node in _parse(_source(package)).body:
        base = _absolute(package, node) if isinstance(node, ast.ImportFrom) else None
        if base is not None and _within(base):
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                names[alias.asname or alias.name] = submodule if _source(submodule) is not None else base
    return names


def _residue(path: Path) -> list[ast.stmt]:
    """What an `__init__` does besides passing names on."""

    def idle(node: ast.stmt) -> bool:
        is_all = isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["__all__"]
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        return isinstance(node, ast.Import | ast.ImportFrom) or is_all or is_docstring

    return [node for node in _parse(path).body if not idle(node)]


@functools.lru_cache(maxsize=4096)
def _code(path: Path, _mtime_ns: int, _size: int) -> str:
    """The code of a file as text, the same for the same code in every version of Python; "" for none."""
    nodes = _residue(path) if path.name == "__init__.py" else _body(_parse(path))
    return repr([_plain(node) for node in nodes]) if nodes else ""


def _plain(node: object) -> object:
    """A syntax tree as nested tuples; `ast.dump` would do, were its text the same in every version of Python."""
    if isinstance(node, ast.AST):
        pairs = ((name, _body(node) if name == "body" else value) for name, value in ast.iter_fields(node))
        plain = ((name, _plain(value)) for name, value in pairs if name not in ("kind", "ctx"))
        return (type(node).__name__, *((name, value) for name, value in plain if value not in (None, [])))
    return [_plain(item) for item in node] if isinstance(node, list) else node if node is None else repr(node)


def _body(node: ast.AST) -> object:
    """The body of a node without its docstring."""
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return node.body[1:] if documented and ast.get_docstring(node, clean=False) is not None else node.body


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but those under `if TYPE_CHECKING:`, which never run."""
    yield node
    skipped = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in node.orelse if skipped else ast.iter_child_nodes(node):
        yield from _running(child)


def _parse(path: Path) -> ast.Module:
    return _tree(*_stat(path))


@functools.lru_cache(maxsize=512)
def _tree(path: Path, _mtime_ns: int, _size: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _stat(path: Path | str) -> tuple[Path | str, int, int]:
    stat = os.stat(path)
    return path, stat.st_mtime_ns, stat.st_size


def _absolute(package: str, node: ast.ImportFrom) -> str | None:
    if node.level == 0:
        return node.module
    base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
    return f"{base}.{node.module}" if node.module else base


def _within(module: str) -> bool:
    return module == _ROOT or module.startswith(f"{_ROOT}.")


def _is_package(module: str) -> bool:
    source = _source(module)
    return source is not None and source.name == "__init__.py"


def _source(module: str) -> Path | None:
    """The module's source file, found without importing it where it belongs to effbook."""
    if _within(module):
        root = Path(sys.modules[_ROOT].__file__).parent
        path = root.joinpath(*module.split(".")[1:])
        candidates = (path / "__init__.py", path.with_suffix(".py"))
        return next((candidate for candidate in candidates if candidate.exists()), None)
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is None:
        spec = importlib.util.find_spec(module) if module != "__main__" else None
        loaded = spec.origin if spec else None
    return Path(loaded) if loaded and Path(loaded).suffix == ".py" else None
