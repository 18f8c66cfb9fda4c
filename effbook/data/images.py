"""Images: from the cache to uint8 arrays, one short reader a format."""

import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effbook.data.generated import SHAPE_CLASSES, toy_shapes
from effbook.data.manifest import Manifest
from effbook.errors import EffbookError


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one split: ``images`` uint8 [N, H, W] or [N, H, W, 3], ``labels`` int64 [N], names in ``classes``."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Images of one split that lie as files: ``paths`` [N], ``labels`` int64 [N], ``classes`` their names."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_cifar(folder: Path, split: str, described: Manifest) -> ImageSet:
    """CIFAR-10 or CIFAR-100 as PNG sheets (one row an image) or in the authors' binary format."""
    if (folder / "data_batch_1.png").exists():
        names = [f"data_batch_{i}.png" for i in range(1, 6)] if split == "train" else ["test_batch.png"]
        with ThreadPoolExecutor() as pool:  # decoding a PNG leaves Python's lock
            images = np.concatenate(list(pool.map(_read_sheet, [folder / name for name in names])))
        # The package spells it so.
        labels = np.array(json.loads((folder / f"{split}_lables.json").read_text(encoding="utf-8")), dtype=np.int64)
        return ImageSet(images=images, labels=labels, classes=described.classes)
    ten = (folder / "cifar-10-batches-bin").is_dir()
    if ten:
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
        paths = [folder / "cifar-10-batches-bin" / name for name in names]
        classes = described.classes
    else:
        paths = [folder / "cifar-100-binary" / f"{split}.bin"]
        classes = tuple((folder / "cifar-100-binary" / "fine_label_names.txt").read_text(encoding="utf-8").split())
    label_bytes = 1 if ten else 2  # CIFAR-100 has a coarse label before the fine one
    raw = np.concatenate([np.fromfile(path, dtype=np.uint8) for path in paths]).reshape(-1, label_bytes + 3072)
    images = raw[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = raw[:, label_bytes - 1].astype(np.int64)
    return ImageSet(images=np.ascontiguousarray(images), labels=labels, classes=classes)


def _read_sheet(path: Path) -> np.ndarray:
    """A PNG whose rows are flattened 32 x 32 images, [N, 32, 32, 3]."""
    from PIL import Image

    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)


def read_idx_pair(folder: Path, split: str, described: Manifest) -> ImageSet:
    """MNIST's idx files, plain or gzipped."""
    stem = {"train": "train", "test": "t10k"}[split]
    images = _read_idx(folder / f"{stem}-images-idx3-ubyte")
    labels = _read_idx(folder / f"{stem}-labels-idx1-ubyte").astype(np.int64)
    return ImageSet(images=images, labels=labels, classes=described.classes)


def _read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes: two zeros, the type 8, the number of axes, the sizes (big endian), the data."""
    raw = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise EffbookError(f"{path.name} is not an idx file of bytes", "run 'effbook data verify'")
    axes = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def read_digits(folder: Path, split: str, described: Manifest) -> ImageSet:
    """scikit-learn's 8 x 8 digits, grey values 0-16 stretched to 0-255; the last 360 images are the test split."""
    table = np.loadtxt(folder / "digits.csv.gz", delimiter=",", dtype=np.int64)  # [1797, 65]
    part = table[:-360] if split == "train" else table[-360:]
    images = (part[:, :-1] * 255 // 16).astype(np.uint8).reshape(-1, 8, 8)
    return ImageSet(images=images, labels=part[:, -1].copy(), classes=described.classes)


def read_toy_shapes(folder: Path, split: str, described: Manifest) -> ImageSet:
    images, labels = toy_shapes(split)
    return ImageSet(images=images.copy(), labels=labels.copy(), classes=SHAPE_CLASSES)


ARRAY_READERS: dict[str, Callable[[Path, str, Manifest], ImageSet]] = {
    "cifar": read_cifar,
    "idx": read_idx_pair,
    "digits": read_digits,
    "toy-shapes": read_toy_shapes,
}


def decode(path: Path, image_px: int) -> np.ndarray:
    """An image file as uint8 [image_px, image_px, 3]: the shorter side resized (bicubic), then the centre cut out.

    Raises `EffbookError` for a file that is no image, is cut off or is not there.
    """
    from PIL import Image  # here, as whoever lists data needs no decoder

    if image_px < 1:
        raise EffbookError(f"image_px = {image_px} leaves nothing of an image", "use 1 or more")
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # the decoders of the many formats raise errors of every kind
        why = " ".join(str(error).split()) or type(error).__name__
        raise EffbookError(
            f"the image {path} cannot be decoded ({why})", "fetch the data set again, or put a sound copy in its place"
        ) from error
    scale = image_px / min(picture.size)
    width, height = (max(image_px, round(side * scale)) for side in picture.size)
    left, top = (width - image_px) // 2, (height - image_px) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + image_px, top + image_px)))
