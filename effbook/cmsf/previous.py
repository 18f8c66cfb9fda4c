"""The previous epoch's embedding of every image, in the host's memory (2.1.3.1)."""

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.training.bank import check_state


class EpochCache:
    """The last embedding of each training image: one copy, in the host's memory, [N, D] float32."""

    def __init__(self, images: int, dim: int) -> None:
        self.embeddings = torch.zeros(images, dim)
        self.known = torch.zeros(images, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.embeddings)

    def read(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """The cached embeddings [B, D], on the device, and on the host which of them are real [B]."""
        index = index.cpu()
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise EffbookError(
                f"images {int(index.min())} to {int(index.max())} do not fit a cache of {len(self)} images",
                "number the training images from 0",
            )
        return self.embeddings[index].to(device), self.known[index]

    def write(self, index: Tensor, u: Tensor) -> None:
        """Keep u [B, D] as the embeddings of these images; index -1 is left out."""
        index, u = index.cpu(), u.cpu()
        self.embeddings[index[index >= 0]] = u[index >= 0]
        self.known[index[index >= 0]] = True

    def state_dict(self) -> dict[str, Tensor]:
        """All embeddings, and which of them are real."""
        return {"embeddings": self.embeddings, "known": self.known}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what `state_dict` gave. Raises EffbookError where it is of another data set."""
        check_state(self.state_dict(), state, "cache")
        self.embeddings.copy_(state["embeddings"])
        self.known.copy_(state["known"])
