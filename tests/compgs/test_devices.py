"""Tensors and generators that a method makes on its own lie where its data lie.

No card is at hand: the data lie on the CPU, which stands for a card, while what is made without a device lands on
`meta`. Mixing the two raises, and so does moving to the data what a generator drew into the default device.
"""

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.compgs import Book, CompGSSettings, compress, fit, kmeans, render
from effbook.compgs.inspect import cameras_around, pictures_apart
from effbook.gaussians import train
from effbook.gaussians.config import DensitySettings, TrainSettings
from effbook.gaussians.formats import write_ply, write_splat, write_spz
from effbook.gaussians.model import from_points
from effbook.gaussians.project import project

BOOKS = (Book(("sh_dc",), 4), Book(("scales", "rotations"), 4))


@pytest.fixture
def elsewhere():
    """A scene and a view; what is made afterwards without a device is on `meta`."""
    made = scene(60, dtype=torch.float32), camera(24, 20), torch.rand(20, 24, 3)
    with torch.device("meta"):
        yield made


def test_the_stand_in_refuses_what_a_card_refuses(elsewhere):
    gaussians, _, _ = elsewhere
    with pytest.raises(RuntimeError, match="meta"):
        _ = gaussians.means + torch.zeros(3)
    with pytest.raises(NotImplementedError, match="meta"):
        torch.randn(3, generator=torch.Generator()).to(gaussians.means)


def test_training_with_density_control_quantisation_and_penalty_keeps_to_its_device(elsewhere, tmp_path):
    gaussians, view, image = elsewhere
    density = DensitySettings(start=1, end=8, interval=2, reset_interval=3, gradient_threshold=1e-9)
    training = TrainSettings(iterations=14, sh_interval=4, density=density, background=(1.0, 1.0, 1.0))
    settings = CompGSSettings(
        books=BOOKS, start=10, interval=2, end=12, penalty=1e-3, penalty_start=8, penalty_end=14, prune_interval=2
    )
    states = []

    def keep(state):
        train.save_state(state, tmp_path / "state")
        states.append(train.load_state(tmp_path / "state"))

    small = fit(gaussians, [view], [image], training, settings, extent=2.0, keep=keep)
    assert len(states[-1].gaussians) > len(gaussians)  # it was densified
    assert {t.device.type for t in small.decode().tensors().values()} == {"cpu"}
    assert torch.isfinite(render(small, view)).all()


def test_a_cloud_of_points_clusters_projections_and_pictures_keep_to_their_device(elsewhere, tmp_path):
    gaussians, view, _ = elsewhere
    start = from_points(gaussians.means, gaussians.sh_dc.sigmoid())
    assert len(project(start, view).index) > 0
    codes = gaussians.scales[:5]
    assert torch.equal(kmeans.assign(gaussians.scales, codes), kmeans.assign_in_blocks(gaussians.scales, codes))
    small = compress(gaussians, CompGSSettings(books=BOOKS), iterations=2)
    assert len(pictures_apart(gaussians, small.decode())) == len(cameras_around(gaussians))
    for write in (write_ply, write_splat, write_spz):
        write(gaussians, tmp_path / "scene", **({} if write is write_ply else {"say": [].append}))
