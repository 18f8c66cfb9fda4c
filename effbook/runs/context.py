"""What a recipe has at hand while it runs: a folder, progress, checkpoints, kept results and the records it needs."""

import json
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effbook.errors import EffbookError
from effbook.files import placed
from effbook.runs import cache, locks
from effbook.runs.cache import Coded, Taken
from effbook.runs.code import Device
from effbook.runs.progress import Display, Tracker

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT = "checkpoint.pt"


@dataclass
class Context:
    """The surroundings of one run. A test may make one by itself: `Context(profile="smoke", folder=tmp_path)`.

    `folder` is the work folder; it is kept until the record is written. `fresh_since` is set for `--fresh`: what was
    made before that moment is not taken from anywhere.
    """

    profile: str
    folder: Path
    display: Display = field(default_factory=lambda: Display(quiet=True))
    fresh_since: datetime | None = None
    seconds_before: float = 0.0  # wall time of the parts before this one, up to the checkpoint resumed from
    peak_before_bytes: int = 0
    peak_bytes: Callable[[], int] | None = None  # tells the peak memory so far, set by `execute`
    current: Callable[[Any], Any] | None = None  # gives the record of a recipe, set by `execute`
    taken: list[Taken] = field(default_factory=list)  # what the run did not make itself, for its record

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start = self._saved_at = time.perf_counter()
        self._last_step: int | None = None
        self._made: set[Path] = set()

    @cached_property
    def device(self) -> str:
        """ "cuda" where there is a GPU, else "cpu"."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def device_used(self) -> Device:
        """The device that the run has asked for; the CPU if it never asked."""
        return self.__dict__.get("device", "cpu")

    @property
    def seconds(self) -> float:
        """Wall seconds of this run: the parts before, up to the checkpoint resumed from, and this one."""
        return self.seconds_before + time.perf_counter() - self._start

    def progress(self, total: int, description: str, done: int = 0) -> Tracker:
        """A bar (or plain lines) with the time left: call `.advance(n, loss=...)`. `done`: steps before a resume."""
        return self.display.track(total, description, done)

    def due(self, seconds: float = 20.0) -> bool:
        """Whether a checkpoint is due: none was made in the last `seconds`."""
        return time.perf_counter() - self._saved_at >= seconds

    def checkpoint(self, state: dict[str, Any], step: int, extra: dict[str, Any] | None = None) -> None:
        """Save the state after `step` steps; a kill at any moment leaves this checkpoint or the one before, whole.

        `state` holds tensors, also nested in dicts and lists with plain scalars, as optimisers' state dicts are.
        `extra` is plain JSON. Only the last checkpoint is kept. Raises EffbookError for a state of anything else.
        """
        import torch

        content = {
            "state": _plain(state),
            "step": step,
            "extra": json.dumps(extra or {}, allow_nan=False),
            "taken": [one.model_dump() for one in self.taken],
            "seconds": self.seconds,
            "peak_bytes": max(self.peak_before_bytes, self.peak_bytes() if self.peak_bytes else 0),
        }
        with placed(self.folder / CHECKPOINT, lasting=True, alone=True) as beside:
            torch.save(content, beside)
        self._last_step, self._saved_at = step, time.perf_counter()

    def resume(self) -> tuple[dict[str, Any], int, dict[str, Any]] | None:
        """The state (on the CPU), step and extra of the last checkpoint; None where the run begins."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        import torch

        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            state, step, extra = content["state"], content["step"], json.loads(content["extra"])
            self._note(*(Taken(**one) for one in content["taken"]))
            if self._last_step is None:  # else it is this process's own checkpoint, whose time is counted already
                self.seconds_before, self.peak_before_bytes = content["seconds"], content["peak_bytes"]
        except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            self.display.say(f"an earlier checkpoint cannot be read ({type(error).__name__}); the run starts anew")
            path.unlink(missing_ok=True)
            return None
        self._last_step = step
        self.display.say(f"resuming at step {step}")
        return state, step, extra

    def kept(self, kind: str, parts: dict[str, Any], of: Coded) -> Path | None:
        """The folder of an intermediate result that was kept; None if there is none that may be taken.

        `kind` names the sort of result ("trained-scene"). `parts` is plain JSON of all that it depends on besides code,
        packages and device: fields that act, digests of data. `of` is the recipe whose `modules()` are its code. What
        is taken and was not made in this very run goes into the record's provenance. Read it at once: another process
        whose code is newer may replace it.
        """
        place = cache.place_of(kind, parts)
        stamp = cache.stamp_of(place)
        if stamp is None or not cache.holds(stamp, of, self.fresh_since):
            return None
        if place not in self._made:
            self._note(stamp.as_taken(), *stamp.taken)
        return place

    def keep(self, kind: str, parts: dict[str, Any], of: Coded, make: Callable[[Path], None]) -> Path:
        """Have `make(folder)` fill a new folder, keep it as the result, and return where it is.

        It is put in place whole or not at all, under a lock, and replaces what was there. A process that was waited for
        and made the same spares this one the work. What `make` takes from the cache belongs to the result's provenance.
        """
        place = cache.place_of(kind, parts)
        before = cache.stamp_of(place)
        with locks.holding(place, self.display):
            if cache.stamp_of(place) != before and self.kept(kind, parts, of):
                return place
            return self._make(place, kind, parts, of, make)

    def cached(self, kind: str, parts: dict[str, Any], of: Coded, make: Callable[[Path], None]) -> Path:
        """The folder of a result that was `kept`, or else of one that is made now and kept."""
        place = cache.place_of(kind, parts)
        with locks.holding(place, self.display):
            return self.kept(kind, parts, of) or self._make(place, kind, parts, of, make)

    def record_of(self, recipe: Coded) -> Any:
        """The Record, under the same profile, of a recipe that this run depends on.

        It is the one that is there, unless it is stale or older than `fresh_since`; else that of a run now. Only a
        context that the engine made knows records.
        """
        if self.current is None:
            raise EffbookError(f"this context has no record of {recipe.name}", "run the recipe with `execute`")
        record = self.current(recipe)
        self._note(record.as_taken())
        return record

    def _make(self, place: Path, kind: str, parts: dict[str, Any], of: Coded, make: Callable[[Path], None]) -> Path:
        before, self.taken = self.taken, []

        def fill(folder: Path) -> tuple[Taken, ...]:
            make(folder)
            return tuple(self.taken)

        try:
            cache.make_at(place, kind, parts, of, fill, lambda: self.device_used)
        finally:
            inside, self.taken = self.taken, before
            self._note(*inside)
        self._made.add(place)
        return place

    def _note(self, *taken: Taken) -> None:
        self.taken += [one for one in taken if one not in self.taken]

    def check_finite(self, loss: "float | Tensor", step: int) -> float:
        """The loss as a float; EffbookError that names the step if it is infinite or not a number."""
        value = float(loss.detach()) if hasattr(loss, "detach") else float(loss)
        if math.isfinite(value):
            return value
        kept = f"the checkpoint of step {self._last_step} and all records are kept"
        raise EffbookError(
            f"the loss became {value} at step {step}",
            f"lower the learning rate or check the data ({kept if self._last_step else 'all records are kept'})",
        )


def _plain(value: Any, path: str = "") -> Any:
    """A nested state made of what `torch.load(weights_only=True)` takes, and nothing else."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _plain(item, f"{path}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{path}/{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # so that a NumPy scalar, which is a float too, becomes one
    if value is None:
        return None
    raise EffbookError(f"a checkpoint cannot hold {path} of type {type(value).__name__}", "give tensors or scalars")
