"""The training loop that image experiments share: plain, resumable, finite or stopped."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from effbook.errors import EffbookError
from effbook.runs.recipe import Context

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


def fit(
    context: Context,
    model: "nn.Module",
    *,
    inputs: "Tensor",  # [N, ...]
    labels: "Tensor",  # [N]
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    method: str = "Adam",
    options: Mapping[str, Any] | None = None,
    decay: Literal["none", "cosine"] = "none",
    final_rate: float = 0.0,
    label_smoothing: float = 0.0,
    augment: "Callable[[Tensor, Generator], Tensor] | None" = None,
    stage: str = "train",
    remember: dict | None = None,
) -> tuple[list[float], float]:
    """Minimise cross-entropy; return each epoch's mean loss and the median milliseconds of a step.

    `method` is a name in `torch.optim`, `options` what it takes beside the rate; `decay="cosine"` lets the rate fall
    to `final_rate` over all steps. The order of epoch e is drawn from (seed, e) alone, so a resumed run goes on exactly
    where it was cut. `augment` gets a batch and the epoch's generator, which is the CPU's on any device. `remember` is
    kept in the checkpoint beside `stage`; a checkpoint of another stage is left alone. Raises EffbookError for a loss,
    or for weights at the end, that aren't finite.
    """
    import torch
    import torch.nn.functional as F

    batches = -(-len(inputs) // batch_size)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = getattr(torch.optim, method)(parameters, lr=learning_rate, **(options or {}))
    schedule = None
    if decay == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs * batches, eta_min=final_rate)
    losses, durations_ms, first = [], [], 0
    saved = context.resume()
    if saved is not None and saved[2]["stage"] == stage:
        state, first, extra = saved
        losses = extra["losses"]
        with torch.no_grad():
            for name, value in learned(model).items():
                value.copy_(state["model"][name])
        optimiser.load_state_dict(state["optimiser"])
        if schedule is not None:
            schedule.load_state_dict(state["schedule"])
    model.train()
    bar = context.progress(epochs * batches, stage, done=first * batches)
    for epoch in range(first, epochs):
        draw = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(inputs), generator=draw).to(inputs.device)
        total = torch.zeros((), device=inputs.device)
        for step, batch in enumerate(order.split(batch_size)):
            x = inputs[batch] if augment is None else augment(inputs[batch], draw)
            start = clock(inputs.device)
            loss = F.cross_entropy(model(x), labels[batch], label_smoothing=label_smoothing)
            context.check_finite(loss.detach(), epoch * batches + step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if schedule is not None:
                schedule.step()
            durations_ms.append(1000 * (clock(inputs.device) - start))
            total += loss.detach() * len(batch)
            bar.advance(1, loss=loss.item())
        losses.append(total.item() / len(inputs))
        if context.due() and epoch + 1 < epochs:
            state = {"model": learned(model), "optimiser": optimiser.state_dict()}
            if schedule is not None:
                state["schedule"] = schedule.state_dict()
            context.checkpoint(state, epoch + 1, {"stage": stage, "losses": losses, **(remember or {})})
    check_weights(learned(model), epochs * batches)
    return losses, statistics.median(durations_ms) if durations_ms else float("nan")


def learned(model: "nn.Module") -> "dict[str, Tensor]":
    """Return what training changes: the trainable parameters and the kept buffers (batch norm's statistics)."""
    kept = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = dict(model.named_parameters())
    return kept | {name: value for name, value in model.state_dict().items() if name not in parameters}


def check_weights(weights: "Mapping[str, Tensor]", step: int) -> None:
    """Raise EffbookError if a weight isn't finite: the loss tells of a step's damage only in the step after it."""
    import torch

    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise EffbookError(
                f"{name} is no longer finite after the last step, {step}",
                "lower the learning rate or check the data (all records are kept)",
            )


def clock(device) -> float:
    """Return the seconds of a monotonic clock, after the device has finished its work."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def trainable(model: "nn.Module") -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
