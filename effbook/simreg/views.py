"""Views of images for teacher and student, each drawn from (seed, epoch, index): whoever asks again gets the same."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from effbook.errors import EffbookError
from effbook.simreg.config import DistillSettings
from effbook.training import augment
from effbook.training.augment import Draws, View
from effbook.training.seeds import generator
from effbook.training.views import Batch, fetch, mapped

TEACHER, STUDENT = 0, 1  # whose draws; with `same` both have the teacher's
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of each channel
LOOKED_AT = 16  # images whose form and range are checked before work starts
DRAWN_EPOCHS = 2  # kept; a draw of a million images takes about a second


class DistillViews:
    """A data set as batches for `train`: `weak` is the teacher's view, `strong[0]` the student's.

    The data set is a tensor [N, C, H, W], or its items are (image, label) or images: tensors [C, H, W] or PIL images,
    uint8 or floating in 0..1, not normalised yet. Images of one TensorDataset share a draw of the whole epoch, others
    have each its own. Raises EffbookError where images and settings are at odds.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Any] | Tensor,
        settings: DistillSettings,
        *,
        workers: int = 0,
    ) -> None:
        if not len(dataset):
            raise EffbookError("the data set is empty", "give at least one image")
        self.dataset = TensorDataset(dataset) if isinstance(dataset, Tensor) else dataset
        self.settings, self.workers = settings, workers
        self.cached: list[np.ndarray] = []
        first = self._checked()
        size_px = settings.size_px or min(first.shape[-2:])
        self.views = [_view(each, size_px) for each in (settings.teacher_view, settings.student_view)]
        mean, deviation = settings.mean or IMAGENET[0], settings.deviation or IMAGENET[1]
        if len(mean) != len(first):
            raise EffbookError(
                f"the images have {len(first)} channels, and the mean {mean} is of {len(mean)}",
                "give mean and deviation with one number a channel",
            )
        if len(first) != 3 and any(_colours(view) for view in self.views):
            raise EffbookError(
                f"colours of images with {len(first)} channels cannot be changed", 'take the "weak" or the "plain" view'
            )
        self.mean, self.deviation = (torch.tensor(x)[:, None, None] for x in (mean, deviation))
        self._drawn: dict[tuple[int, int], Draws] = {}  # of the epochs asked for last

    def __len__(self) -> int:
        return len(self.dataset)

    def use(self, cached: Sequence[np.ndarray]) -> None:
        """Give the teachers' cached features [V, N, d_k] as `extra` [B, sum of d_k], and no view for the teachers.

        Raises EffbookError where they are of other numbers of views or images.
        """
        wanted = (self.settings.distinct_views, len(self))
        for features in cached:
            if features.shape[:2] != wanted:
                raise EffbookError(
                    f"cached features {features.shape} are not of {wanted[0]} views of {wanted[1]} images",
                    "compute them with these settings and images",
                )
        self.cached = list(cached)

    def batches(self, order: Sequence[Tensor], *, epoch: int) -> Iterator[Batch]:
        """One batch for each index tensor [B]."""
        return mapped(partial(self._batch, epoch), order, workers=self.workers)

    def teacher_views(self, index: Tensor, *, epoch: int) -> Tensor:
        """The normalised views [B, C, S, S] that a teacher gets of these images in an epoch."""
        return self._made(fetch(self.dataset, index)[0], index, epoch, TEACHER)

    def _batch(self, epoch: int, index: Tensor) -> Batch:
        settings = self.settings
        again = epoch if settings.distinct_views is None else epoch % settings.distinct_views
        images, labels = fetch(self.dataset, index)
        if settings.same:
            student = self._made(images, index, again, TEACHER)
        else:
            student = self._made(images, index, epoch, STUDENT)
        if self.cached:
            rows = [torch.from_numpy(features[again, index.numpy()]).float() for features in self.cached]
            return Batch(index, (student,), student[:0], labels, torch.cat(rows, 1))
        teacher = student if settings.same else self._made(images, index, again, TEACHER)
        return Batch(index, (student,), teacher, labels)

    def _made(self, images: Any, index: Tensor, epoch: int, who: int) -> Tensor:
        view = self.views[who]
        if isinstance(self.dataset, TensorDataset):
            whole = self._draws(epoch, who)
            draws = Draws(*(getattr(whole, name)[index] for name in Draws.__dataclass_fields__))
            made = augment.make(images, view, draws)
        else:
            made = []
            for image, i in zip(map(as_tensor, images), index.tolist(), strict=True):
                if image.ndim != 3 or len(image) != len(self.mean):
                    raise EffbookError(
                        f"image {i} has the shape {tuple(image.shape)}, others have {len(self.mean)} channels",
                        'give all with as many; of a picture, `image.convert("RGB")` has 3',
                    )
                draw = augment.draw(view, 1, *image.shape[1:], generator=generator(self.settings.seed, epoch, who, i))
                made.append(augment.make(image[None], view, draw))
            made = torch.cat(made)
        return (made - self.mean.to(made)) / self.deviation.to(made)

    def _draws(self, epoch: int, who: int) -> Draws:
        """The draws of all images of an epoch, whose rows do not depend on who asks for which."""
        if (epoch, who) not in self._drawn:
            if len(self._drawn) == 2 * DRAWN_EPOCHS:
                self._drawn.clear()
            draw = generator(self.settings.seed, epoch, who)
            size = self.dataset.tensors[0].shape[-2:]
            self._drawn[epoch, who] = augment.draw(self.views[who], len(self), *size, generator=draw)
        return self._drawn[epoch, who]

    def _checked(self) -> Tensor:
        """The first image, after a look at some: form and range."""
        index = torch.linspace(0, len(self) - 1, min(LOOKED_AT, len(self))).long()
        images = [as_tensor(image) for image in fetch(self.dataset, index)[0]]
        for image in images:
            if image.ndim != 3 or len(image) != len(images[0]):
                raise EffbookError(
                    f"an image has the shape {tuple(image.shape)}, the first {tuple(images[0].shape)}",
                    "give all as [channels, height, width]",
                )
            if image.dtype != torch.uint8 and not (image.is_floating_point() and 0 <= image.min() <= image.max() <= 1):
                raise EffbookError(
                    f"an image of type {image.dtype} holds numbers from {float(image.min()):.3g} to "
                    f"{float(image.max()):.3g}",
                    "give uint8, or floating numbers from 0 to 1 that are not normalised: `mean` and `deviation` do it",
                )
        return images[0]


def as_tensor(image: Any) -> Tensor:
    """An image as [C, H, W]; what is no tensor is read as an array [H, W, C] or [H, W], as PIL's images are."""
    if isinstance(image, Tensor):
        return image
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.movedim(-1, 0).contiguous()


def _view(view: str | View, size_px: int) -> View:
    """A named view. The plain one is the central square; the strong one's blur is A.2.2.2's, as often as MoCo v2's."""
    if isinstance(view, View):
        return view
    if view == "plain":
        return View(size_px=size_px, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_chance=0.0)
    return augment.weak(size_px) if view == "weak" else augment.strong(size_px, blur_px=(0.01, 1.0))


def _colours(view: View) -> bool:
    return bool(view.jitter_chance or view.grey_chance)
