"""The dense ViT, a victim without an attack, and one with: cost, accuracy and Attack Success on the test images."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from effbook.errors import EffbookError
from effbook.experiments.slowformer.settings import PATCH, Attack, Judged, Victim
from effbook.runs.recipe import Context, Cost, Result, Shared, register_recipe

if TYPE_CHECKING:
    from torch import nn

    from effbook.experiments.slowformer.judging import Observed

SAVES_NOTHING = "the victim saves nothing before the attack"


@register_recipe
@dataclass(frozen=True, kw_only=True)
class DenseRecipe(Judged, Victim):
    """The plain ViT, fine-tuned like the victims where they are: the most that an architecture computes."""

    name: ClassVar[str] = "slowformer-dense"

    def validate(self) -> None:
        super().validate()
        if self.victim != "dense":
            raise EffbookError(f"{self.victim} is no dense ViT", 'choose the victim "dense"')

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean

        seen = clean(self, context)
        return Result(metrics={"gflops": seen.gflops, "top1": seen.top1}, flops=seen.macs.mean().item())


@register_recipe
@dataclass(frozen=True, kw_only=True)
class CleanRecipe(Judged, Victim):
    """A victim without an attack.

    Metrics: `gflops` executed (and for A-ViT `gflops_released` by its released code's count), `saved_percent` of the
    dense ViT's, `top1`, `depth`, the blocks that a patch's token stays. Series `tokens`: patches kept a block.
    """

    name: ClassVar[str] = "slowformer-clean"

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean, released_gflops
        from effbook.experiments.slowformer.victims import dense_macs, kept_victim

        victim, seen = kept_victim(self, context), clean(self, context)
        most = dense_macs(victim) / 1e9
        metrics = {
            "gflops": seen.gflops,
            "dense_gflops": most,
            "saved_percent": 100 * (1 - seen.gflops / most),
            "top1": seen.top1,
            "depth": seen.depth(victim.vit.patch_embed.num_patches),
        }
        if self.victim == "avit":
            metrics["gflops_released"] = released_gflops(victim, seen)
        return Result(metrics=metrics, series={"tokens": seen.kept_a_block}, flops=seen.macs.mean().item())


@register_recipe
@dataclass(frozen=True, kw_only=True)
class AttackRecipe(Judged, Attack):
    """A victim under an attack that was trained on the train split, on test images that it has not seen.

    Metrics: `success` with the dense ViT's cost as the most, `success_of_bound` with the victim's own most, and of the
    attacked victim what `CleanRecipe` has, with `clean_` of the victim without the attack; of TAP the mean over its
    targets. `darkest` is the mean level of the patch's darkest token. Series: `loss`, `tokens`, `clean_tokens`.
    """

    name: ClassVar[str] = "slowformer-attack"

    def run(self, context: Context) -> Result:
        import json

        from effbook.experiments.slowformer.judging import clean, observe
        from effbook.experiments.slowformer.patches import attacked, darkest_token, kept_patches
        from effbook.experiments.slowformer.victims import kept_victim

        victim, before = kept_victim(self, context), clean(self, context)
        patches = kept_patches(self, context)
        after = [observe(victim, self, patch, context) for patch in patches]
        each = [self.judged(victim, before, one) for one in after]
        metrics = {name: mean_of([one[name] for one in each]) for name in each[0]}
        notes = {name: SAVES_NOTHING for name in ("success", "success_of_bound") if metrics[name] is None}
        metrics |= {"clean_gflops": before.gflops, "clean_top1": before.top1}
        metrics["clean_depth"] = before.depth(victim.vit.patch_embed.num_patches)
        folder, top_left = attacked(self, context), self.corner()
        metrics |= {"top_px": top_left[0], "left_px": top_left[1]}
        artifacts = {}
        if self.attack != "perturbation":
            metrics["darkest"] = darkest_token(patches[0], self.architecture)
            if metrics["darkest"] is None:
                notes["darkest"] = "no token lies wholly within the patch"
            artifacts = {f"patch.{ending}": copied(folder / f"patch.{ending}", context) for ending in ("png", "json")}
        losses = json.loads((folder / "history.json").read_text(encoding="utf-8"))["losses"][0]
        series = {"tokens": after[0].kept_a_block, "clean_tokens": before.kept_a_block}
        series |= {"loss": losses} if losses else {}
        return Result(metrics=metrics, series=series, artifacts=artifacts, notes=notes)

    def judged(self, victim: "nn.Module", before: "Observed", after: "Observed") -> dict[str, float | None]:
        """The metrics of one patch."""
        from effbook.experiments.slowformer.judging import released_gflops, successes

        depth = after.depth(victim.vit.patch_embed.num_patches)
        found = {"gflops": after.gflops, "top1": after.top1, "depth": depth} | successes(victim, before, after)
        if self.victim == "avit":
            found["gflops_released"] = released_gflops(victim, after)
        return found


@register_recipe
@dataclass(frozen=True, kw_only=True)
class WithinRecipe(Judged, Attack):
    """Attack Success with a patch of the whole image as the most, in place of the dense ViT (4.1.5.1, on AdaViT)."""

    name: ClassVar[str] = "slowformer-within"

    def whole(self) -> Attack:
        """The training of the patch of the whole image, in the corner."""
        return dataclasses.replace(self.patch_recipe(), patch_px=self.image_px, place=0)

    def cost(self) -> Cost:
        own = super().cost()
        return dataclasses.replace(own, seconds=own.seconds + self.patch_s() + self.judging_s() / 2)

    def shares(self) -> tuple[Shared, ...]:
        whole = self.whole()
        return (*super().shares(), Shared(PATCH, whole.patch_parts(), whole.patch_s()))

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean, observe, success
        from effbook.experiments.slowformer.patches import kept_patch
        from effbook.experiments.slowformer.victims import kept_victim

        victim, before = kept_victim(self, context), clean(self, context)
        after, most = (observe(victim, self, kept_patch(one, context), context) for one in (self, self.whole()))
        found = success(before, after, low=victim.bound().low_macs, high=most.macs.mean().item())
        notes = {} if found is not None else {"success_within": "a patch of the whole image raises nothing"}
        return Result(
            metrics={"success_within": found, "gflops": after.gflops, "whole_gflops": most.gflops}, notes=notes
        )


def copied(file: Path, context: Context) -> Path:
    """A kept file in the run's own folder, to be put beside its record."""
    return Path(shutil.copy(file, context.folder / file.name))


def mean_of(values: list[float | None]) -> float | None:
    """The mean; None where one is None."""
    return None if None in values else sum(values) / len(values)
