"""Train a scene once for all rows that need it; rows that part late share the iterations before.

Trained scenes and states of training lie in the engine's cache, where `sharing` says. A recipe is
a SceneRecipe throughout.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from effbook.compgs.container import read, write
from effbook.compgs.model import Compressed
from effbook.compgs.quantise import Quantiser, compress
from effbook.compgs.quantise import fit as fit_compressed
from effbook.experiments.compgs.sharing import address, state_addresses
from effbook.gaussians.model import from_points
from effbook.gaussians.scenes import Scene
from effbook.gaussians.train import State, camera_extent, load_state, save_state
from effbook.gaussians.train import fit as fit_plain
from effbook.runs.recipe import Context, Recipe

Codes = Mapping[tuple[str, ...], Tensor]  # [K, D] by the parameters that they stand for


def trained(recipe: Recipe, scene: Scene, context: Context) -> tuple[Compressed, float]:
    """The scene after training, on the CPU, and the seconds that took; from the cache where it was trained before."""

    def make(folder: Path) -> None:
        model, seconds = _train_anew(recipe, scene, context)
        write(model, folder / "scene.compgs")
        (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")

    folder = context.cached(*address(recipe, scene.name), make)
    return read(folder / "scene.compgs"), json.loads((folder / "seconds.json").read_text(encoding="utf-8"))


def _train_anew(recipe: Recipe, scene: Scene, context: Context) -> tuple[Compressed, float]:
    """The scene trained, and the seconds of training; clustering after training comes on top of 3DGS's own."""
    if recipe.after_training:
        plain, before = trained(recipe.plain(quantised="", after_training=False), scene, context)
        start = time.perf_counter()
        model = compress(plain.to(recipe.device(context)).decode(), recipe.compression())
        return model, before + time.perf_counter() - start
    if (source := recipe.codes_of(scene.name)) is None:
        return _train(recipe, scene, context)
    giver, _ = trained(recipe, recipe.load(source), context)
    return _train(recipe, scene, context, frozen={book.parameters: book.codes for book in giver.codebooks})


def _train(recipe: Recipe, scene: Scene, context: Context, frozen: Codes | None = None) -> tuple[Compressed, float]:
    """Train from the scene's points; uncompressed models come back as one without codebooks. Also the seconds."""
    device, settings = recipe.device(context), recipe.compression()
    views = scene.train[:: recipe.every_nth_view]
    cameras = [scene.cameras[i] for i in views]
    images = [scene.images[i].to(device) for i in views]
    start = from_points(scene.points.to(device), scene.colours.to(device))
    training = dataclasses.replace(recipe.training(), background=scene.background or (0.0, 0.0, 0.0))
    states = _States(recipe, scene.name, context)
    done = states.last.iteration // 100 * 100 if states.last else 0
    tracker = context.progress(training.iterations, scene.name, done)

    def watch(iteration: int, loss: float) -> None:
        if iteration % 100 == 0:
            tracker.advance(100, loss=loss)

    known = {"extent": camera_extent(cameras), "watch": watch, "keep": states.keep, "resume": states.last}
    if settings.books:
        model = fit_compressed(start, cameras, images, training, settings, frozen=frozen, **known)
        return model, states.seconds
    quantiser = Quantiser(settings)  # without a book, the penalty acts alone
    plain = fit_plain(start, cameras, images, training, penalty=quantiser.penalty, after=quantiser.after, **known)
    kept = {name: t for name, t in plain.tensors().items() if name != "sh_rest" or recipe.sh_degree > 0}
    return Compressed(codebooks=(), plain=kept), states.seconds


class _States:
    """States of training at the points from which rows differ: before the penalty acts, and before the first codes."""

    def __init__(self, recipe: Recipe, scene: str, context: Context) -> None:
        self.context, self.seconds = context, 0.0
        self.addresses = state_addresses(recipe, scene)
        latest_first = reversed(self.addresses.values())
        found = next((folder for address in latest_first if (folder := context.kept(*address))), None)
        self.last: State | None = load_state(found / "state.safetensors", recipe.device(context)) if found else None

    def keep(self, state: State) -> None:
        """Called after each iteration; notes the seconds of training so far."""
        self.seconds = state.seconds
        address = self.addresses.get(state.iteration)
        if address:
            self.context.cached(*address, lambda folder: save_state(state, folder / "state.safetensors"))
