"""Figure 1.1: how fast parameters and training compute of language models have grown, from a table of public facts."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from effbook.experiments.introduction.facts import LANGUAGE_MODELS, LanguageModel
from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.runs.recipe import Context, Cost, Recipe, Result

DAYS_A_MONTH = 365.25 / 12


def quantity_of(model: LanguageModel, quantity: str) -> float | None:
    """A model's parameters or its training FLOPs."""
    return model.parameters if quantity == "parameters" else model.training_flop


def chosen(quantity: str, of: str) -> list[LanguageModel]:
    """The dense models whose quantity is known, in time; of "records" only those above all before them."""
    known = [m for m in LANGUAGE_MODELS if m.dense and quantity_of(m, quantity) is not None]
    known.sort(key=lambda m: m.published)
    if of == "all":
        return known
    records: list[LanguageModel] = []
    for model in known:
        if not records or quantity_of(model, quantity) > quantity_of(records[-1], quantity):
            records.append(model)
    return records


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class GrowthRecipe(Recipe):
    """Fit a straight line to the logarithm over time, by least squares; nothing in it is random.

    `doubling_months` is the time in which the quantity doubles; `at_most_months` the slow end of its 95 % interval,
    from the t-interval of the slope.
    """

    system: ClassVar[str] = "introduction"
    name: ClassVar[str] = "growth-fit"

    quantity: Literal["parameters", "compute"]
    of: Literal["all", "records"] = "all"

    def cost(self) -> Cost:
        return Cost(seconds=1)

    def run(self, context: Context) -> Result:
        import numpy as np
        from scipy import stats

        models = chosen(self.quantity, self.of)
        months = np.array([m.published.toordinal() for m in models]) / DAYS_A_MONTH
        fit = stats.linregress(months, np.log2([quantity_of(m, self.quantity) for m in models]))
        slowest = fit.slope - stats.t.ppf(0.975, len(models) - 2) * fit.stderr
        return Result(
            metrics={
                "doubling_months": float(1 / fit.slope),
                "at_most_months": float(1 / slowest) if slowest > 0 else None,
                "factor_a_year": float(2 ** (12 * fit.slope)),
                "models": len(models),
            },
            series={
                "years": [float(m.published.toordinal() / 365.25) for m in models],
                self.quantity: [float(quantity_of(m, self.quantity)) for m in models],
            },
            notes={} if slowest > 0 else {"at_most_months": "the interval of the slope reaches zero"},
        )
