"""Read a scene as its authors lay it out, or render or reconstruct it the first time."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from effbook.data.cache import cache_folder
from effbook.data.manifest import manifest
from effbook.errors import EffbookError
from effbook.experiments.compgs.datasets import DATASETS, arkit_videos, folder_of, scene_names
from effbook.files import placed
from effbook.gaussians.scenes import Scene, read_colmap, read_ngp, read_synthetic, reconstruct, still_life

DL3DV_IMAGES = "images_4"  # 960 x 540 pixels; the dissertation does not say which of the sizes it took
ARKIT_FRAMES = 300  # a uniform sample of each video (B.8)


def load_scene(dataset: str, name: str, *, shrink: int, points: int, seed: int, say: Callable[[str], None]) -> Scene:
    """Read a scene, or render it the first time. EffbookError says what to fetch and where to put it."""
    described, made = DATASETS[dataset], cache_folder() / "scenes" / dataset
    start = {"shrink": shrink, "points": points, "seed": seed}
    if described.generated:
        scene = read_synthetic(still_life(name, made, **described.rendering), **start)
        return dataclasses.replace(scene, name=name)
    home = folder_of(dataset)
    scene_names(dataset, name)
    if described.layout == "synthetic":
        scene = read_synthetic(home / name, **start)
    elif described.layout == "ngp":
        scene = read_ngp(home / "transforms.json", **start)
    elif described.layout == "colmap":
        scene = read_colmap(home / name, images=described.scenes[name], shrink=shrink)
    elif described.layout == "arkit":
        scene = read_colmap(_arkit_model(home, name, made), shrink=shrink)
    elif (home / name / "gaussian_splat" / "sparse").is_dir():
        scene = read_colmap(home / name / "gaussian_splat", images=DL3DV_IMAGES, shrink=shrink)
    else:
        scene = read_ngp(home / name / "nerfstudio" / "transforms.json", images=DL3DV_IMAGES, **start)
    for sentence in scene.left_out:
        say(f"{name}: {sentence}")
    return dataclasses.replace(scene, name=name)


def _arkit_model(home: Path, name: str, kept: Path) -> Path:
    """The folder of a video's COLMAP model; where there are frames only, 300 of them are reconstructed once (B.8)."""
    video = home / "raw" / arkit_videos(home)[name] / name
    if (video / "sparse").is_dir():
        return video
    out = kept / name
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / f"{name}.lock"):
        if out.is_dir():
            return out
        frames = sorted(f for f in (video / "frames").glob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if not frames:
            raise EffbookError(
                f"the video {name} is not here",
                f"put its frames into {video / 'frames'} (see {manifest('arkit-200').homepage})",
            )
        with placed(out, alone=True) as beside:
            (beside / "photos").mkdir(parents=True)
            for i in np.linspace(0, len(frames) - 1, min(len(frames), ARKIT_FRAMES)).round().astype(int):
                shutil.copyfile(frames[i], beside / "photos" / frames[i].name)
            reconstruct(beside / "photos", beside)
            for leftover in ("photos", "work"):
                shutil.rmtree(beside / leftover, ignore_errors=True)
    return out
