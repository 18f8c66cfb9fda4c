"""How alike two images are: PSNR, its variant over the mean error, and SSIM. Images are [H, W, 3] in [0, 1]."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from effbook.errors import EffbookError

WINDOW = 11
SIGMA_PX = 1.5


def _check(image: Tensor, wanted: Tensor) -> None:
    if image.shape != wanted.shape or image.ndim != 3 or image.shape[-1] != 3:
        raise EffbookError(
            f"images are {tuple(image.shape)} and {tuple(wanted.shape)}", "give two [H, W, 3] of one size"
        )


def psnr(image: Tensor, wanted: Tensor) -> float:
    """Peak signal to noise ratio in dB; infinite for equal images."""
    _check(image, wanted)
    return float(-10 * (image.double() - wanted.double()).square().mean().log10())


def psnr_am(images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """PSNR-AM in dB: squared errors are averaged over all images before the logarithm (section 3.1.4, Evaluation)."""
    errors = [(a.double() - b.double()).square().mean() for a, b in zip(images, wanted, strict=True)]
    return float(-10 * torch.stack(errors).mean().log10())


@functools.lru_cache(maxsize=32)
def _blur_matrix(size: int, border: bool) -> Tensor:
    """The Gaussian window as a band matrix: for images of some hundred pixels much faster than a convolution."""
    window = torch.exp(-((torch.arange(WINDOW, device="cpu") - WINDOW // 2).double() ** 2) / (2 * SIGMA_PX**2))
    window = window / window.sum()
    band = torch.zeros(size, size + WINDOW - 1, dtype=torch.float64, device="cpu")
    for i in range(size):
        band[i, i : i + WINDOW] = window
    half = WINDOW // 2
    band = band[:, half : half + size]
    return band if border else band[half : size - half]


@functools.lru_cache(maxsize=32)
def _blur_on(size: int, border: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The same where it is needed: once, not in every iteration of a training."""
    return _blur_matrix(size, border).to(device, dtype)


def ssim(image: Tensor, wanted: Tensor, *, border: bool = True) -> Tensor:
    """Structural similarity as a tensor one can differentiate: windows of 11 x 11 pixels weighed by a Gaussian.

    With `border`, as in 3DGS, windows reach over the edge into zeros and all pixels count; without, only those whose
    window lies inside, as scikit-image has it (gaussian_weights, sample covariance off).
    """
    _check(image, wanted)
    down, across = (_blur_on(size, border, image.device, image.dtype) for size in image.shape[:2])
    x, y = image.permute(2, 0, 1), wanted.to(image).permute(2, 0, 1)
    blurred = down @ torch.cat([x, y, x * x, y * y, x * y]) @ across.T  # [15, H, W]
    mean_x, mean_y, xx, yy, xy = blurred.chunk(5)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return alike.mean()
