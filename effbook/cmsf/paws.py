"""PAWS, the semi-supervised rival: views agree on soft labels, which a few labelled samples, the support, give them.

Written from the method (Assran et al. 2021); Table 2.6 has it with a support of 400 (200 classes, 2 images each).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from effbook.errors import EffbookError


@dataclass(frozen=True, kw_only=True)
class PAWSSettings:
    """Temperature of the neighbours, that of the sharpening (0.25: fourth power), smoothing of the support's labels.

    `spread` weighs the term that keeps the predictions from falling into one class. Raises EffbookError where a value
    is impossible.
    """

    temperature: float = 0.1
    sharpening: float = 0.25
    smoothing: float = 0.1
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 < self.sharpening <= 1 and 0 <= self.smoothing < 1 and self.spread >= 0):
            raise EffbookError(f"{self} is impossible", "give temperatures above 0, smoothing below 1, spread of 0 up")


def draw_support(labels: Tensor, *, classes: int, per_class: int, generator: Generator) -> Tensor:
    """Positions of a step's support [classes * per_class] among the labelled samples, labels [N] (-1 is none).

    So many classes, and so many samples of each, are drawn without repetition. Raises EffbookError where too few
    classes have enough samples.
    """
    counts = torch.bincount(labels[labels >= 0])
    enough = (counts >= per_class).nonzero()[:, 0]
    if len(enough) < classes:
        raise EffbookError(
            f"only {len(enough)} classes have {per_class} labelled samples, not {classes}", "choose a smaller support"
        )
    chosen = enough[torch.randperm(len(enough), generator=generator)[:classes]]
    members = [(labels == each).nonzero()[:, 0] for each in chosen]
    return torch.cat([each[torch.randperm(len(each), generator=generator)[:per_class]] for each in members])


def soft_labels(z: Tensor, support: Tensor, support_y: Tensor, *, temperature: float) -> Tensor:
    """What the support says of each embedding: [B, C], a mean of its soft labels [S, C] weighted by nearness.

    z [B, D] and support [S, D] need not be of unit length.
    """
    cosines = F.normalize(z, dim=1) @ F.normalize(support, dim=1).T  # [B, S]
    return (cosines / temperature).softmax(1) @ support_y


def sharpened(p: Tensor, sharpening: float) -> Tensor:
    """The distributions [B, C] to the power 1 / sharpening, normalised."""
    p = p ** (1 / sharpening)
    return p / p.sum(1, keepdim=True)


def paws(views: list[Tensor], support: Tensor, support_labels: Tensor, *, settings: PAWSSettings) -> Tensor:
    """Cross-entropy between views, less the entropy of the mean prediction.

    views: embeddings [B, D] of the unlabelled images, two of whole images, which are each other's target, then small
    crops, whose target is the mean of the two; support [S, D] with labels [S]. The classes are those of the support.
    Targets are without gradient, the support is with. Raises EffbookError for fewer than two views or no support.
    """
    if len(views) < 2 or not len(support) or len(support) != len(support_labels):
        raise EffbookError(
            f"PAWS cannot use {len(views)} views and a support of {len(support)} with {len(support_labels)} labels",
            "give two or more views, and a label for each sample of the support",
        )
    support_y = F.one_hot(support_labels.unique(return_inverse=True)[1]).to(support)  # [S, C]
    support_y = (1 - settings.smoothing) * support_y + settings.smoothing / support_y.shape[1]
    predicted = [soft_labels(z, support, support_y, temperature=settings.temperature) for z in views]  # V x [B, C]
    sharp = [sharpened(p, settings.sharpening) for p in predicted]
    first, second = sharp[0].detach(), sharp[1].detach()
    targets = [second, first] + [(first + second) / 2] * (len(views) - 2)
    agreement = torch.stack([-torch.special.xlogy(t, p).sum(1) for t, p in zip(targets, predicted, strict=True)])
    mean = torch.cat(sharp).mean(0)  # [C]
    return agreement.mean() - settings.spread * torch.special.entr(mean).sum()
