"""Linear evaluation of frozen features (2.1.4; the released protocol): a linear layer on standardised features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.evaluate.vision import accuracy

EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """SGD for 40 epochs, the rate a tenth after epochs 15 and 30. Raises EffbookError where a value is impossible."""

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 0.01
    drops: tuple[int, ...] = (15, 30)
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise EffbookError(f"{self} is impossible", "give epochs and a batch of at least 1, and a rate above 0")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Percentages of test images whose class is the likeliest, and among the five likeliest."""

    top1: float
    top5: float


def linear_evaluation(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, settings: LinearSettings
) -> Scores:
    """Train a linear layer on features [N, D] or, with several views of each image, [V, N, D], and test on [T, D].

    Features are brought to unit length, then standardised by the training set's mean and deviation. Of several views
    each epoch sees one of each image, drawn from the seed. Raises EffbookError where shapes do not fit, a feature isn't
    finite or a test label was never seen.
    """
    views = train_x if train_x.ndim == 3 else train_x[None]  # [V, N, D]
    _check(views, train_y, test_x, test_y)
    views, test_x = F.normalize(views.float(), dim=-1), F.normalize(test_x.float(), dim=-1)
    mean, deviation = views.mean((0, 1)), views.std((0, 1)) + EPSILON
    views, test_x = (views - mean) / deviation, (test_x - mean) / deviation
    draw = torch.Generator().manual_seed(settings.seed)
    layer = nn.utils.skip_init(nn.Linear, views.shape[2], int(train_y.max()) + 1)
    bound = views.shape[2] ** -0.5  # torch's own start
    for value in (layer.weight, layer.bias):
        nn.init.uniform_(value, -bound, bound, generator=draw)
    layer.to(views.device)
    sgd = torch.optim.SGD(
        layer.parameters(), settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, list(settings.drops))
    train_y = train_y.to(views.device)
    for _ in range(settings.epochs):
        order = torch.randperm(views.shape[1], generator=draw).to(views.device)
        view = torch.randint(len(views), (views.shape[1],), generator=draw).to(views.device)
        for index in order.split(settings.batch):
            loss = F.cross_entropy(layer(views[view[index], index]), train_y[index])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        schedule.step()
    with torch.no_grad():
        logits = layer(test_x.to(views.device)).cpu()
    five = logits.topk(min(5, logits.shape[1]), dim=1).indices == test_y.cpu()[:, None]
    return Scores(top1=accuracy(logits, test_y.cpu()), top5=100.0 * five.any(1).double().mean().item())


def _check(views: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> None:
    shapes = f"{tuple(views.shape)} with {len(train_y)} labels, {tuple(test_x.shape)} with {len(test_y)}"
    if views.shape[1] != len(train_y) or test_x.ndim != 2 or views.shape[2] != test_x.shape[1] or not len(train_y):
        raise EffbookError(f"features {shapes} do not fit", "give [N, D], [N], [T, D] and [T]")
    if len(test_x) != len(test_y) or not len(test_y):
        raise EffbookError(f"features {shapes} do not fit", "give one label for each feature")
    if not (torch.isfinite(views).all() and torch.isfinite(test_x).all()):
        raise EffbookError("a feature is nan or inf", "look for the step at which training diverged")
    if min(int(train_y.min()), int(test_y.min())) < 0 or int(test_y.max()) > int(train_y.max()):
        raise EffbookError(
            f"labels run from {min(int(train_y.min()), int(test_y.min()))} to {int(test_y.max())} where training "
            f"has them up to {int(train_y.max())}",
            "number classes from 0, and train on each of them",
        )
