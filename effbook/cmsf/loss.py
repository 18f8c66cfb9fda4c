"""The loss of mean shift (2.1.3): bring v near the mean of the query's positives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.cmsf.constraints import Positives
from effbook.training.bank import Bank

# L = sum_i 1/|S_i| sum_{z in S_i} v_i^T z, to be minimised, is what the text prints: a minus sign is missing. Here
# L = 1/B sum_i 1/|S_i| sum_{z in S_i} (2 - 2 v_i^T z), the mean squared distance of unit vectors.


def mean_shift_loss(v: Tensor, bank: Bank, positives: Positives) -> Tensor:
    """Mean over the batch and over each query's positives of 2 - 2 cos(v, z); a scalar with a gradient for v alone.

    v [B, D] or, with several crops, [crops, B, D], of unit length. A query without positives adds nothing.
    """
    means, real = target_means(bank, positives)
    distance = 2 - 2 * (v * means).sum(-1)  # [B] or [crops, B]; by linearity the mean over z of 2 - 2 v.z
    return torch.where(real, distance, torch.zeros_like(distance)).mean()


@torch.no_grad()
def target_means(bank: Bank, positives: Positives) -> tuple[Tensor, Tensor]:
    """The mean [B, D] of each query's positives, and whether it has any [B]; [B, k, D] is never formed."""
    counts = positives.mask.sum(dim=1)  # [B]
    weights = positives.mask.to(bank.embeddings.dtype) / counts.clamp(min=1)[:, None]
    if positives.positions is None:
        return weights @ bank.embeddings[: weights.shape[1]], counts > 0
    means = F.embedding_bag(positives.positions, bank.embeddings, per_sample_weights=weights, mode="sum")
    return means, counts > 0
