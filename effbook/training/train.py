"""The training loop of the libraries: plain, resumable bit for bit, the same for one process and for several.

    torchrun --nproc-per-node 4 script.py     # the script calls torch.distributed.init_process_group first

A method is a module with `trained()`, the parameters to train, and `loss(batch)`; one with a memory has a `bank`. What
of its settings a checkpoint must share it tells with `made_with()`, as plain values.
"""

import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.files import placed
from effbook.training.bank import check_state
from effbook.training.distributed import average_gradients, check_batch, mean, own_rows, rank, start_equal
from effbook.training.seeds import generator, seeded
from effbook.training.settings import TrainSettings, check_bank
from effbook.training.views import Batch


class Method(Protocol):
    """What the loop asks of a method, beside what every nn.Module has."""

    def trained(self) -> list[nn.Parameter]: ...

    def loss(self, batch: Batch) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Data(Protocol):
    """Training images, which know how to make views of themselves."""

    def __len__(self) -> int: ...

    def batches(self, order: Sequence[Tensor], *, epoch: int) -> Iterable[Batch]:
        """One batch for each index tensor [B] of `order`; draws depend on nothing but a seed and what is given."""
        ...


class Moment(NamedTuple):
    """Where a training stands when a step is done."""

    epoch: int  # from 0
    step: int  # from 1, within the epoch
    steps: int  # of an epoch
    loss: float  # mean over all processes
    rate: float


def train(
    method: Method,
    data: Data,
    settings: TrainSettings,
    *,
    resume: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
    watch: Callable[[Moment], None] | None = None,
) -> list[dict[str, float]]:
    """Train a method in place, and return each epoch's mean loss and rate.

    The order of an epoch is drawn from its number and the seed alone; the last, partial batch is dropped. `watch` is
    called after each step and may read and change the method (record, train a pseudo-labeller). `keep` is called after
    each epoch, in the first process, with the state that `resume` takes, tensors and numbers: write or copy it at once,
    as training goes on with its tensors. Resumed, a training on one CPU goes on to the bit as if never stopped.

    Raises EffbookError where the images are fewer than a batch, the bank is no multiple of it, the state is of another
    network, of other settings or none at all, with nothing of it taken, and where the loss is not finite. Source:
    sections 2.1.4 and A.1.5.
    """
    local = check_batch(settings.batch)
    steps = len(data) // settings.batch
    if not steps:
        raise EffbookError(f"{len(data)} images are fewer than a batch of {settings.batch}", "choose a smaller batch")
    if (bank := getattr(method, "bank", None)) is not None:
        check_bank(len(bank), batch=settings.batch)
    parameters = method.trained()
    device = parameters[0].device
    start_equal(method)
    optimiser = _optimiser(parameters, settings)
    made_with = {"images": len(data)} | asdict(settings) | getattr(method, "made_with", dict)()
    history: list[dict[str, float]] = []
    if resume is not None:
        _resume(method, optimiser, resume, made_with)
        history = [dict(one) for one in resume["history"]]

    for epoch in range(len(history), settings.epochs):
        rate = settings.rate(epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate
        losses = []
        with seeded(settings.seed, epoch, rank(), device=device):  # for dropout, and what else asks the global state
            method.train()
            for step, batch in enumerate(data.batches(_order(len(data), settings, epoch, local), epoch=epoch), start=1):
                loss = method.loss(batch.to(device))
                found = float(mean(loss.detach().clone()))
                if not math.isfinite(found):
                    where = f"step {step} of epoch {epoch + 1}"
                    raise EffbookError(f"the loss is {found} at {where}", "lower the learning rate, or use float32")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                average_gradients(parameters)
                optimiser.step()
                losses.append(found)
                if watch is not None:
                    watch(Moment(epoch, step, steps, found, rate))
        if len(losses) != steps:
            raise EffbookError(f"the data gave {len(losses)} of {steps} batches", "give one for each index tensor")
        history.append({"loss": math.fsum(losses) / steps, "rate": rate})
        if keep is not None and rank() == 0:
            keep({
                "method": method.state_dict(),
                "optimiser": optimiser.state_dict(),
                "made_with": made_with,
                "history": history,
            })  # fmt: skip
    return history


def _order(images: int, settings: TrainSettings, epoch: int, local: int) -> list[Tensor]:
    """This process's rows of every batch of an epoch, [local] each."""
    order = torch.randperm(images, generator=generator(settings.seed, epoch))
    whole = order[: images // settings.batch * settings.batch].split(settings.batch)
    return [own_rows(batch)[:local] for batch in whole]


def _optimiser(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "adam":
        return torch.optim.Adam(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        parameters, settings.learning_rate, momentum=settings.sgd_momentum, weight_decay=settings.weight_decay
    )


def _resume(method: Method, optimiser: torch.optim.Optimizer, state: dict[str, Any], made_with: dict[str, Any]) -> None:
    """Put a kept state in place, if all of it is of this method, these data and these settings."""
    kinds = {"method": dict, "optimiser": dict, "made_with": dict, "history": list}
    found = state if isinstance(state, dict) else {}
    if missing := [name for name, kind in sorted(kinds.items()) if not isinstance(found.get(name), kind)]:
        raise EffbookError(f"the checkpoint lacks {', '.join(missing)}", "start anew, or name another file")
    for name in (*made_with, *state["made_with"]):
        old, value = state["made_with"].get(name), made_with.get(name)
        if old != value:
            raise EffbookError(
                f"the checkpoint was made with {name} {old}, not {value}", f"resume with {name} {old}, or start anew"
            )
    check_state(_shaped(method.state_dict()), _shaped(state["method"], of=method.state_dict()), "network or method")
    sizes = [[tuple(p.shape) for p in group["params"]] for group in optimiser.param_groups]
    if not _fits(state["optimiser"], sizes) or len(state["history"]) > made_with["epochs"]:
        raise EffbookError("the checkpoint's optimiser or history is of another training", "start anew")
    method.load_state_dict(state["method"])
    optimiser.load_state_dict(state["optimiser"])


def _shaped(state: dict[str, Any], *, of: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
    """The leaves of a nested state by their paths, but for what `of`, a new method, lacks yet, such as a classifier."""
    leaves: dict[str, Any] = {}
    for key, value in state.items():
        own = None if of is None else of.get(key, value)
        if isinstance(value, dict) and (of is None or isinstance(own, dict)):
            leaves |= _shaped(value, of=own, name=f"{name}{key}.")
        elif of is None or own is not None:
            leaves[f"{name}{key}"] = value
    return {path: value for path, value in leaves.items() if value is not None}


def _fits(state: dict[str, Any], sizes: list[list[tuple[int, ...]]]) -> bool:
    """Whether an optimiser's state is of parameters of these sizes, group by group."""
    try:
        places = [group["params"] for group in state["param_groups"]]
        if [len(group) for group in places] != [len(group) for group in sizes]:
            return False
        of = dict(zip(chain(*places), chain(*sizes), strict=True))
        moments = [(of[place], value) for place, each in state["state"].items() for value in each.values()]
    except (LookupError, TypeError, AttributeError):
        return False
    return all(not isinstance(value, Tensor) or value.ndim == 0 or value.shape == size for size, value in moments)


def in_file(path: Path | str | None) -> dict[str, Any]:
    """`resume` and `keep` of `train` for a checkpoint in one file, written whole after each epoch; without, nothing.

    Raises EffbookError where the file is damaged or no checkpoint.
    """
    if path is None:
        return {}
    path = Path(path)
    resume = None
    if path.exists():
        try:
            resume = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise EffbookError(
                f"{path} is no whole checkpoint ({type(error).__name__})",
                "delete it to start anew, or name another file",
            ) from None

    def keep(state: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path, lasting=True) as beside:
            torch.save(state, beside)

    return {"resume": resume, "keep": keep}
