"""Images of a split, held as one array, or left as files that are decoded when they are asked for.

Data sets that lie as files (`FILE_READERS`) are larger than memory: they are streamed. A file that cannot be decoded is
counted; in training the next sound one stands in, in an evaluation it is left out.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from effbook.backbones import IMAGE_MEAN, IMAGE_STD
from effbook.data import load_images, manifest
from effbook.data.images import ImageFiles
from effbook.data.listing import FILE_READERS, list_files
from effbook.data.stream import ImageStream, Streamed
from effbook.evaluate.vision import features
from effbook.experiments.shared.draws import subset
from effbook.runs.recipe import Recipe
from effbook.training.augment import View, augment, transforms
from effbook.training.seeds import seeded

FEW = 1_000  # files; for fewer, starting processes takes longer than decoding
BATCH = 256
CENTRED_PX = 224  # from this size on arrays are treated as files are: all of a small image counts, below it


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of one split: `images` uint8 [N, 3, H, W] or a stream, `labels` [N], `classes` their names.

    `drawn` says of which data set, which part, how many (None: all) and by which seed.
    """

    images: Tensor | ImageStream
    labels: Tensor
    classes: tuple[str, ...]
    size_px: int
    drawn: tuple[str, str, int | None, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def broken(self) -> dict[str, int]:
        """The metric of a streamed split: how many of its files could not be decoded so far."""
        return {} if isinstance(self.images, Tensor) else {"broken_images": len(self.images.broken())}

    @property
    def workers(self) -> int:
        """Processes that decode files."""
        return 0 if isinstance(self.images, Tensor) or len(self) < FEW else min(16, os.cpu_count() or 1)

    def sound(self, labels: Tensor) -> Tensor:
        """The labels [N], -1 in place of those of files that cannot be decoded; all files that bear one are tried.

        For who asks for images by index and has labels beside them: another image would stand in with a wrong label.
        """
        if isinstance(self.images, Tensor):
            return labels
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda i: self.images[i].index, (labels >= 0).nonzero()[:, 0].tolist()))
        return labels.masked_fill(self.marked, -1)

    @property
    def marked(self) -> Tensor:
        """Which images could not be decoded so far: bool [N]."""
        whole = isinstance(self.images, Tensor)
        return torch.zeros(len(self), dtype=torch.bool) if whole else torch.from_numpy(self.images.marks())

    def at(self, index: Tensor) -> "Tensor | list[Any]":
        """The images at these indices [B]: uint8 [B, 3, H, W], or decoded files of any size."""
        if isinstance(self.images, Tensor):
            return self.images[index]
        with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
            return [image for image, _, _ in pool.map(self.images.__getitem__, index.tolist())]

    def whole(self, index: Tensor) -> Tensor:
        """The images at these indices [B], unaltered: uint8 [B, 3, S, S]."""
        found = self.at(index)
        return found if isinstance(found, Tensor) else torch.stack([centre(x, self.size_px) for x in found])


class Labelled(Dataset):
    """The files of a stream with other labels [N], for `Views`."""

    def __init__(self, stream: ImageStream, labels: Tensor) -> None:
        self.stream, self.labels = stream, labels

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> Streamed:
        image, _, at = self.stream[index]
        return Streamed(image, int(self.labels[at]), at)


def split(dataset: str, part: str, *, size_px: int, wanted: int | None, seed: int) -> Split:
    """A split of a data set as squares of `size_px`, or `wanted` of its images, drawn from the seed."""
    streamed = manifest(dataset).loader in FILE_READERS
    found = list_files(dataset, part) if streamed else load_images(dataset, part)
    wanted = wanted if wanted is not None and wanted < len(found) else None
    chosen = subset(len(found), wanted, seed=seed)
    labels, classes = found.labels[chosen], found.classes
    if streamed:
        files = ImageFiles(paths=tuple(found.paths[i] for i in chosen), labels=labels, classes=classes)
        images = ImageStream(files, _as_it_is)
    else:
        images = _squares(torch.from_numpy(found.images[chosen]), size_px)
    drawn = (dataset, part, wanted, 0 if wanted is None else seed)
    return Split(images=images, labels=torch.from_numpy(labels), classes=classes, size_px=size_px, drawn=drawn)


def train_split(recipe: Recipe) -> Split:
    """What a recipe trains on: its seed draws the images, where they are not all."""
    return split(recipe.dataset, "train", size_px=recipe.image_px, wanted=recipe.train_images, seed=recipe.seed)


def test_split(recipe: Recipe) -> Split:
    """What an evaluation tests on: the same images for all seeds."""
    return split(recipe.dataset, "test", size_px=recipe.image_px, wanted=recipe.test_images, seed=0)


def features_of(
    model: nn.Module, images: Split, *, transform: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Features [n, D] of whole images and their labels [n], on the CPU; n is less than N where files are broken."""
    transform = transform or normalised
    if isinstance(images.images, Tensor):
        return features(model, images.images, BATCH, transform=transform), images.labels
    collate = partial(_stacked, size_px=images.size_px)
    loader = DataLoader(images.images, batch_size=BATCH, num_workers=images.workers, collate_fn=collate)
    found, sound, start = [], [], 0
    for pixels, index in loader:
        found.append(features(model, pixels, BATCH, transform=transform))
        sound.append(index == torch.arange(start, start + len(index)))  # another index: one that stood in
        start += len(index)
    kept = torch.cat(sound)
    return torch.cat(found)[kept], images.labels[kept]


def seen(images: "Tensor | Sequence[Any]", draw: Generator, *, view: View) -> Tensor:
    """A random view of each image, normalised: [B, 3, S, S]."""
    if isinstance(images, Tensor):
        return normalised(augment(images, view, generator=draw))
    make = transforms(view)  # draws from torch's global state
    with seeded(int(torch.randint(2**31, (), generator=draw))):
        return normalised(torch.stack([make(image) for image in images]))


def normalised(pixels: Tensor) -> Tensor:
    """[B, 3, H, W], uint8 or in 0..1, less ImageNet's mean, over its deviation."""
    x = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    mean, deviation = (x.new_tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    return ((x - mean) / deviation).contiguous(memory_format=torch.channels_last)


def centre(image: Any, size_px: int) -> Tensor:
    """uint8 [3, S, S] of a PIL image: the shorter side resized to 256 for S = 224, then the centre (A.1.5.1)."""
    from torchvision.transforms.v2 import functional as V

    return V.pil_to_tensor(V.center_crop(V.resize(image, [_enlarged(size_px)]), [size_px]))


def with_labels(images: Split, labels: Tensor) -> Dataset:
    """The split's images with other labels [N], as `Views` takes them."""
    if isinstance(images.images, Tensor):
        return TensorDataset(images.images, labels)
    return Labelled(images.images, labels)


def _squares(images: Tensor, size_px: int) -> Tensor:
    images = images[..., None].expand(-1, -1, -1, 3) if images.ndim == 3 else images
    pixels = images.permute(0, 3, 1, 2).contiguous()
    if pixels.shape[-1] == size_px:
        return pixels
    margin = (_enlarged(size_px) - size_px) // 2 if size_px >= CENTRED_PX else 0
    x = F.interpolate(pixels.float(), [size_px + 2 * margin] * 2, mode="bilinear", antialias=True)
    x = x[..., margin : margin + size_px, margin : margin + size_px]
    return x.round().clamp(0, 255).to(torch.uint8)


def _enlarged(size_px: int) -> int:
    return round(size_px * 256 / 224)


def _stacked(items: list[tuple[Any, int, int]], *, size_px: int) -> tuple[Tensor, Tensor]:
    return torch.stack([centre(image, size_px) for image, _, _ in items]), torch.tensor([at for _, _, at in items])


def _as_it_is(image: Any) -> Any:
    return image
