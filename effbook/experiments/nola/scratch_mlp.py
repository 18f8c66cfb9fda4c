"""NOLA against PRANC on a 2-layer MLP for MNIST, trained from scratch (3.2.4.6, "a toy experiment").

The question is which method reaches the better minimum, so the figure is the training loss.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.draws import at_most
from effbook.experiments.shared.training import fit, trainable
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class ScratchMLPRecipe(Recipe):
    """784 - 256 - 10 with 32 coefficients a layer; the defaults are the dissertation's and run on a laptop.

    The text names no optimiser; Adam is what the section's other runs use. The first layer's bias is one more row of
    its matrix (an input that is always 1), so that the 32 coefficients are all that the layer learns.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-scratch-mlp"
    varying: ClassVar[tuple[str, ...]] = ("step_ms", "seconds")

    method: Literal["nola", "pranc"] = "nola"
    dataset: str = "mnist"
    coefficients_per_layer: PositiveInt = 32
    rank: PositiveInt = 4
    hidden: PositiveInt = 256
    epochs: PositiveInt = 200
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 0.05
    train_images: PositiveInt | None = None  # None: all

    def validate(self) -> None:
        if self.method == "nola" and self.coefficients_per_layer % 2:
            raise EffbookError("NOLA shares a layer's coefficients evenly between A and B", "choose an even number")

    def datasets(self) -> tuple[str, ...]:
        return (self.dataset,)

    def cost(self) -> Cost:
        steps = self.epochs * (self.train_images or 60_000) / self.batch_size
        return Cost(seconds=steps * (0.02 if self.method == "pranc" else 0.01))

    def probe(self) -> dict[str, object]:
        return {"epochs": min(self.epochs, 2), "train_images": min(self.train_images or 4096, 4096)}

    def run(self, context: Context) -> Result:
        import torch
        from torch import nn

        from effbook.data import load_images
        from effbook.nola import NOLASettings, adapt
        from effbook.nola.pranc import PRANCSettings, adapt_pranc

        data = load_images(self.dataset, "train")
        device = torch.device(context.device)
        count = at_most(self.train_images or len(data), len(data), "training images")
        pixels = torch.from_numpy(data.images).flatten(1)[:count].float() / 255  # [N, 784] for MNIST
        x = torch.cat([pixels, torch.ones(len(pixels), 1)], dim=1).to(device)  # the bias's input
        y = torch.from_numpy(data.labels)[:count].to(device)
        with torch.random.fork_rng(devices=[]):  # these weights are dropped at once, but drawing them moves the state
            model = nn.Sequential(
                nn.Linear(x.shape[1], self.hidden, bias=False), nn.ReLU(), nn.Linear(self.hidden, 10, bias=False)
            )
        if self.method == "nola":
            half = self.coefficients_per_layer // 2  # k = l
            settings = NOLASettings(k=half, l=half, rank=self.rank, init="scratch", seed=self.seed)
            model = adapt(model, settings, targets=["0", "2"])
        else:
            settings = PRANCSettings(k=self.coefficients_per_layer, seed=self.seed, regenerate=False)
            model = adapt_pranc(model, settings, targets=["0", "2"])
        model = model.to(device)
        losses, step_ms = fit(
            context,
            model,
            inputs=x,
            labels=y,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            stage=self.method,
        )
        with torch.no_grad():
            logits = torch.cat([model.eval()(part) for part in x.split(4096)])
            final = nn.functional.cross_entropy(logits, y).item()
        return Result(
            metrics={
                "train_loss": context.check_finite(final, len(losses)),
                "train_accuracy": 100 * (logits.argmax(1) == y).double().mean().item(),
                "trainable": trainable(model),
                "step_ms": step_ms,
                "seconds": step_ms / 1000 * self.epochs * -(-len(x) // self.batch_size),
            },
            series={"train_loss": losses},
            notes={"seconds": "median step time multiplied by the number of steps"},
        )
