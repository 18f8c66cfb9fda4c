from pathlib import Path

import pytest
import torch
import yaml

import effbook.exhibits
from effbook.errors import EffbookError
from effbook.evaluate.splits import TRANSFER_SETS, draw_split

REGISTER = Path(effbook.exhibits.__file__).parent / "register" / "tab-A.13.yaml"


def _sizes(images, classes):
    """Classes as equal as they can be."""
    return [images // classes + (c < images % classes) for c in range(classes)]


def _labels(sizes, seed=0):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def test_the_table_is_what_the_dissertation_prints():
    for row in yaml.safe_load(REGISTER.read_text(encoding="utf-8"))["rows"]:
        ours, values, count = TRANSFER_SETS[row["id"]], row["values"], row["count"]
        assert (str(ours.train), str(ours.val), str(ours.test)) == (values["train"], values["val"], values["test"])
        assert ours.measure == {"Top-1": "top1", "Mean": "mean"}[values["accuracy"]]
        assert ours.classes == count["classes"]
        for rule in ("val_a_class", "val_percent", "kept_a_class"):
            assert getattr(ours, rule) == count.get(rule, 0)
    assert len(TRANSFER_SETS) == 10


@pytest.mark.parametrize("name", [n for n, each in TRANSFER_SETS.items() if each.val_a_class or each.val_percent])
def test_the_drawn_splits_have_the_printed_sizes(name):
    one = TRANSFER_SETS[name]
    images = one.train + one.val + (one.test if one.kept_a_class else 0)
    split = one.split(_labels(_sizes(images, one.classes)), seed=0)
    val = one.val if name != "cars" else 196 * 8  # its classes are of unequal size: 41 or 42 is not what they have
    assert (len(split.train), len(split.val)) == (images - val - len(split.test), val)
    assert len(split.test) == (one.test if one.kept_a_class else 0)


@pytest.mark.parametrize(
    ("rule", "val", "test"),
    [
        ({"val_a_class": 3}, lambda n: 3, lambda n: 0),
        ({"val_percent": 20}, lambda n: int(n * 0.2 + 0.5), lambda n: 0),
        ({"val_a_class": 5, "kept_a_class": 9}, lambda n: 5, lambda n: n - 9),
        ({"val_percent": 25, "kept_a_class": 10}, lambda n: 3, lambda n: n - 10),
    ],
)
def test_every_class_follows_the_rule_and_every_image_has_one_place(rule, val, test):
    sizes = [12, 13, 17, 30, 22]
    labels = _labels(sizes)
    split = draw_split(labels, classes=5, seed=4, **rule)
    assert sorted(torch.cat([split.train, split.val, split.test]).tolist()) == list(range(sum(sizes)))
    for c, n in enumerate(sizes):
        counts = [sum(1 for i in part.tolist() if labels[i] == c) for part in (split.train, split.val, split.test)]
        assert counts == [n - val(n) - test(n), val(n), test(n)]


def test_the_draw_comes_from_the_seed_alone():
    labels = _labels([20, 20, 20])
    before = torch.get_rng_state()
    one, two, other = (draw_split(labels, classes=3, val_a_class=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.val, two.val)
    assert not torch.equal(one.val, other.val)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_a_class": 0}, "give no validation set"),
        ({"val_percent": 20}, "give no validation set"),
        ({"val_a_class": 0, "val_percent": 100}, "give no validation set"),
        ({"val_a_class": 6}, "Class 1 has 6 images, too few"),
        ({"kept_a_class": 6}, "Class 1 has 6 images, too few"),
        ({"classes": 4}, "Class 3 has 0 images"),
        ({"classes": 2}, "outside 0 to 1"),
    ],
)
def test_splits_that_cannot_be_drawn_are_refused(change, message):
    given = {"classes": 3, "val_a_class": 2, "seed": 0} | change
    with pytest.raises(EffbookError, match=message):
        draw_split(_labels([9, 6, 9]), **given)


def test_an_official_validation_set_is_not_drawn():
    with pytest.raises(EffbookError, match="validation set of its own"):
        TRANSFER_SETS["dtd"].split(torch.zeros(10, dtype=torch.long), seed=0)
