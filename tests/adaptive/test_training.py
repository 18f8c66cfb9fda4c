"""Training a victim: what its own terms weigh, what the loop does, and the ridge start of its classifier."""

from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F

from effbook.adaptive import ATS, AdaViT, AdaViTConfig, AtsConfig, AViT, AViTConfig
from effbook.adaptive.training import TrainConfig, own_loss, random_erasing, start_head, train_victim
from effbook.adaptive.victim import DecisionTrace, HaltingTrace
from effbook.errors import EffbookError

MEAN = STD = (0.5, 0.5, 0.5)
DEPTH = 3


def toy(*, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.models.VisionTransformer(
            img_size=12, patch_size=4, embed_dim=16, depth=DEPTH, num_heads=2, num_classes=2, init_values=1.0
        )
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network


def make(kind):
    if kind == "avit":
        return AViT(toy(), config=AViTConfig(gate="linear", readout="last"), mean=MEAN, std=STD)
    if kind == "ats":
        return ATS(toy(), config=AtsConfig(blocks=(0, 1)), mean=MEAN, std=STD)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AdaViT(toy(), config=AdaViTConfig(), mean=MEAN, std=STD)


def bright_and_dark(count=64, *, seed=0):
    """Images uint8, and whether each is a bright one."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=draw)
    noise = torch.randint(0, 120, (count, 3, 12, 12), generator=draw)
    return (noise + 120 * labels[:, None, None, None]).to(torch.uint8), labels


QUICK = {"steps": 30, "batch": 16, "vit_rate": 2e-3, "erasing": 0.0}


@pytest.mark.parametrize("kind", ["avit", "ats", "adavit"])
def test_training_lowers_the_loss_and_is_the_same_for_the_same_seed(kind):
    images, labels = bright_and_dark()
    config, found = TrainConfig(**QUICK), []
    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        victim = make(kind)
        history = train_victim(victim, images, labels, config=config, seed=seed)
        found.append((victim.state_dict(), history))
    assert torch.equal(torch.get_rng_state(), state)
    history = found[0][1]
    assert history == found[1][1] != found[2][1]
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    assert sum(h["task"] for h in history[-5:]) < 0.6 * sum(h["task"] for h in history[:5])
    assert history[0].keys() == {"loss", "task", "accuracy", "gmacs"}
    assert not victim.training


def test_a_depth_budget_brings_a_victim_down_to_it():
    images, labels = bright_and_dark()
    budget = TrainConfig(**QUICK | {"steps": 60, "target_depth": 2.3, "budget_weight": 10.0})
    ponder = {}
    for name, config in (("with", budget), ("without", TrainConfig(**QUICK | {"steps": 60}))):
        victim = make("avit")
        train_victim(victim, images, labels, config=config, seed=0)
        ponder[name] = victim.run(images / 255, "masked").trace.ponder.mean().item()
    assert ponder["with"] < 2.8 < 3.5 < ponder["without"]


def test_the_budget_falls_from_all_blocks_to_its_target_over_the_ramp():
    trace = HaltingTrace(scores=torch.full((2, 4, 3), 0.25), ponder=torch.full((2, 3), 4.0))
    quiet = {"ponder_weight": 0.0, "prior_weight": 0.0, "budget_weight": 10.0, "target_depth": 3.0, "ramp": 0.5}
    config = TrainConfig(**quiet)
    found = [own_loss(None, trace, config=config, progress=p).item() for p in (0.0, 0.25, 0.375, 0.5, 1.0)]
    # the budget is 5, 4, 3.5, 3 and 3 of 5, and the ponder 4
    assert found == pytest.approx([0, 0, 1, 2, 2])


def test_a_budget_from_both_sides_is_how_far_the_ponder_is_from_it():
    quiet = {"ponder_weight": 0.0, "prior_weight": 0.0, "budget_weight": 10.0, "target_depth": 3.0, "ramp": 0.0}
    found = {}
    for two_sided in (False, True):
        config, found[two_sided] = TrainConfig(**quiet, two_sided=two_sided), []
        for depth in (2.0, 3.0, 4.5):
            ponder = torch.full((2, 3), depth, requires_grad=True)
            trace = HaltingTrace(scores=torch.full((2, 4, 3), 0.25), ponder=ponder)
            loss = own_loss(None, trace, config=config, progress=0.0)
            (slope,) = torch.autograd.grad(loss, ponder)
            found[two_sided] += [loss.item(), slope.sum().item()]
    # by |ponder - 3| / 5 times 10: a block more or less costs 2
    assert found[False] == pytest.approx([0, 0, 0, 0, 3, 2])
    assert found[True] == pytest.approx([2, -2, 0, 0, 3, 2])


@pytest.mark.parametrize(("kind", "own"), [("avit", {"gate", "shift"}), ("adavit", {"networks"})])
def test_gates_alone_are_trained_where_that_is_asked(kind, own):
    images, labels = bright_and_dark()
    victim = make(kind)
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    config = TrainConfig(**QUICK | {"trained": "gates", "steps": 3, "target_depth": 2.0})
    train_victim(victim, images, labels, config=config, seed=0)
    changed = {name for name, value in victim.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == own


def test_gates_alone_come_to_rest_at_a_budget_from_both_sides():
    images, labels = bright_and_dark()
    victim = make("avit")
    settings = {"trained": "gates", "steps": 80, "ponder_weight": 0.0, "prior_weight": 0.0, "gate_rate": 1e-2}
    config = TrainConfig(**QUICK | settings, target_depth=2.6, two_sided=True)
    train_victim(victim, images, labels, config=config, seed=0)
    assert victim.run(images / 255, "masked").trace.ponder.mean().item() == pytest.approx(2.6, abs=0.3)


def test_noise_in_adavits_training_can_be_left_out():
    images, labels = bright_and_dark(16)
    victim = make("adavit")
    before = victim.run(images / 255, "masked").macs.mean().item()
    config = TrainConfig(**QUICK | {"trained": "gates", "steps": 1, "flip": False})
    with_noise, without = (
        train_victim(make("adavit"), images, labels, config=replace(config, noise=noise), seed=0)[0]["gmacs"] * 1e9
        for noise in (True, False)
    )
    assert without == pytest.approx(before, rel=1e-6)
    assert with_noise < 0.999 * before  # all decisions start open, and noise can only close some


def test_a_first_shift_may_be_a_whole_number():
    victim = AViT(toy(), config=AViTConfig(gate="linear", first_shift=-4), mean=MEAN, std=STD)
    assert victim.shift.tolist() == [-4.0] * (DEPTH - 1)


def test_ponder_and_prior_have_their_weights():
    trace = HaltingTrace(scores=torch.rand(2, 4, 3), ponder=torch.full((2, 3), 4.0))
    one = own_loss(None, trace, config=TrainConfig(ponder_weight=0.5, prior_weight=0.0), progress=0.0)
    assert one.item() == pytest.approx(2.0)
    two, four = (
        own_loss(None, trace, config=TrainConfig(ponder_weight=0.0, prior_weight=w), progress=0.0).item()
        for w in (1, 2)
    )
    assert four == pytest.approx(2 * two) != 0


def test_adavits_term_is_its_usage_by_its_own_targets():
    victim = make("adavit")
    trace = DecisionTrace(patches=torch.ones(2, 3, 9), heads=torch.zeros(2, 3, 2), blocks=torch.ones(2, 3, 2))
    loss = own_loss(victim, trace, config=TrainConfig(usage_weight=3.0), progress=0.0)
    own = victim.config
    expected = (1 - own.patch_target) ** 2 + own.head_target**2 + (1 - own.block_target) ** 2
    assert loss.item() == pytest.approx(3 * expected)


def test_the_head_alone_is_trained_where_that_is_asked():
    images, labels = bright_and_dark()
    victim = make("ats")
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    train_victim(victim, images, labels, config=TrainConfig(**QUICK | {"trained": "head", "steps": 2}), seed=0)
    changed = {name for name, value in victim.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"vit.head.weight", "vit.head.bias"}


def test_an_adversary_may_alter_each_steps_images():
    images, labels = bright_and_dark()
    seen = []

    def blacken(step, batch):
        seen.append((step, batch.shape))
        return torch.zeros_like(batch)

    victim = make("ats")
    config = TrainConfig(**QUICK | {"steps": 2})
    train_victim(victim, images, labels, config=config, seed=0, alter=blacken)
    assert seen == [(0, (16, 3, 12, 12)), (1, (16, 3, 12, 12))]


def test_a_ridge_start_solves_the_regression_and_fits():
    images, labels = bright_and_dark()
    victim = make("ats")
    accuracy = start_head(victim, images, labels, ridge=0.5, batch=10)
    logits = victim.run(images / 255, "dropped").logits
    assert accuracy == (logits.argmax(1) == labels).double().mean() > 0.9
    inputs = []
    handle = victim.vit.head.register_forward_pre_hook(lambda _, given: inputs.append(given[0].double()))
    victim.run(images / 255, "dropped")
    handle.remove()
    x = (inputs[0] - inputs[0].mean(0)) / inputs[0].std(0, correction=0)
    y = F.one_hot(labels, 2).double()
    # Ridge as least squares with sqrt(ridge) I below the inputs and zeros below the centred labels.
    rows = torch.cat([x, 0.5**0.5 * torch.eye(16, dtype=torch.float64)])
    wanted = torch.cat([y - y.mean(0), torch.zeros(16, 2, dtype=torch.float64)])
    fitted = x @ torch.linalg.lstsq(rows, wanted).solution + y.mean(0)
    factors = (logits.double() / fitted).flatten()
    assert factors.std() < 1e-3 * factors.mean()
    assert factors.mean().item() == pytest.approx(2 ** round(factors.mean().log2().item()), rel=1e-3)


def test_erasing_replaces_rectangles_of_some_images_by_noise_in_range():
    images = torch.full((200, 3, 24, 24), 0.5)
    erased = random_erasing(images, probability=0.25, draw=torch.Generator().manual_seed(0))
    changed = (erased != images).any(1)  # [B, 24, 24]
    share = changed.flatten(1).double().mean(1)
    assert 0.15 < (share > 0).double().mean() < 0.35
    some = share[share > 0]
    assert 0.01 < some.min() < some.max() <= 0.36
    assert 0 <= erased.min() < erased.max() <= 1
    for one in changed[share > 0]:
        rows, columns = one.any(1).nonzero()[:, 0], one.any(0).nonzero()[:, 0]
        assert one.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    assert torch.equal(random_erasing(images, probability=0.0, draw=torch.Generator()), images)
    assert images.unique().tolist() == [0.5]  # the images given stay as they were


def test_what_cannot_be_trained_is_refused():
    images, labels = bright_and_dark(8)
    with pytest.raises(EffbookError, match="at least a batch"):
        train_victim(make("ats"), images, labels, config=TrainConfig(batch=16), seed=0)
    with pytest.raises(EffbookError, match="8 images and 7 labels"):
        train_victim(make("ats"), images, labels[:7], config=TrainConfig(batch=4), seed=0)
    victim = make("ats")
    victim.vit.head.bias.data[0] = float("nan")
    with pytest.raises(EffbookError, match="nan at step 0"):
        train_victim(victim, images, labels, config=TrainConfig(batch=4), seed=0)
    for name, value in (
        ("steps", 0),
        ("erasing", 1.5),
        ("trained", "none"),
        ("target_depth", 0.5),
        ("flip", 1),
        ("two_sided", 1),
        ("noise", None),
    ):
        with pytest.raises(EffbookError, match=name):
            TrainConfig(**{name: value})
