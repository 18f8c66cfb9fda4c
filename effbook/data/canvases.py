"""Canvases of small pictures: the stand-in of profile `mini` for photographs with objects in boxes (table 2.12).

No set of photographs with boxes comes from a package registry. What is made here is not one: whole CIFAR-10 images,
their background with them, lie on smooth random colour, so a detector finds squares and says what they show.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError

MOST_OBJECTS = 4
SCALES = (0.75, 1.5)
OVERLAP = 0.15  # most that two objects share, of the smaller one
TRIES = 20  # to find a place; an object that finds none is left out
GRAIN = 12.0  # deviation of the background's fine texture, of 255


def canvases(
    images: np.ndarray, labels: np.ndarray, *, count: int, seed: int, size_px: int = 96
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Pictures uint8 [M, 3, S, S], and of each the objects: `boxes` [K, 4] (left, top, right, bottom in pixels) and
    `labels` [K], K from 1 to 4.

    Objects are ``images`` uint8 [N, 32, 32, 3] with ``labels`` [N], resized by 0.75 to 1.5, with little overlap; which,
    how many and where comes from the seed and the picture's number, so fewer pictures are the first of more. Raises
    `EffbookError` for images of another kind, and canvases that are smaller than an object.
    """
    largest_px = round(32 * SCALES[1])
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3) or not len(images):
        raise EffbookError(f"images {images.dtype} {images.shape} are no objects", "give uint8 [N, 32, 32, 3]")
    if len(labels) != len(images):
        raise EffbookError(f"{len(labels)} labels do not go with {len(images)} images", "give one for each")
    if size_px < largest_px or count < 1:
        raise EffbookError(
            f"{count} canvases of {size_px} pixels cannot be made", f"ask for one or more, of {largest_px} or more"
        )
    drawn = [_canvas(images, labels, np.random.default_rng([seed, number]), size_px) for number in range(count)]
    return torch.stack([picture for picture, _ in drawn]), [objects for _, objects in drawn]


def _canvas(
    images: np.ndarray, labels: np.ndarray, draw: np.random.Generator, size_px: int
) -> tuple[Tensor, dict[str, Tensor]]:
    canvas = _background(draw, size_px)
    places: list[tuple[int, int, int]] = []  # left, top, side
    shown = []
    for index in draw.choice(len(images), min(len(images), int(draw.integers(1, MOST_OBJECTS + 1))), replace=False):
        side = round(32 * draw.uniform(*SCALES))
        corners = draw.integers(0, size_px - side + 1, size=(TRIES, 2)).tolist()
        free = (at for at in corners if all(_shared((*at, side), other) <= OVERLAP for other in places))
        left, top = next(free, (None, None))
        if left is None:
            continue
        pixels = torch.from_numpy(images[index]).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)[0]
        canvas[:, top : top + side, left : left + side] = pixels
        places.append((left, top, side))
        shown.append(int(labels[index]))
    boxes = torch.tensor([(x, y, x + side, y + side) for x, y, side in places], dtype=torch.float32)
    return canvas.round().clamp(0, 255).to(torch.uint8), {"boxes": boxes, "labels": torch.tensor(shown)}


def _background(draw: np.random.Generator, size_px: int) -> Tensor:
    """Smooth random colour with a fine texture, [3, S, S] about 0..255."""
    coarse = torch.from_numpy(draw.uniform(0, 255, size=(1, 3, 4, 4)))
    smooth = F.interpolate(coarse, (size_px, size_px), mode="bicubic", align_corners=True)[0]
    return (smooth + torch.from_numpy(draw.normal(0, GRAIN, size=(3, size_px, size_px)))).float()


def _shared(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The area that two squares (left, top, side) share, of the smaller one's."""
    wide, high = (min(one[i] + one[2], other[i] + other[2]) - max(one[i], other[i]) for i in (0, 1))
    return max(wide, 0) * max(high, 0) / min(one[2], other[2]) ** 2
