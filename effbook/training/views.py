"""Any data set of images, with or without labels, as batches of views for the training loop."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from effbook.errors import EffbookError
from effbook.training.seeds import generator, seeded

Make = Callable[[Any, Generator], Tensor]  # images (a tensor [B, C, H, W], or a list where sizes differ) to [B, ...]


class Batch(NamedTuple):
    """What a step sees of a batch: every method takes it.

    `index` [B] numbers the training images from 0, and is that of the image seen, also where it stands in for another.
    `label` [B] is -1 where there is none. `strong` are the online network's views, [B, ...] each, smaller crops among
    them; `weak` is the target's. `extra` is the target's third view, or the other modality's input.
    """

    index: Tensor
    strong: tuple[Tensor, ...]
    weak: Tensor
    label: Tensor
    extra: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        index, weak, label = (t.to(device, non_blocking=True) for t in (self.index, self.weak, self.label))
        extra = None if self.extra is None else self.extra.to(device, non_blocking=True)
        return Batch(index, tuple(view.to(device, non_blocking=True) for view in self.strong), weak, label, extra)


class Views:
    """A data set whose items are (image, label) or images alone; label None or -1: none. A tensor of images will do.

    `strong` makes the online network's view and `crops` its smaller ones, `weak` the target's, `extra` a third view or
    the other modality's. An item with a whole number as `index` says which image it is, where it stands in for another
    that cannot be read. What a batch's views draw depends on seed, epoch and the batch's first image alone, also from
    torch's global state, and for any number of `workers`. A TensorDataset is indexed a batch at a time.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Any] | Tensor,
        *,
        strong: Make,
        weak: Make,
        crops: Sequence[Make] = (),
        extra: Make | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        if not len(dataset):
            raise EffbookError("the data set is empty", "give at least one image")
        self.dataset = TensorDataset(dataset) if isinstance(dataset, Tensor) else dataset
        self.online, self.weak, self.extra = (strong, *crops), weak, extra
        self.seed, self.workers = seed, workers

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, order: Sequence[Tensor], *, epoch: int) -> Iterator[Batch]:
        """One batch for each index tensor [B]."""
        yield from mapped(partial(self._batch, epoch), order, workers=self.workers)

    def _batch(self, epoch: int, index: Tensor) -> Batch:
        images, labels, shown = fetch_shown(self.dataset, index)
        key = (self.seed, epoch, int(index[0]))
        draw = generator(*key)
        with seeded(*key):
            strong = tuple(make(images, draw) for make in self.online)
            weak = self.weak(images, draw)
            extra = None if self.extra is None else self.extra(images, draw)
        return Batch(shown, strong, weak, labels, extra)


def mapped(make: Callable[[Tensor], Batch], order: Sequence[Tensor], *, workers: int) -> Iterator[Batch]:
    """make(index) for each index tensor [B], in order, here or in so many processes."""
    if workers:
        yield from DataLoader(list(order), batch_size=None, num_workers=workers, collate_fn=make)
    else:
        yield from map(make, order)


def fetch(dataset: Dataset | Sequence[Any], index: Tensor) -> tuple[Any, Tensor]:
    """Images and labels [B] of a data set: a tensor [B, ...] where all are of one shape, else a list; label -1: none.

    Raises EffbookError for a label below -1.
    """
    return fetch_shown(dataset, index)[:2]


def fetch_shown(dataset: Dataset | Sequence[Any], index: Tensor) -> tuple[Any, Tensor, Tensor]:
    """What `fetch` gives, and which images these are [B]: others than those asked for where items say so."""
    if isinstance(dataset, TensorDataset):
        images, *rest = dataset[index]
        labels = rest[0] if rest else torch.full((len(index),), -1)
    else:
        items = [dataset[i] for i in index.tolist()]
        named = [getattr(item, "index", None) for item in items]  # of a plain tuple or list it is a method
        index = torch.tensor([of if isinstance(of, int) else i for of, i in zip(named, index.tolist(), strict=True)])
        pairs = [item if isinstance(item, tuple | list) else (item, None) for item in items]
        images = [image for image, *_ in pairs]
        labels = torch.tensor([-1 if label is None else int(label) for _, label, *_ in pairs])
        if all(isinstance(image, Tensor) and image.shape == images[0].shape for image in images):
            images = torch.stack(images)
    if int(labels.min()) < -1:
        raise EffbookError(f"a label is {int(labels.min())}", "number classes from 0, and use -1 for no label")
    return images, labels.long(), index
