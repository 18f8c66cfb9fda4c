"""Distil the student of a recipe and keep it, with its heads and what was recorded."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from effbook.backbones.convnets import mobilenet_v2, new_mobilenet_v2, resnet
from effbook.backbones.teachers import teacher as official
from effbook.backbones.vision import vit_s14
from effbook.experiments.shared.encoders import SMALL, looked_at, small
from effbook.experiments.shared.splits import Split, train_split, with_labels
from effbook.experiments.shared.training import trainable
from effbook.experiments.simreg.settings import OFFICIAL, OWN, STUDENT, TEACHER, Distillation
from effbook.runs.recipe import Context
from effbook.simreg import DistillViews, Student, cached_features, distill
from effbook.simreg.networks import feature_width

OWN_DRAW = 1_000  # added to the seed, so that a student of its teacher's form does not start where that did
ENLARGED_PX = {"mobilenet-v2": 64, "vit-s14": 56}  # what packaged networks see where images are smaller


def distilled(recipe: Distillation, context: Context) -> Path:
    """The folder of the distilled student, its heads and its history; distilled now if it is not kept."""
    own = recipe.training()
    return context.cached(STUDENT, recipe.parts(), own, lambda folder: learn(own, context, folder))


def learn(recipe: Distillation, context: Context, folder: Path) -> None:
    """Distil, and write `student.safetensors`, `heads.safetensors` and `history.json` into the folder."""
    images = train_split(recipe)
    teachers = {name: new_teacher(recipe, name, context).to(context.device) for name in recipe.teachers}
    student = new_student(recipe, images).to(context.device)
    data = with_labels(images, images.labels)
    caches = [_features(recipe, name, t, images, context) for name, t in teachers.items()] if recipe.cached else None
    steps = len(images) // recipe.batch_size
    bar = context.progress(recipe.epochs * steps, f"{recipe.objective}, {recipe.head}")
    found = distill(
        list(teachers.values()),
        student,
        data,
        settings=recipe.settings(),
        cache=caches,
        workers=images.workers,
        checkpoint=context.folder / f"{recipe.key}.pt",
        watch=lambda _, moment: bar.advance(1, loss=moment.loss),
    )
    history = {
        "loss": [epoch["loss"] for epoch in found.history],
        "parameters": trainable(student),
        "head_parameters": trainable(found.heads),
        "dims": [head[-1].out_features for head in found.heads if len(head)],
        "broken": images.broken,
    }
    for name, module in (("student", student), ("heads", found.heads)):
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")


def _features(recipe: Distillation, name: str, teacher: nn.Module, images: Split, context: Context) -> Path:
    """Where a teacher's features of the views are: they are shared by all students that see these views."""

    def make(folder: Path) -> None:
        views = DistillViews(with_labels(images, images.labels), recipe.settings(), workers=images.workers)
        cached_features(folder / "features", teacher, views, dim=width(recipe, teacher))

    return context.cached(TEACHER, recipe.teacher_parts(name), recipe.training(), make) / "features"


def width(recipe: Distillation, network: nn.Module) -> int:
    """The length of the features of a network that sees the recipe's images."""
    return feature_width(network, torch.zeros(2, 3, recipe.image_px, recipe.image_px), name="network")


# ------------------------------------------------------------------------------------------------------- networks


def new_teacher(recipe: Distillation, name: str, context: Context) -> nn.Module:
    """A teacher in evaluation mode: normalised images [B, 3, H, W] to [B, d]."""
    if name in OWN:
        return recipe.taught()[name].network(context)
    if name in OFFICIAL:
        return official(OFFICIAL[name])
    network = mobilenet_v2() if name == "mobilenet-v2" else vit_s14(image_px=ENLARGED_PX[name])
    return nn.Sequential(Enlarged(ENLARGED_PX[name]), network).eval()


class Enlarged(nn.Module):
    """Images [B, 3, H, W] resized to the size that the next network is made for."""

    def __init__(self, size_px: int) -> None:
        super().__init__()
        self.size_px = size_px

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, self.size_px, mode="bilinear", antialias=True)


def new_student(recipe: Distillation, images: Split | None = None) -> nn.Module:
    """The student before training: normalised images [B, 3, H, W] to [B, m].

    A whitening stem takes its filters from the images; without them it has noise for filters, to be replaced.
    """
    seed, small_images = recipe.seed + OWN_DRAW, recipe.image_px <= 64
    if recipe.student in SMALL:
        return small(recipe.student, looked_at(images), size_px=recipe.image_px, seed=seed)
    if recipe.student == "mobilenet-v2":
        return new_mobilenet_v2(small_images=small_images, seed=seed)
    return resnet(recipe.student, small_images=small_images, seed=seed)


def kept_student(recipe: Distillation, context: Context, *, with_head: bool = False) -> nn.Module:
    """The distilled student in evaluation mode on the context's device; on demand its first head follows it.

    The two are then the parts of an `nn.Sequential`.
    """
    folder = distilled(recipe, context)
    student = new_student(recipe)
    student.load_state_dict(load_file(folder / "student.safetensors"))
    if with_head:
        dims = json.loads((folder / "history.json").read_text(encoding="utf-8"))["dims"]
        whole = Student(student, width(recipe, student), dims, head=recipe.head, seed=recipe.seed)
        whole.heads.load_state_dict(load_file(folder / "heads.safetensors"))
        student = nn.Sequential(student, whole.heads[0])
    return student.to(context.device).eval()
