"""Transfer to object detection: a Faster R-CNN on a backbone's C4 features, and its average precision (2.2.5).

C4 (table 2.12): all but the last stage of a backbone is the feature map that proposals and regions share; the last
stage and the mean over its cells are the head of each region. Pictures are uint8 [3, H, W]; the objects of one are a
dict, as torchvision has it: `boxes` [K, 4] (left, top, right, bottom in pixels), `labels` [K] from 0, and where some
are not to count in the score, `difficult` [K].
"""

import contextlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effbook.errors import EffbookError

Objects = dict[str, Tensor]
BEFORE_NMS_TRAIN, BEFORE_NMS_TEST = 12_000, 6_000  # proposals, the usual numbers of C4
WARMUP_FROM = 1e-3  # of the learning rate
NORMALISATIONS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """SGD whose learning rate rises over ``warmup_steps`` and is times ``drop`` after each milestone (a step).

    The defaults are the usual recipe of R-50-C4 for trainval07+12, which the dissertation follows (2.2.5).
    """

    steps: int = 24_000
    batch: int = 16
    lr: float = 0.02
    milestones: tuple[int, ...] = (18_000, 22_000)
    drop: float = 0.1
    warmup_steps: int = 100
    momentum: float = 0.9
    weight_decay: float = 1e-4  # of all but the normalisations' weights
    shorter_px: tuple[int, ...] = tuple(range(480, 801, 32))  # a picture's shorter side: drawn; in a test the last
    longest_px: int = 1333
    anchors_px: tuple[int, ...] = (32, 64, 128, 256, 512)  # each at 1:2, 1:1 and 2:1
    region_cells: int = 14  # a side of what the head is given of a region
    regions: int = 512  # a picture, to train the head on
    proposals_train: int = 2000  # a picture
    proposals_test: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = (self.steps, self.batch, self.region_cells, self.regions, self.proposals_train, self.proposals_test)
        sides = (*self.shorter_px, *self.anchors_px, self.longest_px)
        if min(*numbers, *sides) < 1 or not self.lr > 0 or not self.shorter_px or not self.anchors_px:
            raise EffbookError(
                f"A detector cannot be trained with {self}", "choose sizes, steps, batch and lr above zero"
            )


def faster_rcnn_c4(trunk: nn.Module, head: nn.Module, *, classes: int, settings: DetectionSettings) -> nn.Module:
    """torchvision's Faster R-CNN on a backbone that is cut in two, whose own new layers are drawn from the seed.

    ``trunk``: pictures [B, 3, H, W] to the shared map [B, C, H/16, W/16] (another power of two serves as well), with C
    as `out_channels`. ``head``: regions [R, C, cells, cells] to [R, D], with D as `num_features`. Both are trained,
    their normalisations too. Raises `EffbookError` where the two do not say their widths.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.faster_rcnn import AnchorGenerator, FastRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    for module, part, width in ((trunk, "trunk", "out_channels"), (head, "head", "num_features")):
        if not isinstance(getattr(module, width, None), int):
            raise EffbookError(f"The {part} does not say how wide its output is", f"set its {width}")
    if classes < 1:
        raise EffbookError(f"A detector of {classes} classes finds nothing", "give at least one")
    for part in (trunk, head):  # torch 2.15's backward pass on the CPU ends the process where they are channels_last
        part.to(memory_format=torch.contiguous_format)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)  # the CPU's alone
        return FasterRCNN(
            trunk,
            rpn_anchor_generator=AnchorGenerator((settings.anchors_px,), ((0.5, 1.0, 2.0),)),
            rpn_pre_nms_top_n_train=BEFORE_NMS_TRAIN,
            rpn_pre_nms_top_n_test=BEFORE_NMS_TEST,
            rpn_post_nms_top_n_train=settings.proposals_train,
            rpn_post_nms_top_n_test=settings.proposals_test,
            box_roi_pool=MultiScaleRoIAlign(["0"], output_size=settings.region_cells, sampling_ratio=0),
            box_head=head,
            box_predictor=FastRCNNPredictor(head.num_features, classes + 1),  # 0 is the background
            box_batch_size_per_image=settings.regions,
            min_size=settings.shorter_px,
            max_size=settings.longest_px,
        )


def train_detector(
    detector: nn.Module, images: Any, targets: Sequence[Objects], *, settings: DetectionSettings
) -> tuple[float, ...]:
    """Train all of the detector in place, with pictures mirrored at random; each step's loss.

    ``images`` is uint8 [N, 3, H, W], or anything that gives a picture for an index below N. Batches and mirroring are
    drawn on the CPU; what torchvision draws from torch's global state (sizes, anchors, regions; on a GPU, from the
    GPU's) follows the seed, too, and the state is put back, as is the mode. The loss is torchvision's sum of four.
    Raises `EffbookError` for a picture without an object, a box outside of its picture, a label outside of the
    detector's classes, and a loss that is not finite.
    """
    _check_objects(targets, len(images), _classes(detector))
    if isinstance(images, Tensor):
        for i, objects in enumerate(targets):
            _check_inside(objects["boxes"], images[i], i)
    device = next(detector.parameters()).device
    draw = torch.Generator().manual_seed(settings.seed)
    epochs = -(-settings.steps * settings.batch // len(targets))
    order = torch.cat([torch.randperm(len(targets), generator=draw) for _ in range(epochs)])
    optimizer = _sgd(detector, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, settings))
    was_training, losses = detector.training, []
    detector.train()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            for step in range(settings.steps):
                pictures, objects = [], []
                for i in order[step * settings.batch : (step + 1) * settings.batch].tolist():
                    mirrored = bool(torch.rand((), generator=draw) < 0.5)
                    picture, boxes = images[i].to(device) / 255, targets[i]["boxes"].to(device).float()
                    _check_inside(boxes, picture, i)
                    if mirrored:
                        picture, left, right = picture.flip(-1), boxes[:, 0], boxes[:, 2]
                        width_px = picture.shape[-1]
                        boxes = torch.stack((width_px - right, boxes[:, 1], width_px - left, boxes[:, 3]), dim=1)
                    pictures.append(picture)
                    objects.append({"boxes": boxes, "labels": targets[i]["labels"].to(device).long() + 1})
                loss = sum(detector(pictures, objects).values())
                losses.append(loss.item())
                if not losses[-1] < float("inf"):
                    raise EffbookError(f"The loss is {losses[-1]} in step {step + 1}", "choose a smaller learning rate")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    finally:
        detector.train(was_training)
    return tuple(losses)


@torch.no_grad()
def detect(detector: nn.Module, images: Any, *, batch: int = 16) -> list[Objects]:
    """What the detector finds in each picture: `boxes` [K, 4], `labels` [K] from 0 and `scores` [K], on the CPU.

    ``images`` as in `train_detector`. At most 100 a picture, best first; the detector's mode is put back.
    """
    device, was_training, found = next(detector.parameters()).device, detector.training, []
    detector.eval()
    try:
        for start in range(0, len(images), batch):
            rows = range(start, min(start + batch, len(images)))
            for one in detector([images[i].to(device) / 255 for i in rows]):
                one = {name: values.cpu() for name, values in one.items()}
                found.append({**one, "labels": one["labels"] - 1})
    finally:
        detector.train(was_training)
    return found


def average_precision(
    predictions: Sequence[Objects], targets: Sequence[Objects], *, classes: int, recalls: int = 101
) -> dict[str, float]:
    """Average precision in percent, the mean over the classes that have objects, as COCO counts it: `ap50`, `ap75`
    where a hit overlaps by 0.5 or 0.75 (IoU), and `ap`, the mean from 0.5 to 0.95.

    Precision is interpolated and read at so many ``recalls`` (101 are COCO's; VOC 2007 has 11). The 100 best
    predictions of a class in a picture count. A difficult object is no miss, and its finder neither right nor wrong.
    Raises `EffbookError` for predictions of other pictures, labels outside of the classes, and no object that counts.
    """
    from pycocotools.cocoeval import COCOeval

    _check_objects(targets, len(predictions), classes, empty=True)
    _check_objects(predictions, len(predictions), classes, empty=True)
    if all(bool(_difficult(objects).all()) for objects in targets):
        raise EffbookError("No picture has an object that counts", "give the objects of the pictures")
    with contextlib.redirect_stdout(io.StringIO()):  # it reports on its progress
        scored = COCOeval(_coco(targets, classes), _coco(predictions, classes), "bbox")
        scored.params.areaRng, scored.params.areaRngLbl = [[0, 1e10]], ["all"]
        scored.params.recThrs, scored.params.maxDets = np.linspace(0, 1, recalls), [100]
        scored.evaluate()
        scored.accumulate()
    precision = scored.eval["precision"][..., 0, 0]  # [IoU, recall, class], -1 for a class without objects
    precision = precision[:, :, (precision > -1).all(axis=(0, 1))].mean(axis=(1, 2)) * 100
    return {"ap50": float(precision[0]), "ap": float(precision.mean()), "ap75": float(precision[5])}


def _coco(pictures: Sequence[Objects], classes: int) -> Any:
    """Objects or predictions as pycocotools holds them."""
    from pycocotools.coco import COCO

    entries, number = [], itertools.count(1)  # it takes the number 0 for none
    for i, objects in enumerate(pictures):
        boxes = objects["boxes"].double()
        sizes = boxes[:, 2:] - boxes[:, :2]
        areas = sizes.prod(dim=1)
        # An object of a size that is not asked for counts as difficult ones should; the mark `iscrowd` would alter IoU.
        areas[_difficult(objects)] = float("inf")
        scores = objects.get("scores", areas)
        rows = zip(
            torch.cat((boxes[:, :2], sizes), dim=1).tolist(),
            areas.tolist(),
            objects["labels"].tolist(),
            scores.tolist(),
            strict=True,
        )
        for box, area, label, score in rows:
            entry = {"image_id": i, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}
            entries.append({"id": next(number), **entry})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(len(pictures))],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": entries,
    }
    coco.createIndex()
    return coco


def _difficult(objects: Objects) -> Tensor:
    return objects.get("difficult", torch.zeros(len(objects["labels"]), dtype=torch.bool)).bool()


def _classes(detector: nn.Module) -> int:
    return detector.roi_heads.box_predictor.cls_score.out_features - 1


def _pace(step: int, settings: DetectionSettings) -> float:
    """What the learning rate is multiplied by in a step from 0."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    passed = sum(step >= milestone for milestone in settings.milestones)
    return (WARMUP_FROM + (1 - WARMUP_FROM) * warm) * settings.drop**passed


def _sgd(detector: nn.Module, settings: DetectionSettings) -> torch.optim.Optimizer:
    norms = {p for module in detector.modules() if isinstance(module, NORMALISATIONS) for p in module.parameters()}
    trained = [p for p in detector.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p not in norms], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p in norms], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)


def _check_objects(pictures: Sequence[Objects], count: int, classes: int, *, empty: bool = False) -> None:
    """Boxes, and labels (and scores) one each, for each of ``count`` pictures; ``empty``: some may have none."""
    if len(pictures) != count or not count:
        raise EffbookError(f"{len(pictures)} lists of objects do not go with {count} pictures", "give one for each")
    for i, objects in enumerate(pictures):
        boxes, labels = objects["boxes"], objects["labels"]
        others = [objects[name] for name in ("scores", "difficult") if name in objects]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or any(x.shape != boxes.shape[:1] for x in (labels, *others)):
            raise EffbookError(
                f"Picture {i} has boxes of shape {tuple(boxes.shape)} and labels of shape {tuple(labels.shape)}",
                "give boxes [K, 4] and one label for each",
            )
        if not len(boxes):
            if empty:
                continue
            raise EffbookError(f"Picture {i} has no object", "leave it out of the training")
        if not (boxes[:, 2:] > boxes[:, :2]).all() or not torch.isfinite(boxes).all():
            raise EffbookError(f"A box of picture {i} has no area", "give left, top, right and bottom in pixels")
        if not all(bool(torch.isfinite(x).all()) for x in others):
            raise EffbookError(f"A score of picture {i} is not finite", "look for the training that gave it")
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= classes:
            raise EffbookError(
                f"Picture {i} has labels from {labels.min()} to {labels.max()}, outside 0 to {classes - 1}",
                "count the classes from 0, without the background",
            )


def _check_inside(boxes: Tensor, picture: Tensor, i: int) -> None:
    height_px, width_px = picture.shape[-2:]
    if (boxes < 0).any() or (boxes[:, 0::2] > width_px).any() or (boxes[:, 1::2] > height_px).any():
        raise EffbookError(
            f"A box of picture {i} reaches out of its {width_px} x {height_px} pixels",
            "cut it to the picture, and give left, top, right and bottom",
        )
