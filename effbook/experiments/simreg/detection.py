"""Fine-tuning a distilled backbone for object detection (Table 2.12)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.simreg.settings import Distillation
from effbook.runs.recipe import Context, Cost, Result, register_recipe

if TYPE_CHECKING:
    from effbook.evaluate.detection import DetectionSettings
    from effbook.experiments.simreg.cutting import Pictures


@register_recipe
@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Distillation):
    """Faster R-CNN on the student's C4 features, all of it trained, and its average precision on test pictures.

    `pictures` "voc" are Pascal VOC's, trainval of 2007 and 2012 and test of 2007. "canvases" stand in where there are
    no photographs with boxes: `canvases` of them, composed from the training images, and half as many from test images.
    """

    name: ClassVar[str] = "simreg-detection"

    pictures: Literal["voc", "canvases"] = "voc"
    canvases: PositiveInt | None = None
    canvas_px: PositiveInt = 96
    steps: PositiveInt = 24_000
    detector_batch: PositiveInt = 16
    detector_rate: PositiveFloat = 0.02
    anchors_px: tuple[PositiveInt, ...] = (32, 64, 128, 256, 512)
    regions: PositiveInt = 512
    region_cells: PositiveInt = 14
    proposals: Annotated[int, Field(ge=2)] = 2_000  # a picture in training; half as many in the test

    def validate(self) -> None:
        super().validate()
        if (self.pictures == "canvases") != (self.canvases is not None):
            raise EffbookError("a number of canvases and canvases go together", "give both or neither")
        if self.pictures == "canvases" and self.dataset == "imagenet":
            raise EffbookError("canvases are composed of small images", "choose cifar10")
        if self.student == "mobilenet-v2":
            raise EffbookError("the C4 features of a MobileNet-V2 are not defined here", "choose a ResNet")

    def datasets(self) -> tuple[str, ...]:
        return (*super().datasets(), *(("voc",) if self.pictures == "voc" else ()))

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(seconds=own.seconds + 10 + 0.4 * self.steps, gpu_bytes=own.gpu_bytes, disk_bytes=own.disk_bytes)

    def probe(self) -> dict[str, object]:
        canvases = {} if self.canvases is None else {"canvases": min(self.canvases, 16)}
        return super().probe() | {"steps": min(self.steps, 3)} | canvases

    def run(self, context: Context) -> Result:
        from effbook.evaluate.detection import average_precision, detect, faster_rcnn_c4, train_detector
        from effbook.experiments.simreg.cutting import cut
        from effbook.experiments.simreg.learning import kept_student

        trunk, head = cut(kept_student(self, context))
        settings = self.detector()
        train, test = self.seen("train"), self.seen("test")
        detector = faster_rcnn_c4(trunk, head, classes=train.classes, settings=settings).to(context.device)
        losses = train_detector(detector, train.images, train.objects, settings=settings)
        recalls = 11 if self.pictures == "voc" else 101  # as VOC 2007 counts, else as COCO
        found = average_precision(detect(detector, test.images), test.objects, classes=test.classes, recalls=recalls)
        each = max(1, len(losses) // 50)
        return Result(metrics=found, series={"loss": list(losses[::each])})

    def seen(self, part: str) -> "Pictures":
        """The pictures of "train" or "test"."""
        from effbook.experiments.simreg.cutting import canvas_pictures, voc_pictures

        if self.pictures == "voc":
            return voc_pictures(part)
        wanted, count = (self.train_images, self.canvases) if part == "train" else (None, -(-self.canvases // 2))
        return canvas_pictures(self.dataset, part, wanted=wanted, count=count, canvas_px=self.canvas_px, seed=self.seed)

    def detector(self) -> "DetectionSettings":
        """The library's settings: the rate falls after three and eleven twelfths of the steps."""
        from effbook.evaluate.detection import DetectionSettings

        small = {"shorter_px": (self.canvas_px,), "longest_px": self.canvas_px} if self.pictures == "canvases" else {}
        return DetectionSettings(
            steps=self.steps,
            batch=self.detector_batch,
            lr=self.detector_rate,
            milestones=(self.steps * 3 // 4, self.steps * 11 // 12),
            warmup_steps=min(100, self.steps // 4),
            anchors_px=self.anchors_px,
            regions=self.regions,
            region_cells=self.region_cells,
            proposals_train=self.proposals,
            proposals_test=self.proposals // 2,
            seed=self.seed,
            **small,
        )
