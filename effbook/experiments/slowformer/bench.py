"""SlowFormer's lines of the ledger: what victims save and answer, what the patch undoes, and whether time follows.

What needs trained patches is read from the records of `mini`. Times are measured now, on the victims of `mini` with
the packaged ViT-S/14; a victim that is not kept is trained first. Both sides run in turns in one process, in the
process's own time on a CPU, so that others' work has no part.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from effbook.runs.bench import FromRecords, Ratio, compare, difference, mean_of, of_pairs, ratio, register_bench

if TYPE_CHECKING:
    from torch import Tensor, nn

    from effbook.experiments.slowformer.settings import Attack
    from effbook.runs.recipe import Recipe

PROFILE = "mini"
BATCH = 32  # images of a timed batch
STEPS, WARM_UP = 12, 2  # of an attack, beside which the victim runs alone
# `mini` sets all other fields by the victim; no weights of AdaViT can be read.
VICTIMS: dict[str, dict[str, object]] = {
    "A-ViT": {"victim": "avit"},
    "ATS": {"victim": "ats"},
    "AdaViT": {"victim": "adavit", "weights": "trained"},
}
ACCURACY = 70.0  # percent, the least that a victim must have to be worth an attack
# Of each victim: the most of the dense ViT's operations, the least Attack Success in percent, and the printed one.
FIGURES = {
    "A-ViT": ("<= 0.70", ">= 80", "100 (ViT-Tiny, ImageNet)"),
    "ATS": ("<= 0.75", ">= 10", "60 (ViT-Small, ImageNet)"),
    "AdaViT": ("<= 0.75", ">= 18", "40 (ViT-Small, ImageNet)"),
}


def at_mini(name: str, **fields: object) -> "Recipe":
    """A recipe of the dissertation as `mini` runs it."""
    from effbook.runs.profiles import scale
    from effbook.runs.recipe import make

    return scale(make(name, **fields), PROFILE)


# ------------------------------------------------------------------------------- read from the records


def recorded(metric: str, name: str, **fields: object) -> FromRecords:
    """A metric of a recipe of `mini`, the mean over its seeds, from the records."""
    from effbook.runs.profiles import seeds, with_seeds

    recipe = at_mini(name, **fields)
    return mean_of(metric, with_seeds(recipe, seeds(recipe, PROFILE)), PROFILE)


def clean(metric: str, name: str) -> FromRecords:
    """A metric of a victim that nothing attacks, or of the dense ViT that was fine-tuned alike."""
    if name == "dense":
        return recorded(metric, "slowformer-dense", victim="dense")
    return recorded(metric, "slowformer-clean", **VICTIMS[name])


def success(name: str, **fields: object) -> FromRecords:
    """Attack Success in percent, of SlowFormer's patch if the fields do not say otherwise."""
    return recorded("success", "slowformer-attack", **VICTIMS[name], **fields)


def beside_none(found: FromRecords) -> Ratio:
    """An Attack Success less that of no attack, which is 0 by definition."""
    return difference(found, found.map(lambda _: 0.0), "%")


def distance(a: FromRecords, b: FromRecords, unit: str) -> Ratio:
    """By how much two quantities of the same seeds differ, whichever is the larger: the mean over the seeds of that.

    So seeds on either side do not make up for each other. The sides are the means as they are.
    """
    found = difference(a, b, unit)
    gaps = [abs(one) for one in (a - b).each]
    low, _, high = statistics.quantiles(gaps, n=4, method="inclusive") if len(gaps) > 1 else gaps * 3
    return dataclasses.replace(found, value=statistics.fmean(gaps), low=low, high=high)


def random_beside_none(name: str) -> Ratio:
    """How far from 0, upwards or downwards, the Attack Success of a random patch is."""
    found = success(name, attack="random")
    return distance(found, found.map(lambda _: 0.0), "%")


def clock_beside_count(name: str) -> Ratio:
    """How far Attack Success in milliseconds is from the same in FLOPs, by the runs that timed a batch."""
    by_clock, counted = (recorded(one, "slowformer-clock", **VICTIMS[name]) for one in ("success_ms", "success"))
    return distance(by_clock, counted, "%")


def lost_by_the_defence() -> Ratio:
    """Points of accuracy on images without a patch that the defence costs."""
    before, after = (recorded(f"{one}_top1", "slowformer-defence") for one in ("original", "clean"))
    return difference(before, after, "%")


# ------------------------------------------------------------------------------- measured now


def clock() -> Callable[[], float] | None:
    """The process's own time; None on a GPU, whose work a process does not see."""
    import torch

    return None if torch.cuda.is_available() else time.process_time


def now() -> float:
    """Seconds of the clock that is used, with the GPU's work done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@cache
def victim_of(recipe: "Attack") -> "nn.Module":
    """The victim of a recipe as its runs have it."""
    from effbook.experiments.slowformer.victims import kept_victim
    from effbook.runs.recipe import Context

    with tempfile.TemporaryDirectory() as folder:
        return kept_victim(recipe, Context(profile=PROFILE, folder=folder))


@cache
def images_of(recipe: "Attack", part: str, count: int) -> "Tensor":
    """So many images of a split, uint8 [N, 3, S, S]."""
    import torch

    from effbook.experiments.shared.splits import split

    found = split(recipe.dataset, part, size_px=recipe.image_px, wanted=count, seed=0)
    return found.whole(torch.arange(len(found)))


def dense_forward(victim: "nn.Module", images: "Tensor") -> Callable[[], object]:
    """A call of the victim's ViT as timm runs it, without anything of ours but the pixels' norm."""
    import torch

    from effbook.adaptive.vit import normalised

    def run() -> object:
        with torch.no_grad():
            return victim.vit(normalised(images, victim.mean, victim.std))

    return run


@cache
def run_beside_dense(recipe: "Attack", execution: str, batch: int, repeats: int = 21) -> tuple[Ratio, float]:
    """Time of test images through a victim over that of its dense ViT, and the share of operations that it takes."""
    import torch

    from effbook.experiments.slowformer.victims import dense_macs

    victim = victim_of(recipe)
    images = (images_of(recipe, "test", BATCH)[:batch] / 255).to(victim.mean.device)

    def run() -> object:
        with torch.no_grad():
            return victim.run(images, execution)

    share = run().macs.mean().item() / dense_macs(victim)
    return compare(run, dense_forward(victim, images), repeats=repeats, warm_up=2, clock=clock()), share


def dropped_beside_operations(recipe: "Attack", batch: int, repeats: int = 21) -> Ratio:
    """Time of dropped execution over what its operations would take at the dense ViT's speed: 1 if time follows."""
    found, share = run_beside_dense(recipe, "dropped", batch, repeats)
    sides = {"value": found.value / share, "low": found.low / share, "high": found.high / share}
    return dataclasses.replace(found, **sides, b=found.b * share)


def packed_beside_plain(recipe: "Attack", repeats: int = 21) -> Ratio:
    """Time of the dense ViT as a victim that drops nothing over timm's own forward pass: what packing costs alone."""
    from effbook.experiments.slowformer.victims import dense_of

    victim = victim_of(recipe)
    images, dense = (images_of(recipe, "test", BATCH) / 255).to(victim.mean.device), dense_of(victim)
    plain = dense_forward(victim, images)
    return compare(lambda: dense.run(images, "dropped"), plain, repeats=repeats, warm_up=2, clock=clock())


def step_beside_victim(recipe: "Attack", steps: int = STEPS) -> Ratio:
    """Time of a step of the attack over the victim's forward and backward pass on as many images.

    The step has, besides that, the batch, the paste, AdamW and the projection to valid pixels.
    """
    import torch

    from effbook.experiments.slowformer.patches import compute_loss
    from effbook.slowformer import train_patch
    from effbook.slowformer.losses import Look

    victim = victim_of(recipe)
    data, loss = images_of(recipe, "train", 4 * recipe.attack_batch), compute_loss(recipe, victim)
    images = (data[: recipe.attack_batch] / 255).to(victim.mean.device).requires_grad_()
    labels = torch.full((len(images),), -1)

    def alone() -> float:
        start = now()
        torch.autograd.grad(loss(Look(victim, images, labels, clean=images)), images)
        return 1000 * (now() - start)

    pairs: list[tuple[float, float]] = []
    ended = now()

    def watch(*_: object) -> None:
        nonlocal ended
        step_ms = 1000 * (now() - ended)
        pairs.append((step_ms, alone()))
        ended = now()

    train_patch(victim, data, loss=loss, config=recipe.config(steps=steps + WARM_UP), watch=watch)
    return of_pairs(pairs[WARM_UP:], "ms")


# ------------------------------------------------------------------------------- the lines


def attack_on(name: str) -> "Attack":
    """SlowFormer against a victim at `mini`, whose victim is timed."""
    return at_mini("slowformer-attack", **VICTIMS[name])


for _name, (_share, _least, _printed) in FIGURES.items():
    register_bench(
        "slowformer",
        f"accuracy without an attack: {_name} - dense ViT, mini",
        lambda name=_name: difference(clean("top1", name), clean("top1", "dense"), "%"),
    )
    register_bench(
        "slowformer",
        f"accuracy without an attack: {_name} / {ACCURACY:.0f} %, mini",
        lambda name=_name: ratio(clean("top1", name), ACCURACY, "%"),
        ">= 1",
    )
    register_bench(
        "slowformer",
        f"operations without an attack: {_name} / dense ViT, mini",
        lambda name=_name: ratio(clean("gflops", name), clean("gflops", "dense"), "GFLOPs"),
        _share,
    )
    register_bench(
        "slowformer",
        f"Attack Success: SlowFormer - no attack, {_name}, mini",
        lambda name=_name: beside_none(success(name)),
        _least,
        _printed,
    )
    register_bench(
        "slowformer",
        f"Attack Success: a random patch's distance from no attack, {_name}, mini",
        lambda name=_name: random_beside_none(name),
        "<= 6",
    )
    register_bench(
        "slowformer",
        f"Attack Success: distance of that in milliseconds from that in FLOPs, {_name}, mini",
        lambda name=_name: clock_beside_count(name),
        "<= 15",
    )
register_bench(
    "slowformer",
    "Attack Success: SlowFormer by Eq. 4.5 - no attack, ATS, mini",
    lambda: beside_none(success("ATS", loss="text")),
)
register_bench(
    "slowformer",
    "Attack Success: SlowFormer made anew after the defence - no attack, A-ViT, mini",
    lambda: beside_none(recorded("success", "slowformer-defence")),
    "<= 50",
    "34 (ViT-Tiny, ImageNet)",
)
register_bench(
    "slowformer",
    "accuracy without an attack: A-ViT before - after the defence, mini",
    lost_by_the_defence,
    "<= 6",
)
AS_FAST = "its operations at the dense ViT's speed"
for _name in VICTIMS:
    for _figure in ("<= 1.1", ">= 0.9") if _name != "AdaViT" else ("",):  # both sides of one measurement
        register_bench(
            "slowformer",
            f"time: dropped, {BATCH} images / {AS_FAST}, {_name} {_figure}".strip(),
            lambda name=_name: dropped_beside_operations(attack_on(name), BATCH),
            _figure,
        )
    register_bench(
        "slowformer",
        f"time: dropped, one image / {AS_FAST}, {_name}",
        lambda name=_name: dropped_beside_operations(attack_on(name), 1),
    )
    register_bench(
        "slowformer",
        f"time: masked, {BATCH} images / the dense ViT, {_name}",
        lambda name=_name: run_beside_dense(attack_on(name), "masked", BATCH)[0],
    )
    register_bench(
        "slowformer",
        f"time: a step of the attack / forward and backward of the victim, {_name}",
        lambda name=_name: step_beside_victim(attack_on(name)),
    )
register_bench(
    "slowformer",
    f"time: the dense ViT run as a victim, {BATCH} images / its plain forward pass",
    lambda: packed_beside_plain(attack_on("ATS")),
)
