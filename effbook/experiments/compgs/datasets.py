"""Where the scenes of section 3.1 come from: photos that one fetches, or still lifes that are rendered here.

Each data set of photos has a manifest of its name; its files are read from the data cache as their authors lay them
out. The names of two large sets are told by their data: DL3DV's benchmark has 140 folders, and of ARKitScenes 200
videos are taken. The dissertation chose those at random and never listed them (B.8), so ours are another choice: the
ids in the authors' list of all raw videos, sorted as text, are permuted by numpy's default generator with seed 0; the
first 200 of them are taken, and sorted again.

`loading` reads them; nothing here needs torch.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from effbook.errors import EffbookError


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Scenes by name with the folder of their images; `layout` is how their files lie, or generated for our own.

    Where the data tells the names, `scenes` is empty and `count` says how many there are. From a `small`
    scale on (an area down-scaling) its images are for the CPU; None for never.
    """

    layout: Literal["colmap", "synthetic", "ngp", "dl3dv", "arkit", "generated"]
    scenes: dict[str, str] = field(default_factory=dict)
    count: int = 0
    small: int | None = None
    rendering: dict[str, int] = field(default_factory=dict)  # of generated ones

    @property
    def generated(self) -> bool:
        """Whether we render it ourselves: nothing to fetch."""
        return self.layout == "generated"


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
    "fox": Dataset(layout="ngp", scenes={"fox": "images"}, small=8),
    "still-lifes": Dataset(layout="generated", scenes=_RENDERED, small=1),
    "still-lifes-800": Dataset(layout="generated", scenes=_RENDERED, rendering={"size_px": 800}),
    "toy": Dataset(
        layout="generated",
        scenes={"metals": ""},
        small=1,
        rendering={"size_px": 24, "train": 9, "test": 2, "samples": 2},
    ),
}

ARKIT_SEED = 0
ARKIT_LIST = Path("raw", "raw_train_val_splits.csv")  # columns video_id and fold (Training or Validation)


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
    known = tuple(described.scenes) if listing is None else listing(folder_of(dataset))
    if scene != "all" and scene not in known:
        some = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        raise EffbookError(f"{dataset} has no scene {scene!r}", f"choose all or one of {some}")
    if scene == "all" and described.count and len(known) != described.count:
        from effbook.data.manifest import manifest

        raise EffbookError(
            f"{dataset} holds {len(known)} scenes instead of {described.count}",
            f"get the others (see {manifest(dataset).homepage}) and remove {folder_of(dataset)}, which is made anew",
        )
    return known if scene == "all" else (scene,)


def folder_of(dataset: str) -> Path:
    """The data set's folder in the data cache; nothing is downloaded, but a folder of this machine is linked."""
    from effbook.data.cache import cache_folder, is_cached
    from effbook.data.fetch import fetch, remedy
    from effbook.data.manifest import manifest

    described = manifest(dataset)
    if is_cached(dataset) or all(source.kind == "local" for source in described.sources):
        return fetch(dataset)
    raise EffbookError(f"{dataset} has not been fetched, or its copy in {cache_folder()} is damaged", remedy(described))


def _dl3dv_scenes(home: Path) -> tuple[str, ...]:
    """Folders that hold a scene, by name: undistorted with its COLMAP model, or as nerfstudio has it."""
    wanted = "gaussian_splat/sparse", "nerfstudio/transforms.json"
    return tuple(sorted(f.name for f in home.iterdir() if any((f / inside).exists() for inside in wanted)))


def arkit_videos(home: Path) -> dict[str, str]:
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
    import numpy as np

    videos = sorted(arkit_videos(home))
    order = np.random.default_rng(ARKIT_SEED).permutation(len(videos))
    return tuple(sorted(videos[i] for i in order[: DATASETS["arkit-200"].count]))
