"""The dissertation's teachers (A.2.2.1): five published ResNet-50s, each from its makers' own file, as one module.

All take the same images, normalised by ImageNet's `IMAGE_MEAN` and `IMAGE_STD`, and give the pooled features [B, d].
They differ in the file's format, in the padding of strided layers, and in the normalisation that they were trained on:

teacher        file                   padding under a stride of 2           trained on (pixel - mean) / std of
moco-v2-r50    PyTorch                both sides alike                      ImageNet
swav-r50       PyTorch                both sides alike                      ImageNet, but red's std is 0.228
resnet50       PyTorch                both sides alike                      ImageNet
byol-r50       pickle of haiku        SAME: what is odd goes to the end     ImageNet
simclr-r50x4   TensorFlow             alike, but SAME for the max-pooling   pixels in 0..1 as they are

Epsilon of batch norm is 1e-5 in all of them. Files of strangers are read without running anything.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.backbones.foreign import read_haiku, read_tensorflow
from effbook.backbones.vision import IMAGE_MEAN, IMAGE_STD, only_file
from effbook.errors import EffbookError

_NORM = ("weight", "bias", "running_mean", "running_var")  # of a batch norm, by PyTorch's names


@dataclass(frozen=True)
class Shape:
    """A bottleneck ResNet: channels of its first convolution (d is 32 times that) and blocks of its four stages."""

    channels: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)


RESNET50, RESNET50X4 = Shape(), Shape(channels=256)


def teacher(name: str, path: Path | None = None) -> nn.Module:
    """A frozen official teacher in evaluation mode: images [B, 3, H, W] to features [B, d], d as `num_features`.

    `name` is that of its manifest: moco-v2-r50, byol-r50, swav-r50, resnet50 (d = 2048) or simclr-r50x4 (d = 8192).
    `path` is the makers' file (of SimCLR's, the .index); without it the manifest's files are fetched. Images are
    normalised by `IMAGE_MEAN` and `IMAGE_STD`, for all teachers. Raises EffbookError for an unknown name, and where
    the file cannot be had, is damaged, or is not this teacher's. Source: A.2.2.1.
    """
    if name not in _TEACHERS:
        raise EffbookError(f"there is no teacher named {name!r}", f"choose one of {', '.join(_TEACHERS)}")
    pattern, read, convert = _TEACHERS[name]
    if path is None:
        from effbook import data  # here, so that a file of one's own needs no data cache

        path = only_file(data.fetch(name), pattern)
    if not path.is_file():
        raise EffbookError(f"{path} is no file", f"give {name}'s, or fetch it with `effbook data fetch {name}`")
    return convert(read(path))


class Teacher(nn.Module):
    """A frozen trunk behind the step from ImageNet's normalisation to its own: [B, 3, H, W] to [B, d]."""

    def __init__(self, trunk: nn.Module, dim: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        ours, theirs = (torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)), (torch.tensor(mean), torch.tensor(std))
        self.register_buffer("scale", (ours[1] / theirs[1])[:, None, None])  # [3, 1, 1]
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1])[:, None, None])
        self.trunk, self.num_features = trunk, dim
        self.pretrained_cfg = {"mean": IMAGE_MEAN, "std": IMAGE_STD}  # what its callers are to normalise by
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x * self.scale + self.shift)


# ------------------------------------------------------------------------------------- one function a maker's format


def from_moco(content: Mapping, shape: Shape = RESNET50) -> Teacher:
    """MoCo's checkpoint, {"state_dict": ...}: the query encoder without its MLP."""
    return _from_state(_take(content, "state_dict", "MoCo"), "module.encoder_q.", shape, "MoCo")


def from_swav(content: Mapping, shape: Shape = RESNET50) -> Teacher:
    """SwAV's state dict without projection and prototypes. It pads by 1 and then by 2, which is the usual 3."""
    return _from_state(content, "module.", shape, "SwAV", std=(0.228, 0.224, 0.225))


def from_supervised(content: Mapping, shape: Shape = RESNET50) -> Teacher:
    """torchvision's state dict without its classifier."""
    return _from_state(content, "", shape, "torchvision")


def from_byol(content: Mapping, shape: Shape = RESNET50) -> Teacher:
    """BYOL's checkpoint as `read_haiku` gives it: the online network, without projector and predictor.

    Source: google-deepmind/deepmind-research, byol; its linear evaluation takes the online network, too.
    """
    content = _take(content, "experiment_state", "BYOL")
    weights, averages = (_take(content, part, "BYOL") for part in ("online_params", "online_state"))
    tensors = {}
    for place in _places(shape):
        conv, norm = (f"res_net50/~/{place.haiku.format(kind)}" for kind in ("conv", "batchnorm"))
        tensors[f"{place.conv}.weight"] = _convolution(_take(_take(weights, conv, "BYOL"), "w", f"BYOL ({conv})"))
        statistics = [_take(averages, f"{norm}/~/{moment}_ema", "BYOL") for moment in ("mean", "var")]
        found = [_take(_take(weights, norm, "BYOL"), part, f"BYOL ({norm})") for part in ("scale", "offset")]
        found += [_take(each, "average", f"BYOL ({norm})") for each in statistics]  # without the start's bias
        tensors |= {f"{place.norm}.{ours}": _floats(a).flatten() for ours, a in zip(_NORM, found, strict=True)}
    return _teacher(tensors, shape, "BYOL", same=True)


def from_simclr(content: Mapping, shape: Shape = RESNET50X4) -> Teacher:
    """SimCLR's checkpoint by TensorFlow's names. Layers are numbered as they were made: the shortcut's come first.

    Source: google-research/simclr, resnet.py, without selective kernels.
    """
    tensors = {}
    for number, place in enumerate(_places(shape)):
        suffix = f"_{number}" if number else ""
        tensors[f"{place.conv}.weight"] = _convolution(_take(content, f"base_model/conv2d{suffix}/kernel", "SimCLR"))
        for ours, theirs in zip(_NORM, ("gamma", "beta", "moving_mean", "moving_variance"), strict=True):
            array = _take(content, f"base_model/batch_normalization{suffix}/{theirs}", "SimCLR")
            tensors[f"{place.norm}.{ours}"] = _floats(array)
    # Its fixed padding of convolutions is PyTorch's; only the pooling is padded by TensorFlow.
    return _teacher(tensors, shape, "SimCLR", same_pool=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


# ------------------------------------------------------------------------------------------------ names and tensors


class _Place(NamedTuple):
    """A convolution and its batch norm by torchvision's names, and both by haiku's, with the kind left open."""

    conv: str
    norm: str
    haiku: str


def _places(shape: Shape) -> Iterator[_Place]:
    """Every convolution, a block's shortcut before the block's own three."""
    yield _Place("conv1", "bn1", "initial_{}")
    for stage, count in enumerate(shape.blocks):
        for block in range(count):
            ours, haiku = f"layer{stage + 1}.{block}", f"block_group_{stage}/~/block_{block}/~"
            if not block:
                yield _Place(f"{ours}.downsample.0", f"{ours}.downsample.1", f"{haiku}/shortcut_{{}}")
            for n in range(3):
                yield _Place(f"{ours}.conv{n + 1}", f"{ours}.bn{n + 1}", f"{haiku}/{{}}_{n}")


def _take(content: Any, key: str, of: str) -> Any:
    if not isinstance(content, Mapping) or key not in content:
        raise EffbookError(f"this is not the whole file of {of}, as it lacks {key!r}", "give the makers' own file")
    return content[key]


def _floats(array: Any) -> Tensor:
    if isinstance(array, np.ndarray) and array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    if isinstance(array, Tensor) and array.is_floating_point():
        return array.float()
    raise EffbookError("the file holds something else where weights should be", "give the makers' own file")


def _convolution(array: Any) -> Tensor:
    """[height, width, in, out] of haiku and TensorFlow as PyTorch's [out, in, height, width]."""
    weight = _floats(array)
    return weight.permute(3, 2, 0, 1).contiguous() if weight.dim() == 4 else weight  # else its shape is refused below


def _from_state(content: Any, prefix: str, shape: Shape, of: str, **normalisation: tuple[float, ...]) -> Teacher:
    names = [f"{p.conv}.weight" for p in _places(shape)]
    names += [f"{p.norm}.{part}" for p in _places(shape) for part in _NORM]
    tensors = {name: _floats(_take(content, prefix + name, of)) for name in names}
    surplus = {n.removeprefix(prefix) for n in content if n.startswith(f"{prefix}layer") and n.endswith("conv1.weight")}
    if deeper := min(surplus - tensors.keys(), default=None):
        raise EffbookError(f"{of}'s file has {deeper!r}, one block too many", "give the file of this network's depth")
    return _teacher(tensors, shape, of, **normalisation)


def _teacher(
    tensors: dict[str, Tensor],
    shape: Shape,
    of: str,
    *,
    same: bool = False,
    same_pool: bool = False,
    mean: tuple[float, ...] = IMAGE_MEAN,
    std: tuple[float, ...] = IMAGE_STD,
) -> Teacher:
    trunk = trunk_of(shape, same=same, same_pool=same_pool)
    for name, wanted in trunk.state_dict().items():
        found = tensors.setdefault(name, torch.tensor(0)) if name.endswith("num_batches_tracked") else tensors[name]
        if found.shape != wanted.shape:
            raise EffbookError(
                f"{of}'s {name} has the shape {tuple(found.shape)} where {tuple(wanted.shape)} is expected",
                "give the file of this network's width and depth",
            )
    trunk.load_state_dict(tensors, assign=True)
    return Teacher(trunk, trunk.inplanes, mean=mean, std=std)


# ------------------------------------------------------------------------------------------------------ the network


def trunk_of(shape: Shape, *, same: bool = False, same_pool: bool = False) -> nn.Module:
    """torchvision's ResNet without classifier, on the meta device: its values come from the file.

    torchvision's own wide networks widen the middle of a block only; SimCLR's widen every channel.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    with torch.device("meta"):
        model = ResNet(Bottleneck, list(shape.blocks))
        model.inplanes = shape.channels
        model.conv1 = nn.Conv2d(3, shape.channels, 7, 2, 3, bias=False)
        model.bn1 = nn.BatchNorm2d(shape.channels)
        for stage, count in enumerate(shape.blocks):
            width = shape.channels * 2**stage
            blocks = model._make_layer(Bottleneck, width, count, stride=2 if stage else 1)
            if same and stage:
                blocks[0].conv2 = _SameConv(width, width, 3, 2, bias=False)
            setattr(model, f"layer{stage + 1}", blocks)
        if same:
            model.conv1 = _SameConv(3, shape.channels, 7, 2, bias=False)
    if same or same_pool:
        model.maxpool = _SamePool()
    model.num_features, model.fc = model.inplanes, nn.Identity()
    return model


def _same(x: Tensor, kernel: int) -> Tensor:
    """Zeros around [B, C, H, W] for a stride of 2 so that ceil(H / 2) rows come out; what is odd goes to the end."""
    padding = [max(kernel - 2 + size % 2, 0) for size in (x.shape[3], x.shape[2])]
    return F.pad(x, [side for p in padding for side in (p // 2, p - p // 2)])


class _SameConv(nn.Conv2d):
    """A convolution of stride 2 under haiku's SAME."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_same(x, self.kernel_size[0]))


class _SamePool(nn.Module):
    """Max-pooling of 3 under a stride of 2 and SAME. It follows a ReLU, so zeros never win over a value."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(_same(x, 3), 3, 2)


# ------------------------------------------------------------------------------------------------------------ files


def read_state(path: Path) -> Any:
    """A file of `torch.save`: tensors, numbers, strings and containers only. Raises EffbookError for anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever it stumbles over
        raise EffbookError(f"{path} is no file of PyTorch weights", "fetch it again, or give another") from error


_TEACHERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Any], Teacher]]] = {
    "moco-v2-r50": ("*.pth.tar", read_state, from_moco),
    "byol-r50": ("*.pkl", read_haiku, from_byol),
    "swav-r50": ("*.pth.tar", read_state, from_swav),
    "simclr-r50x4": ("*.index", read_tensorflow, from_simclr),
    "resnet50": ("*.pth", read_state, from_supervised),
}
