"""Posed scenes from the files that other programs leave, and what is said of views that do not fit."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import zoom

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
from effbook.gaussians.scenes.colmap_files import check_whole
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
    [
        ("{", "the file is wrong .invalid json"),
        ("5", "the file is wrong"),
        ('{"a": 1}', "frames is wrong .field required"),
        ('{"frames": null}', "frames is wrong"),
        ('{"frames": 5}', "frames is wrong"),
        ('{"frames": [{}]}', "frames.0.file_path is wrong .field required"),
        ('{"frames": [{"file_path": "a"}]}', "frames.0.transform_matrix is wrong"),
        ('{"frames": [{"file_path": "a", "transform_matrix": [[1, 0, 0, "x"]]}]}', "frames.0.transform_matrix.0.3 is"),
    ],
)
def test_a_broken_list_of_frames_says_so(tmp_path, text, message):
    folder = synthetic(tmp_path)
    (folder / "transforms_train.json").write_text(text)
    with pytest.raises(EffbookError, match=message):
        read_synthetic(folder)
    with pytest.raises(EffbookError, match="is not there"):
        read_synthetic(folder / "missing")


def ngp(folder, n=3, **told):
    """A folder in instant-ngp's layout, with more or other fields in its file."""
    frames = []
    for i in range(n):
        photo(folder / "images" / f"{i}.jpg", seed=i)
        pose = looking_at_the_origin([3 * math.cos(i), 3 * math.sin(i), 1.5])
        frames.append({"file_path": f"images/{i}.jpg", "transform_matrix": pose.tolist(), "sharpness": None})
    (folder / "transforms.json").write_text(json.dumps({"aabb_scale": 4, "fl_x": 20.0, "frames": frames} | told))
    return folder / "transforms.json"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("camera_angle_x", 0),
        ("camera_angle_x", "a"),
        ("camera_angle_x", 3.2),
        ("fl_x", None),
        ("fl_x", "1"),
        ("fl_x", -20.0),
        ("fl_y", float("nan")),
        ("cx", "a"),
        ("cy", [1]),
        ("w", 0),
        ("k1", "strong"),
    ],
)
def test_a_lens_that_is_no_number_or_out_of_range_is_refused_by_its_name(tmp_path, field, value):
    path = ngp(tmp_path, **{field: value})
    with pytest.raises(EffbookError, match=rf"transforms\.json: {field} is wrong"):
        read_ngp(path, points=10)
    told = json.loads(path.read_text())
    del told[field]
    told |= {"fl_x": 20.0}
    told["frames"][1][field] = value  # a frame may have a lens of its own
    path.write_text(json.dumps(told))
    with pytest.raises(EffbookError, match=rf"transforms\.json: frames\.1\.{field} is wrong"):
        read_ngp(path, points=10)


def test_a_file_without_focal_length_and_one_with_a_bad_pose_are_refused(tmp_path):
    path = ngp(tmp_path)
    told = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in told.items() if key != "fl_x"}))
    with pytest.raises(EffbookError, match="no focal length"):
        read_ngp(path)
    told["frames"][2]["transform_matrix"][1][3] = 1e300  # more than 32 bits hold
    path.write_text(json.dumps(told))
    with pytest.raises(EffbookError, match=r"the pose of 2\.jpg"):
        read_ngp(path)


def test_a_frame_may_have_a_lens_of_its_own(tmp_path):
    path = ngp(tmp_path)
    told = json.loads(path.read_text())
    told["frames"][1] |= {"fl_x": 30, "cy": 3.0}
    path.write_text(json.dumps(told))
    found = read_ngp(path, points=10).cameras
    assert [camera.focal_x for camera in found] == [20.0, 30.0, 20.0]
    assert [camera.centre_y for camera in found] == [4.0, 3.0, 4.0]


def test_images_without_a_frame_are_named(tmp_path):
    path = ngp(tmp_path)
    assert read_ngp(path, points=10).left_out == ()
    for name in ("stranger.jpg", "other.PNG"):
        photo(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (sentence,) = read_ngp(path, points=10).left_out
    assert sentence == "2 images have no camera and are left out: other.PNG, stranger.jpg"


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


def test_smaller_copies_of_the_photos_scale_the_lens(tmp_path):
    frames = []
    for i in range(3):
        photo(tmp_path / "images_4" / f"{i}.png", size=(7, 5), seed=i)
        pose = looking_at_the_origin([3 * math.cos(i), 3 * math.sin(i), 1.5])
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": pose.tolist()})
    told = {"w": 28, "h": 20, "fl_x": 40.0, "fl_y": 44.0, "cx": 13.0, "cy": 10.0, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(told))
    camera = read_ngp(tmp_path / "transforms.json", images="images_4", points=10).cameras[0]
    assert (camera.width, camera.height) == (7, 5)
    assert (camera.focal_x, camera.focal_y, camera.centre_x, camera.centre_y) == (10.0, 11.0, 3.25, 2.5)
    half = read_ngp(tmp_path / "transforms.json", images="images_4", shrink=2, points=10).cameras[0]
    assert (half.width, half.focal_x, half.centre_x) == (3, 5.0, 1.625)  # a cut column is no change of scale
    with pytest.raises(EffbookError, match="has 0 views"):
        read_ngp(tmp_path / "transforms.json", points=10)


def test_shrinking_averages_blocks_of_pixels(tmp_path):
    pixels = photo(tmp_path / "a.png", size=(7, 5)) / 255
    found = shrink_area(read_image(tmp_path / "a.png", background=None), 2)
    np.testing.assert_allclose(found.numpy(), pixels[:4, :6].reshape(2, 2, 3, 2, 3).mean((1, 3)), atol=1e-6)
    for factor in (9, 0, -1):
        with pytest.raises(EffbookError, match=f"cannot shrink {factor} times"):
            shrink_area(found, factor)
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


def seen_at(camera, pose, place):
    """The pixel at which a camera sees a place in the world, x and y."""
    x, y, z = (pose @ np.append(place, 1.0))[:3]
    return np.array([camera.focal_x * x / z + camera.centre_x, camera.focal_y * y / z + camera.centre_y])


def readers(folder, kind):
    """A reader of made-up photos of 12 x 8 pixels."""
    if kind == "colmap":
        colmap(folder, binary=False)
        return lambda shrink: read_colmap(folder, shrink=shrink)
    if kind == "synthetic":
        synthetic(folder)
        return lambda shrink: read_synthetic(folder, shrink=shrink, points=10)
    lens = {"fl_x": 20.0} if kind == "focal length" else {"camera_angle_x": 0.8, "cx": 5.0}
    path = ngp(folder, **lens)
    told = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in told.items() if key != "fl_x" or key in lens}))
    return lambda shrink: read_ngp(path, shrink=shrink, points=10)


@pytest.mark.parametrize("shrink", [2, 3, 5, 7])
@pytest.mark.parametrize("kind", ["colmap", "synthetic", "focal length", "angle"])
def test_in_a_shrunken_image_each_place_is_seen_at_its_pixel_divided_by_the_factor(tmp_path, kind, shrink):
    """12 x 8 pixels are not divisible by 5 and 7: what is cut off must not move what is kept."""
    read = readers(tmp_path, kind)
    place = np.array([0.1, -0.2, 0.05])
    for whole, camera, image in zip(read(1).cameras, read(shrink).cameras, read(shrink).images, strict=True):
        assert (camera.width, camera.height) == (12 // shrink, 8 // shrink) == (image.shape[1], image.shape[0])
        pose = camera.world_to_camera.numpy().astype(float)
        np.testing.assert_allclose(seen_at(camera, pose, place), seen_at(whole, pose, place) / shrink, rtol=1e-12)


def test_a_photo_of_108_pixels_that_shrinks_16_times_keeps_a_sixteenth_of_the_focal_length(tmp_path):
    path = ngp(tmp_path, fl_x=100.0, cx=54.0)
    for i in range(3):
        photo(tmp_path / "images" / f"{i}.jpg", size=(108, 70))
    camera = read_ngp(path, shrink=16, points=10).cameras[0]
    assert (camera.width, camera.height) == (6, 4)
    assert (camera.focal_x, camera.focal_y, camera.centre_x, camera.centre_y) == (6.25, 6.25, 3.375, 2.1875)


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


def broken(raw):
    """Ends too early at several places, and counts that no file holds."""
    yield from (raw[:-1], raw[:-5], raw[: len(raw) // 2], raw[:9], raw[:3], b"")
    yield from (struct.pack("<Q", count) + raw[8:] for count in (1 << 40, (1 << 64) - 1))


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin"])
def test_a_binary_colmap_file_that_ends_early_or_claims_too_much_is_named(tmp_path, name, monkeypatch):
    path = colmap(tmp_path, binary=True) / "sparse" / "0" / name
    if not path.exists():
        pytest.skip("this COLMAP writes no such file")
    monkeypatch.setattr("pycolmap.Reconstruction", lambda _: pytest.fail("opened before it was checked"))
    for raw in broken(path.read_bytes()):
        path.write_bytes(raw)
        with pytest.raises(EffbookError, match=f"{name} ends before what its counts claim"):
            read_colmap(tmp_path)


@pytest.mark.parametrize(
    ("name", "count_at"), [("images.bin", 8 + 64 + len("view0.png") + 1), ("points3D.bin", 8 + 43)]
)
def test_a_huge_count_inside_a_colmap_record_is_refused(tmp_path, name, count_at):
    path = colmap(tmp_path, binary=True) / "sparse" / "0" / name
    raw = path.read_bytes()
    assert raw[count_at : count_at + 8] == struct.pack("<Q", 0)
    path.write_bytes(raw[:count_at] + struct.pack("<Q", 1 << 50) + raw[count_at + 8 :])
    with pytest.raises(EffbookError, match=f"{name} ends before"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("kind", ["SIMPLE_PINHOLE", "PINHOLE", "RADIAL", "OPENCV", "FULL_OPENCV", "THIN_PRISM_FISHEYE"])
def test_cameras_of_each_kind_have_the_length_that_the_check_expects(tmp_path, kind):
    pycolmap = pytest.importorskip("pycolmap")
    camera = pycolmap.Camera.create_from_model_name(1, kind, 30.0, 24, 16)
    model = pycolmap.Reconstruction()
    model.add_camera(camera)
    model.write_binary(str(tmp_path))
    check_whole(tmp_path)
    path = tmp_path / "cameras.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EffbookError, match=r"cameras\.bin ends before"):
        check_whole(tmp_path)


def test_a_model_for_which_the_memory_is_too_small_is_refused(tmp_path, monkeypatch):
    def greedy(_):
        raise MemoryError("std::bad_alloc")

    folder = colmap(tmp_path, binary=False)
    monkeypatch.setattr("pycolmap.Reconstruction", greedy)
    with pytest.raises(EffbookError, match=r"no readable COLMAP model .*bad_alloc"):
        read_colmap(folder)


def corner_of_a_room(folder, n=6, width=320, height=240):
    """Photos of three walls with soft random patterns, and where they were taken from [n, 3]."""
    random = np.random.default_rng(0)
    walls = []
    for _ in range(3):
        layers = [zoom(random.random((k, k, 3)), (512 / k, 512 / k, 1), order=1) for k in (32, 64, 128)]
        walls.append(np.uint8(255 * np.clip(sum(layers) / 3, 0, 1)))
    folder.mkdir()
    places = []
    for i in range(n):
        place = np.array([3 * math.cos(0.5 + 0.12 * i), 3 * math.sin(0.5 + 0.12 * i), 1.6 + 0.1 * (i % 2)])
        pose = looking_at_the_origin(place - 0.6)[:3, :3] @ np.diag([1, -1, -1])
        x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
        rays = np.stack([x, y, np.full_like(x, 1.2 * width)], axis=-1) @ pose.T
        reach = np.where(rays < 0, -place / rays, np.inf)
        hit, wall = place + rays * np.minimum(reach.min(-1), 1e3)[..., None], reach.argmin(-1)
        pixels = np.zeros((height, width, 3), np.uint8)
        for j in range(3):
            across, up = (np.clip(np.delete(hit, j, axis=-1) / 3, 0, 0.999) * 512).astype(int).transpose(2, 0, 1)
            pixels = np.where((wall == j)[..., None], walls[j][up, across], pixels)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        places.append(place)
    return np.stack(places)


@pytest.mark.slow
def test_photos_of_a_room_are_placed_where_they_were_taken(tmp_path):
    pytest.importorskip("pycolmap")
    places = corner_of_a_room(tmp_path / "photos")
    scene = read_colmap(reconstruct(tmp_path / "photos", tmp_path / "scene"))
    assert [camera.name for camera in scene.cameras] == [f"{i}.png" for i in range(6)]
    assert scene.left_out == ()
    assert len(scene.points) > 500
    assert scene.cameras[0].focal_x == pytest.approx(1.2 * 320, rel=0.05)
    found = torch.stack([camera.position for camera in scene.cameras]).numpy()
    # Structure from motion leaves place, turn and scale open: distances are compared as ratios.
    ours, theirs = (np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (places, found))
    np.testing.assert_allclose(theirs / theirs.max(), ours / ours.max(), atol=0.02)
    for file in sorted((tmp_path / "scene" / "sparse").glob("*.bin")):  # now with tracks and points in the images
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        with pytest.raises(EffbookError, match=f"{file.name} ends before"):
            check_whole(file.parent)
        file.write_bytes(whole)


def test_a_folder_of_photos_that_is_not_there_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for name in ("missing", "file"):
        with pytest.raises(EffbookError, match=f"{name} is no folder"):
            reconstruct(tmp_path / name, tmp_path / "scene")
    assert not (tmp_path / "scene").exists()


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


def test_single_views_of_a_still_life_are_those_of_the_whole(tmp_path):
    whole = read_synthetic(still_life("metals", tmp_path, size_px=16, train=4, test=3, samples=2), points=5)
    some = {"train": (1, 3), "test": (2,)}
    few = read_synthetic(still_life("metals", tmp_path, size_px=16, train=4, test=3, samples=2, only=some), points=5)
    assert len(few.cameras) == 3
    assert few.held_out == (2,)
    for i, j in enumerate((1, 3, 6)):  # the whole has its test views behind the four to train on
        assert torch.equal(few.images[i], whole.images[j])
        assert torch.equal(few.cameras[i].world_to_camera, whole.cameras[j].world_to_camera)


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
