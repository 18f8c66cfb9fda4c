"""The three victims, tiny and random, under every loss that is made for them."""

import pytest
import torch
from slowformer.fakes import drawn
from torch.utils.data import TensorDataset

from effbook.adaptive import ATS, AdaViT, AdaViTConfig, AtsConfig, AViT, AViTConfig, TrainConfig
from effbook.slowformer import (
    AdaViTLoss,
    ATSLoss,
    AttackConfig,
    AViTLoss,
    DefenceConfig,
    DeSparsify,
    NonTargeted,
    OriginalLoss,
    SurrogateLoss,
    Targeted,
    WithTask,
    defend,
    judge,
    train_patch,
)

IMAGES = TensorDataset(drawn(8, 3, 16, 16), torch.arange(8) % 5)
NORMALISED = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
LOSSES = {
    "avit": [AViTLoss(sign="text"), AViTLoss(sign="code"), DeSparsify(victim="avit", weight=0.1)],
    "ats": [ATSLoss(weights=(1.0, 0.2)), DeSparsify(victim="ats", weight=0.1)],
    "adavit": [AdaViTLoss(), AdaViTLoss(form="released"), DeSparsify(victim="adavit", weight=0.1)],
}
EVERY = [SurrogateLoss(), NonTargeted(), Targeted(target=3), WithTask(compute=SurrogateLoss(), preserve=True)]


def victim(kind):
    from timm.models.vision_transformer import VisionTransformer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=2, num_classes=5)
        for p in vit.parameters():
            torch.nn.init.normal_(p, std=0.2)
        if kind == "avit":
            avit = AViT(vit, config=AViTConfig(gate="linear", first_shift=0.0), **NORMALISED)
            torch.nn.init.normal_(avit.gate, std=0.1)
            return avit
        if kind == "ats":
            return ATS(vit, config=AtsConfig(blocks=(0, 1)), **NORMALISED)
        adavit = AdaViT(vit, config=AdaViTConfig(start=0.0), **NORMALISED)
        for p in adavit.networks.parameters():
            torch.nn.init.normal_(p, std=0.3)
        return adavit


@pytest.mark.parametrize(
    ("kind", "loss"), [(kind, loss) for kind, own in LOSSES.items() for loss in own + EVERY], ids=lambda x: repr(x)[:40]
)
def test_every_loss_moves_a_patch_against_its_victim(kind, loss):
    attacked = victim(kind)
    config = AttackConfig(patch_px=8, steps=3, batch=4, start="zero")
    patch, losses = train_patch(attacked, IMAGES, loss=loss, config=config)
    assert len(set(losses)) > 1
    assert patch.levels.float().mean() > 0.3
    judged = judge(attacked, IMAGES, patch)
    masked = judge(attacked, IMAGES, patch, execution="masked")
    assert judged.success_percent <= 100
    assert judged.attacked_macs == pytest.approx(masked.attacked_macs)


def test_adavit_can_be_attacked_with_its_noise():
    config = {"patch_px": 8, "steps": 2, "batch": 4}
    without, one, two = (
        train_patch(victim("adavit"), IMAGES, loss=AdaViTLoss(), config=AttackConfig(**config, noise=noise)).losses
        for noise in (False, True, True)
    )
    assert one == two != without


@pytest.mark.parametrize("kind", ["avit", "ats", "adavit"])
def test_every_victim_can_be_defended_by_the_loss_that_it_was_trained_by(kind):
    trained = victim(kind)
    before = [p.clone() for p in trained.parameters()]
    config = DefenceConfig(attack=AttackConfig(patch_px=8, steps=1, batch=4), patches_per_epoch=2, batch=4)
    result = defend(
        trained, IMAGES, objective=OriginalLoss(config=TrainConfig()), attack=SurrogateLoss(), config=config
    )
    assert len(result.patches) == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, trained.parameters(), strict=True))
