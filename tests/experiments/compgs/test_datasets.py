"""Scenes from the data cache: each layout on a small fake, the names that the data tells, and what is not there."""

import json
import math
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from effbook import data
from effbook.data.cache import local_folders
from effbook.data.manifest import manifest_folder
from effbook.errors import EffbookError
from effbook.experiments.compgs import loading
from effbook.experiments.compgs.datasets import DATASETS, scene_count, scene_names
from effbook.experiments.compgs.loading import load_scene

PHOTOS = [name for name, described in DATASETS.items() if described.layout != "generated"]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty cache and an empty local folder; manifests as published. Whoever asks the network fails."""

    def unreachable(*arguments, **options):
        raise AssertionError("the network was asked")

    for variable, folder in (("DATA", "cache"), ("LOCAL", "local")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(f"EFFBOOK_{variable}", str(tmp_path / folder))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return tmp_path


@pytest.fixture
def local(house, monkeypatch):
    """The same manifests with their local source alone; the folder that they look in."""
    (house / "manifests").mkdir()
    for name in PHOTOS:
        content = yaml.safe_load((manifest_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
        content["sources"] = [source for source in content["sources"] if source["kind"] == "local"]
        (house / "manifests" / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.setenv("EFFBOOK_MANIFESTS", str(house / "manifests"))
    return house / "local"


def load(dataset, name, *, shrink=1, say=print):
    return load_scene(dataset, name, shrink=shrink, points=10, seed=0, say=say)


def photo(path, size=(8, 6), alpha=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 4 if alpha else 3), 90, dtype=np.uint8)).save(path)


def pose(i):
    angle = 0.7 * i
    turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = turn, turn @ [0, 0, 3.0]
    return out.tolist()


def colmap(folder, *, images="images", n=9, size=(16, 12), inside="sparse/0"):
    """A COLMAP model for photos of 16 x 12 pixels, whose copies at hand have 8 x 6."""
    lines = []
    for i in range(n):
        photo(folder / images / f"{i}.png")
        lines += [f"{i + 1} 1 0 0 0 {i / 10} 0 3 1 {i}.png", ""]
    sparse = folder / inside
    sparse.mkdir(parents=True)
    (sparse / "cameras.txt").write_text(f"1 PINHOLE {size[0]} {size[1]} 20 20 8 6\n")
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    (sparse / "points3D.txt").write_text("1 0 0 0.5 255 0 51 0.1\n2 1 0 0.5 255 0 51 0.1\n")


def transforms(path, names, **told):
    frames = [{"file_path": name, "transform_matrix": pose(i)} for i, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames} | told))


def test_every_data_set_of_photos_has_a_manifest_that_counts_its_scenes():
    for name in PHOTOS:
        described = data.manifest(name)
        assert described.kind == "scenes"
        assert described.loader == DATASETS[name].layout
        assert described.splits == {"scenes": scene_count(name, "all")}


def test_fixed_names_need_no_data(house):
    assert scene_names("deep-blending", "all") == ("drjohnson", "playroom")
    assert scene_names("fox", "all") == ("fox",)
    assert scene_names("still-lifes-800", "all") == scene_names("still-lifes", "all") == ("metals", "plastics", "cage")
    assert len(scene_names("mip-nerf360", "all")) == 9
    with pytest.raises(EffbookError, match="has no scene 'lego'"):
        scene_names("mip-nerf360", "lego")
    with pytest.raises(EffbookError, match="has no scene 'lego'"):
        scene_count("mip-nerf360", "lego")
    assert (scene_count("dl3dv-140", "all"), scene_count("arkit-200", "x")) == (140, 1)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_data_set_that_is_not_here_says_what_to_fetch_and_where_to_put_it(house, name):
    scene = next(iter(DATASETS[name].scenes), "x")
    with pytest.raises(EffbookError, match=f"put .* into .*{house.name}/local/") as caught:
        load(name, scene)
    online = [source for source in data.manifest(name).sources if source.kind != "local"]
    assert (f"'effbook data fetch {name}'" in str(caught.value)) == bool(online)
    if not DATASETS[name].scenes:
        with pytest.raises(EffbookError, match=r"put .* into"):
            scene_names(name, "all")


@pytest.mark.parametrize(
    ("dataset", "folder", "images"),
    [
        ("mip-nerf360", "mip-nerf360", {"garden": "images_4", "bonsai": "images_2"}),
        ("tanks-and-temples", "tandt_db/tandt", {"truck": "images"}),
        ("deep-blending", "tandt_db/db", {"playroom": "images"}),
    ],
)
def test_scenes_with_colmap_models_are_read_with_3dgss_choice_of_photos(local, dataset, folder, images):
    for name in DATASETS[dataset].scenes:
        (local / folder / name).mkdir(parents=True)
    for name, photos in images.items():
        colmap(local / folder / name, images=photos)
        scene = load(dataset, name, shrink=2)
        assert (scene.name, scene.held_out, len(scene.points)) == (name, (0, 8), 2)
        assert (scene.cameras[0].width, scene.cameras[0].focal_x) == (4, 5.0)


def test_nerf_synthetic_is_read_with_its_own_split_on_white(local):
    for name in DATASETS["nerf-synthetic"].scenes:
        (local / "nerf_synthetic" / name).mkdir(parents=True)
    lego = local / "nerf_synthetic" / "lego"
    for split, n in (("train", 4), ("test", 2)):
        for i in range(n):
            photo(lego / split / f"r_{i}.png", alpha=True)
        transforms(lego / f"transforms_{split}.json", [f"./{split}/r_{i}" for i in range(n)])
    scene = load("nerf-synthetic", "lego")
    assert (scene.name, scene.held_out, scene.background) == ("lego", (4, 5), (1.0, 1.0, 1.0))


def test_a_fox_with_photos_missing_says_so(local):
    for i in range(4):
        photo(local / "fox" / "images" / f"{i}.jpg")
    transforms(local / "fox" / "transforms.json", [f"images/{i}.jpg" for i in range(5)], fl_x=9.0, w=8, h=6)
    said = []
    scene = load("fox", "fox", say=said.append)
    assert (scene.name, len(scene.cameras), scene.cameras[0].focal_x) == ("fox", 4, 9.0)
    assert said == ["fox: 1 of 5 cameras have no image and are left out: 4.jpg"]


def test_the_fox_of_instant_ngp_is_read_where_it_is(tmp_path, monkeypatch):
    if not (local_folders()[0] / "fox" / "transforms.json").is_file():
        pytest.skip("the fox is not in the local folder")
    monkeypatch.setenv("EFFBOOK_DATA", str(tmp_path))
    said = []
    scene = load_scene("fox", "fox", shrink=8, points=100, seed=0, say=said.append)
    assert len(scene.cameras) >= 50
    assert (scene.cameras[0].width, scene.cameras[0].height) == (135, 240)
    assert scene.cameras[0].focal_x == pytest.approx(1375.52 / 8)
    assert any("distortion" in sentence for sentence in said)


def dl3dv(local, scenes):
    """Scenes in both of the benchmark's formats, in turn."""
    home = local / "dl3dv-140"
    home.mkdir()
    (home / "benchmark-meta.csv").write_text("hash\n")
    for i in range(scenes):
        scene = home / f"{i:04x}"
        if i % 2:
            (scene / "nerfstudio").mkdir(parents=True)
            (scene / "nerfstudio" / "transforms.json").write_text("{}")
        else:
            (scene / "gaussian_splat" / "sparse").mkdir(parents=True)
    (home / ".cache").mkdir()
    return home


def test_dl3dvs_scenes_are_the_folders_found(local):
    home = dl3dv(local, 140)
    names = scene_names("dl3dv-140", "all")
    assert len(names) == 140
    assert names == tuple(sorted(names))
    with pytest.raises(EffbookError, match=r"no scene 'ffff'; choose all or one of 0000, .* and 128 more"):
        scene_names("dl3dv-140", "ffff")
    shutil.rmtree(home / "0003")
    with pytest.raises(EffbookError, match="holds 139 scenes instead of 140"):
        scene_names("dl3dv-140", "all")
    assert scene_names("dl3dv-140", "0002") == ("0002",)


def test_dl3dv_is_read_from_either_of_its_formats(local):
    home = dl3dv(local, 2)
    shutil.rmtree(home / "0000" / "gaussian_splat")
    colmap(home / "0000" / "gaussian_splat", images="images_4", size=(32, 24))
    for i in range(9):
        photo(home / "0001" / "nerfstudio" / "images_4" / f"frame_{i}.png")
    names = [f"images/frame_{i}.png" for i in range(9)]
    transforms(home / "0001" / "nerfstudio" / "transforms.json", names, w=32, h=24, fl_x=40.0, k1=0.1)
    splat, studio = (load("dl3dv-140", name) for name in ("0000", "0001"))
    assert (splat.name, splat.cameras[0].focal_x, len(splat.points)) == ("0000", 5.0, 2)
    assert (studio.name, studio.cameras[0].focal_x, len(studio.points)) == ("0001", 10.0, 10)
    assert splat.held_out == studio.held_out == (0, 8)


def arkit(local, videos=500):
    home = local / "arkitscenes" / "raw"
    home.mkdir(parents=True)
    rows = [f"{40_000_000 + i},NA,{'Validation' if i % 9 == 0 else 'Training'}" for i in range(videos)]
    (home / "raw_train_val_splits.csv").write_text("\n".join(["video_id,visit_id,fold", *rows]) + "\n")
    return home


def test_the_choice_of_arkits_videos_rests_on_their_ids_alone(local):
    home = arkit(local)
    chosen = scene_names("arkit-200", "all")
    assert len(set(chosen)) == 200
    assert chosen == tuple(sorted(chosen))
    order = np.random.default_rng(0).permutation(500)[:200]
    assert set(chosen) == {str(40_000_000 + i) for i in order}
    listing = home / "raw_train_val_splits.csv"
    head, *rows = listing.read_text().splitlines()
    listing.write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert scene_names("arkit-200", "all") == chosen
    other = next(str(40_000_000 + i) for i in range(500) if str(40_000_000 + i) not in chosen)
    with pytest.raises(EffbookError, match=f"no scene '{other}'"):
        scene_names("arkit-200", other)
    with pytest.raises(EffbookError, match=f"the video {chosen[0]} is not here; put its frames into"):
        load("arkit-200", chosen[0])
    listing.write_text("video,fold\n1,Training\n")
    with pytest.raises(EffbookError, match="is no list of videos"):
        scene_names("arkit-200", "all")


def test_too_short_a_list_of_arkits_videos_is_refused(local):
    arkit(local, videos=150)
    with pytest.raises(EffbookError, match="holds 150 scenes instead of 200"):
        scene_names("arkit-200", "all")


def test_a_video_of_arkit_is_read_from_its_model_or_reconstructed_once_from_300_of_its_frames(local, monkeypatch):
    home = arkit(local)
    ready, raw = scene_names("arkit-200", "all")[:2]
    folds = dict(line.split(",")[::2] for line in (home / "raw_train_val_splits.csv").read_text().splitlines())
    colmap(home / folds[ready] / ready, size=(8, 6))
    assert load("arkit-200", ready).name == ready
    frames = home / folds[raw] / raw / "frames"
    photo(frames / "0000.png")
    for i in range(1, 599):
        shutil.copy(frames / "0000.png", frames / f"{i:04d}.png")
    seen = []

    def fake(photos: Path, folder: Path) -> Path:
        seen.append(sorted(int(p.stem) for p in photos.iterdir()))
        colmap(folder, inside="sparse", size=(8, 6))
        (folder / "work").mkdir()
        return folder

    monkeypatch.setattr(loading, "reconstruct", fake)
    for _ in range(2):
        assert load("arkit-200", raw).name == raw
    assert len(seen) == 1
    assert len(seen[0]) == 300
    assert (seen[0][0], seen[0][-1]) == (0, 598)
    assert set(np.diff(seen[0])) == {2}
    assert {p.name for p in (local.parent / "cache" / "scenes" / "arkit-200" / raw).iterdir()} == {"images", "sparse"}


def test_the_still_lifes_of_the_lab_profile_are_rendered_at_800_pixels(tmp_path, monkeypatch):
    asked = []

    def fake(name, folder, **rendering):
        asked.append((name, folder, rendering))
        for split, n in (("train", 3), ("test", 1)):
            for i in range(n):
                photo(folder / split / f"r_{i}.png", alpha=True)
            transforms(folder / f"transforms_{split}.json", [f"./{split}/r_{i}" for i in range(n)])
        return folder

    monkeypatch.setattr(loading, "still_life", fake)
    monkeypatch.setenv("EFFBOOK_DATA", str(tmp_path))
    load("still-lifes-800", "cage")
    assert asked == [("cage", tmp_path / "scenes" / "still-lifes-800", {"size_px": 800})]
