"""AdaViT: a twin of loops over images, blocks, heads and tokens, both executions, known special cases, and counts."""

import math

import pytest
import torch
from torch import nn

from effbook.adaptive.adavit import AdaViT, AdaViTConfig, keep, usage_loss
from effbook.adaptive.victim import DecisionTrace, Victim
from effbook.errors import EffbookError
from effbook.evaluate.cost import executed_macs

MEAN, STD = (0.375, 0.5, 0.625), (0.25, 0.25, 0.375)  # exact in float32
WIDE, HEADS, DEPTH, SIDE = 12, 3, 2, 2  # four patches of 4 px


def vit(*, seed=0, dtype=torch.float64, depth=DEPTH, **settings):
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = {"init_values": 0.7, **settings}
        network = timm.models.VisionTransformer(
            img_size=4 * SIDE, patch_size=4, embed_dim=WIDE, depth=depth, num_heads=HEADS, num_classes=5, **settings
        )
        for p in network.parameters():  # else biases are 0, and random blocks hardly change their input
            p.data += 0.15 * torch.randn_like(p)
    return network.to(dtype).eval()


def victim(network=None, *, seed=10, spread=2.0, shift=0.3, **config):
    """An AdaViT whose decisions differ between images, blocks, heads and patches."""
    network = network or vit()
    one = AdaViT(network, config=AdaViTConfig(**config), mean=MEAN, std=STD)
    draw = torch.Generator().manual_seed(seed)
    for p in one.networks.parameters():
        centre = shift if p.ndim == 1 else 0
        p.data = centre + spread * torch.randn(p.shape, generator=draw) / math.sqrt(WIDE)
    return one.to(next(network.parameters()).dtype)


def images(count=4, *, seed=2, dtype=torch.float64):
    return torch.rand(count, 3, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def set_all(one, logit):
    for p in one.networks.parameters():
        p.data.fill_(logit if p.ndim == 1 else 0)
    return one


# ------------------------------------------------------------------------------------------------- the slow twin


def sigmoid(value):
    return 1 / (1 + torch.exp(-value))


def norm(layer, token):
    centred = token - token.sum() / len(token)
    return centred / torch.sqrt((centred * centred).sum() / len(token) + layer.eps) * layer.weight + layer.bias


def linear(layer, token):
    return layer.weight @ token + (0 if layer.bias is None else layer.bias)


def scale(layer, token):
    return token if isinstance(layer, nn.Identity) else layer.gamma * token


def gelu(value):
    return 0.5 * value * (1 + torch.erf(value / math.sqrt(2)))


def decide(m, tau):
    """Keep or discard by the probability; backwards as a soft decision of temperature tau."""
    soft = sigmoid(m / tau)
    return (1.0 if float(sigmoid(m.detach())) > 0.5 else 0.0) + (soft - soft.detach())


def twin(one, image):
    """One image [3, px, px] by the text: class logits, and per block the logits m and decisions M of each kind."""
    net, tau = one.vit, one.config.tau
    pixels = torch.stack([(image[c] - MEAN[c]) / STD[c] for c in range(3)])
    kernel, position = net.patch_embed.proj, net.pos_embed[0]
    tokens = [net.cls_token[0, 0]] + ([] if net.reg_token is None else list(net.reg_token[0]))
    prefix = len(tokens)
    for row in range(SIDE):
        for column in range(SIDE):
            patch = pixels[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
            tokens.append(kernel.weight.flatten(1) @ patch + kernel.bias)
    tokens = [token + where for token, where in zip(tokens, position, strict=True)]
    record = []
    for block, network in zip(net.blocks, one.networks, strict=True):
        m_p = [linear(network.patches, token)[0] for token in tokens[prefix:]]
        m_h, m_b = linear(network.heads, tokens[0]), linear(network.blocks, tokens[0])
        keep_p, keep_h, keep_b = ([decide(m, tau) for m in kind] for kind in (m_p, m_h, m_b))
        record.append(((m_p, m_h, m_b), (keep_p, keep_h, keep_b)))
        alive = [torch.ones(())] * prefix + keep_p
        size = WIDE // HEADS
        qkv = [linear(block.attn.qkv, norm(block.norm1, token)) for token in tokens]
        moved = []
        for i, token in enumerate(tokens):
            heads = []
            for h in range(HEADS):
                q, k, v = ([x[part * WIDE + h * size : part * WIDE + (h + 1) * size] for x in qkv] for part in range(3))
                if isinstance(block.attn.q_norm, nn.LayerNorm):
                    q, k = [norm(block.attn.q_norm, x) for x in q], [norm(block.attn.k_norm, x) for x in k]
                e = [alive[j] * torch.exp((q[i] @ k[j]) / math.sqrt(size)) for j in range(len(tokens))]
                heads.append(keep_h[h] * sum(e[j] * v[j] for j in range(len(tokens))) / sum(e))
            moved.append(token + alive[i] * keep_b[0] * scale(block.ls1, linear(block.attn.proj, torch.cat(heads))))
        tokens = []
        for i, token in enumerate(moved):
            hidden = linear(block.mlp.fc2, gelu(linear(block.mlp.fc1, norm(block.norm2, token))))
            tokens.append(token + alive[i] * keep_b[1] * scale(block.ls2, hidden))
    if net.global_pool == "token":
        pooled = norm(net.norm, tokens[0])
    else:
        pooled = norm(net.fc_norm, sum(tokens[prefix:]) / (SIDE * SIDE))
    return linear(net.head, pooled), record


def as_trace(records):
    """The twin's decisions M of several images, as the three tensors of a trace."""
    return [torch.stack([torch.stack([torch.stack(list(kept[kind])) for _, kept in r]) for r in records])
            for kind in range(3)]  # fmt: skip


WRAPPED = [{}, {"reg_tokens": 2, "init_values": None}, {"global_pool": "avg", "qkv_bias": False, "qk_norm": True}]


@pytest.mark.parametrize("settings", WRAPPED, ids=["plain", "registers", "pooled"])
def test_both_executions_are_the_twin(settings):
    one, batch = victim(vit(**settings)), images(4)
    logits, records = zip(*(twin(one, image) for image in batch), strict=True)
    masked, dropped = one.run(batch, "masked"), one.run(batch)
    for wanted, found in zip(as_trace(records), vars(masked.trace).values(), strict=True):
        assert 0 < wanted.mean() < 1
        assert torch.equal(wanted, found)  # 0 or 1, exactly
    torch.testing.assert_close(masked.logits, torch.stack(logits))
    torch.testing.assert_close(dropped.logits, torch.stack(logits))


def test_gradients_of_the_images_and_weights_are_the_twins():
    one, batch = victim(tau=2.0), images(3).requires_grad_()
    wanted_logits, records = zip(*(twin(one, image) for image in batch), strict=True)
    patches, heads, blocks = as_trace(records)
    wanted = torch.stack(wanted_logits).square().sum()
    for b in range(len(batch)):  # Eq. 4.3 with sums over everything that an image has
        wanted = wanted + (patches[b].sum() / (DEPTH * SIDE * SIDE) - 0.2) ** 2
        wanted = wanted + (heads[b].sum() / (DEPTH * HEADS) - 0.3) ** 2 + (blocks[b].sum() / (DEPTH * 2) - 0.4) ** 2
    outcome = one.run(batch, "masked")
    found = outcome.logits.square().sum() + usage_loss(outcome.trace, patches=0.2, heads=0.3, blocks=0.4).sum()
    torch.testing.assert_close(found, wanted)
    _assert_same_gradients(found, wanted, [batch, *one.parameters()])


def test_the_surrogate_is_the_closed_form_at_the_probabilities():
    one, batch = victim(tau=2.0), images(3).requires_grad_()
    whole, size = one.bound().high_macs, WIDE // HEADS
    wanted = []
    for image in batch:
        total = _around_the_blocks() + DEPTH * WIDE * (SIDE * SIDE + HEADS + 2)
        for (m_p, m_h, m_b), _ in twin(one, image)[1]:
            t, h, (attention, mlp) = 1 + sum(map(sigmoid, m_p)), sum(map(sigmoid, m_h)), map(sigmoid, m_b)
            total = total + attention * (4 * t * WIDE * h * size + 2 * t * t * h * size + 5 * t * WIDE)
            total = total + mlp * (2 * t * WIDE * 4 * WIDE + 5 * t * WIDE)
        wanted.append(total / whole)
    found = one.surrogate(batch)
    torch.testing.assert_close(found, torch.stack(wanted))
    assert ((found > 0) & (found < 1)).all()
    _assert_same_gradients(found.sum(), sum(wanted), [batch, *one.networks.parameters()])


def _around_the_blocks():
    """MACs of embedding, last norm and head."""
    return SIDE * SIDE * 3 * 16 * WIDE + 5 * (SIDE * SIDE + 1) * WIDE + WIDE * 5


def _assert_same_gradients(found, wanted, inputs):
    pairs = zip(*(torch.autograd.grad(y, inputs, allow_unused=True) for y in (found, wanted)), strict=True)
    used = [(a, b) for a, b in pairs if a is not None or b is not None]
    assert len(used) > 1
    assert used[0][1].abs().sum() > 0
    for a, b in used:
        torch.testing.assert_close(a, b)


# ------------------------------------------------------------------------------------------------ both executions


@pytest.mark.parametrize("settings", WRAPPED, ids=["plain", "registers", "pooled"])
def test_an_image_gives_the_same_masked_dropped_alone_and_in_a_batch(settings):
    one, batch = victim(vit(dtype=torch.float32, **settings)), images(6, dtype=torch.float32)
    masked, dropped = one.run(batch, "masked"), one.run(batch)
    assert len(dropped.usage["heads"].unique()) > 1  # images differ, else nothing is shown
    torch.testing.assert_close(masked.logits, dropped.logits, atol=1e-4, rtol=0)
    assert masked.trace is not None
    assert dropped.trace is None
    assert not dropped.logits.requires_grad
    for i in range(len(batch)):
        for execution in ("masked", "dropped"):
            alone = one.run(batch[i : i + 1], execution)
            torch.testing.assert_close(alone.logits[0], masked.logits[i], atol=1e-4, rtol=0)
            assert alone.macs[0] == masked.macs[i] == dropped.macs[i]
            assert all(torch.equal(alone.usage[kind][0], dropped.usage[kind][i]) for kind in dropped.usage)


def test_macs_are_those_that_the_dropped_model_runs():
    one, batch = victim(vit(dtype=torch.float32)), images(6, dtype=torch.float32)
    counted = one.run(batch).macs
    assert len(counted.unique()) > 1
    assert executed_macs(lambda: one.run(batch)) == counted.sum()
    for i in range(len(batch)):
        assert executed_macs(lambda image=batch[i : i + 1]: one.run(image)) == counted[i]


def test_usage_says_what_was_decided():
    one = victim()
    outcome = one.run(images(), "masked")
    usage, trace = outcome.usage, outcome.trace
    assert torch.equal(usage["kept"].double(), trace.patches)
    assert torch.equal(usage["tokens"], 1 + trace.patches.sum(dim=2).long())
    assert torch.equal(usage["heads"], trace.heads.sum(dim=2).long())
    assert torch.equal(torch.stack([usage["attention"], usage["mlp"]], dim=2).double(), trace.blocks)
    assert isinstance(one, Victim)


def test_a_dropped_patch_with_huge_scores_spoils_neither_outputs_nor_gradients():
    one = victim(vit(dtype=torch.float32))
    for block in one.vit.blocks:
        block.attn.qkv.weight.data *= 300
    outcome = one.run(images(dtype=torch.float32), "masked")
    outcome.logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in one.parameters() if p.grad is not None)
    torch.testing.assert_close(outcome.logits, one.run(images(dtype=torch.float32)).logits, atol=1e-4, rtol=1e-3)


# ------------------------------------------------------------------------------------------------- special cases


@pytest.mark.parametrize("settings", WRAPPED, ids=["plain", "registers", "pooled"])
@pytest.mark.parametrize("execution", ["masked", "dropped"])
def test_with_all_decisions_on_it_is_the_plain_vit(settings, execution):
    network, batch = vit(**settings), images()
    one = set_all(victim(network), 1.0)
    outcome = one.run(batch, execution)
    plain = network((batch - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    torch.testing.assert_close(outcome.logits, plain, rtol=0, atol=1e-13)
    decided = DEPTH * WIDE * (SIDE * SIDE + HEADS + 2)
    assert outcome.macs.tolist() == [executed_macs(lambda: network(batch[:1])) + decided] * len(batch)
    assert one.bound().high_macs == outcome.macs[0]


def test_a_fresh_one_is_the_plain_vit_and_draws_nothing():
    network, before = vit(), torch.get_rng_state()
    one = AdaViT(network, config=AdaViTConfig(), mean=MEAN, std=STD).double()
    assert torch.equal(torch.get_rng_state(), before)
    assert (one.run(images()).macs == one.bound().high_macs).all()


@pytest.mark.parametrize("execution", ["masked", "dropped"])
def test_with_all_decisions_off_only_the_class_token_is_left(execution):
    network = vit()
    one, batch = set_all(victim(network), -1.0), images()
    outcome = one.run(batch, execution)
    token = network.cls_token[0, 0] + network.pos_embed[0, 0]  # the image has no part in it
    torch.testing.assert_close(outcome.logits, network.head(network.norm(token)).expand(len(batch), -1))
    assert outcome.macs.tolist() == [one.bound().low_macs] * len(batch)
    assert outcome.macs[0] == _around_the_blocks() + DEPTH * WIDE * (SIDE * SIDE + HEADS + 2)
    assert (outcome.usage["tokens"] == 1).all()


@pytest.mark.parametrize("execution", ["masked", "dropped"])
def test_without_a_head_attention_adds_the_projections_bias(execution):
    network, batch = vit(), images()
    one = set_all(victim(network), 1.0)
    for decision in one.networks:
        decision.heads.bias.data.fill_(-1.0)
    outcome = one.run(batch, execution)
    x = network._pos_embed(
        network.patch_embed((batch - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    )
    for block in network.blocks:
        x = x + block.ls1(block.attn.proj.bias)
        x = x + block.ls2(block.mlp(block.norm2(x)))
    torch.testing.assert_close(outcome.logits, network.head(network.norm(x)[:, 0]))
    assert executed_macs(lambda: one.run(batch)) == outcome.macs.sum()


@pytest.mark.parametrize("execution", ["masked", "dropped"])
def test_a_patch_that_a_block_leaves_out_comes_back_as_it_was(execution):
    network, batch = vit(), images()
    one = set_all(victim(network), 1.0)
    one.networks[0].patches.bias.data.fill_(-1.0)
    x = network._pos_embed(
        network.patch_embed((batch - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    )
    x = torch.cat([network.blocks[0](x[:, :1]), x[:, 1:]], dim=1)
    wanted = network.forward_head(network.norm(network.blocks[1](x)))
    torch.testing.assert_close(one.run(batch, execution).logits, wanted)


# ------------------------------------------------------------------------------------------------------ decisions


def test_noise_comes_from_the_generator_alone():
    one, batch = victim(), images()

    def kept(seed, execution="masked"):
        outcome = one.run(batch, execution, generator=torch.Generator().manual_seed(seed))
        return torch.cat([outcome.usage["kept"].flatten(), outcome.usage["heads"].flatten()])

    before = torch.get_rng_state()
    first, again, other = kept(3), kept(3), kept(4)
    assert torch.equal(first, again)
    assert torch.equal(first, kept(3, "dropped"))
    assert not torch.equal(first, other)
    assert torch.equal(one.run(batch, "masked").usage["kept"], one.run(batch, "masked").usage["kept"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("tau", [0.5, 5.0])
def test_with_noise_a_decision_is_kept_as_often_as_its_probability_says(tau):
    logits = torch.tensor([-2.0, 0.0, 1.0]).expand(40_000, 3)
    kept = keep(logits, 0.5, tau=tau, generator=torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(kept.mean(dim=0), torch.tensor([0.1192, 0.5, 0.7311]), atol=0.01, rtol=0)


def test_the_gradient_of_a_noisy_decision_is_gumbel_softmaxs():
    tau, logits = 2.0, torch.linspace(-3, 3, 500, dtype=torch.float64, requires_grad=True)
    keep(logits, 0.5, tau=tau, generator=torch.Generator().manual_seed(1)).sum().backward()
    uniform = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # softmax over keep and drop with Gumbel noise: its share of keep, whose two variables' difference is this
    noise = torch.log(uniform) - torch.log(1 - uniform)
    pair = torch.stack([(logits.detach() + noise) / tau, torch.zeros(500, dtype=torch.float64)], dim=1)
    share = torch.softmax(pair, dim=1)[:, 0]
    torch.testing.assert_close(logits.grad, share * (1 - share) / tau)


def test_the_thresholds_of_patches_and_of_the_rest_are_apart():
    one = set_all(victim(patch_threshold=0.6), 0.2)  # a probability of 0.55
    usage = one.run(images()).usage
    assert not usage["kept"].any()
    assert (usage["heads"] == HEADS).all()


def test_the_usage_loss_is_0_at_its_targets_and_each_images_own():
    trace = DecisionTrace(
        patches=torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]), heads=torch.ones(2, 1, 3), blocks=torch.ones(2, 1, 2)
    )
    assert usage_loss(trace, patches=0.5, heads=1, blocks=1).tolist() == [0.0, 0.25]
    assert usage_loss(trace, patches=0, heads=0, blocks=0).tolist() == [2.25, 3.0]  # negated: the attack


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"tau": 0.0}, "tau is 0.0"),
        ({"patch_target": 1.5}, "patch_target is 1.5"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"start": math.inf}, "start is inf"),
    ],
)
def test_impossible_settings_are_named(wrong, named):
    with pytest.raises(EffbookError, match=named):
        AdaViTConfig(**wrong)


def test_a_vit_without_a_class_token_is_refused():
    with pytest.raises(EffbookError, match="no class token"):
        victim(vit(class_token=False, global_pool="avg"))


def test_other_images_and_executions_are_refused():
    one = victim()
    with pytest.raises(EffbookError, match="execution is 'fast'"):
        one.run(images(), "fast")
    with pytest.raises(EffbookError, match=r"in 0\.\.1"):
        one.surrogate(images() * 255)
