"""Transfer evaluation (A.1.5.1): logistic regression on frozen features, with settings searched on validation data."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_pairs
from effbook.evaluate.logistic import LogisticSettings, fit_logistic
from effbook.evaluate.measures import MEASURES, Measure

Labelled = tuple[Tensor, Tensor]  # features [N, D] and labels [N]


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How many settings are tried, from which ranges (uniform in the logarithm), and how accuracy is measured.

    A.1.5.1 prints iterations in [0, 10^3], log-uniform: there is no logarithm of 0, so they start at 1. ``base`` gives
    what is not searched: max_iter 20 and history_size 10. With ``grid`` that many values of lr and of
    weight_decay, evenly spread in the logarithm, are tried in all pairs with ``base``'s iterations (A.2.2.4).
    """

    trials: int = 200
    iterations: tuple[int, int] = (1, 1000)
    lr: tuple[float, float] = (1e-6, 1.0)
    weight_decay: tuple[float, float] = (1e-9, 1.0)
    measure: Measure = "top1"
    seed: int = 0
    base: LogisticSettings = field(default_factory=LogisticSettings)
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise EffbookError(f"{self.trials} trials find no setting", "choose at least one")
        if self.grid is not None and min(self.grid) < 1:
            raise EffbookError(f"a grid of {self.grid} values holds no setting", "choose at least one of each")
        if self.measure not in MEASURES:
            raise EffbookError(f"There is no measure {self.measure!r}", f"choose one of {', '.join(MEASURES)}")
        for name in ("iterations", "lr", "weight_decay"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise EffbookError(
                    f"{name} cannot be drawn log-uniformly from {low} to {high}", "choose 0 < low <= high"
                )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was tried, and its accuracy on the validation split in percent."""

    settings: LogisticSettings
    score: float


@dataclass(frozen=True, kw_only=True)
class TransferResult:
    """Test accuracy in percent, the trial that was chosen, all trials in order, and the final classifier."""

    score: float
    best: Trial
    trials: tuple[Trial, ...]
    classifier: nn.Linear


def search(
    train: Labelled,
    val: Labelled,
    *,
    settings: TransferSettings,
    classes: int | None = None,
    each_trial: Callable[[Trial], None] | None = None,
) -> tuple[Trial, ...]:
    """All trials of a search by Optuna's TPE, in memory and from the seed, or of a grid, in order.

    Each is trained on ``train`` and scored on ``val``.

    ``each_trial`` is called after each. Raises `EffbookError` for features that are not finite, or of two widths, and
    labels outside 0 ... classes - 1.
    """
    classes = check_pairs(*train, *val, classes, what="validation")
    trials: list[Trial] = []

    def attempt(tried: LogisticSettings) -> float:
        layer = fit_logistic(*train, classes=classes, settings=tried)
        trials.append(Trial(settings=tried, score=_score(layer, val, settings.measure)))
        if each_trial:
            each_trial(trials[-1])
        return trials[-1].score

    if settings.grid is not None:
        for lr, weight_decay in product(*map(_spread, (settings.lr, settings.weight_decay), settings.grid)):
            attempt(replace(settings.base, lr=lr, weight_decay=weight_decay))
        return tuple(trials)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(draw: optuna.Trial) -> float:
        return attempt(
            replace(
                settings.base,
                iterations=draw.suggest_int("iterations", *settings.iterations, log=True),
                lr=draw.suggest_float("lr", *settings.lr, log=True),
                weight_decay=draw.suggest_float("weight_decay", *settings.weight_decay, log=True),
            )
        )

    sampler = optuna.samplers.TPESampler(seed=settings.seed)
    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, n_trials=settings.trials)
    return tuple(trials)


def transfer_evaluation(
    train: Labelled,
    val: Labelled,
    test: Labelled,
    *,
    settings: TransferSettings,
    classes: int | None = None,
    each_trial: Callable[[Trial], None] | None = None,
) -> TransferResult:
    """Test accuracy after a search on train and val, and a fit on both with the best setting (2.1.4, A.1.5.1).

    Each split is features [N, D] and labels [N]; nothing of ``test`` is looked at before the last line. Of equally good
    trials the first is chosen. Raises `EffbookError` as `search` does.
    """
    classes = check_pairs(*train, *val, classes, what="validation")
    check_pairs(*train, *test, classes)
    trials = search(train, val, settings=settings, classes=classes, each_trial=each_trial)
    best = max(trials, key=lambda trial: trial.score)
    both = [torch.cat([a, b.to(a.device)]) for a, b in zip(train, val, strict=True)]
    layer = fit_logistic(*both, classes=classes, settings=best.settings)
    return TransferResult(score=_score(layer, test, settings.measure), best=best, trials=trials, classifier=layer)


@torch.no_grad()
def _score(layer: nn.Linear, data: Labelled, measure: Measure) -> float:
    return MEASURES[measure](layer(data[0].to(layer.weight)), data[1])


def _spread(limits: tuple[float, float], count: int) -> list[float]:
    """So many numbers between two limits, evenly spread in the logarithm; of one the lower limit."""
    return torch.logspace(*torch.tensor(limits).double().log10().tolist(), count, dtype=torch.float64).tolist()
