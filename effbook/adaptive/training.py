"""From a pretrained ViT to a victim: its own losses on top of cross-entropy, in one loop (4.1.3.2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.adaptive.adavit import AdaViT, usage_loss
from effbook.adaptive.avit import distribution_loss, ponder_loss
from effbook.adaptive.victim import DecisionTrace, HaltingTrace, SamplingTrace
from effbook.errors import EffbookError
from effbook.training.seeds import generator
from effbook.training.settings import check_choice, check_flags, check_real, check_whole


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a victim is trained; the defaults turn a small pretrained ViT into one in minutes.

    AdamW has a rate each for the ViT, for the gates that a victim adds, and for their shifts (parameters so named).
    `trained` "head": the classifier alone; "gates": only what a victim adds, so that the ViT's own features stay.
    A-ViT: weights of Eq. 4.1 and of the prior, the prior's depth and deviation in blocks, and a budget, `target_depth`:
    the mean of N_k + r_k that may not be exceeded, which falls to it from L + 1 over the first `ramp` of the steps;
    `two_sided`: that isn't to be fallen short of either, so that gates alone, with no loss that wants them open, come
    to rest at it. AdaViT: weight of Eq. 4.3, whose targets its own config holds, and whether decisions have Gumbel
    `noise`: without it, training counts what an image without noise will cost. The budget and these choices are ours.
    `erasing` is the probability of DeiT's random erasing. Raises EffbookError where a value is impossible.
    """

    steps: int = 160
    batch: int = 32
    trained: Literal["all", "gates", "head"] = "all"
    vit_rate: float = 4e-5
    gate_rate: float = 5e-3
    shift_rate: float = 3e-2
    weight_decay: float = 0.0
    ponder_weight: float = 5e-4
    prior_weight: float = 1e-3
    prior_depth: float = 8.0
    prior_deviation: float = 1.0
    target_depth: float | None = None
    budget_weight: float = 10.0
    ramp: float = 0.5
    two_sided: bool = False
    noise: bool = True
    usage_weight: float = 1.0
    flip: bool = True
    erasing: float = 0.25

    def __post_init__(self) -> None:
        check_whole(self, 1, "steps", "batch")
        check_choice(self, "trained", ("all", "gates", "head"))
        check_real(self, 0, "vit_rate", "gate_rate", "shift_rate", "weight_decay")
        check_real(self, 0, "ponder_weight", "prior_weight", "budget_weight", "usage_weight")
        check_real(self, 1e-6, "prior_depth", "prior_deviation")
        if self.target_depth is not None:
            check_real(self, 1, "target_depth")
        check_real(self, 0, "ramp", "erasing", most=1)
        check_flags(self, "two_sided", "noise", "flip")


def train_victim(
    victim: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    config: TrainConfig,
    seed: int,
    alter: Callable[[int, Tensor], Tensor] | None = None,
) -> list[dict[str, float]]:
    """Train a victim in place on images [M, 3, H, W], uint8 or in 0..1, and labels [M]; what each step gave.

    The victim is a module and a `Victim` that holds its ViT as `vit`.
    A step's record: `loss`, `task` (cross-entropy), `accuracy`, and `gmacs`, the mean cost of an image. `alter`, given
    the step and its images, returns those to train on: an adversary pastes her patch there. Raises EffbookError where
    there are fewer images than a batch, labels do not fit, or a loss is not finite.
    """
    if len(images) != len(labels) or len(images) < config.batch:
        raise EffbookError(
            f"there are {len(images)} images and {len(labels)} labels for batches of {config.batch}",
            "give a label each, and at least a batch",
        )
    device = next(victim.parameters()).device
    optimiser = torch.optim.AdamW(parameter_groups(victim, config), weight_decay=config.weight_decay)
    history, order = [], torch.empty(0, dtype=torch.long)
    victim.train()
    for step in range(config.steps):
        draw = generator(seed, step)
        while len(order) < config.batch:
            order = torch.cat([order, torch.randperm(len(images), generator=draw)])
        index, order = order[: config.batch], order[config.batch :]
        batch = _floats(images[index])
        if config.flip:
            flipped = torch.rand(len(batch), generator=draw) < 0.5
            batch = batch.flip(3).where(flipped[:, None, None, None].to(batch.device), batch)
        batch = random_erasing(batch, probability=config.erasing, draw=draw).to(device)
        batch = batch if alter is None else alter(step, batch)
        target = labels[index].to(device)
        noise = {"generator": draw} if isinstance(victim, AdaViT) and config.noise else {}
        outcome = victim.run(batch, "masked", **noise)
        task = F.cross_entropy(outcome.logits, target)
        loss = task + own_loss(victim, outcome.trace, config=config, progress=step / config.steps)
        if not loss.isfinite():
            raise EffbookError(f"the loss is {loss.item()} at step {step}", "lower the learning rates")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        accuracy = (outcome.logits.argmax(1) == target).float().mean()
        record = {"loss": loss, "task": task, "accuracy": accuracy, "gmacs": outcome.macs.mean() / 1e9}
        history.append({name: value.item() for name, value in record.items()})
    victim.eval()
    return history


def own_loss(
    victim: nn.Module,
    trace: HaltingTrace | SamplingTrace | DecisionTrace | None,
    *,
    config: TrainConfig,
    progress: float,
) -> Tensor | float:
    """What a victim adds to cross-entropy when a share `progress` of the steps is done; ATS adds nothing."""
    if isinstance(trace, DecisionTrace):
        own = victim.config
        targets = {"patches": own.patch_target, "heads": own.head_target, "blocks": own.block_target}
        return config.usage_weight * usage_loss(trace, **targets).mean()
    if not isinstance(trace, HaltingTrace):
        return 0.0
    ponder, most = ponder_loss(trace), trace.scores.shape[1] + 1  # L + 1
    prior = distribution_loss(trace, depth=config.prior_depth, deviation=config.prior_deviation)
    loss = config.ponder_weight * ponder + config.prior_weight * prior
    if config.target_depth is not None:
        ramped = min(1.0, progress / config.ramp) if config.ramp else 1.0
        budget = most + (config.target_depth - most) * ramped
        excess = ponder - budget
        loss = loss + config.budget_weight * (excess.abs() if config.two_sided else excess.relu()) / most
    return loss


def parameter_groups(victim: nn.Module, config: TrainConfig) -> list[dict]:
    """Which parameters are trained, and how fast: the ViT's, the gates', the shifts'."""
    groups = {"vit": [], "gate": [], "shift": []}
    for name, parameter in victim.named_parameters():
        kind = "vit" if name.startswith("vit.") else "shift" if "shift" in name else "gate"
        chosen = {"all": True, "gates": kind != "vit", "head": name.startswith("vit.head.")}
        parameter.requires_grad_(chosen[config.trained])
        if parameter.requires_grad:
            groups[kind].append(parameter)
    rates = {"vit": config.vit_rate, "gate": config.gate_rate, "shift": config.shift_rate}
    return [{"params": some, "lr": rates[kind]} for kind, some in groups.items() if some]


@torch.no_grad()
def start_head(victim: nn.Module, images: Tensor, labels: Tensor, *, ridge: float = 1.0, batch: int = 64) -> float:
    """Start the classifier by ridge regression from its inputs to the labels; give the accuracy on these images [M].

    The victim sees the images as it would, with what it drops dropped. Inputs are centred and scaled for the penalty
    `ridge`; logits are then scaled for the least cross-entropy among a few factors. Images as in `train_victim`.
    """
    head, seen = victim.vit.head, []
    victim.eval()
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    try:
        for part in images.split(batch):
            victim.run(_floats(part).to(head.weight.device), "dropped")
    finally:
        hook.remove()
    inputs, labels = torch.cat(seen), labels.to(head.weight.device)  # [M, D]
    mean, std = inputs.mean(0), inputs.std(0, correction=0).clamp_min(1e-6)
    x = (inputs - mean) / std
    y = F.one_hot(labels, head.out_features).double()
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (y - y.mean(0)))  # [D, C]
    logits = x @ weight + y.mean(0)
    factor = min((1.0, 2.0, 4.0, 8.0, 16.0, 32.0), key=lambda f: F.cross_entropy(f * logits, labels).item())
    head.weight.copy_((weight / std[:, None]).T * factor)
    head.bias.copy_((y.mean(0) - (mean / std) @ weight) * factor)
    return (logits.argmax(1) == labels).double().mean().item()


def random_erasing(images: Tensor, *, probability: float, draw: torch.Generator) -> Tensor:
    """Replace a rectangle by noise in some of the images [B, 3, H, W] in 0..1, as DeiT was trained.

    It takes 2 to 33 % of the area with sides 0.3 to 3.3 to one, cut to the image; its pixels are normal around
    ImageNet's mean with its deviation, cut to 0..1.
    """
    images, (height, width) = images.clone(), images.shape[2:]
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for image in images:
        chance, area, aspect, top, left = torch.rand(5, generator=draw, dtype=torch.float64).tolist()
        if chance >= probability:
            continue
        area = (0.02 + area * (1 / 3 - 0.02)) * height * width
        aspect = math.exp((2 * aspect - 1) * math.log(10 / 3))
        h = max(1, min(height, round(math.sqrt(area * aspect))))
        w = max(1, min(width, round(math.sqrt(area / aspect))))
        top, left = int(top * (height - h + 1)), int(left * (width - w + 1))
        noise = mean + std * torch.randn(3, h, w, generator=draw)
        image[:, top : top + h, left : left + w] = noise.clamp(0, 1).to(image)
    return images


def _floats(images: Tensor) -> Tensor:
    """Pixels in 0..1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images
