"""Constrained mean shift for someone with images and an encoder of her own."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from effbook.cmsf.config import MeanShiftSettings
from effbook.cmsf.constraints import ConfidentPseudoLabel, Constraint
from effbook.cmsf.labelling import PseudoLabels
from effbook.cmsf.networks import Networks
from effbook.cmsf.pseudo import ClassifierSettings
from effbook.cmsf.step import MeanShift
from effbook.errors import EffbookError
from effbook.training.distributed import world_size
from effbook.training.settings import TrainSettings
from effbook.training.train import Moment, in_file, train
from effbook.training.views import Make, Views


def fit(
    encoder: nn.Module,
    dataset: Dataset | Sequence[Any] | Tensor,
    *,
    constraint: Constraint,
    epochs: int = 200,
    batch: int = 256,
    learning_rate: float = 0.05,
    bank_size: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    sync_batch_norm: bool = False,
    strong: Make | None = None,
    weak: Make | None = None,
    extra: Make | None = None,
    labels: Tensor | None = None,
    classifier: ClassifierSettings | None = None,
    seed: int = 0,
    workers: int = 0,
    checkpoint: Path | str | None = None,
    watch: Callable[[MeanShift, Moment], None] | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train an encoder, images [B, C, H, W] to [B, d], in place; return it and each epoch's mean loss and rate.

        encoder = resnet18()                       # any torch module that ends with pooling
        encoder, history = fit(encoder, dataset, constraint=PreviousEpoch(k=5, k_prime=5), epochs=100)

    `dataset` holds (image, label) or images; label None or -1: none. Without labels take `PreviousEpoch`, with labels
    `SameLabel`; with a few, a `classifier` on the features of the labelled images guesses the others (2.1.3.3):

        labels = torch.full((len(images),), -1)    # of all images, -1 where there is none
        labels[shown] = known
        constraint = ConfidentPseudoLabel(k=10, threshold=0.85)
        encoder, history = fit(encoder, images, constraint=constraint, labels=labels)
        network, guessed = finetune(               # both rounds of A.1.5.3
            encoder, labels, dim=512, classes=10, settings=FinetuneSettings(), generator=torch.Generator(),
            training=lambda index: augmented(images[index]), plain=lambda index: images[index],
        )

    `strong`, `weak` and `extra` make views of a batch: images and a generator to [B, C, h, w]; by default
    they are those of the dissertation, at the size of the first image. The bank holds at most 128,000 embeddings.
    `sync_batch_norm` takes batch statistics over all processes where several train, each on a GPU; else targets are
    shuffled between them. With `checkpoint` each epoch's state is written there, and a call that finds one goes on from
    it. The rest is as in 2.1.4. Raises EffbookError where encoder, data and settings do not go together.
    """
    if isinstance(constraint, ConfidentPseudoLabel) != (labels is not None):
        raise EffbookError(
            "ConfidentPseudoLabel needs `labels`, from which others are guessed, and no other constraint takes them",
            "give the label of each image [N], -1 where there is none, with ConfidentPseudoLabel alone",
        )
    if labels is not None and labels.shape != (len(dataset),):
        raise EffbookError(
            f"labels {tuple(labels.shape)} do not go with {len(dataset)} images", "give one for each, -1 for none"
        )
    training = TrainSettings(epochs=epochs, batch=batch, learning_rate=learning_rate, seed=seed)
    if bank_size is None:
        bank_size = max(1, min(128_000, len(dataset)) // batch) * batch
    settings = MeanShiftSettings(
        k=getattr(constraint, "k", None) or 1,
        bank_size=bank_size,
        unconstrained_half=constraint.second in ("previous", "third"),
        precision=precision,
        seed=seed,
    )
    if strong is None or weak is None:
        from effbook.training import augment

        image = dataset[0][0] if isinstance(dataset[0], tuple | list) else dataset[0]
        size_px = min(image.shape[-2:])
        made = {name: getattr(augment, name)(size_px) for name in ("strong", "weak")}
        strong = strong or partial(_augmented, view=made["strong"])
        weak = weak or partial(_augmented, view=made["weak"])
    if constraint.second == "third":
        extra = extra or weak
    data = Views(dataset, strong=strong, weak=weak, extra=extra, seed=seed, workers=workers)
    synchronised = _synchronised(sync_batch_norm, _device(encoder))
    networks = Networks(encoder, _width(encoder, data), seed=seed, sync_batch_norm=synchronised)
    method = MeanShift(networks, constraint, settings, images=len(data))
    if labels is not None:
        method.relabel = PseudoLabels(method, labels, classes=int(labels.max()) + 1, settings=classifier, seed=seed)

    def after(moment: Moment) -> None:
        if labels is not None:
            method.relabel.after(moment)
        if watch is not None:
            watch(method, moment)

    history = train(method, data, training, watch=after, **in_file(checkpoint))
    return encoder, history


def _augmented(images: Tensor, draw: torch.Generator, *, view: Any) -> Tensor:
    from effbook.training.augment import augment

    return augment(images, view, generator=draw)


def _device(encoder: nn.Module) -> torch.device:
    return next((p.device for p in encoder.parameters()), torch.device("cpu"))


def _synchronised(wanted: bool, device: torch.device) -> bool:
    """Whether batch norm is to be synchronised: where it is wanted, and there is another process."""
    if wanted and world_size() > 1 and device.type != "cuda":
        raise EffbookError(
            "batch norm can be synchronised between processes on GPUs only", "leave out sync_batch_norm on a CPU"
        )
    return wanted and world_size() > 1


@torch.no_grad()
def _width(encoder: nn.Module, data: Views) -> int:
    """The d of the encoder, seen on two images."""
    index = torch.arange(2).clamp(max=len(data) - 1)
    (batch,) = data.batches([index], epoch=0)
    was_training = encoder.training
    try:
        features = encoder.eval()(batch.weak.to(_device(encoder)))
    finally:
        encoder.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise EffbookError(
            f"the encoder gives {tuple(getattr(features, 'shape', ())) or type(features).__name__} for two images",
            "end it with pooling, so that it gives [B, d]",
        )
    return features.shape[1]
