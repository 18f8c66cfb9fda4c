"""What an error of a Gaussian's parameter does to pictures: the importance of each Gaussian, and steps from it.

Near the scene, the squared error of pictures is a sum over parameters of h e^2, where h is the diagonal of J^T J. It is
estimated by the renderer's own gradient: of a picture weighted by random signs, a gradient's square has the mean h
(M. F. Hutchinson, 1990). At a given number of bits the error is least where h step^2 is the same everywhere; so a step
is delta / sqrt(h), and the one number delta says how fine all of it is.

A value's h is that of its Gaussian (`classes`: half octaves of the step, which a file tells) times a factor of its
kind. For places and turns that factor depends on the scales as a power does, with exponents that are fitted.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_C0
from effbook.gaussians.rasterise import render

VIEWS, SIZE_PX = 6, 160
CLASSES = 24
TRUST = 0.95  # in what was seen; the rest is what a Gaussian of its size and opacity shows on average
FEW = 500  # Gaussians: exponents are not fitted to fewer
MOST_RATIO = 6.0  # of a scale to the next, in natural logarithms
KINDS = ("opacities", "scales", "rotations", "sh_dc", "sh_rest")


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How much errors weigh in a scene whose axes are sorted; factors are to the importance of a colour."""

    importance: np.ndarray  # [N], of a colour: the sum over pixels and views of (alpha x transmittance)^2
    opacity: float  # of ln opacity
    scales: np.ndarray  # [3], of their logarithms
    harmonics: np.ndarray  # [15]
    rotation: np.ndarray  # [3]: log2 factor, and its slopes over ln s1/s2 and ln s2/s3
    place: np.ndarray  # [4]: log2 factor, and its slopes over the three ln s
    pixels: int  # of all views together, times 3 channels

    @cached_property
    def top(self) -> float:
        """log2 of the importance that has class 0."""
        return math.log2(max(float(np.quantile(self.importance, 0.999)), 1e-30)) if len(self.importance) else 0.0

    @cached_property
    def classes(self) -> np.ndarray:
        """[N], 0 for the most important; the step of class c is 2^(c/2) times as long."""
        away = self.top - np.log2(np.maximum(self.importance, 1e-30))
        return np.clip(np.rint(away), 0, CLASSES - 1).astype(np.int64)


def views_of(scene: Gaussians, *, views: int = VIEWS, size_px: int = SIZE_PX, turn: float = 0.0) -> list[Camera]:
    """Cameras from all sides, spread evenly over a sphere; every other one is close to the middle, as in a room.

    `turn`, in turns, gives others of the same kind: to measure, where the first have decided.
    """
    means = scene.means.detach().cpu().double()
    places = means[scene.opacities.detach().cpu().sigmoid() > 0.1]
    places = places if len(places) else means
    middle = places.median(dim=0).values
    reach = (places - middle).norm(dim=-1)
    radius = max(float(reach.kthvalue(math.ceil(0.9 * len(reach))).values), 1e-3)
    found = []
    for i in range(views):
        height = 1 - (2 * i + 1) / views
        angle = math.pi * (3 - math.sqrt(5)) * i + 2 * math.pi * turn
        around = math.sqrt(1 - height * height)
        forward = -means.new_tensor([around * math.cos(angle), around * math.sin(angle), height])
        up = means.new_tensor([0.0, 0.0, 1.0] if abs(height) < 0.9 else [1.0, 0.0, 0.0])
        right = torch.linalg.cross(forward, up)
        right = right / right.norm()
        pose = torch.eye(4, dtype=means.dtype)
        pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
        away = (2.2, 0.8)[i % 2] * radius
        pose[:3, 3] = -pose[:3, :3] @ (middle - away * forward)
        lens = {"focal_x": size_px * 1.1, "focal_y": size_px * 1.1, "centre_x": size_px / 2, "centre_y": size_px / 2}
        found.append(Camera(world_to_camera=pose.float(), width=size_px, height=size_px, name=f"side {i + 1}", **lens))
    return found


def measure(scene: Gaussians, cameras: list[Camera], *, seed: int = 0) -> Sensitivity:
    """Estimate from pictures of `cameras`; a scene that none of them sees gets what is usual. Axes must be sorted."""
    generator = torch.Generator().manual_seed(seed)
    squares = {name: np.zeros((len(scene), *t.shape[1:])) for name, t in scene.tensors().items()}
    expected, pixels = np.full(len(scene), 1e-12), 0
    for camera in cameras if len(scene) else ():
        leaves = scene.map(lambda t: t.clone().requires_grad_())
        image = render(leaves, camera).image
        if image.requires_grad:
            signs = torch.randint(0, 2, image.shape, generator=generator).to(image) * 2 - 1
            image.backward(signs)
            for name, t in leaves.tensors().items():
                if t.grad is not None:
                    squares[name] += t.grad.double().square().numpy()
        expected += _shown(scene, camera)
        pixels += image.numel()
    seen = squares["sh_dc"].mean(axis=1) / SH_C0**2
    usual = expected * (seen.sum() / expected.sum() if seen.sum() > 0 else 1.0)
    importance = np.nan_to_num(TRUST * seen + (1 - TRUST) * usual, nan=1.0, posinf=1.0)
    return _fitted(scene, squares, importance, max(pixels, 1))


def _shown(scene: Gaussians, camera: Camera) -> np.ndarray:
    """(opacity^2 x area) of each Gaussian in pixels, roughly, as if nothing hid it."""
    motion = camera.world_to_camera.double().numpy()
    places = scene.means.double().numpy() @ motion[:3, :3].T + motion[:3, 3]
    ahead = np.maximum(places[:, 2], 0.2)
    inside = (places[:, 2] > 0.2) & (np.abs(places[:, :2]) < 0.6 * ahead[:, None]).all(axis=1)
    sizes = np.exp(np.clip(scene.scales.double().numpy()[:, :2], -20, 20)) * (camera.focal_x / ahead)[:, None]
    areas = np.minimum(np.pi * np.sqrt(sizes**2 + 0.3).prod(axis=1), camera.width * camera.height)
    opacities = 1 / (1 + np.exp(-np.clip(scene.opacities.double().numpy(), -30, 30)))
    return np.where(inside, areas, 0.0) * opacities**2


def _fitted(scene: Gaussians, squares: dict[str, np.ndarray], importance: np.ndarray, pixels: int) -> Sensitivity:
    """Factors of the kinds: ratios of sums where they are constant, powers by least squares where they are not."""
    total = max(importance.sum(), 1e-30)
    n = len(scene)

    def factor(of: np.ndarray, usual: float) -> float:
        found = float(of.sum() / total)
        return found if n >= FEW and np.isfinite(found) and found > 1e-6 else usual

    logits = scene.opacities.double().numpy()
    not_opaque = 1 / (1 + np.exp(np.clip(logits, -30, 30)))  # d ln o = (1 - o) d logit
    certain = not_opaque > 0.02
    opacity = factor(np.where(certain, squares["opacities"] / np.maximum(not_opaque, 0.02) ** 2, 0.0), 0.1)
    scales = np.array([factor(squares["scales"][:, j], usual) for j, usual in enumerate((0.1, 0.1, 0.05))])
    rest = squares["sh_rest"].mean(axis=2)
    bands = np.repeat([factor(rest[:, a:b].mean(axis=1), 0.08) for a, b in ((0, 3), (3, 8), (8, 15))], (3, 5, 7))
    ln = np.clip(scene.scales.double().numpy(), -20, 20)
    ratios = np.clip(-np.diff(ln, axis=1), 0, MOST_RATIO)
    turns = squares["rotations"].sum(axis=1) / 3
    moves = squares["means"].mean(axis=1)
    rotation = _power(turns, importance, ratios, usual=(-1.0, 0.5, 0.5), clip=(0.0, 3.0))
    place = _power(moves, importance, ln, usual=(-2.0, 0.0, -1.4, -1.4), clip=(-3.0, 0.5))
    return Sensitivity(importance, opacity, scales, bands, rotation, place, pixels)


def _power(squares: np.ndarray, importance: np.ndarray, over: np.ndarray, *, usual: tuple, clip: tuple) -> np.ndarray:
    """log2 (squares / importance) as a line over `over` [N, D], right on the whole: offset and slopes [1 + D]."""
    found = np.array(usual)
    used = (squares > 0) & (importance > np.quantile(importance, 0.3)) if len(importance) >= FEW else np.zeros(0, bool)
    if used.sum() >= FEW:
        columns = np.concatenate([np.ones((used.sum(), 1)), over[used]], axis=1)
        wanted = np.log2(squares[used] / importance[used])
        found[1:] = np.clip(np.linalg.lstsq(columns, wanted, rcond=None)[0][1:], *clip)
        # A logarithm's mean is not the mean's logarithm: the offset makes the sums agree, without a few extremes.
        ratio = squares[used] / importance[used] * np.exp2(-over[used] @ found[1:])
        found[0] = math.log2(max(float(np.minimum(ratio, np.quantile(ratio, 0.99)).mean()), 1e-12))
    return found
