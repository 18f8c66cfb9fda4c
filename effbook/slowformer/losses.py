"""What an attack minimises: a loss a victim, the surrogate for any, and terms for the task (4.1.3.2).

A loss is called with a `Look` at one batch and gives one number. Where text and released code differ, both can be had.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.adaptive.adavit import usage_loss
from effbook.adaptive.avit import distribution_loss, ponder_loss
from effbook.errors import EffbookError

if TYPE_CHECKING:
    from effbook.adaptive.victim import Outcome, Victim


class Look:
    """What a loss sees of a batch: images [B, 3, H, W] in 0..1 with the attack in them, the clean ones, labels [B].

    The victim runs once, when a loss first asks for it.
    """

    def __init__(
        self,
        victim: "Victim",
        images: Tensor,
        labels: Tensor,
        *,
        clean: Tensor,
        noise: torch.Generator | None = None,  # of AdaViT's decisions; None: without
    ) -> None:
        self.victim, self.images, self.clean, self._labels = victim, images, clean, labels
        self._drawing = {} if noise is None else {"generator": noise}

    @cached_property
    def outcome(self) -> "Outcome":
        """What the victim does under masked execution, which is differentiable."""
        return self.victim.run(self.images, execution="masked", **self._drawing)

    @cached_property
    def surrogate(self) -> Tensor:
        """The expected share of the compute, [B]."""
        return self.victim.surrogate(self.images)

    @property
    def labels(self) -> Tensor:
        """True classes [B]. Raises EffbookError where an image has none."""
        if int(self._labels.min()) < 0:
            raise EffbookError("a loss of the task needs labels, and an image has none", "give (image, label) pairs")
        return self._labels

    def trace(self, *names: str) -> Any:
        """The victim's trace, if it shows these quantities. Raises EffbookError where it lacks one."""
        trace = self.outcome.trace
        for name in names:
            if getattr(trace, name, None) is None:
                raise EffbookError(
                    f"{type(self.victim).__name__} shows no {name} under masked execution",
                    "take the loss that was made for this victim, or SurrogateLoss",
                )
        return trace


Loss = Callable[[Look], Tensor]


@dataclass(frozen=True, kw_only=True)
class SurrogateLoss:
    """For any victim: its expected share of the compute, negated, mean over the batch."""

    def __call__(self, look: Look) -> Tensor:
        return -look.surrogate.mean()


@dataclass(frozen=True, kw_only=True)
class AViTLoss:
    """A-ViT's ponder and distribution terms (Eq. 4.1), with the signs of the text or of the released code.

    "text": -(alpha_d L_distr + alpha_p L_ponder). "code": the ponder term alone is negated. Both terms are those that
    A-ViT is trained by, over tokens and images, and have a value for a batch of one, too.
    """

    sign: Literal["text", "code"] = "code"
    ponder_weight: float = 5e-4  # alpha_p
    distribution_weight: float = 1e-3  # alpha_d
    prior_depth: float = 8.0  # of the prior, in blocks from 1
    prior_deviation: float = 1.0

    def __post_init__(self) -> None:
        _check_form(self.sign, "text", "code")

    def __call__(self, look: Look) -> Tensor:
        trace = look.trace("scores", "ponder")
        distribution = distribution_loss(trace, depth=self.prior_depth, deviation=self.prior_deviation)
        sign = -1 if self.sign == "text" else 1
        return sign * self.distribution_weight * distribution - self.ponder_weight * ponder_loss(trace)


@dataclass(frozen=True, kw_only=True)
class AdaViTLoss:
    """AdaViT's usage loss with targets of 0, negated (Eq. 4.3): of an image, then mean over the batch.

    "text": squares of the three shares kept. "released": twice 1.1 times the shares of heads and blocks as they are,
    and twice the square of that of patches, over the whole batch; heads count in blocks that run. (The released code
    also adds the entropies of the probabilities of heads and blocks, weight 0.2, which a trace does not hold.)
    """

    form: Literal["text", "released"] = "text"

    def __post_init__(self) -> None:
        _check_form(self.form, "text", "released")

    def __call__(self, look: Look) -> Tensor:
        trace = look.trace("patches", "heads", "blocks")
        if self.form == "text":
            return -usage_loss(trace, patches=0, heads=0, blocks=0).mean()
        heads, blocks = trace.heads, trace.blocks
        runs = (blocks.sum(-1, keepdim=True) > 0).to(heads).expand_as(heads)  # [B, L, H]
        of_heads = (heads * runs).sum() / runs.sum().clamp(min=1)
        return -2 * (1.1 * of_heads + 1.1 * blocks.mean() + trace.patches.mean().square())


@dataclass(frozen=True, kw_only=True)
class ATSLoss:
    """How far the class token's attention is from uniform (Eq. 4.5), summed over heads, weighted by stage.

    `weights` are one a stage; those of C.4 for DeiT-Ti, S and B are `ATS_WEIGHTS`. "text": the uniform share is 1 / N,
    N with the class token; "released": N without. Mean over the batch.
    """

    weights: tuple[float, ...]
    form: Literal["text", "released"] = "text"

    def __post_init__(self) -> None:
        _check_form(self.form, "text", "released")

    def __call__(self, look: Look) -> Tensor:
        attention = look.trace("attention").attention  # A_1j of the patches: [B, S, heads, N]
        if attention.shape[1] != len(self.weights):
            raise EffbookError(
                f"{len(self.weights)} weights for a victim with {attention.shape[1]} sampling stages",
                "give one weight a stage",
            )
        tokens = attention.shape[-1] + (self.form == "text")
        stages = (attention - 1 / tokens).square().sum((2, 3)).mean(0)  # [S]
        return (stages * stages.new_tensor(self.weights)).sum()


ATS_WEIGHTS = {
    "deit_tiny": (1.0, 0.2, 0.2, 0.2, 0.01, 0.01, 0.01),
    "deit_small": (1.0, 0.2, 0.05, 0.01, 0.005, 0.005, 0.005),
    "deit_base": (2.0, 0.1, 0.02, 0.01, 0.005, 0.005, 0.005),
}


@dataclass(frozen=True, kw_only=True)
class NonTargeted:
    """NTAP: minus the cross-entropy with the true class."""

    def __call__(self, look: Look) -> Tensor:
        return -F.cross_entropy(look.outcome.logits, look.labels)


@dataclass(frozen=True, kw_only=True)
class Targeted:
    """TAP: the cross-entropy with one class for all images."""

    target: int

    def __call__(self, look: Look) -> Tensor:
        logits = look.outcome.logits
        if not 0 <= self.target < logits.shape[1]:
            raise EffbookError(
                f"the target class {self.target} is none of {logits.shape[1]}",
                f"give one from 0 to {logits.shape[1] - 1}",
            )
        return F.cross_entropy(logits, torch.full_like(logits[:, 0], self.target, dtype=torch.long))


@dataclass(frozen=True, kw_only=True)
class WithTask:
    """A loss of the compute with +L_task (`preserve`) or -L_task added, the cross-entropy with the true class."""

    compute: Loss
    preserve: bool
    weight: float = 1.0

    def __call__(self, look: Look) -> Tensor:
        task = F.cross_entropy(look.outcome.logits, look.labels)
        return self.compute(look) + (self.weight if self.preserve else -self.weight) * task


def _check_form(value: str, *forms: str) -> None:
    if value not in forms:
        raise EffbookError(f"{value!r} is no form of this loss", f"choose {' or '.join(map(repr, forms))}")
