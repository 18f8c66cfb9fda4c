"""Photos and cameras as programs and people leave them: each is read right, or named with the reason."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_scenes import colmap, looking_at_the_origin, ngp, photo, synthetic

from effbook.errors import EffbookError
from effbook.gaussians.scenes import read_colmap, read_ngp, read_synthetic
from effbook.gaussians.scenes.scene import TURNS, read_image

LENS = "1 PINHOLE 24 16 30 31 12 8\n"


def marked(path, mark, size=(12, 8)):
    """A photo without loss whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[0x112] = mark
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG", exif=exif)
    return pixels / np.float32(255)


def cameras(folder, text):
    (folder / "sparse" / "0" / "cameras.txt").write_text(text)


# --- sides and EXIF ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", range(1, 9))
def test_each_exif_mark_turns_as_pillow_turns_it(tmp_path, mark):
    marked(tmp_path / "a.png", mark)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")), np.float32) / 255
    assert np.array_equal(TURNS[mark](read_image(tmp_path / "a.png", background=None)).numpy(), shown)


@pytest.mark.parametrize("mark", range(1, 9))
def test_a_photo_is_taken_as_it_lies_where_that_fits_its_camera(tmp_path, mark):
    """COLMAP, and so what is built on it, looks at pixels as they lie in the file."""
    folder = colmap(tmp_path, binary=False)
    pixels = marked(folder / "images" / "view3.png", mark)
    scene = read_colmap(folder)
    assert scene.left_out == ()
    assert np.array_equal(scene.images[3].numpy(), pixels)


@pytest.mark.parametrize("mark", [5, 6, 7, 8])
def test_a_photo_is_turned_by_its_mark_where_only_that_fits_its_camera(tmp_path, mark):
    folder = colmap(tmp_path, binary=False)
    marked(folder / "images" / "view3.png", mark, size=(8, 12))
    scene = read_colmap(folder)
    shown = ImageOps.exif_transpose(Image.open(folder / "images" / "view3.png"))
    assert scene.left_out == ()
    assert np.array_equal(scene.images[3].numpy(), np.asarray(shown, np.float32) / 255)
    camera = scene.cameras[3]
    assert (camera.width, camera.height, camera.focal_x) == (12, 8, 15.0)


@pytest.mark.parametrize("size", [(8, 12), (12, 12), (24, 8)])
def test_a_photo_with_other_proportions_than_its_camera_is_left_out_and_named(tmp_path, size):
    folder = colmap(tmp_path / "a", binary=False)
    cameras(folder, "1 PINHOLE 1200 800 1500 1550 600 400\n")
    photo(folder / "images" / "view3.png", size=size)
    scene = read_colmap(folder)
    assert len(scene.cameras) == 8
    wanted = f"view3.png ({size[0]} x {size[1]} pixels are no copy of its camera's 1200 x 800)"
    assert scene.left_out == (f"1 images do not fit their camera and are left out: {wanted}",)
    path = ngp(tmp_path / "b", n=4, w=1200, h=800)
    photo(tmp_path / "b" / "images" / "2.jpg", size=size)
    scene = read_ngp(path, points=5)
    assert [camera.name for camera in scene.cameras] == ["0.jpg", "1.jpg", "3.jpg"]
    assert wanted.replace("view3.png", "2.jpg") in scene.left_out[0]


def test_a_smaller_copy_with_rounded_sides_fits(tmp_path):
    folder = colmap(tmp_path, binary=False)
    cameras(folder, "1 PINHOLE 5187 3361 4000 4000 2593 1680\n")
    for i in range(9):
        photo(folder / "images" / f"view{i}.png", size=(1297 // 8, 840 // 8))
    assert len(read_colmap(folder).cameras) == 9


def test_a_mark_that_exchanges_sides_is_refused_where_no_size_is_told(tmp_path):
    path = ngp(tmp_path, n=4)
    marked(tmp_path / "images" / "2.jpg", 6)
    assert "2.jpg (its EXIF mark turns it" in read_ngp(path, points=5).left_out[0]
    marked(tmp_path / "images" / "2.jpg", 3)
    assert read_ngp(path, points=5).left_out == ()


# --- kinds of images -----------------------------------------------------------------------------------------------


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path):
    grey = np.arange(96, dtype=np.uint16).reshape(8, 12) * 650
    Image.fromarray(grey).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", background=None)
    wanted = np.repeat(grey[..., None] / 65_535, 3, axis=2)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "b.tif")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif", background=None).numpy(), wanted, atol=1e-6)


def test_pixels_of_no_known_range_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "b.tif")
    for name, why in (("a.tif", "floats"), ("b.tif", "more than 16 bits")):
        with pytest.raises(EffbookError, match=f"{name} cannot be read as an image .*{why}"):
            read_image(tmp_path / name, background=None)


@pytest.mark.parametrize("kind", ["L", "LA", "P", "1", "RGB", "RGBA", "CMYK"])
def test_every_other_kind_of_pixels_gives_its_colours(tmp_path, kind):
    coloured = kind in ("P", "RGB", "RGBA", "CMYK")
    drawn = Image.new("RGBA", (4, 4), (255, 0, 0, 255) if coloured else (255, 255, 255, 255))
    if kind in ("LA", "RGBA"):
        drawn.putpixel((0, 0), (0, 0, 0, 0))
    path = tmp_path / ("a.tif" if kind == "CMYK" else "a.png")
    drawn.convert(kind).save(path)
    found = read_image(path, background=(0.0, 0.0, 1.0))
    assert found.shape == (4, 4, 3)
    assert found[2, 2].tolist() == ([1, 0, 0] if coloured else [1, 1, 1])
    assert (found[0, 0].tolist() == [0, 0, 1]) == (kind in ("LA", "RGBA"))


def test_the_clear_colour_of_a_palette_is_clear(tmp_path):
    drawn = Image.new("P", (4, 4), 0)
    drawn.putpalette([9, 9, 9, 255, 0, 0])
    drawn.putpixel((1, 1), 1)
    drawn.save(tmp_path / "a.png", transparency=0)
    found = read_image(tmp_path / "a.png", background=(1.0, 1.0, 1.0))
    assert (found[0, 0].tolist(), found[1, 1].tolist()) == ([1, 1, 1], [1, 0, 0])


# --- transforms.json -----------------------------------------------------------------------------------------------


def retold(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    return path


@pytest.mark.parametrize("kind", ["OPENCV_FISHEYE", "EQUIRECTANGULAR", "FISHEYE624", "ORTHOPHOTO", "something new"])
def test_cameras_that_are_no_pinholes_are_refused(tmp_path, kind):
    path = ngp(tmp_path, camera_model=kind)
    with pytest.raises(EffbookError, match=rf"transforms\.json: 0\.jpg was taken by a camera of the model {kind}"):
        read_ngp(path, points=5)
    retold(path, lambda told: (told.pop("camera_model"), told["frames"][1].update(camera_model=kind)))
    with pytest.raises(EffbookError, match=rf"1\.jpg was taken by a camera of the model {kind}"):
        read_ngp(path, points=5)
    retold(path, lambda told: (told["frames"][1].pop("camera_model"), told.update(is_fisheye=True)))
    with pytest.raises(EffbookError, match="model fisheye"):
        read_ngp(path, points=5)


@pytest.mark.parametrize("kind", ["OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "perspective", None])
def test_pinholes_are_read_by_any_of_their_names(tmp_path, kind):
    assert len(read_ngp(ngp(tmp_path, camera_model=kind, is_fisheye=False), points=5).cameras) == 3


def test_points_that_are_not_used_are_told(tmp_path):
    (sentence,) = read_ngp(ngp(tmp_path, ply_file_path="sparse_pc.ply"), points=5).left_out
    assert sentence == "the points of sparse_pc.ply are not used: training starts from random ones"


def test_a_mark_of_the_order_of_bytes_is_passed_over(tmp_path):
    path = ngp(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_ngp(path, points=5).cameras) == 3


def test_the_vertical_angle_or_focal_length_alone_is_enough(tmp_path):
    path = retold(ngp(tmp_path, camera_angle_y=0.6), lambda told: told.pop("fl_x"))
    camera = read_ngp(path, points=5).cameras[0]
    assert camera.focal_x == camera.focal_y == pytest.approx(4 / math.tan(0.3))
    retold(path, lambda told: (told.pop("camera_angle_y"), told.update(fl_y=21.0)))
    camera = read_ngp(path, points=5).cameras[0]
    assert (camera.focal_x, camera.focal_y) == (21.0, 21.0)


@pytest.mark.parametrize(
    ("told", "on_disk"),
    [
        (r"images\0.jpg", "images/0.jpg"),
        (r".\images\0", "images/0.png"),
        ("images/0.JPG", "images/0.jpg"),
        ("images/0.jpg", "images/0.JPEG"),
        ("images/0.jpg", "images/0.PNG"),
        ("images/0.jpg", "images/0"),
        ("images/0", "images/0.JPG"),
        ("images/a.b", "images/a.b.PNG"),
        ("Images/../images/A.JPG", "images/a.jpg"),
    ],
)
def test_an_image_is_found_under_another_ending(tmp_path, told, on_disk):
    path = ngp(tmp_path, n=4)
    (tmp_path / "images" / "0.jpg").rename(tmp_path / "kept")
    (tmp_path / "Images").mkdir(exist_ok=True)
    Image.open(tmp_path / "kept").save(tmp_path / on_disk, format="PNG")
    retold(path, lambda file: file["frames"][0].update(file_path=told))
    scene = read_ngp(path, points=5)
    assert len(scene.cameras) == 4
    wanted = np.asarray(Image.open(tmp_path / "kept"), np.float32) / 255
    first = next(i for i, camera in enumerate(scene.cameras) if camera.name not in ("1.jpg", "2.jpg", "3.jpg"))
    assert np.array_equal(scene.images[first].numpy(), wanted)


def test_an_ending_that_could_be_one_of_two_files_is_not_guessed(tmp_path):
    path = ngp(tmp_path, n=4)
    for name in ("0.PNG", "0.Png"):
        (tmp_path / "images" / name).write_bytes((tmp_path / "images" / "0.jpg").read_bytes())
    (tmp_path / "images" / "0.jpg").unlink()
    assert "0.jpg" in read_ngp(path, points=5).left_out[0]


def test_no_views_at_all_name_the_first_that_failed(tmp_path):
    path = ngp(tmp_path / "a")
    for i in range(3):
        (tmp_path / "a" / "images" / f"{i}.jpg").unlink()
    with pytest.raises(EffbookError, match=r"has 0 views with image and camera; of 3 cameras .* the first is 0\.jpg"):
        read_ngp(path, points=5)
    folder = colmap(tmp_path / "b", binary=False)
    cameras(folder, "1 PINHOLE 100 400 30 31 12 8\n")
    with pytest.raises(EffbookError, match=r"0 views .* of 9 .* the first is view0\.png .12 x 8 pixels"):
        read_colmap(folder)
    synthetic(tmp_path / "c", train=1, test=1, missing=[("train", 0)])
    with pytest.raises(EffbookError, match=r"has 1 views .* the first is r_0"):
        read_synthetic(tmp_path / "c", points=5)


# --- COLMAP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points_line", ["", "1.5 2.5 -1 3 4 -1"])
def test_names_with_spaces_in_a_text_model_are_read_whole(tmp_path, points_line):
    folder = colmap(tmp_path, binary=False)
    path = folder / "sparse" / "0" / "images.txt"
    lines = path.read_text().replace("view3.png", "my view  3.png").split("\n")
    lines[2::2] = [points_line for _ in lines[2::2]]
    path.write_text("# a comment\n\n" + "\n".join(lines) + "\n")
    (folder / "images" / "view3.png").rename(folder / "images" / "my view  3.png")
    scene = read_colmap(folder)
    assert scene.left_out == ()
    camera = next(camera for camera in scene.cameras if camera.name == "my view  3.png")
    wanted = torch.tensor([3 * math.cos(3), 3 * math.sin(3), 1.0])
    torch.testing.assert_close(camera.position, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("lens", "sentence"),
    [
        ("SIMPLE_PINHOLE 24 16 30 12 8", None),
        ("PINHOLE 24 16 30 30 12 8", None),
        ("SIMPLE_RADIAL 24 16 30 12 8 0", None),
        ("RADIAL 24 16 30 12 8 0 0", None),
        ("OPENCV 24 16 30 30 12 8 0 0 0 0", None),
        ("FULL_OPENCV 24 16 30 30 12 8 0 0 0 0 0 0 0 0", None),
        ("SIMPLE_RADIAL 24 16 30 12 8 0.1", "distortion"),
        ("RADIAL 24 16 30 12 8 0 0.1", "distortion"),
        ("OPENCV 24 16 30 30 12 8 0 0 0 0.1", "distortion"),
    ],
)
def test_a_lens_whose_distortion_is_0_is_a_pinhole(tmp_path, lens, sentence):
    folder = colmap(tmp_path, binary=False)
    cameras(folder, f"1 {lens}\n")
    scene = read_colmap(folder)
    assert [sentence in told for told in scene.left_out] == ([True] if sentence else [])
    camera = scene.cameras[0]
    assert (camera.focal_x, camera.focal_y, camera.centre_x, camera.centre_y) == (15.0, 15.0, 6.0, 4.0)


@pytest.mark.parametrize(
    "lens",
    [
        "FULL_OPENCV 24 16 30 30 12 8 0 0 0 0 0 0 0 0.1",
        "SIMPLE_RADIAL_FISHEYE 24 16 30 12 8 0",
        "RADIAL_FISHEYE 24 16 30 12 8 0 0",
        "OPENCV_FISHEYE 24 16 30 30 12 8 0 0 0 0",
        "FOV 24 16 30 30 12 8 0",
        "THIN_PRISM_FISHEYE 24 16 30 30 12 8 0 0 0 0 0 0 0 0",
    ],
)
def test_other_lenses_are_refused_by_their_name(tmp_path, lens):
    folder = colmap(tmp_path, binary=False)
    cameras(folder, f"1 {lens}\n")
    with pytest.raises(EffbookError, match=rf"view0\.png was taken by a camera of the model {lens.split()[0]};"):
        read_colmap(folder)


def test_each_camera_may_have_its_own_size_and_an_off_centre_principal_point(tmp_path):
    folder = colmap(tmp_path, binary=False)
    cameras(folder, LENS + "2 PINHOLE 30 20 33 34 3 17\n")
    path = folder / "sparse" / "0" / "images.txt"
    path.write_text(path.read_text().replace("1 view4.png", "2 view4.png"))
    photo(folder / "images" / "view4.png", size=(30, 20))
    camera = read_colmap(folder).cameras[4]
    assert (camera.width, camera.height, camera.focal_x, camera.centre_x, camera.centre_y) == (30, 20, 33.0, 3.0, 17.0)


def test_the_poses_of_these_files_are_those_of_the_tests(tmp_path):
    scene = read_ngp(ngp(tmp_path), points=5)
    place = torch.tensor(looking_at_the_origin([3.0, 0.0, 1.5])[:3, 3], dtype=torch.float32)
    torch.testing.assert_close(scene.cameras[0].position, place, atol=1e-5, rtol=0)
