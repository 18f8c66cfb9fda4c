"""Put NOLA into a model, find it there, and count what is trained."""

from collections.abc import Sequence

import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.nola.config import NOLASettings
from effbook.nola.factors import SharedBasis
from effbook.nola.layer import (
    NOLAConv2d,
    NOLALayer,
    NOLALinear,
    Targets,
    adaptable,
    is_conv1d,
    matching,
    names,
    replace,
)


def freeze_all_but(model: nn.Module, layer_types: tuple[type, ...], also_train: Sequence[str]) -> None:
    """Freeze every parameter outside `also_train` and outside layers that are adapted already."""
    own = {id(p) for m in model.modules() if isinstance(m, layer_types) for p in m.parameters()}
    if not own:  # a second call (other settings for other layers) leaves the choice of the first
        model.requires_grad_(False)
    for name, module in model.named_modules():
        if any(names(target, name) for target in also_train):
            for p in module.parameters():
                if id(p) not in own:
                    p.requires_grad_(True)


def adapt(model: nn.Module, settings: NOLASettings, *, targets: Targets, also_train: Sequence[str] = ()) -> nn.Module:
    """Replace the target layers of `model` by NOLA layers, in place; all else is frozen but for `also_train`.

    `targets` and `also_train` name modules: by a suffix of the qualified name, a regular expression that matches all of
    it, or (targets) a function of name and module. May be called again with other settings for other layers. Returns
    the model. Raises EffbookError, with near names, where a target matches nothing, and for a layer that has NOLA
    already.
    """
    taken = {id(inner) for m in model.modules() if isinstance(m, NOLALayer) for inner in m.modules()}

    def suits(module: nn.Module) -> bool:
        return id(module) not in taken and adaptable(module)

    found = matching(model, targets, suits)
    for target in also_train:
        matching(model, target, lambda m: any(True for _ in m.parameters()))
    freeze_all_but(model, (NOLALayer,), also_train)
    shared = SharedBasis() if settings.shared_basis else None
    new: dict[nn.Module, nn.Module] = {}
    for name, module in found.items():
        kind = NOLAConv2d if isinstance(module, nn.Conv2d) else NOLALinear
        new[module] = kind(module, settings=settings, name=name, shared=shared).train(module.training)
    replace(model, new)
    if shared is not None:
        shared.follow(model)
    return model


def adapted(model: nn.Module) -> dict[str, NOLALayer]:
    """The NOLA layers of a model by their qualified names."""
    return {name: m for name, m in model.named_modules() if isinstance(m, NOLALayer)}


def count_parameters(model: nn.Module, *, exclude: Sequence[str] = ()) -> int:
    """How many parameters train (each counted once), leaving out modules that `exclude` names (a task's head).

    Works for any model: NOLA, PRANC, peft's LoRA; on the meta device too.
    """
    left_out = {
        id(p)
        for name, module in model.named_modules()
        if any(names(target, name) for target in exclude)
        for p in module.parameters()
    }
    return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in left_out)


class SplitLinear(nn.Module):
    """Several linear layers on the same input, their outputs side by side: a fused q-k-v layer, taken apart."""

    def __init__(self, fused: nn.Module, parts: Sequence[str]) -> None:
        super().__init__()
        weight = fused.weight.detach().T if is_conv1d(fused) else fused.weight.detach()  # [n, m]
        if weight.shape[0] % len(parts):
            raise EffbookError(f"{weight.shape[0]} outputs don't split into {len(parts)} parts", "name other parts")
        biases = fused.bias.detach().chunk(len(parts)) if fused.bias is not None else [None] * len(parts)
        with torch.device("meta"):
            layers = [nn.Linear(weight.shape[1], weight.shape[0] // len(parts), bias=b is not None) for b in biases]
        for name, layer, w, b in zip(parts, layers, weight.chunk(len(parts)), biases, strict=True):
            layer.weight = nn.Parameter(w.clone(), requires_grad=fused.weight.requires_grad)
            if b is not None:
                layer.bias = nn.Parameter(b.clone(), requires_grad=fused.bias.requires_grad)
            self.add_module(name, layer)
        self.train(fused.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for layer in self.children()], dim=-1)


def split_fused(model: nn.Module, *, targets: Targets, parts: Sequence[str] = ("q", "k", "v")) -> nn.Module:
    """Take fused linear layers (timm's `qkv`, GPT-2's `c_attn`) apart, in place, so that Q and V can be adapted alone.

    `blocks.0.attn.qkv` then holds the layers `q`, `k` and `v`; the model computes the same. Returns the model.
    """
    fused = matching(model, targets, lambda m: isinstance(m, nn.Linear) or is_conv1d(m)).values()
    replace(model, {module: SplitLinear(module, parts) for module in fused})
    return model
