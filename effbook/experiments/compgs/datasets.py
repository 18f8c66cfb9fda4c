"""Where the scenes of section 3.1 come from: photos that one fetches, or still lifes that are rendered here.

Each data set of photos has a manifest of its name; its files are read from the data cache as their authors lay them
out. The names of two large sets are told by their data: DL3DV's benchmark has 140 folders, and of ARKitScenes 200
videos are taken. The dissertation chose those at random and never listed them (B.8), so ours are another choice: the
ids in the authors' list of all raw videos, sorted as text, are permuted by numpy's default generator with seed 0; the
first 200 of them are taken, and sorted again.
"""

import csv
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock

from effbook.data.cache import cache_folder, is_cached
from effbook.data.fetch import fetch, remedy
from effbook.data.manifest import manifest
from effbook.errors import EffbookError
from effbook.files import placed
from effbook.gaussians.scenes import Scene, read_colmap, read_ngp, read_synthetic, reconstruct, still_life


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Scenes by name with the folder of their images; `layout` is how their files lie, or generated for our own.

    Where the data tells the names, `scenes` is empty and `count` says how many there are.
    """

    layout: Literal["colmap", "synthetic", "ngp", "dl3dv", "arkit", "generated"]
    scenes: dict[str, str] = field(default_factory=dict)
    count: int = 0
    rendering: dict[str, int] = field(default_factory=dict)  # of generated ones


_OUTDOORS, _INDOORS = "images_4", "images_2"  # 3DGS's own choice of down-scaled photos
_RENDERED = dict.fromkeys(("metals", "plastics", "cage"), "")
DATASETS = {
    "mip-nerf360": Dataset(
        layout="colmap",
        scenes=dict.fromkeys(("bicycle", "flowers", "garden", "stump", "treehill"), _OUTDOORS)
        | dict.fromkeys(("room", "counter", "kitchen", "bonsai"), _INDOORS),
    ),
    "tanks-and-temples": Dataset(layout="colmap", scenes=dict.fromkeys(("train", "truck"), "images")),
    "deep-blending": Dataset(layout="colmap", scenes=dict.fromkeys(("drjohnson", "playroom"), "images")),
    "nerf-synthetic": Dataset(
        layout="synthetic",
        scenes=dict.fromkeys(("mic", "chair", "ship", "materials", "lego", "drums", "ficus", "hotdog"), ""),
    ),
    "dl3dv-140": Dataset(layout="dl3dv", count=140),
    "arkit-200": Dataset(layout="arkit", count=200),
    "fox": Dataset(layout="ngp", scenes={"fox": "images"}),
    "still-lifes": Dataset(layout="generated", scenes=_RENDERED),
    "still-lifes-800": Dataset(layout="generated", scenes=_RENDERED, rendering={"size_px": 800}),
    "toy": Dataset(
        layout="generated",
        scenes={"metals": ""},
        rendering={"size_px": 24, "train": 9, "test": 2, "samples": 2},
    ),
}

DL3DV_IMAGES = "images_4"  # 960 x 540 pixels; the dissertation does not say which of the sizes it took
ARKIT_SEED = 0
ARKIT_LIST = Path("raw", "raw_train_val_splits.csv")  # columns video_id and fold (Training or Validation)
ARKIT_FRAMES = 300  # a uniform sample of each video (B.8)


def scene_count(dataset: str, scene: str) -> int:
    """How many scenes that is, told without data; EffbookError for a scene that the data set surely does not have."""
    described = DATASETS[dataset]
    if described.scenes:
        return len(scene_names(dataset, scene))
    return described.count if scene == "all" else 1


def scene_names(dataset: str, scene: str) -> tuple[str, ...]:
    """The scene, or with "all" every scene of the data set; EffbookError for one that it does not have.

    DL3DV's and ARKit's names come from their data: EffbookError says what to fetch where it is not there.
    """
    described = DATASETS[dataset]
    listing = {"dl3dv": _dl3dv_scenes, "arkit": _arkit_scenes}.get(described.layout)
    known = tuple(described.scenes) if listing is None else listing(_folder(dataset))
    if scene != "all" and scene not in known:
        some = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        raise EffbookError(f"{dataset} has no scene {scene!r}", f"choose all or one of {some}")
    if scene == "all" and described.count and len(known) != described.count:
        raise EffbookError(
            f"{dataset} holds {len(known)} scenes instead of {described.count}",
            f"get the others (see {manifest(dataset).homepage}) and remove {_folder(dataset)}, which is made anew",
        )
    return known if scene == "all" else (scene,)


def load_scene(dataset: str, name: str, *, shrink: int, points: int, seed: int, cache: Path, say: Callable) -> Scene:
    """Read a scene, or render it the first time. EffbookError says what to fetch and where to put it."""
    described = DATASETS[dataset]
    start = {"shrink": shrink, "points": points, "seed": seed}
    if described.layout == "generated":
        scene = read_synthetic(still_life(name, cache / "scenes" / dataset, **described.rendering), **start)
        return dataclasses.replace(scene, name=name)
    home = _folder(dataset)
    scene_names(dataset, name)
    if described.layout == "synthetic":
        scene = read_synthetic(home / name, **start)
    elif described.layout == "ngp":
        scene = read_ngp(home / "transforms.json", **start)
    elif described.layout == "colmap":
        scene = read_colmap(home / name, images=described.scenes[name], shrink=shrink)
    elif described.layout == "arkit":
        scene = read_colmap(_arkit_model(home, name, cache / "scenes" / dataset), shrink=shrink)
    elif (home / name / "gaussian_splat" / "sparse").is_dir():
        scene = read_colmap(home / name / "gaussian_splat", images=DL3DV_IMAGES, shrink=shrink)
    else:
        scene = read_ngp(home / name / "nerfstudio" / "transforms.json", images=DL3DV_IMAGES, **start)
    for sentence in scene.left_out:
        say(f"{name}: {sentence}")
    return dataclasses.replace(scene, name=name)


def _folder(dataset: str) -> Path:
    """The data set's folder in the data cache; nothing is downloaded, but a folder of this machine is linked."""
    described = manifest(dataset)
    if is_cached(dataset) or all(source.kind == "local" for source in described.sources):
        return fetch(dataset)
    raise EffbookError(f"{dataset} has not been fetched, or its copy in {cache_folder()} is damaged", remedy(described))


def _dl3dv_scenes(home: Path) -> tuple[str, ...]:
    """Folders that hold a scene, by name: undistorted with its COLMAP model, or as nerfstudio has it."""
    wanted = "gaussian_splat/sparse", "nerfstudio/transforms.json"
    return tuple(sorted(f.name for f in home.iterdir() if any((f / inside).exists() for inside in wanted)))


def _arkit_videos(home: Path) -> dict[str, str]:
    """All videos of the authors' list with their folds."""
    try:
        with (home / ARKIT_LIST).open(encoding="utf-8", newline="") as stream:
            return {row["video_id"].strip(): row["fold"].strip() for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise EffbookError(
            f"{home / ARKIT_LIST} is no list of videos with video_id and fold ({error})", "fetch it again"
        ) from None


def _arkit_scenes(home: Path) -> tuple[str, ...]:
    """The 200 videos that stand for the dissertation's (see above)."""
    videos = sorted(_arkit_videos(home))
    order = np.random.default_rng(ARKIT_SEED).permutation(len(videos))
    return tuple(sorted(videos[i] for i in order[: DATASETS["arkit-200"].count]))


def _arkit_model(home: Path, name: str, kept: Path) -> Path:
    """The folder of a video's COLMAP model; where there are frames only, 300 of them are reconstructed once (B.8)."""
    video = home / "raw" / _arkit_videos(home)[name] / name
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
