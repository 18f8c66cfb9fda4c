"""From a recipe to its victim: official weights, or a pretrained ViT that is trained into one and kept."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from effbook.adaptive import ATS, AdaViT, AdaViTConfig, AtsConfig, AViT, AViTConfig, TrainConfig, start_head
from effbook.adaptive import train_victim as train
from effbook.backbones import IMAGE_MEAN, IMAGE_STD
from effbook.backbones.deit import deit
from effbook.backbones.vision import toy_vit, vit_s14
from effbook.evaluate.cost import VitShape, vit_macs
from effbook.experiments.shared.splits import Split, train_split
from effbook.experiments.slowformer.settings import VICTIM, Victim
from effbook.runs.recipe import Context
from effbook.training.seeds import seeded

ATS_BLOCKS = (3, 4, 5, 6, 7, 8, 9)  # C.4
CENTRES = {"deit-ti": 30.0, "deit-s": 75.0}  # of the published A-ViTs' gates; facts
_HEAD = 11  # what is drawn, as the number after the seed


def kept_victim(recipe: Victim, context: Context) -> nn.Module:
    """The victim of a recipe in evaluation mode on the context's device; trained now if it is not kept."""
    if recipe.weights == "official":
        return new_victim(recipe).to(context.device).eval()
    return load_victim(recipe, trained(recipe, context) / "victim.safetensors", context)


def load_victim(recipe: Victim, path: Path, context: Context) -> nn.Module:
    """A recipe's victim with weights that `save_victim` wrote, in evaluation mode on the context's device."""
    state = load_file(path)
    victim = new_victim(recipe, classes=len(state["vit.head.bias"]), weights=False)
    victim.load_state_dict(state)
    return victim.to(context.device).eval()


def trained(recipe: Victim, context: Context) -> Path:
    """The folder of the trained victim and its history; trained now if it is not kept."""
    own = recipe.training()
    return context.cached(VICTIM, recipe.parts(), own, lambda folder: learn(own, context, folder))


def learn(recipe: Victim, context: Context, folder: Path) -> None:
    """Train a victim, and write `victim.safetensors` and `history.json` into the folder."""
    images = train_split(recipe)
    victim = new_victim(recipe, classes=None if recipe.own_head() else len(images.classes)).to(context.device)
    bar = context.progress(recipe.train_steps, f"victim {recipe.victim}")

    def fit_head(count: int) -> None:
        if count and not recipe.own_head():
            first = torch.arange(min(count, len(images)))
            start_head(victim, images.whole(first), images.labels[first], ridge=recipe.ridge)

    def seen(_: int, batch: Tensor) -> Tensor:
        bar.advance(1)
        return batch

    history = []
    fit_head(recipe.head_images)
    if recipe.train_steps:
        history = train(
            victim, Pixels(images), images.labels, config=train_config(recipe), seed=recipe.seed, alter=seen
        )
    fit_head(recipe.last_head_images)
    save_victim(victim, folder / "victim.safetensors")
    series = {name: [step[name] for step in history] for name in ("loss", "task", "accuracy", "gmacs")}
    (folder / "history.json").write_text(json.dumps(series), encoding="utf-8")


def save_victim(victim: nn.Module, path: Path) -> None:
    """Write a victim's weights."""
    save_file({name: value.detach().cpu().contiguous() for name, value in victim.state_dict().items()}, path)


class Pixels:
    """The images of a split as `train_victim` asks for them: by an index tensor [B], uint8 [B, 3, S, S]."""

    def __init__(self, images: Split) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images.whole(index)


def train_config(recipe: Victim) -> TrainConfig:
    """The library's settings of a victim's training."""
    names = ("trained", "vit_rate", "gate_rate", "shift_rate", "target_depth", "two_sided", "budget_weight", "ramp")
    given = {name: getattr(recipe, name) for name in (*names, "usage_weight", "erasing")}
    return TrainConfig(steps=recipe.train_steps, batch=recipe.train_batch, noise=recipe.train_noise, **given)


def new_victim(recipe: Victim, *, classes: int | None = None, weights: bool = True) -> nn.Module:
    """The victim before training, or as its authors trained it; `classes` None: with the classifier that came along.

    Without `weights` its body is random, to be replaced.
    """
    vit = body(recipe, weights=weights)
    if classes is not None:
        with seeded(recipe.seed, _HEAD):
            vit.reset_classifier(classes, recipe.pool)
        nn.init.zeros_(vit.head.weight)  # until it is fitted, the task says nothing to the gates
        nn.init.zeros_(vit.head.bias)
    normalised = {"mean": IMAGE_MEAN, "std": IMAGE_STD}
    if recipe.victim == "avit":
        config = AViTConfig(
            gate=recipe.gate,
            centre=CENTRES.get(recipe.architecture, AViTConfig.centre),
            first_shift=recipe.first_shift,
            readout=recipe.readout,
        )
        return AViT(vit, config=config, **normalised)
    if recipe.victim == "adavit":
        names = ("patch_target", "head_target", "block_target", "tau", "patch_threshold")
        config = AdaViTConfig(**{name: getattr(recipe, name) for name in names}, start=recipe.decision_start)
        return AdaViT(vit, config=config, **normalised)
    blocks = stages(recipe, len(vit.blocks))
    return ATS(vit, config=AtsConfig(blocks=blocks, samples=recipe.samples if blocks else None), **normalised)


def stages(recipe: Victim, depth: int) -> tuple[int, ...]:
    """The blocks in which ATS samples; of a ViT that has none of the dissertation's, all; of the dense ViT none."""
    if recipe.victim == "dense":
        return ()
    return tuple(block for block in ATS_BLOCKS if block < depth) or tuple(range(depth))


def body(recipe: Victim, *, weights: bool = True) -> nn.Module:
    """The ViT of a victim."""
    if recipe.architecture == "toy":
        return toy_vit(image_px=recipe.image_px, seed=recipe.seed)
    if not weights:
        import timm

        from effbook.backbones.deit import SHAPES

        names = SHAPES | {"vit-s14": "vit_small_patch14_dinov2"}
        with seeded(0):
            return timm.create_model(names[recipe.architecture], num_classes=0, img_size=recipe.image_px)
    source = recipe.source()
    return vit_s14(image_px=recipe.image_px) if source == "vit-s14" else deit(source, image_px=recipe.image_px)


def dense_macs(victim: nn.Module) -> float:
    """What the victim's ViT computes if nothing adapts it: the maximum of the dissertation's Attack Success."""
    shape = VitShape.of(victim.vit)
    return vit_macs(shape, torch.full((1, shape.depth), shape.tokens)).item()


def dense_of(victim: nn.Module) -> nn.Module:
    """The victim's own ViT without what adapts it, as a victim that drops nothing."""
    mean, std = (tuple(values.tolist()) for values in (victim.mean, victim.std))
    dense = ATS(victim.vit, config=AtsConfig(blocks=()), mean=mean, std=std)
    return dense.to(victim.mean.device).eval()
