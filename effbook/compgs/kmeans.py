"""K-means as CompGS needs it: the two halves of an iteration apart, because one is dear and the other cheap.

Section 3.1.3: centres are averaged after every training iteration, assignments are found once every t iterations.
"""

import numpy as np
import torch
from torch import Tensor

from effbook.errors import EffbookError

BLOCK_BYTES = 256 * 2**20  # of distances held at once on a GPU


def assign(values: Tensor, codes: Tensor, *, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """The nearest code of each value in Euclidean distance: [N] of [N, D] against [K, D].

    On the CPU by faiss; elsewhere in blocks of rows, so that the memory needed is `block_bytes` and the result.
    """
    values, codes = values.detach(), codes.detach()
    if values.device.type != "cpu":
        return assign_in_blocks(values, codes, block_bytes=block_bytes)
    import faiss

    middle = codes.mean(0)
    index = faiss.IndexFlatL2(codes.shape[1])
    index.add(np.ascontiguousarray((codes - middle).float().numpy()))
    _, found = index.search(np.ascontiguousarray((values - middle).float().numpy()), 1)
    return torch.from_numpy(found[:, 0])


def assign_in_blocks(values: Tensor, codes: Tensor, *, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """What `assign` does on a GPU: argmin_k |c_k|^2 / 2 - x . c_k, some rows at a time.

    Both are moved by the codes' mean: far from the origin, the difference of two large numbers would tell little.
    """
    rows = max(1, block_bytes // (len(codes) * values.element_size()))
    middle = codes.mean(0)
    codes = codes - middle
    half_squares = 0.5 * codes.square().sum(1)  # [K]
    found = torch.empty(len(values), dtype=torch.int64, device=values.device)
    for start in range(0, len(values), rows):
        block = values[start : start + rows] - middle
        found[start : start + rows] = torch.addmm(half_squares, block, codes.T, alpha=-1).argmin(1)
    return found


def centres(values: Tensor, indices: Tensor, before: Tensor) -> Tensor:
    """The mean of each code's members, [K, D], of values [N, D]; a code without members stays where it was `before`."""
    values = values.detach()
    counts = torch.bincount(indices, minlength=len(before)).to(values)[:, None]  # [K, 1]
    sums = torch.zeros_like(before).index_add_(0, indices, values)
    return torch.where(counts > 0, sums / counts.clamp(min=1), before)


def reseed(values: Tensor, codes: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Give codes [K, D] without members the values [N, D] that are farthest from theirs: new codes, new indices [N].

    A value that equals its code is never moved: with fewer different values than codes, some codes stay empty.
    """
    values = values.detach()
    empty = torch.nonzero(torch.bincount(indices, minlength=len(codes)) == 0).squeeze(1)
    if len(empty) == 0:
        return codes, indices
    errors = (values - codes[indices]).square().sum(1)  # [N]
    worst = errors.topk(min(len(empty), len(errors))).indices
    worst = worst[errors[worst] > 0]
    empty = empty[: len(worst)]
    codes, indices = codes.clone(), indices.clone()
    codes[empty] = values[worst]
    indices[worst] = empty
    return codes, indices


def first_codes(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different rows of values [N, D] as first codes [K, D]. Raises EffbookError for more codes than values."""
    if count > len(values):
        raise EffbookError(
            f"a codebook of {count:,} codes is larger than the {len(values):,} Gaussians", "choose a smaller codebook"
        )
    chosen = torch.randperm(len(values), generator=generator, device=generator.device)[:count].to(values.device)
    return values.detach()[chosen].clone()


def cluster(values: Tensor, count: int, *, iterations: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Plain K-means of values [N, D]: codes [K, D] and indices [N] after so many iterations."""
    codes = first_codes(values, count, generator)
    indices = assign(values, codes)
    for _ in range(iterations):
        codes, indices = reseed(values, codes, indices)
        codes = centres(values, indices, codes)
        indices = assign(values, codes)
    return codes, indices
