"""One step: its order, its networks, and a whole training against a twin that is written as plain loops."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effbook.cmsf.config import MeanShiftSettings
from effbook.cmsf.constraints import (
    OtherModality,
    PreviousEpoch,
    QueryAlone,
    SameLabel,
    ThirdView,
    Unconstrained,
)
from effbook.cmsf.heads import predictor, projector
from effbook.cmsf.networks import Networks
from effbook.cmsf.step import MeanShift
from effbook.errors import EffbookError
from effbook.training.views import Batch

IMAGES, BATCH, BANK, WIDE = 16, 4, 8, 8


def encoder(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, WIDE), nn.BatchNorm1d(WIDE), nn.ReLU())


def batch(step, *, epoch=0, crops=1):
    draw = torch.Generator().manual_seed(100 * epoch + step)
    index = torch.arange(step * BATCH, (step + 1) * BATCH) % IMAGES
    strong = tuple(torch.randn(BATCH, 6, generator=draw) for _ in range(crops))
    weak, extra = torch.randn(BATCH, 6, generator=draw), torch.randn(BATCH, 6, generator=draw)
    return Batch(index, strong, weak, index % 3, extra)


def method(constraint, **settings):
    networks = Networks(encoder(), WIDE, seed=1)
    return MeanShift(networks, constraint, MeanShiftSettings(k=3, bank_size=BANK, **settings), images=IMAGES).train()


def test_heads_have_the_released_widths_and_come_from_the_seed_alone():
    before = torch.get_rng_state()
    widths = [[(m.in_features, m.out_features) for m in head(2048, seed=0) if isinstance(m, nn.Linear)]
              for head in (projector, predictor)]  # fmt: skip
    assert widths == [[(2048, 4096), (4096, 512)], [(512, 4096), (4096, 512)]]
    kinds = [type(m) for m in predictor(8, seed=0)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert torch.equal(projector(8, seed=3)[0].weight, projector(8, seed=3)[0].weight)
    assert not torch.equal(projector(8, seed=3)[0].weight, projector(8, seed=4)[0].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_target_moves_before_it_embeds_and_its_buffers_are_its_own():
    one = method(QueryAlone(), momentum=0.9)
    networks = one.networks
    with torch.no_grad():
        for p in networks.trained():
            p.add_(0.1)
    target, online = copy.deepcopy(networks.target_encoder), networks.encoder
    expected = [0.9 * t + 0.1 * o for t, o in zip(target.parameters(), online.parameters(), strict=True)]
    inputs = batch(0)
    one.loss(inputs)
    for moved, wanted in zip(networks.target_encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(moved, wanted)
    # the statistics are of the target's own batch, embedded by the weights that have moved
    weight, bias = expected[0], expected[1]
    mean = (inputs.weak @ weight.T + bias).mean(dim=0)
    torch.testing.assert_close(networks.target_encoder[1].running_mean, 0.1 * mean)
    assert not torch.equal(networks.target_encoder[1].running_mean, online[1].running_mean)


def test_the_batch_is_in_the_bank_before_the_search():
    one = method(Unconstrained(k=3))
    one.loss(batch(0))
    positions, positives, _ = one.found
    assert torch.equal(positives.positions[:, 0], positions)
    assert one.bank.index[positions].tolist() == [0, 1, 2, 3]
    assert positives.mask.all()
    assert set(positives.positions.flatten().tolist()) <= {0, 1, 2, 3}  # the rest of the bank is not real yet


def test_the_online_network_alone_gets_gradients():
    one = method(PreviousEpoch(k=3, k_prime=3), unconstrained_half=True)
    one.loss(batch(0)).backward()
    for name, parameter in one.named_parameters():
        assert (parameter.grad is None) == ("target" in name), name
    assert len(one.trained()) == sum("target" not in name for name, _ in one.named_parameters())


@pytest.mark.parametrize("from_evicted", [False, True])
def test_the_second_bank_holds_what_the_image_was_one_epoch_before(from_evicted):
    one = method(PreviousEpoch(k=3, k_prime=3), cache_from_evicted=from_evicted)
    seen = {}
    for epoch in range(3):
        for step in range(IMAGES // BATCH):
            one.loss(batch(step, epoch=epoch))
            for position in one.found.positions.tolist():
                image = int(one.bank.index[position])
                assert bool(one.bank.known[position]) == (epoch > 0)
                if epoch > 0:
                    assert torch.equal(one.bank.second[position], seen[image])
            for position in one.found.positions.tolist():
                seen[int(one.bank.index[position])] = one.bank.embeddings[position].clone()


def test_a_third_view_and_another_modality_fill_the_second_bank():
    third = method(ThirdView(k=3, k_prime=3))
    third.loss(batch(0))
    assert bool(third.bank.known[:BATCH].all())
    assert not torch.equal(third.bank.second[:BATCH], third.bank.embeddings[:BATCH])

    frozen = nn.Linear(6, 5).requires_grad_(False)
    networks = Networks(encoder(), WIDE, seed=1)
    settings, constraint = MeanShiftSettings(k=3, bank_size=BANK), OtherModality(k=3, k_prime=4)

    def other(x):
        return F.normalize(frozen(x), dim=1)

    one = MeanShift(networks, constraint, settings, images=IMAGES, other=other, other_dim=5)
    one.loss(batch(0))
    assert torch.equal(one.bank.second[:BATCH], other(batch(0).extra))
    assert not any("other" in name for name in one.state_dict())
    with pytest.raises(EffbookError, match="do not go together"):
        MeanShift(networks, constraint, settings, images=IMAGES)
    with pytest.raises(EffbookError, match="no `extra` input"):
        one.loss(batch(0)._replace(extra=None))


def test_pseudo_labels_go_into_the_bank():
    networks = Networks(encoder(), WIDE, seed=1)
    settings = MeanShiftSettings(k=3, bank_size=BANK)
    one = MeanShift(networks, SameLabel(k=3), settings, images=IMAGES, relabel=lambda batch, u: batch.index + 10)
    one.loss(batch(1))
    assert one.bank.label[:BATCH].tolist() == [14, 15, 16, 17]


def test_crops_go_to_the_online_network_only():
    one = method(Unconstrained(k=3))
    one.loss(batch(0, crops=3))
    assert int(one.networks.encoder[1].num_batches_tracked) == 3
    assert int(one.networks.target_encoder[1].num_batches_tracked) == 1


def test_mixed_precision_keeps_a_bank_of_full_precision():
    one = method(Unconstrained(k=3), precision="bfloat16")
    loss = one.loss(batch(0))
    loss.backward()
    assert one.bank.embeddings.dtype == torch.float32
    torch.testing.assert_close(one.bank.embeddings[:BATCH].norm(dim=1), torch.ones(BATCH))
    full = float(method(Unconstrained(k=3)).loss(batch(0)).detach())
    assert float(loss.detach()) != full
    assert float(loss.detach()) == pytest.approx(full, abs=0.1)


def test_a_bank_smaller_than_k_and_an_encoder_without_pooling_are_refused():
    with pytest.raises(EffbookError, match="a bank of 8 is smaller than k = 9"):
        method(PreviousEpoch(k=3, k_prime=9))
    one = MeanShift(Networks(nn.Conv2d(3, WIDE, 1), WIDE), QueryAlone(), MeanShiftSettings(), images=4)
    with pytest.raises(EffbookError, match="end it with pooling"):
        one.networks.online((torch.zeros(2, 3, 4, 4),))


# ------------------------------------------------------------------------------- the twin: the text's method as loops


def twin_training(k, *, momentum, rate, epochs):
    """CMSF_self in plain steps: two networks, a list for M, a dictionary for the last epoch, SGD by hand."""
    networks = Networks(encoder(), WIDE, seed=1)
    online = nn.Sequential(networks.encoder, networks.projector, networks.predictor).train()
    target = copy.deepcopy(nn.Sequential(networks.encoder, networks.projector)).train()
    bank, last, losses = [], {}, []  # bank: oldest first, each (image, u, w or None)
    for epoch in range(epochs):
        for step in range(IMAGES // BATCH):
            inputs = batch(step, epoch=epoch)
            v = online(inputs.strong[0])
            with torch.no_grad():
                for f, g in zip(target.parameters(), [*online[0].parameters(), *online[1].parameters()], strict=True):
                    f.copy_(momentum * f + (1 - momentum) * g)
                u = target(inputs.weak)
            for i, image in enumerate(inputs.index.tolist()):
                unit = u[i] / u[i].norm()
                bank.append((image, unit, last.get(image)))
                last[image] = unit
            bank = bank[-BANK:]
            loss = 0.0
            for i in range(BATCH):
                own = bank[len(bank) - BATCH + i]
                others = [entry for entry in bank if entry is not own]
                near = sorted(others, key=lambda e: -float(e[1] @ own[1]))[: k - 1]
                older = [] if own[2] is None else [entry for entry in others if entry[2] is not None]
                constrained = sorted(older, key=lambda e: -float(e[2] @ own[2]))[: k - 1]
                for chosen in ([own, *near], [own, *constrained]):
                    for _, z, _ in chosen:
                        loss = loss + (2 - 2 * F.cosine_similarity(v[i], z, dim=0)) / len(chosen) / BATCH / 2
            gradients = torch.autograd.grad(loss, list(online.parameters()))
            with torch.no_grad():
                for p, g in zip(online.parameters(), gradients, strict=True):
                    p -= rate * g
            losses.append(float(loss.detach()))
    return losses


def test_a_whole_training_is_that_of_the_twin():
    one = method(PreviousEpoch(k=3, k_prime=3), unconstrained_half=True, momentum=0.9)
    optimiser = torch.optim.SGD(one.trained(), 0.2)
    losses = []
    for epoch in range(3):
        for step in range(IMAGES // BATCH):
            loss = one.loss(batch(step, epoch=epoch))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    expected = twin_training(3, momentum=0.9, rate=0.2, epochs=3)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < losses[0]
