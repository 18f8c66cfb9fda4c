"""Features from any depth, and their length."""

import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.simreg import features_at, prediction_head, reduced


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twice = nn.ReLU()
        body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), twice, nn.Conv2d(4, 16, 3, 2), twice)
        return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), prediction_head(16, 5, seed=0))


def images(count=7):
    return torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_each_depth_gives_what_its_module_gives_in_evaluation_mode():
    model = net()
    found = features_at(model, images(), ["0.0", "1", "2.2", "2"], batch=3)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    model.eval()
    with torch.no_grad():
        first = model[0][0](images())
        torch.testing.assert_close(found["0.0"], first.mean((2, 3)))
        torch.testing.assert_close(found["1"], model[1](model[0](images())))
        torch.testing.assert_close(found["2"], model(images()))
    assert found["2.2"].min() >= 0  # after the ReLU within the head


def test_maps_of_all_depths_are_reduced_to_about_one_length():
    found = features_at(net(), images(), ["0.0", "0.3", "1"], length=16)
    assert {name: tuple(x.shape) for name, x in found.items()} == {"0.0": (7, 16), "0.3": (7, 16), "1": (7, 16)}


def test_space_is_reduced_to_means_of_blocks():
    x = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    blocks = [x[:, :, i : i + 2, j : j + 2].mean((2, 3)) for i in (0, 2) for j in (0, 2)]
    torch.testing.assert_close(reduced(x, 12), torch.stack(blocks, 2).flatten(1))
    assert reduced(x, 10_000).shape == (2, 48)  # never longer than the map
    torch.testing.assert_close(reduced(x, 1), x.mean((2, 3)))
    tokens = torch.arange(2 * 6 * 3.0).view(2, 6, 3)
    torch.testing.assert_close(reduced(tokens), tokens.mean(1))
    assert reduced(tokens, 9).shape == (2, 9)
    assert reduced(x[:, 0, 0], 1).shape == (2, 4)


def test_what_has_no_features_is_refused():
    with pytest.raises(EffbookError, match=r"the network has no module 'conv9'; choose among 0, "):
        features_at(net(), images(), ["conv9"])
    with pytest.raises(EffbookError, match=r"'0.2' is called 2 times an image; choose a module that is called once"):
        features_at(net(), images(), ["0.2"])
    with pytest.raises(EffbookError, match="cannot be reduced"):
        reduced(torch.zeros(2))
    attention = nn.MultiheadAttention(4, 1)
    model = nn.Sequential()
    model.add_module("attention", attention)
    model.forward = lambda x: attention(x, x, x)
    with pytest.raises(EffbookError, match="'attention' gives tuple, no tensor; choose a module within it"):
        features_at(model, torch.zeros(2, 3, 4), ["attention"])
