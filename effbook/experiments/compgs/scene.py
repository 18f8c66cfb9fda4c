"""Train scenes as 3DGS or CompGS, store them, and measure pictures of held-out views (Tables 3.1 to 3.3, 3.7 to 3.9).

One run trains every scene of a data set; its metrics are means over the scenes. What differs in storage only (BitQ,
Int-16...) shares the trained scene, which is kept in the cache under the fields that training depends on.
"""

import dataclasses
import hashlib
import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from effbook.errors import EffbookError
from effbook.experiments.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from effbook.compgs import CompGSSettings, Compressed
    from effbook.gaussians.scenes import Scene
    from effbook.gaussians.train import TrainSettings

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

    dataset: Literal["mip-nerf360", "tanks-and-temples", "deep-blending", "nerf-synthetic", "still-lifes", "toy"]
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
        from effbook.experiments.compgs.datasets import scene_names

        scene_names(self.dataset, self.scene)
        for field in ("shrink", "every_nth_view", "points", "iterations"):
            if getattr(self, field) < 1:
                raise EffbookError(f"{field} is {getattr(self, field)}", "give at least 1")
        if self.after_training and not self.quantised:
            raise EffbookError("nothing is quantised after training", "name parameters in quantised")
        if strange := [word for word in self.quantised.replace("+", " ").split() if word not in PARAMETERS]:
            raise EffbookError(f"{strange[0]!r} cannot be quantised", f"choose of {', '.join(PARAMETERS)}")
        self.training()
        self.compression()

    def cost(self) -> Cost:
        from effbook.experiments.compgs.datasets import scene_names

        scenes = len(scene_names(self.dataset, self.scene))
        if self.dataset in ("still-lifes", "toy"):
            return Cost(seconds=scenes * (5 + 0.012 * self.iterations))
        return Cost(seconds=scenes * 0.06 * self.iterations, gpu_bytes=20 * 2**30, disk_bytes=scenes * 2**30)

    def needs(self) -> tuple[str, ...]:
        return () if self.dataset in ("still-lifes", "toy") else ("cuda",)

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
        metrics["lpips"] = None
        return Result(
            metrics=metrics,
            series={f"{key} by scene": values for key, values in found.items()},
            notes={
                "lpips": "its weights are in no package",
                "train_minutes": "of training alone, by the wall clock; scenes stored in several ways are trained once",
                "fps": "held-out views drawn one after another from the decoded model",
            },
        )

    def _trained(self, scene: "Scene", context: Context) -> "tuple[Compressed, float]":
        """The scene after training and the seconds that took; from the cache if it was trained before."""
        from effbook.compgs.container import read, write
        from effbook.compgs.quantise import compress
        from effbook.data.cache import cache_folder

        kept = cache_folder() / "compgs-trained" / self._training_key(scene.name)
        if (kept / "told.json").is_file():
            return read(kept / "scene.compgs"), json.loads((kept / "told.json").read_text())["seconds"]
        start = time.perf_counter()
        if self.after_training:
            plain = dataclasses.replace(self, quantised="", after_training=False, storage="packed")
            model, before = plain._trained(scene, context)
            model = compress(model.decode(), self.compression())
            seconds = before + time.perf_counter() - start
        else:
            model = self._train(scene, context)
            seconds = time.perf_counter() - start
        kept.mkdir(parents=True, exist_ok=True)
        write(model, kept / "scene.compgs")
        (kept / "told.json").write_text(json.dumps({"seconds": seconds, "scene": scene.name, "fields": self.fields}))
        return read(kept / "scene.compgs"), seconds

    def _training_key(self, scene: str) -> str:
        from effbook.experiments.fingerprint import fingerprint

        fields = {name: value for name, value in self.fields.items() if name != "storage"}
        parts = json.dumps([scene, fields, fingerprint(self.modules())], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:24]

    def _train(self, scene: "Scene", context: Context) -> "Compressed":
        """Train from the scene's points; uncompressed models come back as one without codebooks."""
        from effbook.compgs.model import Compressed
        from effbook.compgs.quantise import Quantiser
        from effbook.compgs.quantise import fit as fit_compressed
        from effbook.gaussians.model import from_points
        from effbook.gaussians.train import camera_extent
        from effbook.gaussians.train import fit as fit_plain

        views = scene.train[:: self.every_nth_view]
        cameras = [scene.cameras[i] for i in views]
        images = [scene.images[i].to(context.device) for i in views]
        start = from_points(scene.points.to(context.device), scene.colours.to(context.device))
        training = dataclasses.replace(self.training(), background=scene.background or (0.0, 0.0, 0.0))
        settings, extent = self.compression(), camera_extent(cameras)
        tracker = context.progress(training.iterations, scene.name)

        def watch(iteration: int, loss: float) -> None:
            if iteration % 100 == 0:
                tracker.advance(100, loss=loss)

        if self.quantised:
            return fit_compressed(start, cameras, images, training, settings, extent=extent, watch=watch)
        quantiser = Quantiser(settings)
        model = fit_plain(
            start,
            cameras,
            images,
            training,
            extent=extent,
            penalty=quantiser.penalty,
            after=quantiser.after,
            watch=watch,
        )
        kept = {name: t for name, t in model.tensors().items() if name != "sh_rest" or self.sh_degree > 0}
        return Compressed(codebooks=(), plain=kept)

    def _measure(self, stored: "Compressed", scene: "Scene", device: str) -> tuple[dict[str, float], list[float]]:
        """PSNR, SSIM and speed on the held-out views, and their mean squared errors."""
        import torch

        from effbook.evaluate.images import psnr, ssim
        from effbook.gaussians.rasterise import render

        model = stored.decode().map(lambda t: t.to(device))
        background = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
        psnrs, ssims, squares, seconds = [], [], [], []
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
        measured = {"psnr": statistics.fmean(psnrs), "ssim": statistics.fmean(ssims)}
        return measured | {"fps": 1 / statistics.median(seconds)}, squares


def storage_of(name: str):  # -> effbook.compgs.Storage
    """How the dissertation's rows are stored."""
    from effbook.compgs import BIT_QUANTISED, PACKED, int_x

    ways = {"packed": PACKED, "bitq": BIT_QUANTISED, "int16": int_x(16), "int8": int_x(8)}
    return (ways | {"int8-no-pos": int_x(8, positions=False), "int4-no-pos": int_x(4, positions=False)})[name]


def trained_folder(recipe: SceneRecipe, scene: str) -> Path:
    """Where a run leaves the trained scene: for notebooks that show it."""
    from effbook.data.cache import cache_folder

    return cache_folder() / "compgs-trained" / recipe._training_key(scene)
