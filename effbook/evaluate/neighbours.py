"""Classification and retrieval by nearest neighbours, searched with faiss (2.1.4: k = 1 and 20, by cosine)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError
from effbook.evaluate.vision import accuracy


def neighbours(bank: Tensor, queries: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Cosines [M, k] and positions [M, k] of the k entries of the bank [N, D] nearest to each query [M, D].

    The nearest come first. The search is exact. Raises EffbookError where shapes do not fit, the bank is smaller than
    k, or a feature isn't finite.
    """
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1] or not len(queries):
        raise EffbookError(
            f"queries {tuple(queries.shape)} cannot be searched in a bank {tuple(bank.shape)}",
            "give features [M, D] and [N, D]",
        )
    if not 1 <= k <= len(bank):
        raise EffbookError(f"{k} neighbours cannot be taken from {len(bank)} features", "choose a smaller k")
    if not (torch.isfinite(bank).all() and torch.isfinite(queries).all()):
        raise EffbookError("a feature is nan or inf", "look for the step at which training diverged")
    import faiss

    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(_unit(bank))
    cosines, positions = index.search(_unit(queries), k)
    return torch.from_numpy(cosines), torch.from_numpy(positions)


def knn_accuracy(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, k: int) -> float:
    """Percentage of test features [M, D] whose k nearest training features [N, D] vote for the right class.

    Each neighbour has one vote; among classes with as many votes the lowest wins, as in scikit-learn. Raises
    EffbookError as `neighbours` does, and where features and labels differ in number.
    """
    if len(train_x) != len(train_y):
        raise EffbookError(f"{len(train_x)} features have {len(train_y)} labels", "give one label for each")
    _, positions = neighbours(train_x, test_x, k=k)
    votes = F.one_hot(train_y.cpu().long()[positions], int(max(train_y.max(), test_y.max())) + 1).sum(1)  # [M, C]
    return accuracy(votes, test_y.cpu())


def recall_at_1(queries_x: Tensor, queries_y: Tensor, bank_x: Tensor, bank_y: Tensor) -> float:
    """Percentage of queries whose nearest entry of the bank is of their class (Table A.4)."""
    return knn_accuracy(bank_x, bank_y, queries_x, queries_y, k=1)


def _unit(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(F.normalize(x.detach().float(), dim=1).cpu().numpy())
