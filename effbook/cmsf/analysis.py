"""What is recorded while training: purity of the positives, their rank in the whole bank, right pseudo-labels.

Plain functions over a bank, the queries' positions [B] in it and their positives. `truth` [N] is the true label of each
training image, -1 where unknown; the bank knows which image each entry is of.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from effbook.cmsf.constraints import Positives
from effbook.training.bank import Bank


class Purity(NamedTuple):
    """Percentage of the positives whose true class is the query's; NaN where there are none."""

    with_query: float  # as the released code counts: the query is among its own positives
    without_query: float


class Ranks(NamedTuple):
    """Ranks in the whole bank of the positives of all queries, and of each query's `nth`; the query has rank 0."""

    median: float
    histogram: Tensor  # [bins] counts of the nth's ranks 0..bins - 1
    nth_median: float
    beyond: int  # how many nth positives have a rank of `bins` or more


@torch.no_grad()
def purity(bank: Bank, positions: Tensor, positives: Positives, truth: Tensor) -> Purity:
    """How many positives share the query's true class, with and without the query itself (2.1.3, Figure 2.5)."""
    truth = truth.to(bank.index.device)
    theirs, mask = _of_positives(truth[bank.index[: bank.filled]], positives), positives.mask
    own = truth[bank.index[positions]][:, None]  # [B, 1]
    mask = mask & (theirs >= 0) & (own >= 0)
    right, others = theirs == own, ~_is_query(bank, positions, positives)
    return Purity(_share(right, mask), _share(right, mask & others))


@torch.no_grad()
def ranks(bank: Bank, positions: Tensor, positives: Positives, *, nth: int = 5, bins: int = 100) -> Ranks:
    """Where the positives stand among all entries of M, by similarity to u (Table 2.1 right, Table 2.3, Figure 2.5).

    The `nth` positive is the nth nearest to u among the query's positives, itself the first; queries with fewer have no
    part in its figures. One matrix product and one sort, [B, filled] each.
    """
    similarity = bank.embeddings[positions] @ bank.embeddings[: bank.filled].T
    similarity.scatter_(1, positions[:, None], math.inf)
    order = similarity.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(bank.filled, device=order.device).expand_as(order))
    found = (rank if positives.positions is None else rank.gather(1, positives.positions)).cpu()
    mask = positives.mask.cpu()
    sorted_ranks = found.masked_fill(~mask, bank.filled).sort(dim=1).values
    nths = sorted_ranks[mask.sum(dim=1) >= nth, nth - 1] if sorted_ranks.shape[1] >= nth else sorted_ranks[:0, 0]
    histogram = torch.bincount(nths[nths < bins], minlength=bins)
    return Ranks(_median(found[mask]), histogram, _median(nths), int((nths >= bins).sum()))


class LabelScore(NamedTuple):
    """Percentage right of the labels that were given, and percentage of the images that got one."""

    right: float
    given: float


def label_score(labels: Tensor, truth: Tensor) -> LabelScore:
    """Judge pseudo-labels [B] (-1: none) by the true ones [B] (Figure A.1). Leave out images whose truth was shown."""
    given = labels >= 0
    return LabelScore(_share(labels == truth.to(labels.device), given), _share(given, torch.ones_like(given)))


def _of_positives(values: Tensor, positives: Positives) -> Tensor:
    """What each positive has of a value [filled] of the bank's entries: [B, k]."""
    return values.expand_as(positives.mask) if positives.positions is None else values[positives.positions]


def _is_query(bank: Bank, positions: Tensor, positives: Positives) -> Tensor:
    where = torch.arange(bank.filled, device=positions.device)
    return _of_positives(where, positives) == positions[:, None]


def _share(of: Tensor, mask: Tensor) -> float:
    count = int(mask.sum())
    return 100.0 * int((of & mask).sum()) / count if count else math.nan


def _median(values: Tensor) -> float:
    return float(values.double().quantile(0.5)) if 0 < values.numel() <= 2**24 else math.nan
