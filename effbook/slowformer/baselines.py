"""What SlowFormer is compared with, on the same loop: random patch, TAP, perturbation, DeSparsify (4.1.5.1).

NTAP is `train_patch` with the loss `NonTargeted`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError
from effbook.slowformer.attack import Attacked, Data, Step, batches, optimise, train_patch
from effbook.slowformer.config import AttackConfig
from effbook.slowformer.losses import Look, Loss, Targeted
from effbook.slowformer.patch import TOP_LEVEL, Patch, start
from effbook.training.seeds import generator
from effbook.training.views import Make

if TYPE_CHECKING:
    from effbook.adaptive.victim import Victim

_TARGETS, _PERTURBATION = 4, 5  # what is drawn, as the number after the seed


def random_patch(config: AttackConfig, *, image_px: tuple[int, int]) -> Patch:
    """A patch of independent pixels, each of the 256 levels as likely: the start of the attack with the same seed.

    Raises EffbookError where it does not lie within images of `image_px`, (height, width).
    """
    values = start(replace(config, start="uniform"), height_px=config.patch_px, width_px=config.patch_px)
    return Patch(values.byte(), image_px, config.top_px, config.left_px)


def tap_targets(classes: int, *, count: int = 10, seed: int = 0) -> list[int]:
    """`count` different classes drawn at random, all where there are no more."""
    return torch.randperm(classes, generator=generator(seed, _TARGETS))[:count].tolist()


def train_taps(
    victim: "Victim", dataset: Data, *, classes: int, config: AttackConfig, count: int = 10, make: Make | None = None
) -> dict[int, Attacked]:
    """TAP: for each drawn class a patch that makes it the answer; their metrics are to be averaged."""
    return {
        target: train_patch(victim, dataset, loss=Targeted(target=target), config=config, make=make)
        for target in tap_targets(classes, count=count, seed=config.seed)
    }


@dataclass(frozen=True)
class Perturbation:
    """A universal perturbation: whole levels [3, H, W] as int16, added to every image; the sum is cut to 0..1."""

    levels: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in 0..1, perturbed. Raises EffbookError for images of another size."""
        if images.shape[1:] != self.levels.shape:
            raise EffbookError(
                f"the perturbation is of shape {tuple(self.levels.shape)} and the images of {tuple(images.shape[1:])}",
                "resize the images, or make a perturbation for these",
            )
        return add(images, self.levels)


def add(images: Tensor, values: Tensor) -> Tensor:
    """Images [B, C, H, W] in 0..1 plus values [C, H, W] in levels, cut to 0..1; gradients flow to the values."""
    return (images + values.to(images) / TOP_LEVEL).clamp(0, 1)


def within(epsilon_levels: int) -> Callable[[Tensor], Tensor]:
    """The projection of a perturbation: onto -epsilon..epsilon, then to the nearest whole level."""
    return lambda values: values.clamp(-epsilon_levels, epsilon_levels).round()


def train_perturbation(
    victim: "Victim",
    dataset: Data,
    *,
    epsilon_levels: int,
    loss: Loss,
    config: AttackConfig,
    make: Make | None = None,
    workers: int = 0,
    watch: Step | None = None,
) -> Attacked:
    """A universal perturbation of at most `epsilon_levels` of 255 a pixel (Table 4.5), as `train_patch` else.

    It starts uniform over its levels, or at 0 with the start "zero"; the released code's perturbation does not keep the
    bound, so this follows the text. Raises EffbookError for a bound outside 0..255 and for the start "released".
    """
    if type(epsilon_levels) is not int or not 0 <= epsilon_levels <= TOP_LEVEL:
        raise EffbookError(f"the bound is {epsilon_levels!r} levels", "give a whole number from 0 to 255")
    if config.start == "released":
        raise EffbookError("a perturbation has no released start", 'choose "uniform" or "zero"')
    images, _ = next(batches(dataset, 1, seed=config.seed, make=make))
    drawn = torch.randint(
        -epsilon_levels,
        epsilon_levels + 1,
        images.shape[1:],
        generator=generator(config.seed, _PERTURBATION),
    ).float()
    values, losses = optimise(
        victim,
        dataset,
        drawn if config.start == "uniform" else torch.zeros_like(drawn),
        loss=loss,
        place=add,
        project=within(epsilon_levels),
        config=config,
        make=make,
        workers=workers,
        watch=watch,
    )
    return Attacked(Perturbation(values.to(torch.int16).cpu()), losses)


@dataclass(frozen=True, kw_only=True)
class DeSparsify:
    """The loss of DeSparsify (Yehezkel et al., 2024), written from its idea: keep tokens, keep the classification.

    The first term drives a victim's activations to where nothing is dropped. "avit": the mean halting score of all
    layers but the last, to 0. "ats": the divergence of each stage's scores from the uniform distribution, mean over
    stages. "adavit": the squared distance of the decisions from 1, mean over patches, over heads and over blocks,
    summed. The second, times `weight`, is the cross-entropy with the class that the victim gives the clean image.
    Theirs is minimised by projected steps of the gradient's sign; here it runs on SlowFormer's loop.
    """

    victim: Literal["avit", "ats", "adavit"]
    weight: float

    def __post_init__(self) -> None:
        if self.victim not in ("avit", "ats", "adavit"):
            raise EffbookError(f"DeSparsify knows no victim {self.victim!r}", "choose avit, ats or adavit")

    def __call__(self, look: Look) -> Tensor:
        with torch.no_grad():
            original = look.victim.run(look.clean, execution="masked").logits.argmax(1)
        return self.kept(look) + self.weight * F.cross_entropy(look.outcome.logits, original)

    def kept(self, look: Look) -> Tensor:
        """The first term."""
        if self.victim == "avit":
            return look.trace("scores").scores[:, :-1].mean()  # the last layer halts every token anyway
        if self.victim == "ats":
            scores = look.trace("scores").scores  # [B, S, N]
            scores = scores / scores.sum(-1, keepdim=True)
            log_ratio = (scores * scores.shape[-1]).clamp(min=1e-12).log()  # tokens lost before have a score of 0
            return (scores * log_ratio).sum(-1).mean()
        trace = look.trace("patches", "heads", "blocks")
        return sum((1 - made).square().mean() for made in (trace.patches, trace.heads, trace.blocks))
