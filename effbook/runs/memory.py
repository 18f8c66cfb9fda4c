"""How much memory a run takes at its peak."""

import sys
import threading
from typing import Any, ClassVar

import psutil


class PeakMemory:
    """The highest resident memory of this process while the body runs, looked at ten times a second, and a GPU's peak.

    Bodies may lie within each other: a run that needs another's record has that one run first.
    """

    _open: ClassVar[list["PeakMemory"]] = []

    def __enter__(self) -> "PeakMemory":
        self._process, self._stop = psutil.Process(), threading.Event()
        self.size_bytes: int = self._process.memory_info().rss
        self.gpu_bytes: int | None = None
        for outer in self._open:
            outer.look()
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()
        self._open.append(self)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()
        self._open.remove(self)

    def look(self) -> None:
        """Note the memory of this moment, and the GPU's peak since it was last reset."""
        self.size_bytes = max(self.size_bytes, self._process.memory_info().rss)
        if (cuda := _cuda()) is not None:
            self.gpu_bytes = max(self.gpu_bytes or 0, cuda.max_memory_allocated())

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.size_bytes = max(self.size_bytes, self._process.memory_info().rss)


def _cuda() -> Any:
    """torch.cuda if torch was imported and there is a GPU; torch isn't imported just to ask."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
