"""What a recipe has at hand while it runs: a folder, a progress bar, checkpoints and the check for a finite loss."""

import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effbook.errors import EffbookError
from effbook.runs.progress import Display, Tracker

if TYPE_CHECKING:
    from torch import Tensor

_MARKER = "checkpoint.json"


@dataclass
class Context:
    """The surroundings of one run. A test may make one by itself: `Context(profile="smoke", folder=tmp_path)`.

    `folder` is the work folder; it is kept until the record is written.
    """

    profile: str
    folder: Path
    display: Display = field(default_factory=lambda: Display(quiet=True))
    seconds_before: float = 0.0  # wall time of the parts before this one, up to the checkpoint resumed from
    peak_before_bytes: int = 0
    peak_bytes: Any = None  # a function that tells the peak memory so far, set by `execute`

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start = self._saved_at = time.perf_counter()
        self._last_step: int | None = None

    @cached_property
    def device(self) -> str:
        """ "cuda" where there is a GPU, else "cpu"."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

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
        `extra` is plain JSON. Only the last checkpoint is kept.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        skeleton = _pack(state, "", tensors)
        file = f"checkpoint-{step}-{time.time_ns()}.safetensors"
        save_file(tensors, self.folder / file)
        _sync(self.folder / file)
        peak = self.peak_bytes() if self.peak_bytes else 0
        content = {
            "file": file,
            "step": step,
            "extra": extra or {},
            "skeleton": skeleton,
            "seconds": self.seconds,
            "peak_bytes": max(self.peak_before_bytes, peak),
        }
        write_atomically(self.folder / _MARKER, json.dumps(content, allow_nan=False))  # from here on it counts
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != file:
                old.unlink()
        self._last_step, self._saved_at = step, time.perf_counter()

    def resume(self) -> tuple[dict[str, Any], int, dict[str, Any]] | None:
        """The state (on the CPU), step and extra of the last checkpoint; None where the run begins."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not (self.folder / _MARKER).exists():
            return None
        try:
            content = json.loads((self.folder / _MARKER).read_text())
            state = _unpack(content["skeleton"], load_file(self.folder / content["file"]))
            if self._last_step is None:  # else it is this process's own checkpoint, whose time is counted already
                self.seconds_before, self.peak_before_bytes = content["seconds"], content["peak_bytes"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self.display.say(f"an earlier checkpoint cannot be read ({type(error).__name__}); the run starts anew")
            (self.folder / _MARKER).unlink(missing_ok=True)
            return None
        self._last_step = content["step"]
        self.display.say(f"resuming at step {content['step']}")
        return state, content["step"], content["extra"]

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


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _pack(value: Any, path: str, tensors: "dict[str, Tensor]") -> Any:
    """Plain JSON that stands for a nested state; its tensors go to `tensors` under their path."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise EffbookError(f"a checkpoint cannot hold {path} of type {type(value).__name__}", "give tensors or scalars")


def _unpack(packed: Any, tensors: "dict[str, Tensor]") -> Any:
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    if kind == "list":
        return [_unpack(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(_unpack(item, tensors) for item in content)
    return content
