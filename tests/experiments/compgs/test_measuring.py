"""What is measured of a stored scene: LPIPS where its weights are declared, and only there; and on which device."""

import dataclasses

import pytest
import torch
import yaml

from effbook import data
from effbook.data.manifest import manifest_folder
from effbook.errors import EffbookError
from effbook.evaluate.lpips import BLOCKS
from effbook.experiments.compgs.datasets import DATASETS
from effbook.experiments.compgs.measuring import perceptual
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.gaussians import toolkit
from effbook.runs.context import Context
from effbook.runs.profiles import scale

PUBLISHED = ["mip-nerf360", "tanks-and-temples", "deep-blending", "nerf-synthetic", "dl3dv-140", "arkit-200"]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The manifests vgg16 and lpips with tiny files in place of the published ones."""
    files = {"vgg16": "vgg16-397923af.pth", "lpips": "vgg.pth"}
    for variable, folder in (("DATA", "cache"), ("LOCAL", "local"), ("MANIFESTS", "manifests"), ("WORK", "work")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(f"EFFBOOK_{variable}", str(tmp_path / folder))
    for name, path in files.items():
        content = dict(name=name, title=name, kind="weights", licence="-", citation="-", homepage="-", loader="lpips")
        content["sources"] = [{"kind": "local", "folder": name, "files": [{"path": path}]}]
        (tmp_path / "manifests" / f"{name}.yaml").write_text(yaml.safe_dump(content))
        (tmp_path / "local" / name).mkdir()
    tower, before = {}, 3
    for block in BLOCKS:
        for number in block:
            tower[f"features.{number}.weight"] = torch.rand(2, before, 3, 3) - 0.4
            tower[f"features.{number}.bias"] = torch.rand(2)
            before = 2
    torch.save(tower, tmp_path / "local" / "vgg16" / files["vgg16"])
    heads = {f"lin{i}.model.1.weight": torch.rand(1, 2, 1, 1) for i in range(5)}
    torch.save(heads, tmp_path / "local" / "lpips" / files["lpips"])


def run(recipe, tmp_path):
    return recipe.run(Context(profile="smoke", folder=tmp_path / "run"))


def test_without_fetched_weights_lpips_says_what_to_fetch_and_fetches_nothing(house):
    for name in (None, "vgg16"):
        if name:
            data.fetch(name)
        with pytest.raises(EffbookError, match="effbook data fetch vgg16 lpips"):
            perceptual("cpu")


def test_with_fetched_weights_images_are_measured(house):
    data.fetch("vgg16")
    data.fetch("lpips")
    image = torch.rand(16, 16, 3)
    assert perceptual("cpu")(image, image) == 0
    assert perceptual("cpu")(image, 1 - image) > 0


def test_the_weights_of_lpips_are_declared_where_it_is_measured_and_nowhere_else():
    for name, described in DATASETS.items():
        recipe = SceneRecipe(dataset=name)
        assert recipe.measures_lpips == (name in PUBLISHED)
        wanted = () if described.generated else (name,)
        assert recipe.datasets() == (*wanted, *(("vgg16", "lpips") if name in PUBLISHED else ()))


def test_other_weights_of_lpips_give_another_key(tmp_path, monkeypatch):
    before = {name: SceneRecipe(dataset=name).key for name in ("mip-nerf360", "fox", "still-lifes")}
    for path in manifest_folder().glob("*.yaml"):
        content = path.read_text(encoding="utf-8")
        if path.stem == "lpips":
            content = content.replace("a78928a0", "b78928a0")
        (tmp_path / path.name).write_text(content, encoding="utf-8")
    monkeypatch.setenv("EFFBOOK_MANIFESTS", str(tmp_path))
    changed = {name for name, key in before.items() if SceneRecipe(dataset=name).key != key}
    assert changed == {"mip-nerf360"}


def test_a_run_measures_lpips_if_and_only_if_its_weights_are_declared(house, tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")
    data.fetch("vgg16")
    data.fetch("lpips")
    recipe = scale(SceneRecipe(dataset="mip-nerf360"), "smoke")
    plain = run(recipe, tmp_path)
    assert plain.metrics["lpips"] is None
    assert "VGG16" in plain.notes["lpips"]
    monkeypatch.setattr(SceneRecipe, "measures_lpips", True)
    photos = run(recipe, tmp_path)
    assert photos.metrics["lpips"] > 0
    assert photos.series["lpips by scene"] == [photos.metrics["lpips"]]
    assert "lpips" not in photos.notes


def test_what_is_made_for_the_cpu_stays_there_on_a_machine_with_a_card(tmp_path, monkeypatch):
    monkeypatch.setattr(Context, "device", "cuda")
    context = Context(profile="mini", folder=tmp_path)
    for name in DATASETS:
        recipe = SceneRecipe(dataset=name, shrink=16 if name == "fox" else 1)
        small = name in ("fox", "still-lifes", "toy")
        assert (recipe.device(context), recipe.needs()) == (("cpu", ()) if small else ("cuda", toolkit.needs()))


def test_the_photographs_of_the_fox_are_for_the_card_where_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Context, "device", "cuda")
    fox = SceneRecipe(dataset="tanks-and-temples", scene="truck")
    assert [scale(fox, profile).needs() for profile in ("mini", "lab")] == [(), toolkit.needs()]
    assert scale(fox, "lab").device(Context(profile="lab", folder=tmp_path)) == "cuda"


def test_a_small_scene_never_touches_the_card(house, tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")
    if torch.cuda.is_available():
        pytest.skip("here a tensor that is moved to the card raises nothing")
    monkeypatch.setattr(Context, "device", "cuda")
    four = scale(SceneRecipe(dataset="mip-nerf360", quantised="dc sh scale rotation", penalty=1e-7), "smoke")
    for recipe in (four, dataclasses.replace(four, after_training=True, penalty=0.0)):
        assert run(recipe, tmp_path).metrics["gaussians"] > 0
