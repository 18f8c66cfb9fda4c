"""The small ResNets that stand in for the dissertation's networks where there is no GPU."""

from torch import Tensor, arange, nn, rand

from effbook.backbones.convnets import small_resnet
from effbook.experiments.shared.splits import Split, normalised
from effbook.training.seeds import generator

SMALL = {  # widths of the stages, blocks of each
    "small-half": ((8, 16, 32, 128), 1),
    "small-wide": ((8, 16, 32, 256), 1),
    "small": ((16, 32, 64, 256), 1),
    "small-deep": ((16, 32, 64, 256), 2),
}
LOOKED_AT = 10_000  # images that a whitening stem takes its filters from


def small(name: str, images: Tensor | None, *, size_px: int, channels: int = 3, seed: int) -> nn.Module:
    """A small ResNet before training, [B, channels, H, W] to [B, num_features].

    Its whitening stem takes the filters from normalised images [N, channels, H, W]; without them it has noise for
    filters, to be replaced.
    """
    widths, blocks = SMALL[name]
    if images is None:
        images = rand(2, channels, size_px, size_px, generator=generator(0))
    return small_resnet(images, widths=widths, blocks=blocks, seed=seed)


def looked_at(images: Split | None) -> Tensor | None:
    """The images that a whitening stem looks at, normalised; None of none."""
    return None if images is None else normalised(images.whole(arange(min(len(images), LOOKED_AT))))
