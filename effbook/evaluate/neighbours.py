"""Nearest neighbours by cosine, by exact search: classification by vote (k = 1 and 20 in 2.1.4), and retrieval.

The vote is a plain majority, as in CompRess and MSF, whose evaluation the dissertation follows: no weight by
similarity, no temperature. Their code breaks a tie between classes at random. Here a tie is never drawn:
`knn_accuracy` counts the expected value of that draw (one of t tied classes is right with chance 1 / t), which no seed
and no numbering of the classes can change; `knn_predict`, which must name one class, names the nearest of the tied.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_features, check_labels, check_pairs, class_count


def neighbours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k entries of bank [N, D] nearest to each of queries [M, D]: cosines [M, k], falling, and indices [M, k].

    Between equal cosines the lower index stands first. Both results are on the CPU. Raises `EffbookError` where k is
    below 1 or above N, where the widths differ, or where a feature is not finite.
    """
    check_features(bank, "bank's")
    check_features(queries, "queries'")
    if bank.shape[1] != queries.shape[1]:
        raise EffbookError(
            f"The bank has {bank.shape[1]} dimensions, the queries {queries.shape[1]}", "take both from one network"
        )
    if not 1 <= k <= len(bank):
        raise EffbookError(f"A bank of {len(bank)} cannot give {k} neighbours", f"choose a k from 1 to {len(bank)}")
    import faiss

    sides = [np.ascontiguousarray(F.normalize(x.detach().float(), dim=1).cpu().numpy()) for x in (queries, bank)]
    cosines, found = faiss.knn(*sides, k, metric=faiss.METRIC_INNER_PRODUCT)
    order = np.lexsort((found, -cosines))  # faiss leaves the order among equals open
    ordered = [np.take_along_axis(each, order, axis=1) for each in (cosines, found)]
    return torch.from_numpy(ordered[0]), torch.from_numpy(ordered[1])


def _votes(nearest: Tensor, classes: int) -> Tensor:
    """How many of the neighbours' labels [M, k] are of each class: [M, C]."""
    count = torch.zeros(len(nearest), classes, dtype=torch.int32)
    return count.scatter_add_(1, nearest, torch.ones_like(nearest, dtype=torch.int32))


def knn_predict(bank: Tensor, bank_y: Tensor, queries: Tensor, *, k: int, classes: int | None = None) -> Tensor:
    """The class that most of the k nearest entries of bank [N, D] have, for each of queries [M, D]: [M].

    Of tied classes it is the one with the nearest entry. Raises `EffbookError` as `neighbours` does, and where a label
    lies outside 0 ... classes - 1.
    """
    classes = class_count(bank_y, classes)
    check_labels(bank_y, len(bank), classes, "bank's")
    nearest = bank_y.cpu().long()[neighbours(bank, queries, k)[1]]  # [M, k], nearest first
    support = _votes(nearest, classes).gather(1, nearest)  # [M, k]: the votes for each neighbour's class
    first = (support == support.amax(dim=1, keepdim=True)).int().argmax(dim=1, keepdim=True)
    return nearest.gather(1, first)[:, 0]


def knn_accuracy(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, k: int, classes: int | None = None
) -> float:
    """Expected accuracy in percent of the k nearest training features' majority, ties broken at random (2.1.4).

    Training features [N, D] with labels [N], test features [M, D] with labels [M]. Raises `EffbookError` where k is
    below 1 or above N, a feature is not finite or a label lies outside 0 ... classes - 1.
    """
    classes = check_pairs(train_x, train_y, test_x, test_y, classes)
    right, nearest = 0.0, train_y.cpu().long()[neighbours(train_x, test_x, k)[1]]  # [M, k]
    for part, labels in zip(nearest.split(4096), test_y.cpu().long().split(4096), strict=True):
        votes = _votes(part, classes)
        tied = votes == votes.amax(dim=1, keepdim=True)  # [B, C]
        right += (tied.gather(1, labels[:, None])[:, 0].double() / tied.sum(dim=1)).sum().item()
    return 100.0 * right / len(test_y)


def retrieval(gallery_x: Tensor, gallery_y: Tensor, query_x: Tensor, query_y: Tensor, *, k: int = 1) -> float:
    """R@k in percent: queries [M, D] with one of their own class among the k nearest of gallery [N, D] (Table A.4).

    The gallery is another split than the queries: a query that lies in it finds itself. Raises `EffbookError` as
    `knn_accuracy` does.
    """
    classes = max(class_count(gallery_y, None), class_count(query_y, None))  # a query's class may be missing
    check_pairs(gallery_x, gallery_y, query_x, query_y, classes, what="query")
    nearest = gallery_y.cpu().long()[neighbours(gallery_x, query_x, k)[1]]
    return 100.0 * (nearest == query_y.cpu().long()[:, None]).any(dim=1).double().mean().item()
