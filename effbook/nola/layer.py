"""NOLA on linear layers and convolutions: y = x W + scale * (x A) B, with A and B of Eq. 3.1 (section 3.2.3)."""

import difflib
import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.nola.config import NOLASettings
from effbook.nola.factors import Factors, SharedBasis

Targets = str | Sequence[str] | Callable[[str, nn.Module], bool]


def near_square(numel: int) -> tuple[int, int]:
    """(d1, d2) with d1 * d2 = numel exactly and d1 <= d2 as close as they get ("preferably close to square")."""
    d1 = next(d for d in range(math.isqrt(numel), 0, -1) if numel % d == 0)
    return d1, numel // d1


def is_conv1d(module: nn.Module) -> bool:
    """Whether this is GPT-2's Conv1D, a linear layer whose weight lies as [in, out]."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def features(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer: nn.Linear, GPT-2's Conv1D, or a quantised layer that names its features."""
    if is_conv1d(module):
        return tuple(module.weight.shape)
    return module.in_features, module.out_features


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """(m, n) of the matrix that Eq. 3.2 changes: a linear layer's in x out, a convolution's near-square reshape."""
    return near_square(module.weight.numel()) if isinstance(module, nn.Conv2d) else features(module)


def is_linear(module: nn.Module) -> bool:
    """Whether NOLA can stand beside this module as beside a linear layer."""
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False  # nn.MultiheadAttention reads its weight and never calls it
    return is_conv1d(module) or (hasattr(module, "in_features") and hasattr(module, "out_features"))


def adaptable(module: nn.Module) -> bool:
    """Whether NOLA knows how to adapt this module."""
    return is_linear(module) or isinstance(module, nn.Conv2d)


def add_low_rank(y: Tensor | None, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """y [.., n] + scale * (x [.., m] A [m, r]) B [r, n], never forming AB; y may be None (zero) or a bias [n]."""
    a, b = a.to(x.dtype), b.to(x.dtype)
    h = (x.reshape(-1, x.shape[-1]) @ a) * scale  # [N, r]; scaling the r columns here is cheaper than n columns later
    if y is None:
        out = h @ b.to(h.dtype)
    elif y.dim() == 1 or y.dtype == h.dtype:
        # one pass over the output: the base layer's part is added as the product is written
        out = torch.addmm(y.to(h.dtype) if y.dim() == 1 else y.reshape(-1, y.shape[-1]), h, b.to(h.dtype))
    else:  # a quantised base answers in a dtype of its own
        out = y.reshape(-1, y.shape[-1]) + (h @ b.to(h.dtype)).to(y.dtype)
    return out.view(*x.shape[:-1], b.shape[-1])


def compute_dtype(base: nn.Module) -> torch.dtype:
    """Coefficients are float32 beside any base but a float64 one."""
    weight = getattr(base, "weight", None)
    return torch.float64 if isinstance(weight, Tensor) and weight.dtype == torch.float64 else torch.float32


def device_of(base: nn.Module) -> torch.device:
    return next((t.device for t in (*base.parameters(), *base.buffers())), torch.device("cpu"))


def _require_floating(base: nn.Module) -> Tensor:
    """The weight of a layer that isn't quantised (a quantised one is a tensor subclass, another module, or integer)."""
    weight = getattr(base, "weight", None)
    plain = isinstance(base, nn.Linear | nn.Conv2d) or is_conv1d(base)
    if not plain or type(weight) is not nn.Parameter or not weight.dtype.is_floating_point:
        raise EffbookError(
            f"A {type(base).__name__} keeps its weight quantised, so nothing can be merged into it or left out of it",
            "leave the low-rank path beside it, or load the base model in a floating dtype",
        )
    return weight


@torch.no_grad()
def add_to_weight(base: nn.Module, delta: Tensor) -> None:
    """Add delta (of the weight's shape) to the base layer's weight in place, rounding once, in its dtype."""
    weight = _require_floating(base)
    weight.copy_((weight.to(delta.dtype) + delta).to(weight.dtype))


class NOLALayer(nn.Module):
    """What NOLALinear and NOLAConv2d have in common: coefficients, the change of the weight, merging it and back."""

    def __init__(self, base: nn.Module, factors: Factors) -> None:
        super().__init__()
        self.base, self.factors = base, factors
        self.base.requires_grad_(False)
        self.merged = False
        self._original: Tensor | None = None
        self._dropped: torch.dtype | None = None
        if factors.settings.init == "scratch":
            self._dropped = _require_floating(base).dtype
            base.weight = None  # W = 0: not stored, not multiplied by

    @property
    def alpha(self) -> nn.Parameter:
        return self.factors.alpha

    @property
    def beta(self) -> nn.Parameter:
        return self.factors.beta

    @property
    def settings(self) -> NOLASettings:
        return self.factors.settings

    def delta_weight(self) -> Tensor:
        """scale * A B as the base layer lays out its weight, in the dtype that A and B are summed in (Eq. 3.2)."""
        raise NotImplementedError

    @torch.no_grad()
    def merge(self, *, keep_copy: bool = True) -> None:
        """Add the change to the base weight, so that the layer costs what the base does; rounds in the base's dtype.

        With `keep_copy` the old weight is kept until `unmerge`, which then is exact to the bit; without, `unmerge`
        subtracts and is exact to rounding. Raises EffbookError for a base whose weight is quantised.
        """
        if self.merged:
            return
        if self._dropped is not None:
            self.base.weight = nn.Parameter(self.delta_weight().to(self._dropped), requires_grad=False)
        else:
            weight = _require_floating(self.base)
            self._original = weight.detach().clone() if keep_copy else None
            add_to_weight(self.base, self.delta_weight())
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the change out of the base weight again."""
        if not self.merged:
            return
        if self._dropped is not None:
            self.base.weight = None
        elif self._original is not None:
            self.base.weight.copy_(self._original)
        else:
            add_to_weight(self.base, -self.delta_weight())
        self._original, self.merged = None, False


class NOLALinear(NOLALayer):
    """A frozen linear layer with NOLA beside it: y = base(x) + scale * (x A) B (Eq. 3.1, 3.2).

    `base` is an nn.Linear, GPT-2's Conv1D, or any module that is linear and has `in_features` and `out_features` (an
    8-bit layer); x [.., m] -> y [.., n]. With init `scratch` the base keeps its bias only. `name` is the layer's
    qualified name in its model; it picks the random streams.
    """

    def __init__(
        self, base: nn.Module, *, settings: NOLASettings, name: str = "", shared: SharedBasis | None = None
    ) -> None:
        if not is_linear(base):
            raise EffbookError(f"{name or 'The layer'} is a {type(base).__name__}", "give NOLALinear a linear layer")
        rows, cols = matrix_shape(base)
        place = {"device": device_of(base), "dtype": compute_dtype(base)}
        super().__init__(base, Factors(rows, cols, settings=settings, name=name, shared=shared, **place))

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return self.base(x)
        y = self.base(x) if self._dropped is None else self.base.bias
        a, b = self.factors()
        return add_low_rank(y, x, a, b, self.factors.scale)

    def delta_weight(self) -> Tensor:
        a, b = self.factors()
        delta = (a @ b) * self.factors.scale  # [m, n]
        return delta if is_conv1d(self.base) else delta.T


class NOLAConv2d(NOLALayer):
    """A convolution whose weight [out, in/groups, h, w] moves by scale * A B, reshaped from the near-square d1 x d2.

    The weight's entries in storage order fill the matrix row by row. With init `scratch` the base keeps its bias only.
    Source: "Structure of the parameters", section 3.2.3.
    """

    def __init__(
        self, base: nn.Conv2d, *, settings: NOLASettings, name: str = "", shared: SharedBasis | None = None
    ) -> None:
        if not isinstance(base, nn.Conv2d):
            raise EffbookError(f"{name or 'The layer'} is a {type(base).__name__}", "give NOLAConv2d an nn.Conv2d")
        shape, (d1, d2) = base.weight.shape, matrix_shape(base)
        place = {"device": device_of(base), "dtype": compute_dtype(base)}
        fan_in = math.prod(shape[1:])
        super().__init__(base, Factors(d1, d2, settings=settings, name=name, fan_in=fan_in, shared=shared, **place))
        self.weight_shape = shape

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return self.base(x)
        weight = self.delta_weight().to(x.dtype)
        if self._dropped is None:
            weight = self.base.weight + weight
        return self.base._conv_forward(x, weight, self.base.bias)

    def delta_weight(self) -> Tensor:
        a, b = self.factors()
        return ((a * self.factors.scale) @ b).view(self.weight_shape)


def matching(model: nn.Module, targets: Targets, suits: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
    """The modules that `targets` names: a suffix of the qualified name ("attn.q_proj"), a regular expression for the
    whole of it, several of them, or a function (name, module) -> bool. Raises EffbookError, with near names, if none.
    """
    modules = {name: m for name, m in model.named_modules(remove_duplicate=False) if name}
    if callable(targets):
        found = {name: m for name, m in modules.items() if targets(name, m) and suits(m)}
    else:
        wanted = [targets] if isinstance(targets, str) else list(targets)
        found = {}
        for target in wanted:
            hits = {n: m for n, m in modules.items() if names(target, n)}
            if not hits:
                ends = {n.rpartition(".")[2] for n, m in modules.items() if suits(m)} | set(modules)
                near = difflib.get_close_matches(target, sorted(ends), n=3, cutoff=0.5)
                remedy = f"did you mean {', '.join(near)}" if near else "list model.named_modules() to see its layers"
                raise EffbookError(f"No layer of this model is called {target!r}", remedy)
            found |= {name: m for name, m in hits.items() if suits(m)}
    if not found:
        raise EffbookError(
            f"The targets {targets if not callable(targets) else 'of that function'} match no suitable layer",
            "name linear layers or 2-d convolutions that aren't adapted yet",
        )
    once = {id(m): name for name, m in reversed(modules.items()) if name in found}  # a layer with two names: the first
    return {name: m for name, m in modules.items() if once.get(id(m)) == name}


def names(target: str, name: str) -> bool:
    """Whether `target` is the qualified name, a dotted suffix of it, or a regular expression that matches all of it."""
    if name == target or name.endswith(f".{target}"):
        return True
    try:
        return re.fullmatch(target, name) is not None
    except re.error:
        return False


def replace(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Put new modules wherever the old ones hang in the model, in one walk (a layer may be used under two names)."""
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):  # named_children would skip the second name
            if child in new:
                setattr(parent, key, new[child])
