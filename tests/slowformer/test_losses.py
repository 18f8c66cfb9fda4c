"""Each loss beside plain loops over what a victim shows, written from 4.1.3.2 and the facts."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from slowformer.fakes import Red, Shows, drawn
from torch.autograd import gradcheck

from effbook.errors import EffbookError
from effbook.slowformer import (
    ATS_WEIGHTS,
    AdaViTLoss,
    ATSLoss,
    AViTLoss,
    DeSparsify,
    Look,
    NonTargeted,
    SurrogateLoss,
    Targeted,
    WithTask,
)

B, L, N, H, S, C = 3, 4, 5, 2, 3, 6
LABELS = torch.tensor([1, 0, 4])
LOGITS = drawn(B, C, seed=8, most=4, dtype=torch.float64)


def look(labels=LABELS, logits=LOGITS, **trace):
    images = drawn(B, 3, 8, 8)
    return Look(Shows(logits, **trace), images, labels, clean=images / 2)


def halting():
    return {"scores": drawn(B, L, N, seed=1, dtype=torch.float64), "ponder": drawn(B, N, seed=2, dtype=torch.float64)}


def test_the_surrogate_is_raised():
    images = drawn(B, 3, 8, 8)
    found = SurrogateLoss()(Look(Red(), images, LABELS, clean=images))
    assert found.item() == pytest.approx(-Red().surrogate(images).mean().item())


@pytest.mark.parametrize("sign", ["text", "code"])
def test_the_loss_for_a_vit_is_its_slow_twin(sign):
    scores, ponder = halting().values()
    mean_score = [sum(scores[b, layer, n].item() for b in range(B) for n in range(N)) / (B * N) for layer in range(L)]
    density = [math.exp(-((layer - 3) ** 2) / 2) / math.sqrt(2 * math.pi) for layer in range(1, L + 1)]
    kl = 0.0
    for p, q in zip(density, mean_score, strict=True):
        p, q = p / sum(density), q / sum(mean_score)
        kl += q * math.log(q / p)
    rest = sum(ponder[b, n].item() for b in range(B) for n in range(N)) / (B * N)
    expected = -(1e-3 * kl + 5e-4 * rest) if sign == "text" else 1e-3 * kl - 5e-4 * rest
    loss = AViTLoss(sign=sign, prior_depth=3)
    assert loss(look(**halting())).item() == pytest.approx(expected, rel=1e-12)
    scores.requires_grad_(), ponder.requires_grad_()
    assert gradcheck(lambda s, p: loss(look(scores=s, ponder=p)), (scores, ponder))


def test_the_loss_for_a_vit_has_a_value_for_a_batch_of_one():
    one = AViTLoss()(look(**{name: shown[:1] for name, shown in halting().items()}))
    assert one.isfinite()


def decisions(seed=3):
    shapes = {"patches": (B, L, N), "heads": (B, L, H), "blocks": (B, L, 2)}
    return {
        name: drawn(*shape, seed=seed + i, dtype=torch.float64).round()
        for i, (name, shape) in enumerate(shapes.items())
    }


def test_the_text_s_loss_for_adavit_is_minus_eq_4_3_with_targets_of_0():
    shown = decisions()
    expected = 0.0
    for b in range(B):
        for kept in shown.values():
            expected -= (sum(kept[b].flatten().tolist()) / kept[b].numel()) ** 2 / B
    assert AdaViTLoss()(look(**shown)).item() == pytest.approx(expected, rel=1e-12)
    given = [kept.requires_grad_() for kept in shown.values()]
    assert gradcheck(lambda p, h, b: AdaViTLoss()(look(patches=p, heads=h, blocks=b)), given)


def test_the_released_loss_for_adavit_counts_heads_where_a_block_runs():
    shown = decisions()
    heads, running = 0.0, 0
    for b in range(B):
        for layer in range(L):
            if shown["blocks"][b, layer].sum() > 0:
                heads += shown["heads"][b, layer].sum().item()
                running += H
    expected = -2 * (1.1 * heads / running + 1.1 * shown["blocks"].mean().item() + shown["patches"].mean().item() ** 2)
    assert running < B * L * H
    assert AdaViTLoss(form="released")(look(**shown)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", ["text", "released"])
def test_the_loss_for_ats_is_eq_4_5_over_heads_and_stages(form):
    attention, weights = drawn(B, S, H, N, seed=6, dtype=torch.float64), (2.0, 0.1, 0.02)
    uniform = 1 / (N + 1) if form == "text" else 1 / N
    expected = 0.0
    for b in range(B):
        for s, weight in enumerate(weights):
            for h in range(H):
                for n in range(N):
                    expected += weight * (attention[b, s, h, n].item() - uniform) ** 2 / B
    loss = ATSLoss(weights=weights, form=form)
    assert loss(look(attention=attention)).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda a: loss(look(attention=a)), (attention.requires_grad_(),))
    assert all(len(each) == 7 for each in ATS_WEIGHTS.values())


def test_tap_and_ntap_are_cross_entropies_of_the_one_class_and_of_the_true_one():
    each = LOGITS.log_softmax(1)
    assert NonTargeted()(look()).item() == pytest.approx(sum(each[b, LABELS[b]].item() for b in range(B)) / B)
    assert Targeted(target=5)(look()).item() == pytest.approx(-sum(each[b, 5].item() for b in range(B)) / B)


def test_the_task_is_kept_or_destroyed_beside_the_compute_and_the_victim_runs_once():
    alone, task = AViTLoss()(look(**halting())), F.cross_entropy(LOGITS, LABELS)
    seen = look(**halting())
    kept = WithTask(compute=AViTLoss(), preserve=True, weight=0.3)(seen)
    assert seen.victim.calls == 1
    assert kept.item() == pytest.approx((alone + 0.3 * task).item())
    destroyed = WithTask(compute=AViTLoss(), preserve=False)(look(**halting()))
    assert destroyed.item() == pytest.approx((alone - task).item())


def test_desparsify_keeps_tokens_and_the_classification_of_the_clean_image():
    shown = halting()
    expected = sum(shown["scores"][:, :-1].flatten().tolist()) / (B * (L - 1) * N)
    assert DeSparsify(victim="avit", weight=0.0)(look(**shown)).item() == pytest.approx(expected)

    scores = drawn(B, S, N, seed=4, dtype=torch.float64)
    scores[0, 1, 2:] = 0  # lost before
    expected = 0.0
    for b in range(B):
        for s in range(S):
            total = scores[b, s].sum().item()
            for p in (x / total for x in scores[b, s].tolist() if x > 0):
                expected += p * math.log(p * N) / (B * S)
    loss = DeSparsify(victim="ats", weight=0.0)
    assert loss(look(scores=scores)).item() == pytest.approx(expected)
    assert loss(look(scores=torch.ones(B, S, N))).item() == pytest.approx(0, abs=1e-6)

    made = decisions()
    expected = sum((1 - kept).square().mean().item() for kept in made.values())
    assert DeSparsify(victim="adavit", weight=0.0)(look(**made)).item() == pytest.approx(expected)

    own = LOGITS.argmax(1)  # here the victim gives clean and attacked images the same class
    with_class = DeSparsify(victim="adavit", weight=0.7)(look(**made)).item()
    assert with_class == pytest.approx(expected + 0.7 * F.cross_entropy(LOGITS, own).item())


def test_desparsify_takes_the_class_of_the_clean_image_not_of_the_attacked_one():
    bright, dark = torch.full((2, 3, 8, 8), 0.9), torch.full((2, 3, 8, 8), 0.05)
    seen = Look(Red(), bright, torch.zeros(2).long(), clean=dark)
    ones = torch.ones(2, 3, 4)
    seen.trace = lambda *names: SimpleNamespace(**dict.fromkeys(names, ones))
    found = DeSparsify(victim="adavit", weight=1.0)(seen).item()
    assert found == pytest.approx(F.cross_entropy(Red().run(bright).logits, torch.tensor([0, 0])).item())


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda: AViTLoss()(look(attention=LOGITS)), "Shows shows no scores under masked execution; take the loss"),
        (lambda: AViTLoss(sign="both"), "'both' is no form of this loss; choose 'text' or 'code'"),
        (lambda: AdaViTLoss(form="code"), "choose 'text' or 'released'"),
        (lambda: ATSLoss(weights=(1.0,))(look(attention=torch.rand(B, S, H, N))), "1 weights for a victim with 3"),
        (lambda: Targeted(target=6)(look()), "the target class 6 is none of 6; give one from 0 to 5"),
        (lambda: NonTargeted()(look(labels=torch.tensor([1, -1, 2]))), "an image has none"),
        (lambda: DeSparsify(victim="tome", weight=1.0), "knows no victim 'tome'"),
    ],
)
def test_a_loss_that_does_not_fit_says_so(loss, told):
    with pytest.raises(EffbookError, match=told):
        loss()
