"""Regress, Regress-BN and CompRess beside slow twins that are written from section 2.2.4.1, in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck

from effbook.errors import EffbookError
from effbook.simreg import (
    CompRess,
    DistillSettings,
    RegressBN,
    Student,
    Teachers,
    compress_loss,
    make_method,
    regress_loss,
)
from effbook.training.views import Batch

BATCH, QUEUE, WIDE_IN, M, D = 4, 12, 6, 3, 5
SETTINGS = {"queue_size": QUEUE, "batch": BATCH, "seed": 3}


def drawn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(wide_out, *, seed, batch_norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(WIDE_IN, wide_out), *([nn.BatchNorm1d(wide_out)] if batch_norm else [])]
        return nn.Sequential(*layers)


def batches(count=7):
    for step in range(count):
        x = torch.randn(BATCH, WIDE_IN, generator=torch.Generator().manual_seed(100 + step))
        index = torch.arange(BATCH) + BATCH * step
        yield Batch(index, (x,), x.flip(0), torch.full((BATCH,), -1))  # two views, so that mixing them up shows


def compress(objective, *, head, **options):
    settings = DistillSettings(objective=objective, head=head, **SETTINGS, **options)
    student = Student(network(M, seed=1), M, [M if head == "none" else D], head=head, seed=2)
    teacher = network(D, seed=5)
    return make_method(student, Teachers([teacher], [D]), settings), student, teacher


def unit(rows):
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def slow_compress(student, teacher, student_queue, teacher_queue, temperature=0.04):
    """For each image the divergence of the student's similarities with the anchors from the teacher's."""
    student, teacher, total = unit(student), unit(teacher), 0.0
    for s, t in zip(student, teacher, strict=True):
        a = np.array([s @ anchor for anchor in student_queue]) / temperature
        b = np.array([t @ anchor for anchor in teacher_queue]) / temperature
        p, q = np.exp(b - b.max()), np.exp(a - a.max())
        p, q = p / p.sum(), q / q.sum()
        total += sum(x * (np.log(x) - np.log(y)) for x, y in zip(p, q, strict=True))
    return total / len(student)


def test_regress_is_the_mean_square_of_unnormalised_differences():
    p, t = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1, scale=5).requires_grad_()
    slow = sum((a - b) ** 2 for a, b in zip(p.flatten().tolist(), t.flatten().tolist(), strict=True)) / 12
    assert regress_loss(p, t).item() == pytest.approx(slow, abs=1e-12)
    assert gradcheck(lambda p: regress_loss(p, t), (p,))
    regress_loss(p, t).backward()
    assert t.grad is None
    assert regress_loss(2 * t, t).item() > 1  # lengths count


def test_regress_bn_compares_features_of_mean_zero_and_deviation_one():
    p, t = drawn(8, 3).requires_grad_(), drawn(8, 3, seed=1, scale=5).requires_grad_()
    norm = RegressBN(3).double()
    a, b = ((x.detach().numpy() - x.detach().numpy().mean(0)) for x in (p, t))
    a, b = (x / np.sqrt((x**2).mean(0) + 1e-5) for x in (a, b))
    assert norm(p, t).item() == pytest.approx(((a - b) ** 2).mean(), abs=1e-12)
    assert norm(7 * t + 2, t).item() == pytest.approx(0, abs=1e-9)
    assert gradcheck(lambda p: RegressBN(3).double()(p, t), (p,))
    assert t.grad is None
    assert not list(norm.parameters())


def test_the_loss_of_compress_is_its_slow_twin_with_the_right_gradient():
    s, t, qs, qt = drawn(4, M), drawn(4, D, seed=1, scale=3), drawn(9, M, seed=2), drawn(9, D, seed=3)
    qs, qt = F.normalize(qs, dim=1), F.normalize(qt, dim=1)
    found = compress_loss(s, t, qs, qt).item()
    assert found == pytest.approx(slow_compress(s.numpy(), t.numpy(), qs.numpy(), qt.numpy()), rel=1e-10)
    s, t = s.requires_grad_(), t.requires_grad_()
    assert gradcheck(lambda s: compress_loss(s, t, qs, qt, temperature=0.3), (s,))
    compress_loss(s, t, qs, qt).backward()
    assert t.grad is None


def test_two_queues_that_are_equal_are_one_queue():
    s, t, queue = drawn(4, D), drawn(4, D, seed=1), F.normalize(drawn(9, D, seed=3), dim=1)
    two = compress_loss(s, t, queue.clone(), queue)
    assert two.item() == compress_loss(s, t, queue, queue).item()
    assert compress_loss(t, t, queue, queue).item() == pytest.approx(0, abs=1e-12)


def test_one_queue_is_read_before_the_batch_enters_it():
    method, student, teacher = compress("compress-1q", head="linear")
    queue = method.bank.embeddings.double().numpy().copy()  # starts with random unit vectors
    pointer = 0
    for batch in batches():
        with torch.no_grad():
            f_s, f_t = student.heads[0](student.backbone(batch.strong[0])), teacher(batch.weak)
        f_s, f_t = f_s.double().numpy(), f_t.double().numpy()
        expected = slow_compress(f_s, f_t, queue, queue)
        loss = method.loss(batch)
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        loss.backward()
        for row in unit(f_t):
            queue[pointer] = row
            pointer = (pointer + 1) % QUEUE
        np.testing.assert_allclose(method.bank.embeddings.numpy(), queue, atol=1e-6)
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("head", ["none", "4L"])
def test_two_queues_hold_the_teacher_and_a_slow_copy_of_the_student(head):
    method, student, teacher = compress("compress-2q", head=head, momentum=0.7)
    student.train()
    slow = copy.deepcopy(student)
    queues = [method.bank.second.double().numpy().copy(), method.bank.embeddings.double().numpy().copy()]
    quick = torch.optim.SGD(method.trained(), 0.1)
    pointer = 0
    for batch in batches():
        with torch.no_grad():
            f_s, f_t = copy.deepcopy(student)(batch.strong[0])[0], teacher(batch.weak)
            for own, other in zip(slow.parameters(), student.parameters(), strict=True):
                own.copy_(0.7 * own + 0.3 * other)
            f_k = slow(batch.strong[0])[0]
        f_s, f_t, f_k = (x.double().numpy() for x in (f_s, f_t, f_k))
        loss = method.loss(batch)
        assert loss.item() == pytest.approx(slow_compress(f_s, f_t, *queues), rel=1e-3)
        quick.zero_grad()
        loss.backward()
        quick.step()
        for queue, rows in zip(queues, (unit(f_k), unit(f_t)), strict=True):
            queue[pointer : pointer + BATCH] = rows
        pointer = (pointer + BATCH) % QUEUE
        np.testing.assert_allclose(method.bank.second.numpy(), queues[0], atol=1e-5)
        np.testing.assert_allclose(method.bank.embeddings.numpy(), queues[1], atol=1e-5)
    assert not any(p.requires_grad for p in method.slow.parameters())
    assert len(method.trained()) == len(list(student.parameters()))


def test_the_method_with_two_queues_filled_alike_gives_the_loss_of_one_queue():
    one, *_ = compress("compress-1q", head="linear")
    two, *_ = compress("compress-2q", head="linear")
    two.bank.second.copy_(two.bank.embeddings)
    batch = next(batches())
    assert two.loss(batch).item() == one.loss(batch).item()


def test_the_queues_come_back_from_a_state():
    method, *_ = compress("compress-2q", head="none")
    for batch in batches(2):
        method.loss(batch)
    other, *_ = compress("compress-2q", head="none")
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.bank.second, method.bank.second)
    assert other.bank.pointer == method.bank.pointer == 2 * BATCH


def test_compress_has_one_teacher_and_a_queue_of_whole_batches():
    student = Student(network(M, seed=1), M, [D, D], head="linear", seed=2)
    with pytest.raises(EffbookError, match="CompRess with 2 teachers; give one"):
        make_method(student, Teachers([network(D, seed=5)] * 2, [D, D]), DistillSettings(objective="compress-1q"))
    with pytest.raises(EffbookError, match="a bank of 10 is no multiple of the batch of 4"):
        DistillSettings(objective="compress-1q", queue_size=10, batch=4)
    assert isinstance(compress("compress-1q", head="4L")[0], CompRess)
