"""What is recorded of a training: what its neighbours are like, epoch by epoch, and the time of a step."""

import math
import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field

from torch import Tensor

from effbook.cmsf import analysis
from effbook.cmsf.constraints import Positives, Unconstrained
from effbook.cmsf.step import Found
from effbook.runs.recipe import Context
from effbook.training.settings import TrainSettings
from effbook.training.train import Data, Method, Moment, train

LOOKS = 8  # steps of each epoch at which neighbours are looked at
BINS = 100
MOMENTS = {"early": 0.25, "middle": 0.5, "late": 0.625, "end": 1.0}  # of the training; late: epoch 50 of 80 (Table 2.3)
PICTURED = ("early", "middle", "end")
QUERIES, NEAREST = 8, 5  # the first images of the training set, whose neighbours are kept for a picture


def epoch_of(moment: str, epochs: int) -> int:
    """Which of so many epochs, counted from 0, ends at a moment of the training."""
    return max(1, round(epochs * MOMENTS[moment])) - 1


@dataclass
class Seen:
    """What was recorded up to now: it goes into a checkpoint.

    `epochs` are the means of each epoch, `ranks` how often the fifth of C had each rank in M (last: beyond). `pictures`
    holds for each moment, from "bank" (M) and "constrained" (C), the images [QUERIES, NEAREST] that are nearest to each
    of the first images, row by row; -1: none. `spent_ms` is the time of all steps.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    ranks: list[list[int]] = field(default_factory=list)
    pictures: dict[str, list[int]] = field(default_factory=dict)
    spent_ms: float = 0.0


def train_recorded(
    method: Method,
    data: Data,
    settings: TrainSettings,
    context: Context,
    *,
    truth: Tensor,
    title: str,
    whose: list[str] | None = None,
) -> dict:
    """Train, with a bar, checkpoints and a recorder, and tell how it went, as JSON knows it.

    `whose` tells this training from others that checkpoint in the same run: it does not go on from theirs.
    """
    recorder = Recorder(method, truth, epochs=settings.epochs)
    resume = context.resume()
    if resume is not None and resume[2]["whose"] != whose:
        resume = None  # of an earlier training, which is kept by now
    if resume is not None:
        recorder.seen = Seen(**resume[2]["seen"])
    steps = len(data) // settings.batch
    bar = context.progress(settings.epochs * steps, title, done=(resume[1] if resume else 0) * steps)

    def watch(moment: Moment) -> None:
        recorder.look(moment)
        bar.advance(1, loss=moment.loss)

    def keep(state: dict) -> None:
        done = len(state["history"])
        if context.due() and done < settings.epochs:
            context.checkpoint(state, done, {"whose": whose, "seen": asdict(recorder.seen)})

    losses = train(method, data, settings, resume=resume[0] if resume else None, keep=keep, watch=watch)
    return {
        "epochs": [{"loss": one["loss"]} | seen for one, seen in zip(losses, recorder.seen.epochs, strict=True)],
        "step_ms": recorder.step_ms(),
        "days": recorder.seen.spent_ms / 86_400_000,
        "moments": recorder.at_moments(),
    }


class Recorder:
    """Looks at a method after each step. `truth` [N] are the true labels, which a method without labels never sees."""

    def __init__(self, method: Method, truth: Tensor, *, epochs: int) -> None:
        self.method, self.truth = method, truth
        self.seen = Seen()
        self._epochs = epochs
        self._now: dict[str, list[float]] = defaultdict(list)
        self._ranks: list[int] = [0] * (BINS + 1)
        self.durations_ms: list[float] = []  # since this process began
        self._last = time.perf_counter()

    def look(self, moment: Moment) -> None:
        """Called after each step."""
        self.durations_ms.append(1000 * (time.perf_counter() - self._last))
        self.seen.spent_ms += self.durations_ms[-1]
        found = getattr(self.method, "found", None)
        if found is not None and moment.step % max(1, moment.steps // LOOKS) == 0:
            self._neighbours(found)
        for name in PICTURED:
            if found is not None and moment.epoch == epoch_of(name, self._epochs):
                self._picture(found, name)
        relabel = getattr(self.method, "relabel", None)
        if relabel is not None:
            relabel.after(moment)
        if moment.step == moment.steps:
            means = {name: statistics.fmean(values) for name, values in self._now.items() if values}
            scores = relabel.scores(self.truth) if relabel is not None else {}
            self.seen.epochs.append(means | scores)
            self.seen.ranks.append(self._ranks)
            self._now, self._ranks = defaultdict(list), [0] * (BINS + 1)
        self._last = time.perf_counter()

    def _neighbours(self, found: Found) -> None:
        bank, own, positives = self.method.bank, found.positions, found.constrained
        k = positives.mask.shape[1] if positives.positions is not None else 1
        free = found.unconstrained or Unconstrained(k=min(k, bank.filled))(bank, own)
        for name, one in (("bank", free), ("constrained", positives)):
            purity = analysis.purity(bank, own, one, self.truth)
            self._note(f"purity_{name}_with_query", purity.with_query)
            self._note(f"purity_{name}", purity.without_query)
        ranks = analysis.ranks(bank, own, positives, nth=min(5, k), bins=BINS)
        self._note("median_rank", ranks.nth_median)
        for place, count in enumerate([*ranks.histogram.tolist(), ranks.beyond]):
            self._ranks[place] += count
        if not math.isnan(ranks.nth_median):  # as many of M as it takes to reach the fifth of C
            reach = Unconstrained(k=min(bank.filled, int(ranks.nth_median) + 1))(bank, own)
            self._note("purity_far", analysis.purity(bank, own, reach, self.truth).without_query)
        self._note("overlap", _overlap(free, positives))

    def _picture(self, found: Found, moment: str) -> None:
        """Keep what the first images have as neighbours, where the batch holds one of them."""
        bank, positives = self.method.bank, found.constrained
        if positives.positions is None or positives.positions.shape[1] < 2:
            return
        queries = bank.index[found.positions]
        for place in (queries < QUERIES).nonzero()[:, 0].tolist():
            own = found.positions[place : place + 1]
            free = Unconstrained(k=min(NEAREST, bank.filled))(bank, own)
            constrained = Positives(positives.positions[place : place + 1], positives.mask[place : place + 1])
            for name, one in (("bank", free), ("constrained", constrained)):
                row = bank.index[one.positions[0, :NEAREST]].where(one.mask[0, :NEAREST], -1).tolist()
                kept = self.seen.pictures.setdefault(f"nearest_{name}_{moment}", [-1] * QUERIES * NEAREST)
                start = NEAREST * int(queries[place])
                kept[start : start + len(row)] = row

    def _note(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self._now[name].append(value)

    def at_moments(self) -> dict[str, list[int]]:
        """The counts of ranks at the three moments that the figures show, and the neighbours of the first images."""
        ranks = self.seen.ranks
        shown = {f"ranks_{m}": ranks[epoch_of(m, len(ranks))] for m in PICTURED} if ranks and any(ranks[-1]) else {}
        return shown | self.seen.pictures

    def step_ms(self) -> float:
        """The median time of a step, without what is recorded."""
        return statistics.median(self.durations_ms)


def _overlap(free: Positives, constrained: Positives) -> float:
    """Percentage of the constrained positives that are among as many of the bank's nearest, the query left out."""
    if constrained.positions is None or free.positions is None:
        return math.nan
    others = constrained.mask.clone()
    others[:, 0] = False  # the query comes first
    both = (constrained.positions[:, :, None] == free.positions[:, None, :]).any(2) & others
    return 100.0 * int(both.sum()) / int(others.sum()) if others.any() else math.nan
