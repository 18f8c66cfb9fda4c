"""The previous epoch's cache."""

import pytest
import torch
import torch.nn.functional as F

from effbook.cmsf.previous import EpochCache
from effbook.errors import EffbookError


def rows(count, dim=3, seed=0):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_cache_knows_which_images_it_has_seen():
    cache = EpochCache(5, 3)
    u = rows(3)
    cache.write(torch.tensor([4, -1, 0]), u)
    found, known = cache.read(torch.tensor([0, 1, 4]))
    assert known.tolist() == [True, False, True]
    assert torch.equal(found[[0, 2]], u[[2, 0]])
    with pytest.raises(EffbookError, match="do not fit a cache of 5 images"):
        cache.read(torch.tensor([5]))
    with pytest.raises(EffbookError, match="number the training images from 0"):
        cache.read(torch.tensor([-1]))


def test_what_is_on_the_training_device_does_not_grow_with_the_data_set():
    """The cache gives the rows of the batch alone; the bank has the same size whatever the number of images."""
    small, large = EpochCache(10, 4), EpochCache(100_000, 4)
    for cache in (small, large):
        found, known = cache.read(torch.arange(8))
        assert found.untyped_storage().nbytes() == 8 * 4 * 4
        assert len(known) == 8
    assert large.embeddings.device.type == "cpu"
