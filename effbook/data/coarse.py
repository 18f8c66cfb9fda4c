"""Coarse labels: ImageNet's categories merged along WordNet (dissertation A.1.4.1), CIFAR-10's into animal and vehicle.

The dissertation counts 93 super-classes and names none. Its rule gives 112 with each category's first parent, which is
the map that `effbook.data.imagenet_coarse` holds; `counts_by_choice` says what other readings give.
"""

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effbook.data.fetch import fetch
from effbook.data.generated import SHAPE_CLASSES
from effbook.data.imagenet_coarse import SUPERCLASSES
from effbook.errors import EffbookError

IMAGENET_COARSE = {category: name for name, categories in SUPERCLASSES.items() for category in categories.split()}
VEHICLES = ("airplane", "automobile", "ship", "truck")
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
CIFAR10_COARSE = dict.fromkeys(ANIMALS, "animal") | dict.fromkeys(VEHICLES, "vehicle")
TOY_COARSE = {name: name.split()[0] for name in SHAPE_CLASSES}  # warm or cold
COARSE_OF = {
    "cifar10": CIFAR10_COARSE,
    "imagenet": IMAGENET_COARSE,
    "imagenet100": IMAGENET_COARSE,
    "toy-shapes": TOY_COARSE,
}
Parents = Mapping[str, Sequence[str]]  # of each synset its hypernyms, in WordNet's order


def coarse_labels(
    labels: np.ndarray, classes: Sequence[str], coarse_of: Mapping[str, str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Coarse labels int64 [N], and the names of their classes in alphabetical order, for ``labels`` [N] from 0.

    Without ``coarse_of`` (class -> coarse class) the classes must be ImageNet's wnids, CIFAR-10's or toy-shapes'.
    Raises `EffbookError` for a class without a coarse one, and for labels outside the classes.
    """
    if coarse_of is None:
        coarse_of = next((known for known in COARSE_OF.values() if set(classes) <= set(known)), {})
    fine = np.asarray(labels)
    if fine.dtype.kind not in "iu" and len(fine):
        raise EffbookError("labels are not whole numbers", f"give numbers from 0 to {len(classes) - 1}")
    if len(fine) and (fine.min() < 0 or fine.max() >= len(classes)):
        raise EffbookError(
            f"labels go from {fine.min()} to {fine.max()} for {len(classes)} classes",
            f"give numbers from 0 to {len(classes) - 1}",
        )
    names = _coarse_names(classes, coarse_of)
    return np.array(_numbers(names), dtype=np.int64)[fine.astype(np.int64)], tuple(sorted(set(names)))


def coarse_parents(dataset: str, classes: Sequence[str]) -> list[int]:
    """Of each class the number of its coarse one, in alphabetical order of their names, for a data set that has a map.

    Raises `EffbookError` for another data set, and for a class without a coarse one.
    """
    if dataset not in COARSE_OF:
        raise EffbookError(f"{dataset} has no coarse classes", f"choose {', '.join(COARSE_OF)}")
    return _numbers(_coarse_names(classes, COARSE_OF[dataset]))


def _coarse_names(classes: Sequence[str], coarse_of: Mapping[str, str]) -> list[str]:
    lacking = [name for name in classes if name not in coarse_of]
    if lacking:
        raise EffbookError(
            f"{len(lacking)} of {len(classes)} classes have no coarse class, {lacking[0]!r} for one",
            "give a map that names each of them",
        )
    return [coarse_of[name] for name in classes]


def _numbers(names: Sequence[str]) -> list[int]:
    number = {name: i for i, name in enumerate(sorted(set(names)))}
    return [number[name] for name in names]


# What follows derives the published map.


@dataclass(frozen=True, kw_only=True)
class Nouns:
    """WordNet's nouns by wnid ("n" and the offset): ``names`` their first lemma, ``parents`` their hypernyms."""

    names: dict[str, str]
    parents: dict[str, tuple[str, ...]]


def read_nouns(data_noun: Path) -> Nouns:
    """WordNet's file data.noun (format: wndb(5WN)); instance hypernyms are no parents."""
    names, parents = {}, {}
    for line in data_noun.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.split(" | ", 1)[0].split()
        words = int(fields[3], 16)  # of two fields each; then the number of pointers, of four fields each
        pointers = fields[5 + 2 * words :]
        names["n" + fields[0]] = fields[4].replace("_", " ")
        parents["n" + fields[0]] = tuple(
            "n" + pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] == "@"
        )
    return Nouns(names=names, parents=parents)


def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 categories of ImageNet-1k as timm lists them; raises `EffbookError` where timm isn't installed."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise EffbookError("the library timm, which lists ImageNet's categories, is not installed", "pip install timm")
    listing = Path(spec.submodule_search_locations[0]) / "data" / "_info" / "imagenet_synsets.txt"
    return tuple(listing.read_text(encoding="utf-8").split())


def derive_imagenet_coarse() -> dict[str, str]:
    """The map of `effbook.data.imagenet_coarse`, derived again: wnid -> name. WordNet is fetched if need be.

    ImageNet's wnids are offsets into WordNet 3.0, which is packaged: no mapping between versions is needed.
    """
    nouns = read_nouns(fetch("wordnet") / "3.0" / "data.noun")
    return {leaf: nouns.names[top] for leaf, top in superclasses(imagenet_wnids(), nouns.parents).items()}


def superclasses(
    leaves: Iterable[str], parents: Parents, *, choose: Callable[[Sequence[str]], Sequence[str]] = lambda p: p[:1]
) -> dict[str, str]:
    """Of each leaf its super-class, by the rule of A.1.4.1; ``choose`` takes the parents that it is merged into.

    Each leaf is merged into its parent, then each class that lies below another, by whichever path, into that one. A
    leaf below several that remain goes to the one fewest steps above its parent, in WordNet's order. Raises
    `EffbookError` for a leaf without a parent.
    """
    leaves = list(leaves)
    orphans = [leaf for leaf in leaves if not parents.get(leaf)]
    if orphans:
        raise EffbookError(
            f"{orphans[0]!r} has no parent in this WordNet", "use version 3.0, which ImageNet's ids name"
        )
    tops = _tops({parent for leaf in leaves for parent in choose(parents[leaf])}, parents)
    found = {}
    for leaf in leaves:
        level = list(choose(parents[leaf]))
        while not (reached := [node for node in level if node in tops]):
            level = [up for node in level for up in parents[node]]
        found[leaf] = reached[0]
    return found


def _ancestors(node: str, parents: Parents) -> set[str]:
    """All that lies above a node, by whichever path."""
    found: set[str] = set()
    waiting = list(parents[node])
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += parents[one]
    return found


def _tops(nodes: set[str], parents: Parents) -> set[str]:
    """The nodes that lie below no other of them."""
    return {node for node in nodes if not _ancestors(node, parents) & nodes}


def counts_by_choice(leaves: Iterable[str], nouns: Nouns) -> dict[str, int]:
    """How many super-classes the rule of A.1.4.1 gives by what is taken for the parent, and for a path.

    "Joined" counts super-classes that share a leaf as one: those above its parent, or those above the leaf by whichever
    path. That is no reading of the text, but the only way that we found to 93.
    """
    leaves = list(leaves)
    parents = nouns.parents
    choices: dict[str, Callable[[Sequence[str]], Sequence[str]]] = {
        "first": lambda given: given[:1],
        "last": lambda given: given[-1:],
        "first by name": lambda given: sorted(given, key=lambda node: (nouns.names[node].lower(), node))[:1],
        "every": lambda given: given,
    }
    counts = {}
    for name, choose in choices.items():
        merged = {leaf: set(choose(parents[leaf])) for leaf in leaves}
        tops = _tops(set().union(*merged.values()), parents)
        above = [nodes.union(*(_ancestors(node, parents) for node in nodes)) & tops for nodes in merged.values()]
        counts[name] = len(tops)
        counts[f"{name}, joined above the parent"] = _joined(tops, above)
        counts[f"{name}, joined above the leaf"] = _joined(tops, [_ancestors(leaf, parents) & tops for leaf in leaves])
    one_path = {node: given[:1] for node, given in parents.items()}
    counts["first, paths of first parents"] = len(_tops({parents[leaf][0] for leaf in leaves}, one_path))
    return counts


def _joined(tops: set[str], shared: list[set[str]]) -> int:
    """How many groups are left of the tops where those that one set of `shared` holds are one."""
    groups = [{top} for top in tops]
    for together in (one for one in shared if len(one) > 1):
        touched = [group for group in groups if group & together]
        groups = [group for group in groups if not group & together] + [set().union(*touched)]
    return len(groups)
