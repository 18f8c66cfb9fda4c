"""The training loop of this chapter's language experiments: plain, resumable, finite or stopped."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from effbook.experiments.nola.text_batches import Example, epoch_order, target_loss
from effbook.experiments.shared.training import check_weights, clock
from effbook.runs.recipe import Context

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

POINTS = 100  # at most so many in the curve of the loss


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training leaves beside the weights: the curve of its loss, and what a step took. Empty if there was none."""

    losses: list[float] = field(default_factory=list)
    step_ms: float | None = None  # median
    memory_bytes: int | None = None


def warmup_then_linear(step: int, *, steps: int, warmup: int) -> float:
    """The factor on the learning rate at `step` (from 0): up from 1 / warmup to 1, then straight down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(1, steps - warmup)


def warmup_then_constant(step: int, *, steps: int, warmup: int) -> float:
    """The factor on the learning rate at `step` (from 0): up from 1 / warmup to 1, and there it stays."""
    return min(1.0, (step + 1) / max(1, warmup))


def fit_texts(
    context: Context,
    model: "nn.Module",
    examples: Sequence[Example],
    *,
    steps: int,
    batch_size: int,
    micro_batch_size: int | None = None,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    schedule: Callable[..., float] = warmup_then_linear,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    seed: int,
    stage: str = "train",
) -> Trained:
    """Minimise the targets' cross-entropy with AdamW; a batch may be summed up from smaller ones.

    The order of the examples and the learning rate are functions of the step alone, so a resumed run ends as an uncut
    one would. Raises EffbookError for a loss, or for weights at the end, that aren't finite; the last checkpoint is
    then kept.
    """
    import torch

    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=weight_decay)
    size_bytes = sum(p.numel() * p.element_size() for p in parameters.values())
    every = max(20.0, size_bytes / 5e6)  # seconds between checkpoints: a large state costs seconds to write
    first, losses, memory_bytes = 0, [], None
    saved = context.resume()
    if saved is not None:
        state, first, extra = saved
        losses, memory_bytes = extra["losses"], extra["memory_bytes"]
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(state["parameters"][name])
        optimiser.load_state_dict(state["optimiser"])
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model.train()
    batches, durations_ms = -(-len(examples) // batch_size), []
    bar = context.progress(steps, stage, done=first)
    for step in range(first, steps):
        if step == first or step % batches == 0:
            order = epoch_order(len(examples), seed=seed, epoch=step // batches)
        start = step % batches * batch_size
        batch = [examples[i] for i in order[start : start + batch_size]]
        factor = schedule(step, steps=steps, warmup=warmup_steps)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * factor
        began = clock(model.device)
        with (
            _own_randomness(model, seed=seed, step=step),
            _counting(memory_bytes is None and model.device.type == "cpu") as held,
        ):
            loss = _accumulate(model, batch, micro_batch_size or batch_size, label_smoothing)
        context.check_finite(loss, step)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        durations_ms.append(1000 * (clock(model.device) - began))
        if memory_bytes is None:
            memory_bytes = _memory_bytes(model, optimiser, size_bytes, held)
        losses.append(float(loss))
        bar.advance(1, loss=losses[-1])
        if context.due(every):
            state = {"parameters": {n: p.detach() for n, p in parameters.items()}, "optimiser": optimiser.state_dict()}
            context.checkpoint(state, step + 1, {"losses": losses, "memory_bytes": memory_bytes})
    check_weights(parameters, steps)
    if model.device.type == "cuda":
        memory_bytes = max(memory_bytes or 0, torch.cuda.max_memory_allocated())
    model.eval()
    # the first step fills caches, and counts the memory
    step_ms = statistics.median(durations_ms[1:] or durations_ms) if durations_ms else None
    return Trained(losses=_thinned(losses), step_ms=step_ms, memory_bytes=memory_bytes)


def _accumulate(model: "nn.Module", batch: Sequence[Example], micro: int, label_smoothing: float) -> "Tensor":
    """Add up the gradients of a batch's mean loss a token, `micro` examples at a time; return that loss."""
    tokens = sum(len(e.target) for e in batch)
    total = 0.0
    for start in range(0, len(batch), micro):
        part = batch[start : start + micro]
        loss = target_loss(model, part, label_smoothing=label_smoothing) * (sum(len(e.target) for e in part) / tokens)
        loss.backward()
        total = total + loss.detach()
    return total


@contextmanager
def _own_randomness(model: "nn.Module", *, seed: int, step: int) -> Iterator[None]:
    """What the model draws (dropout) follows from (seed, step), and the global generators are as they were after."""
    import torch

    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


class _counting:
    """Collect the storages (address -> bytes) that autograd keeps from the forward for the backward pass."""

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.held = wanted, {}

    def __enter__(self) -> dict[int, int]:
        if self.wanted:
            from torch.autograd.graph import saved_tensors_hooks

            self.hooks = saved_tensors_hooks(self._note, lambda t: t)
            self.hooks.__enter__()
        return self.held

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            self.hooks.__exit__(*_)

    def _note(self, t: "Tensor") -> "Tensor":
        storage = t.untyped_storage()
        self.held[storage.data_ptr()] = storage.nbytes()
        return t


def _memory_bytes(
    model: "nn.Module", optimiser: "optim.Optimizer", gradients_bytes: int, held: dict[int, int]
) -> int | None:
    """On a GPU None (its allocator knows better); on the CPU the tensors alive as a step's backward pass begins.

    Those are weights, gradients, the optimiser's state and what autograd holds (held bases are among it), each storage
    counted once. A process's resident memory would tell more of the runs before this one than of this one.
    """
    if model.device.type != "cpu":
        return None
    from torch import Tensor

    counted = dict(held)
    for tensors in (model.parameters(), model.buffers()):
        counted |= {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    state = (t for entry in optimiser.state.values() for t in entry.values() if isinstance(t, Tensor))
    return sum(counted.values()) + gradients_bytes + sum(t.numel() * t.element_size() for t in state)


def _thinned(values: list[float]) -> list[float]:
    """At most POINTS means of neighbouring values."""
    width = -(-len(values) // POINTS) or 1
    return [statistics.fmean(values[i : i + width]) for i in range(0, len(values), width)]
