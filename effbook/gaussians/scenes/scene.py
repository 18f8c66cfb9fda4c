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
ORIENTATION = 0x112  # EXIF's number of it
TURNS = {
    1: lambda t: t,
    2: lambda t: t.flip(1),
    3: lambda t: t.flip(0, 1),
    4: lambda t: t.flip(0),
    5: lambda t: t.transpose(0, 1),
    6: lambda t: t.flip(0).transpose(0, 1),
    7: lambda t: t.flip(0, 1).transpose(0, 1),
    8: lambda t: t.flip(1).transpose(0, 1),
}  # of pictures [H, W, 3], as they are to be shown


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


def check_views(name: str, cameras: Sequence[Camera], missing: Sequence[str] = ()) -> None:
    """Raise EffbookError if fewer than three views are left, naming the first of those that failed."""
    if len(cameras) < LEAST_VIEWS:
        first = f"; of {len(missing)} cameras without one the first is {missing[0]}" if missing else ""
        raise EffbookError(
            f"scene {name} has {len(cameras)} views with image and camera{first}", f"give at least {LEAST_VIEWS}"
        )


def few(names: Sequence[str]) -> str:
    """The first five names, for a sentence."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def read_image(path: Path, *, background: tuple[float, float, float] | None) -> Tensor:
    """An image file as [H, W, 3] in [0, 1], its pixels as they lie in the file (an EXIF mark turns nothing).

    Transparency is laid over the background, black if None. Raises EffbookError for a file that is no image.
    """
    try:
        with Image.open(path) as opened:
            pixels = _pixels(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise EffbookError(f"{path} cannot be read as an image ({error})", "replace or remove it") from None
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:]
        pixels = pixels[..., :3] * alpha + np.float32(background or (0, 0, 0)) * (1 - alpha)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _pixels(opened: Image.Image) -> np.ndarray:
    """An open image as [H, W, 3 or 4] in [0, 1]. Raises ValueError for one in floats."""
    if opened.mode == "F":
        raise ValueError("its pixels are floats of no known range")
    if opened.mode == "I" or opened.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255
        grey = np.asarray(opened).astype(np.float32) / 65_535
        if grey.min() < 0 or grey.max() > 1:
            raise ValueError("its pixels have more than 16 bits")
        return np.repeat(grey[..., None], 3, axis=2)
    clear = "A" in opened.getbands() or "a" in opened.getbands() or "transparency" in opened.info
    return np.asarray(opened.convert("RGBA" if clear else "RGB"), dtype=np.float32) / 255


def exif_turn(path: Path) -> int:
    """The EXIF mark of how an image is to be turned when it is shown: 1 for not at all, 2 to 8 otherwise."""
    try:
        with Image.open(path) as opened:
            found = opened.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1
    return found if found in TURNS else 1


def fitted(path: Path, photo: Tensor, size: tuple[float, float] | None) -> tuple[Tensor, str]:
    """A photo [H, W, 3] turned as its camera, of width and height `size`, saw it; and why that cannot be, or "".

    A photo may be a smaller copy. Programs that find cameras look at the pixels as they lie, so an EXIF mark is
    followed only where the sides say so. Without a `size`, a mark that exchanges the sides leaves open which is meant.
    """
    mark = exif_turn(path)
    if size is None:
        return photo, "its EXIF mark turns it, and no size says if the camera is of the turned one" if mark > 4 else ""
    if _fits(photo, size):
        return photo, ""
    shown = TURNS[mark](photo)
    if mark > 4 and _fits(shown, size):
        return shown.contiguous(), ""
    high, wide = photo.shape[:2]
    return photo, f"{wide} x {high} pixels are no copy of its camera's {size[0]:g} x {size[1]:g}"


def _fits(photo: Tensor, size: tuple[float, float]) -> bool:
    """Whether a photo has the proportions of a camera, but for sides rounded to whole pixels."""
    high, wide = photo.shape[:2]
    return abs(wide * size[1] - high * size[0]) <= size[0] + size[1]


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
