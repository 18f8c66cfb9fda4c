"""Constraints against twins written from the text, and the cases in which they are known methods."""

import math

import pytest
import torch
import torch.nn.functional as F

from effbook.cmsf import constraints
from effbook.cmsf.constraints import (
    TILE,
    ConfidentPseudoLabel,
    OtherModality,
    PreviousEpoch,
    QueryAlone,
    SameLabel,
    ThirdView,
    Unconstrained,
)
from effbook.errors import EffbookError
from effbook.training.bank import Bank

SIZE, DIM, BATCH = 24, 5, 4


def filled_bank(*, batches=6, seed=0, classes=3, known=0.8, labelled=1.0, second_dim=DIM):
    """A bank in which `batches` have been put, and the positions of the last one."""
    draw = torch.Generator().manual_seed(seed)
    bank = Bank(SIZE, DIM, second_dim=second_dim, seed=seed)
    for step in range(batches):
        u, w = (F.normalize(torch.randn(BATCH, d, generator=draw), dim=1) for d in (DIM, second_dim))
        label = torch.randint(classes, (BATCH,), generator=draw)
        label[torch.rand(BATCH, generator=draw) >= labelled] = -1
        have = torch.rand(BATCH, generator=draw) < known
        index = torch.arange(step * BATCH, (step + 1) * BATCH)
        positions = bank.enqueue(u, index, label, second=w, known=have)
    return bank, positions


def sets(positives):
    """The positives of each query, as sets of positions."""
    if positives.positions is None:
        return [set(row.nonzero().flatten().tolist()) for row in positives.mask]
    pairs = zip(positives.positions.tolist(), positives.mask.tolist(), strict=True)
    return [{p for p, real in zip(*pair, strict=True) if real} for pair in pairs]


# ------------------------------------------------------------------------------- the twin: loops over the whole bank


def closest(vector, vectors, candidates, k, own=None):
    """The k of the candidates whose vectors have the largest cosine; `own` first."""
    cosines = []
    for c in candidates:
        dot = sum(float(a) * float(b) for a, b in zip(vector, vectors[c], strict=True))
        cosines.append((-math.inf if c == own else -dot, c))
    return {c for _, c in sorted(cosines)[:k]}


def real_entries(bank):
    return [j for j in range(SIZE) if int(bank.index[j]) >= 0]


def twin(kind, bank, q, *, k, k_prime=None, target_included=True):
    """S_q of section 2.1.3 for one query at position q."""
    real, u, label = real_entries(bank), bank.embeddings, int(bank.label[q])
    if kind == "none":
        return closest(u[q], u, real, k, q)
    if kind == "second":
        candidates = [j for j in real if bool(bank.known[j])] if bool(bank.known[q]) else []
        allowed = closest(bank.second[q], bank.second, {*candidates, q}, k_prime, q)
        return closest(u[q], u, allowed, k, q)
    if kind == "pseudo" and label == -1:
        return closest(u[q], u, real, k, q)
    allowed = {j for j in real if int(bank.label[j]) == label and label >= 0} | {q}
    if not target_included:
        allowed -= {q}
    return closest(u[q], u, allowed, len(allowed) if k is None else k, q)


CASES = {
    "Unconstrained": (Unconstrained(k=4), "none", {"k": 4}),
    "PreviousEpoch, k = k'": (PreviousEpoch(k=4, k_prime=4), "second", {"k": 4, "k_prime": 4}),
    "PreviousEpoch, k < k'": (PreviousEpoch(k=3, k_prime=7), "second", {"k": 3, "k_prime": 7}),
    "ThirdView": (ThirdView(k=3, k_prime=5), "second", {"k": 3, "k_prime": 5}),
    "OtherModality": (OtherModality(k=3, k_prime=6), "second", {"k": 3, "k_prime": 6}),
    "SameLabel": (SameLabel(k=4), "label", {"k": 4}),
    "SameLabel, all": (SameLabel(k=None), "label", {"k": None}),
    "SameLabel, no target": (SameLabel(k=4, target_included=False), "label", {"k": 4, "target_included": False}),
    "SameLabel, all but the target": (
        SameLabel(k=None, target_included=False), "label", {"k": None, "target_included": False}),
    "ConfidentPseudoLabel": (ConfidentPseudoLabel(k=4), "pseudo", {"k": 4}),
}  # fmt: skip


@pytest.mark.parametrize("tile", [TILE, 7, 1])  # the bank at once, or piece by piece
@pytest.mark.parametrize("name", CASES)
def test_positives_are_those_of_the_text(name, tile, monkeypatch):
    monkeypatch.setattr(constraints, "TILE", tile)
    constraint, kind, options = CASES[name]
    for seed, batches in ((0, 1), (1, 2), (2, 6), (3, 8)):
        bank, positions = filled_bank(batches=batches, seed=seed, labelled=0.8, second_dim=DIM + 1)
        expected = [twin(kind, bank, int(q), **options) for q in positions]
        assert sets(constraint(bank, positions)) == expected, (name, seed)


# ------------------------------------------------------------------------------- known methods


def test_one_neighbour_is_the_query_alone_which_is_byol():
    bank, positions = filled_bank(labelled=0.5)
    byol = QueryAlone()(bank, positions)
    assert torch.equal(byol.positions[:, 0], positions)
    for one in (Unconstrained(k=1), PreviousEpoch(k=1, k_prime=1), PreviousEpoch(k=1, k_prime=9), SameLabel(k=1),
                ConfidentPseudoLabel(k=1)):  # fmt: skip
        found = one(bank, positions)
        assert torch.equal(found.positions, byol.positions)
        assert torch.equal(found.mask, byol.mask)


def test_one_neighbour_is_the_query_also_where_the_bank_holds_its_double():
    bank, positions = filled_bank()
    bank.embeddings[0] = bank.embeddings[positions[0]]
    bank.embeddings[1] = bank.embeddings[positions[0]] * 1.000001  # of a norm that rounding could give
    assert torch.equal(Unconstrained(k=1)(bank, positions).positions[:, 0], positions)


def same(left, right):
    return torch.equal(left.positions, right.positions) and torch.equal(left.mask, right.mask)


def test_the_previous_epoch_without_a_limit_is_mean_shift():
    bank, positions = filled_bank(known=2.0)
    assert same(PreviousEpoch(k=4, k_prime=SIZE)(bank, positions), Unconstrained(k=4)(bank, positions))


def test_one_label_for_all_is_mean_shift():
    bank, positions = filled_bank(classes=1)
    assert same(SameLabel(k=4)(bank, positions), Unconstrained(k=4)(bank, positions))


def test_top_all_is_as_many_as_the_class_has():
    bank, positions = filled_bank()
    found = sets(SameLabel(k=None)(bank, positions))
    for row, position in enumerate(positions.tolist()):
        size = int((bank.label == bank.label[position]).sum())
        assert len(found[row]) == size
        assert sets(SameLabel(k=size)(bank, positions))[row] == found[row]


def test_pseudo_labels_are_labels_where_all_are_known_and_nothing_where_none_is():
    bank, positions = filled_bank()
    assert same(ConfidentPseudoLabel(k=4)(bank, positions), SameLabel(k=4)(bank, positions))
    bank, positions = filled_bank(labelled=-1.0)
    assert same(ConfidentPseudoLabel(k=4)(bank, positions), Unconstrained(k=4)(bank, positions))


# ------------------------------------------------------------------------------- what must never be a neighbour


def test_fillers_never_stand_as_neighbours():
    bank, positions = filled_bank(batches=2, known=2.0)
    bank.embeddings[8:] = bank.embeddings[positions[0]]  # the fillers would be the nearest
    bank.second[8:] = bank.second[positions[0]]
    for constraint in (Unconstrained(k=10), PreviousEpoch(k=10, k_prime=10), ConfidentPseudoLabel(k=10)):
        assert all(found <= set(range(8)) for found in sets(constraint(bank, positions)))


def test_a_query_without_an_older_embedding_stands_alone():
    bank, positions = filled_bank(known=2.0)
    bank.known[positions[0]] = False
    found = sets(PreviousEpoch(k=3, k_prime=3)(bank, positions))
    assert found[0] == {int(positions[0])}
    assert all(len(one) == 3 for one in found[1:])


def test_a_small_class_gives_fewer_positives_and_no_other_class():
    bank, positions = filled_bank(classes=1)
    bank.label[[2, int(positions[0])]] = 7
    found = SameLabel(k=5)(bank, positions)
    assert sets(found)[0] == {2, int(positions[0])}
    assert found.mask.sum(dim=1).tolist() == [2, 5, 5, 5]


def test_impossible_constraints_are_refused():
    for wrong in (
        lambda: Unconstrained(k=0),
        lambda: PreviousEpoch(k=5, k_prime=4),
        lambda: OtherModality(k=11, k_prime=10),
        lambda: SameLabel(k=0),
        lambda: ConfidentPseudoLabel(k=5, threshold=1.5),
    ):
        with pytest.raises(EffbookError):
            wrong()
