"""The labels that a method sees: fine or coarse, some of them wrong, most of them missing or guessed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effbook.cmsf.analysis import label_score
from effbook.cmsf.noise import coarsen, corrupt
from effbook.cmsf.pseudo import (
    ClassifierSettings,
    FeatureCache,
    NearestNeighbours,
    fit_classifier,
    new_head,
    predict,
)
from effbook.cmsf.step import MeanShift
from effbook.data.coarse import coarse_parents
from effbook.evaluate.few import few_labels
from effbook.experiments.cmsf.settings import SELF, Training
from effbook.experiments.shared.splits import Split
from effbook.training.seeds import generator
from effbook.training.train import Moment
from effbook.training.views import Batch

LEAST_STEPS = 16  # of a classifier's epoch: where few images have labels, its batch of 256 is made smaller


def shown_labels(recipe: Training, images: Split) -> Tensor:
    """[N], -1 where the method sees none: first coarsened, then changed at random, then taken away."""
    labels = images.labels
    if recipe.method in (*SELF, "none"):
        return torch.full_like(labels, -1)
    if recipe.labels == "coarse":
        labels = coarsen(labels, coarse_parents(recipe.dataset, images.classes))
    labels = corrupt(labels, recipe.noise, classes=class_count(recipe, images), seed=recipe.seed)
    labels = labels.where(shown(images.labels, recipe.labelled, seed=recipe.seed), -1)
    by_index = recipe.method == "paws" or (recipe.method == "cmsf-semi" and recipe.caching == "offline")
    return images.sound(labels) if by_index else labels  # else image and label come together


def class_count(recipe: Training, images: Split) -> int:
    """How many classes the method is told of, whether or not each has an image."""
    if recipe.labels == "coarse":
        return max(coarse_parents(recipe.dataset, images.classes)) + 1
    return len(images.classes)


def shown(labels: Tensor, share: float, *, seed: int) -> Tensor:
    """Which images [N] have a label: a share of them, as many of each class, from the seed."""
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    chosen[few_labels(labels, share, seed=seed)] = True
    return chosen


class PseudoLabels(nn.Module):
    """What `MeanShift` asks for labels: the true ones, and what a classifier on the labelled images' features guesses.

    The classifier is trained anew in the middle and at the end of each epoch. `labels` [N] are -1 where unknown.
    `plain(index [B])` gives what the network takes of unaltered images.
    """

    def __init__(self, recipe: Training, method: MeanShift, labels: Tensor, classes: int, plain: Callable) -> None:
        super().__init__()
        self.recipe, self.classes, self.plain, self.rounds = recipe, classes, plain, 0
        batch = max(2, min(ClassifierSettings.batch, int((labels >= 0).sum()) // LEAST_STEPS))
        self.settings = ClassifierSettings(kind=recipe.classifier, batch=batch)
        self.networks = [method.networks]  # in a list, so that it is not a part of this module
        self.cache = FeatureCache(labels, dim=method.bank.embeddings.shape[1])
        self.fitted: list[nn.Module] = []  # the classifier, not a part either: a new one has no place in a state yet
        self._guessed: list[tuple[Tensor, Tensor, Tensor]] = []  # index, label, whether confident

    def forward(self, batch: Batch, u: Tensor) -> Tensor:
        """Labels [B] for the bank: the true one, else a confident guess, else -1."""
        if self.recipe.caching == "online":
            self.cache.write(batch.index, u)
        if self.classifier is None:
            return batch.label
        guess, confidence = predict(self.classifier.eval(), u, threshold=0.0)
        confident = confidence > self.recipe.threshold
        self._guessed.append((batch.index[batch.label < 0], guess[batch.label < 0], confident[batch.label < 0]))
        return torch.where(batch.label >= 0, batch.label, guess.where(confident, -1))

    @property
    def classifier(self) -> nn.Module | None:
        """What guesses at present."""
        return self.fitted[0] if self.fitted else None

    def after(self, moment: Moment) -> None:
        """Train the classifier, in the middle and at the end of an epoch (2.1.3.3)."""
        if moment.step not in (moment.steps // 2, moment.steps):
            return
        if self.recipe.caching == "offline":
            self.cache.fill(self._embed, batch=self.recipe.batch_size)
        features, labels = self.cache.known()
        if len(labels) >= 2:
            self.rounds += 1
            draw = generator(self.recipe.seed, self.rounds)
            self.fitted = [
                fit_classifier(features, labels, classes=self.classes, settings=self.settings, generator=draw)
            ]

    def scores(self, truth: Tensor) -> dict[str, float]:
        """Percentage of right guesses of this epoch, of all and of the confident ones, and how many were confident."""
        if not self._guessed:
            return {}
        index, guess, confident = (torch.cat(parts).cpu() for parts in zip(*self._guessed, strict=True))
        self._guessed = []
        sure = label_score(guess.where(confident, -1), truth[index])
        found = {"labels": label_score(guess, truth[index]).right, "confident_share": sure.given}
        return found | ({"confident": sure.right} if confident.any() else {})

    @torch.no_grad()
    def _embed(self, index: Tensor) -> Tensor:
        device = self.cache.features.device
        return self.networks[0].target(self.plain(index.cpu()).to(device))

    def get_extra_state(self) -> dict:
        """The classifier, which is made anew again and again, and how often it was."""
        return {"rounds": self.rounds, "classifier": self.classifier.state_dict() if self.classifier else None}

    def set_extra_state(self, state: dict) -> None:
        self.rounds = state["rounds"]
        if state["classifier"] is None:
            return
        kept = state["classifier"]
        if self.settings.kind == "knn":
            made = NearestNeighbours(
                kept["bank"], kept["votes"].argmax(1), classes=self.classes, k=self.settings.neighbours
            )
        else:
            dim, hidden = self.cache.features.shape[1], self.settings.hidden
            made = new_head(self.settings.kind, dim, self.classes, hidden=hidden, generator=generator(0))
        made.load_state_dict(kept)
        self.fitted = [made.to(self.cache.features.device).eval()]
