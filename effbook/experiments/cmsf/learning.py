"""Train the network of a recipe and keep it, with what was recorded epoch by epoch."""

import json
import math
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from effbook.cmsf import analysis
from effbook.cmsf.config import MeanShiftSettings, TrainSettings
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
from effbook.cmsf.train import Method, Moment, train
from effbook.cmsf.views import Views
from effbook.experiments.cmsf.images import Split, train_split
from effbook.experiments.cmsf.inputs import feature_views, new_encoder, training_views, views_of_features
from effbook.experiments.cmsf.labels import PseudoLabels, class_count, shown_labels
from effbook.experiments.cmsf.rivals import rival
from effbook.experiments.cmsf.settings import TRAINED, Training
from effbook.experiments.shared.training import trainable
from effbook.runs.recipe import Context

LOOKS = 8  # steps of each epoch at which neighbours are looked at
BINS = 100
MOMENTS = {"early": 0.25, "middle": 0.5, "end": 1.0}  # of the training


def epoch_of(moment: str, epochs: int) -> int:
    """Which of so many epochs, counted from 0, ends at a moment of the training."""
    return max(1, round(epochs * MOMENTS[moment])) - 1


def trained(recipe: Training, context: Context) -> Path:
    """The folder of the trained encoder and its history; trained now if it is not kept."""
    own = recipe.training()
    return context.cached(TRAINED, recipe.parts(), own, lambda folder: learn(own, context, folder))


def learn(recipe: Training, context: Context, folder: Path) -> None:
    """Train, and write `encoder.safetensors` and `history.json` into the folder."""
    device = torch.device(context.device)
    images = train_split(recipe)
    encoder = new_encoder(recipe, images).to(device)
    history = {"epochs": [], "step_ms": None, "days": None, "trainable": trainable(encoder), "ranks": {}}
    if recipe.method != "none":
        history = _train(recipe, context, images, encoder)
    history["broken"] = images.broken
    save_file({name: t.contiguous() for name, t in encoder.state_dict().items()}, folder / "encoder.safetensors")
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")


def _train(recipe: Training, context: Context, images: Split, encoder: nn.Module) -> dict:
    labels = shown_labels(recipe, images)  # [N], -1 where the method sees none
    data = _views(recipe, context, images, labels)
    method = make_method(recipe, encoder, data, labels, images)
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
    recorder = Recorder(method, images.labels)
    resume = context.resume()
    if resume is not None:
        recorder.epochs, recorder.ranks = resume[2]["epochs"], resume[2]["ranks"]
    steps = len(images) // recipe.batch_size
    bar = context.progress(recipe.epochs * steps, recipe.method, done=(resume[1] if resume else 0) * steps)

    def watch(moment: Moment) -> None:
        recorder.look(moment)
        bar.advance(1, loss=moment.loss)

    def keep(state: dict) -> None:
        done = len(state["history"])
        if context.due() and done < recipe.epochs:
            context.checkpoint(state, done, {"epochs": recorder.epochs, "ranks": recorder.ranks})

    losses = train(method, data, settings, resume=resume[0] if resume else None, keep=keep, watch=watch)
    return {
        "epochs": [{"loss": one["loss"]} | seen for one, seen in zip(losses, recorder.epochs, strict=True)],
        "step_ms": recorder.step_ms(),
        "days": sum(recorder.durations_ms) / 86_400_000,
        "trainable": trainable(method),
        "ranks": recorder.histograms(),
    }


def _views(recipe: Training, context: Context, images: Split, labels: Tensor) -> Views:
    if not recipe.features_of:
        return training_views(recipe, images, labels)
    return views_of_features(feature_views(recipe, context), labels, seed=recipe.seed)


def _drops(recipe: Training) -> tuple[int, ...]:
    """Every third of the training, as torchvision's 90 epochs have it; a short training has fewer."""
    return tuple(sorted({max(1, recipe.epochs * i // 3) for i in (1, 2)})) if recipe.schedule == "steps" else ()


def make_method(recipe: Training, encoder: nn.Module, data: Views, labels: Tensor, images: Split) -> Method:
    """The method that trains the encoder: mean shift with the recipe's constraint, or a rival."""
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
        method.relabel = PseudoLabels(recipe, method, labels, classes, images.whole).to(networks.device)
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


class Recorder:
    """What is recorded of a training: neighbours at a few steps of each epoch, and the time of a step.

    `truth` [N] are the true labels, which a method without labels never sees.
    """

    def __init__(self, method: Method, truth: Tensor) -> None:
        self.method, self.truth = method, truth
        self.epochs: list[dict[str, float]] = []
        self.ranks: list[list[int]] = []  # of each epoch, how often the fifth of C had each rank in M; last: beyond
        self._now: dict[str, list[float]] = defaultdict(list)
        self._ranks: list[int] = [0] * (BINS + 1)
        self.durations_ms: list[float] = []
        self._last = time.perf_counter()

    def look(self, moment: Moment) -> None:
        """Called after each step."""
        self.durations_ms.append(1000 * (time.perf_counter() - self._last))
        found = getattr(self.method, "found", None)
        if found is not None and moment.step % max(1, moment.steps // LOOKS) == 0:
            self._neighbours(found)
        relabel = getattr(self.method, "relabel", None)
        if relabel is not None:
            relabel.after(moment)
        if moment.step == moment.steps:
            means = {name: statistics.fmean(values) for name, values in self._now.items() if values}
            scores = relabel.scores(self.truth) if relabel is not None else {}
            self.epochs.append(means | scores)
            self.ranks.append(self._ranks)
            self._now, self._ranks = defaultdict(list), [0] * (BINS + 1)
        self._last = time.perf_counter()

    def _neighbours(self, found) -> None:
        bank, own, positives = self.method.bank, found.positions, found.constrained
        k = positives.mask.shape[1] if positives.positions is not None else 1
        free = found.unconstrained or Unconstrained(k=min(k, bank.filled))(bank, own)
        for name, one in (("bank", free), ("constrained", positives)):
            purity = analysis.purity(bank, own, one, self.truth)
            self._note(f"purity_{name}_with_query", purity.with_query)
            self._note(f"purity_{name}", purity.without_query)
        ranks = analysis.ranks(bank, own, positives, nth=min(5, k), bins=BINS)
        self._note("median_rank", ranks.nth_median)
        for place, count in enumerate([*ranks.histogram.tolist(), ranks.beyond]):
            self._ranks[place] += count
        if not math.isnan(ranks.nth_median):  # as many of M as it takes to reach the fifth of C
            reach = Unconstrained(k=min(bank.filled, int(ranks.nth_median) + 1))(bank, own)
            self._note("purity_far", analysis.purity(bank, own, reach, self.truth).without_query)
        self._note("overlap", _overlap(free, positives))

    def _note(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self._now[name].append(value)

    def histograms(self) -> dict[str, list[int]]:
        """The counts of ranks at the three moments that the figures show."""
        if not self.ranks or not any(self.ranks[-1]):
            return {}
        return {f"ranks_{moment}": self.ranks[epoch_of(moment, len(self.ranks))] for moment in MOMENTS}

    def step_ms(self) -> float:
        """The median time of a step, without what is recorded."""
        return statistics.median(self.durations_ms)


def _overlap(free, constrained) -> float:
    """Percentage of the constrained positives that are among as many of the bank's nearest, the query left out."""
    if constrained.positions is None or free.positions is None:
        return math.nan
    others = constrained.mask.clone()
    others[:, 0] = False  # the query comes first
    both = (constrained.positions[:, :, None] == free.positions[:, None, :]).any(2) & others
    return 100.0 * int(both.sum()) / int(others.sum()) if others.any() else math.nan
