"""SimReg's lines of the ledger: what cached features save, what the head costs afterwards, what `mini` is worth.

Both sides of a time run in turns in one process, in the process's own time on a CPU, so that others' work has no part.
No time looks at a network's weights: the book's own teachers are of the form that is trained, freshly drawn.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from effbook.runs.bench import FromRecords, Ratio, compare, difference, mean_of, register_bench

if TYPE_CHECKING:
    import torch
    from torch import nn

    from effbook.experiments.shared.splits import Split
    from effbook.experiments.simreg.settings import Distillation

STEPS = 6  # of an epoch here: whole ones of `mini` have 156, all alike
LATENCY_IMAGES = 64
PAIRS: dict[str, dict[str, object]] = {  # all of this chapter at `mini`, in the dissertation's names
    "small at 24 px -> small-half": {},
    "small at 24 px -> small-wide": {"student": "mobilenet-v2"},
    "small at 24 px -> small": {"student": "resnet50"},
    "three small at 24 px -> small-half": {"teachers": ("moco-v2", "byol", "swav")},
    "MobileNet-V2 at 64 px -> small-wide": {"teachers": ("supervised",), "student": "mobilenet-v2"},
    "ViT-S/14 at 56 px -> small": {"teachers": ("simclr-x4",), "student": "resnet50"},
}
LARGE = ("MobileNet-V2 at 64 px -> small-wide", "ViT-S/14 at 56 px -> small")  # teachers: the pairs of the figures


def at_mini(name: str, **fields: object) -> "Distillation":
    """A recipe of the dissertation as `mini` runs it."""
    from effbook.runs.profiles import scale
    from effbook.runs.recipe import make

    return scale(make(name, **fields), "mini")


def clock() -> Callable[[], float] | None:
    """The process's own time; None on a GPU, whose work a process does not see."""
    import torch

    return None if torch.cuda.is_available() else time.process_time


def device() -> "torch.device":
    """Where a distillation would run."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# ------------------------------------------------------------------------------- cached features


@cache
def drawn(dataset: str, size_px: int, count: int, seed: int) -> "Split":
    """So many training images; reading them takes longer than most of what they are for."""
    from effbook.experiments.shared.splits import split

    return split(dataset, "train", size_px=size_px, wanted=count, seed=seed)


class Side:
    """A distillation of `STEPS` batches an epoch, whose first epoch runs as often as it is called.

    With a folder the teachers' features are computed there before, else they are asked in every step. Two of a recipe
    start from the same weights and see the same views in the same order.
    """

    def __init__(self, recipe: "Distillation", folder: Path | None = None) -> None:
        import torch

        from effbook.experiments.simreg.learning import new_student
        from effbook.simreg import DistillViews, Student, Teachers, cached_features, make_method
        from effbook.simreg.networks import feature_width

        self.recipe = dataclasses.replace(
            recipe, cached=True, views=1, epochs=1, train_images=STEPS * recipe.batch_size
        )
        self.images = drawn(recipe.dataset, recipe.image_px, self.recipe.train_images, recipe.seed)
        settings = self.recipe.settings()
        networks = [new_teacher(self.recipe, name).to(device()) for name in recipe.teachers]
        backbone = new_student(self.recipe, self.images).to(device())
        self.data = DistillViews(self.images.images, settings)
        (self.batch,) = self.data.batches([torch.arange(recipe.batch_size)], epoch=0)
        dims = [feature_width(network, self.batch.weak[:2], name="teacher") for network in networks]
        student = Student(
            backbone, backbone.num_features, dims, head=recipe.head, seed=recipe.seed, precision=recipe.precision
        )
        self.teachers = Teachers(networks, dims, precision=recipe.precision)
        self.method = make_method(student, self.teachers, settings)
        self.training = settings.training()
        if folder is not None:
            self.data.use([
                cached_features(folder / str(place), network, self.data, dim=dim)
                for place, (network, dim) in enumerate(zip(networks, dims, strict=True))
            ])  # fmt: skip
        self.losses: list[float] = []

    def epoch(self) -> None:
        """Run the epoch, and keep the loss of each step."""
        from effbook.training.train import train

        self.losses = []
        train(self.method, self.data, self.training, watch=lambda moment: self.losses.append(moment.loss))


def new_teacher(recipe: "Distillation", name: str) -> "nn.Module":
    """A teacher of the recipe: a packaged one, or one of this book's as it is before training, in evaluation mode."""
    from effbook.experiments.shared.encoders import small
    from effbook.experiments.simreg import learning
    from effbook.runs.recipe import Context

    if name in (taught := recipe.taught()):
        return small(taught[name].encoder, None, size_px=recipe.image_px, seed=recipe.seed).eval()
    return learning.new_teacher(recipe, name, Context(profile="mini", folder=Path()))


def asked_beside_cached(recipe: "Distillation", *, repeats: int = 7) -> Ratio:
    """Time of an epoch in which the teacher is asked in every step over that of one with its features cached."""
    with tempfile.TemporaryDirectory() as folder:
        asked, cached = Side(recipe), Side(recipe, Path(folder))
        return compare(asked.epoch, cached.epoch, repeats=repeats, warm_up=1, clock=clock())


def teacher_beside_step(recipe: "Distillation", *, repeats: int = 15) -> Ratio:
    """Time of the teacher's forward pass over the student's step with known features; views are in neither."""
    import torch

    side = Side(recipe)
    batch = side.batch.to(device())
    known = batch._replace(extra=torch.cat(side.teachers(batch), 1))
    sgd = torch.optim.SGD(side.method.trained(), recipe.learning_rate, momentum=0.9)

    def step() -> None:
        loss = side.method.loss(known)
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        sgd.step()

    return compare(lambda: side.teachers(batch), step, repeats=repeats, warm_up=2, clock=clock())


def losses_apart(recipe: "Distillation") -> Ratio:
    """The largest difference between the losses of a first epoch's steps, teacher asked and features cached."""
    with tempfile.TemporaryDirectory() as folder:
        sides = Side(recipe), Side(recipe, Path(folder))
        for side in sides:
            side.epoch()
    steps = zip(*(side.losses for side in sides), strict=True)
    return max((apart(*pair, "of the loss") for pair in steps), key=lambda one: one.value)


def apart(a: float, b: float, unit: str) -> Ratio:
    """By how much two quantities differ, whichever is the larger."""
    gap = abs(a - b)
    return Ratio(value=gap, low=gap, high=gap, a=a, b=b, unit=unit, pairs=1, sign="-")


# ------------------------------------------------------------------------------- what is left of the head


def exported(recipe: "Distillation") -> "tuple[nn.Module, nn.Module]":
    """A student after an epoch with its head, and the plain backbone that was never distilled, in evaluation mode."""
    from effbook.experiments.simreg.learning import new_student

    side = Side(recipe)
    side.epoch()
    plain = new_student(side.recipe, side.images).to(device())
    return side.method.student.backbone.eval(), plain.eval()


def parameters(network: "nn.Module") -> int:
    """All numbers that a network holds, its buffers among them."""
    return sum(value.numel() for value in network.state_dict().values())


def flops(network: "nn.Module", size_px: int) -> int:
    """The FLOPs of one image's forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size_px, size_px, device=device()))
    return counter.get_total_flops()


def latency(network: "nn.Module", size_px: int) -> Callable[[], None]:
    """A call that passes a batch of images through a network."""
    import torch

    x = torch.randn(LATENCY_IMAGES, 3, size_px, size_px, generator=torch.Generator().manual_seed(0)).to(device())

    def run() -> None:
        with torch.no_grad():
            network(x)

    return run


def parameters_beside_plain(recipe: "Distillation") -> Ratio:
    """What the exported student holds more or less than the plain backbone."""
    return apart(*(parameters(network) for network in exported(recipe)), "numbers")


def flops_beside_plain(recipe: "Distillation") -> Ratio:
    """By how many FLOPs the exported student and the plain backbone differ."""
    return apart(*(flops(network, recipe.image_px) for network in exported(recipe)), "FLOPs an image")


def latency_beside_plain(recipe: "Distillation", *, repeats: int = 101) -> Ratio:
    """Time of a batch through the exported student over one through the plain backbone."""
    student, plain = (latency(network, recipe.image_px) for network in exported(recipe))
    return compare(student, plain, repeats=repeats, warm_up=5, clock=clock())


# ------------------------------------------------------------------------------- what `mini` trainings are worth

METRICS = {  # of the accuracies, and the recipes that give them
    "1-NN": ("nn1", "simreg-nearest"),
    "20-NN": ("nn20", "simreg-nearest"),
    "linear": ("top1", "simreg-linear"),
}


def accuracy(measure: str, **fields: object) -> FromRecords:
    """An accuracy of `mini`, the mean over its seeds, from the records."""
    from effbook.runs.profiles import seeds, with_seeds

    metric, name = METRICS[measure]
    recipe = at_mini(name, **fields)
    return mean_of(metric, with_seeds(recipe, seeds(recipe, "mini")), "mini")


# As the register has them: Table 2.8, and Tables A.14 and 2.7
EQUAL, WIDE = {"head": "4L-equal"}, {"student": "mobilenet-v2", "head": "4L"}
AHEAD = ">= 0.005"  # of anything above 0 the least is one image of 3 x 5,000: 0.0067 %


for _pair, _fields in PAIRS.items():
    register_bench(
        "simreg",
        f"epoch: teacher asked / features cached, {_pair}",
        lambda fields=_fields: asked_beside_cached(at_mini("simreg-distill", **fields)),
        ">= 1.8" if _pair in LARGE else "",
    )
for _pair, _fields in PAIRS.items():
    register_bench(
        "simreg",
        f"teacher's forward / student's step, {_pair}",
        lambda fields=_fields: teacher_beside_step(at_mini("simreg-distill", **fields)),
        ">= 2.4" if _pair in LARGE else "",
    )
for _pair in ("small at 24 px -> small-half", LARGE[0]):
    register_bench(
        "simreg",
        f"largest difference of an epoch's losses: teacher asked - cached, {_pair}",
        lambda fields=PAIRS[_pair]: losses_apart(at_mini("simreg-distill", **fields)),
        "<= 0.00001",
    )
for _what, _function, _figure in (
    ("difference in parameters and buffers", parameters_beside_plain, "<= 0"),
    ("difference in FLOPs", flops_beside_plain, "<= 0"),
    ("latency", latency_beside_plain, "<= 1.05"),
):
    register_bench(
        "simreg",
        f"{_what}: student exported after 4L, beside the plain backbone, small-half",
        lambda function=_function: function(at_mini("simreg-distill")),
        _figure,
    )
for _label, _fields in (("small-half, 4L of equal widths", EQUAL), ("small-wide, 4L", WIDE)):
    for _measure in METRICS:
        register_bench(
            "simreg",
            f"{_measure} accuracy: backbone - head's output, {_label}, mini",
            lambda measure=_measure, fields=_fields: difference(
                accuracy(measure, **fields), accuracy(measure, **fields, layer="head"), "%"
            ),
            AHEAD,
        )
for _measure in METRICS:
    register_bench(
        "simreg",
        f"{_measure} accuracy: backbone trained with 4L - with linear, small-half, mini",
        lambda measure=_measure: difference(accuracy(measure), accuracy(measure, head="linear"), "%"),
    )
