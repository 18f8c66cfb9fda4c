"""Convolutional encoders: whitening against a slow twin, shapes, seeds, and the global state left alone."""

import numpy as np
import pytest
import torch

from effbook import data
from effbook.backbones.convnets import mobilenet_v2, resnet, small_resnet, whitening
from effbook.errors import EffbookError


def pictures(count=60, seed=0):
    draw = torch.Generator().manual_seed(seed)
    smooth = torch.rand(count, 3, 4, 4, generator=draw)
    return torch.nn.functional.interpolate(smooth, 16, mode="bilinear") + 0.1 * torch.rand(
        count, 3, 16, 16, generator=draw
    )


def patches_of(images):
    """[n, 48], one after another."""
    found = []
    for image in images.double().numpy():
        for top in range(0, 16, 4):
            for left in range(0, 16, 4):
                found.append(image[:, top : top + 4, left : left + 4].reshape(-1))
    return np.array(found)


def test_whitened_patches_are_uncorrelated_with_variance_near_one():
    x = pictures()
    patches = patches_of(x)
    filters = whitening(x, filters=48, epsilon=1e-6).double().numpy().reshape(48, 48)
    found = np.cov(patches @ filters.T, rowvar=False)
    np.testing.assert_allclose(found, np.eye(48), atol=0.01)


def test_each_filter_is_a_principal_component_over_the_root_of_variance_and_epsilon():
    x, epsilon = pictures(), 1e-2
    patches = patches_of(x)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False, bias=True))
    filters = whitening(x, filters=20, epsilon=epsilon).double().numpy().reshape(20, 48)
    for row, value, vector in zip(filters, values[:-21:-1], vectors.T[:-21:-1], strict=True):
        wanted = vector / np.sqrt(value + epsilon * values.mean())
        assert min(np.abs(row - wanted).max(), np.abs(row + wanted).max()) < 1e-3
        assert row[np.abs(row).argmax()] > 0


def test_a_small_resnet_is_drawn_from_its_seed_alone():
    x, before = pictures(), torch.get_rng_state()
    one, again, other = (small_resnet(x, widths=(4, 8), blocks=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one(x[:5]).shape == (5, one.num_features) == (5, 8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert "filters" not in dict(one.named_parameters())


def test_a_resnet_for_small_images_keeps_their_size_at_the_beginning():
    model = resnet("resnet18", small_images=True)
    assert model.conv1.stride == (1, 1)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, model.num_features) == (2, 512)
    assert resnet("resnet18", channels=2).conv1.weight.shape == (64, 2, 7, 7)


def test_what_is_no_encoder_is_refused():
    with pytest.raises(EffbookError, match="there is no ResNet named 'vgg'"):
        resnet("vgg")
    with pytest.raises(EffbookError, match="have no patches"):
        whitening(torch.zeros(2, 3, 3, 8))


@pytest.mark.data
@pytest.mark.skipif(not data.is_cached("mobilenet-v2"), reason="mobilenet-v2 is not in the cache")
def test_the_packaged_mobilenet_gives_1280_features():
    model = mobilenet_v2()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)
    assert not model.training
