"""Still lifes that we path-trace ourselves, in NeRF-Synthetic's layout: posed photos for a machine without any.

Three tables with things on them. They are made to need what 3D Gaussians have: glossy and rough metals and plastics,
whose colour changes with the view (spherical harmonics), textures (many small Gaussians), thin bars (long ones).
Rendered by Mitsuba's scalar path tracer: slow, but the same picture on every machine.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from effbook.errors import EffbookError
from effbook.files import placed

FIELD_OF_VIEW = 0.6911112070083618  # NeRF-Synthetic's camera_angle_x, radians
DISTANCE = 4.031128874  # and its cameras' distance from the middle
VERSION = 1  # of the scenes' definition: a new one is rendered anew


def still_life(
    name: str,
    folder: Path,
    *,
    size_px: int = 128,
    train: int = 64,
    test: int = 16,
    samples: int = 64,
    only: Mapping[str, Iterable[int]] | None = None,
) -> Path:
    """Render the scene into folder/name-... unless it is there; return the folder, which `read_synthetic` reads.

    `samples` is the number of paths a pixel. Training views are spread over the upper half sphere; test views lie on a
    spiral between them. With `only`, as in {"train": (0, 32), "test": (4,)}, these views alone are rendered, each the
    same as in the whole. Raises EffbookError for an unknown name or sizes below 1.
    """
    if name not in STILL_LIFES:
        raise EffbookError(f"there is no still life {name!r}", f"choose one of {', '.join(STILL_LIFES)}")
    if min(size_px, train, test, samples) < 1:
        raise EffbookError("size, views and samples must be at least 1", "correct them")
    views = {"train": range(train), "test": range(test)}
    some = {split: sorted(set(only.get(split, ())) & set(views[split])) for split in views} if only else views
    told = "".join(f"-{split}{'.'.join(map(str, picked))}" for split, picked in some.items()) if only else ""
    out = folder / f"{name}-{size_px}px-{train}+{test}-{samples}-v{VERSION}{told}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{out.name}.lock"):
        if not (out / "transforms_test.json").is_file():
            counts = {"train": train, "test": test}
            with placed(out, alone=True) as beside:
                _render(STILL_LIFES[name], beside, size_px=size_px, views=counts, only=some, samples=samples)
    return out


def viewpoints(split: str, n: int) -> np.ndarray:
    """Places of the cameras [n, 3] around the origin: an even spiral over the upper half sphere, another to test."""
    steps = np.arange(n) + (0.5 if split == "train" else 0.25)
    height = 0.12 + 0.80 * steps / n
    angle = steps * math.pi * (3 - math.sqrt(5)) + (0.0 if split == "train" else 1.1)
    around = np.sqrt(1 - height**2)
    return DISTANCE * np.stack([around * np.cos(angle), around * np.sin(angle), height], axis=1)


def _render(
    scene: Callable[[], dict[str, Any]],
    out: Path,
    *,
    size_px: int,
    views: dict[str, int],
    only: Mapping[str, Iterable[int]],
    samples: int,
) -> None:
    import mitsuba as mi
    from PIL import Image

    mi.set_variant("scalar_rgb")  # the llvm variants abort the process where LLVM does not suit
    loaded = mi.load_dict(scene())
    for split, n in views.items():
        (out / split).mkdir(parents=True)
        frames = []
        places = viewpoints(split, n)
        for i in only[split]:
            place = places[i]
            look = mi.ScalarTransform4f().look_at(origin=place.tolist(), target=[0, 0, 0], up=[0, 0, 1])
            sensor = {
                "type": "perspective",
                "fov": math.degrees(FIELD_OF_VIEW),
                "to_world": look,
                "film": {
                    "type": "hdrfilm",
                    "width": size_px,
                    "height": size_px,
                    "pixel_format": "rgba",
                    "rfilter": {"type": "box"},
                },
                "sampler": {"type": "independent", "sample_count": samples},
            }
            light = np.array(mi.render(loaded, sensor=mi.load_dict(sensor), seed=2 * i + (split == "test")))
            Image.fromarray(_to_bytes(light)).save(out / split / f"r_{i:03d}.png")
            pose = np.array(look.matrix) @ np.diag([-1.0, 1.0, -1.0, 1.0])  # Mitsuba: x left, y up, z forward
            frames.append({"file_path": f"./{split}/r_{i:03d}", "transform_matrix": pose.tolist()})
        told = {"camera_angle_x": FIELD_OF_VIEW, "frames": frames}
        (out / f"transforms_{split}.json").write_text(json.dumps(told, indent=1))


def _to_bytes(light: np.ndarray) -> np.ndarray:
    """Linear light with its alpha, premultiplied, as sRGB bytes with straight alpha."""
    alpha = np.clip(light[..., 3:], 0, 1)
    colour = np.clip(light[..., :3] / np.maximum(alpha, 1e-6), 0, 1)
    colour = np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * colour ** (1 / 2.4) - 0.055)
    return np.round(255 * np.concatenate([colour, alpha], axis=-1)).astype(np.uint8)


# --- the scenes ----------------------------------------------------------------------------------------------------


def _at(x: float, y: float, z: float, *, size: Any = 1.0, turn: float = 0.0, tilt: float = 0.0) -> Any:
    import mitsuba as mi

    move = mi.ScalarTransform4f().translate([x, y, z]).rotate([0, 0, 1], turn).rotate([1, 0, 0], tilt)
    return move.scale(size)


def _rgb(*value: float) -> dict[str, Any]:
    return {"type": "rgb", "value": list(value)}


def _checks(first: tuple, second: tuple, times: float) -> dict[str, Any]:
    import mitsuba as mi

    squares = mi.ScalarTransform4f().scale([times, times, 1])
    return {"type": "checkerboard", "color0": _rgb(*first), "color1": _rgb(*second), "to_uv": squares}


def _world(**things: dict[str, Any]) -> dict[str, Any]:
    """A sky that lights everything and is not seen, a lamp, and the things."""
    sky = {"type": "constant", "radiance": _rgb(0.55, 0.6, 0.7)}
    lamp = {
        "type": "sphere",
        "center": [2.6, -2.2, 4.5],
        "radius": 0.7,
        "emitter": {"type": "area", "radiance": _rgb(17, 15.5, 13)},
    }
    path = {"type": "path", "max_depth": 6, "hide_emitters": True}
    return {"type": "scene", "integrator": path, "sky": sky, "lamp": lamp, **things}


def _table(bsdf: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "cylinder",
        "p0": [0, 0, -0.8],
        "p1": [0, 0, -0.7],
        "radius": 1.25,
        "bsdf": {"type": "twosided", "b": bsdf},
    }


def _top(bsdf: dict[str, Any]) -> dict[str, Any]:
    return {"type": "disk", "to_world": _at(0, 0, -0.7, size=1.25), "bsdf": {"type": "twosided", "b": bsdf}}


def _metals() -> dict[str, Any]:
    """Metals from polished to rough on a chequered table."""
    board = {"type": "diffuse", "reflectance": _checks((0.75, 0.7, 0.6), (0.3, 0.14, 0.1), 8)}
    return _world(
        table=_table({"type": "diffuse", "reflectance": _rgb(0.3, 0.2, 0.12)}),
        top=_top(board),
        gold={
            "type": "sphere",
            "center": [-0.45, 0.3, -0.25],
            "radius": 0.45,
            "bsdf": {"type": "roughconductor", "material": "Au", "alpha": 0.12},
        },
        copper={
            "type": "cube",
            "to_world": _at(0.55, 0.4, -0.38, size=0.32, turn=28),
            "bsdf": {"type": "roughconductor", "material": "Cu", "alpha": 0.3},
        },
        steel={
            "type": "cylinder",
            "p0": [0.35, -0.55, -0.7],
            "p1": [0.35, -0.55, 0.15],
            "radius": 0.2,
            "bsdf": {"type": "twosided", "b": {"type": "roughconductor", "material": "Cr", "alpha": 0.06}},
        },
        cap={
            "type": "disk",
            "to_world": _at(0.35, -0.55, 0.15, size=0.2),
            "bsdf": {"type": "twosided", "b": {"type": "roughconductor", "material": "Cr", "alpha": 0.06}},
        },
    )


def _plastics() -> dict[str, Any]:
    """Glossy and matt plastics in strong colours, one with a fine texture."""
    wood = {"type": "diffuse", "reflectance": _checks((0.52, 0.36, 0.2), (0.44, 0.29, 0.15), 14)}
    red = {"type": "roughplastic", "diffuse_reflectance": _rgb(0.65, 0.05, 0.05), "alpha": 0.05}
    blue = {"type": "roughplastic", "diffuse_reflectance": _rgb(0.05, 0.15, 0.6), "alpha": 0.25}
    spots = {
        "type": "roughplastic",
        "diffuse_reflectance": _checks((0.9, 0.85, 0.2), (0.05, 0.35, 0.15), 12),
        "alpha": 0.1,
    }
    return _world(
        table=_table({"type": "diffuse", "reflectance": _rgb(0.25, 0.16, 0.09)}),
        top=_top(wood),
        ball={"type": "sphere", "center": [0.5, 0.15, -0.3], "radius": 0.4, "bsdf": red},
        brick={"type": "cube", "to_world": _at(-0.45, 0.45, -0.45, size=[0.45, 0.25, 0.25], turn=-20), "bsdf": blue},
        globe={"type": "sphere", "center": [-0.3, -0.5, -0.4], "radius": 0.3, "bsdf": spots},
        peg={
            "type": "sphere",
            "center": [0.45, -0.65, -0.57],
            "radius": 0.13,
            "bsdf": {"type": "diffuse", "reflectance": _rgb(0.8, 0.8, 0.8)},
        },
    )


def _cage() -> dict[str, Any]:
    """Thin bars around a shining ball: long and narrow Gaussians, and much to be seen through."""
    things: dict[str, Any] = {}
    bar = {"type": "twosided", "b": {"type": "roughconductor", "material": "Cr", "alpha": 0.2}}
    ring = {
        "type": "twosided",
        "b": {"type": "roughplastic", "diffuse_reflectance": _rgb(0.1, 0.3, 0.12), "alpha": 0.15},
    }
    n, radius = 12, 0.8
    corners = [(radius * math.cos(2 * math.pi * i / n), radius * math.sin(2 * math.pi * i / n)) for i in range(n)]
    for i, (x, y) in enumerate(corners):
        x_next, y_next = corners[(i + 1) % n]
        things[f"bar{i}"] = {"type": "cylinder", "p0": [x, y, -0.7], "p1": [x, y, 0.45], "radius": 0.022, "bsdf": bar}
        for level, z in enumerate((-0.2, 0.45)):
            things[f"ring{level}-{i}"] = {
                "type": "cylinder", "p0": [x, y, z], "p1": [x_next, y_next, z], "radius": 0.03, "bsdf": ring,
            }  # fmt: skip
    tiles = {"type": "diffuse", "reflectance": _checks((0.6, 0.62, 0.66), (0.2, 0.24, 0.33), 10)}
    ball = {"type": "roughconductor", "material": "Au", "alpha": 0.08}
    return _world(
        table=_table({"type": "diffuse", "reflectance": _rgb(0.2, 0.2, 0.24)}),
        top=_top(tiles),
        ball={"type": "sphere", "center": [0.0, 0.0, -0.25], "radius": 0.42, "bsdf": ball},
        **things,
    )


STILL_LIFES: dict[str, Callable[[], dict[str, Any]]] = {"metals": _metals, "plastics": _plastics, "cage": _cage}
