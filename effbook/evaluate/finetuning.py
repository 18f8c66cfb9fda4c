"""Fine-tuning of a whole network on labelled images, as after semi-supervised training (A.1.5.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_labels

Augment = Callable[[Tensor, torch.Generator], Tensor]  # images [B, ...] to the network's input [B, ...]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """SGD with the learning rate times ``drop`` at the end of each epoch named (A.1.5.3)."""

    epochs: int = 20
    lr: float = 0.005
    milestones: tuple[int, ...] = (15,)
    drop: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0:
            raise EffbookError(
                f"A network cannot be fine-tuned with {self.epochs} epochs, batches of {self.batch} and lr {self.lr}",
                "choose all of them above zero",
            )


def finetune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    settings: FinetuneSettings,
    augment: Augment | None = None,
) -> tuple[float, ...]:
    """Train all of ``model`` (encoder and head, images [B, ...] to logits [B, C]) in place; each epoch's mean loss.

    ``images`` is a tensor [N, ...], or anything with a length that gives a batch for indices [B]. A batch goes to the
    model's device and through ``augment``, whose generator is on the CPU. The order comes from the seed; random layers
    of the model draw from torch's own state. A last batch of one image is left out, since batch norm cannot use it.
    The model's mode is put back. Raises `EffbookError` for labels outside 0 ... classes - 1, and for a loss that is not
    finite.
    """
    check_labels(labels, len(images), classes, "training")
    if len(images) < 2:
        raise EffbookError("One image is too few to fine-tune on", "give at least two")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(settings.milestones), settings.drop)
    was_training, losses = model.training, []
    model.train()
    try:
        for epoch in range(settings.epochs):
            total, count = 0.0, 0
            for index in torch.randperm(len(images), generator=generator).split(settings.batch):
                if len(index) == 1 and settings.batch > 1:
                    continue
                batch = images[index].to(device)
                logits = model(augment(batch, generator) if augment else batch)
                loss = F.cross_entropy(logits, labels[index].to(device).long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, count = total + loss.item() * len(index), count + len(index)
            schedule.step()
            losses.append(total / count)
            if not losses[-1] < float("inf"):
                raise EffbookError(f"The loss is {losses[-1]} in epoch {epoch + 1}", "choose a smaller learning rate")
    finally:
        model.train(was_training)
    return tuple(losses)
