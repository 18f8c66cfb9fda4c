"""Trained scenes to look at: from the cache where a run has left them, else trained here and now."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from effbook.compgs import Compressed
from effbook.data.cache import cache_folder
from effbook.evaluate.images import psnr
from effbook.experiments.compgs.datasets import load_scene
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.gaussians.rasterise import render
from effbook.gaussians.scenes import Scene
from effbook.runs.context import Context


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A trained scene with what it was trained on."""

    scene: Scene
    model: Compressed

    @property
    def background(self) -> Tensor:
        """[3]."""
        return torch.tensor(self.scene.background or (0.0, 0.0, 0.0))


def shown(recipe: SceneRecipe, name: str) -> Shown:
    """The scene of a recipe after training; about half a minute at `mini` if it is not in the cache."""
    scene = load_scene(
        recipe.dataset, name, shrink=recipe.shrink, points=recipe.points, seed=recipe.seed, cache=cache_folder(),
        say=lambda _: None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model, _ = recipe._trained(scene, Context(profile="shown", folder=Path(folder)))
    return Shown(scene=scene, model=model)


@torch.no_grad()
def view(one: Shown, index: int, *, model: Compressed | None = None, factor: float = 1.0) -> Tensor:
    """A held-out view [H, W, 3] as the model draws it; `factor` times the pixels a side."""
    camera = one.scene.cameras[one.scene.held_out[index]].scaled(factor)
    return render((model or one.model).decode(), camera, background=one.background).image.clamp(0, 1)


def photo(one: Shown, index: int) -> Tensor:
    """The image [H, W, 3] that a held-out view should give."""
    return one.scene.images[one.scene.held_out[index]]


def quality(one: Shown, model: Compressed) -> float:
    """Mean PSNR in dB of a model over the held-out views."""
    return sum(psnr(view(one, i, model=model), photo(one, i)) for i in range(len(one.scene.held_out))) / len(
        one.scene.held_out
    )
