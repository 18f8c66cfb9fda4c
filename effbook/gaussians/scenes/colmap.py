"""Scenes that COLMAP has reconstructed, binary or text, and folders of plain photos that pycolmap reconstructs here."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.scenes.colmap_files import check_whole, names_in_text
from effbook.gaussians.scenes.scene import Scene, check_views, every_eighth, few, fitted, read_image, shrink_area

if TYPE_CHECKING:
    import pycolmap

PINHOLE = {"PINHOLE": (0, 1, 2, 3), "SIMPLE_PINHOLE": (0, 0, 1, 2)}  # where fx, fy, cx, cy stand
DISTORTED = {
    "SIMPLE_RADIAL": (0, 0, 1, 2), "RADIAL": (0, 0, 1, 2), "OPENCV": (0, 1, 2, 3), "FULL_OPENCV": (0, 1, 2, 3),
}  # fmt: skip
IGNORED = ("SIMPLE_RADIAL", "RADIAL", "OPENCV")  # other distortions are too strong to be ignored


def read_colmap(folder: Path, *, images: str = "images", shrink: int = 1) -> Scene:
    """A COLMAP model in folder/sparse/0 (or folder/sparse, or folder) with photos in folder/`images`.

    Every 8th view, sorted by name, is held out. Cameras without an image are named and left out, and so are images
    without a camera, and photos whose sides do not fit their camera. Cameras should be undistorted, as COLMAP's
    image_undistorter leaves them; a distortion is ignored, and said so. Raises EffbookError where no model is found,
    its files are broken, or fewer than three views are left.
    """
    model, names = _model(folder)
    on_disk = {p.relative_to(folder / images).as_posix() for p in (folder / images).rglob("*") if p.is_file()}
    cameras, pictures, missing, unfit, bent = [], [], [], [], False
    views = {names.get(view.image_id, view.name): view for view in model.images.values()}
    for name, view in sorted(views.items()):
        if name not in on_disk:
            missing.append(name)
            continue
        lens, path = model.cameras[view.camera_id], folder / images / name
        photo, why = fitted(path, read_image(path, background=None), (lens.width, lens.height))
        if why:
            unfit.append(f"{name} ({why})")
            continue
        bent |= _is_bent(lens)
        pictures.append(shrink_area(photo, shrink))
        cameras.append(_camera(name, view, lens, photo).shrunk(shrink))
    left_out = []
    if missing:
        left_out.append(f"{len(missing)} cameras have no image and are left out: {few(missing)}")
    if unfit:
        left_out.append(f"{len(unfit)} images do not fit their camera and are left out: {few(unfit)}")
    if spare := sorted(on_disk - set(views)):
        left_out.append(f"{len(spare)} images have no camera and are left out: {few(spare)}")
    if bent:
        left_out.append("the lens distortion that the model gives is ignored")
    check_views(folder.name, cameras, missing + unfit)
    if not model.points3D:
        raise EffbookError(f"the COLMAP model in {folder} has no points", "reconstruct it again")
    points = np.stack([p.xyz for p in model.points3D.values()]).astype(np.float32)
    colours = np.stack([p.color for p in model.points3D.values()]).astype(np.float32) / 255
    return Scene(
        name=folder.name,
        cameras=tuple(cameras),
        images=tuple(pictures),
        held_out=every_eighth(len(cameras)),
        points=torch.from_numpy(points),
        colours=torch.from_numpy(colours),
        left_out=tuple(left_out),
    )


def _model(folder: Path) -> tuple["pycolmap.Reconstruction", dict[int, str]]:
    """The COLMAP model in a scene's folder, its files checked before pycolmap believes them, and its images' names.

    pycolmap cuts names in text files at their first space; by image, those names are as the file has them.
    """
    import pycolmap

    where = next((f for f in (folder / "sparse" / "0", folder / "sparse", folder) if any(f.glob("cameras.*"))), None)
    if where is None:
        raise EffbookError(f"{folder} holds no COLMAP model (sparse/0/cameras.bin or .txt)", "name the scene's folder")
    check_whole(where)
    try:
        model = pycolmap.Reconstruction(str(where))
    except (ValueError, RuntimeError, OSError, IndexError, MemoryError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise EffbookError(f"{where} is no readable COLMAP model ({first})", "reconstruct it again") from None
    return model, names_in_text(where)


def _is_bent(lens: "pycolmap.Camera") -> bool:
    """Whether a camera distorts: one of a model that could, with all coefficients 0, is a pinhole."""
    kind = lens.model.name
    return kind in DISTORTED and any(lens.params[len(set(DISTORTED[kind])) :])


def _camera(name: str, view: "pycolmap.Image", lens: "pycolmap.Camera", photo: torch.Tensor) -> Camera:
    """The camera of a photo [H, W, 3], which may be a smaller copy of the one that COLMAP saw."""
    kind = lens.model.name
    if kind not in PINHOLE and (kind not in DISTORTED or (kind not in IGNORED and _is_bent(lens))):
        raise EffbookError(f"{name} was taken by a camera of the model {kind}", "undistort the images with COLMAP")
    focal_x, focal_y, centre_x, centre_y = (lens.params[i] for i in (PINHOLE | DISTORTED)[kind])
    height, width = photo.shape[:2]
    across, down = width / lens.width, height / lens.height
    pose = view.cam_from_world() if callable(view.cam_from_world) else view.cam_from_world
    world_to_camera = torch.eye(4)
    world_to_camera[:3] = torch.from_numpy(np.asarray(pose.matrix(), dtype=np.float32))
    return Camera(
        world_to_camera=world_to_camera,
        width=width,
        height=height,
        focal_x=focal_x * across,
        focal_y=focal_y * down,
        centre_x=centre_x * across,
        centre_y=centre_y * down,
        name=name,
    )


def reconstruct(photos: Path, folder: Path) -> Path:
    """Find the cameras of a folder of plain photos by structure from motion, on the CPU; return the scene's folder.

    The result lies in `folder` as COLMAP leaves it, undistorted: `read_colmap(folder)` reads it. Raises EffbookError
    for a missing folder and if fewer than three photos can be placed.
    """
    import pycolmap

    if not photos.is_dir():
        raise EffbookError(f"{photos} is no folder", "name the folder that holds the photos")
    found = sorted(p for p in photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(found) < 3:
        raise EffbookError(f"{photos} holds {len(found)} photos", "give at least three")
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    database = work / "database.db"
    database.unlink(missing_ok=True)
    pycolmap.set_random_seed(0)
    pycolmap.extract_features(str(database), str(photos))
    pycolmap.match_exhaustive(str(database))
    models = pycolmap.incremental_mapping(str(database), str(photos), str(work))
    best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
    if best is None or best.num_reg_images() < 3:
        placed = 0 if best is None else best.num_reg_images()
        raise EffbookError(f"only {placed} of {len(found)} photos could be placed", "take more photos that overlap")
    (work / "best").mkdir(exist_ok=True)
    best.write(str(work / "best"))
    pycolmap.undistort_images(str(folder), str(work / "best"), str(photos))
    return folder
