"""The fingerprint of the code that makes a run's numbers; comments, docstrings and formatting have no part in it.

It covers the static import closure, within effbook, of the module that defines the recipe. Not in it: the spine, which
stores numbers but doesn't make them, and the errors. An `__init__` that only passes names on is looked through: a name
imported from a package leads to the module that defines it, so that a change in a sibling stales nothing.
"""

import ast
import functools
import hashlib
import importlib.util
import re
import sys
from pathlib import Path

from effbook.errors import EffbookError

_ROOT = "effbook"
_SPINE = re.compile(  # a system's profiles choose fields, which are in the key already
    r"effbook(\.errors|\.experiments"
    r"(\.(context|execute|fingerprint|ledger|machine|plan|profiles|progress|recipe|records|[a-z]+\.profiles))?)?"
)


def fingerprint(modules: tuple[str, ...]) -> str:
    """The first 16 hexadecimal characters of the sha256 over the code of the modules and of all that they import."""
    return _fingerprint(modules, _state(modules))


@functools.lru_cache(maxsize=256)
def _fingerprint(modules: tuple[str, ...], _state: tuple) -> str:
    hashed = hashlib.sha256()
    for name in closure(modules):
        path = _source(name)
        code = _residue(path) if path.name == "__init__.py" else _without_docstrings(_parse(path)).body
        if code:
            hashed.update(f"{name}\n{[_plain(node) for node in code]}\n".encode())
    return hashed.hexdigest()[:16]


def _state(modules: tuple[str, ...]) -> tuple:
    """Changes whenever a source file does, so that one process fingerprints each state of the code once."""
    files = {*Path(sys.modules[_ROOT].__file__).parent.rglob("*.py"), *filter(None, map(_source, modules))}
    return tuple((str(file), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in sorted(files))


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
    path = _source(module)
    if path.name == "__init__.py" and not given and not _residue(path):
        return []  # it only passes names on, and whoever imports one was led past it
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(_without_type_checking(_parse(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _within(alias.name):
                    found += _defining(alias.name, "*")  # `import effbook.nola` gives every name of the package
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
            if base is not None and _within(base):
                for alias in node.names:
                    found += _defining(base, alias.name)
    return found


def _defining(base: str, name: str) -> list[str]:
    """Where `from base import name` leads: a submodule, the module that a package has the name from, or base."""
    if not _is_package(base):
        return [base]
    passed_on = _passed_on(base)
    if name == "*":
        return [base, *passed_on.values()]
    if name in passed_on and passed_on[name] != base:
        origin = passed_on[name]
        # `from .layer import NOLALinear` in the package: go on from there, for chains of packages
        return [base, *_defining(origin, name)] if _is_package(origin) else [base, origin]
    if _source(f"{base}.{name}") is not None:
        return [base, f"{base}.{name}"]
    return [base]


def _passed_on(package: str) -> dict[str, str]:
    """Name -> module, for each name that the package's `__init__` imports from within effbook."""
    names: dict[str, str] = {}
    for node in _parse(_source(package)).body:
        if isinstance(node, ast.ImportFrom):
            base = _absolute(package, node)
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


def _plain(node: object) -> object:
    """A syntax tree as nested tuples. `ast.dump` would do, were its text the same in every version of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name not in ("kind", "ctx"))
        return (type(node).__name__, *((n, v) for n, v in fields if v not in (None, [])))
    return [_plain(item) for item in node] if isinstance(node, list) else node if node is None else repr(node)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


def _without_type_checking(tree: ast.Module) -> ast.Module:
    """Imports under `if TYPE_CHECKING:` never run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    return tree


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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
        for candidate in (path.with_suffix(".py") if path != root else None, path / "__init__.py"):
            if candidate is not None and candidate.exists():
                return candidate
        return None
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is None:
        spec = importlib.util.find_spec(module)
        loaded = spec.origin if spec else None
    return Path(loaded) if loaded and Path(loaded).suffix == ".py" else None
