"""Few-shot image classification with a pre-trained vision transformer (3.2.4.4, Tables 3.15, 3.16, B.12).

Six ways to use the same backbone: nearest neighbour, a linear head, full fine-tuning, LoRA, NOLA in the MLP blocks
and NOLA in the attention blocks. Every method but the first trains a linear head, which is not counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.nola.targets import layers_of, split
from effbook.experiments.shared.draws import at_most, few_shot, subset
from effbook.experiments.shared.images import prepared
from effbook.experiments.shared.training import fit, trainable
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINED = ("full", "lora", "nola")  # methods that change the backbone


@register_recipe
@dataclass(frozen=True, kw_only=True)
class VisionRecipe(Recipe):
    """Fine-tune on `shots` images a class; the defaults are the dissertation's protocol for ViT-B.

    `seed` counts runs: seed // initialisations picks the training images, the seed itself the initialisation.
    Where `learning_rates` holds more than one, the best on `validation_images` held-out training images is taken.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-vision"
    varying: ClassVar[tuple[str, ...]] = ("step_ms",)

    model: str = "vit-b"
    dataset: str = "cifar10"
    shots: PositiveInt = 5
    method: Literal["nearest", "linear", "full", "lora", "nola"] = "nola"
    target: Literal["qv", "mlp"] = "mlp"  # where LoRA and NOLA work
    rank: PositiveInt = 4
    k: PositiveInt = 1024  # = l
    epochs: PositiveInt = 50
    batch_size: PositiveInt = 64
    learning_rates: tuple[PositiveFloat, ...] = (5e-3, 1e-3, 5e-4)
    validation_images: NonNegativeInt = 500
    test_images: PositiveInt | None = None  # None: the whole test split
    image_px: PositiveInt = 224
    blocks: PositiveInt | None = None  # use the first so many transformer blocks; None: all
    pool: Literal["token", "avg"] = "token"  # features: the class token, or the mean of the patches
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # of the backbone's arithmetic (autocast); weights stay float32
    )
    initialisations: PositiveInt = 3

    def validate(self) -> None:
        if not self.learning_rates:
            raise EffbookError("learning_rates is empty", "give at least one rate")

    def datasets(self) -> tuple[str, ...]:
        return (self.dataset,) if self.model == "toy" else (self.dataset, self.model)

    def needs(self) -> tuple[str, ...]:
        return ("cuda",) if self.model.startswith("vit-") and self.model != "vit-s14" else ()

    def group(self) -> int:
        """The set of training images, which the initialisations drawn for it share."""
        return self.seed // self.initialisations

    def cost(self) -> Cost:
        if self.model == "toy":
            return Cost(seconds=1)
        if self.model == "vit-s14":  # about 15 trained images a second at 112 px on two cores
            images = 10 * self.shots * self.epochs * len(self.learning_rates) if self.method in TRAINED else 0
            size = (self.image_px / 112) ** 2 * (self.blocks or 12) / 12
            return Cost(seconds=size * (images / 15 + (self.test_images or 10_000) / 60))
        return Cost(seconds=20 * 60 * len(self.learning_rates), gpu_bytes=12 << 30)

    def probe(self) -> dict[str, object]:
        return {"shots": 1, "epochs": min(self.epochs, 2), "test_images": min(self.test_images or 24, 24)}

    def run(self, context: Context) -> Result:
        import torch

        from effbook.backbones import normalisation
        from effbook.data import load_images
        from effbook.evaluate.vision import accuracy, features, nearest_neighbour

        device = torch.device(context.device)
        train, test = load_images(self.dataset, "train"), load_images(self.dataset, "test")
        picked, held_out = few_shot(
            train.labels,
            shots=self.shots,
            validation=self.validation_images if len(self.learning_rates) > 1 else 0,
            seed=self.group(),
        )
        tested = subset(len(test.labels), self.test_images)
        backbone = self.backbone()
        mean, deviation = normalisation(backbone)
        transform = partial(prepared, size_px=self.image_px, mean=mean, deviation=deviation)
        x = transform(torch.from_numpy(train.images[picked])).to(device)  # [N, 3, H, W]
        y = torch.from_numpy(train.labels[picked]).to(device)
        x_test, y_test = torch.from_numpy(test.images[tested]), torch.from_numpy(test.labels[tested])  # on the CPU

        if self.method == "nearest":
            backbone = backbone.to(device).eval()
            f, f_test = features(backbone, x), features(backbone, x_test, transform=transform)  # [N, D], [T, D]
            return Result(metrics={"accuracy": nearest_neighbour(f, y.cpu(), f_test, y_test), "trainable": 0})

        classes, rate = len(train.classes), self.learning_rates[0]
        saved = context.resume()
        tuned = saved[2]["tuned"] if saved else {}  # learning rate -> validation accuracy
        if len(self.learning_rates) > 1:
            x_held, y_held = torch.from_numpy(train.images[held_out]), torch.from_numpy(train.labels[held_out])
            for candidate in (c for c in self.learning_rates if str(c) not in tuned):
                model, _, _ = self.train(context, x, y, classes, candidate, tuned, f"tune {candidate}")
                tuned[str(candidate)] = accuracy(features(model, x_held, transform=transform), y_held)
            rate = float(max(tuned, key=tuned.get))
        model, losses, step_ms = self.train(context, x, y, classes, rate, tuned, "train")
        return Result(
            metrics={
                "accuracy": accuracy(features(model, x_test, transform=transform), y_test),
                "trainable": trainable(model[0]),
                "learning_rate": rate,
                "step_ms": step_ms,
                **{f"validation_accuracy_{rate}": value for rate, value in tuned.items()},
            },
            series={"train_loss": losses},
        )

    def backbone(self) -> "nn.Module":
        """Return the pre-trained backbone, separate projections for Q, K and V, features [B, D]."""
        from effbook.backbones import pretrained, toy_vit

        network = toy_vit if self.model == "toy" else partial(pretrained, self.model)
        model = network(image_px=self.image_px)
        model.blocks = model.blocks[: at_most(self.blocks or len(model.blocks), len(model.blocks), "blocks")]
        model.global_pool = self.pool
        model = split(model, "vit")
        if self.precision == "bfloat16":
            model.forward = partial(rounded, model.forward)
        return model

    def adapted_backbone(self) -> "nn.Module":
        """Return the backbone with just the method's parameters trainable."""
        import torch

        from effbook.nola import NOLASettings, adapt

        model = self.backbone()
        if self.method == "full":
            return model.requires_grad_(True)
        model.requires_grad_(False)
        if self.method == "nola":
            # the released code's initialisation for vision: kaiming basis, the same in every layer, scale 1 / r
            settings = NOLASettings(
                k=self.k, l=self.k, rank=self.rank, init="vision", seed=self.seed, shared_basis=True
            )
            return adapt(model, settings, targets=layers_of("vit", self.target))
        if self.method == "lora":
            from peft import LoraConfig, get_peft_model

            with torch.random.fork_rng():  # peft draws its start from the global generator
                torch.manual_seed(self.seed)
                config = LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=layers_of("vit", self.target))
                return get_peft_model(model, config).base_model.model
        return model

    def train(self, context: Context, x: "Tensor", y: "Tensor", classes: int, rate: float, tuned: dict, stage: str):
        """Return the trained network, each epoch's loss and the median milliseconds of a step."""
        import torch
        from torch import nn

        from effbook.evaluate.vision import features

        body = self.adapted_backbone().to(x.device)
        head = nn.utils.skip_init(nn.Linear, body.num_features, classes)
        with torch.no_grad():
            head.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(self.seed))
            head.bias.zero_()
        head = head.to(x.device)  # the seed's numbers are the CPU's on every device
        model = nn.Sequential(body, head)
        learner = model
        if self.method == "linear":  # the backbone never changes: each image passes it once
            learner, x = head, features(body.eval(), x).to(x.device)
        losses, step_ms = fit(
            context,
            learner,
            inputs=x,
            labels=y,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=rate,
            seed=self.seed,
            decay="cosine",
            final_rate=min(1e-6, rate),
            label_smoothing=0.1,  # as in the released code
            stage=stage,
            remember={"tuned": tuned},
        )
        return model.eval(), losses, step_ms


def rounded(forward: "Callable[[Tensor], Tensor]", x: "Tensor") -> "Tensor":
    """What `forward` gives with its matrix products in bfloat16, as float32."""
    import torch

    with torch.autocast(x.device.type, torch.bfloat16):
        y = forward(x)
    return y.float()
