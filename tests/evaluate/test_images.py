"""PSNR and SSIM against scikit-image, and PSNR-AM against its definition."""

import math

import numpy as np
import pytest
import torch

from effbook.errors import EffbookError
from effbook.evaluate.images import psnr, psnr_am, ssim


def pair(height=37, width=29, noise=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(height, width, 3, generator=generator, dtype=torch.float64)
    return image, (image + noise * torch.randn(image.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_psnr_and_ssim_are_scikit_images(noise):
    metrics = pytest.importorskip("skimage.metrics")
    image, other = pair(noise=noise)
    a, b = image.numpy(), other.numpy()
    assert psnr(image, other) == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-9)
    theirs = metrics.structural_similarity(
        a, b, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert float(ssim(image, other, border=False)) == pytest.approx(theirs, abs=1e-6)


def test_ssim_with_a_border_is_a_convolution_over_zeros():
    image, other = pair()
    window = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(window, window) / window.sum() ** 2

    def blur(x):
        return torch.nn.functional.conv2d(x.permute(2, 0, 1)[:, None], window[None, None], padding=5)[:, 0]

    x, y, c1, c2 = blur(image), blur(other), 0.01**2, 0.03**2
    xx, yy, xy = blur(image**2) - x**2, blur(other**2) - y**2, blur(image * other) - x * y
    wanted = ((2 * x * y + c1) * (2 * xy + c2) / ((x**2 + y**2 + c1) * (xx + yy + c2))).mean()
    assert float(ssim(image, other)) == pytest.approx(float(wanted), abs=1e-12)


def test_equal_images_are_perfect_and_ssim_can_be_differentiated():
    image, other = pair(16, 14)
    assert psnr(image, image) == math.inf
    assert float(ssim(image, image)) == pytest.approx(1.0)
    assert torch.autograd.gradcheck(lambda x: ssim(x, other), image.clone().requires_grad_())


def test_psnr_am_averages_errors_before_the_logarithm():
    pairs = [pair(noise=noise, seed=i) for i, noise in enumerate((0.02, 0.4))]
    errors = [np.square(a.numpy() - b.numpy()).mean() for a, b in pairs]
    assert psnr_am(*zip(*pairs, strict=True)) == pytest.approx(-10 * math.log10(np.mean(errors)))
    assert psnr_am(*zip(*pairs, strict=True)) < np.mean([psnr(a, b) for a, b in pairs])


def test_images_of_different_sizes_are_refused():
    image, other = pair()
    for measure in (psnr, ssim):
        with pytest.raises(EffbookError, match="of one size"):
            measure(image, other[:-1])
