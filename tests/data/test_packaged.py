"""The real packages, where they are in the cache: counts, checksums and the first items."""

import hashlib

import numpy as np
import pytest

from effbook import data

pytestmark = pytest.mark.data


@pytest.fixture
def cached(request):
    def need(name):
        if not data.is_cached(name):
            pytest.skip(f"{name} is not in the cache: effbook data fetch {name}")

    return need


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "digits", "wordnet", "vit-s14", "smollm2-135m"])
def test_what_is_cached_verifies_without_complaint(cached, name):
    cached(name)
    assert data.verify(name) == []


def test_cifar10_rebuilds_the_authors_first_batch_bit_for_bit(cached):
    cached("cifar10")
    train, test = data.load_images("cifar10", "train"), data.load_images("cifar10", "test")
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    planes = train.images[:10000].transpose(0, 3, 1, 2).reshape(10000, 3072)
    batch = np.concatenate([train.labels[:10000, None].astype(np.uint8), planes], axis=1)
    # The checksum that the authors' own data_batch_1.bin has.
    md5 = hashlib.md5(batch.tobytes(), usedforsecurity=False).hexdigest()
    assert md5 == "5dd7e06a14cb22eb9f671a540d1b7c25"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_mnists_hold_sixty_and_ten_thousand_images(cached, name):
    cached(name)
    shapes = [data.load_images(name, split).images.shape for split in ("train", "test")]
    assert shapes == [(60000, 28, 28), (10000, 28, 28)]


@pytest.mark.slow
def test_webnlg_holds_the_challenges_splits(cached):
    cached("webnlg")
    assert data.verify("webnlg") == []
    test = data.load_pairs("webnlg", "test")
    parts = [data.load_pairs("webnlg", f"test-{part}") for part in ("seen", "unseen")]
    assert [len(part) for part in parts] == [971, 891]
    assert len(test) == 1862
    assert len({pair.category for pair in data.load_pairs("webnlg", "train")}) == 10
    assert len({pair.category for pair in test}) == 15


def test_e2e_groups_its_references(cached):
    cached("e2e")
    pairs = data.load_pairs("e2e", "test")
    assert len(pairs) == 630
    assert sum(len(pair.references) for pair in pairs) == 4693


def test_wordnet_holds_its_synsets(cached):
    cached("wordnet")
    folder = data.fetch("wordnet")
    for version, synsets in (("3.0", 117_659), ("3.1", 117_791)):
        lines = 0
        for part in ("adj", "adv", "noun", "verb"):
            text = (folder / version / f"data.{part}").read_text(encoding="utf-8")
            lines += sum(not line.startswith("  ") for line in text.splitlines())
        assert lines == synsets
