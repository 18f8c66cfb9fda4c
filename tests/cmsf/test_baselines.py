import math

import pytest
import torch
from torch.nn import functional as F

from effbook.cmsf.baselines import info_nce, mine, multi_instance_nce, proto_nw, supcon, supcon_head
from effbook.errors import EffbookError

B, M, D, C = 5, 14, 6, 4


@pytest.fixture
def case():
    """Queries with gradient, a bank whose last rows are the batch's targets, and labels: float64."""
    g = torch.Generator().manual_seed(1)
    q = F.normalize(torch.randn(B, D, generator=g, dtype=torch.float64), dim=1).requires_grad_()
    bank = F.normalize(torch.randn(M, D, generator=g, dtype=torch.float64), dim=1)
    bank_labels = torch.randint(C, (M,), generator=g)
    own = torch.arange(M - B, M)
    bank_labels[:2] = -1
    return {"q": q, "bank": bank, "own": own, "labels": bank_labels[own], "bank_labels": bank_labels}


def similar(a, b):
    """A dot product with gradient, one product at a time."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_supcon(q, bank, own, labels, bank_labels, with_target, temperature):
    losses = []
    for i in range(len(q)):
        among = [j for j in range(len(bank)) if with_target or j != own[i]]
        e = {j: torch.exp(similar(q[i], bank[j]) / temperature) for j in among}
        positives = [j for j in among if j == own[i] or (bank_labels[j] == labels[i] and bank_labels[j] != -1)]
        if positives:
            losses.append(-sum(torch.log(e[j] / sum(e.values())) for j in positives) / len(positives))
    return sum(losses) / len(losses)


def slow_proto(q, bank, labels, bank_labels, temperature):
    losses = []
    for i in range(len(q)):
        e = {}
        for c in sorted(set(bank_labels.tolist()) - {-1}):
            members = [bank[j] for j in range(len(bank)) if bank_labels[j] == c]
            mean = sum(members) / len(members)
            cosine = similar(q[i], mean) / math.sqrt(float(similar(mean, mean)))
            e[c] = torch.exp(cosine / temperature)
        losses.append(-torch.log(e[int(labels[i])] / sum(e.values())))
    return sum(losses) / len(losses)


def slow_multi_instance(q, bank, positives, temperature):
    losses = []
    for i in range(len(q)):
        e = [torch.exp(similar(q[i], z) / temperature) for z in bank]
        losses.append(-torch.log(sum(e[j] for j in positives[i]) / sum(e)))
    return sum(losses) / len(losses)


def agree(fast, slow, q):
    assert torch.allclose(fast, slow, rtol=1e-10)
    for one, other in zip(torch.autograd.grad(fast, q), torch.autograd.grad(slow, q), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-12)
        assert one.abs().max() > 0


@pytest.mark.parametrize("with_target", [True, False])
def test_supcon_is_the_mean_log_share_of_the_positives(case, with_target):
    agree(
        supcon(**case, with_target=with_target),
        slow_supcon(**case, with_target=with_target, temperature=0.1),
        case["q"],
    )


def test_proto_nw_is_a_softmax_over_class_means(case):
    case.pop("own")
    agree(proto_nw(**case, classes=C + 2), slow_proto(**case, temperature=0.1), case["q"])


def test_multi_instance_nce_is_the_log_share_of_all_positives(case):
    positives = torch.tensor([[9, 0], [10, 3], [11, 1], [12, 12 - 5], [13, 2]])
    agree(
        multi_instance_nce(case["q"], case["bank"], positives),
        slow_multi_instance(case["q"], case["bank"], positives, 0.07),
        case["q"],
    )


def test_info_nce_is_the_log_share_of_the_own_target(case):
    agree(
        info_nce(case["q"], case["bank"], case["own"]),
        slow_multi_instance(case["q"], case["bank"], case["own"][:, None].tolist(), 0.07),
        case["q"],
    )


def test_gradients_are_those_of_the_loss(case):
    q, case = case["q"], {name: value for name, value in case.items() if name != "q"}
    assert torch.autograd.gradcheck(lambda x: supcon(x, **case), q)
    assert torch.autograd.gradcheck(lambda x: supcon(x, **case, with_target=False), q)
    own = case.pop("own")
    assert torch.autograd.gradcheck(lambda x: proto_nw(x, **case, classes=C), q)
    assert torch.autograd.gradcheck(lambda x: multi_instance_nce(x, case["bank"], own[:, None]), q)


def test_supcon_where_all_labels_differ_is_info_nce(case):
    case |= {"bank_labels": torch.arange(M), "labels": torch.arange(M)[case["own"]]}
    assert torch.allclose(supcon(**case), info_nce(case["q"], case["bank"], case["own"], temperature=0.1), rtol=1e-12)


def test_supcon_where_all_labels_differ_and_the_target_is_left_out_has_nothing_to_learn(case):
    case |= {"bank_labels": torch.arange(M), "labels": torch.arange(M)[case["own"]]}
    loss = supcon(**case, with_target=False)
    assert loss == 0
    assert torch.autograd.grad(loss, case["q"])[0].abs().max() == 0


def test_supcon_of_images_without_label_and_with_their_target_is_info_nce(case):
    case |= {"labels": torch.full((B,), -1), "bank_labels": torch.full((M,), -1)}
    assert torch.allclose(supcon(**case), info_nce(case["q"], case["bank"], case["own"], temperature=0.1), rtol=1e-12)


def test_proto_nw_with_one_entry_a_class_is_a_softmax_over_the_bank(case):
    loss = proto_nw(case["q"], case["bank"], labels=case["own"], bank_labels=torch.arange(M), classes=M)
    assert torch.allclose(loss, info_nce(case["q"], case["bank"], case["own"], temperature=0.1), rtol=1e-12)


def test_proto_nw_leaves_out_queries_without_class_or_prototype(case):
    labels = case["labels"].clone()
    labels[0], labels[1] = -1, C
    arguments = {"bank_labels": case["bank_labels"], "classes": C + 1}
    some = proto_nw(case["q"], case["bank"], labels=labels, **arguments)
    assert torch.allclose(some, proto_nw(case["q"][2:], case["bank"], labels=labels[2:], **arguments))
    none = proto_nw(case["q"], case["bank"], labels=torch.full((B,), -1), **arguments)
    assert none == 0
    assert none.requires_grad


def test_coclr_with_the_own_positive_alone_is_info_nce(case):
    w = torch.randn(B, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = torch.randn(M, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    positives = mine(w, other, case["own"], k=1)
    assert positives.tolist() == case["own"][:, None].tolist()
    loss = multi_instance_nce(case["q"], case["bank"], positives)
    assert torch.allclose(loss, info_nce(case["q"], case["bank"], case["own"]), rtol=1e-12)


def test_mined_positives_are_the_own_one_and_the_nearest_of_the_other_modality():
    g = torch.Generator().manual_seed(2)
    w, other, own = torch.randn(B, 3, generator=g), torch.randn(M, 3, generator=g), torch.arange(B)
    found = mine(w, other, own, k=4)
    for i in range(B):
        by_nearness = sorted((j for j in range(M) if j != own[i]), key=lambda j: -float(w[i] @ other[j]))
        assert found[i].tolist() == [int(own[i]), *by_nearness[:3]]


def test_the_head_of_supcon_has_the_printed_shape_and_its_seed_decides_it():
    state = torch.get_rng_state()
    head = supcon_head(16, generator=torch.Generator().manual_seed(0))
    again = supcon_head(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert [tuple(p.shape) for p in head.parameters()] == [(16, 16), (16,), (16,), (16,), (128, 16), (128,)]
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))
    assert head(torch.ones(2, 16)).shape == (2, 128)


def test_what_does_not_fit_is_refused(case):
    q, bank, own = case["q"], case["bank"], case["own"]
    with pytest.raises(EffbookError):
        info_nce(q, bank[:, 1:], own)
    with pytest.raises(EffbookError):
        info_nce(q, bank, own[1:])
    with pytest.raises(EffbookError):
        supcon(q, bank, own, labels=case["labels"], bank_labels=case["bank_labels"][1:])
    with pytest.raises(EffbookError):
        proto_nw(q, bank, labels=case["labels"], bank_labels=case["bank_labels"], classes=1)
    with pytest.raises(EffbookError):
        mine(q, bank, own, k=M + 1)
