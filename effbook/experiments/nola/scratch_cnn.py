"""Training a CNN from scratch in few parameters: NOLA, LoRA and PRANC (Tables 3.17, 3.18, B.10, B.11).

Every convolution's weights are reshaped to a nearly square matrix, which then is A B. Batch norm is trained as it is.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.images import crop_and_flip, picked, standardised
from effbook.experiments.shared.training import fit, trainable
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

PIXELS = {"cifar10": 32, "toy-shapes": 32, "imagenet100": 224}


@register_recipe
@dataclass(frozen=True, kw_only=True)
class ScratchCNNRecipe(Recipe):
    """The defaults are the dissertation's for ResNet-20 on CIFAR-10; `k` is l too, and PRANC's whole count is 2 k.

    For `method="lora"` A and B themselves are trained at rank `rank`. The text says neither how the matrices start nor
    which augmentation it uses; ours: a Kaiming weight's variance, and CIFAR's usual crop and flip.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-scratch-cnn"
    varying: ClassVar[tuple[str, ...]] = ("step_ms",)

    model: Literal["resnet20", "resnet18"] = "resnet20"
    dataset: str = "cifar10"
    method: Literal["full", "pranc", "lora", "nola"] = "nola"
    rank: PositiveInt = 64
    k: PositiveInt = 250
    k_classifier: PositiveInt = 1000
    epochs: PositiveInt = 200
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 1e-3
    train_images: PositiveInt | None = None  # None: all
    test_images: PositiveInt | None = None

    def validate(self) -> None:
        if self.dataset not in PIXELS:
            raise EffbookError(f"dataset {self.dataset!r} has no size here", f"choose one of {', '.join(PIXELS)}")

    def datasets(self) -> tuple[str, ...]:
        return (self.dataset,)

    def needs(self) -> tuple[str, ...]:
        if self.model == "resnet18":  # 126,000 images of 224 px are 19 GB
            return ("gpu-gib:32", "memory-gib:48")
        return ("cuda",) if self.epochs >= 100 else ()

    def cost(self) -> Cost:
        images = self.train_images or (126_000 if self.dataset == "imagenet100" else 50_000)
        if self.model == "resnet18":  # reported: 228 ms (NOLA) and 1070 ms (PRANC) a batch of 256
            step_s = {"pranc": 1.07, "nola": 0.23}.get(self.method, 0.2)
            return Cost(seconds=self.epochs * images / 256 * step_s, gpu_bytes=30 << 30, disk_bytes=20 << 30)
        if self.needs():
            return Cost(seconds=self.epochs * images / 5_000, gpu_bytes=4 << 30)
        return Cost(seconds=self.epochs * images / (150 if self.method == "pranc" else 250))

    def probe(self) -> dict[str, object]:
        few = {"train_images": min(self.train_images or 256, 256), "test_images": min(self.test_images or 200, 200)}
        return {"epochs": 1, **few}

    def run(self, context: Context) -> Result:
        import torch

        from effbook.data import load_images
        from effbook.evaluate.vision import accuracy, features

        device = torch.device(context.device)
        train, test = load_images(self.dataset, "train"), load_images(self.dataset, "test")
        x, y = picked(train, self.train_images, seed=self.seed)  # uint8: a batch becomes numbers when it is used
        x_test, y_test = picked(test, self.test_images, seed=0)
        x, y = x.to(device), y.to(device)

        model = self.network(len(train.classes)).to(device)
        losses, step_ms = fit(
            context,
            model,
            inputs=x,
            labels=y,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            augment=lambda images, draw: crop_and_flip(standardised(images), draw),
            stage=self.method,
        )
        return Result(
            metrics={
                "accuracy": accuracy(features(model, x_test, transform=standardised), y_test),
                "trainable": trainable(model),
                "step_ms": step_ms,
            },
            series={"train_loss": losses},
        )

    def network(self, classes: int) -> "nn.Module":
        """Return the network with just the method's parameters (and batch norm's) trainable."""
        import torch
        from torch import nn

        from effbook.backbones import resnet18, resnet20
        from effbook.nola import NOLASettings, adapt
        from effbook.nola.pranc import PRANCSettings, adapt_pranc

        build = {"resnet20": resnet20, "resnet18": resnet18}[self.model]
        model = build(classes, seed=self.seed)
        if self.method == "full":
            return model
        with torch.no_grad():
            if model.fc.bias is not None:  # the classifier's bias is no matrix: it stays at zero
                model.fc.bias.zero_().requires_grad_(False)
        convolutions = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
        norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        large = self.model == "resnet18"  # PRANC's basis for it, held, would be 170 GiB
        if self.method == "lora":
            return low_rank(model, [*convolutions, "fc"], rank=self.rank, seed=self.seed)
        for names, k in ((convolutions, self.k), (["fc"], self.k_classifier)):
            if self.method == "nola":
                settings = NOLASettings(k=k, l=k, rank=self.rank, init="scratch", seed=self.seed, regenerate=large)
                model = adapt(model, settings, targets=names, also_train=norms)
            else:
                settings = PRANCSettings(k=2 * k, seed=self.seed, regenerate=large)
                model = adapt_pranc(model, settings, targets=names, also_train=norms)
        return model


def low_rank(model: "nn.Module", layers: list[str], *, rank: int, seed: int) -> "nn.Module":
    """Make each layer's nearly square matrix a trained product A B of rank at most `rank`: LoRA from scratch."""
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    from effbook.nola import near_square

    class Product(nn.Module):
        def __init__(self, shape: torch.Size, draw: torch.Generator) -> None:
            super().__init__()
            rows, cols = near_square(math.prod(shape))
            r = min(rank, rows)  # a larger one would only repeat parameters
            deviation = (2 / math.prod(shape[1:]) / r) ** 0.25  # of A and of B, so that A B varies as Kaiming's weight
            self.a = nn.Parameter(torch.randn(rows, r, generator=draw) * deviation)
            self.b = nn.Parameter(torch.randn(r, cols, generator=draw) * deviation)
            self.shape = shape

        def forward(self, _: "Tensor") -> "Tensor":
            return (self.a @ self.b).view(self.shape)

    draw = torch.Generator().manual_seed(seed)
    for name in layers:
        module = model.get_submodule(name)
        module.weight.requires_grad_(False)
        parametrize.register_parametrization(module, "weight", Product(module.weight.shape, draw))
    return model
