"""What chapters share of judging a frozen encoder: transfer to another data set, and counting broken files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from effbook.errors import EffbookError
from effbook.runs.recipe import Context, Cost, Recipe, Result, Shared

if TYPE_CHECKING:
    from torch import Tensor

    from effbook.evaluate.transfer import TransferSettings
    from effbook.experiments.shared.splits import Split


def transfer(
    embed: "Callable[[Split], tuple[Tensor, Tensor]]",
    target: str,
    *,
    size_px: int,
    target_images: int | None,
    test_images: int | None,
    settings: "TransferSettings",
) -> dict[str, int | float]:
    """The metric "accuracy" of logistic regression on features of another data set, as Table A.13 measures it.

    `embed` gives features [n, D] and labels [n] of a split. The settings are searched on the set's validation images,
    or on some of the training images, by the seed of `settings`; `target_images` of these are used at all (None: all).
    """
    from effbook.data.transfer import TRANSFER_SETS, TransferSet, hold_out
    from effbook.evaluate.transfer import transfer_evaluation
    from effbook.experiments.shared.splits import split

    train = split(target, "train", size_px=size_px, wanted=target_images, seed=settings.seed)
    test = split(target, "test", size_px=size_px, wanted=test_images, seed=0)
    rule = TRANSFER_SETS.get(target) or TransferSet(
        manifest=target, classes=len(train.classes), train=0, val=0, test=0, measure="top-1", val_percent=20
    )
    if target_images is not None and rule.val_a_class:  # of a part of the images a part, too
        rule = replace(rule, val_a_class=0, val_percent=20)
    (x, y), tested = embed(train), embed(test)
    broken = [train.broken, test.broken]
    if rule.val_percent or rule.val_a_class:
        own, held = hold_out(y.numpy(), rule, seed=settings.seed)
        pairs = (x[own], y[own]), (x[held], y[held])
    else:
        val = split(target, "val", size_px=size_px, wanted=None, seed=0)
        pairs = (x, y), embed(val)
        broken.append(val.broken)
    settings = replace(settings, measure="top1" if rule.measure == "top-1" else "mean")
    found = transfer_evaluation(*pairs, tested, settings=settings, classes=len(train.classes))
    return {"accuracy": found.score} | summed(*broken)


@dataclass(frozen=True, kw_only=True)
class MeanOfTransfers(Recipe):
    """The mean over several data sets, from the records of `single`, a recipe with the same fields and a `target`."""

    single: ClassVar[type[Recipe]]

    targets: tuple[str, ...] = (
        "food101", "cifar10", "cifar100", "sun397", "cars", "aircraft", "dtd", "pets", "caltech101-background",
        "flowers102",
    )  # fmt: skip
    target_images: PositiveInt | None = None

    def datasets(self) -> tuple[str, ...]:
        return (*super().datasets(), *self.targets)

    def each(self) -> tuple[Recipe, ...]:
        """The recipes of the single data sets."""
        shared = {name: value for name, value in vars(self).items() if name in self.single.__dataclass_fields__}
        return tuple(self.single(**shared, target=target) for target in self.targets)

    def depends(self) -> tuple[Recipe, ...]:
        return self.each()

    def validate(self) -> None:
        super().validate()
        if not self.targets:
            raise EffbookError("no data set has no mean", "name at least one of targets")

    def cost(self) -> Cost:
        return Cost(seconds=1)

    def shares(self) -> tuple[Shared, ...]:
        return ()

    def probe(self) -> dict[str, object]:
        return super().probe() | self.each()[0].probe()

    def run(self, context: Context) -> Result:
        found = [context.record_of(one).metrics["accuracy"] for one in self.each()]
        own = {f"accuracy_{target}": value for target, value in zip(self.targets, found, strict=True)}
        return Result(metrics=own | {"mean": sum(found) / len(found)})


def summed(*broken: dict[str, int]) -> dict[str, int]:
    """The broken files of several splits, as one metric; none where no split lies as files."""
    return {name: sum(one.get(name, 0) for one in broken) for name in {n for one in broken for n in one}}
