"""A posed scene: cameras, images, points to start from, and which views are held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera

HOLD_OUT = 8  # every 8th view, sorted by name, is a test view, as in Mip-NeRF360 and 3DGS
LEAST_VIEWS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Views in the order of their names, and where training starts from.

    `background` [3] is what the images show where there is nothing, or None where they show a world without end.
    """

    name: str
    cameras: tuple[Camera, ...]
    images: tuple[Tensor, ...]  # [H, W, 3] in [0, 1]
    held_out: tuple[int, ...]  # indices of the test views
    points: Tensor  # [P, 3]
    colours: Tensor  # [P, 3] in [0, 1]
    background: tuple[float, float, float] | None = None
    left_out: tuple[str, ...] = ()  # sentences on what could not be used

    @property
    def train(self) -> tuple[int, ...]:
        """Indices of the training views."""
        return tuple(i for i in range(len(self.cameras)) if i not in set(self.held_out))


def every_eighth(n: int) -> tuple[int, ...]:
    """The dissertation's split: views 0, 8, 16, ... are held out."""
    return tuple(range(0, n, HOLD_OUT))


def check_views(name: str, cameras: Sequence[Camera]) -> None:
    """Raise EffbookError if fewer than three views are left."""
    if len(cameras) < LEAST_VIEWS:
        raise EffbookError(
            f"scene {name} has {len(cameras)} views with image and camera", f"give at least {LEAST_VIEWS}"
        )


def few(names: Sequence[str]) -> str:
    """The first five names, for a sentence."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def read_image(path: Path, *, background: tuple[float, float, float] | None) -> Tensor:
    """An image file as [H, W, 3] in [0, 1]; transparency is laid over the background, black if None.

    Raises EffbookError for a file that is no image.
    """
    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGBA" if "A" in opened.getbands() else "RGB"), dtype=np.float32) / 255
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise EffbookError(f"{path} cannot be read as an image ({error})", "replace or remove it") from None
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:]
        pixels = pixels[..., :3] * alpha + np.float32(background or (0, 0, 0)) * (1 - alpha)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def shrink_area(image: Tensor, factor: int) -> Tensor:
    """Average blocks of factor x factor pixels of [H, W, 3]; rows and columns that fill no block are cut off.

    `Camera.shrunk` makes the camera fit. Raises EffbookError if no block is left.
    """
    if factor == 1:
        return image
    if factor < 1:
        raise EffbookError(f"an image cannot shrink {factor} times", "give 1 or more")
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if height < 1 or width < 1:
        raise EffbookError(
            f"an image of {image.shape[1]} x {image.shape[0]} cannot shrink {factor} times", "shrink less"
        )
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean(dim=(1, 3))


def random_points(n: int, *, low: Tensor, high: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Points spread evenly in a box with random colours, where no point cloud is given (as 3DGS does)."""
    generator = torch.Generator().manual_seed(seed)
    points = low + (high - low) * torch.rand(n, 3, generator=generator)
    return points, torch.rand(n, 3, generator=generator)
