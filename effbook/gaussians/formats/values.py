"""What all formats share: which values are refused, which are clamped and told, and quaternions in few bits."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.model import Gaussians

Say = Callable[[str], None]
HERE = __name__.rpartition(".")[0]

MOST_LOGIT = 16.0  # an opacity of 1 - 1e-7: what an infinite logit becomes
LEAST_SCALE = -20.0  # a size of 2e-9: what the logarithm of 0 becomes
HALF_BYTE_STEP = 0.5 / 255


def warn(sentence: str) -> None:
    """What hears of clamped values if a caller gives no `say`: Python's warnings."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, UserWarning, stacklevel=level - 1)  # who called this package


class Check:
    """Looks at a scene part by part: infinite logits and scales of size 0 are clamped, anything else must be finite.

    Public scenes hold hundreds of Gaussians whose opacity is exactly 1, so that their logit is infinite.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._bad: dict[str, int] = {}
        self._clamped = {"opacities": 0, "scales": 0}

    def part(self, gaussians: Gaussians) -> Gaussians:
        """The same Gaussians with what can be clamped; what cannot is counted."""
        found = gaussians.tensors()
        for name, tensor in found.items():
            wrong = ~torch.isfinite(tensor)
            if not bool(wrong.any()):
                continue
            if name in self._clamped:
                low, high = (-MOST_LOGIT, MOST_LOGIT) if name == "opacities" else (LEAST_SCALE, float("inf"))
                mended = tensor.clamp(low, high)
                found[name] = torch.where(tensor.isinf(), mended, tensor)
                still = found[name].isnan() | found[name].isinf()
                self._clamped[name] += int(wrong.sum()) - int(still.sum())
                wrong = still
            if bad := int(wrong.sum()):
                self._bad[name] = self._bad.get(name, 0) + bad
        return Gaussians(**found)

    def done(self, say: Say) -> None:
        """Say what was clamped. Raises EffbookError, with the file and the number, for values that are not finite."""
        for name, bad in self._bad.items():
            raise EffbookError(f"{self.path}: {bad:,} values of {name} are not finite", "remove those Gaussians")
        if n := self._clamped["opacities"]:
            say(f"{self.path}: {n:,} infinite opacities are clamped to logits of {MOST_LOGIT:g} or -{MOST_LOGIT:g}")
        if n := self._clamped["scales"]:
            say(f"{self.path}: {n:,} sizes of 0 are clamped to exp({LEAST_SCALE:g})")


def checked(gaussians: Gaussians, path: Path | str, say: Say) -> Gaussians:
    """A whole scene, checked and clamped as `Check` does."""
    check = Check(path)
    found = check.part(gaussians)
    check.done(say)
    return found


def logits_of_bytes(alpha: np.ndarray) -> Tensor:
    """Logits of opacities in 8 bits [N]; 0 and 255 stand for the middle of what is rounded to them."""
    shares = torch.from_numpy(np.asarray(alpha, np.float32)) / 255
    return shares.clamp(HALF_BYTE_STEP, 1 - HALF_BYTE_STEP).logit()


def unit_quaternions(rotations: Tensor) -> np.ndarray:
    """Quaternions w, x, y, z [N, 4] of length 1, float64; one of length 0 turns nothing, as when it is drawn."""
    q = rotations.detach().cpu().double().numpy()
    length = np.linalg.norm(q, axis=1, keepdims=True)
    still = np.array([1.0, 0.0, 0.0, 0.0])
    return np.where(length > 0, q / np.where(length > 0, length, 1), still)


def smallest_three(quaternions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of four components is the largest [N], and the other three in order [N, 3] when that one is positive."""
    largest = np.abs(quaternions).argmax(1)
    rows = np.arange(len(quaternions))
    signed = quaternions * np.where(quaternions[rows, largest] < 0, -1.0, 1.0)[:, None]
    others = np.array([[j for j in range(4) if j != i] for i in range(4)])
    return largest, np.take_along_axis(signed, others[largest], 1)


def of_smallest_three(largest: np.ndarray, three: np.ndarray) -> np.ndarray:
    """The inverse of `smallest_three`: quaternions [N, 4] of length 1, float32."""
    found = np.empty((len(three), 4))
    rows = np.arange(len(three))
    others = np.array([[j for j in range(4) if j != i] for i in range(4)])
    np.put_along_axis(found, others[largest], three, 1)
    found[rows, largest] = np.sqrt(np.maximum(0.0, 1.0 - (three * three).sum(1)))
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found.astype(np.float32)
