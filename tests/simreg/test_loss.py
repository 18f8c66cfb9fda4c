"""The losses beside slow twins that are written from section 2.2.3, in float64."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from effbook.errors import EffbookError
from effbook.simreg import (
    class_probabilities,
    distillation_loss,
    multi_teacher_loss,
    prediction_head,
    regression_loss,
    supervised_loss,
)


def drawn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(v):
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def slow_regression(predicted, target):
    """The squared Euclidean distance of l2-normalised features, image by image."""
    total = 0.0
    for p, t in zip(predicted.tolist(), target.tolist(), strict=True):
        total += sum((a - b) ** 2 for a, b in zip(unit(p), unit(t), strict=True))
    return total / len(predicted)


def slow_softmax(logits, temperature):
    exps = [math.exp(f / temperature) for f in logits]
    return [e / sum(exps) for e in exps]


def slow_supervised(student, teacher, labels, weight, tau_s, tau_t):
    """Eq. 2.1 to 2.3, with Eq. 2.2 as the divergence: its sign mended, less the entropy of the teacher."""
    total = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        y_t, y_s = slow_softmax(t, tau_t), slow_softmax(s, tau_s)
        entropy = -sum(p * math.log(p) for p in y_t)
        divergence = -sum(p * math.log(q) for p, q in zip(y_t, y_s, strict=True)) - entropy
        total += -weight * math.log(slow_softmax(s, 1.0)[y]) + (1 - weight) * tau_s**2 * divergence
    return total / len(labels)


def test_regression_is_its_slow_twin_and_two_minus_two_cosines():
    p, t = drawn(7, 5), drawn(7, 5, seed=1, scale=30)
    found = regression_loss(p, t).item()
    assert found == pytest.approx(slow_regression(p, t), abs=1e-12)
    cosines = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(p.numpy(), t.numpy(), strict=True)]
    assert found == pytest.approx(np.mean(2 - 2 * np.array(cosines)), abs=1e-12)


def test_the_gradient_of_regression_is_right_and_none_reaches_the_teacher():
    p, t = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1).requires_grad_()
    assert gradcheck(lambda p: regression_loss(p, t), (p,))
    regression_loss(p, t).backward()
    assert t.grad is None
    along = (p.grad * p).sum(1)  # the loss does not depend on the lengths
    assert along.abs().max() < 1e-12


def test_a_head_of_identity_on_the_teacher_itself_has_no_loss():
    t = drawn(6, 4)
    head = prediction_head(4, 4, kind="linear", seed=0).double()
    with torch.no_grad():
        head[0].weight.copy_(torch.eye(4))
        head[0].bias.zero_()
    assert regression_loss(head(t), t).item() == 0
    assert regression_loss(head(-t), t).item() == pytest.approx(4)


def test_one_teacher_of_several_is_the_single_and_several_are_averaged():
    p, t = [drawn(5, d, seed=d) for d in (3, 6)], [drawn(5, d, seed=d + 9) for d in (3, 6)]
    assert multi_teacher_loss(p[:1], t[:1]).item() == regression_loss(p[0], t[0]).item()
    slow = sum(map(slow_regression, p, t)) / 2
    assert multi_teacher_loss(p, t).item() == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize(("weight", "tau_s", "tau_t"), [(0.3, 4.0, 1.0), (0.0, 2.0, 3.0), (1.0, 1.0, 1.0)])
def test_supervised_distillation_is_its_slow_twin(weight, tau_s, tau_t):
    s, t, labels = drawn(6, 5), drawn(6, 5, seed=1, scale=3), torch.tensor([0, 4, 2, 2, 1, 3])
    options = {"weight": weight, "student_temperature": tau_s, "teacher_temperature": tau_t}
    found = supervised_loss(s, t, labels, **options).item()
    assert found == pytest.approx(slow_supervised(s, t, labels, weight, tau_s, tau_t), abs=1e-12)
    s, t = s.requires_grad_(), t.requires_grad_()
    assert gradcheck(lambda s: supervised_loss(s, t, labels, **options), (s,))
    supervised_loss(s, t, labels, **options).backward()
    assert t.grad is None


def test_a_student_with_the_teachers_logits_has_no_divergence():
    t = drawn(6, 5)
    assert distillation_loss(t, t, student_temperature=2, teacher_temperature=2).item() == pytest.approx(0, abs=1e-15)
    hot = class_probabilities(t, temperature=1e6)
    torch.testing.assert_close(hot, torch.full_like(hot, 0.2), atol=1e-5, rtol=0)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(EffbookError, match=r"outputs \(2, 3\) do not go with targets \(2, 4\)"):
        regression_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(EffbookError, match="1 heads for 2 teachers; give each teacher a head"):
        multi_teacher_loss([torch.zeros(2, 3)], [torch.zeros(2, 3)] * 2)
    with pytest.raises(EffbookError, match=r"the weight of the labels is 1.5; give a share"):
        supervised_loss(drawn(2, 3), drawn(2, 3), torch.zeros(2).long(), weight=1.5, student_temperature=1)
