"""How large the splits of the transfer data sets are, by the rules of Table A.13's caption: no image is read."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import NonNegativeInt, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.runs.recipe import Context, Recipe, Result


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class SplitsRecipe(Recipe):
    """Images for training, validation and test, from a data set's official sizes and a rule.

    `images` is the size of the official training set; or, with `kept_a_class`, of a data set that has no official
    split: then so many images of each class are for training and validation, and the rest is the test set. `val` is the
    size of an official validation set; without one, `val_a_class` images of each class are taken from training, or
    `val_percent` of each class, to the nearest image, where the classes are as equal in size as they can be.
    """

    system: ClassVar[str] = "cmsf"
    name: ClassVar[str] = "cmsf-splits"

    classes: PositiveInt
    images: PositiveInt
    test: NonNegativeInt = 0
    val: NonNegativeInt = 0
    val_a_class: NonNegativeInt = 0
    val_percent: NonNegativeInt = 0
    equal_classes: bool = True
    kept_a_class: NonNegativeInt = 0

    def validate(self) -> None:
        if self.images < self.classes:
            raise EffbookError(f"{self.images} images are too few for {self.classes} classes", "choose more images")
        if sum(given > 0 for given in (self.val, self.val_a_class, self.val_percent)) != 1:
            raise EffbookError("one rule gives the validation set", "choose one of val, val_a_class and val_percent")
        if (self.test > 0) == (self.kept_a_class > 0):
            raise EffbookError("one rule gives the test set", "choose test or kept_a_class")
        if self.classes * self.kept_a_class >= self.images:
            raise EffbookError(f"{self.kept_a_class} images a class leave none for testing", "choose fewer")
        smallest = self.kept_a_class or self.images // self.classes
        if self.val_a_class >= smallest or self.val_percent >= 100:
            raise EffbookError("the validation set leaves nothing for training", "choose a smaller one")

    def run(self, context: Context) -> Result:
        images, test = self.images, self.test
        if self.kept_a_class:
            images, test = self.classes * self.kept_a_class, self.images - self.classes * self.kept_a_class
        if self.val:
            return Result(metrics={"train": images, "val": self.val, "test": test})
        if self.val_a_class:
            val = self.classes * self.val_a_class
        elif self.equal_classes:
            size, larger = divmod(images, self.classes)
            sizes = [size + 1] * larger + [size] * (self.classes - larger)
            val = sum((one * self.val_percent + 50) // 100 for one in sizes)
        else:
            why = f"{self.val_percent} % of each class, in whole images, needs the size of each class"
            return Result(metrics={"train": None, "val": None, "test": test}, notes={"train": why, "val": why})
        return Result(metrics={"train": images - val, "val": val, "test": test})
