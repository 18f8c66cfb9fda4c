"""Which images keep their label: the published lists, or a draw."""

import numpy as np
import pytest
import torch

from effbook import experiments
from effbook.data.images import ImageFiles
from effbook.data.stream import ImageStream
from effbook.errors import EffbookError
from effbook.evaluate.few import few_labels
from effbook.experiments.cmsf import few
from effbook.experiments.shared import splits
from effbook.experiments.shared.splits import Split
from effbook.runs.recipe import make

experiments.load()
NAMES = [f"n0144076{c}_{i}.JPEG" for c in range(2) for i in range(6)]


def images(drawn=("imagenet", "train", None, 0)):
    labels = np.repeat([0, 1], 6)
    files = ImageFiles(paths=tuple(NAMES), labels=labels, classes=("tench", "goldfish"))
    stream = ImageStream(files, lambda image: image)
    return Split(images=stream, labels=torch.from_numpy(labels), classes=files.classes, size_px=224, drawn=drawn)


@pytest.fixture
def lists(tmp_path, monkeypatch):
    (tmp_path / "10percent.txt").write_text("n01440761_3.JPEG\nn01440760_5.JPEG\n", encoding="utf-8")
    monkeypatch.setattr(few, "fetch", lambda name: tmp_path)
    return tmp_path


@pytest.mark.parametrize("seed", [0, 7])
def test_ten_percent_of_imagenet_are_those_of_the_published_list(lists, seed):
    assert few.labelled(images(), 0.1, seed=seed).tolist() == [5, 9]
    assert few.shown(images(), 0.1, seed=seed).nonzero()[:, 0].tolist() == [5, 9]


@pytest.mark.parametrize("drawn", [("imagenet", "train", 12, 0), ("imagenet100", "train", None, 0)])
def test_other_shares_and_other_images_are_drawn(lists, drawn):
    found = images(drawn)
    assert torch.equal(few.labelled(found, 0.1, seed=3), few_labels(found.labels, 0.1, seed=3))
    assert torch.equal(few.labelled(images(), 0.5, seed=3), few_labels(found.labels, 0.5, seed=3))


def test_an_image_of_the_list_that_is_not_there_is_told(lists):
    (lists / "10percent.txt").write_text("n01440761_99.JPEG\n", encoding="utf-8")
    with pytest.raises(EffbookError, match="1 of 1 images of the list are not in the data set"):
        few.labelled(images(), 0.1, seed=0)


def test_recipes_with_few_labels_of_imagenet_ask_for_the_lists_alone():
    assert "imagenet-lists" in make("cmsf-linear", share=0.01).datasets()
    assert "imagenet-lists" in make("cmsf-finetune", share=0.1).datasets()
    assert "imagenet-lists" in make("cmsf-train", method="cmsf-semi", labelled=0.1).datasets()
    assert "imagenet-lists" not in make("cmsf-linear").datasets()
    assert "imagenet-lists" not in make("cmsf-train", dataset="cifar10", method="cmsf-semi", labelled=0.1).datasets()


def test_small_images_at_the_size_of_photographs_are_cut_from_their_centre_as_photographs_are(monkeypatch):
    from torchvision.transforms.v2 import functional as V

    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)

    class Found:
        images, labels, classes = pixels, np.zeros(2, dtype=np.int64), ("one",)

        def __len__(self):
            return 2

    monkeypatch.setattr(splits, "load_images", lambda *_: Found())
    seen = splits.split("cifar10", "test", size_px=224, wanted=None, seed=0).images
    by_file = torch.stack([splits.centre(V.to_pil_image(torch.from_numpy(x).permute(2, 0, 1)), 224) for x in pixels])
    assert seen.shape == (2, 3, 224, 224)
    assert (seen.int() - by_file.int()).abs().max() <= 1  # two resizers round
    below = splits.split("cifar10", "test", size_px=64, wanted=None, seed=0).images
    assert torch.equal(below, splits._squares(torch.from_numpy(pixels), 64))
    assert below.shape[-1] == 64
