"""Scenes with a transforms.json: NeRF-Synthetic's three files with a split, and instant-ngp's single one."""

import math
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.scenes.scene import Scene, check_views, every_eighth, few, random_points, read_image, shrink_area

WHITE = (1.0, 1.0, 1.0)
SYNTHETIC_BOX = 1.3  # 3DGS starts NeRF-Synthetic scenes from points in a cube of this half side
PICTURES = (".png", ".jpg", ".jpeg")
ENDINGS = ("", *PICTURES)

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


LENS = set(_Lens.model_fields)


class _Frame(_Lens):
    file_path: str
    transform_matrix: tuple[Row, Row, Row, Row]


class _File(_Lens):
    frames: tuple[_Frame, ...]


def read_synthetic(folder: Path, *, shrink: int = 1, points: int = 100_000, seed: int = 0) -> Scene:
    """A scene in NeRF-Synthetic's layout: transforms_train.json and transforms_test.json, images on white.

    Starts from random points, as 3DGS does there. Raises EffbookError for a missing or broken file.
    """
    parts = [_frames(folder / f"transforms_{split}.json", folder, WHITE, shrink) for split in ("train", "test")]
    cameras = [camera for part in parts for camera in part[0]]
    check_views(folder.name, cameras)
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
    cameras, pictures, left_out, used = _frames(path, path.parent, None, shrink, images)
    check_views(path.parent.name, cameras)
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
    """Cameras, images and sentences on what was left out, of one file; `beside` replaces the images' folder."""
    told = _read(path)
    cameras, images, missing, used = [], [], [], set()
    for frame in told.frames:
        name = f"{beside}/{Path(frame.file_path).name}" if beside else frame.file_path
        found = next((folder / f"{name}{end}" for end in ENDINGS if (folder / f"{name}{end}").is_file()), None)
        if found is None:
            missing.append(Path(name).name)
            continue
        used.add(found)
        photo = read_image(found, background=background)
        images.append(shrink_area(photo, shrink))
        cameras.append(_camera(path, told, frame, photo, Path(name).name).shrunk(shrink))
    left_out = []
    if missing:
        left_out.append(f"{len(missing)} of {len(told.frames)} cameras have no image and are left out: {few(missing)}")
    if any(getattr(part, key) for part in (told, *told.frames) for key in ("k1", "k2", "k3", "p1", "p2")):
        left_out.append("the lens distortion that the file gives is ignored")
    return cameras, images, left_out, used


def _read(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise EffbookError(f"{path} is not there", "name the folder that holds it") from None
    except OSError as error:
        raise EffbookError(f"{path} cannot be read ({error.strerror})", "name a readable file") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise EffbookError(f"{path}: {field} is wrong ({first['msg'].lower()})", "export it again") from None


def _camera(path: Path, told: _File, frame: _Frame, photo: Tensor, name: str) -> Camera:
    """The camera of a photo [H, W, 3] as its file has it."""
    pose = torch.tensor(frame.transform_matrix)
    if not torch.isfinite(pose).all():
        raise EffbookError(f"{path}: the pose of {name} is too large", "export it again")
    given = told.model_dump(include=LENS, exclude_unset=True) | frame.model_dump(include=LENS, exclude_unset=True)
    height, width = photo.shape[:2]
    # A file gives its lens in pixels of images of w x h; those at hand may be smaller copies.
    across, down = width / given.get("w", width), height / given.get("h", height)
    if "fl_x" in given:
        focal_x = given["fl_x"] * across
        focal_y = given.get("fl_y", given["fl_x"]) * down
    elif "camera_angle_x" in given:
        focal_x = 0.5 * width / math.tan(0.5 * given["camera_angle_x"])
        focal_y = 0.5 * height / math.tan(0.5 * given["camera_angle_y"]) if "camera_angle_y" in given else focal_x
    else:
        raise EffbookError(f"{path} gives no focal length (fl_x or camera_angle_x)", "export it again")
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
