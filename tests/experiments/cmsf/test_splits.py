"""Sizes of splits: against data sets that are made up image by image and split by hand."""

import random
from collections import Counter

import pytest

from effbook.errors import EffbookError
from effbook.experiments.cmsf.splits import SplitsRecipe
from effbook.runs.profiles import NotInProfileError, scale, seeds
from effbook.runs.recipe import make


def metrics(**fields):
    return SplitsRecipe(**fields).run(None).metrics


def labels_of(classes, images):
    """A label for each image, classes as equal in size as they can be, in some order."""
    labels = [number % classes for number in range(images)]
    random.Random(0).shuffle(labels)
    return labels


def taken_by_class(labels, wanted):
    """How many images are left, and taken, if of each class `wanted(its size)` are taken."""
    taken, left, sizes = Counter(), 0, Counter(labels)
    for label in labels:
        if taken[label] < wanted(sizes[label]):
            taken[label] += 1
        else:
            left += 1
    return left, taken.total()


@pytest.mark.parametrize(
    ("classes", "images", "a_class"), [(101, 75_750, 75), (10, 50_000, 50), (397, 19_850, 10), (37, 3680, 20)]
)
def test_so_many_of_each_class_are_taken_for_validation(classes, images, a_class):
    left, taken = taken_by_class(labels_of(classes, images), lambda size: a_class)
    assert metrics(classes=classes, images=images, test=1, val_a_class=a_class) == {
        "train": left,
        "val": taken,
        "test": 1,
    }


@pytest.mark.parametrize(("classes", "images", "percent"), [(100, 6667, 20), (7, 100, 10), (3, 11, 50), (3, 10, 33)])
def test_a_share_of_each_class_is_taken_to_the_nearest_image(classes, images, percent):
    left, taken = taken_by_class(labels_of(classes, images), lambda size: int(size * percent / 100 + 0.5))
    found = metrics(classes=classes, images=images, test=1, val_percent=percent)
    assert (found["train"], found["val"]) == (left, taken)


@pytest.mark.parametrize(("classes", "images", "kept", "a_class"), [(102, 9144, 30, 5), (4, 100, 10, 1)])
def test_without_an_official_split_what_no_class_keeps_is_the_test_set(classes, images, kept, a_class):
    test, trained_and_validated = taken_by_class(labels_of(classes, images), lambda size: kept)
    found = metrics(classes=classes, images=images, kept_a_class=kept, val_a_class=a_class)
    assert found == {"train": trained_and_validated - classes * a_class, "val": classes * a_class, "test": test}
    assert sum(found.values()) == images


def test_official_validation_sets_are_taken_as_they_are():
    assert metrics(classes=47, images=1880, val=1880, test=1880) == {"train": 1880, "val": 1880, "test": 1880}


def test_a_share_of_unequal_classes_does_not_follow_from_their_number():
    result = SplitsRecipe(classes=196, images=8144, test=8041, val_percent=20, equal_classes=False).run(None)
    assert result.metrics == {"train": None, "val": None, "test": 8041}
    assert "the size of each class" in result.notes["val"]


def test_caltech_101_with_101_classes_would_have_other_sizes():
    with_101 = metrics(classes=101, images=8677, kept_a_class=30, val_a_class=5)
    assert with_101 == {"train": 2525, "val": 505, "test": 5647}


def test_sizes_are_of_paper_scale_and_of_one_seed():
    recipe = SplitsRecipe(classes=10, images=50_000, test=10_000, val_a_class=50)
    assert scale(recipe, "paper") == recipe
    assert seeds(recipe, "paper") == (0,)
    with pytest.raises(NotInProfileError):
        scale(recipe, "lab")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"classes": 0}, "classes above 0"),
        ({"images": 99}, "99 images are too few for 100 classes"),
        ({"test": -1}, "test of at least 0"),
        ({"test": 0}, "one rule gives the test set"),
        ({"kept_a_class": 3}, "one rule gives the test set"),
        ({"test": 0, "kept_a_class": 10, "images": 1000}, "leave none for testing"),
        ({"val": 10}, "one rule gives the validation set"),
        ({"val_a_class": 0}, "one rule gives the validation set"),
        ({"val_a_class": 500}, "leaves nothing for training"),
        ({"val_a_class": 0, "val_percent": 100}, "leaves nothing for training"),
    ],
)
def test_what_is_no_split_is_refused(wrong, sentence):
    with pytest.raises(EffbookError, match=sentence):
        make("cmsf-splits", **{"classes": 100, "images": 50_000, "test": 10_000, "val_a_class": 50, **wrong})
