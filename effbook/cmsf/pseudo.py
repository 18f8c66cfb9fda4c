"""Pseudo-labels (2.1.3.3, A.1.3): a classifier on cached features of the labelled images labels the other ones.

The features are those of the target network, of unit length, as they go into the bank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effbook.cmsf.baselines import drawn_linear
from effbook.errors import EffbookError

Kind = Literal["linear", "mlp2", "mlp3", "knn"]


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """Which classifier, and how it is trained: 10 epochs of SGD (A.1.5.3; A.1.3.2 says 40 for ImageNet-100).

    Raises EffbookError where a value is impossible.
    """

    kind: Kind = "mlp2"
    hidden: int = 1024
    neighbours: int = 20  # of the k-NN classifier; the text gives no number
    epochs: int = 10
    batch: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "mlp2", "mlp3", "knn"):
            raise EffbookError(f"there is no classifier {self.kind!r}", "choose linear, mlp2, mlp3 or knn")
        if min(self.hidden, self.neighbours, self.epochs) < 1 or self.batch < 2 or not self.lr > 0:
            raise EffbookError(f"{self} is impossible", "give sizes of at least 1, a batch of at least 2, lr above 0")


class FeatureCache(nn.Module):
    """The latest feature of each labelled image, filled online, batch by batch, while the encoder trains.

    labels [N] of the whole data set, -1 where there is none: only labelled images have a row, on the cache's device.
    Rows that no batch has filled yet are never given out. Buffers, so a checkpoint holds them. Filled in one pass
    before a round (`fill`), it is the offline cache. Raises EffbookError without any label.
    """

    def __init__(self, labels: Tensor, *, dim: int) -> None:
        super().__init__()
        if not (labels >= 0).any():
            raise EffbookError("no image has a label", "give labels from 0 up for some of the images, and -1 for none")
        self.register_buffer("labels", labels[labels >= 0].clone())  # [n]
        rows = torch.where(labels >= 0, (labels >= 0).cumsum(0) - 1, -1)
        self.register_buffer("rows", rows, persistent=False)  # [N] to [n]
        self.register_buffer("features", torch.zeros(len(self.labels), dim, device=labels.device))
        self.register_buffer("filled", torch.zeros_like(self.labels, dtype=torch.bool))

    @torch.no_grad()
    def write(self, indices: Tensor, features: Tensor) -> None:
        """Keep the features [B, D] of the images at `indices` [B] that are labelled."""
        rows = self.rows[indices.to(self.rows.device)]
        known = rows >= 0
        self.features[rows[known]] = features.detach().to(self.features)[known]
        self.filled[rows[known]] = True

    def labels_of(self, indices: Tensor) -> Tensor:
        """The labels [B] of the images at `indices` [B], -1 where there is none."""
        rows = self.rows[indices.to(self.rows.device)]
        return torch.where(rows >= 0, self.labels[rows], -1)

    @torch.no_grad()
    def fill(self, embed: Callable[[Tensor], Tensor], *, batch: int = 256) -> None:
        """Offline: write `embed(indices [B])` [B, D] for all labelled images, in batches."""
        for indices in (self.rows >= 0).nonzero()[:, 0].split(batch):
            self.write(indices, embed(indices))

    def known(self) -> tuple[Tensor, Tensor]:
        """Features [n, D] and labels [n] of the rows that have been filled."""
        return self.features[self.filled], self.labels[self.filled]


class NearestNeighbours(nn.Module):
    """k-NN by cosine as a classifier: features [B, D] to logits [B, C], the logarithm of the shares of votes."""

    def __init__(self, features: Tensor, labels: Tensor, *, classes: int, k: int) -> None:
        super().__init__()
        self.k = min(k, len(features))
        self.register_buffer("bank", F.normalize(features, dim=1))
        self.register_buffer("votes", F.one_hot(labels, classes).to(features))

    def forward(self, features: Tensor) -> Tensor:
        near = (F.normalize(features, dim=1) @ self.bank.T).topk(self.k, dim=1).indices  # [B, k]
        return self.votes[near].mean(1).log()


def new_head(kind: Kind, dim: int, classes: int, *, hidden: int = 1024, generator: Generator) -> nn.Sequential:
    """An untrained head d -> (hidden -> ...) classes: linear, or with 1 (mlp2) or 2 (mlp3) hidden layers with BN."""
    sizes = [dim] + [hidden] * {"linear": 0, "mlp2": 1, "mlp3": 2}[kind]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [drawn_linear(before, after, generator=generator), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, drawn_linear(sizes[-1], classes, generator=generator))


def fit_classifier(
    features: Tensor, labels: Tensor, *, classes: int, settings: ClassifierSettings, generator: Generator
) -> nn.Module:
    """A classifier trained anew on features [n, D] with labels [n]; it gives logits [B, C], and is in eval mode.

    `generator` is on the CPU. The last part of an epoch is dropped where it is no whole batch. Raises EffbookError for
    fewer than two samples, or labels outside the classes.
    """
    if features.ndim != 2 or len(features) != len(labels) or len(labels) < 2:
        raise EffbookError(
            f"{len(labels)} labels and features {tuple(features.shape)} train no classifier",
            "fill the cache with at least two labelled images first",
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise EffbookError("a label lies outside the classes", f"give labels from 0 to {classes - 1}")
    if settings.kind == "knn":
        return NearestNeighbours(features, labels, classes=classes, k=settings.neighbours).eval()
    head = new_head(settings.kind, features.shape[1], classes, hidden=settings.hidden, generator=generator)
    head.to(features).train()
    sgd = torch.optim.SGD(
        head.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    batch = min(settings.batch, len(labels))
    for _ in range(settings.epochs):
        order = torch.randperm(len(labels), generator=generator).to(features.device)
        for chosen in order[: len(labels) // batch * batch].split(batch):
            loss = F.cross_entropy(head(features[chosen]), labels[chosen])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return head.eval()


def confident(confidence: Tensor, threshold: float) -> Tensor:
    """Which guesses are used: those whose probability [B] "is above a threshold" (2.1.3.3), not at it."""
    return confidence > threshold


@torch.no_grad()
def predict(classifier: nn.Module, features: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Pseudo-labels [B], -1 where the confidence [B] is not above `threshold`, of features [B, D].

    The confidence is the largest probability; a threshold of 0 labels all. Ground truth goes before pseudo-labels:
    `torch.where(labels >= 0, labels, pseudo)`. Raises EffbookError for a threshold outside 0..1.
    """
    if not 0 <= threshold <= 1:
        raise EffbookError(f"a confidence threshold of {threshold!r}", "give a number from 0 to 1")
    confidence, labels = classifier(features).softmax(1).max(1)
    return labels.where(confident(confidence, threshold), -1), confidence


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """Both rounds of fine-tuning (A.1.5.3). `hidden` is the width of the two-layer MLP on the encoder.

    Raises EffbookError where a value is impossible.
    """

    hidden: int = 1024
    threshold: float = 0.9
    rounds: int = 2  # 1: labelled images only (A.1.3.4)
    epochs: int = 20
    drop_epochs: tuple[int, ...] = (15,)  # after so many, the learning rate falls to a tenth
    batch: int = 256
    lr: float = 0.005
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.rounds not in (1, 2) or min(self.epochs, self.hidden) < 1 or self.batch < 2 or not self.lr > 0:
            raise EffbookError(f"{self} is impossible", "give 1 or 2 rounds, sizes of at least 1, lr above 0")


def finetune(
    encoder: nn.Module,
    labels: Tensor,
    *,
    dim: int,
    classes: int,
    settings: FinetuneSettings,
    generator: Generator,
    training: Callable[[Tensor], Tensor],
    plain: Callable[[Tensor], Tensor],
) -> tuple[nn.Sequential, Tensor]:
    """Fine-tune the encoder (in place; features [B, dim]) with a two-layer MLP: the network, and its labels [N].

    labels [N] are -1 where there is none. `training(indices [B])` and `plain(indices [B])` give the images at these
    indices (on the CPU) on the encoder's device, augmented and not. The first round trains on the labelled images, and
    labels the others where it is confident; the second goes on from there with all labelled ones, and a fresh
    optimiser. Raises EffbookError for fewer than two labelled images.
    """
    if int((labels >= 0).sum()) < 2 or int(labels.max()) >= classes:
        raise EffbookError("too few labels, or one outside the classes", "label two images, from 0 to classes - 1")
    head = new_head("mlp2", dim, classes, hidden=settings.hidden, generator=generator)
    network = nn.Sequential(encoder, head.to(next(encoder.parameters())))
    known = labels.cpu().clone()
    for number in range(settings.rounds):
        if number == 1:
            network.eval()
            for indices in (known < 0).nonzero()[:, 0].split(settings.batch):
                pseudo, _ = predict(network, plain(indices), threshold=settings.threshold)
                known[indices] = pseudo.to(known)
        usable = (known >= 0).nonzero()[:, 0]
        batch = min(settings.batch, len(usable))
        sgd = torch.optim.SGD(
            network.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones=list(settings.drop_epochs))
        network.train()
        for _ in range(settings.epochs):
            order = usable[torch.randperm(len(usable), generator=generator)]
            for indices in order[: len(usable) // batch * batch].split(batch):
                logits = network(training(indices))
                loss = F.cross_entropy(logits, known[indices].to(logits.device))
                sgd.zero_grad()
                loss.backward()
                sgd.step()
            schedule.step()
    return network.eval(), known
