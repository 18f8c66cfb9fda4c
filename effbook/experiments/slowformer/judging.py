"""What a victim does on test images, without an attack and with it: its cost, its answers, and the tokens it keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from effbook.evaluate.cost import VitShape, attack_success, released_avit_macs
from effbook.experiments.shared.splits import test_split
from effbook.experiments.slowformer.patches import judged_data
from effbook.experiments.slowformer.settings import CLEAN, Judged
from effbook.experiments.slowformer.victims import dense_macs, kept_victim
from effbook.runs.recipe import Context
from effbook.slowformer.attack import as_images, frozen
from effbook.training.views import fetch

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Of N images: MACs [N], whether the answer is right [N], executed tokens and patches kept a block, [N, L] each."""

    macs: Tensor
    right: Tensor
    tokens: Tensor
    kept: Tensor

    @property
    def gflops(self) -> float:
        """The mean cost of an image, in the dissertation's unit."""
        return self.macs.mean().item() / 1e9

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100 * self.right.double().mean().item()

    @property
    def kept_a_block(self) -> list[float]:
        """How many patches each block keeps, mean over images."""
        return self.kept.double().mean(0).tolist()

    def depth(self, patches: int) -> float:
        """For how many blocks a patch's token stays, mean over patches and images."""
        return self.kept.double().sum(1).mean().item() / patches

    def save(self, path: Path) -> None:
        """Write all of it into one file."""
        save_file({name: value.contiguous() for name, value in vars(self).items()}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` has written."""
        return cls(**load_file(path))


@torch.no_grad()
def observe(victim: nn.Module, recipe: Judged, attack: Callable[[Tensor], Tensor] | None, context: Context) -> Observed:
    """Run the victim over the recipe's test images under dropped execution, with what `attack` makes of them."""
    dataset = judged_data(test_split(recipe))
    found: dict[str, list[Tensor]] = {name: [] for name in Observed.__dataclass_fields__}
    bar = context.progress(len(dataset), f"judge {recipe.victim}")
    with frozen(victim):
        for index in torch.arange(len(dataset)).split(BATCH):
            images, labels = fetch(dataset, index)
            images = as_images(images).to(context.device)
            outcome = victim.run(images if attack is None else attack(images), "dropped")
            found["macs"].append(outcome.macs.double().cpu())
            found["right"].append(outcome.logits.argmax(1).cpu() == labels)
            found["tokens"].append(outcome.usage["tokens"].cpu())
            found["kept"].append(outcome.usage["kept"].sum(2).cpu())
            bar.advance(len(index))
    return Observed(**{name: torch.cat(parts) for name, parts in found.items()})


def clean(recipe: Judged, context: Context) -> Observed:
    """What the recipe's victim does without an attack; looked at once for all attacks on it."""

    def make(folder: Path) -> None:
        observe(kept_victim(recipe, context), recipe, None, context).save(folder / "observed.safetensors")

    own = recipe.clean_recipe()
    return Observed.load(context.cached(CLEAN, recipe.clean_parts(), own, make) / "observed.safetensors")


def released_gflops(victim: nn.Module, seen: Observed) -> float:
    """The cost by the count of A-ViT's released code: the mean tokens a block, rounded, counted once."""
    mean = seen.tokens.double().mean(0, keepdim=True).round()
    return released_avit_macs(VitShape.of(victim.vit), mean).item() / 1e9


def success(before: Observed, after: Observed, *, low: float, high: float) -> float | None:
    """Attack Success in percent; None where the victim saves nothing before the attack."""
    if before.macs.mean().item() >= high:
        return None
    return attack_success(before.macs, after.macs, low=low, high=high)


def successes(victim: nn.Module, before: Observed, after: Observed) -> dict[str, float | None]:
    """Attack Success with the dense ViT's cost as the most (4.1.5.1), and with the most that the victim can cost."""
    bound = victim.bound()
    return {
        "success": success(before, after, low=bound.low_macs, high=dense_macs(victim)),
        "success_of_bound": success(before, after, low=bound.low_macs, high=bound.high_macs),
    }
