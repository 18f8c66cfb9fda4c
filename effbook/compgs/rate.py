"""How fine a scene is kept: as asked by the likeness of pictures or by bytes, one number is sought (`delta`).

PSNR falls and bytes fall almost along straight lines over log2 delta, so that a few trials suffice. Pictures that judge
are from other sides than those that weighed the parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from effbook.compgs.codec import Prepared, pack
from effbook.compgs.inspect import COVERED, MOST_DB
from effbook.compgs.sensitivity import views_of
from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.rasterise import render

PSNR_DB = 50.0  # the default: no eye tells such pictures apart
CLOSE_DB, CLOSE_SIZE = 0.5, 0.01  # when a search is content
TRIALS = 10
FINEST, COARSEST = -24.0, 4.0  # log2 delta
JUDGES, JUDGES_PX = 4, 256


@dataclass(frozen=True, eq=False)
class Packed:
    """A file's bytes, the scene as it is read back, and how alike pictures are."""

    data: bytes
    scene: Gaussians
    delta: float
    psnr_db: float  # from the mean squared error of all pictures; at most 100


class Judge:
    """Pictures of a scene, and how far those of another are from them."""

    def __init__(self, scene: Gaussians, cameras: list[Camera] | None = None) -> None:
        if cameras is None:
            cameras = views_of(scene, views=JUDGES, size_px=JUDGES_PX, turn=0.37) if len(scene) else []
        self.cameras = cameras
        self._wanted = [self._draw(scene, camera) for camera in self.cameras]

    @staticmethod
    @torch.no_grad()
    def _draw(scene: Gaussians, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
        view = render(scene, camera)
        return view.image.clamp(0, 1), view.light < 1 - COVERED

    def psnr(self, scene: Gaussians) -> float:
        """PSNR in dB of the mean squared error over all pixels that either scene covers; 100 where there is none."""
        error, count = 0.0, 0
        for camera, (wanted, there) in zip(self.cameras, self._wanted, strict=True):
            image, covered = self._draw(scene, camera)
            some = (image - wanted)[covered | there].double()
            error, count = error + float(some.square().sum()), count + some.numel()
        return min(-10 * math.log10(max(error / max(count, 1), 1e-30)), MOST_DB)


def at_psnr(prepared: Prepared, psnr_db: float = PSNR_DB, *, judge: Judge | None = None) -> Packed:
    """The coarsest file of which pictures are so alike. Raises EffbookError for a likeness that none reaches."""
    if not 10 <= psnr_db <= 90:
        raise EffbookError(f"a PSNR of {psnr_db:g} dB", "ask for 10 to 90")
    judge = judge or Judge(prepared.scene)

    def tried(exponent: float) -> Packed:
        return _packed(prepared, exponent, judge)

    # Of independent errors delta / sqrt(12) each, and finer, as a few Gaussians close to a camera weigh more.
    values = 14 * max(len(prepared), 1)
    start = 0.5 * math.log2(12 * 10 ** (-psnr_db / 10) * prepared.weights.pixels / values) - 2.5
    return _sought(tried, lambda found: found.psnr_db, start, psnr_db, slope=-6.02, close=CLOSE_DB, at_least=True)


def at_size(prepared: Prepared, size_bytes: int, *, judge: Judge | None = None) -> Packed:
    """The finest file of at most so many bytes. Raises EffbookError where none is so small."""
    judge = judge or Judge(prepared.scene)
    best: dict[float, tuple[bytes, Gaussians]] = {}

    def tried(exponent: float) -> tuple[bytes, Gaussians]:
        best[exponent] = pack(prepared, 2.0**exponent)
        return best[exponent]

    wanted = math.log2(size_bytes) if size_bytes > 0 else 0.0
    data, scene = _sought(
        tried, lambda found: math.log2(len(found[0])), -6.0, wanted, slope=-0.3, close=CLOSE_SIZE, at_least=False
    )
    if len(data) > size_bytes:
        raise EffbookError(
            f"{len(prepared):,} Gaussians do not fit into {size_bytes:,} bytes", f"allow {len(data):,} or remove some"
        )
    exponent = next(e for e, found in best.items() if found[0] is data)
    return Packed(data, scene, 2.0**exponent, judge.psnr(scene))


def _packed(prepared: Prepared, exponent: float, judge: Judge) -> Packed:
    data, scene = pack(prepared, 2.0**exponent)
    return Packed(data, scene, 2.0**exponent, judge.psnr(scene))


def _sought(
    tried: Callable, value: Callable, start: float, wanted: float, *, slope: float, close: float, at_least: bool
):  # -> what `tried` gives
    """Of a falling function the place where it is `wanted`, or on the right side of it: regula falsi with bisection.

    Where no trial is on the right side the nearest one is given.
    """
    high = low = None  # (place, value): finer and coarser than wanted
    right, place = None, start
    nearest = None
    for _ in range(TRIALS):
        place = min(max(place, FINEST), COARSEST)
        found = tried(place)
        off = value(found) - wanted
        good = off >= 0 if at_least else off <= 0
        if good and (right is None or abs(off) < abs(right[0])):
            right = (off, found)
        if nearest is None or abs(off) < abs(nearest[0]):
            nearest = (off, found)
        if good and abs(off) <= close:
            break
        if off >= 0:
            high = (place, off)
        else:
            low = (place, off)
        lean = 0.4 * close * (1 if at_least else -1)  # aim at the right side
        if high and low:
            share = (high[1] - lean) / (high[1] - low[1])
            place = high[0] + min(max(share, 0.1), 0.9) * (low[0] - high[0])
        elif place in (FINEST, COARSEST):
            break
        else:
            place = place - (off - lean) / slope
    return (right or nearest)[1]
