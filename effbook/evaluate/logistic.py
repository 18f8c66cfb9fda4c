"""L2-regularised multinomial logistic regression by LBFGS, as the transfer evaluation fits it (A.1.5.1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_features, check_labels


@dataclass(frozen=True, kw_only=True)
class LogisticSettings:
    """``iterations`` calls of torch's LBFGS, each of at most ``max_iter`` steps of length ``lr``, no line search.

    The tolerances are torch's own: a call ends early where the gradient or the change of the loss is below them.
    """

    iterations: int = 100
    lr: float = 1.0
    weight_decay: float = 1e-6
    max_iter: int = 20
    history_size: int = 10
    tolerance_grad: float = 1e-7
    tolerance_change: float = 1e-9

    def __post_init__(self) -> None:
        if min(self.iterations, self.max_iter, self.history_size) < 1 or not self.lr > 0 or not self.weight_decay >= 0:
            raise EffbookError(
                f"Logistic regression cannot be fitted with {self}",
                "choose whole numbers of at least 1, a learning rate above 0 and a weight decay not below",
            )


def fit_logistic(x: Tensor, y: Tensor, *, classes: int, settings: LogisticSettings) -> nn.Linear:
    """The layer W [C, D], b [C] that minimises cross-entropy(x Wᵀ + b, y) + weight_decay / 2 · |W|², started at zero.

    The cross-entropy is the mean over features [N, D]; b bears no decay. So it is scikit-learn's problem with
    C = 1 / (N · weight_decay). It runs where x is, in float64 if x is, else in float32. The steps have no line search,
    so they can run away: a call that leaves the finite numbers is undone, and ends the fit, as does one that changes
    nothing. Raises `EffbookError` for features that are not finite and labels outside 0 ... classes - 1.
    """
    check_features(x, "training")
    check_labels(y, len(x), classes, "training")
    x, y = x.detach() if x.dtype == torch.float64 else x.detach().float(), y.to(x.device).long()
    layer = nn.utils.skip_init(nn.Linear, x.shape[1], classes, device=x.device, dtype=x.dtype)
    parameters = [layer.weight, layer.bias]
    with torch.no_grad():
        for each in parameters:
            each.zero_()
    optimizer = torch.optim.LBFGS(
        parameters,
        lr=settings.lr,
        max_iter=settings.max_iter,
        history_size=settings.history_size,
        tolerance_grad=settings.tolerance_grad,
        tolerance_change=settings.tolerance_change,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), y) + settings.weight_decay / 2 * layer.weight.square().sum()
        loss.backward()
        return loss

    for _ in range(settings.iterations):
        before = [each.detach().clone() for each in parameters]
        optimizer.step(closure)
        finite = all(bool(torch.isfinite(each).all()) for each in parameters)
        if not finite:
            with torch.no_grad():
                for each, old in zip(parameters, before, strict=True):
                    each.copy_(old)
        if all(torch.equal(each, old) for each, old in zip(parameters, before, strict=True)):
            break
    return layer.requires_grad_(False)
