"""The loss against loops over queries and positives, forward and backward."""

import torch
import torch.nn.functional as F

from effbook.cmsf.constraints import Positives
from effbook.cmsf.loss import mean_shift_loss
from effbook.training.bank import Bank


def setting(crops=None):
    draw = torch.Generator().manual_seed(0)
    bank = Bank(8, 4)
    bank.embeddings = F.normalize(torch.randn(8, 4, generator=draw, dtype=torch.float64), dim=1).requires_grad_()
    raw = torch.randn(*([3, 4] if crops is None else [crops, 3, 4]), generator=draw, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    return bank, raw.requires_grad_(), Positives(torch.tensor([[0, 5, 1], [7, 2, 3], [4, 4, 4]]), mask)


def twin(v, bank, positives):
    """Mean over the queries, and over each one's positives, of 2 - 2 cos."""
    total = 0.0
    for i in range(len(v)):
        places = positives.mask[i].nonzero().flatten().tolist()
        chosen = places if positives.positions is None else [int(positives.positions[i, j]) for j in places]
        for j in chosen:
            z = bank.embeddings[j].detach()
            total = total + (2 - 2 * (v[i] @ z) / (v[i].norm() * z.norm())) / len(chosen)
    return total / len(v)


def test_the_loss_is_the_mean_over_queries_and_their_positives():
    for whole_bank in (False, True):
        bank, raw, positives = setting()
        if whole_bank:
            mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) < 0.5
            positives = Positives(None, mask)
        fast, slow = mean_shift_loss(F.normalize(raw, dim=1), bank, positives), twin(raw, bank, positives)
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(loss, raw)[0] for loss in (fast, slow)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_no_gradient_reaches_the_targets():
    bank, raw, positives = setting()
    mean_shift_loss(F.normalize(raw, dim=1), bank, positives).backward()
    assert bank.embeddings.grad is None
    assert raw.grad.abs().sum() > 0


def test_several_crops_share_the_positives():
    bank, raw, positives = setting(crops=2)
    v = F.normalize(raw, dim=-1)
    each = [mean_shift_loss(one, bank, positives) for one in v]
    torch.testing.assert_close(mean_shift_loss(v, bank, positives), sum(each) / 2)


def test_a_query_without_positives_adds_nothing():
    bank, raw, positives = setting()
    loss = mean_shift_loss(F.normalize(raw, dim=1), bank, positives)
    (gradient,) = torch.autograd.grad(loss, raw)
    assert gradient[2].abs().max() == 0
    assert torch.isfinite(gradient).all()
