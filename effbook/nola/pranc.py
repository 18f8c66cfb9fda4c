"""PRANC, the rival: a layer's whole weight, as one long vector, is a combination of random vectors.

theta = sum_i alpha_i theta_i, with theta_i frozen and random and alpha_i trained (written from section 3.2.3,
"Efficiency of NOLA compared to PRANC"). For d*d weights and k vectors a pass costs about k d^2, with NOLA about k d r.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effbook.errors import EffbookError
from effbook.nola.basis import Basis, combine, generate, stream_of
from effbook.nola.factors import full_precision
from effbook.nola.inject import freeze_all_but
from effbook.nola.layer import Targets, compute_dtype, device_of, matching, replace


@dataclass(frozen=True, kw_only=True)
class PRANCSettings:
    """k vectors a layer. `keep_base` learns a change of the given weight; else (the text's use) the weight itself.

    `regenerate` draws the vectors anew, `chunk` at a time, in every forward and backward pass; else they are held, k
    times the layer's size. Raises EffbookError where a value is impossible.
    """

    k: int
    seed: int = 0
    keep_base: bool = False
    regenerate: bool = True
    chunk: int = 64

    def __post_init__(self) -> None:
        for name, least in (("k", 1), ("chunk", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 2**63:
                raise EffbookError(f"PRANC's {name} is {value!r}", f"give a whole number of at least {least}")


class PRANCLayer(nn.Module):
    """What the two layers have in common: alpha [k] and the weight that it stands for."""

    def __init__(self, base: nn.Linear | nn.Conv2d, *, settings: PRANCSettings, name: str = "") -> None:
        super().__init__()
        self.settings, shape = settings, base.weight.shape
        fan_in = math.prod(shape[1:])
        # alpha has norm 1 at the start, hence Var(theta) = bound^2 / 3, a Kaiming-initialised weight's 2 / fan_in
        bound = settings.k**-0.5 if settings.keep_base else math.sqrt(6.0 / fan_in)
        self.basis = Basis(
            seed=settings.seed,
            stream=stream_of(f"{name}/theta"),
            count=settings.k,
            rows=shape[0],
            cols=fan_in,
            bound=bound,
        )
        start = torch.zeros(settings.k, device=device_of(base), dtype=compute_dtype(base))
        if not settings.keep_base:
            stream = stream_of(f"{name}/theta/coefficients")
            one = Basis(seed=settings.seed, stream=stream, count=1, rows=1, cols=settings.k, bound=1.0)
            start.copy_(F.normalize(generate(one, device=start.device).view(-1), dim=0))
        self.alpha = nn.Parameter(start)
        self.base, self.shape = base.requires_grad_(False), shape
        if not settings.keep_base:
            base.weight = None
        self._held: Tensor | None = None

    def weight(self) -> Tensor:
        """theta = sum_i alpha_i theta_i in the weight's shape (plus the given weight with `keep_base`)."""
        with full_precision(self.alpha.device):
            if self.settings.regenerate:
                theta = combine(self.alpha, self.basis, chunk=self.settings.chunk)
            else:
                if self._held is None or self._held.device != self.alpha.device or self._held.dtype != self.alpha.dtype:
                    with torch.inference_mode(False), torch.no_grad():
                        held = generate(self.basis, dtype=self.alpha.dtype, device=self.alpha.device)
                        self._held = held.view(self.settings.k, -1)
                theta = self.alpha @ self._held
        theta = theta.view(self.shape)
        return self.base.weight + theta.to(self.base.weight.dtype) if self.settings.keep_base else theta

    def __getstate__(self):
        return self.__dict__ | {"_held": None}


class PRANCLinear(PRANCLayer):
    """y = x theta^T + bias, x [.., in] -> y [.., out]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight().to(x.dtype), self.base.bias)


class PRANCConv2d(PRANCLayer):
    """A convolution with the weight theta."""

    def forward(self, x: Tensor) -> Tensor:
        return self.base._conv_forward(x, self.weight().to(x.dtype), self.base.bias)


def adapt_pranc(
    model: nn.Module, settings: PRANCSettings, *, targets: Targets, also_train: Sequence[str] = ()
) -> nn.Module:
    """Replace the target nn.Linear and nn.Conv2d layers by PRANC, in place; freeze all else but `also_train`.

    Targets as in `adapt`. Returns the model. Raises EffbookError where a target matches nothing.
    """
    taken = {id(inner) for m in model.modules() if isinstance(m, PRANCLayer) for inner in m.modules()}
    found = matching(model, targets, lambda m: id(m) not in taken and isinstance(m, nn.Linear | nn.Conv2d))
    freeze_all_but(model, (PRANCLayer,), also_train)
    new: dict[nn.Module, nn.Module] = {}
    for name, module in found.items():
        kind = PRANCConv2d if isinstance(module, nn.Conv2d) else PRANCLinear
        new[module] = kind(module, settings=settings, name=name).train(module.training)
    replace(model, new)
    return model
