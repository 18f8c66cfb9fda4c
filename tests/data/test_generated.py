"""The data that we draw ourselves is the same everywhere and good for its purpose."""

import numpy as np

from effbook import data


def test_generated_data_needs_no_fetching_and_is_what_the_manifest_pins():
    for name in ("toy-shapes", "toy-pairs"):
        assert data.is_cached(name)
        assert data.verify(name) == []


def test_the_shapes_are_balanced_and_leave_the_global_random_state_alone():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    train, test = data.load_images("toy-shapes", "train"), data.load_images("toy-shapes", "test")
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert train.images.shape == (500, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [50] * 10
    assert np.bincount(test.labels).tolist() == [20] * 10
    assert len(train.classes) == 10
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_a_caller_may_change_its_copy_of_the_shapes():
    first = data.load_images("toy-shapes", "test")
    first.images[:] = 0
    assert data.load_images("toy-shapes", "test").images.any()


def test_the_shapes_can_be_learned_but_not_by_their_mean_colour_alone():
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    train, test = data.load_images("toy-shapes", "train"), data.load_images("toy-shapes", "test")
    flat = [part.images.reshape(len(part), -1) / 255 for part in (train, test)]
    means = [part.images.mean((1, 2)) / 255 for part in (train, test)]
    learned = KNeighborsClassifier(5).fit(flat[0], train.labels).score(flat[1], test.labels)
    by_colour = LogisticRegression(max_iter=1000).fit(means[0], train.labels).score(means[1], test.labels)
    assert learned > 0.35  # chance is 0.1
    assert by_colour < learned


def test_no_toy_source_is_in_two_splits():
    parts = [{pair.source for pair in data.load_pairs("toy-pairs", split)} for split in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [200, 40, 40]
    assert len(set.union(*parts)) == 280
    assert all(len(pair.references) == 3 for pair in data.load_pairs("toy-pairs", "test"))
