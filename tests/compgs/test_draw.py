"""Drawing a compressed scene without unpacking it, and what the CUDA engine hands to gsplat."""

import sys

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.compgs import CompGSSettings, books, compress, read, write
from effbook.compgs import render as render_compressed
from effbook.compgs.inspect import cameras_around, pictures_apart
from effbook.gaussians import cuda
from effbook.gaussians.project import project
from effbook.gaussians.rasterise import draw_splats, render

SETTINGS = CompGSSettings(books=books(colour=8, covariance=16))


def single(n=200, size=-1.5):
    return scene(n, size=size).map(torch.Tensor.float)


@pytest.mark.parametrize("rows", [7, 64, 10**6])
def test_the_picture_is_that_of_the_decoded_scene(rows):
    small, view, background = compress(single(), SETTINGS), camera(), torch.tensor([0.2, 0.5, 0.7])
    found = render_compressed(small, view, background=background, rows=rows)
    torch.testing.assert_close(found, render(small.decode(), view, background=background).image, atol=2e-5, rtol=0)


def test_at_rest_a_compressed_scene_takes_a_fraction_of_the_memory():
    small = compress(single(4000), SETTINGS)
    plain = sum(t.numel() * t.element_size() for t in small.decode().tensors().values())
    assert plain == 236 * 4000
    assert small.bytes_at_rest() < plain / 6


def test_a_scene_read_back_draws_the_same_picture(tmp_path):
    small, view = compress(single(), SETTINGS), camera()
    write(small, tmp_path / "scene.compgs")
    found = render_compressed(read(tmp_path / "scene.compgs"), view)
    torch.testing.assert_close(found, render_compressed(small, view), atol=2e-5, rtol=0)


class FakeGsplat:
    """Takes the shapes that gsplat documents, and blends by our own kernels."""

    @staticmethod
    def isect_tiles(means2d, radii, depths, tile_size, tile_width, tile_height):
        assert means2d.shape[0] == 1
        assert radii.shape == means2d.shape
        assert radii.dtype == torch.int32
        assert depths.shape == means2d.shape[:2]
        FakeGsplat.seen = (radii, depths, tile_size, tile_width, tile_height)
        return torch.ones(1, means2d.shape[1]), torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int32)

    @staticmethod
    def isect_offset_encode(isect_ids, n_images, tile_width, tile_height):
        return torch.zeros(n_images, tile_height, tile_width, dtype=torch.int32)

    @staticmethod
    def rasterize_to_pixels(means2d, conics, colors, opacities, width, height, tile, offsets, order, backgrounds):
        assert offsets.shape == (1, -(-height // tile), -(-width // tile))
        assert backgrounds.shape == (1, 3)
        weights = opacities[0][:, None] * colors[0]
        image = weights.sum(0) + backgrounds[0] + 0 * means2d.sum() + 0 * conics.sum()
        return image.expand(1, height, width, 3), torch.full((1, height, width, 1), 0.25)


def test_the_cuda_engine_gives_gsplat_what_it_documents(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", FakeGsplat)
    monkeypatch.setattr(cuda.toolkit, "check", lambda: None)
    model = single().map(lambda t: t.requires_grad_())
    splats = project(model, camera())
    image, light = cuda.blend(splats, torch.ones(3), 40, 28)
    assert image.shape == (28, 40, 3)
    assert (light == 0.75).all()
    radii, _, *tiles = FakeGsplat.seen
    assert (radii[0] >= splats.extents).all()
    assert tiles == [16, 3, 2]
    image.sum().backward()
    assert float(model.sh_dc.grad.abs().sum()) > 0


def test_splats_that_are_projected_already_are_drawn_as_render_draws_them():
    model, view = single(), camera()
    drawn = draw_splats(project(model, view), torch.zeros(3), view.width, view.height)
    torch.testing.assert_close(drawn, render(model, view).image, atol=2e-5, rtol=0)


def test_cameras_around_a_scene_see_it():
    model = single(500)
    for view in cameras_around(model, views=3, size_px=32):
        assert len(project(model, view).index) > 400
    assert pictures_apart(model, model) == [100.0] * 6
