"""Store a trained scene, and measure what held-out views of the stored one look like."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from effbook.compgs.config import Storage
from effbook.compgs.container import read, write
from effbook.compgs.model import Compressed
from effbook.data.cache import cache_folder
from effbook.evaluate.images import psnr, ssim
from effbook.evaluate.lpips import Lpips, load_lpips
from effbook.experiments.compgs.datasets import scene_names
from effbook.experiments.compgs.training import trained
from effbook.gaussians.rasterise import render
from effbook.gaussians.scenes import Scene
from effbook.runs.recipe import Context, Recipe, Result

NOTES = {
    "train_minutes": "of training alone, by the wall clock; scenes stored in several ways are trained once",
    "fps": "held-out views drawn one after another from the decoded model",
}
NO_LPIPS = {"lpips": "measured on the dissertation's own scenes only: it needs weights of VGG16, which no package has"}


def measured(recipe: Recipe, context: Context, look: Callable[[Compressed], None] = lambda model: None) -> Result:
    """A SceneRecipe's scenes trained, stored and measured; `look` is called with each trained model, on the CPU."""
    found: dict[str, list[float]] = {}
    errors: list[float] = []
    for name in scene_names(recipe.dataset, recipe.scene):
        scene = recipe.load(name, context.display.say)
        model, seconds = trained(recipe, scene, context)
        look(model)
        stored, sizes = store(model, context.folder, name, recipe.storing())
        scores, squares = measure(
            stored, scene, sh_degree=recipe.sh_degree, device=recipe.device(context), lpips=recipe.measures_lpips
        )
        errors += squares
        for key, value in (scores | sizes | {"train_minutes": seconds / 60}).items():
            found.setdefault(key, []).append(value)
    metrics: dict[str, float | int | None] = {key: statistics.fmean(values) for key, values in found.items()}
    metrics["psnr_am"] = -10 * math.log10(statistics.fmean(errors))
    metrics.setdefault("lpips", None)
    return Result(
        metrics=metrics,
        series={f"{key} by scene": values for key, values in found.items()},
        notes=NOTES | ({} if recipe.measures_lpips else NO_LPIPS),
    )


def store(model: Compressed, folder: Path, name: str, storage: Storage) -> tuple[Compressed, dict[str, int]]:
    """Write a scene in three ways: the scene read back, and how many bytes and Gaussians it has.

    `bytes` as `storage` says, `entropy_bytes` with entropy coding on top, `packed_bytes` with nothing rounded.
    """
    ways = {"": storage, "-small": dataclasses.replace(storage, entropy=True), "-packed": Storage()}
    sizes = [write(model, folder / f"{name}{way}.compgs", how) for way, how in ways.items()]
    counted = dict(zip(("bytes", "entropy_bytes", "packed_bytes"), sizes, strict=True))
    return read(folder / f"{name}.compgs"), counted | {"gaussians": len(model)}


def measure(
    stored: Compressed, scene: Scene, *, sh_degree: int, device: str, lpips: bool
) -> tuple[dict[str, float], list[float]]:
    """Means of PSNR and SSIM over the held-out views, with `lpips` also of LPIPS, and frames a second.

    Besides, the mean squared error of each view.
    """
    model = stored.decode().map(lambda t: t.to(device))
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0), device=device)
    distance = perceptual(device) if lpips else None
    psnrs, ssims, squares, seconds, distances = [], [], [], [], []
    with torch.no_grad():
        for i in scene.held_out:
            start = time.perf_counter()
            image = render(model, scene.cameras[i], background=background, sh_degree=sh_degree).image
            if model.means.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            image, wanted = image.clamp(0, 1), scene.images[i].to(device)
            psnrs.append(psnr(image, wanted))
            ssims.append(float(ssim(image, wanted)))
            squares.append(float((image - wanted).double().square().mean()))
            distances += [distance(image, wanted)] if distance else []
    found = {"psnr": statistics.fmean(psnrs), "ssim": statistics.fmean(ssims)}
    found |= {"lpips": statistics.fmean(distances)} if distances else {}
    return found | {"fps": 1 / statistics.median(seconds)}, squares


def perceptual(device: str) -> Lpips:
    """LPIPS as 3DGS's evaluation has it, and so the dissertation's tables; nothing is downloaded for it."""
    vgg, linear = cache_folder() / "vgg16" / "vgg16-397923af.pth", cache_folder() / "lpips" / "vgg.pth"
    return load_lpips(vgg=vgg, linear=linear, device=device, signed=False)
