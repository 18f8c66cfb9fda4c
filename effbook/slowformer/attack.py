"""The attack: one loop for patches and perturbations, with hooks for loss, projection and place; and its judge.

    from effbook.slowformer import AttackConfig, SurrogateLoss, judge, train_patch
    patch, history = train_patch(victim, train_split, loss=SurrogateLoss(), config=AttackConfig(patch_px=28, batch=32))
    print(judge(victim, test_split, patch).success_percent)

A data set is a tensor [N, 3, H, W], or its items are images or (image, label): uint8, or floating in 0..1.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from effbook.errors import EffbookError
from effbook.evaluate.cost import attack_success
from effbook.slowformer.config import AttackConfig
from effbook.slowformer.losses import Look, Loss
from effbook.slowformer.patch import TOP_LEVEL, Patch, check_place, paste, project, start
from effbook.training.seeds import generator, seeded
from effbook.training.views import Make, fetch

if TYPE_CHECKING:
    from effbook.adaptive.victim import Victim

Data = Dataset | Sequence[Any] | Tensor
Step = Callable[[int, float, Tensor], None]  # the step from 1, its loss, the values [C, h, w] in levels after it
_ORDER, _VIEWS, _VICTIM = 1, 2, 3  # what is drawn, as the number after the seed


class Attacked(NamedTuple):
    """A finished patch, or a perturbation's values [C, H, W] in levels, and each step's loss."""

    patch: Any
    losses: list[float]


def train_patch(
    victim: "Victim",
    dataset: Data,
    *,
    loss: Loss,
    config: AttackConfig,
    make: Make | None = None,
    workers: int = 0,
    watch: Step | None = None,
) -> Attacked:
    """Train a universal patch on a data set, images [B, 3, H, W]; the victim stays as it is.

    `make` makes a batch's views [B, 3, H, W] in 0..1 from its images and a generator; the patch is pasted after it.
    Raises EffbookError, before work starts, where the patch does not lie within the images, and as `optimise`. Source:
    4.1.3.2.
    """
    first, _ = next(batches(dataset, 1, seed=config.seed, make=make))
    shape = (len(config.mean), config.patch_px, config.patch_px)
    place = {"top_px": config.top_px, "left_px": config.left_px}
    check_place(shape, tuple(first.shape[1:]), **place)
    values, losses = optimise(
        victim,
        dataset,
        start(config, height_px=config.patch_px, width_px=config.patch_px),
        loss=loss,
        place=partial(paste, **place),
        project=project,
        config=config,
        make=make,
        workers=workers,
        watch=watch,
    )
    return Attacked(Patch(values.byte().cpu(), tuple(first.shape[2:]), **place), losses)


def optimise(
    victim: "Victim",
    dataset: Data,
    values: Tensor,
    *,
    loss: Loss,
    place: Callable[[Tensor, Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    config: AttackConfig,
    make: Make | None = None,
    workers: int = 0,
    watch: Step | None = None,
) -> tuple[Tensor, list[float]]:
    """The loop: `values` [C, h, w] in levels, moved by AdamW without decay and projected after each step.

    `place(images, values)` puts them into images [B, C, H, W]. Gradients reach the values alone; torch's global random
    state stays as it was. Returns the values and each step's loss. Raises EffbookError for images of other sizes or
    ranges, for a loss that the values have no differentiable part in, that is flat, or that is not finite.
    """
    if config.noise and "generator" not in inspect.signature(victim.run).parameters:
        raise EffbookError(f"{type(victim).__name__} decides without noise", "attack it without `noise`")
    device = device_of(victim)
    # One leaf a channel, for a rate a channel: in normalised space x = (levels / 255 - mean) / std all have one.
    channels = [channel.clone().to(device).requires_grad_() for channel in values]
    scales = [TOP_LEVEL * deviation for deviation in config.std]  # levels a unit of normalised space
    groups = [
        {"params": [channel], "lr": config.learning_rate * scale, "eps": 1e-8 / scale}
        for channel, scale in zip(channels, scales, strict=True)
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    losses: list[float] = []
    felt = not config.steps or not values.numel()  # whether a gradient other than 0 was seen
    stream = batches(dataset, config.batch, seed=config.seed, make=make, workers=workers)
    with frozen(victim), seeded(config.seed, _VICTIM, device=device):
        for step in range(1, config.steps + 1):
            images, labels = next(stream)
            images, labels = images.to(device), labels.to(device)
            attacked = place(images, torch.stack(channels))
            noise = generator(config.seed, _VICTIM, step) if config.noise else None
            cost = loss(Look(victim, attacked, labels, clean=images, noise=noise))
            gradients = _gradients(cost, channels, step)
            for channel, gradient in zip(channels, gradients, strict=True):
                channel.grad = gradient
            felt = felt or any(bool(gradient.any()) for gradient in gradients)
            optimiser.step()
            with torch.no_grad():
                for channel, projected in zip(channels, project(torch.stack(channels)), strict=True):
                    channel.copy_(projected)
            losses.append(float(cost.detach()))
            if watch is not None:
                watch(step, losses[-1], torch.stack(channels).detach())
    if not felt:  # an attack that could not move is no sign of a robust victim
        raise EffbookError(
            f"the gradient was 0 for every pixel in all {config.steps} steps",
            "give a victim whose cost is not flat, or another loss",
        )
    return torch.stack(channels).detach(), losses


def _gradients(cost: Tensor, channels: list[Tensor], step: int) -> list[Tensor]:
    """The gradient of one loss for each channel, after a look at whether there is one."""
    if not math.isfinite(value := float(cost.detach())):
        raise EffbookError(f"the attack's loss is {value} at step {step}", "look at the images and the victim")
    found = torch.autograd.grad(cost, channels, allow_unused=True) if cost.requires_grad else [None]
    if any(gradient is None for gradient in found):
        raise EffbookError(
            "the victim's cost has no gradient for its images",
            "give a victim whose `surrogate`, or whose trace under masked execution, is differentiable",
        )
    if not all(bool(gradient.isfinite().all()) for gradient in found):
        raise EffbookError(f"the attack's gradient is not finite at step {step}", "look at the images and the victim")
    return list(found)


class Judgement(NamedTuple):
    """What an attack does to a victim on images that it was not made from; means over images."""

    clean_macs: float
    attacked_macs: float
    success_percent: float  # of what the victim saves, how much the attack undoes; negative where it lowers the cost
    clean_accuracy: float | None  # None where an image has no label
    attacked_accuracy: float | None
    clean_macs_each: Tensor  # [N]
    attacked_macs_each: Tensor  # [N]


def judge(
    victim: "Victim",
    dataset: Data,
    attack: Callable[[Tensor], Tensor],
    *,
    batch: int = 64,
    execution: str = "dropped",
) -> Judgement:
    """The cost and the accuracy without and with an attack, which is a function of images [B, 3, H, W] in 0..1.

    Raises EffbookError for images of other sizes or ranges, and for a victim that saves nothing. Source: 4.1.5.1.
    """
    device, dataset = device_of(victim), as_dataset(dataset)
    macs: dict[bool, list[Tensor]] = {False: [], True: []}
    right: dict[bool, list[Tensor]] = {False: [], True: []}
    labelled = True
    with frozen(victim), torch.no_grad(), seeded(0, _VICTIM, device=device):
        for index in torch.arange(len(dataset)).split(batch):
            images, labels = (x.to(device) for x in _fetched(dataset, None, (), index))
            labelled = labelled and int(labels.min()) >= 0
            for attacked in (False, True):
                outcome = victim.run(attack(images) if attacked else images, execution=execution)
                macs[attacked].append(outcome.macs.double().cpu())
                right[attacked].append((outcome.logits.argmax(1) == labels).double().cpu())
    clean, bad = torch.cat(macs[False]), torch.cat(macs[True])
    bound = victim.bound()
    success = attack_success(clean, bad, low=bound.low_macs, high=bound.high_macs)
    accuracies = [float(torch.cat(right[attacked]).mean()) if labelled else None for attacked in (False, True)]
    return Judgement(float(clean.mean()), float(bad.mean()), success, *accuracies, clean, bad)


def batches(
    dataset: Data, batch: int, *, seed: int, make: Make | None = None, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images [B, C, H, W] in 0..1 and labels [B] (-1: none), epoch after epoch without end, each in its own order.

    The last, partial batch of an epoch is dropped. Raises EffbookError for fewer images than a batch, and for images
    of other sizes or ranges.
    """
    dataset = as_dataset(dataset)
    if len(dataset) < batch:
        raise EffbookError(f"{len(dataset)} images are fewer than a batch of {batch}", "choose a smaller batch")
    epoch = 0
    while True:
        order = torch.randperm(len(dataset), generator=generator(seed, _ORDER, epoch))
        whole = list(order[: len(dataset) // batch * batch].split(batch))
        get = partial(_fetched, dataset, make, (seed, _VIEWS, epoch))
        yield from (
            DataLoader(whole, batch_size=None, num_workers=workers, collate_fn=get) if workers else map(get, whole)
        )
        epoch += 1


def _fetched(dataset: Dataset, make: Make | None, key: tuple[int, ...], index: Tensor) -> tuple[Tensor, Tensor]:
    images, labels = fetch(dataset, index)
    if make is not None:
        key = (*key, int(index[0]))
        with seeded(*key):
            images = make(images, generator(*key))
    return as_images(images), labels


def as_dataset(dataset: Data) -> Dataset:
    """A data set, of a tensor of images as well. Raises EffbookError where it is empty."""
    if not len(dataset):
        raise EffbookError("the data set is empty", "give at least one image")
    return TensorDataset(dataset) if isinstance(dataset, Tensor) else dataset


def as_images(images: Any) -> Tensor:
    """Images [B, C, H, W], uint8 or floating, as floating in 0..1. Raises EffbookError for other shapes or ranges."""
    if not isinstance(images, Tensor):
        sizes = sorted({tuple(getattr(image, "shape", ())) for image in images})
        raise EffbookError(f"images have the sizes {sizes}", "give tensors of one size, or views (`make`) of one")
    if images.ndim != 4:
        raise EffbookError(f"images have the shape {tuple(images.shape)}", "give [images, channels, height, width]")
    if images.dtype == torch.uint8:
        return images / TOP_LEVEL
    if not images.is_floating_point() or not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise EffbookError(
            f"images of type {images.dtype} hold numbers from {float(images.min()):.3g} to {float(images.max()):.3g}",
            "give uint8, or floating numbers in 0..1 that are not normalised: the victim does it",
        )
    return images


def device_of(victim: Any) -> torch.device:
    """Where a victim is; one without parameters is on the CPU."""
    parameters = victim.parameters() if isinstance(victim, nn.Module) else ()
    return next((p.device for p in parameters), torch.device("cpu"))


@contextmanager
def frozen(victim: Any) -> Iterator[None]:
    """A victim in evaluation mode whose parameters get no gradient; afterwards all is as it was."""
    modules = list(victim.modules()) if isinstance(victim, nn.Module) else []
    parameters = list(victim.parameters()) if isinstance(victim, nn.Module) else []
    modes, needs = [module.training for module in modules], [p.requires_grad for p in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, need in zip(parameters, needs, strict=True):
            parameter.requires_grad_(need)
