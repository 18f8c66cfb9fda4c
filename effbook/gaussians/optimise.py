"""Adam for a model whose rows come and go: each parameter has a learning rate of its own."""

import torch
from torch import Tensor

from effbook.gaussians.model import Gaussians


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
        """Rearrange the moments to rows that go on from those of `origin` [N]; a row of origin -1 starts at zero."""
        for moments in (self.first, self.second):
            for name, tensor in moments.items():
                taken = tensor[origin.clamp(min=0)]
                taken[origin < 0] = 0.0
                moments[name] = taken

    def forget(self, name: str) -> None:
        """Set a parameter's moments to zero."""
        self.first[name].zero_()
        self.second[name].zero_()
