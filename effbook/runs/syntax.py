"""Source code as syntax trees: what of it counts for a fingerprint, the same for the same code in every Python."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = "effbook"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.lru_cache(maxsize=1024)
def parsed(path: Path, _mtime_ns: int, _ctime_ns: int, _size: int) -> ast.Module:
    """The tree of a file, parsed once for each state of it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def plain(node: object) -> object:
    """A syntax tree as nested tuples, without imports of names and what is for type checkers; None for nothing.

    `ast.dump` would do, were its text the same in every version of Python.
    """
    if isinstance(node, list):
        return [kept for item in node if (kept := plain(item)) is not None]
    if not isinstance(node, ast.AST):
        return node if node is None else repr(node)
    kind = type(node)
    if kind is ast.If and is_for_checkers(node):
        return plain(node.orelse) or None
    if kind is ast.ImportFrom and (node.level or within(node.module or "")):
        return None  # it counts by what it leads to
    if kind is ast.Import and all(within(alias.name) for alias in node.names):
        return None
    told: list[object] = [kind.__name__]
    for name in kind._fields:
        if name not in ("kind", "ctx"):
            value = getattr(node, name, None)
            value = plain(body(node) if name == "body" and kind in _DOCUMENTED else value)
            if value is not None and value != []:
                told.append((name, value))
    return tuple(told)


def residue(tree: ast.Module) -> list[ast.stmt]:
    """What an `__init__` does besides passing names on."""

    def idle(node: ast.stmt) -> bool:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        hands_on = assigns(node, "__all__") or assigns(node, "_FROM")
        late = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
        return is_import(node) or is_docstring or hands_on or is_for_checkers(node) or late

    return [node for node in tree.body if not idle(node)]


def body(node: ast.AST) -> object:
    """The body of a node without its docstring."""
    return (
        node.body[1:] if type(node) in _DOCUMENTED and ast.get_docstring(node, clean=False) is not None else node.body
    )


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but those under `if TYPE_CHECKING:`, which never run; the order is that of the text."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        children = node.orelse if is_for_checkers(node) else list(ast.iter_child_nodes(node))
        waiting += reversed(children)


def is_for_checkers(node: ast.AST) -> bool:
    """Whether it is an `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def is_import(node: ast.AST) -> bool:
    """Whether it is an import statement."""
    return isinstance(node, ast.Import | ast.ImportFrom)


def assigns(node: ast.AST, name: str) -> bool:
    """Whether it gives that name a value, and no other."""
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", "") == name and node.value is not None
    return isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]


def within(module: str) -> bool:
    """Whether a module is of effbook, by its name."""
    return module == ROOT or module.startswith(f"{ROOT}.")
