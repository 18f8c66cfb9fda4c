"""The labels that a method sees: fine or coarse, some of them wrong, most of them missing or guessed."""

from collections.abc import Callable

import torch
from torch import Tensor

from effbook.cmsf.labelling import PseudoLabels
from effbook.cmsf.noise import coarsen, corrupt
from effbook.cmsf.pseudo import ClassifierSettings
from effbook.cmsf.step import MeanShift
from effbook.data.coarse import coarse_parents
from effbook.experiments.cmsf.few import shown
from effbook.experiments.cmsf.settings import SELF, Training
from effbook.experiments.shared.splits import Split


def shown_labels(recipe: Training, images: Split) -> Tensor:
    """[N], -1 where the method sees none: first coarsened, then changed at random, then taken away."""
    labels = images.labels
    if recipe.method in (*SELF, "none"):
        return torch.full_like(labels, -1)
    if recipe.labels == "coarse":
        labels = coarsen(labels, coarse_parents(recipe.dataset, images.classes))
    labels = corrupt(labels, recipe.noise, classes=class_count(recipe, images), seed=recipe.seed)
    labels = labels.where(shown(images, recipe.labelled, seed=recipe.seed), -1)
    by_index = recipe.method == "paws" or (recipe.method == "cmsf-semi" and recipe.caching == "offline")
    return images.sound(labels) if by_index else labels  # else image and label come together


def class_count(recipe: Training, images: Split) -> int:
    """How many classes the method is told of, whether or not each has an image."""
    if recipe.labels == "coarse":
        return max(coarse_parents(recipe.dataset, images.classes)) + 1
    return len(images.classes)


def pseudo_labels(
    recipe: Training, method: MeanShift, labels: Tensor, classes: int, plain: Callable[[Tensor], Tensor]
) -> PseudoLabels:
    """Who guesses the labels that are missing in `labels` [N]. `plain(index [B])` gives unaltered images."""
    return PseudoLabels(
        method,
        labels,
        classes=classes,
        settings=ClassifierSettings(kind=recipe.classifier),
        plain=plain if recipe.caching == "offline" else None,
        at_once=recipe.batch_size,
        seed=recipe.seed,
    )
