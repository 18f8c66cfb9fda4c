from collections import Counter
from math import sqrt

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from effbook.errors import EffbookError
from effbook.evaluate.neighbours import knn_accuracy, knn_predict, neighbours, retrieval
from effbook.evaluate.vision import nearest_neighbour


def _drawn(n=60, m=40, classes=5, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, q = torch.randn(n, dim, generator=g), torch.randn(m, dim, generator=g) * 7
    return x, torch.randint(classes, (n,), generator=g), q, torch.randint(classes, (m,), generator=g)


def _digits():
    data = load_digits()
    x, y = torch.from_numpy(data.data).float(), torch.from_numpy(data.target)
    return x[:1200], y[:1200], x[1200:], y[1200:]


def _slow_neighbours(bank, query, k):
    """Indices by cosine in Python's floats; the earlier of equals first."""

    def cosine(a, b):
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        return dot / sqrt(sum(p * p for p in a) * sum(q * q for q in b))

    found = sorted(range(len(bank)), key=lambda i: (-cosine(bank[i].tolist(), query.tolist()), i))[:k]
    return found, [cosine(bank[i].tolist(), query.tolist()) for i in found]


def _slow_votes(bank, bank_y, query, k):
    nearest = [int(bank_y[i]) for i in _slow_neighbours(bank, query, k)[0]]
    count = Counter(nearest)
    most = max(count.values())
    return nearest, {c for c, n in count.items() if n == most}


@pytest.mark.parametrize("k", [1, 4, 20, 60])
def test_neighbours_equal_a_plain_loop(k):
    bank, _, queries, _ = _drawn()
    cosines, found = neighbours(bank, queries, k)
    assert cosines.shape == found.shape == (40, k)
    for query, row, values in zip(queries, found, cosines, strict=True):
        slow, slow_values = _slow_neighbours(bank, query, k)
        assert row.tolist() == slow
        np.testing.assert_allclose(values.numpy(), slow_values, atol=1e-6)


def test_of_equal_entries_the_earlier_stands_first():
    bank = torch.eye(4).repeat(3, 1)
    _, found = neighbours(bank, torch.eye(4), 3)
    assert found.tolist() == [[i, i + 4, i + 8] for i in range(4)]


@pytest.mark.parametrize("k", [1, 2, 6, 20])
def test_the_vote_equals_a_plain_count_with_ties_as_a_random_choice_on_average(k):
    bank, bank_y, queries, queries_y = _drawn()
    chance, predicted, ties = 0.0, [], 0
    for query, label in zip(queries, queries_y, strict=True):
        nearest, tied = _slow_votes(bank, bank_y, query, k)
        chance += (int(label) in tied) / len(tied)
        predicted.append(next(c for c in nearest if c in tied))
        ties += len(tied) > 1
    assert (ties > 0) == (k > 1)
    assert knn_accuracy(bank, bank_y, queries, queries_y, k=k) == pytest.approx(100 * chance / 40)
    assert knn_predict(bank, bank_y, queries, k=k).tolist() == predicted


@pytest.mark.parametrize("k", [1, 20])
def test_scikit_learn_predicts_the_same_wherever_no_classes_tie(k):
    train_x, train_y, test_x, test_y = _digits()
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train_x.double().numpy(), train_y.numpy())
    chances = np.sort(peer.predict_proba(test_x.double().numpy()), axis=1)
    clear = chances[:, -1] > chances[:, -2]
    assert clear.mean() > 0.97
    ours = knn_predict(train_x, train_y, test_x, k=k).numpy()
    theirs = peer.predict(test_x.double().numpy())
    np.testing.assert_array_equal(ours[clear], theirs[clear])
    right = 100 * np.mean((theirs == test_y.numpy())[clear])
    clear = torch.from_numpy(clear)
    assert knn_accuracy(train_x, train_y, test_x[clear], test_y[clear], k=k) == pytest.approx(right)


def test_one_neighbour_is_the_nearest_neighbour_and_recall_at_one():
    data = _digits()
    assert knn_accuracy(*data, k=1) == pytest.approx(nearest_neighbour(*data), abs=1e-9)
    assert retrieval(*data) == pytest.approx(nearest_neighbour(*data), abs=1e-9)


def test_the_numbering_of_the_classes_changes_nothing():
    bank, bank_y, queries, queries_y = _drawn()
    other = torch.tensor([3, 0, 4, 1, 2])
    expected = knn_accuracy(bank, bank_y, queries, queries_y, k=6)
    assert knn_accuracy(bank, other[bank_y], queries, other[queries_y], k=6) == pytest.approx(expected)
    assert torch.equal(knn_predict(bank, other[bank_y], queries, k=6), other[knn_predict(bank, bank_y, queries, k=6)])


def test_a_bank_finds_itself_and_all_of_a_bank_votes_for_its_most_common_class():
    bank, bank_y, queries, queries_y = _drawn()
    assert knn_accuracy(bank, bank_y, bank, bank_y, k=1) == 100.0
    bank_y[:25] = 2
    share = 100 * (queries_y == 2).double().mean().item()
    assert knn_accuracy(bank, bank_y, queries, queries_y, k=60) == pytest.approx(share)


def test_features_that_name_the_class_are_never_wrong():
    labels = torch.arange(5).repeat(30)
    x = torch.nn.functional.one_hot(labels).float()
    assert knn_accuracy(x, labels, x * 3, labels, k=20) == 100.0


def test_recall_counts_a_query_with_one_of_its_class_among_the_k():
    gallery, gallery_y, queries, queries_y = _drawn()
    for k in (1, 3, 10):
        hits = [
            int(y) in {int(gallery_y[i]) for i in _slow_neighbours(gallery, q, k)[0]}
            for q, y in zip(queries, queries_y, strict=True)
        ]
        assert retrieval(gallery, gallery_y, queries, queries_y, k=k) == pytest.approx(100 * np.mean(hits))
    assert retrieval(gallery, gallery_y, queries[:1], torch.tensor([9]), k=60) == 0.0  # a class the gallery lacks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 61}, "A bank of 60 cannot give 61 neighbours"),
        ({"k": 0}, "cannot give 0 neighbours"),
        ({"test_y": torch.full((40,), 5)}, "test labels reach from 5 to 5, outside 0 to 4"),
        ({"train_y": torch.full((60,), -1)}, "training labels reach from -1"),
        ({"test_x": torch.full((40, 6), float("inf"))}, "40 of 40 test features are not finite"),
        ({"test_x": torch.zeros(40, 5)}, "6 dimensions, the test features 5"),
        ({"test_y": torch.zeros(40)}, "float32 labels"),
    ],
)
def test_bad_input_is_told_in_one_sentence(change, message):
    given = dict(zip(("train_x", "train_y", "test_x", "test_y"), _drawn(), strict=True)) | {"k": 5, "classes": 5}
    with pytest.raises(EffbookError, match=message) as told:
        knn_accuracy(**(given | change))
    assert str(told.value).count(". ") == 0
