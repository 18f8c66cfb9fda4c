"""Features from any depth of a backbone or a head, reduced in space to about one length (Table A.17)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.simreg.networks import device_of, evaluating


@torch.no_grad()
def features_at(
    network: nn.Module, images: Tensor, names: Sequence[str], *, length: int | None = None, batch: int = 256
) -> dict[str, Tensor]:
    """What the modules of these names give for images [N, C, H, W] in evaluation mode: [N, about `length`], on the CPU.

    Names are those of `named_modules`; of a student with its head take `nn.Sequential(student, head)`. Without `length`
    maps are averaged over space. Raises EffbookError for an unknown name, and for what is no tensor or called
    more than once. Source: A.2.1.4.
    """
    modules = dict(network.named_modules())
    if unknown := [name for name in names if name not in modules]:
        near = ", ".join(list(modules)[1:9])
        raise EffbookError(f"the network has no module {unknown[0]!r}", f"choose among {near}, ... (named_modules)")
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, given: object) -> None:
        if not isinstance(given, Tensor):
            raise EffbookError(f"{name!r} gives {type(given).__name__}, no tensor", "choose a module within it")
        found[name].append(reduced(given, length).float().cpu())

    hooks = [modules[n].register_forward_hook(lambda _, __, given, n=n: keep(n, given)) for n in found]
    parts = images.split(batch)
    try:
        with evaluating(network):
            for part in parts:
                network(part.to(device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()
    for name, each in found.items():
        if len(each) != len(parts):
            often = len(each) // len(parts)
            raise EffbookError(f"{name!r} is called {often} times an image", "choose a module that is called once")
    return {name: torch.cat(each) for name, each in found.items()}


def reduced(features: Tensor, length: int | None = None) -> Tensor:
    """Features as vectors [B, C * s * s] of about `length` numbers: s x s means over the space of [B, C, H, W].

    s is the side that comes nearest, from 1 to the map's own; tokens [B, T, C] are averaged along T alone, and vectors
    [B, d] are kept. Raises EffbookError for other shapes.
    """
    if features.ndim == 2:
        return features
    if features.ndim == 3:
        features = features.mT  # [B, C, T]
        count = 1 if length is None else min(max(1, round(length / features.shape[1])), features.shape[2])
        return F.adaptive_avg_pool1d(features, count).flatten(1)
    if features.ndim == 4:
        side = 1 if length is None else max(1, round(math.sqrt(length / features.shape[1])))
        height, width = (min(side, extent) for extent in features.shape[2:])
        return F.adaptive_avg_pool2d(features, (height, width)).flatten(1)
    raise EffbookError(
        f"features of shape {tuple(features.shape)} cannot be reduced",
        "choose a module that gives [B, C, H, W] or [B, d]",
    )
