"""The weighted sum of NOLA adapters as one adapter, where there is one.

An adapter changes a weight by scale * (A0 + sum_i alpha_i A_i) (sum_j beta_j B_j). With a = (1, alpha), or a = alpha
where there is no A0, that is linear in the matrix of coefficients a beta^T, which has rank one. Adapters over the same
bases add up as these matrices do. So their weighted sum is a NOLA if sum_n w_n a_n beta_n^T has rank one again: with
one adapter, with equal (without A0: parallel) alphas, with parallel betas. Two adapters that were trained freely give
rank two: a sum of products that is no product of sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.nola.factors import SIDES, Factors

RANK_ONE = 1e-6  # the second singular value over the first: coefficients are float32
NO_MATTER = {"regenerate": False, "chunk": 1, "bits": None}  # settings that change no basis and no scale
APART = "scale each alone, add_weighted_adapter([name], [weight], new), and set the scaled ones active together"


def weighted(
    layers: Mapping[str, Mapping[str, Factors]], adapters: Sequence[str], weights: Sequence[float]
) -> dict[str, tuple[Tensor, Tensor]]:
    """By the layer's name, (alpha [k], beta [l]) of the NOLA whose change is the weighted sum of the adapters' there.

    `layers` holds each layer's adapters by name; a layer that has none of `adapters` is left out. float64. Raises
    EffbookError where the adapters differ in basis or scale, and where the sum has no NOLA.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    first: dict | None = None
    for name, factors in layers.items():
        here = [(factors[a], w) for a, w in zip(adapters, weights, strict=True) if a in factors]
        for one, _ in here:
            settings = asdict(replace(one.settings, **NO_MATTER))
            first = first or settings
            if differing := [key for key in settings if settings[key] != first[key]]:
                raise EffbookError(f"The adapters differ in {differing[0]}, so there is no common basis", APART)
        if here and (pair := _one_layer(*zip(*here, strict=True))) is None:
            raise EffbookError(f"At {name} the weighted sum has no NOLA: its coefficients have a rank above one", APART)
        if here:
            found[name] = pair
    return found


@torch.no_grad()
def _one_layer(adapters: Sequence[Factors], weights: Sequence[float]) -> tuple[Tensor, Tensor] | None:
    # coefficients() rounds where training is quantisation-aware: what is summed are the changes as they are
    alphas, betas = (
        torch.stack([f.coefficients(side).to(torch.float64) / f.bound[side] for f in adapters]) for side in SIDES
    )  # [N, k], [N, l]
    shifted = adapters[0].settings.init == "language"
    lefts = torch.cat([torch.ones_like(alphas[:, :1]), alphas], dim=1) if shifted else alphas  # a: [N, k (+ 1)]
    rights = betas * torch.tensor(weights, dtype=torch.float64, device=betas.device)[:, None]
    # The SVD of lefts^T rights, whose k x l entries are never formed
    q_left, r_left = torch.linalg.qr(lefts.T)
    q_right, r_right = torch.linalg.qr(rights.T)
    u, s, v = torch.linalg.svd(r_left @ r_right.T)
    if s[0] == 0:
        return alphas[0], torch.zeros_like(betas[0])
    if (s[1:] > RANK_ONE * s[0]).any():
        return None
    left, right = q_left @ u[:, 0], q_right @ v[0] * s[0]
    # left / t and right * t give the same for any t. A0 stands there once; without it alpha keeps its length and sign
    if not shifted:
        sign = -1.0 if left @ alphas[0] < 0 else 1.0
        t = sign / alphas.norm(dim=1).max()
        return left / t, right * t
    t = left[0]
    return None if t.abs() < RANK_ONE else (left[1:] / t, right * t)  # None: A0 has cancelled out
