"""The banks M and M'."""

import pytest
import torch
import torch.nn.functional as F

from effbook.errors import EffbookError
from effbook.training.bank import Bank


def rows(count, dim=3, seed=0):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_a_new_bank_holds_random_unit_vectors_that_are_no_images():
    bank = Bank(6, 3, seed=1)
    torch.testing.assert_close(bank.embeddings.norm(dim=1), torch.ones(6))
    assert (bank.index == -1).all()
    assert (bank.label == -1).all()
    assert bank.filled == 0
    assert torch.equal(bank.embeddings, Bank(6, 3, seed=1).embeddings)
    assert not torch.equal(bank.embeddings, Bank(6, 3, seed=2).embeddings)


def test_the_oldest_entries_are_replaced():
    bank = Bank(4, 3)
    for step in range(3):
        u = rows(2, seed=step)
        positions = bank.enqueue(u, torch.tensor([2 * step, 2 * step + 1]), torch.tensor([step, step]))
        assert torch.equal(bank.embeddings[positions], u)
    assert bank.index.tolist() == [4, 5, 2, 3]
    assert bank.label.tolist() == [2, 2, 1, 1]
    assert bank.filled == 4
    assert bank.oldest(2)[0].tolist() == [2, 3]


def test_a_bank_that_is_no_multiple_of_the_batch_is_refused():
    bank = Bank(6, 3)
    with pytest.raises(EffbookError, match="a bank of 6 is no multiple of the batch of 4"):
        bank.enqueue(rows(4), torch.arange(4), torch.zeros(4, dtype=torch.int64))
    bank.enqueue(rows(2), torch.arange(2), torch.zeros(2, dtype=torch.int64))
    bank.enqueue(rows(2), torch.arange(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(EffbookError, match="several sizes"):
        bank.enqueue(rows(3), torch.arange(3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(EffbookError, match="do not go together"):
        bank.enqueue(rows(2), torch.arange(2), torch.zeros(2, dtype=torch.int64), second=rows(2))


def test_a_bank_comes_back_from_its_state_with_its_pointer():
    bank = Bank(4, 3, second_dim=2)
    known = torch.tensor([True, False])
    bank.enqueue(rows(2), torch.arange(2), torch.arange(2), second=rows(2, 2), known=known)
    other = Bank(4, 3, second_dim=2, seed=9)
    other.load_state_dict(bank.state_dict())
    for each in (bank, other):
        each.enqueue(rows(2, seed=5), torch.arange(2), torch.arange(2), second=rows(2, 2, seed=5))
    for name, value in bank.state_dict().items():
        assert torch.equal(torch.as_tensor(other.state_dict()[name]), torch.as_tensor(value)), name
    assert bank.known.tolist() == [True, False, True, True]
    with pytest.raises(EffbookError, match="the checkpoint is of another bank"):
        Bank(8, 3, second_dim=2).load_state_dict(bank.state_dict())
    with pytest.raises(EffbookError, match=r"second: \(4, 2\) where nothing is needed"):
        Bank(4, 3).load_state_dict(bank.state_dict())
