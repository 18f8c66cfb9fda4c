"""One form of many that draw the same Gaussian: axes from long to short, the smallest turn, opacity as a logarithm.

A Gaussian with its axes in another order and turned accordingly is the same, and so is one turned by half a turn about
an axis of its own: of these 24 the codec keeps one, which saves log2 24 = 4.6 bits.
"""

import itertools
import math

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.model import Gaussians

MOST_LOGIT = 20.0  # its sigmoid is 1 in float32
LEAST_SCALE = -20.0


def clamped(scene: Gaussians) -> tuple[Gaussians, dict[str, int]]:
    """The scene in float32 on the CPU with infinite logits and scales of -inf moved to +-20, and how many there were.

    Raises EffbookError for NaN, and for values that are infinite elsewhere.
    """
    scene = scene.map(lambda t: t.detach().cpu().float())
    opacities, scales = scene.opacities, scene.scales
    endless, flat = torch.isinf(opacities), torch.isneginf(scales)
    moved = {"opacities": int(endless.sum()), "scales": int(flat.sum())}
    if any(moved.values()):
        parts = scene.tensors()
        parts["opacities"] = torch.where(endless, opacities.sign() * MOST_LOGIT, opacities)
        parts["scales"] = torch.where(flat, torch.full_like(scales, LEAST_SCALE), scales)
        scene = Gaussians(**parts)
    for name, tensor in scene.tensors().items():
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise EffbookError(
                f"{bad:,} values of {name} are NaN or infinite", "remove those Gaussians or train the scene again"
            )
    return scene, {name: count for name, count in moved.items() if count}


def log_opacity(logits: np.ndarray) -> np.ndarray:
    """ln sigmoid(logit), float64: an error of it weighs alike at every opacity, relative to what is seen."""
    return -np.logaddexp(0.0, -logits.astype(np.float64))


def from_log_opacity(logarithms: np.ndarray) -> np.ndarray:
    """The inverse of `log_opacity`, as float32 logits of at most 20."""
    below = np.minimum(logarithms, -1e-12)
    return np.minimum(-np.log(np.expm1(-below)), MOST_LOGIT).astype(np.float32)


def sorted_axes(scales: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales [N, 3] from large to small, and the quaternions [N, 4] of the same Gaussians with w >= |x|, |y|, |z|.

    A quaternion of zeros turns nothing, as in the renderer.
    """
    order = np.argsort(-scales, axis=1, kind="stable")
    length = np.linalg.norm(rotations.astype(np.float64), axis=1, keepdims=True)
    unit = np.where(length > 1e-12, rotations / np.maximum(length, 1e-12), (1.0, 0.0, 0.0, 0.0))
    turned = np.empty_like(unit)
    for axes in itertools.permutations(range(3)):
        rows = (order == axes).all(axis=1)
        turned[rows] = product(unit[rows], _permuting(axes))
    w, x, y, z = turned.T
    halves = np.stack(  # times 1, i, j, k
        [np.stack(q, axis=1) for q in ((w, x, y, z), (-x, w, z, -y), (-y, -z, w, x), (-z, y, -x, w))], axis=1
    )
    best = np.abs(halves[:, :, 0]).argmax(axis=1)
    found = halves[np.arange(len(halves)), best]
    found = np.where(found[:, :1] < 0, -found, found)
    return np.take_along_axis(scales, order, axis=1), found


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] times one of [4]: first b turns, then a."""
    w, x, y, z = a.T
    s, i, j, k = b
    rows = (
        w * s - x * i - y * j - z * k,
        w * i + x * s + y * k - z * j,
        w * j - x * k + y * s + z * i,
        w * k + x * j - y * i + z * s,
    )
    return np.stack(rows, axis=1)


def _permuting(axes: tuple[int, ...]) -> np.ndarray:
    """The quaternion that turns the axes 0, 1, 2 into `axes`, up to their signs."""
    matrix = np.zeros((3, 3))
    matrix[list(axes), range(3)] = 1.0
    matrix[:, 2] *= np.linalg.det(matrix)  # a turn, no mirror
    w = math.sqrt(max(0.0, 1.0 + np.trace(matrix))) / 2
    if w > 1e-6:
        skew = matrix - matrix.T
        return np.array([w, skew[2, 1] / (4 * w), skew[0, 2] / (4 * w), skew[1, 0] / (4 * w)])
    axis = np.linalg.eigh(matrix)[1][:, 2]  # half a turn: the axis that stays
    return np.array([0.0, *axis])


def from_three(three: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] of their x, y, z [N, 3], float32; w is what is missing to a length of 1."""
    rest = np.sqrt(np.maximum(0.0, 1.0 - (three * three).sum(axis=1, keepdims=True)))
    full = np.concatenate([rest, three], axis=1)
    return (full / np.maximum(np.linalg.norm(full, axis=1, keepdims=True), 1e-12)).astype(np.float32)
