"""Train the network of a recipe and keep it, with what was recorded epoch by epoch."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from effbook.cmsf.config import MeanShiftSettings
from effbook.cmsf.constraints import (
    ConfidentPseudoLabel,
    Constraint,
    PreviousEpoch,
    QueryAlone,
    SameLabel,
    ThirdView,
    Unconstrained,
)
from effbook.cmsf.networks import Networks
from effbook.cmsf.step import MeanShift
from effbook.experiments.cmsf.inputs import (
    feature_views,
    new_encoder,
    plain_inputs,
    training_views,
    views_of_features,
)
from effbook.experiments.cmsf.labels import class_count, pseudo_labels, shown_labels
from effbook.experiments.cmsf.recording import train_recorded
from effbook.experiments.cmsf.rivals import CrossEntropy, rival
from effbook.experiments.cmsf.settings import CLASSIFIER, TRAINED, Training
from effbook.experiments.shared.splits import Split, train_split
from effbook.experiments.shared.training import trainable
from effbook.runs.recipe import Context
from effbook.training.settings import TrainSettings
from effbook.training.train import Method
from effbook.training.views import Views


def trained(recipe: Training, context: Context) -> Path:
    """The folder of the trained encoder and its history; trained now if it is not kept."""
    own = recipe.training()
    return context.cached(TRAINED, recipe.parts(), own, lambda folder: learn(own, context, folder))


def learn(recipe: Training, context: Context, folder: Path) -> None:
    """Train, and write `encoder.safetensors` and `history.json` into the folder; of Xent its classifier, too."""
    device = torch.device(context.device)
    images = train_split(recipe)
    encoder = new_encoder(recipe, images).to(device)
    history = {"epochs": [], "step_ms": None, "days": None, "trainable": trainable(encoder), "moments": {}}
    if recipe.method != "none":
        labels = shown_labels(recipe, images)  # [N], -1 where the method sees none
        data = _views(recipe, context, images, labels)
        method = make_method(recipe, encoder, data, labels, images, plain=plain_inputs(recipe, context, images))
        history = _train(recipe, context, images, method, data)
        if isinstance(method, CrossEntropy):
            save_file(method.head.state_dict(), folder / CLASSIFIER)
    history["broken"] = images.broken
    save_file({name: t.contiguous() for name, t in encoder.state_dict().items()}, folder / "encoder.safetensors")
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")


def _train(recipe: Training, context: Context, images: Split, method: Method, data: Views) -> dict:
    settings = TrainSettings(
        epochs=recipe.epochs,
        batch=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        schedule=recipe.schedule,
        drops=_drops(recipe),
        warmup_epochs=recipe.warmup_epochs,
        seed=recipe.seed,
    )
    history = train_recorded(
        method, data, settings, context, truth=images.labels, title=recipe.method, whose=[recipe.key]
    )
    return history | {"trainable": trainable(method)}


def _views(recipe: Training, context: Context, images: Split, labels: Tensor) -> Views:
    if not recipe.features_of:
        return training_views(recipe, images, labels)
    return views_of_features(feature_views(recipe, context), labels, seed=recipe.seed)


def _drops(recipe: Training) -> tuple[int, ...]:
    """Every third of the training, as torchvision's 90 epochs have it; a short training has fewer."""
    return tuple(sorted({max(1, recipe.epochs * i // 3) for i in (1, 2)})) if recipe.schedule == "steps" else ()


def make_method(
    recipe: Training, encoder: nn.Module, data: Views, labels: Tensor, images: Split, *, plain: Callable | None = None
) -> Method:
    """The method that trains the encoder: mean shift with the recipe's constraint, or a rival.

    `plain(index [B])` gives what the encoder takes of unaltered images, for pseudo-labels with an offline cache.
    """
    constraint, classes = constraint_of(recipe), class_count(recipe, images)
    if constraint is None:
        at = images.at if not recipe.features_of else data.dataset.tensors[0].__getitem__
        return rival(recipe, encoder, labels=labels, classes=classes, seen=lambda i, draw: data.online[0](at(i), draw))
    settings = MeanShiftSettings(
        k=recipe.k or 1,
        bank_size=recipe.bank,
        momentum=recipe.momentum,
        unconstrained_half=recipe.method == "cmsf-self",
        precision=recipe.precision,
        seed=recipe.seed,
    )
    networks = Networks(encoder, encoder.num_features, seed=recipe.seed)
    method = MeanShift(networks, constraint, settings, images=len(data))
    if recipe.method == "cmsf-semi" and recipe.classifier != "none":
        method.relabel = pseudo_labels(recipe, method, labels, classes, plain)
    return method


def constraint_of(recipe: Training) -> Constraint | None:
    """The constraint of a mean-shift method; None for a rival."""
    k = recipe.k
    if recipe.method == "byol":
        return QueryAlone()
    if recipe.method == "msf":
        return Unconstrained(k=k)
    if recipe.method == "cmsf-self":
        return (ThirdView if recipe.third_view else PreviousEpoch)(k=k, k_prime=recipe.k_prime or k)
    if recipe.method == "cmsf-sup":
        return SameLabel(k=k, target_included=recipe.target_in_set)
    if recipe.method == "cmsf-semi":
        return ConfidentPseudoLabel(k=k, threshold=recipe.threshold)
    return None
