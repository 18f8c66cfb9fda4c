"""Train scenes as 3DGS or CompGS, store them, and measure pictures of held-out views (Tables 3.1 to 3.3, 3.7 to 3.9).

One run trains every scene of a data set; its metrics are means over the scenes. What differs in storage only (BitQ,
Int-16...) shares the trained scene, which is kept in the cache under the fields that training depends on.
"""

import dataclasses
import hashlib
import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from filelock import FileLock

from effbook.errors import EffbookError
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    import torch

    from effbook.compgs import CompGSSettings, Compressed
    from effbook.gaussians.scenes import Scene
    from effbook.gaussians.train import State, TrainSettings

    Codes = dict[tuple[str, ...], "torch.Tensor"]  # by the parameters that they stand for

RENDERED = ("still-lifes", "still-lifes-800", "toy")  # by ourselves: nothing to fetch
CHECKPOINT_BYTES = 100 * 2**20  # larger states are not kept
ON_CPU = ("still-lifes", "toy", "fox")
PARAMETERS = {"dc": "sh_dc", "sh": "sh_rest", "scale": "scales", "rotation": "rotations", "position": "means"}


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SceneRecipe(Recipe):
    """3DGS where nothing is quantised and nothing penalised; the defaults are the dissertation's.

    `quantised` names what gets a codebook, while training or (`after_training`) when it has ended: words of PARAMETERS
    with spaces between codebooks and a plus between those that share one ("sh+dc scale rotation").
    """

    system: ClassVar[str] = "compgs"
    name: ClassVar[str] = "compgs-scene"

    dataset: Literal[
        "mip-nerf360", "tanks-and-temples", "deep-blending", "nerf-synthetic", "dl3dv-140", "arkit-200", "fox",
        "still-lifes", "still-lifes-800", "toy",
    ]  # fmt: skip
    scene: str = "all"
    shrink: int = 1  # area down-scaling of the images
    every_nth_view: int = 1  # of the training views
    points: int = 100_000  # to start from, where a scene brings none
    most_gaussians: int | None = None
    # 3DGS
    iterations: int = 30_000
    sh_degree: int = 3
    sh_interval: int = 1_000
    densify_start: int = 500
    densify_end: int = 15_000
    densify_interval: int = 100
    reset_interval: int = 3_000
    gradient_threshold: float = 2e-4
    least_opacity: float = 0.005
    # CompGS
    quantised: str = ""
    codes_colour: int = 4096
    codes_covariance: int = 16_384
    kmeans_start: int = 20_000
    kmeans_end: int = 25_000
    kmeans_interval: int = 100
    kmeans_iterations: int = 1
    after_training: bool = False
    penalty: float = 0.0
    penalty_start: int = 15_000
    penalty_end: int = 20_000
    prune_interval: int = 1_000
    # how the trained scene is stored
    storage: Literal["packed", "bitq", "int16", "int8", "int8-no-pos", "int4-no-pos"] = "packed"

    def validate(self) -> None:
        from effbook.experiments.compgs.datasets import scene_count

        scene_count(self.dataset, self.scene)
        for field in ("shrink", "every_nth_view", "points", "iterations"):
            if getattr(self, field) < 1:
                raise EffbookError(f"{field} is {getattr(self, field)}", "give at least 1")
        if self.after_training and not self.quantised:
            raise EffbookError("nothing is quantised after training", "name parameters in quantised")
        if strange := [word for word in self.quantised.replace("+", " ").split() if word not in PARAMETERS]:
            raise EffbookError(f"{strange[0]!r} cannot be quantised", f"choose of {', '.join(PARAMETERS)}")
        self.training()
        self.compression()

    def datasets(self) -> tuple[str, ...]:
        return () if self.dataset in RENDERED else (self.dataset,)

    def cost(self) -> Cost:
        from effbook.experiments.compgs.datasets import scene_count

        scenes = scene_count(self.dataset, self.scene)
        if self.dataset in ON_CPU:
            return Cost(seconds=scenes * (3 + 0.008 * self.iterations))
        gpu, disk = (4, 0.1) if self.dataset in RENDERED else (20, 1)
        return Cost(
            seconds=scenes * 0.06 * self.iterations, gpu_bytes=gpu * 2**30, disk_bytes=int(scenes * disk * 2**30)
        )

    def needs(self) -> tuple[str, ...]:
        return () if self.dataset in ON_CPU else ("cuda",)

    def training(self) -> "TrainSettings":
        """The settings of 3DGS."""
        from effbook.gaussians.densify import DensitySettings
        from effbook.gaussians.train import TrainSettings

        density = DensitySettings(
            start=self.densify_start,
            end=self.densify_end,
            interval=self.densify_interval,
            reset_interval=self.reset_interval,
            gradient_threshold=self.gradient_threshold,
            least_opacity=self.least_opacity,
            most=self.most_gaussians,
        )
        return TrainSettings(
            iterations=self.iterations,
            sh_degree=self.sh_degree,
            sh_interval=self.sh_interval,
            density=density,
            seed=self.seed,
        )

    def compression(self) -> "CompGSSettings":
        """The settings of CompGS."""
        from effbook.compgs.quantise import Book, CompGSSettings

        books = []
        for words in self.quantised.split():
            names = tuple(PARAMETERS[word] for word in words.split("+"))
            colour = any(name.startswith("sh_") for name in names)
            books.append(Book(names, self.codes_colour if colour else self.codes_covariance))
        return CompGSSettings(
            books=tuple(books),
            start=self.kmeans_start,
            end=self.kmeans_end,
            interval=self.kmeans_interval,
            kmeans_iterations=self.kmeans_iterations,
            penalty=self.penalty,
            penalty_start=self.penalty_start,
            penalty_end=self.penalty_end,
            prune_interval=self.prune_interval,
            least_opacity=self.least_opacity,
            seed=self.seed,
        )

    def run(self, context: Context) -> Result:
        from effbook.compgs import Storage, read, write
        from effbook.data.cache import cache_folder
        from effbook.experiments.compgs.datasets import load_scene, scene_names

        found: dict[str, list[float]] = {}
        errors: list[float] = []
        names = scene_names(self.dataset, self.scene)
        storage = storage_of(self.storage)
        for name in names:
            scene = load_scene(
                self.dataset, name, shrink=self.shrink, points=self.points, seed=self.seed, cache=cache_folder(),
                say=context.display.say,
            )  # fmt: skip
            model, seconds = self._trained(scene, context)
            path = context.folder / f"{name}.compgs"
            size = write(model, path, storage)
            entropy = dataclasses.replace(storage, entropy=True)
            small = write(model, context.folder / f"{name}-small.compgs", entropy)
            whole = write(model, context.folder / f"{name}-packed.compgs", Storage())
            stored = read(path)
            measured, squares = self._measure(stored, scene, context.device)
            errors += squares
            measured |= {
                "bytes": size,
                "entropy_bytes": small,
                "packed_bytes": whole,
                "gaussians": len(model),
                "train_minutes": seconds / 60,
            }
            for key, value in measured.items():
                found.setdefault(key, []).append(value)
        metrics: dict[str, float | int | None] = {key: statistics.fmean(values) for key, values in found.items()}
        metrics["psnr_am"] = -10 * math.log10(statistics.fmean(errors))
        metrics.setdefault("lpips", None)
        return Result(
            metrics=metrics,
            series={f"{key} by scene": values for key, values in found.items()},
            notes={
                "lpips": "it needs the weights of VGG16, which are in no package: effbook data fetch vgg16 lpips",
                "train_minutes": "of training alone, by the wall clock; scenes stored in several ways are trained once",
                "fps": "held-out views drawn one after another from the decoded model",
            },
        )

    def _trained(self, scene: "Scene", context: Context) -> "tuple[Compressed, float]":
        """The scene after training and the seconds that took; from the cache if it was trained before."""
        from effbook.compgs.container import read, write

        kept = trained_folder(self, scene.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{kept}.lock"):
            if not kept.is_dir():
                model, seconds = self._train_anew(scene, context)
                with tempfile.TemporaryDirectory(dir=kept.parent) as beside:
                    whole = Path(beside) / "whole"
                    whole.mkdir()
                    write(model, whole / "scene.compgs")
                    told = {"seconds": seconds, "scene": scene.name, "fields": self.fields}
                    (whole / "told.json").write_text(json.dumps(told))
                    whole.rename(kept)
        return read(kept / "scene.compgs"), json.loads((kept / "told.json").read_text())["seconds"]

    def _train_anew(self, scene: "Scene", context: Context) -> "tuple[Compressed, float]":
        """The scene trained, and the seconds of training; clustering after training comes on top of 3DGS's own."""
        from effbook.compgs.quantise import compress

        if not self.after_training:
            return self._train(scene, context)
        plain, before = dataclasses.replace(self, quantised="", after_training=False)._trained(scene, context)
        start = time.perf_counter()
        model = compress(plain.decode(), self.compression())
        return model, before + time.perf_counter() - start

    def _training_key(self, scene: str, upto: int | None = None) -> str:
        """What the scene after training, or after `upto` iterations, depends on: fields that act, data and code.

        Recipes that look at the same training in another way have the same.
        """
        from effbook.runs.code import fingerprint

        idle = {"storage", "scene"}
        if not self.quantised or upto is not None:
            idle |= {name for name in self.fields if name.startswith(("codes_", "kmeans_"))}
            idle |= {"quantised", "after_training"}
        if not self.penalty or (upto is not None and upto <= self.penalty_start):
            idle |= {"penalty", "penalty_start", "penalty_end", "prune_interval"}
        own = {field.name for field in dataclasses.fields(SceneRecipe)} - idle
        fields = {name: value for name, value in self.fields.items() if name in own}
        parts = json.dumps([scene, upto, fields, self.digests, fingerprint((SceneRecipe.__module__,))], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:24]

    def _checkpoints(self, scene: str) -> dict[int, Path]:
        """Iterations after which the training's state is kept: rows that differ later share what comes before."""
        points = {point for point in (self.penalty_start, self.kmeans_start - 1) if 0 < point < self.kmeans_start}
        return {point: _cache() / f"{self._training_key(scene, point)}.safetensors" for point in sorted(points)}

    def _train(self, scene: "Scene", context: Context, frozen: "Codes | None" = None) -> "tuple[Compressed, float]":
        """Train from the scene's points; uncompressed models come back as one without codebooks. Also the seconds."""
        from effbook.compgs.model import Compressed
        from effbook.compgs.quantise import Quantiser
        from effbook.compgs.quantise import fit as fit_compressed
        from effbook.gaussians.model import from_points
        from effbook.gaussians.train import camera_extent, load_state, save_state
        from effbook.gaussians.train import fit as fit_plain

        views = scene.train[:: self.every_nth_view]
        cameras = [scene.cameras[i] for i in views]
        images = [scene.images[i].to(context.device) for i in views]
        start = from_points(scene.points.to(context.device), scene.colours.to(context.device))
        training = dataclasses.replace(self.training(), background=scene.background or (0.0, 0.0, 0.0))
        settings, tracker = self.compression(), context.progress(training.iterations, scene.name)
        checkpoints, seconds = self._checkpoints(scene.name), 0.0
        there = [place for point, place in checkpoints.items() if place.is_file() and point < self.iterations]

        def watch(iteration: int, loss: float) -> None:
            if iteration % 100 == 0:
                tracker.advance(100, loss=loss)

        def keep(state: "State") -> None:
            nonlocal seconds
            seconds = state.seconds
            place = checkpoints.get(state.iteration)
            if place and not place.is_file() and 3 * 236 * len(state.gaussians) <= CHECKPOINT_BYTES:
                with tempfile.TemporaryDirectory(dir=place.parent) as beside:
                    save_state(state, Path(beside) / place.name)
                    (Path(beside) / place.name).replace(place)

        known = {"extent": camera_extent(cameras), "watch": watch, "keep": keep}
        known["resume"] = load_state(there[-1], context.device) if there else None
        if known["resume"]:
            tracker.advance(known["resume"].iteration // 100 * 100)
        if self.quantised:
            return fit_compressed(start, cameras, images, training, settings, frozen=frozen, **known), seconds
        quantiser = Quantiser(settings)
        hooks = {"penalty": quantiser.penalty, "after": quantiser.after}
        model = fit_plain(start, cameras, images, training, **hooks, **known)
        kept = {name: t for name, t in model.tensors().items() if name != "sh_rest" or self.sh_degree > 0}
        return Compressed(codebooks=(), plain=kept), seconds

    def _measure(self, stored: "Compressed", scene: "Scene", device: str) -> tuple[dict[str, float], list[float]]:
        """PSNR, SSIM, LPIPS (as 3DGS's evaluation has it) and speed on held-out views; their mean squared errors."""
        import torch

        from effbook.evaluate.images import psnr, ssim
        from effbook.experiments.compgs.perceptual import perceptual
        from effbook.gaussians.rasterise import render

        model = stored.decode().map(lambda t: t.to(device))
        background = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
        psnrs, ssims, squares, seconds, distances = [], [], [], [], []
        lpips = perceptual(device, signed=False)
        with torch.no_grad():
            for i in scene.held_out:
                start = time.perf_counter()
                image = render(model, scene.cameras[i], background=background, sh_degree=self.sh_degree).image
                if model.means.is_cuda:
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
                image, wanted = image.clamp(0, 1), scene.images[i].to(device)
                psnrs.append(psnr(image, wanted))
                ssims.append(float(ssim(image, wanted)))
                squares.append(float((image - wanted).double().square().mean()))
                distances += [lpips(image, wanted)] if lpips else []
        measured = {"psnr": statistics.fmean(psnrs), "ssim": statistics.fmean(ssims)}
        measured |= {"lpips": statistics.fmean(distances)} if distances else {}
        return measured | {"fps": 1 / statistics.median(seconds)}, squares


def storage_of(name: str):  # -> effbook.compgs.Storage
    """How the dissertation's rows are stored."""
    from effbook.compgs import BIT_QUANTISED, PACKED, int_x

    ways = {"packed": PACKED, "bitq": BIT_QUANTISED, "int16": int_x(16), "int8": int_x(8)}
    return (ways | {"int8-no-pos": int_x(8, positions=False), "int4-no-pos": int_x(4, positions=False)})[name]


def _cache() -> Path:
    """Where trained scenes and states of training are kept."""
    from effbook.data.cache import cache_folder

    return cache_folder() / "compgs-trained"


def trained_folder(recipe: SceneRecipe, scene: str) -> Path:
    """Where a run leaves the trained scene: for notebooks that show it."""
    return _cache() / recipe._training_key(scene)
