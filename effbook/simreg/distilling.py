"""Distillation for someone with two networks and images of her own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from effbook.errors import EffbookError
from effbook.simreg.baselines import CompRess
from effbook.simreg.cache import cached_features
from effbook.simreg.config import DistillSettings
from effbook.simreg.networks import Student, Teachers, check_batch_norm, device_of, evaluating, feature_width
from effbook.simreg.step import SimReg, make_method
from effbook.simreg.views import DistillViews
from effbook.training.distributed import rank, world_size
from effbook.training.train import Moment, in_file, train


class Distilled(NamedTuple):
    """The student as it was given, now trained; each epoch's mean loss and rate; the heads, one a teacher."""

    student: nn.Module
    history: list[dict[str, float]]
    heads: nn.ModuleList


def distill(
    teacher: nn.Module | Sequence[nn.Module],
    student: nn.Module,
    dataset: Dataset | Sequence[Any] | Tensor,
    *,
    settings: DistillSettings | None = None,
    cache: Path | str | Sequence[Path | str] | None = None,
    half: bool = False,
    workers: int = 0,
    checkpoint: Path | str | None = None,
    watch: Callable[[SimReg | CompRess, Moment], None] | None = None,
) -> Distilled:
    """Train a student, images [B, C, H, W] to [B, m], in place, to mimic one or several teachers, each to [B, d].

        import timm
        from effbook.simreg import distill
        teacher = timm.create_model("resnet50", pretrained=True, num_classes=0)
        student = timm.create_model("mobilenetv2_100", num_classes=0)
        student, history, heads = distill(teacher, student, images)

    `dataset` holds images, or (image, label), in 0..1 or bytes, not normalised; labels have no part. `cache` names a
    folder, for several teachers one each: their features are computed once, on views that then repeat
    (`distinct_views`, 1 if not set), in float16 with `half`. With `checkpoint` each epoch's state is written there, and
    a call that finds one goes on from it. Teachers are left as they are. Raises EffbookError, before work starts, where
    networks, data, cache and settings do not go together. Source: section 2.2.
    """
    settings = settings or DistillSettings()
    teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
    folders = [cache] if isinstance(cache, str | Path) else list(cache or [])
    if not teachers or (folders and len(folders) != len(teachers)):
        raise EffbookError(
            f"{len(folders)} caches for {len(teachers)} teachers", "give each teacher a folder of its own"
        )
    if any(t is student for t in teachers):
        raise EffbookError("teacher and student are one network", "give a copy.deepcopy of it as the teacher")
    if any(device_of(t) != device_of(student) for t in teachers):
        raise EffbookError("teacher and student are on different devices", "move them to one")
    settings = _normalising(settings, teachers)
    if folders and settings.distinct_views is None:
        settings = replace(settings, distinct_views=1)
    data = DistillViews(dataset, settings, workers=workers)
    (batch,) = data.batches([torch.arange(2) % len(data)], epoch=0)
    dims = [feature_width(t, batch.weak, name="teacher") for t in teachers]
    width = feature_width(student, batch.strong[0], name="student")
    of_heads = [width] * len(dims) if settings.head == "none" else dims
    whole = Student(student, width, of_heads, head=settings.head, seed=settings.seed, precision=settings.precision)
    method = make_method(whole, Teachers(teachers, dims, precision=settings.precision), settings)
    check_batch_norm(method, settings.batch)
    with evaluating(*teachers):
        if folders:
            each = zip(folders, teachers, dims, strict=True)
            data.use([_first_then_all(folder, t, data, d, half) for folder, t, d in each])
        history = train(
            method,
            data,
            settings.training(),
            watch=partial(watch, method) if watch else None,
            **in_file(checkpoint),
        )
    return Distilled(student, history, whole.heads)


def _normalising(settings: DistillSettings, teachers: list[nn.Module]) -> DistillSettings:
    """The settings with the mean and deviation that the teachers tell. Raises EffbookError where these are at odds."""
    told = [getattr(t, "pretrained_cfg", None) or {} for t in teachers]
    known = [(tuple(c["mean"]), tuple(c["std"])) for c in told if c.get("mean") and c.get("std")]
    wanted = (settings.mean, settings.deviation) if settings.mean is not None else next(iter(known), None)
    if wanted is None:
        return settings
    for mean, deviation in known:
        if (mean, deviation) != wanted:
            raise EffbookError(
                f"a teacher was made for mean {mean} and deviation {deviation}, not for {wanted[0]} and {wanted[1]}",
                "give it these, or put what converts them before it",
            )
    return replace(settings, mean=wanted[0], deviation=wanted[1])


def _first_then_all(folder: Path | str, teacher: nn.Module, data: DistillViews, dim: int, half: bool) -> Any:
    """The cached features; of several processes the first computes them, and the others wait."""
    if rank() == 0:
        found = cached_features(folder, teacher, data, dim=dim, half=half)
    if world_size() > 1:
        torch.distributed.barrier()
    return found if rank() == 0 else cached_features(folder, teacher, data, dim=dim, half=half)
