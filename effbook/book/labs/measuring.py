"""Measures the band of a lab's outcome: the instructor's notebook with several seeds."""

import time
from pathlib import Path

from effbook.book.labs import bands
from effbook.book.labs.cells import instructor
from effbook.book.labs.reference import outcome
from effbook.errors import EffbookError


def measure_band(lab: str, *, profile: str, seeds: int = 5, source: Path | None = None) -> tuple[float, float]:
    """Run the instructor's notebook with seeds 0, 1, ..., write the outcomes into `bands.yaml`, return the band.

    Raises EffbookError for fewer than three seeds, and where the notebook fails.
    """
    if seeds < 3:
        raise EffbookError(f"{seeds} seeds make no band", "give 3 or more")
    notebook, outcomes, seconds = instructor(lab, source), {}, []
    for seed in range(seeds):
        began = time.process_time()
        outcomes[seed] = round(outcome(notebook, seed=seed, profile=profile), 4)
        seconds.append(round(time.process_time() - began, 1))
    bands.keep(lab, profile, {"outcomes": outcomes, "seconds": seconds})
    return bands.band_of(lab, profile)
