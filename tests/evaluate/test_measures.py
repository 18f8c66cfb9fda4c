import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from effbook.errors import EffbookError
from effbook.evaluate.measures import MEASURES, mean_per_class, top_k_accuracy
from effbook.evaluate.vision import accuracy


def _drawn(n=200, classes=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    weights = torch.arange(1.0, classes + 1)  # classes of unequal size
    return torch.randn(n, classes, generator=g), torch.multinomial(weights, n, replacement=True, generator=g)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_agrees_with_scikit_learn(k):
    logits, labels = _drawn()
    expected = 100 * top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(7))
    assert top_k_accuracy(logits, labels, k=k) == pytest.approx(expected, abs=1e-9)


def test_top_1_is_accuracy_and_the_top_of_all_classes_is_everything():
    logits, labels = _drawn()
    assert top_k_accuracy(logits, labels, k=1) == accuracy(logits, labels) == MEASURES["top1"](logits, labels)
    assert top_k_accuracy(logits, labels, k=7) == 100.0


def test_between_equal_logits_the_lower_class_comes_first():
    assert top_k_accuracy(torch.zeros(4, 4), torch.arange(4), k=1) == 25.0
    assert top_k_accuracy(torch.zeros(4, 4), torch.arange(4), k=3) == 75.0


def test_the_mean_over_classes_agrees_with_scikit_learn_and_a_plain_loop():
    logits, labels = _drawn()
    predicted = logits.argmax(1)
    expected = 100 * balanced_accuracy_score(labels.numpy(), predicted.numpy())
    loop = np.mean([np.mean([p == c for p, y in zip(predicted, labels, strict=True) if y == c]) for c in range(7)])
    assert mean_per_class(logits, labels) == pytest.approx(expected, abs=1e-9)
    assert mean_per_class(logits, labels) == pytest.approx(100 * loop, abs=1e-9)


def test_the_mean_over_classes_of_equal_size_is_accuracy_and_absent_classes_do_not_count():
    logits, _ = _drawn()
    labels = torch.arange(5).repeat(40)  # classes 5 and 6 never occur
    assert mean_per_class(logits, labels) == pytest.approx(accuracy(logits, labels), abs=1e-9)


def test_a_rare_class_weighs_as_much_as_a_common_one():
    logits = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    labels = torch.tensor([0] * 9 + [1])
    assert accuracy(logits, labels) == pytest.approx(90.0)
    assert mean_per_class(logits, labels) == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        (torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]), 1, "not finite"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), 1, "outside 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0]), 1, "do not go with"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), 4, "top 4 of 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(logits, labels, k, message):
    with pytest.raises(EffbookError, match=message):
        top_k_accuracy(logits, labels, k=k)
    if k == 1:
        with pytest.raises(EffbookError, match=message):
            mean_per_class(logits, labels)
