"""Adversarial training against a growing set of universal patches (4.1.4).

What it gives is seen by an attack made anew, with another seed, on the defended victim: `train_patch`, then `judge`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.adaptive.training import TrainConfig, own_loss
from effbook.errors import EffbookError
from effbook.slowformer.attack import Data, as_dataset, batches, device_of, train_patch
from effbook.slowformer.config import DefenceConfig
from effbook.slowformer.losses import Look, Loss
from effbook.slowformer.patch import Patch
from effbook.training.seeds import generator, seed_of, seeded
from effbook.training.views import Make

if TYPE_CHECKING:
    from effbook.adaptive.victim import Victim

_CHOICE, _DRAWS = 6, 7  # what is drawn, as the number after the seed


@dataclass(frozen=True, kw_only=True)
class OriginalLoss:
    """The loss by which a victim of ours was trained: cross-entropy and its own terms, at the end of their ramp."""

    config: TrainConfig

    def __call__(self, look: Look) -> Tensor:
        own = own_loss(look.victim, look.outcome.trace, config=self.config, progress=1.0)
        return F.cross_entropy(look.outcome.logits, look.labels) + own


class Defended(NamedTuple):
    """The patches against which a victim was trained, in their order, and each step's loss."""

    patches: list[Patch]
    losses: list[float]


def defend(
    victim: "Victim",
    dataset: Data,
    *,
    objective: Loss,
    attack: Loss,
    config: DefenceConfig,
    patches: Sequence[Patch] = (),
    groups: list[dict[str, Any]] | None = None,
    make: Make | None = None,
    watch: Callable[[int, float, int], None] | None = None,
) -> Defended:
    """Train a victim (a module) in place by its own loss, `objective`, on images that bear a patch of the set.

    At 0, 20, ... 80 % of each epoch a new patch is made by the loss `attack` against the victim as it then is, and
    joins the set, which starts with `patches`. Each step draws one of the set, all as likely. `groups` are AdamW's
    groups of parameters, for rates of their own; else all that need gradients have the config's. `watch` gets the step
    from 1, its loss, and how many patches there are. Raises EffbookError for a victim without parameters to train,
    fewer steps an epoch than patches, and for a loss that is not finite. Source: 4.1.4, C.4.
    """
    trained = [p for p in victim.parameters() if p.requires_grad] if isinstance(victim, nn.Module) else []
    if not trained:
        raise EffbookError("the victim has no parameters to train", "give a torch module with some that need gradients")
    steps = len(as_dataset(dataset)) // config.batch  # of an epoch
    if steps < config.patches_per_epoch:
        raise EffbookError(
            f"{config.patches_per_epoch} patches cannot be made in an epoch of {steps} steps",
            "choose a smaller batch or fewer patches",
        )
    marks = {part * steps // config.patches_per_epoch for part in range(config.patches_per_epoch)}
    device = device_of(victim)
    optimiser = torch.optim.AdamW(groups or trained, config.learning_rate, weight_decay=config.weight_decay)
    stream = batches(dataset, config.batch, seed=config.seed, make=make)
    known, losses = list(patches), []
    modes = {module: module.training for module in victim.modules()}
    victim.train()
    try:
        with seeded(config.seed, _DRAWS, device=device):
            for step in range(config.epochs * steps):
                if step % steps in marks:
                    fresh = replace(config.attack, seed=seed_of(config.attack.seed, len(known)))
                    known.append(train_patch(victim, dataset, loss=attack, config=fresh, make=make).patch)
                images, labels = (x.to(device) for x in next(stream))
                chosen = int(torch.randint(len(known), (), generator=generator(config.seed, _CHOICE, step)))
                loss = objective(Look(victim, known[chosen](images), labels, clean=images))
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    raise EffbookError(f"the defence's loss is {losses[-1]} at step {step + 1}", "lower its rate")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                if watch is not None:
                    watch(step + 1, losses[-1], len(known))
    finally:
        for module, mode in modes.items():
            module.training = mode
    optimiser.zero_grad(set_to_none=True)
    return Defended(known, losses)
