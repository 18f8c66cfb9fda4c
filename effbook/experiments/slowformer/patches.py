"""The patch of a recipe: trained on the train split, kept as PNG and JSON, with the ways that it took."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from effbook.errors import EffbookError
from effbook.experiments.shared.splits import Split, centre, train_split, with_labels
from effbook.experiments.slowformer.settings import PATCH, TOKEN_PX, Attack
from effbook.experiments.slowformer.victims import kept_victim, stages
from effbook.runs.recipe import Context
from effbook.slowformer import (
    ATS_WEIGHTS,
    AdaViTLoss,
    ATSLoss,
    AViTLoss,
    DeSparsify,
    NonTargeted,
    Patch,
    Perturbation,
    SurrogateLoss,
    Targeted,
    WithTask,
    load_patch,
    random_patch,
    save_patch,
    tap_targets,
    train_patch,
    train_perturbation,
)
from effbook.slowformer.losses import Loss
from effbook.training.augment import augment, standard, transforms
from effbook.training.seeds import seeded

WEIGHTS = {"deit-ti": ATS_WEIGHTS["deit_tiny"], "deit-b": ATS_WEIGHTS["deit_base"]}  # else DeiT-S's
MOMENTS = ("start", "tenth", "last")  # of a patch's training (Figure C.3)


def kept_patch(recipe: Attack, context: Context, *, moment: str = "last") -> Patch | Perturbation:
    """The patch of a recipe, or its perturbation: a function of images [B, 3, H, W]. Of several the first.

    `moment` "start" or "tenth": as it was before the first step, or after a tenth of them.
    """
    return kept_patches(recipe, context)[0] if moment == "last" else _read(attacked(recipe, context), moment)


def kept_patches(recipe: Attack, context: Context) -> list[Patch | Perturbation]:
    """All patches of a recipe: one, or for TAP one a target."""
    folder = attacked(recipe, context)
    return [_read(folder, name) for name in json.loads((folder / "history.json").read_text(encoding="utf-8"))["names"]]


def _read(folder: Path, name: str) -> Patch | Perturbation:
    if (folder / f"{name}.png").exists():
        return load_patch(folder / f"{name}.png")[0]
    return Perturbation(load_file(folder / f"{name}.safetensors")["levels"])


def attacked(recipe: Attack, context: Context) -> Path:
    """The folder of the trained patch and its history; trained now if it is not kept."""
    own = recipe.patch_recipe()
    return context.cached(PATCH, recipe.patch_parts(), own, lambda folder: learn(own, context, folder))


def learn(recipe: Attack, context: Context, folder: Path) -> None:
    """Train what a recipe asks for against its kept victim, and write it and `history.json` into the folder."""
    victim, images = kept_victim(recipe, context), train_split(recipe)
    losses, names = [], []
    for number, loss in enumerate(losses_of(recipe, victim, images)):
        name = "patch" if not number else f"patch-{number}"
        found = train(recipe, victim, images, loss, context=context, folder=folder)
        save(recipe, found[0], folder / name)
        names.append(name)
        losses.append(found[1])
    (folder / "history.json").write_text(json.dumps({"names": names, "losses": losses}), encoding="utf-8")


def train(
    recipe: Attack, victim: nn.Module, images: Split, loss: Loss | None, *, context: Context, folder: Path | None = None
) -> tuple[Patch | Perturbation, list[float]]:
    """One patch and each step's loss; `folder` also gets what it was at the start and after a tenth of the steps."""
    config, size = recipe.config(), (recipe.image_px, recipe.image_px)
    if loss is None:
        return random_patch(config, image_px=size), []
    moments = recipe.attack == "slowformer" and folder is not None
    if moments:
        save(recipe, random_patch(config, image_px=size), folder / "start")
    tenth = -(-config.steps // 10)
    bar = context.progress(config.steps, f"{recipe.attack} on {recipe.victim}")

    def watch(step: int, value: float, levels: Tensor) -> None:
        bar.advance(1, loss=value)
        if moments and step == tenth:
            save(recipe, Patch(levels.byte().cpu(), size, config.top_px, config.left_px), folder / "tenth")

    data, make = training_data(images), training_views(recipe, images)
    shared = {"loss": loss, "config": config, "make": make, "workers": images.workers, "watch": watch}
    if recipe.attack == "perturbation":
        return train_perturbation(victim, data, epsilon_levels=recipe.epsilon, **shared)
    return train_patch(victim, data, **shared)


def save(recipe: Attack, patch: Patch | Perturbation, path: Path) -> None:
    """Write a patch as PNG and JSON, a perturbation, which has negative levels, as safetensors."""
    if isinstance(patch, Perturbation):
        save_file({"levels": patch.levels.contiguous()}, path.with_suffix(".safetensors"))
        return
    about = f"{recipe.victim} on {recipe.architecture}, {recipe.dataset}, seed {recipe.seed}"
    save_patch(patch, path.with_suffix(".png"), victim=about, config=recipe.config(), loss=recipe.attack)


# ----------------------------------------------------------------------------------------------------------- losses


def losses_of(recipe: Attack, victim: nn.Module, images: Split) -> list[Loss | None]:
    """What each patch of a recipe minimises; None: it is not trained."""
    if recipe.attack == "random":
        return [None]
    if recipe.attack == "ntap":
        return [NonTargeted()]
    if recipe.attack == "tap":
        classes = victim.vit.head.out_features
        count = min(recipe.targets, classes)
        return [Targeted(target=one) for one in tap_targets(classes, count=count, seed=recipe.seed)]
    if recipe.attack == "desparsify":
        return [DeSparsify(victim=recipe.victim, weight=recipe.task_weight)]
    loss = compute_loss(recipe, victim)
    if recipe.task != "agnostic":
        loss = WithTask(compute=loss, preserve=recipe.task == "preserve", weight=recipe.task_weight)
    return [loss]


def compute_loss(recipe: Attack, victim: nn.Module) -> Loss:
    """The loss of SlowFormer against this victim, in the recipe's form."""
    if recipe.loss == "surrogate":
        return SurrogateLoss()
    if recipe.loss == "scores":
        return DeSparsify(victim="ats", weight=0.0)
    form = "text" if recipe.loss == "default" else recipe.loss
    if recipe.victim == "avit":
        return AViTLoss(sign={"text": "text", "released": "code"}[form])
    if recipe.victim == "adavit":
        return AdaViTLoss(form=form)
    count = len(stages(recipe, len(victim.vit.blocks)))
    weights = WEIGHTS.get(recipe.architecture, ATS_WEIGHTS["deit_small"])
    if count > len(weights):
        raise EffbookError(f"there are {len(weights)} weights for {count} stages", 'choose the loss "surrogate"')
    return ATSLoss(weights=weights[:count], form=form)


# ------------------------------------------------------------------------------------------------------------- data


class Centred(Dataset):
    """The files of a split as uint8 [3, S, S] with their labels."""

    def __init__(self, images: Split) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label, _ = self.images.images[index]
        return centre(image, self.images.size_px), label


def training_data(images: Split) -> Dataset:
    """The training images with their labels, as the attack takes them."""
    whole = isinstance(images.images, Tensor)
    return TensorDataset(images.images, images.labels) if whole else with_labels(images, images.labels)


def judged_data(images: Split) -> Dataset:
    """The images unaltered, with their labels."""
    return training_data(images) if isinstance(images.images, Tensor) else Centred(images)


def training_views(recipe: Attack, images: Split) -> Callable[[Any, Generator], Tensor] | None:
    """What makes a batch's views [B, 3, S, S] in 0..1; None where the images are taken as they are."""
    if recipe.augmented:
        return partial(augmented, size_px=recipe.image_px)
    return None if isinstance(images.images, Tensor) else partial(plain, size_px=recipe.image_px)


def augmented(images: Any, draw: Generator, *, size_px: int) -> Tensor:
    """Random crops and flips, as supervised training has them."""
    view = standard(size_px)
    if isinstance(images, Tensor):
        return augment(images, view, generator=draw).clamp(0, 1)
    make = transforms(view)  # draws from torch's global state
    with seeded(int(torch.randint(2**31, (), generator=draw))):
        return torch.stack([make(image) for image in images]).clamp(0, 1)


def plain(images: Any, _: Generator, *, size_px: int) -> Tensor:
    """Files cut to squares."""
    return torch.stack([centre(image, size_px) for image in images]) / 255


# --------------------------------------------------------------------------------------------------------- measures


def darkest_token(patch: Patch, architecture: str) -> float | None:
    """The mean level of the darkest token that lies wholly within a patch; None where none does."""
    side = TOKEN_PX[architecture]
    first = [-(-edge // side) * side - edge for edge in (patch.top_px, patch.left_px)]
    inside = patch.levels[:, first[0] :, first[1] :].float()
    rows, columns = (length // side for length in inside.shape[1:])
    if not rows or not columns:
        return None
    blocks = inside[:, : rows * side, : columns * side].unflatten(2, (columns, side)).unflatten(1, (rows, side))
    return blocks.mean((0, 2, 4)).min().item()


def likeness(a: Patch, b: Patch) -> float:
    """The correlation between the pixels of two patches of one size. Of a patch of one colour it is 0."""
    pairs = torch.stack([one.levels.flatten().double() for one in (a, b)])
    return float(torch.corrcoef(pairs)[0, 1].nan_to_num(0.0))
