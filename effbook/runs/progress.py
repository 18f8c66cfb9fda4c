"""How long work shows itself: a bar with the time left on a terminal, plain lines elsewhere, nothing when quiet."""

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE_EVERY_S = 15.0


class Tracker:
    """One piece of work of `total` steps; a display's `track` makes it."""

    def __init__(self, display: "Display", total: int, description: str, done: int) -> None:
        self.display, self.total, self.description = display, total, description
        self.done = self._done_before = done
        self._start = self._line_at = time.monotonic()
        self._task = display.bars.add_task(description, total=total, completed=done, shown="") if display.bars else None

    def advance(self, n: int = 1, **shown: float) -> None:
        """Count `n` more steps; `shown` are numbers to show beside, such as loss=2.3."""
        self.done += n
        text = " ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self._task is not None:
            self.display.bars.update(self._task, completed=self.done, shown=text)
            if self.done >= self.total:
                self.display.bars.remove_task(self._task)
                self._task = None
        elif not self.display.quiet and time.monotonic() - self._line_at >= _LINE_EVERY_S:
            self._line_at = time.monotonic()
            line = f"{self.description}: {self.done}/{self.total}, {duration(self.seconds_left)} left"
            self.display.say(f"{line}, {text}" if text else line)

    @property
    def seconds_left(self) -> float:
        """At the pace so far; steps made before a resume don't count for the pace."""
        pace = (time.monotonic() - self._start) / max(1, self.done - self._done_before)
        return pace * max(0, self.total - self.done)


class Display:
    """Where messages and bars go (standard error, so that tables can be piped)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.bars = None

    @contextmanager
    def live(self) -> "Iterator[Display]":
        """Show bars while the body runs, if this is a terminal and not quiet."""
        if self.quiet or not sys.stderr.isatty() or self.bars is not None:
            yield self
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[shown]}"), console=Console(stderr=True)) as bars:
            self.bars = bars
            try:
                yield self
            finally:
                self.bars = None

    def track(self, total: int, description: str, done: int = 0) -> Tracker:
        """Start to show a piece of work of `total` steps, `done` of them done before."""
        return Tracker(self, total, description, done)

    def say(self, message: str) -> None:
        """One line, above the bars."""
        if self.quiet:
            return
        if self.bars:
            self.bars.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time for people: "40 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
