"""Few-shot image classification with a pre-trained vision transformer (3.2.4.4, Tables 3.15, 3.16, B.12).

Six ways to use the same backbone: nearest neighbour, a linear head, full fine-tuning, LoRA, NOLA in the MLP blocks
and NOLA in the attention blocks. Every method but the first trains a linear head, which is not counted.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.nola.training import fit, trainable
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

METHODS = ("nearest", "linear", "full", "lora", "nola")
TARGETS = {"qv": r".*attn\.qkv\.(q|v)", "mlp": r".*mlp\.(fc1|fc2)"}
WEIGHTS = {"vit-s14": "vit-s14", "toy": None}  # other models: the manifest of the same name


@register_recipe
@dataclass(frozen=True, kw_only=True)
class VisionRecipe(Recipe):
    """Fine-tune on `shots` images a class; the defaults are the dissertation's protocol for ViT-B.

    `seed` counts runs: seed // initialisations picks the training images, the seed itself the initialisation.
    Where `learning_rates` holds more than one, the best on `validation_images` held-out training images is taken.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-vision"

    model: str = "vit-b"
    dataset: str = "cifar10"
    shots: PositiveInt = 5
    method: str = "nola"
    target: str = "mlp"  # where LoRA and NOLA work: qv or mlp
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
        if self.method not in METHODS:
            raise EffbookError(f"method {self.method!r} is unknown", f"choose one of {', '.join(METHODS)}")
        if self.target not in TARGETS:
            raise EffbookError(f"target {self.target!r} is unknown", f"choose one of {', '.join(TARGETS)}")
        if not self.learning_rates:
            raise EffbookError("learning_rates is empty", "give at least one rate")

    def datasets(self) -> tuple[str, ...]:
        weights = WEIGHTS.get(self.model, self.model)
        return (self.dataset,) if weights is None else (self.dataset, weights)

    def needs(self) -> tuple[str, ...]:
        return ("cuda",) if self.model.startswith("vit-") and self.model != "vit-s14" else ()

    def group(self) -> int:
        """The set of training images, which the initialisations drawn for it share."""
        return self.seed // self.initialisations

    def cost(self) -> Cost:
        if self.model == "toy":
            return Cost(seconds=1)
        if self.model == "vit-s14":  # about 15 trained images a second at 112 px on two cores
            images = 10 * self.shots * self.epochs * len(self.learning_rates) if self.method in METHODS[2:] else 0
            size = (self.image_px / 112) ** 2 * (self.blocks or 12) / 12
            return Cost(seconds=size * (images / 15 + (self.test_images or 10_000) / 60))
        return Cost(seconds=20 * 60 * len(self.learning_rates), gpu_bytes=12 << 30)

    def run(self, context: Context) -> Result:
        import torch

        from effbook.backbones import normalisation
        from effbook.data import load_images
        from effbook.evaluate.vision import accuracy, features, nearest_neighbour

        device = torch.device(context.device)
        train, test = load_images(self.dataset, "train"), load_images(self.dataset, "test")
        picked, held_out = few_shot(
            train.labels, shots=self.shots, validation=self.validation_images, seed=self.group()
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
        import torch

        from effbook.backbones import pretrained, toy_vit, vit_s14
        from effbook.nola import split_fused

        if self.model == "toy":
            model = toy_vit(image_px=self.image_px)
        elif self.model == "vit-s14":
            model = vit_s14(image_px=self.image_px)
        else:
            model = pretrained(self.model, image_px=self.image_px)
        model.blocks = model.blocks[: self.blocks]
        model.global_pool = self.pool
        model = split_fused(model, targets=r".*attn\.qkv")
        if self.precision == "bfloat16":
            device = "cuda" if torch.cuda.is_available() else "cpu"
            rounded = torch.autocast(device, torch.bfloat16)(model.forward)
            model.forward = lambda x: rounded(x).float()
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
            return adapt(model, settings, targets=TARGETS[self.target])
        if self.method == "lora":
            from peft import LoraConfig, get_peft_model

            with torch.random.fork_rng():  # peft draws its start from the global generator
                torch.manual_seed(self.seed)
                config = LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=TARGETS[self.target])
                return get_peft_model(model, config).base_model.model
        return model

    def train(self, context: Context, x: "Tensor", y: "Tensor", classes: int, rate: float, tuned: dict, stage: str):
        """Return the trained network, each epoch's loss and the median milliseconds of a step."""
        import torch
        from torch import nn

        from effbook.evaluate.vision import features

        body = self.adapted_backbone().to(x.device)
        head = nn.Linear(body.num_features, classes, device=x.device)
        with torch.no_grad():
            head.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(self.seed))
            head.bias.zero_()
        model = nn.Sequential(body, head)
        if self.method == "linear":  # the backbone never changes: each image passes it once
            learner, x = head, features(body.eval(), x).to(head.weight.device)
        else:
            learner = model
        optimiser = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=rate)
        steps = self.epochs * -(-len(x) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps, eta_min=min(1e-6, rate))
        losses, step_ms = fit(
            context,
            learner,
            optimiser,
            inputs=x,
            labels=y,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            schedule=schedule,
            label_smoothing=0.1,  # as in the released code
            stage=stage,
            remember={"tuned": tuned},
        )
        return model.eval(), losses, step_ms


def prepared(images: "Tensor", *, size_px: int, mean: tuple, deviation: tuple) -> "Tensor":
    """Return normalised images [N, 3, size_px, size_px] from uint8 [N, H, W] or [N, H, W, 3]."""
    import torch.nn.functional as F

    x = images.float() / 255
    x = x[..., None].expand(-1, -1, -1, 3) if x.ndim == 3 else x
    x = F.interpolate(x.permute(0, 3, 1, 2), size=(size_px, size_px), mode="bicubic", antialias=True).clamp(0, 1)
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(deviation)[:, None, None]


def few_shot(labels: "np.ndarray", *, shots: int, validation: int, seed: int) -> "tuple[np.ndarray, np.ndarray]":
    """Return the indices of `shots` images of each class and of `validation` others, drawn without replacement."""
    import numpy as np

    draw = np.random.default_rng([seed, 20_24])
    order = draw.permutation(len(labels))
    picked = np.concatenate([order[labels[order] == c][:shots] for c in np.unique(labels)])
    rest = order[~np.isin(order, picked)]
    return picked, rest[:validation]


def subset(count: int, wanted: int | None) -> "np.ndarray":
    """Return the indices of the test images: all, or `wanted` drawn once and for all runs."""
    import numpy as np

    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))
