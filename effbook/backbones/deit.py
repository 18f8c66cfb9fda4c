"""DeiT-Ti, -S and -B, and the A-ViTs made of the first two, from their makers' files, as timm's ViTs with classifier.

A-ViT's gate is the first channel of a token, so that its weights bear the names of a plain DeiT's.
"""

from pathlib import Path

import torch
from torch import nn

from effbook.backbones.teachers import read_state
from effbook.backbones.vision import only_file, resize_grid, seeded
from effbook.errors import EffbookError

SHAPES = {  # name of the manifest: timm's name of the architecture
    "deit-ti": "deit_tiny_patch16_224",
    "deit-s": "deit_small_patch16_224",
    "deit-b": "deit_base_patch16_224",
    "avit-ti": "deit_tiny_patch16_224",
    "avit-s": "deit_small_patch16_224",
}
_INSIDE = ("model", "state_dict")  # where a training run's file keeps the weights


def deit(name: str, *, image_px: int = 224) -> nn.Module:
    """Weights of `SHAPES` from the cache: images [B, 3, px, px] to 1,000 logits, in evaluation mode.

    Raises EffbookError for another name, and where the weights cannot be had or are another network's.
    """
    from effbook import data

    if name not in SHAPES:
        raise EffbookError(f"there are no DeiT weights named {name!r}", f"choose among {', '.join(SHAPES)}")
    return deit_from_file(only_file(data.fetch(name), "*.pth*"), architecture=SHAPES[name], image_px=image_px)


def deit_from_file(path: Path, *, architecture: str, image_px: int = 224) -> nn.Module:
    """A file of `torch.save` with a DeiT's tensors, by themselves or as "model" or "state_dict"; positions resized.

    Raises EffbookError where a tensor is missing, is too many, or has another shape.
    """
    import timm

    state = read_state(path)
    for inside in _INSIDE:
        state = state.get(inside, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EffbookError(f"{path} holds no tensors by name", "give the file as its makers publish it")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    with seeded(0):  # every value is overwritten
        model = timm.create_model(architecture, pretrained=False, num_classes=1000, img_size=image_px)
    if "pos_embed" in state:
        first, grid = state["pos_embed"].split([1, state["pos_embed"].shape[1] - 1], dim=1)
        state["pos_embed"] = torch.cat([first, resize_grid(grid, model.patch_embed.grid_size[0])], dim=1)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise EffbookError(f"{path} is no {architecture} ({reason})", "put the right weights there") from error
    return model.eval()
