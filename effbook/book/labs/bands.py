"""The band of a lab's measured outcome: where another seed's outcome lies in 99 of 100 times, from measured seeds."""

import functools
import math
from pathlib import Path

import yaml

from effbook.errors import EffbookError
from effbook.files import write_atomically

PLACE = Path(__file__).parent / "bands.yaml"
SHARE = 0.99  # of other seeds' outcomes that lie in the band, if outcomes are normally distributed
HEAD = "# Written by `effbook lab band NAME`: the instructor's outcome by seed, and the processor time of each run.\n"


def band_of(lab: str, profile: str) -> tuple[float, float]:
    """The lower and the upper end. Raises EffbookError where fewer than three seeds were measured."""
    entry = _read().get(lab, {}).get(profile)
    if entry is None or len(entry["outcomes"]) < 3:
        raise EffbookError(
            f"the lab {lab} has no measured outcomes under {profile}",
            f"run 'effbook lab band {lab} --profile {profile}'",
        )
    return interval(list(entry["outcomes"].values()))


def seconds_of(lab: str, profile: str) -> float | None:
    """The processor time of the instructor's run, the median of the measured seeds; None where none was measured."""
    entry = _read().get(lab, {}).get(profile)
    return sorted(entry["seconds"])[len(entry["seconds"]) // 2] if entry else None


def interval(outcomes: list[float]) -> tuple[float, float]:
    """The prediction interval for one more outcome: mean -+ t s sqrt(1 + 1/n); a little air where all are the same."""
    from scipy.stats import t

    n = len(outcomes)
    mean = math.fsum(outcomes) / n
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in outcomes) / (n - 1))
    half = float(t.ppf((1 + SHARE) / 2, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    half = max(half, 1e-3 * abs(mean))
    return mean - half, mean + half


def keep(lab: str, profile: str, entry: dict) -> None:
    """Write what was measured of a lab: its outcomes by seed, and the seconds of each."""
    kept = dict(_read())
    kept[lab] = kept.get(lab, {}) | {profile: entry}
    write_atomically(PLACE, HEAD + yaml.safe_dump(kept))
    _read.cache_clear()


def table() -> str:
    """What was measured of each lab, as a table of MyST: the outcomes, the band, and the processor time of a run."""
    lines = ["| lab | profile | outcomes | band | processor time |", "|---|---|---|---|---|"]
    for lab, entries in sorted(_read().items()):
        for profile, entry in sorted(entries.items()):
            low, high = interval(list(entry["outcomes"].values()))
            each = ", ".join(f"{one:.1f}" for one in entry["outcomes"].values())
            lines.append(f"| {lab} | {profile} | {each} | {low:.1f} to {high:.1f} | {seconds_of(lab, profile):.0f} s |")
    return "\n".join([*lines, ""])


@functools.cache
def _read() -> dict:
    return yaml.safe_load(PLACE.read_text(encoding="utf-8")) or {} if PLACE.is_file() else {}
