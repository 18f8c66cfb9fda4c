"""What the processes of one training tell each other; with one process each function gives back what it got.

Each process embeds its part of a batch. Embeddings, indices and labels of all are gathered before they enter the bank,
so all processes hold the same bank, and a training of several processes is the training of one.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from effbook.errors import EffbookError


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(local: Tensor) -> Tensor:
    """Rows of all processes, in the order of their ranks: [B, ...] of each gives [world * B, ...]; no gradient."""
    if world_size() == 1:
        return local.detach()
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.detach().contiguous())
    return torch.cat(parts)


def own_rows(whole: Tensor) -> Tensor:
    """This process's rows of what `gather` gave."""
    return whole.chunk(world_size())[rank()] if world_size() > 1 else whole


def from_first(value: Tensor) -> Tensor:
    """The first process's tensor, in all of them; the others give one of the same shape, which is overwritten."""
    if world_size() > 1:
        dist.broadcast(value, src=0)
    return value


def mean(value: Tensor) -> Tensor:
    """The mean over processes of a tensor that has no gradient."""
    if world_size() > 1:
        dist.all_reduce(value)
        value = value / world_size()
    return value


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Put the mean over processes in place of each gradient, in one exchange."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = mean(torch.cat([g.reshape(-1) for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def start_equal(module: torch.nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            from_first(value.data)


def check_batch(batch: int) -> int:
    """The rows of a batch that each process takes. Raises EffbookError where they cannot be equally many."""
    if batch % world_size():
        raise EffbookError(f"a batch of {batch} cannot be shared by {world_size()} processes", "choose a multiple")
    return batch // world_size()
