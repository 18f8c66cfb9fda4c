"""The rasteriser against a twin that knows no tiles, forward and backward, and against gsplat's own torch functions."""

import dataclasses

import numpy as np
import pytest
import torch
from gaussians_twin import camera, colour_at, draw, scene

from effbook.errors import EffbookError
from effbook.gaussians import cuda, kernels, kernels_project
from effbook.gaussians import project as project_module
from effbook.gaussians.parameters import SH_C0
from effbook.gaussians.project import colours_seen, harmonics, project, rotation_matrices
from effbook.gaussians.rasterise import render

BACKGROUND = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64)


def leaves(gaussians):
    return gaussians.map(lambda t: t.clone().requires_grad_())


def gradients(image, light, gaussians, seed=3):
    generator = torch.Generator().manual_seed(seed)
    weigh = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    weigh_light = torch.randn(light.shape, generator=generator, dtype=light.dtype)
    total = (image * weigh).sum() + (light * weigh_light).sum()
    leaves = list(gaussians.tensors().values())
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves, found, strict=True)]


def near(found, wanted, rel=1e-9):
    assert float((found - wanted).abs().max()) <= rel * max(float(wanted.abs().max()), 1e-12)


@pytest.mark.parametrize(
    ("n", "size", "degree"),
    [(60, -3.0, 3), (60, -1.0, 2), (25, 0.5, 1), (200, -4.0, 0)],  # from dots to some that cover the image
)
def test_image_and_gradients_are_the_twins(n, size, degree):
    ours, theirs = leaves(scene(n, size=size)), leaves(scene(n, size=size))
    view = camera()
    seen = render(ours, view, background=BACKGROUND, sh_degree=degree)
    colours = colours_seen(theirs.sh_dc, theirs.sh_rest, theirs.means, view, degree)
    image, light = draw(theirs, view, BACKGROUND, colours)
    near(seen.image.detach(), image.detach())
    near(seen.light.detach(), light.detach())
    for found, wanted in zip(gradients(seen.image, seen.light, ours), gradients(image, light, theirs), strict=True):
        near(found, wanted, rel=1e-8)


def test_a_gradient_is_the_slope_of_the_image():
    """Central differences, far from where a Gaussian begins or ceases to touch a pixel."""
    base = scene(12, seed=5, size=-1.0)
    base.opacities = base.opacities.abs() + 0.5
    view = camera(16, 12)
    ours = leaves(base)
    seen = render(ours, view, background=BACKGROUND)
    weigh = torch.linspace(0.5, 1.5, seen.image.numel(), dtype=torch.float64).reshape(seen.image.shape)
    (seen.image * weigh).sum().backward()
    generator = torch.Generator().manual_seed(0)
    agreed = 0
    for name, tensor in base.tensors().items():
        for _ in range(6):
            place = int(torch.randint(tensor.numel(), (1,), generator=generator))
            totals = []
            for step in (1e-6, -1e-6):
                moved = base.detached()
                getattr(moved, name).view(-1)[place] += step
                totals.append(float((render(moved, view, background=BACKGROUND).image * weigh).sum()))
            slope, exact = (totals[0] - totals[1]) / 2e-6, float(getattr(ours, name).grad.view(-1)[place])
            agreed += abs(slope - exact) <= 1e-4 * max(abs(exact), 1e-2)
    assert agreed >= 34  # of 36: a step over the edge of 1/255 makes a jump


def test_the_result_does_not_depend_on_the_number_of_threads():
    import numba

    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            ours = leaves(scene(300, dtype=torch.float32))
            seen = render(ours, camera(70, 50), background=BACKGROUND.float())
            results.append((seen.image, *gradients(seen.image, seen.light, ours)))
        finally:
            numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (15, 17), (16, 16), (33, 5)])
def test_images_that_are_no_multiple_of_the_tile_are_drawn_to_the_edge(size):
    base, view = scene(40, size=-1.0), camera(*size)
    seen = render(base, view, background=BACKGROUND)
    image, _ = draw(base, view, BACKGROUND, colours_seen(base.sh_dc, base.sh_rest, base.means, view, 3))
    assert seen.image.shape == (size[1], size[0], 3)
    near(seen.image, image)


def test_nothing_in_view_leaves_the_background():
    base = scene(10)
    base.means = base.means - 100.0 * camera().world_to_camera[2, :3]  # behind the camera
    ours = leaves(base)
    seen = render(ours, camera(), background=BACKGROUND)
    assert len(seen.splats.index) == 0
    assert torch.equal(seen.image.detach(), BACKGROUND.expand_as(seen.image))
    assert torch.equal(seen.light.detach(), torch.ones_like(seen.light))
    assert all(float(g.abs().max()) == 0.0 for g in gradients(seen.image, seen.light, ours))


def test_half_precision_of_float_agrees_with_double():
    single = render(scene(200, dtype=torch.float32), camera(), background=BACKGROUND.float())
    double = render(scene(200), camera(), background=BACKGROUND)
    assert float((single.image.double() - double.image).abs().max()) < 2e-4


def test_what_is_in_front_hides_what_is_behind():
    base, view = scene(2, size=1.0), camera()
    ahead = view.world_to_camera[2, :3]
    base.means = torch.stack([view.position + 4 * ahead, view.position + 8 * ahead])
    base.opacities = torch.full((2,), 9.0, dtype=torch.float64)
    base.sh_rest = torch.zeros_like(base.sh_rest)
    base.sh_dc = torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.0, 0.4]], dtype=torch.float64) / SH_C0
    middle = render(base, view).image[view.height // 2, view.width // 2]
    assert middle[0] == pytest.approx(0.9, abs=2e-3)
    assert middle[2] == pytest.approx(0.5, abs=2e-3)


def test_the_pull_at_the_centres_is_kept_for_densification():
    ours = leaves(scene(50))
    seen = render(ours, camera())
    seen.image.sum().backward()
    assert seen.splats.means2d.grad.shape == (len(seen.splats.index), 2)
    assert float(seen.splats.means2d.grad.abs().max()) > 0


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_harmonics_are_those_of_their_definition(degree):
    generator = torch.Generator().manual_seed(1)
    base = scene(6, seed=2)
    directions = torch.nn.functional.normalize(torch.randn(6, 3, generator=generator, dtype=torch.float64), dim=-1)
    basis = harmonics(directions, degree)
    for i in range(6):
        rest = torch.einsum("b,bc->c", basis[i], base.sh_rest[i, : basis.shape[1]])
        found = (0.5 + SH_C0 * base.sh_dc[i] + rest).clamp(min=0)
        near(found, colour_at(base.sh_dc[i], base.sh_rest[i], directions[i], degree), rel=1e-7)


def test_projection_and_harmonics_are_those_of_gsplats_torch_functions():
    from gsplat.cuda import _torch_impl as theirs

    base, view = scene(300, dtype=torch.float64), camera()
    splats = project(base, view)
    covariances, _ = theirs._quat_scale_to_covar_preci(base.rotations, base.scales.exp(), True, False)
    lens = torch.tensor(
        [[view.focal_x, 0, view.centre_x], [0, view.focal_y, view.centre_y], [0, 0, 1]], dtype=torch.float64
    )
    radii, means2d, depths, conics, _ = theirs._fully_fused_projection(
        base.means, covariances, view.world_to_camera[None], lens[None], view.width, view.height, eps2d=0.3
    )
    index = splats.index
    near(splats.means2d, means2d[0, index])
    near(splats.conics, conics[0, index])
    near(splats.depths, depths[0, index])
    assert (radii[0, index] >= splats.extents).all()  # ours end where alpha is 1 / 255, theirs never before
    directions = base.means[index] - view.position
    seen = theirs._spherical_harmonics(3, directions, torch.cat([base.sh_dc[:, None], base.sh_rest], dim=1)[index])
    near(splats.colours, (seen + 0.5).clamp(min=0))


def test_rotations_are_those_of_unit_quaternions_whatever_their_length():
    from scipy.spatial.transform import Rotation

    quaternions = scene(20).rotations
    found = rotation_matrices(3.7 * quaternions)
    wanted = Rotation.from_quat(quaternions.numpy()[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_a_real_scenes_excerpt_is_drawn_alike_by_both_projections():
    """138,766 points of a garden with its cameras, where the file is at hand (it is not shipped)."""
    from pathlib import Path

    path = Path(__file__).parents[3] / "shared" / "data" / "gsplat_test_garden.npz"
    if not path.exists():
        pytest.skip("the excerpt of the garden scene is not here")
    data = np.load(path, allow_pickle=False)
    keep = slice(0, None, 40)
    points = torch.from_numpy(data["means3d"][keep]).double()
    base = scene(len(points), size=-4.0)
    base = dataclasses.replace(base, means=points)
    lens, pose = data["Ks"][0].astype(float), torch.from_numpy(data["viewmats"][0]).double()
    factor = 0.25
    view = dataclasses.replace(
        camera(),
        world_to_camera=pose,
        width=int(data["width"]),
        height=int(data["height"]),
        focal_x=lens[0, 0],
        focal_y=lens[1, 1],
        centre_x=lens[0, 2],
        centre_y=lens[1, 2],
    ).scaled(factor)
    seen, splats = render(base, view), project(base, view)
    assert torch.equal(seen.splats.index, splats.index)
    assert len(splats.index) > 500
    for name in ("means2d", "conics", "colours", "opacities", "extents", "depths"):
        near(getattr(seen.splats, name), getattr(splats, name))


def test_the_kernels_have_the_constants_of_the_projection():
    """They stand in their files once more, as numba's cache would not notice a change elsewhere."""
    for name in ("BLUR", "NEAR", "LEAST_ALPHA", "MOST_PX", "MARGIN", "SH_C0"):
        assert getattr(kernels_project, name) == getattr(project_module, name), name
    assert kernels.LEAST_ALPHA == project_module.LEAST_ALPHA
    assert kernels.TILE == cuda.TILE


def test_an_engine_that_does_not_fit_the_device_is_refused():
    with pytest.raises(EffbookError, match="gsplat cannot draw Gaussians on cpu"):
        render(scene(5), camera(), engine="gsplat")
