import pytest
import torch

from effbook.cmsf.noise import coarsen, corrupt
from effbook.errors import EffbookError

LABELS = torch.arange(1000) % 10


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 1.0])
def test_a_share_of_the_labels_is_changed_to_other_classes_that_exist(share):
    noisy = corrupt(LABELS, share, classes=10, seed=3)
    assert (noisy != LABELS).sum() == round(share * 1000)
    assert noisy.min() >= 0
    assert noisy.max() <= 9


def test_no_noise_changes_nothing():
    assert torch.equal(corrupt(LABELS, 0.0, classes=10, seed=3), LABELS)


def test_every_other_class_is_as_likely():
    labels = torch.full((9000,), 4)
    counts = torch.bincount(corrupt(labels, 1.0, classes=10, seed=0), minlength=10)
    assert counts[4] == 0
    expected = 1000.0
    chi2 = ((counts[torch.arange(10) != 4] - expected) ** 2 / expected).sum()
    assert chi2 < 26.1  # 0.1 % of draws exceed it with 8 degrees of freedom


def test_more_noise_of_one_seed_keeps_what_less_noise_changed():
    less, more = corrupt(LABELS, 0.1, classes=10, seed=5), corrupt(LABELS, 0.5, classes=10, seed=5)
    changed = less != LABELS
    assert torch.equal(more[changed], less[changed])
    assert not torch.equal(corrupt(LABELS, 0.1, classes=10, seed=6), less)
    assert torch.equal(corrupt(LABELS, 0.1, classes=10, seed=5), less)


def test_the_given_labels_and_the_global_state_stay():
    before, state = LABELS.clone(), torch.get_rng_state()
    corrupt(LABELS, 0.5, classes=10, seed=0)
    assert torch.equal(LABELS, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("share", "classes"), [(-0.1, 10), (1.1, 10), (float("nan"), 10), (0.5, 1), (0.5, 9)], ids=str)
def test_impossible_noise_is_refused(share, classes):
    with pytest.raises(EffbookError):
        corrupt(LABELS, share, classes=classes, seed=0)


@pytest.mark.parametrize("parents", [[1, 0, 0, 1], {0: 1, 1: 0, 2: 0, 3: 1}])
def test_coarse_labels_follow_the_map_and_no_label_stays_none(parents):
    fine = torch.tensor([3, -1, 0, 2, 1, 3])
    assert coarsen(fine, parents).tolist() == [1, -1, 1, 0, 0, 1]


def test_a_class_without_a_parent_is_named():
    with pytest.raises(EffbookError, match="class 3"):
        coarsen(torch.tensor([0, 3]), [0, 0, 1])
