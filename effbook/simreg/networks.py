"""The student with its heads, which are trained, and the teachers, which never change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.simreg.config import Head
from effbook.simreg.heads import prediction_head
from effbook.training.distributed import check_batch
from effbook.training.precision import in_precision
from effbook.training.views import Batch


class Student(nn.Module):
    """A backbone [B, ...] -> [B, m] and one head a teacher, [B, m] -> [B, d_k] in float32.

    The backbone is the caller's own module: after training it is the exported student. Heads are drawn from the seed.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        targets: Sequence[int],
        *,
        head: Head,
        seed: int,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.backbone, self.dim, self.precision = backbone, dim, precision
        heads = [prediction_head(dim, d, kind=head, seed=seed + k) for k, d in enumerate(targets)]
        self.heads = nn.ModuleList(heads).to(device_of(backbone))

    def forward(self, x: Tensor) -> list[Tensor]:
        """f_s^k = g^k(S(x)) of each head: [B, d_k]."""
        with in_precision(self.precision, x):
            features = self.backbone(x)  # f_s, [B, m]
            return [head(features).float() for head in self.heads]


def check_batch_norm(method: nn.Module, batch: int) -> None:
    """Raise EffbookError where batch norm, in student, heads or loss, would see a single image."""
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if check_batch(batch) == 1 and norms:
        raise EffbookError(
            "a batch of one image has no statistics for batch norm", "choose a batch of at least 2 a process"
        )


class Teachers:
    """Frozen networks in evaluation mode; where a batch brings cached features, they are not asked.

    `dims` are the widths d_k of their features [B, d_k]. Not a module, so that they are neither trained nor saved.
    """

    def __init__(self, networks: Sequence[nn.Module], dims: Sequence[int], *, precision: str = "float32") -> None:
        self.networks, self.dims, self.precision = list(networks), list(dims), precision

    @torch.no_grad()
    def __call__(self, batch: Batch) -> list[Tensor]:
        """f_t^k of the batch's images: [B, d_k] in float32. Raises EffbookError for cached features of other widths."""
        if batch.extra is not None:
            if batch.extra.shape[1] != sum(self.dims):
                raise EffbookError(
                    f"cached features of {batch.extra.shape[1]} numbers are not of teachers with {sum(self.dims)}",
                    "compute them with these teachers",
                )
            return list(batch.extra.split(self.dims, 1))
        with in_precision(self.precision, batch.weak):
            return [teacher(batch.weak).float() for teacher in self.networks]


def device_of(module: nn.Module) -> torch.device:
    """Where a network is."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Networks in evaluation mode, and afterwards each part in the mode that it had."""
    modes = {module: module.training for network in networks for module in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def feature_width(network: nn.Module, views: Tensor, *, name: str) -> int:
    """The width of a network's features, seen on a few views [B, C, S, S]; mode and buffers stay as they are.

    Raises EffbookError where it cannot take the views, or gives no pooled features [B, d].
    """
    try:
        with evaluating(network):
            features = network(views.to(device_of(network)))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise EffbookError(
            f"the {name} cannot take views of {views.shape[1]} channels and {views.shape[2]} x {views.shape[3]} pixels "
            f"({why})",
            "give images of its channels and set `size_px`, or put what resizes before it",
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        form = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise EffbookError(
            f"the {name} gives {form} for {len(views)} images", "end it with pooling, so that it gives [B, features]"
        )
    return features.shape[1]
