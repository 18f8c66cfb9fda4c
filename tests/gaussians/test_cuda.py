"""On a card: gsplat's engine against the CPU's, in image and gradients, and K-means' assignment in bounded memory."""

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.gaussians.rasterise import render

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def drawn(gaussians, view, device):
    leaves = gaussians.map(lambda t: t.to(device).requires_grad_())
    seen = render(leaves, view, background=torch.tensor([0.2, 0.5, 0.7]))
    weigh = torch.randn(seen.image.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (seen.image * weigh).sum().backward()
    return seen.image.detach().cpu(), {name: t.grad.cpu() for name, t in leaves.tensors().items()}


@pytest.mark.parametrize(("n", "size"), [(200, -3.0), (2000, -4.0), (50, -1.0)])
def test_both_engines_draw_the_same_image_with_the_same_gradients(n, size):
    gaussians, view = scene(n, size=size, dtype=torch.float32), camera(96, 64)
    (ours, our_slopes), (theirs, their_slopes) = (drawn(gaussians, view, device) for device in ("cpu", "cuda"))
    assert float((ours - theirs).abs().max()) < 1e-3
    for name, slope in our_slopes.items():
        assert float((slope - their_slopes[name]).norm()) <= 1e-2 * float(slope.norm()), name


def test_three_million_values_find_their_codes_in_bounded_memory():
    from effbook.compgs.kmeans import BLOCK_BYTES, assign

    generator = torch.Generator().manual_seed(0)
    values, codes = torch.randn(3_000_000, 4, generator=generator), torch.randn(32_768, 4, generator=generator)
    on_card, codes_there = values.cuda(), codes.cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = assign(on_card, codes_there)
    assert torch.cuda.max_memory_allocated() - before < 3 * BLOCK_BYTES + 8 * len(values)
    some = slice(0, 20_000)
    wanted = torch.cdist(values[some].double(), codes.double()).argmin(1)
    assert float((found[some].cpu() == wanted).double().mean()) > 0.999
