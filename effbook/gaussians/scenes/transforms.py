"""Scenes with a transforms.json: NeRF-Synthetic's three files with a split, and instant-ngp's single one."""

import json
import math
from pathlib import Path

import torch

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.scenes.scene import Scene, check_views, every_eighth, random_points, read_image

WHITE = (1.0, 1.0, 1.0)
SYNTHETIC_BOX = 1.3  # 3DGS starts NeRF-Synthetic scenes from points in a cube of this half side
ENDINGS = ("", ".png", ".jpg", ".jpeg")


def read_synthetic(folder: Path, *, shrink: int = 1, points: int = 100_000, seed: int = 0) -> Scene:
    """A scene in NeRF-Synthetic's layout: transforms_train.json and transforms_test.json, images on white.

    Starts from random points, as 3DGS does there. Raises EffbookError for a missing or broken file.
    """
    parts = [_frames(folder / f"transforms_{split}.json", folder, WHITE, shrink) for split in ("train", "test")]
    cameras = [camera for cameras, _, _ in parts for camera in cameras]
    check_views(folder.name, cameras)
    box = torch.full((3,), SYNTHETIC_BOX)
    start, colours = random_points(points, low=-box, high=box, seed=seed)
    first_test = len(parts[0][0])
    return Scene(
        name=folder.name,
        cameras=tuple(cameras),
        images=tuple(image for _, images, _ in parts for image in images),
        held_out=tuple(range(first_test, len(cameras))),
        points=start,
        colours=colours,
        background=WHITE,
        left_out=tuple(sentence for _, _, left_out in parts for sentence in left_out),
    )


def read_ngp(path: Path, *, shrink: int = 1, points: int = 10_000, seed: int = 0) -> Scene:
    """A scene with instant-ngp's transforms.json; every 8th view, sorted by name, is held out.

    Starts from random points in the box that the cameras look into: around the place nearest to all their axes, as wide
    as the cameras' mean distance to it. Lens distortion is ignored, and said so.
    """
    cameras, images, left_out = _frames(path, path.parent, None, shrink)
    check_views(path.parent.name, cameras)
    order = sorted(range(len(cameras)), key=lambda i: cameras[i].name)
    cameras, images = [cameras[i] for i in order], [images[i] for i in order]
    places = torch.stack([camera.position for camera in cameras])
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])
    across = torch.eye(3) - axes[:, :, None] * axes[:, None, :]  # takes away what lies along the axis
    middle = torch.linalg.lstsq(across.sum(0), (across @ places[:, :, None]).sum(0)).solution.squeeze(1)
    reach = (places - middle).norm(dim=-1).mean()
    start, colours = random_points(points, low=middle - reach, high=middle + reach, seed=seed)
    return Scene(
        name=path.parent.name,
        cameras=tuple(cameras),
        images=tuple(images),
        held_out=every_eighth(len(cameras)),
        points=start,
        colours=colours,
        left_out=tuple(left_out),
    )


def _frames(path: Path, folder: Path, background, shrink: int):
    """Cameras, images and sentences on what was left out, of one file."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        frames = told["frames"]
    except FileNotFoundError:
        raise EffbookError(f"{path} is not there", "name the folder that holds it") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise EffbookError(f"{path} is no list of frames ({error})", "export it again") from None
    cameras, images, missing = [], [], []
    for frame in frames:
        try:
            name, pose = str(frame["file_path"]), torch.tensor(frame["transform_matrix"], dtype=torch.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise EffbookError(f"{path}: a frame lacks its file or its pose ({error})", "export it again") from None
        found = next((folder / f"{name}{end}" for end in ENDINGS if (folder / f"{name}{end}").is_file()), None)
        if found is None:
            missing.append(Path(name).name)
            continue
        image = read_image(found, background=background, shrink=shrink)
        cameras.append(_camera(path, told, frame, pose, image.shape[1], image.shape[0], Path(name).name, shrink))
        images.append(image)
    left_out = []
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        left_out.append(f"{len(missing)} of {len(frames)} cameras have no image and are left out: {named}")
    if any(told.get(key) for key in ("k1", "k2", "k3", "p1", "p2")):
        left_out.append("the lens distortion that the file gives is ignored")
    return cameras, images, left_out


def _camera(path, told, frame, pose, width, height, name, shrink):
    if pose.shape != (4, 4) or not torch.isfinite(pose).all():
        raise EffbookError(f"{path}: the pose of {name} is no finite 4 x 4 matrix", "export it again")
    settings = {**told, **frame}
    if "fl_x" in settings:
        focal_x = settings["fl_x"] / shrink
        focal_y = settings.get("fl_y", settings["fl_x"]) / shrink
    elif "camera_angle_x" in settings:
        focal_x = 0.5 * width / math.tan(0.5 * settings["camera_angle_x"])
        focal_y = 0.5 * height / math.tan(0.5 * settings["camera_angle_y"]) if "camera_angle_y" in settings else focal_x
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
        centre_x=settings["cx"] / shrink if "cx" in settings else width / 2,
        centre_y=settings["cy"] / shrink if "cy" in settings else height / 2,
        name=name,
    )
