"""What the chapter's figures show, as numbers: dropped tokens, the stages of a patch, patches of several starts."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.slowformer.evaluations import SAVES_NOTHING, copied
from effbook.experiments.slowformer.settings import PATCH, Attack, Judged
from effbook.runs.recipe import Context, Cost, Result, Shared, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TokensRecipe(Judged, Attack):
    """How many patches' tokens are dropped, without the attack or, with `shown` "attacked", with it (Figures 4.2, C.4).

    `pruned_percent` of them before block `layer`, counted from 1; `last_percent` are left in the last block;
    `relieved_percent` of the images keep more tokens in it with the attack than without. Series `tokens`: the patches
    kept a block.
    """

    name: ClassVar[str] = "slowformer-tokens"

    shown: Literal["clean", "attacked"] = "attacked"
    layer: PositiveInt = 8

    def cost(self) -> Cost:
        own = super().cost()
        return own if self.shown == "attacked" else dataclasses.replace(own, seconds=own.seconds - self.patch_s())

    def shares(self) -> tuple[Shared, ...]:
        return tuple(one for one in super().shares() if self.shown == "attacked" or one.kind != PATCH)

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean, observe
        from effbook.experiments.slowformer.patches import kept_patch
        from effbook.experiments.slowformer.victims import kept_victim

        victim, before = kept_victim(self, context), clean(self, context)
        patches, depth = victim.vit.patch_embed.num_patches, len(victim.vit.blocks)
        if self.layer > depth:
            raise EffbookError(f"the layer {self.layer} is none of {depth}", f"choose one from 1 to {depth}")
        seen, relieved = before, None
        if self.shown == "attacked":
            seen = observe(victim, self, kept_patch(self, context), context)
            relieved = 100 * (seen.kept.sum(1) > before.kept.sum(1)).double().mean().item()
        metrics = {
            "pruned_percent": 100 * (1 - seen.kept_a_block[self.layer - 1] / patches),
            "last_percent": 100 * seen.kept_a_block[-1] / patches,
            "relieved_percent": relieved,
        }
        notes = {"relieved_percent": "it compares the attack with none"} if relieved is None else {}
        return Result(metrics=metrics, series={"tokens": seen.kept_a_block}, notes=notes)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class StagesRecipe(Judged, Attack):
    """The patch at its start, after a tenth of its steps, or at its end: how it succeeds, how like the last it is."""

    name: ClassVar[str] = "slowformer-stages"

    moment: Literal["start", "tenth", "last"] = "last"

    def validate(self) -> None:
        super().validate()
        if self.attack != "slowformer":
            raise EffbookError(f"the stages of {self.attack} are not kept", 'choose the attack "slowformer"')

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean, observe, successes
        from effbook.experiments.slowformer.patches import attacked, kept_patch, likeness
        from effbook.experiments.slowformer.victims import kept_victim

        victim = kept_victim(self, context)
        patch, last = kept_patch(self, context, moment=self.moment), kept_patch(self, context)
        before, after = clean(self, context), observe(victim, self, patch, context)
        metrics = successes(victim, before, after) | {"gflops": after.gflops, "likeness": likeness(patch, last)}
        name = "patch" if self.moment == "last" else self.moment
        files = {f"patch.{end}": copied(attacked(self, context) / f"{name}.{end}", context) for end in ("png", "json")}
        notes = {one: SAVES_NOTHING for one, value in metrics.items() if value is None}
        return Result(metrics=metrics, artifacts=files, notes=notes)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class StartsRecipe(Judged, Attack):
    """Patches of `starts` different starts: the weakest's Attack Success, and the highest correlation of two."""

    name: ClassVar[str] = "slowformer-starts"

    starts: Annotated[int, Field(ge=2)] = 4

    def each(self) -> tuple[Attack, ...]:
        """The trainings of the patches; the first is that of Table 4.1."""
        return tuple(dataclasses.replace(self.patch_recipe(), restart=restart) for restart in range(self.starts))

    def cost(self) -> Cost:
        own = super().cost()
        more = (self.starts - 1) * (self.patch_s() + self.judging_s() / 2)
        return dataclasses.replace(own, seconds=own.seconds + more)

    def shares(self) -> tuple[Shared, ...]:
        others = [Shared(PATCH, one.patch_parts(), one.patch_s()) for one in self.each()[1:]]
        return (*super().shares(), *others)

    def probe(self) -> dict[str, object]:
        return super().probe() | {"starts": 2}

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.judging import clean, observe, successes
        from effbook.experiments.slowformer.patches import attacked, kept_patch, likeness
        from effbook.experiments.slowformer.victims import kept_victim

        victim, before = kept_victim(self, context), clean(self, context)
        patches = [kept_patch(one, context) for one in self.each()]
        found = [successes(victim, before, observe(victim, self, patch, context))["success"] for patch in patches]
        alike = max(likeness(a, b) for a, b in itertools.combinations(patches, 2))
        files = {}
        for number, one in enumerate(self.each()):
            file = copied(attacked(one, context) / "patch.png", context)
            files[f"patch-{number}.png"] = file.rename(file.with_name(f"patch-{number}.png"))
        if None in found:
            return Result(metrics={"lowest": None, "likeness": alike}, notes={"lowest": SAVES_NOTHING}, artifacts=files)
        return Result(metrics={"lowest": min(found), "likeness": alike}, series={"success": found}, artifacts=files)
