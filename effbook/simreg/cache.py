"""A teacher's features of a data set, computed once on the views that the student will see.

A view is drawn from (seed, epoch, index), and epochs repeat after V (`distinct_views`): V features an image are then
all that a teacher is ever asked for. V = 1 is the dissertation's cache (A.2.2.1): the data pass the teacher once,
augmented.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from effbook.errors import EffbookError
from effbook.files import placed
from effbook.simreg.networks import Teachers, device_of, evaluating
from effbook.simreg.views import TEACHER, DistillViews, as_tensor
from effbook.training.views import Batch, fetch

FEATURES, MADE_WITH = "features.npy", "made_with.json"
SAMPLED = 256  # images of a data set that is no tensor, for its digest


def cached_features(
    folder: Path | str, teacher: nn.Module, data: DistillViews, *, dim: int, half: bool = False
) -> np.ndarray:
    """The features [V, N, d] of the teacher's views, from the folder, or computed now and written there.

    They are memory-mapped, float32 or with `half` float16. The folder appears whole or not at all. Raises EffbookError
    where it holds features of another teacher, of other images or of other views, or none, and where V is not set.
    """
    folder = Path(folder)
    made_with = description(teacher, data) | {"half": half}
    shape = (made_with["views"]["distinct"], len(data), dim)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with placed(folder) as beside:
            beside.mkdir()
            kind = np.float16 if half else np.float32
            features = np.lib.format.open_memmap(beside / FEATURES, mode="w+", dtype=kind, shape=shape)
            _compute(features, teacher, data)
            features.flush()
            del features
            (beside / MADE_WITH).write_text(json.dumps(made_with, indent=1), encoding="utf-8")
    features = _opened(folder, made_with)
    if features.shape != shape:
        raise EffbookError(
            f"the cached features in {folder} are {features.shape}, not {shape}", "remove the folder, or name another"
        )
    return features


def description(teacher: nn.Module, data: DistillViews) -> dict[str, Any]:
    """What features depend on: digests of teacher and images, and how the views are drawn.

    The images of a tensor are digested whole, of other data sets their number and 256 of them. Raises EffbookError
    where views never repeat.
    """
    settings = data.settings
    if settings.distinct_views is None:
        raise EffbookError(
            "features of views that never repeat cannot be cached", "set `distinct_views`, 1 for one view an image"
        )
    views = {
        "view": repr(data.views[TEACHER]),
        "distinct": settings.distinct_views,
        "seed": settings.seed,
        "mean": data.mean.flatten().tolist(),
        "deviation": data.deviation.flatten().tolist(),
        "precision": settings.precision,
    }
    return {"teacher": _digest_of_network(teacher), "images": _digest_of_images(data), "views": views}


@torch.no_grad()
def _compute(features: np.ndarray, teacher: nn.Module, data: DistillViews) -> None:
    """Ask the teacher in whole batches; a partial one is filled up, as rounding may depend on the size."""
    settings, device = data.settings, device_of(teacher)
    ask = Teachers([teacher], [features.shape[2]], precision=settings.precision)
    with evaluating(teacher):
        for epoch in range(len(features)):
            for start in range(0, len(data), settings.batch):
                index = torch.arange(start, start + settings.batch) % len(data)
                view = data.teacher_views(index, epoch=epoch).to(device)
                (found,) = ask(Batch(index, (), view, index))
                stop = min(start + settings.batch, len(data))
                features[epoch, start:stop] = found[: stop - start].cpu().numpy()


def _opened(folder: Path, made_with: dict[str, Any]) -> np.ndarray:
    """The features in a folder, if they were made so."""
    try:
        found = json.loads((folder / MADE_WITH).read_text(encoding="utf-8"))
        old_views = dict(found["views"])
        features = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise EffbookError(f"{folder} holds no cached features", "name a folder of its own for each teacher") from error
    for name, whose in (("teacher", "of another teacher"), ("images", "of other images"), ("half", "of another type")):
        if found.get(name) != made_with[name]:
            raise EffbookError(
                f"the cached features in {folder} are {whose}", "name another folder, or remove this one"
            )
    for name, value in made_with["views"].items():
        if (old := old_views.get(name)) != value:
            raise EffbookError(
                f"the cached features in {folder} are of other views ({name}: {old}, not {value})",
                "name another folder, or remove this one",
            )
    return features


def _digest_of_network(network: nn.Module) -> str:
    """Of its form, and of every parameter and buffer."""
    digest = hashlib.sha256(repr(network).encode())
    for name, value in network.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest_of_images(data: DistillViews) -> str:
    digest = hashlib.sha256(str(len(data)).encode())
    if isinstance(data.dataset, TensorDataset):
        images = [data.dataset.tensors[0]]
    else:
        index = torch.linspace(0, len(data) - 1, min(SAMPLED, len(data))).long()
        images = [as_tensor(image) for image in fetch(data.dataset, index)[0]]
    for image in images:
        digest.update(f"{image.dtype} {tuple(image.shape)}".encode())
        digest.update(image.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
