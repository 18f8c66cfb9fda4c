import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.evaluate.finetuning import FinetuneSettings, finetune


def _drawn(n=21, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g, dtype=torch.float64), torch.randint(classes, (n,), generator=g)


def _network(batch_norm=False):
    """An encoder of one layer and a head, with weights of their own."""
    g = torch.Generator().manual_seed(9)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5) if batch_norm else nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=g, dtype=torch.float64) / 2)
    return model


def _weights(model):
    return torch.cat([each.detach().flatten() for each in model.parameters()])


@pytest.mark.parametrize("batch", [21, 6])
def test_fine_tuning_equals_gradients_written_out(batch):
    x, y = _drawn()
    settings = FinetuneSettings(epochs=5, milestones=(2, 4), lr=0.2, weight_decay=0.05, batch=batch, seed=2)
    model = _network()
    w1, b1, w2, b2 = (each.detach().clone() for each in model.parameters())
    parameters, speeds = [w1, b1, w2, b2], [torch.zeros_like(each) for each in (w1, b1, w2, b2)]
    g, losses = torch.Generator().manual_seed(2), []
    for epoch in range(5):
        lr = 0.2 * (1 if epoch < 2 else 0.1 if epoch < 4 else 0.01)
        total = 0.0
        for rows in torch.randperm(21, generator=g).split(batch):
            w1, b1, w2, b2 = parameters
            hidden = torch.tanh(x[rows] @ w1.T + b1)
            chances = torch.softmax(hidden @ w2.T + b2, dim=1)
            total -= chances[range(len(rows)), y[rows]].log().sum().item()
            off = (chances - torch.eye(3, dtype=x.dtype)[y[rows]]) / len(rows)
            back = (off @ w2) * (1 - hidden**2)
            for i, gradient in enumerate((back.T @ x[rows], back.sum(0), off.T @ hidden, off.sum(0))):
                speeds[i] = 0.9 * speeds[i] + gradient + 0.05 * parameters[i]
                parameters[i] = parameters[i] - lr * speeds[i]
        losses.append(total / 21)
    got = finetune(model, x, y, classes=3, settings=settings)
    torch.testing.assert_close(_weights(model), torch.cat([each.flatten() for each in parameters]))
    assert got == pytest.approx(losses)


def test_all_of_the_network_moves_and_the_loss_falls():
    x, y = _drawn()
    model, before = _network(), [each.detach().clone() for each in _network().parameters()]
    losses = finetune(model, x, y, classes=3, settings=FinetuneSettings(lr=0.1))
    assert all(not torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True))
    assert losses[-1] < losses[0]


def test_images_reach_the_network_through_augment_and_its_generator():
    x, y = _drawn()
    settings = FinetuneSettings(epochs=2, batch=8, lr=0.1)
    seen = []

    def shifted(images, generator):
        seen.append(torch.rand((), generator=generator).item())
        return images + 1

    one, two, three = _network(), _network(), _network()
    finetune(one, x, y, classes=3, settings=settings, augment=shifted)
    assert len(set(seen)) == len(seen) == 6
    finetune(two, x, y, classes=3, settings=settings, augment=shifted)
    assert seen[:6] == seen[6:]
    assert torch.equal(_weights(one), _weights(two))
    full = FinetuneSettings(epochs=2, batch=21, lr=0.1)  # no batches to draw: the shift is all there is
    finetune(two := _network(), x, y, classes=3, settings=full, augment=lambda images, _: images + 1)
    finetune(three, x + 1, y, classes=3, settings=full)
    torch.testing.assert_close(_weights(two), _weights(three))


def test_a_last_batch_of_one_is_left_out_for_batch_norm_and_the_mode_is_put_back():
    x, y = _drawn()
    model = _network(batch_norm=True).eval()
    losses = finetune(model, x, y, classes=3, settings=FinetuneSettings(epochs=2, batch=20))
    assert len(losses) == 2
    assert not model.training


def test_images_may_be_anything_that_gives_a_batch():
    x, y = _drawn()

    class Lazy:
        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            return torch.stack([x[i] for i in index.tolist()])

    one, two = _network(), _network()
    finetune(one, x, y, classes=3, settings=FinetuneSettings(epochs=2, batch=6))
    finetune(two, Lazy(), y, classes=3, settings=FinetuneSettings(epochs=2, batch=6))
    assert torch.equal(_weights(one), _weights(two))


def test_bad_input_is_told_in_one_sentence():
    x, y = _drawn()
    with pytest.raises(EffbookError, match="outside 0 to 1"):
        finetune(_network(), x, y, classes=2, settings=FinetuneSettings())
    with pytest.raises(EffbookError, match="do not go with 21"):
        finetune(_network(), x, y[:5], classes=3, settings=FinetuneSettings())
    with pytest.raises(EffbookError, match="One image is too few"):
        finetune(_network(), x[:1], y[:1], classes=3, settings=FinetuneSettings())
    with pytest.raises(EffbookError, match="smaller learning rate"):
        finetune(_network(), x * 1e200, y, classes=3, settings=FinetuneSettings(lr=1e300))
    with pytest.raises(EffbookError, match="above zero"):
        FinetuneSettings(epochs=0)
