"""Where the scenes of section 3.1 come from: photos that one fetches, or still lifes that are rendered here.

A data set of photos lies under the cache as scenes/<data set>/<scene>, as its authors publish it: COLMAP's folders
(images_4 and images_2 are the down-scaled photos of Mip-NeRF360) or NeRF-Synthetic's files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from effbook.errors import EffbookError
from effbook.gaussians.scenes import Scene, read_colmap, read_synthetic, still_life


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Scenes by name with the folder of their images; `layout` is colmap or synthetic, or generated for our own."""

    scenes: dict[str, str]
    layout: str
    source: str  # what a reader has to fetch
    rendering: dict[str, int] = field(default_factory=dict)  # of generated ones


_OUTDOORS, _INDOORS = "images_4", "images_2"  # 3DGS's own choice of down-scaled photos
DATASETS = {
    "mip-nerf360": Dataset(
        scenes=dict.fromkeys(("bicycle", "flowers", "garden", "stump", "treehill"), _OUTDOORS)
        | dict.fromkeys(("room", "counter", "kitchen", "bonsai"), _INDOORS),
        layout="colmap",
        source="the nine scenes of Mip-NeRF360 (its authors' 360_v2.zip and 360_extra_scenes.zip)",
    ),
    "tanks-and-temples": Dataset(
        scenes=dict.fromkeys(("train", "truck"), "images"),
        layout="colmap",
        source="the scenes Train and Truck as 3DGS's authors publish them (tandt_db.zip)",
    ),
    "deep-blending": Dataset(
        scenes=dict.fromkeys(("drjohnson", "playroom"), "images"),
        layout="colmap",
        source="the scenes DrJohnson and Playroom as 3DGS's authors publish them (tandt_db.zip)",
    ),
    "nerf-synthetic": Dataset(
        scenes=dict.fromkeys(("mic", "chair", "ship", "materials", "lego", "drums", "ficus", "hotdog"), ""),
        layout="synthetic",
        source="the eight scenes of NeRF-Synthetic (nerf_synthetic.zip)",
    ),
    "still-lifes": Dataset(
        scenes=dict.fromkeys(("metals", "plastics", "cage"), ""), layout="generated", source="nothing: rendered here"
    ),
    "toy": Dataset(
        scenes={"metals": ""},
        layout="generated",
        source="nothing: rendered here",
        rendering={"size_px": 24, "train": 9, "test": 2, "samples": 2},
    ),
}


def scene_names(dataset: str, scene: str) -> tuple[str, ...]:
    """The scene, or with "all" every scene of the data set; EffbookError for one that it does not have."""
    known = DATASETS[dataset].scenes
    if scene != "all" and scene not in known:
        raise EffbookError(f"{dataset} has no scene {scene!r}", f"choose all or one of {', '.join(known)}")
    return tuple(known) if scene == "all" else (scene,)


def load_scene(dataset: str, name: str, *, shrink: int, points: int, seed: int, cache: Path, say: Callable) -> Scene:
    """Read a scene, or render it the first time. EffbookError says what to fetch and where to put it."""
    described = DATASETS[dataset]
    if described.layout == "generated":
        folder = still_life(name, cache / "scenes" / dataset, **described.rendering)
        return read_synthetic(folder, shrink=shrink, points=points, seed=seed)
    folder = cache / "scenes" / dataset / name
    if not folder.is_dir():
        raise EffbookError(f"the scene {name} is not here", f"fetch {described.source} and put it into {folder}")
    if described.layout == "synthetic":
        scene = read_synthetic(folder, shrink=shrink, points=points, seed=seed)
    else:
        scene = read_colmap(folder, images=described.scenes[name], shrink=shrink)
    for sentence in scene.left_out:
        say(f"{name}: {sentence}")
    return scene
