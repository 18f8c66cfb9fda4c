"""Views of any data set, for the training loop."""

from typing import NamedTuple

import pytest
import torch
from torch.utils.data import TensorDataset

from effbook.errors import EffbookError
from effbook.training.views import Batch, Views

IMAGES = 36


def images(count=IMAGES):
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def noisy(x, draw):
    return x + 0.1 * torch.randn(x.shape, generator=draw)


def test_views_are_the_same_for_any_form_of_the_data_and_any_number_of_workers():
    x, y = images(), torch.arange(IMAGES) % 3
    order = [torch.tensor([5, 2, 7]), torch.tensor([1, 0, 3])]
    plain = [(one, int(label)) for one, label in zip(x, y, strict=True)]
    forms = [Views(form, strong=noisy, weak=noisy, crops=[noisy], workers=workers)
             for form, workers in ((TensorDataset(x, y), 0), (plain, 0), (plain, 1))]  # fmt: skip
    first, *others = [list(form.batches(order, epoch=3)) for form in forms]
    assert first[0].label.tolist() == [2, 2, 1]
    assert len(first[0].strong) == 2
    assert not torch.equal(first[0].strong[0], first[0].weak)
    assert not torch.equal(first[0].weak, next(iter(forms[0].batches(order, epoch=4))).weak)
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert torch.equal(one.index, two.index)
            assert torch.equal(one.label, two.label)
            assert torch.equal(one.weak, two.weak)
            assert all(map(torch.equal, one.strong, two.strong))


def test_images_without_labels_have_none():
    for form in (images(), list(images()), [(one, None) for one in images()]):
        (batch,) = Views(form, strong=noisy, weak=noisy).batches([torch.tensor([3, 4])], epoch=0)
        assert isinstance(batch, Batch)
        assert batch.label.tolist() == [-1, -1]
    with pytest.raises(EffbookError, match="a label is -2"):
        list(Views([(images()[0], -2)], strong=noisy, weak=noisy).batches([torch.tensor([0])], epoch=0))
    with pytest.raises(EffbookError, match="the data set is empty"):
        Views([], strong=noisy, weak=noisy)


def test_an_item_that_stands_in_for_another_says_so_and_draws_as_the_other_would():
    class Item(NamedTuple):
        image: torch.Tensor
        label: int
        index: int

    stood_in = [Item(images()[3], 7, 3) if i == 2 else (images()[i], i) for i in range(4)]
    (batch,) = Views(stood_in, strong=noisy, weak=noisy).batches([torch.tensor([2, 1])], epoch=0)
    assert (batch.index.tolist(), batch.label.tolist()) == ([3, 1], [7, 1])
    (other,) = Views([(images()[i], 0) for i in (0, 1, 3)], strong=noisy, weak=noisy).batches(
        [torch.tensor([2, 1])], epoch=0
    )
    assert torch.equal(batch.strong[0], other.strong[0])
