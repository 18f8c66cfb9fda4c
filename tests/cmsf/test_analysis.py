"""Purity, ranks and pseudo-labels against counting by hand."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from effbook.cmsf.analysis import label_score, purity, ranks
from effbook.cmsf.constraints import Positives, SameLabel, Unconstrained
from effbook.training.bank import Bank


def filled(size=20, batch=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    bank = Bank(size, 4)
    for step in range(3):  # the last quarter stays empty
        u = F.normalize(torch.randn(batch, 4, generator=draw), dim=1)
        index = torch.arange(step * batch, (step + 1) * batch).flip(0)
        positions = bank.enqueue(u, index, index % 2)
    return bank, positions


TRUTH = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, -1, 2])


def test_purity_counts_with_and_without_the_query():
    bank, positions = filled()
    for constraint in (Unconstrained(k=4), SameLabel(k=None)):
        positives = constraint(bank, positions)
        counted = {True: [], False: []}
        for row, q in enumerate(positions.tolist()):
            places = positives.mask[row].nonzero().flatten().tolist()
            places = places if positives.positions is None else positives.positions[row].tolist()
            for j in places:
                pair = int(TRUTH[bank.index[q]]), int(TRUTH[bank.index[j]])
                if -1 in pair:
                    continue
                counted[True].append(pair[0] == pair[1])
                if j != q:
                    counted[False].append(pair[0] == pair[1])
        found = purity(bank, positions, positives, TRUTH)
        assert found.with_query == pytest.approx(100 * statistics.mean(counted[True]))
        assert found.without_query == pytest.approx(100 * statistics.mean(counted[False]))
        assert found.with_query > found.without_query


def test_a_query_alone_has_no_purity_without_itself():
    bank, positions = filled()
    found = purity(bank, positions, Unconstrained(k=1)(bank, positions), TRUTH)
    assert found.with_query == 100.0
    assert math.isnan(found.without_query)


def test_ranks_are_places_in_the_whole_bank():
    bank, positions = filled()
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[0, 2] = False
    positives = Positives(torch.stack([positions, torch.arange(5), torch.arange(5, 10)], dim=1), mask)
    every, thirds = [], []
    for row, q in enumerate(positions.tolist()):
        cosines = (bank.embeddings[:15] @ bank.embeddings[q]).tolist()
        cosines[q] = math.inf
        own = [sum(c > cosines[j] for c in cosines) for j in positives.positions[row][mask[row]].tolist()]
        every += own
        thirds += sorted(own)[2:3]
    found = ranks(bank, positions, positives, nth=3, bins=8)
    assert found.median == statistics.median(every)
    assert found.nth_median == statistics.median(thirds)
    assert found.histogram.tolist() == [thirds.count(rank) for rank in range(8)]
    assert found.beyond == sum(rank >= 8 for rank in thirds)
    assert len(thirds) == 4


def test_neighbours_of_mean_shift_have_the_first_ranks():
    bank, positions = filled()
    found = ranks(bank, positions, Unconstrained(k=5)(bank, positions))
    assert (found.median, found.nth_median, found.beyond) == (2.0, 4.0, 0)
    assert found.histogram[4] == 5


def test_fewer_positives_than_the_nth_give_no_rank():
    bank, positions = filled()
    found = ranks(bank, positions, Unconstrained(k=3)(bank, positions))
    assert math.isnan(found.nth_median)
    assert int(found.histogram.sum()) == 0


def test_pseudo_labels_are_judged_where_they_are_given():
    found = label_score(torch.tensor([0, 1, -1, 2]), torch.tensor([0, 2, 1, 2]))
    assert found.right == pytest.approx(200 / 3)
    assert found.given == 75.0
    assert math.isnan(label_score(torch.tensor([-1]), torch.tensor([0])).right)
