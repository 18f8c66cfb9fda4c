"""Scenes to look at on a page: from a record's files, or trained for a moment; a few photos of each are enough."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from effbook.compgs import Book, CompGSSettings, Compressed
from effbook.compgs import fit as fit_compressed
from effbook.data.cache import cache_folder
from effbook.evaluate.images import psnr
from effbook.experiments.compgs import training
from effbook.experiments.compgs.loading import load_scene
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.gaussians.config import DensitySettings, Rates, TrainSettings
from effbook.gaussians.formats import read_spz
from effbook.gaussians.model import from_points
from effbook.gaussians.rasterise import render
from effbook.gaussians.scenes import Scene, read_synthetic, still_life
from effbook.gaussians.train import camera_extent, fit
from effbook.runs import profiles, records
from effbook.runs.context import Context
from effbook.runs.recipe import make

HELD_OUT = 4  # the test view that pages show
# A tenth of 3DGS's rates: a finished scene would be shaken by the first steps of a fresh optimiser.
GENTLE = Rates(**{field.name: field.default / 10 for field in dataclasses.fields(Rates)})

Codes = Mapping[tuple[str, ...], Tensor]  # [K, D] by the parameters that they stand for


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A trained scene with what it was trained on."""

    scene: Scene
    model: Compressed
    scale: str = "smoke"

    @property
    def background(self) -> Tensor:
        """[3]."""
        return torch.tensor(self.scene.background or (0.0, 0.0, 0.0))


def shown(recipe: SceneRecipe, name: str) -> Shown:
    """The scene of a recipe after training; about half a minute at `mini` if it is not in the cache."""
    scene = recipe.load(name)
    with tempfile.TemporaryDirectory() as folder:
        model, _ = training.trained(recipe, scene, Context(profile="shown", folder=Path(folder)))
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


def few_views(dataset: str, name: str, *, size_px: int = 128, train: int = 8) -> Scene:
    """A still life with one held-out view and `train` of its 64 training views, each the same as in the whole scene.

    Path-traced the first time, about a second a view of 128 pixels. What is not path-traced, or tiny, comes whole, the
    photographs of the fox at an eighth of their size.
    """
    if dataset != "still-lifes":
        shrink = 8 if dataset == "fox" else 1
        return load_scene(dataset, name, shrink=shrink, points=300, seed=0, say=lambda sentence: None)
    some = {"train": range(0, 64, 64 // train), "test": (HELD_OUT,)}
    folder = still_life(name, cache_folder() / "scenes" / dataset, size_px=size_px, only=some)
    return dataclasses.replace(read_synthetic(folder, points=2000), name=name)


def finished(profile: str) -> Shown:
    """The showcase's still life as plain 3DGS, from its record; where there is none, the toy scene, trained at once."""
    scale = "smoke" if profile == "smoke" else "mini"
    recipe = profiles.scale(make("compgs-showcase"), scale)
    if record := records.find(recipe, scale):
        model = Compressed(codebooks=(), plain=read_spz(record.artifact("3dgs.spz")).tensors())
        return Shown(scene=few_views(recipe.dataset, recipe.scene), model=model, scale=scale)
    smoke = profiles.scale(make("compgs-showcase"), "smoke")
    return shown(smoke.scaled("3dgs"), smoke.scene)


def trained(scene: Scene, settings: TrainSettings, *, scale: str = "mini") -> Shown:
    """A scene trained here and now as plain 3DGS."""
    views = [scene.cameras[i] for i in scene.train]
    settings = dataclasses.replace(settings, background=scene.background or (0.0, 0.0, 0.0))
    start = from_points(scene.points, scene.colours)
    model = fit(start, views, [scene.images[i] for i in scene.train], settings, extent=camera_extent(views))
    return Shown(scene=scene, model=Compressed(codebooks=(), plain=model.tensors()), scale=scale)


def trained_on(one: Shown, books: tuple[Book, ...], *, steps: int = 60, frozen: Codes | None = None) -> Shown:
    """A finished scene trained on for a moment while values share codes; no Gaussian comes or goes.

    `frozen` are codes to be taken as they are.
    """
    views = [one.scene.cameras[i] for i in one.scene.train]
    settings = TrainSettings(
        iterations=steps,
        sh_interval=1,
        rates=GENTLE,
        density=DensitySettings(start=0, end=0),
        background=tuple(one.background.tolist()),
    )
    quantised = CompGSSettings(books=books, start=1, interval=20, end=steps, penalty=0.0)
    images = [one.scene.images[i] for i in one.scene.train]
    model = fit_compressed(
        one.model.decode(), views, images, settings, quantised, extent=camera_extent(views), frozen=frozen
    )
    return dataclasses.replace(one, model=model)
