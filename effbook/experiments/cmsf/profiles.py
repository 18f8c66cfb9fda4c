"""What each profile changes in the dissertation's CMSF recipes: the one place, readable as a table.

`paper` changes nothing. Under `mini`, methods without labels, and those of Table 2.6 with few, train a small ResNet
from pixels. Methods with all labels train a small MLP on features of a packaged MobileNet-V2, since from pixels they
learn too slowly here; so do the ablations with few labels, which the dissertation runs on ImageNet-100.
"""

from typing import Any

from effbook.experiments.cmsf.settings import SELF
from effbook.experiments.shared.profiles import SKIP, Table, scaled_by
from effbook.runs.profiles import register_profiles

PIXELS = (*SELF, "none", "cmsf-semi", "paws")  # methods that train from pixels under `mini`
SMALLER = {"resnet18": "small-half", "resnet50": "small", "resnet101": "small-deep", "pixels": "pixels"}
BANKS = {16_128: 256, 128_000: 2_048, 256_000: 4_096, 512_000: 4_096}
NEAR = {500: 64, 1_000: 512}  # neighbours that are too many for a bank of 2048


def smaller_bank(recipe: Any) -> int:
    """A sixtieth, and a multiple of the batch."""
    return BANKS.get(recipe.bank, 2_112)


def from_pixels(recipe: Any) -> bool:
    """Whether a training under `mini` sees images, and not features of them."""
    return recipe.method in PIXELS and not (recipe.method == "cmsf-semi" and recipe.dataset == "imagenet100")


def by_input(pixels: Any, features: Any) -> Any:
    """One value for trainings from pixels, another for those on features."""
    return lambda recipe: pixels if from_pixels(recipe) else features


def seen_as(recipe: Any) -> Any:
    """Features are those of strong views: a row that differs from another in its augmentation alone has no run."""
    if from_pixels(recipe):
        return recipe.augmentation
    return SKIP if recipe.augmentation == "strong" else "strong"


TRAINING = {
    "smoke": {
        "dataset": "toy-shapes",
        "train_images": 96,
        "image_px": 28,
        "encoder": lambda r: "pixels" if r.encoder == "pixels" else "small-half",
        "k": lambda r: r.k and min(r.k, 4),
        "k_prime": lambda r: r.k_prime and min(r.k_prime, 8),
        "bank": 48,
        "epochs": 2,
        "batch_size": 16,
        "warmup_epochs": lambda r: min(r.warmup_epochs, 1),
        "labelled": lambda r: 1.0 if r.labelled == 1 else 0.25,
        "crops": lambda r: min(r.crops, 1),
        "crop_px": 16,
        "support": 10,
    },
    "mini": {
        "dataset": "cifar10",
        "train_images": by_input(10_000, 6_000),
        "image_px": 32,
        "view_px": by_input(24, None),  # boxes of 60 % of the image, on average: what they show is as large as it is
        "encoder": lambda r: SMALLER[r.encoder] if from_pixels(r) else "mlp",
        "features_of": by_input("", "mobilenet-v2"),
        "k": lambda r: NEAR.get(r.k, r.k),
        "bank": smaller_bank,
        "augmentation": seen_as,
        "epochs": lambda r: 6 if from_pixels(r) else max(1, r.epochs // 10),
        "batch_size": lambda r: 192 if r.batch_size == 768 else 64 if from_pixels(r) else 128,
        # short trainings want larger steps and a target that follows sooner: tried on held-out images
        "learning_rate": lambda r: 2 * r.learning_rate,
        "momentum": lambda r: 0.97 if from_pixels(r) else r.momentum,
        "weight_decay": by_input(5e-4, 1e-4),
        "warmup_epochs": lambda r: min(r.warmup_epochs, 1),
        "crops": lambda r: min(r.crops, 2),
        "crop_px": 16,
        "crop_scale": (0.1, 0.4),
        "support": 80,
    },
    "lab": {
        "dataset": "cifar10",
        "image_px": 32,
        "encoder": lambda r: "pixels" if r.encoder == "pixels" else "resnet18",
        "bank": lambda r: {16_128: 2_048, 256_000: 32_768, 512_000: 49_152}.get(r.bank, 16_896),
        "epochs": lambda r: r.epochs // 2,
        "weight_decay": 5e-4,
        "precision": "bfloat16",
        "crop_px": 16,
        "crop_scale": (0.1, 0.4),
    },
}
EVALUATION = {
    "smoke": TRAINING["smoke"] | {"test_images": 40},
    "mini": TRAINING["mini"] | {"test_images": 5_000},
    "lab": TRAINING["lab"],
}


def _with(**changes: dict[str, Any]) -> Table:
    """The table of evaluations with more changes a profile."""
    return {profile: of | changes.get(profile, {}) for profile, of in EVALUATION.items()}


# Of the ten data sets CIFAR-10 alone is in a package, and there the networks were trained. These stand in for all ten.
PACKAGED = ("mnist", "fashion-mnist", "digits")
SINGLE = {"target": lambda r: r.target if r.target in PACKAGED else SKIP}
FEW = {"trials": 8, "iterations": (1, 5), "target_images": 1_500}
TABLE: dict[str, Table] = {
    "cmsf-train": TRAINING,
    "cmsf-overhead": {
        "smoke": TRAINING["smoke"] | {"steps": 2},
        "mini": TRAINING["mini"] | {"train_images": 2_048},
        "lab": TRAINING["lab"],
    },
    "cmsf-nearest": EVALUATION,
    "cmsf-linear": _with(smoke={"share": lambda r: max(r.share, 0.2)}),  # a class has ten images there
    "cmsf-finetune": _with(
        smoke={"tuning_epochs": 2, "tuning_batch": 16, "share": 0.2},
        mini={"tuning_epochs": 10, "tuning_batch": 64},
    ),
    "cmsf-transfer": _with(
        smoke={"target": "digits", "trials": 2, "iterations": (1, 5), "target_images": 300},
        mini=SINGLE | FEW,
        lab=SINGLE,
    ),
    "cmsf-transfer-mean": _with(
        smoke={"targets": ("digits",), "trials": 2, "iterations": (1, 5), "target_images": 300},
        mini={"targets": PACKAGED} | FEW,
        lab={"targets": PACKAGED},
    ),
}

# The cross-modal table has no videos but under `paper`: the parts of an image stand in, as `modalities` says.
STAND_IN = {"modalities": "luminance-colour"}
MODAL: dict[str, dict[str, Any]] = {
    "smoke": STAND_IN
    | {
        "dataset": "toy-shapes",
        "train_images": 96,
        "image_px": 20,
        "encoder": "small-half",
        "k": 3,
        "k_prime": 6,
        "bank": 48,
        "infonce_epochs": 2,
        "msf_epochs": 1,
        "epochs": 1,
        "batch_size": 16,
    },
    "mini": STAND_IN
    | {
        "dataset": "cifar10",
        "train_images": 4_500,
        "image_px": 24,
        "encoder": "small",
        "bank": 2_048,
        "infonce_epochs": 8,
        "msf_epochs": 4,
        "epochs": 4,
        "batch_size": 64,
    },
    "lab": STAND_IN
    | {
        "dataset": "cifar10",
        "image_px": 32,
        "encoder": "resnet18",
        "infonce_epochs": 200,
        "msf_epochs": 100,
        "epochs": 50,
    },
}
TABLE |= {
    "cmsf-modal-train": MODAL,
    "cmsf-modal": MODAL
    | {"smoke": MODAL["smoke"] | {"test_images": 40}, "mini": MODAL["mini"] | {"test_images": 5_000}},
}

for _name, _table in TABLE.items():
    register_profiles(_name, scaled_by(_table))
