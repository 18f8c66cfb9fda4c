"""The grid search of A.2.2.4."""

import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.evaluate.logistic import LogisticSettings, fit_logistic
from effbook.evaluate.transfer import TransferSettings, search


def test_a_grid_tries_all_pairs_of_values_that_are_even_in_the_logarithm():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=draw), torch.arange(60) % 3
    base = LogisticSettings(iterations=2)
    settings = TransferSettings(grid=(3, 2), lr=(1e-3, 1e-1), weight_decay=(1e-6, 1e-2), base=base)
    found = search((x[:40], y[:40]), (x[40:], y[40:]), settings=settings)
    pairs = [(t.settings.lr, t.settings.weight_decay) for t in found]
    wanted = [(lr, wd) for lr in (1e-3, 1e-2, 1e-1) for wd in (1e-6, 1e-2)]
    assert torch.allclose(torch.tensor(pairs), torch.tensor(wanted))
    assert all(t.settings.iterations == 2 for t in found)
    layer: nn.Linear = fit_logistic(x[:40], y[:40], classes=3, settings=found[4].settings)
    assert found[4].score == 100 * (layer(x[40:]).argmax(1) == y[40:]).double().mean().item()


def test_an_empty_grid_is_refused():
    with pytest.raises(EffbookError, match="holds no setting"):
        TransferSettings(grid=(0, 3))
