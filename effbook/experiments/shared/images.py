"""Images as tensors: some of a data set's, resized or standardised, and augmented in batches."""

from typing import TYPE_CHECKING

from effbook.experiments.shared.draws import subset

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from effbook.data.images import ImageSet


def picked(data: "ImageSet", wanted: int | None, *, seed: int) -> "tuple[Tensor, Tensor]":
    """Return uint8 images [N, H, W, 3] (or [N, H, W]) and labels [N]: all, or `wanted` of them drawn from the seed.

    Raises EffbookError where fewer are there.
    """
    import torch

    if wanted is None:
        return torch.from_numpy(data.images), torch.from_numpy(data.labels)
    chosen = subset(len(data.labels), wanted, seed=seed)
    return torch.from_numpy(data.images[chosen]), torch.from_numpy(data.labels[chosen])


def prepared(images: "Tensor", *, size_px: int, mean: tuple, deviation: tuple) -> "Tensor":
    """Return normalised images [N, 3, size_px, size_px] from uint8 [N, H, W] or [N, H, W, 3]."""
    import torch.nn.functional as F

    x = images.float() / 255
    x = x[..., None].expand(-1, -1, -1, 3) if x.ndim == 3 else x
    x = F.interpolate(x.permute(0, 3, 1, 2), size=(size_px, size_px), mode="bicubic", antialias=True).clamp(0, 1)
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(deviation)[:, None, None]


def standardised(images: "Tensor") -> "Tensor":
    """Return [N, 3, H, W], standardised per channel with CIFAR-10's mean and deviation, of uint8 [N, H, W, 3]."""
    x = images.permute(0, 3, 1, 2).float() / 255
    mean, deviation = x.new_tensor((0.4914, 0.4822, 0.4465)), x.new_tensor((0.2470, 0.2435, 0.2616))
    return (x - mean[:, None, None]) / deviation[:, None, None]


def crop_and_flip(x: "Tensor", draw: "Generator") -> "Tensor":
    """Return the batch, each image padded by 4, cropped at random and mirrored at random."""
    import torch
    import torch.nn.functional as F

    count, _, height, width = x.shape
    padded = F.pad(x, (4, 4, 4, 4))
    top, left = torch.randint(9, (2, count), generator=draw)
    rows = (top[:, None] + torch.arange(height))[:, None, :, None].to(x.device)
    cols = torch.arange(width).expand(count, width)
    mirrored = torch.rand(count, generator=draw) < 0.5
    cols = torch.where(mirrored[:, None], width - 1 - cols, cols) + left[:, None]
    return padded[
        torch.arange(count, device=x.device)[:, None, None, None],
        torch.arange(3, device=x.device)[None, :, None, None],
        rows,
        cols[:, None, None, :].to(x.device),
    ]
