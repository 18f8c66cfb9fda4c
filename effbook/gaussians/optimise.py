"""Adam for a model whose rows come and go: 3DGS's learning rates, one for each parameter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from effbook.gaussians.model import Gaussians


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates of 3DGS. Those of the means are in units of the scene's extent and fall exponentially."""

    means_first: float = 1.6e-4
    means_last: float = 1.6e-6
    sh_dc: float = 2.5e-3
    sh_rest: float = 1.25e-4
    opacities: float = 5e-2
    scales: float = 5e-3
    rotations: float = 1e-3

    def at(self, step: int, steps: int, extent: float) -> dict[str, float]:
        """The rate of each parameter at a step of `steps`."""
        part = min(max(step / max(steps, 1), 0.0), 1.0)
        means = extent * self.means_first ** (1 - part) * self.means_last**part
        rest = {name: getattr(self, name) for name in ("sh_dc", "sh_rest", "opacities", "scales", "rotations")}
        return {"means": means, **rest}


class Adam:
    """Adam with betas 0.9 and 0.999 and epsilon 1e-15, as 3DGS has it; its moments follow the model's rows."""

    def __init__(self, gaussians: Gaussians) -> None:
        self.first = {name: torch.zeros_like(t) for name, t in gaussians.tensors().items()}
        self.second = {name: torch.zeros_like(t) for name, t in gaussians.tensors().items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, gaussians: Gaussians, rates: dict[str, float]) -> None:
        """One step along the gradients, in place."""
        self.steps += 1
        short, long = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for name, tensor in gaussians.tensors().items():
            if tensor.grad is None:
                continue
            first, second = self.first[name], self.second[name]
            first.lerp_(tensor.grad, 0.1)
            second.mul_(0.999).addcmul_(tensor.grad, tensor.grad, value=0.001)
            tensor.addcdiv_(first, (second / long).sqrt_().add_(1e-15), value=-rates[name] / short)

    def follow(self, origin: Tensor) -> None:
        """Rearrange the moments to rows that go on from old ones; a row of origin -1 starts at zero."""
        for moments in (self.first, self.second):
            for name, tensor in moments.items():
                taken = tensor[origin.clamp(min=0)]
                taken[origin < 0] = 0.0
                moments[name] = taken

    def forget(self, name: str) -> None:
        """Set a parameter's moments to zero."""
        self.first[name].zero_()
        self.second[name].zero_()
