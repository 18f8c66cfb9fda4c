"""What the search of neighbours costs a training step, against BYOL-asym, which has none (2.1.4)."""

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import ClassVar

from pydantic import PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.cmsf.settings import Training
from effbook.experiments.shared.training import clock
from effbook.runs.recipe import Context, Cost, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class OverheadRecipe(Training):
    """Steps of a method and of the one that it is compared with, in turns in one process, both with a full bank.

    A third view is compared with the cached one, all else with BYOL-asym, whose search has one answer. On a CPU it is
    the process's own time that counts.
    """

    name: ClassVar[str] = "cmsf-overhead"
    varying: ClassVar[tuple[str, ...]] = ("overhead", "step_ms", "compared_step_ms")

    steps: PositiveInt = 200

    def validate(self) -> None:
        super().validate()
        if self.method not in ("byol", "msf", "cmsf-self", "cmsf-sup", "cmsf-semi") or self.features_of:
            raise EffbookError(f"{self.method} is no mean shift on images", "choose a mean shift")

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(seconds=10 + 2 * self.steps * self.batch_size / 500, gpu_bytes=own.gpu_bytes)

    def shares(self) -> tuple:
        return ()

    def probe(self) -> dict[str, object]:
        return {"steps": 2, "train_images": min(self.train_images or 512, 512)}

    def run(self, context: Context) -> Result:
        import torch

        device = torch.device(context.device)
        fewer = {"third_view": False} if self.third_view else {"method": "byol"}
        sides = [Side(dataclasses.replace(self, **changes), device) for changes in ({}, fewer)]
        durations_ms: list[list[float]] = [[], []]
        for step in range(self.steps):
            for place in (0, 1) if step % 2 else (1, 0):
                durations_ms[place].append(sides[place].step())
        own, other = (statistics.median(one) for one in durations_ms)
        return Result(metrics={"overhead": 100.0 * (own / other - 1), "step_ms": own, "compared_step_ms": other})


class Side:
    """One method, with its own networks and a bank that is full."""

    def __init__(self, recipe: Training, device) -> None:
        import torch

        from effbook.experiments.cmsf.inputs import new_encoder, training_views
        from effbook.experiments.cmsf.learning import make_method
        from effbook.experiments.shared.splits import train_split

        images = train_split(recipe)
        labels = torch.full_like(images.labels, -1)
        self.recipe, self.device = recipe, device
        data = training_views(recipe, images, labels)
        encoder = new_encoder(recipe, images).to(device)
        self.method = make_method(recipe, encoder, data, labels, images)
        bank, draw = self.method.bank, torch.Generator().manual_seed(recipe.seed)
        bank.index.copy_(torch.randint(len(images), (len(bank),), generator=draw))
        bank.filled = len(bank)
        if bank.second is not None:
            bank.known[:] = True
        if self.method.cache is not None:
            self.method.cache.known[:] = True
        order = torch.arange(recipe.steps * recipe.batch_size) % len(images)
        self.batches = iter(data.batches(order.split(recipe.batch_size), epoch=0))
        self.sgd = torch.optim.SGD(self.method.trained(), recipe.learning_rate, momentum=0.9)

    def step(self) -> float:
        """Milliseconds of one step; making the views is not counted."""
        batch = next(self.batches).to(self.device)
        start = self._clock()
        loss = self.method.loss(batch)
        self.sgd.zero_grad(set_to_none=True)
        loss.backward()
        self.sgd.step()
        return 1000 * (self._clock() - start)

    def _clock(self) -> float:
        return clock(self.device) if self.device.type == "cuda" else time.process_time()
