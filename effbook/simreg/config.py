"""The settings of a distillation, without torch. The defaults are the dissertation's."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

from effbook.errors import EffbookError
from effbook.training.settings import (
    PRECISIONS,
    TrainSettings,
    check_bank,
    check_choice,
    check_flags,
    check_real,
    check_whole,
)

if TYPE_CHECKING:
    from effbook.training.augment import View

Head = Literal["none", "linear", "2L", "4L", "2L-equal", "4L-equal"]
Objective = Literal["simreg", "regress", "regress-bn", "compress-1q", "compress-2q"]
HEADS: tuple[str, ...] = get_args(Head)
OBJECTIVES: tuple[str, ...] = get_args(Objective)
VIEWS = ("plain", "weak", "strong")


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """What determines a distillation, beside the networks and the images.

    `teacher_view` and `student_view`: "plain" (the central square, resized), "weak", "strong", or a `View` of one's
    own. With `same` both networks get one tensor, else each a draw of its own. A view is drawn from (seed, epoch,
    index); with `distinct_views` V a teacher's is that of epoch mod V, so that V cached features an image are enough;
    a student's own, without `same`, never repeats. `size_px`:
    of the views, by default the shorter side of the first image. `mean` and `deviation` normalise each channel; by
    default they are those that the teacher tells (timm's models do), else ImageNet's. CompRess has `queue_size`,
    `temperature` and, for 2q, `momentum`; its head may be "none". Raises EffbookError where a value is impossible or
    two are at odds. Source: sections 2.2.3, 2.2.4 and A.2.2.
    """

    objective: Objective = "simreg"
    head: Head = "4L"
    teacher_view: "str | View" = "weak"
    student_view: "str | View" = "weak"
    same: bool = True
    distinct_views: int | None = None
    size_px: int | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    queue_size: int = 128_000
    temperature: float = 0.04
    momentum: float = 0.999  # of the momentum student
    precision: Literal["float32", "bfloat16"] = "float32"  # of networks and heads; losses are float32
    seed: int = 0  # of heads, views, the order of the images, and the queue's first vectors
    epochs: int = 130
    batch: int = 256  # over all processes
    learning_rate: float = 0.05
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    drops: tuple[int, ...] = ()
    drop_factor: float = 0.1

    def __post_init__(self) -> None:
        check_choice(self, "objective", OBJECTIVES)
        check_choice(self, "head", HEADS)
        for name in ("teacher_view", "student_view"):
            if isinstance(getattr(self, name), str):
                check_choice(self, name, VIEWS)
        check_flags(self, "same")
        check_whole(self, 1, *(n for n in ("distinct_views", "size_px") if getattr(self, n) is not None), "queue_size")
        check_whole(self, 0, "seed")
        check_real(self, 0, "momentum", most=1)
        check_real(self, 1e-6, "temperature")
        check_choice(self, "precision", PRECISIONS)
        self.training()
        if self.same and self.teacher_view != self.student_view:
            raise EffbookError(
                f"the same view cannot be {self.teacher_view} for the teacher and {self.student_view} for the student",
                "give both the same view, or same=False",
            )
        if (self.mean is None) != (self.deviation is None) or (self.mean and len(self.mean) != len(self.deviation)):
            raise EffbookError(
                f"the mean {self.mean} and the deviation {self.deviation} do not go together",
                "give one number a channel for both, or neither",
            )
        if self.deviation is not None and min(self.deviation) <= 0:
            raise EffbookError(f"the deviation is {self.deviation}", "give a number above 0 for each channel")
        if self.head == "none" and self.objective != "compress-2q":
            raise EffbookError(
                f"{self.objective} without a head",
                'choose a head; "compress-2q" alone compares no student with a teacher',
            )
        if self.objective.startswith("compress"):
            check_bank(self.queue_size, batch=self.batch)

    def training(self) -> TrainSettings:
        """What the training loop gets: the fields of the same names."""
        return TrainSettings(**{f.name: getattr(self, f.name) for f in fields(TrainSettings) if hasattr(self, f.name)})
