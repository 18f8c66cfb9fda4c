"""Linear evaluation: one linear layer on frozen features, L2-normalised and standardised (2.1.4, as in CompRess).

The released code trains on random crops and takes mean and variance from centre crops. With cached features, several
views of each image stand for the crops: each epoch draws one of an image's views.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_features, check_labels, check_pairs
from effbook.evaluate.measures import top_k_accuracy

_ROWS = 4096  # features that are normalised at once


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """How the layer is trained: plain SGD, the learning rate times ``drop`` at the start of each epoch named.

    Dissertation: 40 epochs, learning rate .01, momentum .9. Released code: the other values, and a third drop at 40,
    which no epoch sees. ``eps`` is added to the variance.
    """

    epochs: int = 40
    lr: float = 0.01
    milestones: tuple[int, ...] = (15, 30)
    drop: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch: int = 256
    eps: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0 or not self.eps > 0:
            raise EffbookError(
                f"A layer cannot be trained with {self.epochs} epochs, batches of {self.batch}, lr {self.lr} and eps "
                f"{self.eps}",
                "choose all of them above zero",
            )


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    """Test accuracies in percent after the last epoch, the classifier of raw features, and each epoch's mean loss."""

    top1: float
    top5: float  # or of all classes, where there are fewer than five
    classifier: nn.Module
    losses: tuple[float, ...]


class Standardise(nn.Module):
    """x [B, D] to unit length, then minus the mean and over the standard deviation of normalised features [N, D]."""

    def __init__(self, x: Tensor, *, eps: float) -> None:
        super().__init__()
        total, squares = torch.zeros(2, x.shape[1], dtype=torch.float64, device=x.device)
        for part in x.split(_ROWS):
            part = F.normalize(part.double(), dim=1)
            total += part.sum(dim=0)
            squares += part.square().sum(dim=0)
        mean = total / len(x)
        variance = ((squares - len(x) * mean.square()) / (len(x) - 1)).clamp(min=0)  # unbiased, as released
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.register_buffer("mean", mean.to(dtype))
        self.register_buffer("inverse_std", (variance + eps).rsqrt().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return (F.normalize(x.to(self.mean.dtype), dim=1) - self.mean) * self.inverse_std


def fit_linear(
    train_x: Tensor, train_y: Tensor, *, classes: int, settings: LinearSettings, plain_x: Tensor | None = None
) -> tuple[nn.Sequential, tuple[float, ...]]:
    """A classifier of raw features [B, D], trained on features [N, D] or on views [V, N, D]; and each epoch's loss.

    Mean and variance are those of ``plain_x`` [N, D], or else of all training features. It runs where the features are,
    and keeps one standardised copy of them.
    Raises `EffbookError` for fewer than two features, ones that are not finite, labels outside 0 ... classes - 1, or a
    loss that is not finite.
    """
    views = train_x if train_x.ndim == 3 else train_x[None]  # [V, N, D]
    flat = views.reshape(-1, views.shape[-1])
    plain = flat if plain_x is None else plain_x
    check_features(flat, "training")
    check_features(plain, "plain")
    check_labels(train_y, views.shape[1], classes, "training")
    if len(plain) < 2 or plain.shape[1] != flat.shape[1]:
        raise EffbookError(
            f"Features {tuple(plain.shape)} give no mean and variance for features {tuple(views.shape)}",
            "give at least two of the same width",
        )
    generator = torch.Generator().manual_seed(settings.seed)
    standardise = Standardise(plain, eps=settings.eps)
    layer = nn.utils.skip_init(
        nn.Linear, flat.shape[1], classes, device=flat.device, dtype=standardise.mean.dtype
    )  # the ordinary start, but from our generator
    bound = flat.shape[1] ** -0.5
    with torch.no_grad():
        for each in (layer.weight, layer.bias):
            each.copy_(torch.empty(each.shape, dtype=each.dtype).uniform_(-bound, bound, generator=generator))
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(settings.milestones), settings.drop)
    ready = torch.cat([standardise(part) for part in flat.split(_ROWS)]).view(views.shape)  # once, for all epochs
    labels, losses = train_y.to(flat.device).long(), []
    for epoch in range(settings.epochs):
        order = torch.randperm(views.shape[1], generator=generator)
        seen = torch.randint(len(views), order.shape, generator=generator)  # the view of each
        total = torch.zeros((), dtype=torch.float64, device=flat.device)
        for images, which in zip(order.split(settings.batch), seen.split(settings.batch), strict=True):
            images, which = images.to(flat.device), which.to(flat.device)
            loss = F.cross_entropy(layer(ready[which, images]), labels[images])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(images)
        schedule.step()
        losses.append(total.item() / len(order))
        if not losses[-1] < float("inf"):
            raise EffbookError(f"The loss is {losses[-1]} in epoch {epoch + 1}", "choose a smaller learning rate")
    return nn.Sequential(standardise, layer), tuple(losses)


def linear_evaluation(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    settings: LinearSettings,
    classes: int | None = None,
    plain_x: Tensor | None = None,
) -> LinearResult:
    """Accuracy on test features [M, D] of a layer trained on features [N, D] or [V, N, D] (2.1.4; see `fit_linear`).

    ``classes`` is by default the highest training label and one. Raises `EffbookError` as `fit_linear` does.
    """
    classes = check_pairs(train_x[0] if train_x.ndim == 3 else train_x, train_y, test_x, test_y, classes)
    classifier, losses = fit_linear(train_x, train_y, classes=classes, settings=settings, plain_x=plain_x)
    with torch.no_grad():
        logits = torch.cat([classifier(part) for part in test_x.to(train_x.device).split(_ROWS)])
    top1, top5 = (top_k_accuracy(logits, test_y, k=min(k, classes)) for k in (1, 5))
    return LinearResult(top1=top1, top5=top5, classifier=classifier, losses=losses)
