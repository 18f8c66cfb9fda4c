"""Adversarial training against a growing set of patches, judged by an attack made anew (4.1.4, Table 4.6)."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.slowformer.evaluations import SAVES_NOTHING
from effbook.experiments.slowformer.settings import DEFENDED, Attack, Judged
from effbook.runs.recipe import Context, Cost, Result, register_recipe

ANEW, MADE = 500, 501  # added to the attack's `restart`: the judging patch and the training ones start elsewhere


@register_recipe
@dataclass(frozen=True, kw_only=True)
class DefenceRecipe(Judged, Attack):
    """A victim trained by its own loss on images that bear one of a growing set of patches, then attacked anew.

    All of the victim is trained. A new patch joins at each `1 / patches_per_epoch` of an epoch, of `patch_steps` steps
    at `patch_rate`. `success` divides by what the original victim saves, as Table 4.6 does, `success_of_own` by what
    the defended one saves. Metrics with `clean_` are of the defended victim without an attack, with `original_` of the
    one before the defence.
    """

    name: ClassVar[str] = "slowformer-defence"

    defence_images: PositiveInt | None = None  # of the training images; None: all
    defence_epochs: PositiveInt = 1
    patches_per_epoch: PositiveInt = 5
    patch_steps: PositiveInt = 500
    patch_rate: PositiveFloat = 0.8
    defence_batch: PositiveInt = 128
    defence_rate: NonNegativeFloat = 1e-5

    def validate(self) -> None:
        super().validate()
        if self.attack != "slowformer" or self.task != "agnostic":
            raise EffbookError("the defence is judged by SlowFormer's attack on compute", "choose that attack")

    def defended_parts(self) -> dict[str, object]:
        """What the kept defended victim depends on: not on the test images."""
        return {"fields": {**self.fields, "test_images": None}, "data": self.digests}

    def defence_s(self) -> float:
        """An estimate of the seconds that the adversarial training takes, with its patches."""
        images = self.defence_images or self.train_images or 50_000
        patches = self.patches_per_epoch * self.patch_steps * self.attack_batch
        return 4 * self.defence_epochs * (images + patches) * self.forward_s()

    def cost(self) -> Cost:
        own = super().cost()
        return dataclasses.replace(own, seconds=own.seconds + self.defence_s() + self.judging_s())

    def probe(self) -> dict[str, object]:
        few = {"defence_images": 16, "patches_per_epoch": min(self.patches_per_epoch, 2)}
        return super().probe() | few | {"patch_steps": min(self.patch_steps, 2), "defence_batch": 4}

    def shares(self) -> tuple:
        return super().shares()[:-1]  # its patches are made against another victim than the kept one

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean, observe, success, successes
        from effbook.experiments.slowformer.victims import dense_macs, kept_victim, load_victim
        from effbook.slowformer import load_patch

        folder = context.cached(DEFENDED, self.defended_parts(), self, lambda place: self.defend(context, place))
        original, victim = clean(self, context), load_victim(self, folder / "victim.safetensors", context)
        patch = load_patch(folder / "anew.png")[0]
        before, after = (observe(victim, self, attack, context) for attack in (None, patch))
        bound, most = kept_victim(self, context).bound(), dense_macs(victim)
        metrics = {
            "gflops": after.gflops,
            "top1": after.top1,
            "success": success(original, after, low=bound.low_macs, high=most),
            "success_of_own": successes(victim, before, after)["success"],
            "clean_gflops": before.gflops,
            "clean_top1": before.top1,
            "original_gflops": original.gflops,
            "original_top1": original.top1,
        }
        notes = {name: SAVES_NOTHING for name, value in metrics.items() if value is None}
        series = {"tokens": after.kept_a_block, "clean_tokens": before.kept_a_block}
        return Result(metrics=metrics, series=series, notes=notes)

    def defend(self, context: Context, folder: Path) -> None:
        """Train the victim on patches and make the one that judges it; write both into the folder."""
        from torch import Tensor
        from torch.utils.data import Subset, TensorDataset

        from effbook.adaptive.training import parameter_groups
        from effbook.experiments.shared.splits import train_split
        from effbook.experiments.slowformer import patches, victims
        from effbook.slowformer import DefenceConfig, OriginalLoss, defend

        images = train_split(self)
        victim = victims.kept_victim(self, context)
        data, make = patches.training_data(images), patches.training_views(self, images)
        if self.defence_images is not None and self.defence_images < len(images):
            kept = range(self.defence_images)
            whole = isinstance(images.images, Tensor)
            data = TensorDataset(*data[: self.defence_images]) if whole else Subset(data, kept)
        attack = dataclasses.replace(self.patch_recipe(), restart=self.restart + MADE)
        config = DefenceConfig(
            attack=attack.config(steps=self.patch_steps, learning_rate=self.patch_rate),
            epochs=self.defence_epochs,
            patches_per_epoch=self.patches_per_epoch,
            batch=self.defence_batch,
            learning_rate=self.defence_rate,
            seed=self.seed,
        )
        training = victims.train_config(self)
        groups = parameter_groups(victim, dataclasses.replace(training, trained="all", vit_rate=self.defence_rate))
        loss = patches.compute_loss(self, victim)
        bar = context.progress(self.defence_epochs * (len(data) // self.defence_batch), "adversarial training")
        defend(
            victim,
            data,
            objective=OriginalLoss(config=training),
            attack=loss,
            config=config,
            groups=groups,
            make=make,
            watch=lambda step, value, known: bar.advance(1, loss=value),
        )
        victims.save_victim(victim.eval(), folder / "victim.safetensors")
        anew = dataclasses.replace(self.patch_recipe(), restart=self.restart + ANEW)
        patches.save(anew, patches.train(anew, victim, images, loss, context=context)[0], folder / "anew.png")
