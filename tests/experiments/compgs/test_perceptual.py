"""LPIPS from the data cache: nothing where nothing was fetched, the measure where the weights lie."""

import pytest
import torch
import yaml

from effbook import data
from effbook.evaluate.lpips import BLOCKS
from effbook.experiments.compgs.perceptual import available, perceptual


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The manifests vgg16 and lpips with tiny files in place of the published ones."""
    files = {"vgg16": "vgg16-397923af.pth", "lpips": "vgg.pth"}
    for variable, folder in (("DATA", "cache"), ("LOCAL", "local"), ("MANIFESTS", "manifests")):
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


def test_without_fetched_weights_there_is_no_measure_and_nothing_is_fetched(house):
    assert not available()
    assert perceptual() is None
    data.fetch("vgg16")
    assert perceptual() is None


def test_with_fetched_weights_images_are_measured(house):
    data.fetch("vgg16")
    data.fetch("lpips")
    assert available()
    image = torch.rand(16, 16, 3)
    assert perceptual("cpu")(image, image) == 0
    assert perceptual("cpu")(image, 1 - image) > 0
    assert perceptual("cpu", signed=False)(image, 1 - image) != perceptual("cpu")(image, 1 - image)


def test_the_published_manifests_keep_the_files_under_these_names():
    paths = {name: {file.path for s in data.manifest(name).sources for file in s.files} for name in ("vgg16", "lpips")}
    assert paths == {"vgg16": {"vgg16-397923af.pth"}, "lpips": {"vgg.pth"}}
