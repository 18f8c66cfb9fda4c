"""A-ViT: a twin of loops over images and tokens, both executions, known special cases, and counts."""

import math

import pytest
import timm
import torch

from effbook.adaptive.avit import AViT, AViTConfig, distribution_loss, ponder_loss
from effbook.adaptive.victim import HaltingTrace, Victim
from effbook.errors import EffbookError
from effbook.evaluate.cost import executed_macs

MEAN, STD = (0.375, 0.5, 0.625), (0.25, 0.25, 0.375)  # exact in float32
DEPTH, WIDTH, SIDE, CLASSES = 3, 16, 3, 5  # nine patches of 4 px


def toy(*, seed=0, dtype=torch.float64, **settings):
    sizes = {"img_size": 4 * SIDE, "patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.models.VisionTransformer(**(sizes | {"num_classes": CLASSES} | settings))
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network.to(dtype).eval()


def victim(network=None, **config):
    """An A-ViT whose tokens halt in different blocks."""
    network = network or toy()
    one = AViT(network, config=AViTConfig(**({"scale": 1.0, "centre": 0.0} | config)), mean=MEAN, std=STD)
    if config.get("gate") == "linear":
        draw = torch.Generator().manual_seed(3)
        one.gate.data = torch.randn(one.gate.shape, generator=draw)
        one.shift.data = torch.tensor([-0.5, 0.5])
    return one.to(next(network.parameters()).dtype)


def images(count=4, *, seed=2, dtype=torch.float64):
    pixels = torch.rand(count, 3, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return 0.1 + 0.8 * pixels


# ------------------------------------------------------------------------------------------------- the slow twin


def slow(one, batch):
    """Logits, ponder of the patches, their scores and the blocks in which they were alive, image by image."""
    vit, config = one.vit, one.config
    everything = [], [], [], []
    for image in batch:
        pixels = torch.stack([(image[c] - MEAN[c]) / STD[c] for c in range(3)])
        state = list(vit.norm_pre(vit._pos_embed(vit.patch_embed(pixels[None])))[0])
        prefix = vit.num_prefix_tokens
        alive, last, halted, output = list(range(len(state))), {}, {}, {}
        scores = [[0.0 * state[0].sum()] * DEPTH for _ in state]
        for level in range(1, DEPTH + 1):
            block = vit.blocks[level - 1]
            if not alive:
                break
            after = block(torch.stack([state[k] for k in alive])[None])[0]
            for place, k in enumerate(alive):
                state[k] = after[place]
            for k in list(alive):
                token = state[k]
                if level == DEPTH:
                    h = torch.ones_like(token[0])
                elif config.readout == "last" and k < prefix:
                    h = torch.zeros_like(token[0])
                elif config.gate == "channel":
                    h = 1 / (1 + torch.exp(config.centre - config.scale * token[0]))
                else:
                    centred = token - token.mean()
                    normal = centred / torch.sqrt((centred**2).mean() + 1e-5)
                    h = 1 / (1 + torch.exp(-(one.gate[0] @ normal) - one.shift[level - 1]))
                before = sum(scores[k])
                scores[k][level - 1] = h
                if float((before + h).detach()) > 1 - config.epsilon:  # for the first time: N_k = level
                    last[k], halted[k] = level, level + (1 - before)  # N_k, and N_k + r_k
                    alive.remove(k)
                    h = 1 - before
                output[k] = output.get(k, 0) + h * token
        left = [output[k] if config.readout == "weighted" else state[k] for k in range(len(state))]
        everything[0].append(vit.forward_head(vit.norm(torch.stack(left)[None]))[0])
        everything[1].append(torch.stack([halted[k] for k in range(prefix, len(state))]))
        everything[2].append(torch.stack([torch.stack(s) for s in scores[prefix:]]).T)
        everything[3].append([[last[k] > level for k in range(prefix, len(state))] for level in range(DEPTH)])
    logits, ponder, scores = (torch.stack(part) for part in everything[:3])
    return logits, ponder, scores, torch.tensor(everything[3])


KINDS = [
    ({"readout": "weighted"}, {}),
    ({"readout": "last"}, {}),
    ({"readout": "weighted", "gate": "linear"}, {"init_values": 0.7, "reg_tokens": 2}),
    ({"readout": "last", "gate": "linear"}, {"global_pool": "avg"}),
    ({"readout": "weighted"}, {"global_pool": "avgmax", "class_token": False, "pre_norm": True}),
]


@pytest.mark.parametrize(("config", "settings"), KINDS, ids=str)
def test_masked_execution_is_the_slow_twin_forward_and_backward(config, settings):
    one = victim(toy(**settings), **config)
    batch = images(3).requires_grad_()
    found = one.run(batch, "masked")
    logits, ponder, scores, kept = slow(one, batch)
    lived = found.usage["kept"].sum((1, 2))
    assert len(lived.unique()) > 1  # halts differ between images, and some tokens stay, others go
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.trace.ponder, ponder)
    torch.testing.assert_close(found.trace.scores, scores)
    assert torch.equal(found.usage["kept"], kept)
    parameters = [batch, *one.parameters()]
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gradients = [
        torch.autograd.grad((weight * out).sum() + of.sum(), parameters, allow_unused=True, retain_graph=True)
        for out, of in ((found.logits, found.trace.ponder), (logits, ponder))
    ]
    for mine, his in zip(*gradients, strict=True):
        assert (mine is None) == (his is None) or (mine if his is None else his).abs().max() == 0
        if mine is not None and his is not None:
            torch.testing.assert_close(mine, his)


@pytest.mark.parametrize(("config", "settings"), KINDS, ids=str)
def test_dropped_execution_gives_the_same_and_does_what_is_counted(config, settings):
    one = victim(toy(dtype=torch.float32, **settings), **config)
    batch = images(6, dtype=torch.float32)
    masked, dropped = one.run(batch, "masked"), one.run(batch, "dropped")
    torch.testing.assert_close(dropped.logits, masked.logits, atol=1e-4, rtol=0)
    assert torch.equal(dropped.usage["kept"], masked.usage["kept"])
    assert torch.equal(dropped.macs, masked.macs)
    assert dropped.macs.sum() == executed_macs(lambda: one.run(batch, "dropped"))
    bound = one.bound()
    assert bound.low_macs <= dropped.macs.min() < dropped.macs.max() <= bound.high_macs
    assert isinstance(one, Victim)
    assert dropped.trace is None
    assert not dropped.logits.requires_grad


@pytest.mark.parametrize("execution", ["masked", "dropped"])
def test_an_image_does_not_depend_on_the_others_of_its_batch(execution):
    one = victim(toy(dtype=torch.float32))
    batch = images(5, dtype=torch.float32)
    together = one.run(batch, execution)
    for number in range(5):
        alone = one.run(batch[number : number + 1], execution)
        torch.testing.assert_close(alone.logits[0], together.logits[number], atol=1e-4, rtol=0)
        assert torch.equal(alone.usage["kept"][0], together.usage["kept"][number])


@pytest.mark.parametrize("readout", ["weighted", "last"])
@pytest.mark.parametrize("settings", [{}, {"global_pool": "avg"}, {"reg_tokens": 1, "init_values": 0.5}], ids=str)
def test_where_nothing_halts_it_is_the_plain_vit_to_the_bit(readout, settings):
    network = toy(dtype=torch.float32, **settings)
    one = victim(network, centre=1e5, readout=readout)
    batch = images(dtype=torch.float32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    plain = network((batch - mean) / std)
    for execution in ("masked", "dropped"):
        outcome = one.run(batch, execution)
        assert torch.equal(outcome.logits, plain)
        assert outcome.usage["tokens"].unique().tolist() == [SIDE**2 + network.num_prefix_tokens]
        assert set(outcome.macs.tolist()) == {one.bound().high_macs}
    assert executed_macs(lambda: network(batch)) == 4 * one.bound().high_macs
    assert one.run(batch, "masked").trace.ponder.unique().tolist() == [DEPTH + 1]
    assert one.surrogate(batch).unique().tolist() == [1.0]


@pytest.mark.parametrize("settings", [{}, {"global_pool": "avg", "class_token": False}], ids=str)
def test_where_all_halts_at_once_the_rest_is_skipped(settings):
    one = victim(toy(dtype=torch.float32, **settings), centre=-1e5)
    outcome = one.run(images(dtype=torch.float32), "dropped")
    assert outcome.usage["tokens"][:, 1:].max() == 0
    assert set(outcome.macs.tolist()) == {one.bound().low_macs}
    trace = one.run(images(dtype=torch.float32), "masked").trace
    assert trace.ponder.unique().tolist() == [2.0]  # N_k = 1, and r_k = 1 as no score came before
    assert ponder_loss(trace) == 2


def test_the_last_score_is_1_for_all_tokens_alive_there():
    trace = victim(readout="last").run(images(), "masked").trace
    assert set(trace.scores[:, -1].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("gate", ["channel", "linear"])
def test_the_surrogates_gradient_is_that_of_its_values(gate):
    one = victim(gate=gate)
    batch = images(2).requires_grad_()
    ways = torch.randn(5, *batch.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    steps = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: one.surrogate(batch + torch.tensordot(t, ways, 1)), (steps,))
    (gradient,) = torch.autograd.grad(one.surrogate(batch).sum(), batch)
    assert gradient.abs().max() > 0


def test_the_prior_is_finite_for_a_batch_of_one():
    trace = victim().run(images(1), "masked").trace
    loss = distribution_loss(trace, depth=2.0)
    assert loss.isfinite()
    assert loss > 0


def test_the_prior_is_the_divergence_by_hand_and_0_where_the_scores_follow_it():
    scores = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = [scores[:, level].sum().item() / 18 for level in range(4)]
    halting = [m / sum(mean) for m in mean]
    normal = [math.exp(-((level - 2.5) ** 2) / 2) for level in range(1, 5)]
    prior = [n / sum(normal) for n in normal]
    expected = sum(h * math.log(h / p) for h, p in zip(halting, prior, strict=True))
    trace = HaltingTrace(scores=scores, ponder=torch.ones(3, 6))
    assert distribution_loss(trace, depth=2.5).item() == pytest.approx(expected)
    like = HaltingTrace(scores=torch.tensor(prior)[None, :, None].expand(2, 4, 3), ponder=torch.ones(2, 3))
    assert distribution_loss(like, depth=2.5).item() == pytest.approx(0, abs=1e-6)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(EffbookError, match="gate"):
        AViTConfig(gate="quadratic")
    with pytest.raises(EffbookError, match="epsilon"):
        AViTConfig(epsilon=0.7)
    with pytest.raises(EffbookError, match="prior"):
        distribution_loss(HaltingTrace(scores=torch.ones(1, 2, 3), ponder=torch.ones(1, 3)), deviation=0.0)
