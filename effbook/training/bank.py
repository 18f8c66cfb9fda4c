"""The memory banks M and M': the newest embeddings, and beside each a second one.

    M    the newest embeddings u, with the index and the label of each one's image
    M'   at the same positions an embedding w of the same image, by another network or of another view

A position of M whose index is -1 is a filler. Where the image has no w yet, the position is missing in M'. Neither is
ever a neighbour. Positions are filled from 0 on, so what is real in M is a prefix, and a search needs no mask for it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError
from effbook.training.seeds import generator
from effbook.training.settings import check_bank


class Bank:
    """M [M, D] of unit vectors, first random ones; with `second_dim` also M' [M, D'].

    `index` [M] and `label` [M] are -1 where there is none. Source: section 2.1.3.
    """

    def __init__(
        self, size: int, dim: int, *, second_dim: int | None = None, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        if min(size, dim, second_dim or 1) < 1:
            raise EffbookError(f"a bank of {size} vectors of {dim} numbers", "give whole numbers of at least 1")
        draw = generator(seed, size)
        self.embeddings = F.normalize(torch.randn(size, dim, generator=draw), dim=1).to(device)  # M
        self.index = torch.full((size,), -1, device=device)
        self.label = torch.full((size,), -1, device=device)
        self.second: Tensor | None = None  # M'
        if second_dim is not None:
            self.second = F.normalize(torch.randn(size, second_dim, generator=draw), dim=1).to(device)
        self.known = torch.zeros(size, dtype=torch.bool)  # where M' is real; on the host, so that asking waits for none
        self.filled = 0  # the positions below it are real
        self.pointer = 0  # the next to be written, which holds the oldest entry

    def __len__(self) -> int:
        return len(self.embeddings)

    def enqueue(
        self, u: Tensor, index: Tensor, label: Tensor, *, second: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Put a batch in place of the oldest entries and return its positions [B].

        u [B, D] of unit length, index [B], label [B] (-1: none), second [B, D'] and known [B], on the host: which rows
        of `second` are real (None: all). Raises EffbookError where the bank is no multiple of the batch, or has M' and
        gets nothing for it.
        """
        rows = slice(self.pointer, self.pointer + len(u))
        if len(self) % len(u) or rows.stop > len(self):
            check_bank(len(self), batch=len(u))
            raise EffbookError("batches of several sizes go into one bank", "drop the last, partial batch of an epoch")
        if (second is None) != (self.second is None):
            raise EffbookError("M' and what is to go into it do not go together", "give `second` with `second_dim`")
        self.embeddings[rows], self.index[rows], self.label[rows] = u, index, label
        if second is not None:
            self.second[rows] = second
            self.known[rows] = True if known is None else known
        self.filled = max(self.filled, rows.stop)
        self.pointer = rows.stop % len(self)
        return torch.arange(rows.start, rows.stop, device=self.embeddings.device)

    def oldest(self, count: int) -> tuple[Tensor, Tensor]:
        """Index [count] and embedding [count, D] of what the next batch will replace; fillers have index -1."""
        rows = slice(self.pointer, self.pointer + count)
        return self.index[rows], self.embeddings[rows]

    def state_dict(self) -> dict[str, Any]:
        """All that the bank holds, as tensors and whole numbers."""
        tensors = {name: getattr(self, name) for name in ("embeddings", "index", "label", "known", "second")}
        held = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return held | {"filled": self.filled, "pointer": self.pointer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave. Raises EffbookError where it is of a bank of another size."""
        own = self.state_dict()
        check_state(own, state, "bank")
        for name, value in state.items():
            own[name].copy_(value) if isinstance(value, Tensor) else setattr(self, name, value)


def check_state(own: dict[str, Any], state: dict[str, Any], what: str) -> None:
    """Raise EffbookError where the names or shapes of two states differ."""
    shapes = [{name: tuple(getattr(v, "shape", ())) for name, v in each.items()} for each in (own, state)]
    if shapes[0] != shapes[1]:
        name = next(n for n in (*shapes[0], *shapes[1]) if shapes[0].get(n) != shapes[1].get(n))
        raise EffbookError(
            f"the checkpoint is of another {what} ({name}: {shapes[1].get(name, 'missing')} where "
            f"{shapes[0].get(name, 'nothing')} is needed)",
            "resume with the settings and the network that it was made with, or start anew",
        )
