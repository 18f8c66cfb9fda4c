"""Scenes with a transforms.json: NeRF-Synthetic's three files with a split, and instant-ngp's single one."""

import math
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.scenes.scene import (
    Scene,
    check_views,
    every_eighth,
    few,
    fitted,
    random_points,
    read_image,
    shrink_area,
)

WHITE = (1.0, 1.0, 1.0)
SYNTHETIC_BOX = 1.3  # 3DGS starts NeRF-Synthetic scenes from points in a cube of this half side
PICTURES = (".png", ".jpg", ".jpeg")
ENDINGS = ("", *PICTURES)
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "OPENCV", "FULL_OPENCV", "RADIAL", "SIMPLE_RADIAL")

Length = Annotated[float, Field(gt=0)]
Angle = Annotated[float, Field(gt=1e-6, lt=math.pi)]  # radians
Row = tuple[float, float, float, float]


class _Lens(BaseModel):
    """What a file may say of its lens, in pixels of images of w x h; a field is left out (0 here) or holds a number."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    w: Length = 0.0
    h: Length = 0.0
    fl_x: Length = 0.0
    fl_y: Length = 0.0
    cx: float = 0.0
    cy: float = 0.0
    camera_angle_x: Angle = 0.0
    camera_angle_y: Angle = 0.0
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    camera_model: str | None = None
    is_fisheye: bool | None = None


LENS = set(_Lens.model_fields)


class _Frame(_Lens):
    file_path: str
    transform_matrix: tuple[Row, Row, Row, Row]


class _File(_Lens):
    frames: tuple[_Frame, ...]
    ply_file_path: str | None = None


def read_synthetic(folder: Path, *, shrink: int = 1, points: int = 100_000, seed: int = 0) -> Scene:
    """A scene in NeRF-Synthetic's layout: transforms_train.json and transforms_test.json, images on white.

    Starts from random points, as 3DGS does there. Raises EffbookError for a missing or broken file.
    """
    parts = [_frames(folder / f"transforms_{split}.json", folder, WHITE, shrink) for split in ("train", "test")]
    cameras = [camera for part in parts for camera in part[0]]
    check_views(folder.name, cameras, [name for part in parts for name in part[4]])
    box = torch.full((3,), SYNTHETIC_BOX)
    start, colours = random_points(points, low=-box, high=box, seed=seed)
    first_test = len(parts[0][0])
    return Scene(
        name=folder.name,
        cameras=tuple(cameras),
        images=tuple(image for part in parts for image in part[1]),
        held_out=tuple(range(first_test, len(cameras))),
        points=start,
        colours=colours,
        background=WHITE,
        left_out=tuple(sentence for part in parts for sentence in part[2]),
    )


def read_ngp(path: Path, *, images: str = "", shrink: int = 1, points: int = 10_000, seed: int = 0) -> Scene:
    """A scene with instant-ngp's (or nerfstudio's) transforms.json; every 8th view, sorted by name, is held out.

    Starts from random points in the box that the cameras look into: around the place nearest to all their axes, as wide
    as the cameras' mean distance to it. Lens distortion is ignored, images without a frame are left out, and both said.
    With `images` the photos are those of that folder beside the file, whatever their size (nerfstudio keeps smaller
    ones in images_4). Raises EffbookError for a missing or broken file, naming the field.
    """
    cameras, pictures, left_out, used, failed = _frames(path, path.parent, None, shrink, images)
    check_views(path.parent.name, cameras, failed)
    order = sorted(range(len(cameras)), key=lambda i: cameras[i].name)
    cameras, pictures = [cameras[i] for i in order], [pictures[i] for i in order]
    beside = {p for folder in {p.parent for p in used} for p in folder.iterdir() if p.suffix.lower() in PICTURES}
    if spare := sorted(p.name for p in beside - used):
        left_out.append(f"{len(spare)} images have no camera and are left out: {few(spare)}")
    places = torch.stack([camera.position for camera in cameras])
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])
    across = torch.eye(3) - axes[:, :, None] * axes[:, None, :]  # takes away what lies along the axis
    middle = torch.linalg.lstsq(across.sum(0), (across @ places[:, :, None]).sum(0)).solution.squeeze(1)
    reach = (places - middle).norm(dim=-1).mean()
    start, colours = random_points(points, low=middle - reach, high=middle + reach, seed=seed)
    return Scene(
        name=path.parent.name,
        cameras=tuple(cameras),
        images=tuple(pictures),
        held_out=every_eighth(len(cameras)),
        points=start,
        colours=colours,
        left_out=tuple(left_out),
    )


def _frames(path: Path, folder: Path, background, shrink: int, beside: str = ""):
    """Cameras, images, sentences on what was left out, files used and names of views that failed, of one file.

    `beside` replaces the images' folder.
    """
    told = _read(path)
    cameras, images, missing, unfit, used = [], [], [], [], set()
    listing = _Listing()
    for frame in told.frames:
        name = frame.file_path.replace("\\", "/")
        name = f"{beside}/{Path(name).name}" if beside else name
        found = listing.find(folder / name)
        if found is None:
            missing.append(Path(name).name)
            continue
        used.add(found)
        given = told.model_dump(include=LENS, exclude_unset=True) | frame.model_dump(include=LENS, exclude_unset=True)
        size = (given["w"], given["h"]) if "w" in given and "h" in given else None
        photo, why = fitted(found, read_image(found, background=background), size)
        if why:
            unfit.append(f"{Path(name).name} ({why})")
            continue
        images.append(shrink_area(photo, shrink))
        cameras.append(_camera(path, given, frame, photo, Path(name).name).shrunk(shrink))
    left_out = []
    if missing:
        left_out.append(f"{len(missing)} of {len(told.frames)} cameras have no image and are left out: {few(missing)}")
    if unfit:
        left_out.append(f"{len(unfit)} images do not fit their camera and are left out: {few(unfit)}")
    if any(getattr(part, key) for part in (told, *told.frames) for key in ("k1", "k2", "k3", "p1", "p2")):
        left_out.append("the lens distortion that the file gives is ignored")
    if told.ply_file_path:
        left_out.append(f"the points of {told.ply_file_path} are not used: training starts from random ones")
    return cameras, images, left_out, used, missing + unfit


class _Listing:
    """Finds images whose ending a file leaves out, writes in other letters, or gives where the image has none."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, wanted: Path) -> Path | None:
        for end in ENDINGS:
            if (exact := wanted.with_name(wanted.name + end)).is_file():
                return exact
        there = self._in(wanted.parent)
        stem = wanted.stem if wanted.suffix.lower() in PICTURES else wanted.name
        for name in dict.fromkeys([*(wanted.name + end for end in ENDINGS), *(stem + end for end in ENDINGS)]):
            if len(same := there.get(name.lower(), [])) == 1:
                return same[0]
        return None

    def _in(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._folders:
            found: dict[str, list[Path]] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.is_file():
                    found.setdefault(path.name.lower(), []).append(path)
            self._folders[folder] = found
        return self._folders[folder]


def _read(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), strict=True)
    except FileNotFoundError:
        raise EffbookError(f"{path} is not there", "name the folder that holds it") from None
    except OSError as error:
        raise EffbookError(f"{path} cannot be read ({error.strerror})", "name a readable file") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise EffbookError(f"{path}: {field} is wrong ({first['msg'].lower()})", "export it again") from None


def _camera(path: Path, given: dict, frame: _Frame, photo: Tensor, name: str) -> Camera:
    """The camera of a photo [H, W, 3] with the lens that is given for it."""
    kind = given.get("camera_model") or "PINHOLE"
    if kind.upper() not in PINHOLES or given.get("is_fisheye"):
        kind = "fisheye" if kind.upper() in PINHOLES else kind
        raise EffbookError(f"{path}: {name} was taken by a camera of the model {kind}", "undistort the images first")
    pose = torch.tensor(frame.transform_matrix)
    if not torch.isfinite(pose).all():
        raise EffbookError(f"{path}: the pose of {name} is too large", "export it again")
    height, width = photo.shape[:2]
    # A file gives its lens in pixels of images of w x h; those at hand may be smaller copies.
    across, down = width / given.get("w", width), height / given.get("h", height)
    if "fl_x" in given or "fl_y" in given:
        focal_x = given.get("fl_x", given.get("fl_y")) * across
        focal_y = given.get("fl_y", given.get("fl_x")) * down
    elif "camera_angle_x" in given:
        focal_x = 0.5 * width / math.tan(0.5 * given["camera_angle_x"])
        focal_y = 0.5 * height / math.tan(0.5 * given["camera_angle_y"]) if "camera_angle_y" in given else focal_x
    elif "camera_angle_y" in given:
        focal_x = focal_y = 0.5 * height / math.tan(0.5 * given["camera_angle_y"])
    else:
        raise EffbookError(
            f"{path} gives no focal length (fl_x, fl_y, camera_angle_x or camera_angle_y)", "export it again"
        )
    to_world = pose @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # OpenGL looks along -z with y up
    turn = torch.linalg.svd(to_world[:3, :3])
    rotation = turn.U @ turn.Vh  # of a rotation that was rounded, or carries a scale
    world_to_camera = torch.eye(4)
    world_to_camera[:3, :3] = rotation.T
    world_to_camera[:3, 3] = -rotation.T @ to_world[:3, 3]
    return Camera(
        world_to_camera=world_to_camera,
        width=width,
        height=height,
        focal_x=focal_x,
        focal_y=focal_y,
        centre_x=given["cx"] * across if "cx" in given else width / 2,
        centre_y=given["cy"] * down if "cy" in given else height / 2,
        name=name,
    )
