"""Posed scenes from the files that other programs leave, and what is said of views that do not fit."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from effbook.errors import EffbookError
from effbook.gaussians.scenes import (
    STILL_LIFES,
    every_eighth,
    read_colmap,
    read_ngp,
    read_synthetic,
    reconstruct,
    still_life,
)
from effbook.gaussians.scenes.scene import read_image, shrink_area
from effbook.gaussians.scenes.still_life import viewpoints


def photo(path, size=(12, 8), seed=0, alpha=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4 if alpha else 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def looking_at_the_origin(place):
    """A camera's pose in the world as OpenGL has it: x right, y up, looking along -z."""
    z = np.asarray(place, float) / np.linalg.norm(place)
    x = np.cross([0, 0, 1.0], z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack([x, np.cross(z, x), z], axis=1), place
    return pose


def synthetic(folder, *, train=4, test=2, missing=()):
    for split, n in (("train", train), ("test", test)):
        frames = []
        for i in range(n):
            if (split, i) not in missing:
                photo(folder / split / f"r_{i}.png", alpha=True, seed=i)
            pose = looking_at_the_origin([3 * math.cos(i), 3 * math.sin(i), 1.5])
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": pose.tolist()})
        told = {"camera_angle_x": 0.8, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(told))
    return folder


def test_every_eighth_view_is_held_out():
    assert every_eighth(20) == (0, 8, 16)


def test_a_synthetic_scene_has_its_own_split_on_white(tmp_path):
    scene = read_synthetic(synthetic(tmp_path), points=100)
    assert (scene.train, scene.held_out) == ((0, 1, 2, 3), (4, 5))
    camera = scene.cameras[0]
    assert (camera.width, camera.height) == (12, 8)
    assert camera.focal_x == pytest.approx(6 / math.tan(0.4))
    torch.testing.assert_close(camera.position, torch.tensor([3.0, 0.0, 1.5]))
    on_camera = camera.world_to_camera @ torch.tensor([0.0, 0, 0, 1])  # the origin is straight ahead
    torch.testing.assert_close(on_camera[:3], torch.tensor([0.0, 0.0, math.sqrt(9 + 2.25)]), atol=1e-5, rtol=0)
    above = camera.world_to_camera @ torch.tensor([0.0, 0, 1, 1])
    assert above[1] < 0  # y points down in the image
    pixels = photo(tmp_path / "again.png", alpha=True, seed=0) / 255
    wanted = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    np.testing.assert_allclose(scene.images[0].numpy(), wanted, atol=1e-6)
    assert len(scene.points) == 100


def test_a_camera_without_image_is_named_and_left_out(tmp_path):
    scene = read_synthetic(synthetic(tmp_path, missing={("train", 2)}), points=10)
    assert len(scene.cameras) == 5
    assert "r_2" in scene.left_out[0]


def test_fewer_than_three_views_are_refused(tmp_path):
    with pytest.raises(EffbookError, match="has 2 views"):
        read_synthetic(synthetic(tmp_path, train=1, test=1), points=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no list of frames"), ('{"a": 1}', "no list of frames"), ('{"frames": [{}]}', "lacks its file or its pose")],
)
def test_a_broken_list_of_frames_says_so(tmp_path, text, message):
    folder = synthetic(tmp_path)
    (folder / "transforms_train.json").write_text(text)
    with pytest.raises(EffbookError, match=message):
        read_synthetic(folder)
    with pytest.raises(EffbookError, match="is not there"):
        read_synthetic(folder / "missing")


def test_a_scene_of_instant_ngp_is_sorted_by_name_and_starts_where_the_cameras_look(tmp_path):
    frames = []
    for i in (3, 1, 2, 0):
        photo(tmp_path / "images" / f"{i}.jpg", seed=i)
        pose = looking_at_the_origin([3 * math.cos(i), 3 * math.sin(i), 1.5])
        frames.append({"file_path": f"images/{i}.jpg", "transform_matrix": pose.tolist()})
    told = {"fl_x": 20.0, "fl_y": 21.0, "cx": 6.5, "cy": 4.0, "k1": 0.1, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(told))
    scene = read_ngp(tmp_path / "transforms.json", points=1000)
    assert [camera.name for camera in scene.cameras] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert scene.held_out == (0,)
    assert (scene.cameras[0].focal_y, scene.cameras[0].centre_x) == (21.0, 6.5)
    assert "distortion" in scene.left_out[0]
    torch.testing.assert_close(scene.points.mean(0), torch.zeros(3), atol=0.3, rtol=0)
    half = read_ngp(tmp_path / "transforms.json", shrink=2, points=10)
    assert (half.cameras[0].width, half.cameras[0].focal_x, half.cameras[0].centre_y) == (6, 10.0, 2.0)


def test_shrinking_averages_blocks_of_pixels(tmp_path):
    pixels = photo(tmp_path / "a.png", size=(7, 5)) / 255
    found = read_image(tmp_path / "a.png", background=None, shrink=2)
    np.testing.assert_allclose(found.numpy(), pixels[:4, :6].reshape(2, 2, 3, 2, 3).mean((1, 3)), atol=1e-6)
    with pytest.raises(EffbookError, match="cannot shrink 9 times"):
        shrink_area(found, 9)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(EffbookError, match="cannot be read as an image"):
        read_image(tmp_path / "b.png", background=None)


def colmap(folder, *, binary, n=9, points=20):
    pycolmap = pytest.importorskip("pycolmap")
    lines = ["# made up"]
    for i in range(n):
        to_world = looking_at_the_origin([3 * math.cos(i), 3 * math.sin(i), 1.0]) @ np.diag([1, -1, -1, 1])
        motion = np.linalg.inv(to_world)
        turn = pycolmap.Rotation3d(motion[:3, :3]).quat  # x, y, z, w
        numbers = [turn[3], turn[0], turn[1], turn[2], *motion[:3, 3]]
        lines += [f"{i + 1} {' '.join(map(repr, map(float, numbers)))} 1 view{i}.png", ""]
        photo(folder / "images" / f"view{i}.png", seed=i)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    (sparse / "cameras.txt").write_text("1 PINHOLE 24 16 30 31 12 8\n")
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{i + 1} {i / 10} 0 0.5 255 0 51 0.1" for i in range(points)]
    (sparse / "points3D.txt").write_text("\n".join(rows) + "\n")
    if binary:
        model = pycolmap.Reconstruction(str(sparse))
        for file in sparse.iterdir():
            file.unlink()
        model.write_binary(str(sparse))
    return folder


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_a_colmap_model_gives_cameras_points_and_split(tmp_path, binary):
    scene = read_colmap(colmap(tmp_path, binary=binary))
    assert scene.held_out == (0, 8)
    camera = scene.cameras[3]
    assert camera.name == "view3.png"
    wanted = torch.tensor([3 * math.cos(3), 3 * math.sin(3), 1.0])
    torch.testing.assert_close(camera.position, wanted, atol=1e-5, rtol=0)
    assert (camera.width, camera.height) == (12, 8)  # the images are half as large as COLMAP saw them
    assert (camera.focal_x, camera.focal_y, camera.centre_x) == (15.0, 15.5, 6.0)
    by_place = scene.points[:, 0].argsort()
    torch.testing.assert_close(scene.points[by_place[3]], torch.tensor([0.3, 0.0, 0.5]))
    torch.testing.assert_close(scene.colours[0], torch.tensor([1.0, 0.0, 0.2]))


def test_images_without_camera_and_cameras_without_image_are_named(tmp_path):
    folder = colmap(tmp_path, binary=False)
    (folder / "images" / "view2.png").unlink()
    photo(folder / "images" / "stranger.png")
    scene = read_colmap(folder)
    assert len(scene.cameras) == 8
    assert any("view2.png" in sentence for sentence in scene.left_out)
    assert any("stranger.png" in sentence for sentence in scene.left_out)


def test_a_colmap_model_without_points_or_of_another_lens_is_refused(tmp_path):
    folder = colmap(tmp_path / "a", binary=False, points=0)
    with pytest.raises(EffbookError, match="no points"):
        read_colmap(folder)
    folder = colmap(tmp_path / "b", binary=False)
    (folder / "sparse" / "0" / "cameras.txt").write_text("1 OPENCV_FISHEYE 24 16 30 31 12 8 0 0 0 0\n")
    with pytest.raises(EffbookError, match="OPENCV_FISHEYE"):
        read_colmap(folder)
    with pytest.raises(EffbookError, match="no COLMAP model"):
        read_colmap(tmp_path)


def test_too_few_photos_cannot_be_reconstructed(tmp_path):
    for i in range(2):
        photo(tmp_path / "photos" / f"{i}.png", seed=i)
    with pytest.raises(EffbookError, match="holds 2 photos"):
        reconstruct(tmp_path / "photos", tmp_path / "scene")


def test_viewpoints_lie_on_the_upper_half_sphere_and_test_views_between():
    train, test = viewpoints("train", 64), viewpoints("test", 16)
    for places in (train, test):
        assert (places[:, 2] > 0).all()
        np.testing.assert_allclose(np.linalg.norm(places, axis=1), np.linalg.norm(places[0]))
    assert np.linalg.norm(train[:, None] - test[None], axis=-1).min() > 0.05


def test_a_still_life_is_the_same_each_time_and_rendered_once(tmp_path):
    pytest.importorskip("mitsuba")
    folder = still_life("metals", tmp_path / "a", size_px=16, train=3, test=1, samples=2)
    again = still_life("metals", tmp_path / "b", size_px=16, train=3, test=1, samples=2)
    assert (folder / "train" / "r_001.png").read_bytes() == (again / "train" / "r_001.png").read_bytes()
    written = (folder / "train" / "r_001.png").stat().st_mtime_ns
    assert still_life("metals", tmp_path / "a", size_px=16, train=3, test=1, samples=2) == folder
    assert (folder / "train" / "r_001.png").stat().st_mtime_ns == written
    scene = read_synthetic(folder, points=10)
    middle = torch.stack([image[6:10, 6:10].mean((0, 1)) for image in scene.images])
    corner = torch.stack([image[0, 0] for image in scene.images])
    assert (corner == 1).all()  # white where there is nothing
    assert (middle < 0.95).all()
    with pytest.raises(EffbookError, match="no still life"):
        still_life("glass", tmp_path)
    assert len(STILL_LIFES) >= 3
