"""Transfer to another data set: L-BFGS on frozen features, its settings found by a search (A.1.5.1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.evaluate.vision import accuracy

# "iterations in [0, 10^3]", log-uniform, cannot begin at 0: an erratum
RANGES = {"iterations": (1.0, 1e3), "learning_rate": (1e-6, 1.0), "weight_decay": (1e-9, 1.0)}


@dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How many settings are tried, the seed of the search, and whether classes or images count alike."""

    trials: int = 200
    per_class: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise EffbookError(f"a search of {self.trials} trials", "give at least 1")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The accuracy in percent on the test set, that of the best trial on the validation set, and its settings."""

    accuracy: float
    validation: float
    iterations: int
    learning_rate: float
    weight_decay: float


def transfer(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, settings: TransferSettings
) -> Transfer:
    """Search on the validation set, then train on both and test; each is features [N, D] with labels [N].

    Raises EffbookError where shapes do not fit, a set is empty or a label was never seen. Source: A.1.5.1, Table A.13.
    """
    import optuna

    sets = [(F.normalize(x.float(), dim=1), y.long()) for x, y in (train, val, test)]
    (train_x, train_y), (val_x, val_y), (test_x, test_y) = sets
    if not all(len(x) == len(y) > 0 and x.shape[1] == train_x.shape[1] for x, y in sets):
        raise EffbookError(
            f"sets of {[tuple(x.shape) for x, _ in sets]} do not fit their labels", "give [N, D] and [N] three times"
        )
    classes = int(train_y.max()) + 1
    if min(int(y.min()) for _, y in sets) < 0 or max(int(y.max()) for _, y in sets) >= classes:
        raise EffbookError("a label is not in the training set", f"give labels from 0 to {classes - 1}")
    measure = mean_per_class if settings.per_class else accuracy

    def tried(trial: optuna.Trial) -> float:
        iterations = round(trial.suggest_float("iterations", *RANGES["iterations"], log=True))
        rate = trial.suggest_float("learning_rate", *RANGES["learning_rate"], log=True)
        decay = trial.suggest_float("weight_decay", *RANGES["weight_decay"], log=True)
        layer = logistic_regression(
            train_x, train_y, classes=classes, iterations=iterations, learning_rate=rate, weight_decay=decay
        )
        return measure(layer(val_x).detach(), val_y)

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=settings.seed))
        study.optimize(tried, n_trials=settings.trials)
    finally:
        optuna.logging.set_verbosity(before)
    best = study.best_params | {"iterations": round(study.best_params["iterations"])}
    layer = logistic_regression(torch.cat((train_x, val_x)), torch.cat((train_y, val_y)), classes=classes, **best)
    return Transfer(accuracy=measure(layer(test_x).detach(), test_y), validation=study.best_value, **best)


def logistic_regression(
    x: Tensor, y: Tensor, *, classes: int, iterations: int, learning_rate: float, weight_decay: float
) -> nn.Linear:
    """Multinomial logistic regression on x [N, D] and y [N], from zeros, by L-BFGS with the given number of iterations.

    It minimises the mean cross-entropy + weight_decay / 2 |W|^2. The text gives max_iter = 20 and history_size = 10 for
    torch's optimiser; iterations beyond 20 are further calls of it, with the history kept.
    """
    layer = nn.utils.skip_init(nn.Linear, x.shape[1], classes, dtype=x.dtype, device=x.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(layer(x), y) + weight_decay / 2 * layer.weight.square().sum()
        value.backward()
        return value

    for done in range(0, iterations, 20):
        if done == 0:
            optimiser = torch.optim.LBFGS(layer.parameters(), lr=learning_rate, max_iter=20, history_size=10)
        optimiser.param_groups[0]["max_iter"] = min(20, iterations - done)
        before = optimiser.state[next(iter(layer.parameters()))].get("n_iter", 0)
        optimiser.step(loss)
        after = optimiser.state[next(iter(layer.parameters()))].get("n_iter", 0)
        if after - before < min(20, iterations - done):  # it has converged, or can go no further
            break
    return layer


def mean_per_class(logits: Tensor, labels: Tensor) -> float:
    """Accuracy in percent, averaged over the classes that are there: logits [N, C], labels [N]."""
    right = (logits.argmax(1) == labels).double()
    return 100.0 * torch.stack([right[labels == one].mean() for one in labels.unique()]).mean().item()
