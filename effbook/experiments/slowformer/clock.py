"""What the attack costs by the clock and in joules: the dense ViT, the victim without the attack and with it, in turns.

The victims run with what they drop left out, so that they are really faster. The dissertation measured no hardware.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from effbook.experiments.slowformer.evaluations import SAVES_NOTHING
from effbook.experiments.slowformer.settings import Attack
from effbook.runs.recipe import Context, Cost, Result, register_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

CONDITIONS = ("dense", "clean", "attacked")
NOT_MEASURED = "not measured: this machine shows no energy counter"


@register_recipe
@dataclass(frozen=True, kw_only=True)
class ClockRecipe(Attack):
    """Milliseconds, and where a counter can be read joules, of a batch of `clock_images` test images.

    Metrics: `ms_dense`, `ms_clean`, `ms_attacked`, the same with `joules_`, and with `_one` for a batch of one image;
    `gflops_` of the same images; `ms_ratio` and `gflops_ratio` of clean to dense; `success` in FLOPs, `success_ms`,
    `success_joules`, with the dense ViT as the most. Run it alone on its machine.
    """

    name: ClassVar[str] = "slowformer-clock"
    varying: ClassVar[tuple[str, ...]] = (
        *(f"{kind}_{condition}{one}" for kind in ("ms", "joules") for condition in CONDITIONS for one in ("", "_one")),
        "ms_ratio",
        "ms_ratio_one",
        "success_ms",
        "success_joules",
    )

    clock_images: PositiveInt = 32
    repeats: PositiveInt = 20
    warm_up: NonNegativeInt = 3
    joule_rounds: Annotated[int, Field(ge=0)] = 3  # 0: joules are not measured

    def cost(self) -> Cost:
        own, calls = super().cost(), 3 * (self.repeats + self.warm_up) * (self.clock_images + 1)
        joules_s = 20 * self.joule_rounds if self.needs() else 0  # a CPU seldom shows a counter
        return dataclasses.replace(own, seconds=own.seconds + calls * self.forward_s() + joules_s)

    def probe(self) -> dict[str, object]:
        small = {"clock_images": min(self.clock_images, 4), "repeats": 2, "warm_up": 0, "joule_rounds": 0}
        return super().probe() | small

    def run(self, context: Context) -> Result:
        from effbook.evaluate.cost import attack_success
        from effbook.evaluate.latency import latencies_ms

        functions, gflops = self.functions(context)
        metrics: dict[str, float | None] = {f"gflops_{name}": value for name, value in gflops.items()}
        for one, of in functions.items():
            found = latencies_ms(of, repeats=self.repeats, warmup=self.warm_up)
            metrics |= {f"ms_{name}{one}": found[name].median_ms for name in CONDITIONS}
            metrics[f"ms_ratio{one}"] = metrics[f"ms_clean{one}"] / metrics[f"ms_dense{one}"]
        joules, notes = self.joules(functions, context.device)
        metrics |= joules
        metrics["gflops_ratio"] = gflops["clean"] / gflops["dense"]
        for unit, name in (("gflops", "success"), ("ms", "success_ms"), ("joules", "success_joules")):
            dense, before, after = (metrics[f"{unit}_{condition}"] for condition in CONDITIONS)
            metrics[name] = None
            if dense is None:
                notes[name] = NOT_MEASURED
            elif before >= dense:
                notes[name] = SAVES_NOTHING
            else:
                metrics[name] = attack_success(before, after, high=dense)
        return Result(metrics=metrics, notes=notes)

    def functions(self, context: Context) -> "tuple[dict[str, dict[str, Callable[[], object]]], dict[str, float]]":
        """What is timed, by "" and "_one" and by condition, and the GFLOPs of an image of the batch."""
        import torch

        from effbook.experiments.shared.splits import split
        from effbook.experiments.slowformer.patches import kept_patch
        from effbook.experiments.slowformer.victims import dense_of, kept_victim

        victim = kept_victim(self, context)
        dense, patch = dense_of(victim), kept_patch(self, context)
        test = split(self.dataset, "test", size_px=self.image_px, wanted=self.clock_images, seed=0)
        images = (test.whole(torch.arange(len(test))) / 255).to(context.device)
        given = {"dense": (dense, images), "clean": (victim, images), "attacked": (victim, patch(images))}
        found: dict[str, dict[str, Callable[[], object]]] = {"": {}, "_one": {}}
        for name, (model, batch) in given.items():
            for one, some in (("", batch), ("_one", batch[:1])):
                found[one][name] = lambda model=model, some=some: model.run(some, "dropped")
        return found, {name: found[""][name]().macs.mean().item() / 1e9 for name in CONDITIONS}

    def joules(self, functions: dict, device: str) -> tuple[dict[str, float | None], dict[str, str]]:
        """Joules of a batch under each condition; None, with the reason, where they cannot be read."""
        from effbook.evaluate.energy import EnergyMeter

        names = {one: [f"joules_{condition}{one}" for condition in CONDITIONS] for one in functions}
        meter = EnergyMeter.on(device, rounds=self.joule_rounds) if self.joule_rounds else None
        if meter is None:
            every = [name for of in names.values() for name in of]
            return dict.fromkeys(every), dict.fromkeys(every, NOT_MEASURED)
        found = {one: meter.measure(of) for one, of in functions.items()}
        return {f"joules_{name}{one}": found[one][name].joules for one in names for name in CONDITIONS}, {}
