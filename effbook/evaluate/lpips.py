"""LPIPS 0.1 over VGG16: how different two images look. 0 for equal ones (section 3.1.4; Zhang et al., CVPR 2018)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError

# VGG16's convolutions by their numbers in torchvision's checkpoint. Each block is followed by a pooling; what its last
# ReLU gives (relu1_2, relu2_2, relu3_3, relu4_3, relu5_3) is compared.
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1], red, green, blue
LEAST_PX = 2 ** (len(BLOCKS) - 1)
FETCH = "run 'effbook data fetch vgg16 lpips'"


class Lpips:
    """The measure with its weights: `lpips(image, wanted)`, images [H, W, 3] in [0, 1]. See `load_lpips`."""

    def __init__(self, *, blocks: list[list[tuple[Tensor, Tensor]]], linear: list[Tensor], signed: bool = True) -> None:
        self.blocks = blocks  # of kernels [out, in, 3, 3] and biases [out]
        self.linear = linear  # [C], one a block
        self.signed = signed

    @torch.no_grad()
    def __call__(self, image: Tensor, wanted: Tensor) -> float:
        """The distance; EffbookError for images of different sizes or below 16 pixels a side."""
        if image.shape != wanted.shape or image.ndim != 3 or image.shape[-1] != 3:
            raise EffbookError(
                f"images are {tuple(image.shape)} and {tuple(wanted.shape)}", "give two [H, W, 3] of one size"
            )
        if min(image.shape[:2]) < LEAST_PX:
            raise EffbookError(
                f"an image of {image.shape[1]} x {image.shape[0]} is too small", f"give {LEAST_PX} a side"
            )
        total = 0.0
        for ours, theirs, weights in zip(self._features(image), self._features(wanted), self.linear, strict=True):
            squares = (ours - theirs).square()  # [C, h, w]
            total += float((weights @ squares.flatten(1)).double().mean())
        return total

    def _features(self, image: Tensor) -> list[Tensor]:
        """What the five layers give [C, h, w], each pixel's channels scaled to length one."""
        x = image.to(self.linear[0]).permute(2, 0, 1)  # [3, H, W]
        if self.signed:
            x = 2 * x - 1
        shift, scale = (x.new_tensor(numbers)[:, None, None] for numbers in (SHIFT, SCALE))
        x = (x - shift) / scale
        found = []
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = F.max_pool2d(x, 2)
            for kernels, bias in block:
                x = F.relu(F.conv2d(x[None], kernels, bias, padding=1)[0])
            found.append(x / (x.square().sum(0).sqrt() + 1e-10))
        return found


def load_lpips(*, vgg: Path, linear: Path, device: str = "cpu", signed: bool = True) -> Lpips:
    """LPIPS from torchvision's VGG16 checkpoint and LPIPS's own weights (manifests vgg16 and lpips).

    `signed` takes pixels to [-1, 1] first, as LPIPS's authors do. 3DGS's own evaluation does not, and neither do the
    numbers that are compared with it: `signed=False` gives those. Raises EffbookError for a missing or other file.
    """
    tower, heads = _read(vgg, device), _read(linear, device)
    try:
        blocks = [[(tower[f"features.{n}.weight"], tower[f"features.{n}.bias"]) for n in block] for block in BLOCKS]
        weights = [heads[f"lin{i}.model.1.weight"].flatten() for i in range(len(BLOCKS))]
    except (KeyError, TypeError, AttributeError) as error:
        raise EffbookError(f"the weights for LPIPS lack {error}", f"{FETCH} again") from None
    widths = [block[-1][1].shape for block in blocks]
    if widths != [head.shape for head in weights]:
        raise EffbookError(f"{vgg.name} and {linear.name} do not belong together", f"{FETCH} again")
    return Lpips(blocks=blocks, linear=weights, signed=signed)


def _read(path: Path, device: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise EffbookError(f"LPIPS lacks its weights {path.name}", FETCH)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file raises many kinds
        raise EffbookError(f"{path.name} is no file of weights ({type(error).__name__})", f"{FETCH} again") from error
