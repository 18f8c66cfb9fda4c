"""ATS: a twin of loops over images and tokens, both executions, known special cases, and counts."""

import pytest
import timm
import torch

from effbook.adaptive.ats import ATS, AtsConfig, inverse_transform
from effbook.adaptive.victim import Victim
from effbook.errors import EffbookError
from effbook.evaluate.cost import executed_macs

MEAN, STD = (0.375, 0.5, 0.625), (0.25, 0.25, 0.375)  # exact in float32
DEPTH, WIDTH, SIDE, CLASSES, HEADS = 3, 16, 3, 5, 2  # nine patches of 4 px


def toy(*, seed=0, dtype=torch.float64, **settings):
    sizes = {"img_size": 4 * SIDE, "patch_size": 4, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.models.VisionTransformer(**(sizes | {"num_classes": CLASSES} | settings))
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network.to(dtype).eval()


def victim(network=None, **config):
    network = network or toy()
    one = ATS(network, config=AtsConfig(**({"blocks": (0, 2)} | config)), mean=MEAN, std=STD)
    return one.to(next(network.parameters()).dtype)


def images(count=4, *, seed=2, dtype=torch.float64):
    pixels = torch.rand(count, 3, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return 0.1 + 0.8 * pixels


# ------------------------------------------------------------------------------------------------- the slow twin


def sample(scores, samples, *, whole):
    """Indices sampled from the scores of one image's tokens, a list; `whole`: it has lost none so far."""
    order = sorted(range(len(scores)), key=lambda j: float(scores[j].detach()))
    heights, height = [], 0.0
    for j in order:
        height += float(scores[j].detach())
        heights.append(height)
    least = heights[0] if whole else 0.0
    heights = [(h - least) / (heights[-1] - least) for h in heights]
    first = min(h for h in heights if h > 0)
    found = set()
    for i in range(samples):
        level = first + (1 - first) * i / (samples - 1)
        found.add(order[min(range(len(order)), key=lambda j: abs(heights[j] - level))])
    return sorted(found)


def slow(one, batch):
    """Logits, scores and expected counts a stage, and the patches that leave each block's attention; by image."""
    vit, prefix, n = one.vit, one.vit.num_prefix_tokens, SIDE**2
    samples = one.config.samples or n
    everything = [], [], [], []
    for image in batch:
        pixels = torch.stack([(image[c] - MEAN[c]) / STD[c] for c in range(3)])
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(pixels[None])))[0]
        names = list(range(-prefix, n))  # which patch each row of x is
        all_scores, counts, kept = [], [], []
        for number, block in enumerate(vit.blocks):
            if number not in one.config.blocks:
                x = block(x[None])[0]
            else:
                rows = block.attn.qkv(block.norm1(x)).reshape(len(x), 3, HEADS, WIDTH // HEADS)
                attention = []  # of each head, [rows, rows]
                for head in range(HEADS):
                    products = rows[:, 0, head] @ rows[:, 1, head].T / (WIDTH // HEADS) ** 0.5
                    attention.append(torch.exp(products) / torch.exp(products).sum(1, keepdim=True))
                lengths = [torch.sqrt((row[2] ** 2).sum()) for row in rows]
                raw = [sum(a[0, j] for a in attention) * lengths[j] for j in range(prefix, len(x))]
                scores = [s / sum(raw) for s in raw]  # Eq. 4.4
                by_patch = dict(zip(names[prefix:], scores, strict=True))
                zero = 0 * scores[0]
                all_scores.append(torch.stack([by_patch.get(patch, zero) for patch in range(n)]))
                counts.append(sum(torch.clamp(samples * s, max=1.0) for s in scores))
                chosen = [prefix + j for j in sample(scores, samples, whole=len(scores) == n)]
                stays = [*range(prefix), *chosen]
                mixed = torch.cat([(a @ rows[:, 2, h])[stays] for h, a in enumerate(attention)], 1)
                x = x[stays] + block.ls1(block.attn.proj(mixed))
                x = x + block.ls2(block.mlp(block.norm2(x)))
                names = [names[j] for j in stays]
            kept.append([patch in names for patch in range(n)])
        everything[0].append(vit.forward_head(vit.norm(x[None]))[0])
        everything[1].append(torch.stack(all_scores))
        everything[2].append(torch.stack(counts))
        everything[3].append(kept)
    logits, scores, counts = (torch.stack(part) for part in everything[:3])
    return logits, scores, counts, torch.tensor(everything[3])


KINDS = [
    ({}, {}),
    ({"blocks": (0, 1, 2)}, {"init_values": 0.7, "reg_tokens": 2}),
    ({"blocks": (1,), "samples": 5}, {"global_pool": "avg"}),
    ({"blocks": (1, 2), "samples": 30}, {"global_pool": "avgmax", "no_embed_class": True}),
]


@pytest.mark.parametrize(("config", "settings"), KINDS, ids=str)
def test_masked_execution_is_the_slow_twin_forward_and_backward(config, settings):
    one = victim(toy(**settings), **config)
    batch = images(3).requires_grad_()
    found = one.run(batch, "masked")
    logits, scores, counts, kept = slow(one, batch)
    assert not torch.equal(found.usage["kept"][0], found.usage["kept"][1])
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.trace.scores, scores)
    torch.testing.assert_close(found.trace.count_expected, counts)
    assert torch.equal(found.usage["kept"], kept)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    inputs = [batch, *one.parameters()]
    mine, his = (
        torch.autograd.grad((weight * out).sum() + count.sum(), inputs)
        for out, count in ((found.logits, found.trace.count_expected), (logits, counts))
    )
    for a, b in zip(mine, his, strict=True):
        torch.testing.assert_close(a, b)


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
    assert bound.low_macs <= dropped.macs.min() <= dropped.macs.max() <= bound.high_macs
    assert isinstance(one, Victim)
    assert dropped.trace is None
    assert not dropped.logits.requires_grad


@pytest.mark.parametrize("execution", ["masked", "dropped"])
def test_an_image_does_not_depend_on_the_others_of_its_batch(execution):
    one = victim(toy(dtype=torch.float32), blocks=(0, 1, 2))
    batch = images(8, dtype=torch.float32)
    together = one.run(batch, execution)
    assert len(together.usage["tokens"][:, 0].unique()) > 1  # else none would be padded in a batch
    for number in range(8):
        alone = one.run(batch[number : number + 1], execution)
        torch.testing.assert_close(alone.logits[0], together.logits[number], atol=1e-4, rtol=0)
        assert torch.equal(alone.usage["kept"][0], together.usage["kept"][number])


@pytest.mark.parametrize("settings", [{}, {"global_pool": "avg"}, {"reg_tokens": 1, "init_values": 0.5}], ids=str)
def test_without_stages_it_is_the_plain_vit_to_the_bit(settings):
    network = toy(dtype=torch.float32, **settings)
    one = victim(network, blocks=())
    batch = images(dtype=torch.float32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    for execution in ("masked", "dropped"):
        outcome = one.run(batch, execution)
        assert torch.equal(outcome.logits, network((batch - mean) / std))
        assert set(outcome.macs.tolist()) == {one.bound().high_macs} == {one.bound().low_macs}
    assert executed_macs(lambda: network(batch)) == 4 * one.bound().high_macs
    with pytest.raises(EffbookError, match="costs the same"):
        one.surrogate(batch)


def test_the_attention_traced_is_that_of_the_class_token_to_the_patches():
    one = victim(blocks=(0,))
    seen = []
    attn = one.vit.blocks[0].attn
    attn.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    batch = images(2)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD))
    one.vit((batch - mean) / std)
    qkv = attn.qkv(seen[0]).reshape(2, 10, 3, HEADS, WIDTH // HEADS)
    products = torch.einsum("bhd,bnhd->bhn", qkv[:, 0, 0], qkv[:, :, 1]) / (WIDTH // HEADS) ** 0.5
    expected = products.softmax(2)[:, :, 1:]
    torch.testing.assert_close(one.run(batch, "masked").trace.attention[:, 0], expected)


def test_the_surrogates_gradient_is_that_of_its_values():
    one = victim(blocks=(0, 1, 2))
    batch = images(2).requires_grad_()
    ways = torch.randn(5, *batch.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    steps = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: one.surrogate(batch + torch.tensordot(t, ways, 1)), (steps,))
    (gradient,) = torch.autograd.grad(one.surrogate(batch).sum(), batch)
    assert gradient.abs().max() > 0
    assert 0 < one.surrogate(batch).min() <= one.surrogate(batch).max() <= 1


@pytest.mark.parametrize("samples", [2, 7, 40])
@pytest.mark.parametrize("lost", [0, 1, 5])
def test_sampling_is_the_slow_twins(samples, lost):
    draw = torch.Generator().manual_seed(samples + lost)
    scores = torch.rand(50, 12, generator=draw, dtype=torch.float64) ** 3
    alive = torch.ones(50, 12, dtype=torch.bool)
    for row in alive:
        row[torch.randperm(12, generator=draw)[:lost]] = False
    scores = scores * alive
    scores = scores / scores.sum(1, keepdim=True)
    found = inverse_transform(scores, alive, samples=samples)
    for number in range(50):
        places = alive[number].nonzero()[:, 0].tolist()
        chosen = sample([scores[number, p] for p in places], samples, whole=lost == 0)
        assert found[number].nonzero()[:, 0].tolist() == [places[j] for j in chosen]


def test_at_first_the_lowest_score_goes_even_if_all_are_nearly_equal_and_later_all_may_stay():
    scores = torch.linspace(1.0, 1.001, 9, dtype=torch.float64)[None]
    everyone = torch.ones(1, 9, dtype=torch.bool)
    found = inverse_transform(scores / scores.sum(), everyone, samples=9)
    assert found[0].tolist() == [False] + [True] * 8
    again = inverse_transform(scores * found / (scores * found).sum(), found, samples=9)
    assert torch.equal(again, found)


def test_a_single_score_that_has_all_is_all_that_is_sampled():
    scores = torch.zeros(1, 6, dtype=torch.float64)
    scores[0, 4] = 1
    found = inverse_transform(scores, torch.ones(1, 6, dtype=torch.bool), samples=6)
    assert found[0].tolist() == [False, False, False, False, True, False]


def test_a_token_that_is_alone_stays():
    alone = torch.tensor([[False, True, False]])
    assert torch.equal(inverse_transform(alone.double(), alone, samples=4), alone)


def test_what_ats_cannot_sample_is_refused():
    with pytest.raises(EffbookError, match="class token"):
        victim(toy(class_token=False, global_pool="avg"))
    with pytest.raises(EffbookError, match="of 3"):
        victim(blocks=(1, 3))
    with pytest.raises(EffbookError, match="one patch"):
        victim(toy(img_size=4))
    for blocks in ((2, 1), (1, 1), (-1,), (1.0,)):
        with pytest.raises(EffbookError, match="blocks"):
            AtsConfig(blocks=blocks)
    with pytest.raises(EffbookError, match="samples"):
        AtsConfig(samples=1)
