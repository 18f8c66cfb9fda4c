"""Scenes that pages show: a few views of them, finished ones, and what sharing codes for a moment does."""

import pytest
import torch

from effbook.compgs import Book
from effbook.experiments.compgs import gallery


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("DATA", "WORK", "RECORDS"):
        monkeypatch.setenv(f"EFFBOOK_{name}", str(tmp_path / name))


@pytest.fixture
def finished(own_folders):
    return gallery.finished("mini")


def test_without_a_record_the_toy_scene_is_trained_and_says_its_scale(finished):
    assert finished.scale == "smoke"
    assert finished.scene.name == "metals"
    assert gallery.view(finished, 0).shape == gallery.photo(finished, 0).shape == (24, 24, 3)


def test_positions_that_share_codes_fall_into_as_many_places(finished):
    shared = gallery.trained_on(finished, (Book(("means",), 7),), steps=3)
    assert len(shared.model) == len(finished.model)
    assert len(shared.model.decode().means.unique(dim=0)) <= 7
    assert shared.scene is finished.scene


def test_foreign_codes_stay_as_they_are(finished):
    codes = torch.linspace(-1, 1, 9).view(3, 3)
    model = gallery.trained_on(finished, (Book(("sh_dc",), 3),), steps=3, frozen={("sh_dc",): codes}).model
    assert torch.equal(model.codebooks[0].codes, codes)
