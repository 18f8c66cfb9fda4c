"""How long and how fast a method is trained, and the checks that all settings share; without torch."""

import math
from dataclasses import dataclass
from typing import Literal

from effbook.errors import EffbookError

PRECISIONS = ("float32", "bfloat16")
OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("cosine", "steps", "constant")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long and how fast a method is trained; the rate changes once an epoch.

    `warmup_epochs` raise the rate in equal steps before the schedule acts. `drops` are the epochs at which the schedule
    "steps" multiplies the rate by `drop_factor`. Raises EffbookError where a value is impossible. Source: sections
    2.1.4, A.1.5, 2.2.4.
    """

    epochs: int = 200
    batch: int = 256  # over all processes
    learning_rate: float = 0.05
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    optimiser: Literal["sgd", "adam"] = "sgd"
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup_epochs: int = 0
    drops: tuple[int, ...] = ()
    drop_factor: float = 0.1
    seed: int = 0  # of the order of the images

    def __post_init__(self) -> None:
        check_whole(self, 1, "epochs", "batch")
        check_whole(self, 0, "warmup_epochs", "seed")
        check_real(self, 0, "learning_rate", "weight_decay")
        check_real(self, 0, "sgd_momentum", "drop_factor", most=1)
        check_choice(self, "optimiser", OPTIMISERS)
        check_choice(self, "schedule", SCHEDULES)
        if not all(type(epoch) is int and epoch >= 1 for epoch in self.drops):
            raise EffbookError(f"drops are {self.drops!r}", "give the epochs as whole numbers of at least 1")
        if bool(self.drops) != (self.schedule == "steps"):
            raise EffbookError(
                f"the schedule {self.schedule!r} has drops {self.drops!r}", 'give drops with "steps", and only then'
            )

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        warmth = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        if self.schedule == "cosine":
            return warmth * self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return warmth * self.learning_rate * self.drop_factor ** sum(epoch >= drop for drop in self.drops)


def check_bank(bank_size: int, *, k: int = 1, batch: int = 1) -> None:
    """Raise EffbookError where a bank is smaller than k or no multiple of the batch."""
    if bank_size < k:
        raise EffbookError(f"a bank of {bank_size} is smaller than k = {k}", "choose a larger bank or a smaller k")
    if bank_size % batch:
        near = max(batch, round(bank_size / batch) * batch)
        raise EffbookError(
            f"a bank of {bank_size} is no multiple of the batch of {batch}", f"choose one such as {near}"
        )


def check_whole(settings: object, least: int, *names: str) -> None:
    """Raise EffbookError, naming the field, unless these fields are whole numbers from `least` to 2^63 - 1."""
    for name in names:
        value = getattr(settings, name)
        if type(value) is not int or not least <= value < 2**63:
            raise EffbookError(f"{name} is {value!r}", f"give a whole number of at least {least}")


def check_real(settings: object, least: float, *names: str, most: float = math.inf) -> None:
    """Raise EffbookError, naming the field, unless these fields are finite numbers from `least` to `most`."""
    for name in names:
        value = getattr(settings, name)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not least <= value <= most or math.isinf(value):
            bound = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
            raise EffbookError(f"{name} is {value!r}", f"give a number {bound}")


def check_flags(settings: object, *names: str) -> None:
    """Raise EffbookError, naming the field, unless these fields are True or False."""
    for name in names:
        if type(getattr(settings, name)) is not bool:
            raise EffbookError(f"{name} is {getattr(settings, name)!r}", "give True or False")


def check_choice(settings: object, name: str, choices: tuple[str, ...]) -> None:
    """Raise EffbookError, naming the field, unless it is one of the choices."""
    if getattr(settings, name) not in choices:
        raise EffbookError(f"{name} is {getattr(settings, name)!r}", f"choose one of {', '.join(choices)}")
