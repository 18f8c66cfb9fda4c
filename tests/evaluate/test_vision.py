import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.evaluate.vision import accuracy, features, nearest_neighbour


def test_accuracy_counts_in_percent():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0], [1.0, 0.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 0])) == 75.0


def test_nearest_neighbour_equals_a_plain_loop():
    g = torch.Generator().manual_seed(0)
    train, test = torch.randn(40, 7, generator=g), torch.randn(30, 7, generator=g) * 9
    train_y, test_y = torch.randint(0, 5, (40,), generator=g), torch.randint(0, 5, (30,), generator=g)
    right = 0
    for x, y in zip(test, test_y, strict=True):
        similarities = [torch.dot(x, t).item() / (x.norm() * t.norm()).item() for t in train]
        right += int(train_y[similarities.index(max(similarities))] == y)
    assert nearest_neighbour(train, train_y, test, test_y) == pytest.approx(100 * right / 30)


def test_nearest_neighbour_looks_at_the_angle_not_the_length():
    train = torch.tensor([[100.0, 0.0], [0.0, 0.01]])
    test = torch.tensor([[0.001, 0.0], [30.0, 90.0]])
    assert nearest_neighbour(train, torch.tensor([0, 1]), test, torch.tensor([0, 1])) == 100.0


class _Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.scale * x.mean(dim=(2, 3)))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_features_do_not_depend_on_the_batch_and_leave_the_mode_as_it_was(batch):
    model = _Mean().train()
    images = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    got = features(model, images, batch, transform=lambda x: x / 255)
    assert model.training
    assert not got.requires_grad
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, 2 * (images / 255).mean(dim=(2, 3)))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(EffbookError, match="do not go with"):
        accuracy(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))
    with pytest.raises(EffbookError, match="cannot classify"):
        nearest_neighbour(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 5), torch.zeros(3))
    with pytest.raises(EffbookError, match="in batches of 0"):
        features(_Mean(), torch.zeros(1, 3, 2, 2), 0)
