"""A universal patch: its start, how it is pasted, what it may hold, and its files (4.1.3.2).

Values are optimised in levels, 0..255. After each step they are whole, so that projecting twice changes nothing.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.slowformer.config import AttackConfig
from effbook.training.seeds import generator

TOP_LEVEL = 255  # 256 levels, from 0
FORMAT = "effbook-patch-1"
_START = 0  # the first number after the seed of what is drawn here; others draw order and choices


def start(config: AttackConfig, *, height_px: int, width_px: int) -> Tensor:
    """Values [C, h, w] in levels from which an attack starts, drawn on the CPU.

    "uniform": each of the 256 levels is as likely. "released": uniform in -.5..0.5 of normalised space, then projected
    as after each step. "zero": all 0. Source: 4.1.3.2 and facts.
    """
    shape = (len(config.mean), height_px, width_px)
    if config.start == "zero":
        return torch.zeros(shape)
    drawn = torch.rand(shape, generator=generator(config.seed, _START))
    if config.start == "released":
        mean, std = (torch.tensor(x)[:, None, None] for x in (config.mean, config.std))
        return project(((drawn - 0.5) * std + mean) * TOP_LEVEL)
    return (drawn * (TOP_LEVEL + 1)).floor()


def project(values: Tensor) -> Tensor:
    """Values in levels, onto 0..255 and then down to whole levels."""
    return values.clamp(0, TOP_LEVEL).floor()


def paste(images: Tensor, values: Tensor, *, top_px: int = 0, left_px: int = 0) -> Tensor:
    """Images [B, C, H, W] in 0..1 with the pixels of one place replaced by the values [C, h, w] in levels.

    Gradients flow to the values. Raises EffbookError where the patch does not lie within the images.
    """
    check_place(tuple(values.shape), tuple(images.shape[1:]), top_px=top_px, left_px=left_px)
    height, width = values.shape[1:]
    pasted = images.clone()
    pasted[:, :, top_px : top_px + height, left_px : left_px + width] = values.to(images) / TOP_LEVEL
    return pasted


def check_place(patch: tuple[int, ...], image: tuple[int, ...], *, top_px: int, left_px: int) -> None:
    """Raise EffbookError where a patch [C, h, w] at this place does not lie within an image [C, H, W]."""
    (channels, height, width), (image_channels, image_height, image_width) = patch, image
    if channels != image_channels:
        raise EffbookError(
            f"the patch has {channels} channels and the images {image_channels}", "give both with as many"
        )
    if height > image_height or width > image_width:
        raise EffbookError(
            f"a patch of {height} x {width} pixels is larger than images of {image_height} x {image_width}",
            "make the patch smaller",
        )
    if not (0 <= top_px <= image_height - height and 0 <= left_px <= image_width - width):
        raise EffbookError(
            f"a patch of {height} x {width} pixels at {top_px} from the top and {left_px} from the left goes over the "
            f"edge of images of {image_height} x {image_width}",
            f"place it at most {image_height - height} from the top and {image_width - width} from the left",
        )


@dataclass(frozen=True)
class Patch:
    """A finished patch: uint8 [3, h, w], the place of its top left corner, and the size of the images it is for."""

    levels: Tensor
    image_px: tuple[int, int]  # height, width
    top_px: int = 0
    left_px: int = 0

    def __post_init__(self) -> None:
        if self.levels.dtype != torch.uint8 or self.levels.ndim != 3:
            raise EffbookError(
                f"a patch of shape {tuple(self.levels.shape)} and type {self.levels.dtype} is none",
                "give uint8 [channels, height, width]",
            )
        place = {"top_px": self.top_px, "left_px": self.left_px}
        check_place(tuple(self.levels.shape), (len(self.levels), *self.image_px), **place)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..1 with the patch. Raises EffbookError for images of another size."""
        if tuple(images.shape[-2:]) != tuple(self.image_px):
            raise EffbookError(
                f"the patch is for images of {self.image_px[0]} x {self.image_px[1]} pixels, and these have "
                f"{images.shape[-2]} x {images.shape[-1]}",
                "resize the images, or make a patch for these",
            )
        return paste(images, self.levels, top_px=self.top_px, left_px=self.left_px)


def save_patch(patch: Patch, path: Path | str, *, victim: str, config: AttackConfig, loss: str = "") -> None:
    """Write a patch as PNG, and beside it a JSON with place, size, victim, config, seed and the PNG's sha256.

    `path` ends in .png; the JSON has the same name. Raises EffbookError for another ending, or no three channels.
    """
    from PIL import Image

    path = _png(path)
    if len(patch.levels) != 3 or not patch.levels.numel():
        raise EffbookError(
            f"a patch of shape {tuple(patch.levels.shape)} cannot be a PNG in colour", "give [3, h, w] of some pixels"
        )
    buffer = io.BytesIO()
    Image.fromarray(patch.levels.movedim(0, -1).cpu().contiguous().numpy(), "RGB").save(buffer, "PNG")
    write_atomically(path, content := buffer.getvalue())
    about = {
        "format": FORMAT,
        "png": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "height_px": patch.levels.shape[1],
        "width_px": patch.levels.shape[2],
        "top_px": patch.top_px,
        "left_px": patch.left_px,
        "image_height_px": patch.image_px[0],
        "image_width_px": patch.image_px[1],
        "victim": victim,
        "loss": loss,
        "seed": config.seed,
        "config": asdict(config),
    }
    write_atomically(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")


def load_patch(path: Path | str) -> tuple[Patch, dict[str, Any]]:
    """A patch from its PNG and JSON, and what the JSON says.

    Raises EffbookError where one is missing or broken, the PNG is not the one of the JSON, or has another size or
    colour mode.
    """
    from PIL import Image, UnidentifiedImageError

    path = _png(path)
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        height, width, top, left, image_height, image_width = (
            about[name] for name in ("height_px", "width_px", "top_px", "left_px", "image_height_px", "image_width_px")
        )
        digest = about["sha256"]
        if any(type(n) is not int for n in (height, width, top, left, image_height, image_width)):
            raise TypeError
    except FileNotFoundError:
        raise EffbookError(f"{path.with_suffix('.json')} is not there", "keep a patch's JSON beside its PNG") from None
    except (ValueError, KeyError, TypeError):
        raise EffbookError(f"{path.with_suffix('.json')} describes no patch", "make the patch again") from None
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            mode, size = image.mode, image.size
            if mode != "RGB":
                raise EffbookError(f"{path} has the colour mode {mode}, a patch has RGB", "save it as 8-bit RGB")
            if size != (width, height):
                raise EffbookError(
                    f"{path} has {size[1]} x {size[0]} pixels, and its JSON says {height} x {width}",
                    "keep a patch and its JSON together, and don't resize it",
                )
            rows = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    except FileNotFoundError:
        raise EffbookError(f"{path} is not there", "keep a patch's PNG beside its JSON") from None
    except (UnidentifiedImageError, OSError, SyntaxError):
        raise EffbookError(f"{path} is no image that can be read", "make the patch again") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise EffbookError(f"{path} is not the file that its JSON describes", "keep the two together, unchanged")
    levels = rows.view(height, width, 3).movedim(-1, 0).contiguous()
    return Patch(levels, (image_height, image_width), top, left), about


def _png(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".png":
        raise EffbookError(f"{path.name} is no name for a patch", "give one that ends in .png")
    return path
