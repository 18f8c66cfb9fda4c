"""Coarse labels: the rule of A.1.4.1 against a slow twin, the published map against WordNet."""

import importlib.util

import numpy as np
import pytest

from effbook import data
from effbook.data.coarse import (
    COARSE_OF,
    IMAGENET_COARSE,
    coarse_labels,
    coarse_parents,
    counts_by_choice,
    derive_imagenet_coarse,
    imagenet_wnids,
    read_nouns,
    superclasses,
)
from effbook.data.imagenet_coarse import SUPERCLASSES
from effbook.errors import EffbookError

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
TAXONOMY = {
    "thing": (),
    "animal": ("thing",),
    "pet": ("thing",),
    "dog": ("animal", "pet"),
    "cat": ("animal",),
    "husky": ("dog",),
    "tabby": ("cat",),
    "parrot": ("animal",),
    "goldfish": ("pet", "animal"),
    "tool": ("thing",),
    "hammer": ("tool",),
}
LEAVES = ("husky", "tabby", "parrot", "goldfish", "hammer")


def paths_up(node, parents):
    """Every path from a node to a root, as a list of (node, positions of the parents taken so far)."""
    if not parents[node]:
        return [[(node, ())]]
    return [
        [(node, ()), *((above, (i, *taken)) for above, taken in path)]
        for i, parent in enumerate(parents[node])
        for path in paths_up(parent, parents)
    ]


def merged_slowly(leaves, parents):
    """A.1.4.1 word by word: merge into the parent, then a descendant into its ancestor for as long as there is one."""
    classes = {leaf: parents[leaf][0] for leaf in leaves}
    remaining = set(classes.values())
    changed = True
    while changed:
        changed = False
        for low in sorted(remaining):
            above = {node for path in paths_up(low, parents) for node, _ in path[1:]}
            if above & remaining:
                remaining.remove(low)
                changed = True
                break
    found = {}
    for leaf, first in classes.items():
        ways = [step for path in paths_up(first, parents) for step in path if step[0] in remaining]
        found[leaf] = min(ways, key=lambda step: (len(step[1]), step[1]))[0]
    return found


def test_a_leaf_goes_to_its_parent_and_a_class_below_another_into_that_one():
    found = superclasses(LEAVES, TAXONOMY)
    assert found == {"husky": "animal", "tabby": "animal", "parrot": "animal", "goldfish": "pet", "hammer": "tool"}
    last = superclasses(LEAVES, TAXONOMY, choose=lambda parents: parents[-1:])
    assert last["goldfish"] == "animal"
    assert set(last.values()) == {"animal", "tool"}


def test_the_rule_agrees_with_a_twin_that_walks_every_path():
    assert superclasses(LEAVES, TAXONOMY) == merged_slowly(LEAVES, TAXONOMY)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        parents = {"0": ()}
        for node in range(1, 40):  # a parent is among the nodes before it, so that there is no circle
            count = min(node, int(rng.integers(1, 4)))
            parents[str(node)] = tuple(str(i) for i in rng.choice(node, size=count, replace=False))
        inner = {parent for given in parents.values() for parent in given}
        leaves = [node for node in parents if node not in inner]
        assert superclasses(leaves, parents) == merged_slowly(leaves, parents), seed


def test_a_leaf_without_a_parent_is_told():
    with pytest.raises(EffbookError, match="'thing' has no parent in this WordNet; use version 3"):
        superclasses(["thing"], TAXONOMY)
    with pytest.raises(EffbookError, match="'n00000000' has no parent"):
        superclasses(["n00000000"], TAXONOMY)


def test_nouns_are_read_from_wordnets_format(tmp_path):
    (tmp_path / "data.noun").write_text(
        "  1 the licence\n"
        "00000001 03 n 01 entity 0 000 | what is\n"
        "00000002 03 n 02 Great_Dane 0 big_dog 1 003 @ 00000001 n 0000 ~ 00000003 n 0000 @i 00000003 n 0000 | a | dog\n"
        "00000003 03 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 002 @ 00000002 n 0000 @ 00000001 n 0000 | ten words\n"
    )
    nouns = read_nouns(tmp_path / "data.noun")
    assert nouns.names == {"n00000001": "entity", "n00000002": "Great Dane", "n00000003": "a"}
    assert nouns.parents == {
        "n00000001": (),
        "n00000002": ("n00000001",),
        "n00000003": ("n00000002", "n00000001"),
    }


@needs_timm
def test_the_published_map_holds_each_category_of_imagenet_once():
    listed = [category for categories in SUPERCLASSES.values() for category in categories.split()]
    assert sorted(listed) == sorted(imagenet_wnids())
    assert len(SUPERCLASSES) == 112
    assert IMAGENET_COARSE["n02110185"] == "mammal"  # the husky
    assert set(data.manifest("imagenet100").classes) <= set(IMAGENET_COARSE)


@pytest.mark.data
@needs_timm
def test_the_published_map_is_what_wordnet_gives():
    if not data.is_cached("wordnet"):
        pytest.skip("wordnet is not in the cache: effbook data fetch wordnet")
    assert derive_imagenet_coarse() == IMAGENET_COARSE
    counts = counts_by_choice(imagenet_wnids(), read_nouns(data.fetch("wordnet") / "3.0" / "data.noun"))
    assert counts == {
        "first": 112,
        "first, joined above the parent": 107,
        "first, joined above the leaf": 95,
        "last": 115,
        "last, joined above the parent": 110,
        "last, joined above the leaf": 93,
        "first by name": 111,
        "first by name, joined above the parent": 106,
        "first by name, joined above the leaf": 92,
        "every": 120,
        "every, joined above the parent": 92,
        "every, joined above the leaf": 92,
        "first, paths of first parents": 121,
    }


def test_labels_follow_their_classes():
    labels, classes = coarse_labels(np.array([0, 3, 9, 0]), data.manifest("cifar10").classes)
    assert classes == ("animal", "vehicle")
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 1, 1]
    wnids = ("n02110185", "n01440764", "n02123045")  # husky, tench, tabby
    labels, classes = coarse_labels([2, 1, 0], wnids)
    assert (labels.tolist(), classes) == ([0, 1, 0], ("mammal", "soft-finned fish"))
    labels, classes = coarse_labels([0, 1, 1], ("a", "b"), {"a": "z", "b": "y"})
    assert (labels.tolist(), classes) == ([1, 0, 0], ("y", "z"))
    assert coarse_labels([], ("a",), {"a": "b"})[0].shape == (0,)


@pytest.mark.parametrize("dataset", COARSE_OF)
def test_parents_number_the_coarse_classes_in_alphabetical_order(dataset):
    classes = sorted(COARSE_OF[dataset])
    parents = coarse_parents(dataset, classes)
    labels, names = coarse_labels(np.arange(len(classes)), classes)
    assert parents == labels.tolist()
    assert [names[parent] for parent in parents] == [COARSE_OF[dataset][name] for name in classes]


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        ([0, 10], tuple(COARSE_OF["cifar10"]), "labels go from 0 to 10 for 10 classes; give numbers from 0 to 9"),
        ([-1], tuple(COARSE_OF["cifar10"]), "labels go from -1 to -1"),
        ([0.5], tuple(COARSE_OF["cifar10"]), "not whole numbers"),
        ([0], ("cat", "spoon"), "2 of 2 classes have no coarse class, 'cat' for one"),
    ],
)
def test_labels_and_classes_without_a_coarse_one_are_refused(labels, classes, words):
    with pytest.raises(EffbookError, match=words):
        coarse_labels(labels, classes)


def test_a_data_set_without_coarse_classes_is_told():
    with pytest.raises(EffbookError, match="mnist has no coarse classes; choose cifar10, imagenet"):
        coarse_parents("mnist", ("0", "1"))
