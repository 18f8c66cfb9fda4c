"""What each profile changes in the dissertation's SimReg recipes: the one place, readable as a table.

`paper` changes nothing. Elsewhere the teachers are networks of this book: MSF, BYOL and CMSF_self of the CMSF chapter
for MoCo-v2, BYOL and SwAV, each trained under the same profile; and packaged ones for the larger and the supervised.
"""

from typing import Any

from effbook.experiments.shared.profiles import SKIP, Table, scaled_by
from effbook.experiments.simreg.settings import OWN, own_trainings
from effbook.runs.profiles import register_profiles

STAND_INS = {
    "moco-v2": "own-msf",
    "byol": "own-byol",
    "swav": "own-cmsf",
    "simclr-x4": "vit-s14",
    "supervised": "mobilenet-v2",
}
SMALLER = {"resnet18": "small-half", "mobilenet-v2": "small-wide", "resnet50": "small"}
EPOCHS = 6  # under `mini`
PACKAGED = ("mnist", "fashion-mnist", "digits")  # for the ten data sets: CIFAR-10, the only one here, is trained on


def stand_ins(recipe: Any) -> tuple[str, ...]:
    return tuple(STAND_INS[name] for name in recipe.teachers)


def own_networks(recipe: Any) -> tuple[str, ...]:
    """Under `smoke` all teachers are the CMSF chapter's, so that nothing is fetched."""
    return tuple(name if name in OWN else "own-byol" for name in stand_ins(recipe))


def taught_at(profile: str) -> Any:
    """The profile that trains the teachers, where one of them is the CMSF chapter's."""
    return lambda recipe: profile if any(name in OWN for name in stand_ins(recipe)) else ""


def taught_as(profile: str, names: Any = stand_ins) -> Any:
    """The keys of the trainings of these teachers."""
    return lambda recipe: tuple(one.key for one in own_trainings(names(recipe), profile).values())


DISTILLATION = {
    "smoke": {
        "dataset": "toy-shapes",
        "train_images": 96,
        "image_px": 28,
        "teachers": own_networks,
        "taught_at": "smoke",
        "taught_as": taught_as("smoke", own_networks),
        "student": lambda r: "small" if r.student == "resnet50" else "small-half",
        "queue": 48,
        "cached": False,
        "epochs": 2,
        "batch_size": 16,
    },
    "mini": {
        "dataset": "cifar10",
        "train_images": 10_000,
        "image_px": 32,
        "view_px": 24,
        "teachers": stand_ins,
        "taught_at": taught_at("mini"),
        "taught_as": taught_as("mini"),
        "student": lambda r: SMALLER[r.student],
        "queue": 2_048,
        "cached": lambda r: r.cached or (r.same and r.teacher_view == "weak"),
        # one where the dissertation caches, too; else as many as epochs, which is what a teacher would be asked anew,
        # but two of a packaged one: it takes long
        "views": lambda r: r.views if r.cached else EPOCHS if set(stand_ins(r)) <= set(OWN) else 2,
        "epochs": EPOCHS,
        "batch_size": 64,
        # CompRess begins at .01 and has a slow student's momentum of .999: tried on held-out images
        "learning_rate": 0.05,
        "schedule": "cosine",
        "momentum": 0.99,
    },
    "lab": {
        "dataset": "cifar10",
        "image_px": 32,
        "teachers": stand_ins,
        "taught_at": taught_at("lab"),
        "taught_as": taught_as("lab"),
        "queue": 16_384,
        "cached": False,
        "epochs": 130,
        "weight_decay": 5e-4,
        "precision": "bfloat16",
    },
}


def _smaller(recipe: Any) -> Any:
    """A student a size smaller; none for the pair that Table 2.9 has a dash for."""
    dash = recipe.student == "resnet50" and recipe.objective in ("regress", "regress-bn")
    return SKIP if dash else SMALLER[recipe.student]


EVALUATION = {
    "smoke": DISTILLATION["smoke"] | {"test_images": 40},
    "mini": DISTILLATION["mini"] | {"test_images": 5_000, "student": _smaller},
    "lab": DISTILLATION["lab"],
}


def _with(**changes: dict[str, Any]) -> Table:
    """The table of evaluations with more changes a profile."""
    return {profile: of | changes.get(profile, {}) for profile, of in EVALUATION.items()}


DETECTION = {
    "smoke": {
        "pictures": "canvases",
        "canvases": 8,
        "canvas_px": 64,
        "steps": 3,
        "detector_batch": 2,
        "anchors_px": (24, 36, 48),
        "regions": 16,
        "region_cells": 4,
        "proposals": 40,
    },
    "mini": {
        "pictures": "canvases",
        "canvases": 400,
        "steps": 400,
        "detector_batch": 8,
        "anchors_px": (24, 36, 48),
        "regions": 64,
        "region_cells": 6,
        "proposals": 200,
    },
    "lab": {
        "pictures": "canvases",
        "canvases": 5_000,
        "steps": 6_000,
        "anchors_px": (24, 36, 48),
        "regions": 128,
        "region_cells": 8,
    },
}
SINGLE = {"target": lambda r: r.target if r.target in PACKAGED else SKIP}
FEW = {"grid": (3, 2), "iterations": 3, "target_images": 1_500}
FEWEST = {"grid": (1, 2), "iterations": 2, "target_images": 300}
TABLE: dict[str, Table] = {
    "simreg-distill": DISTILLATION,
    "simreg-nearest": EVALUATION,
    "simreg-linear": EVALUATION,
    "simreg-distance": EVALUATION,
    "simreg-detection": {name: DISTILLATION[name] | changes for name, changes in DETECTION.items()},
    "simreg-transfer": _with(smoke={"target": "digits"} | FEWEST, mini=SINGLE | FEW, lab=SINGLE),
    "simreg-transfer-mean": _with(
        smoke={"targets": ("digits",)} | FEWEST, mini={"targets": PACKAGED} | FEW, lab={"targets": PACKAGED}
    ),
}

for _name, _table in TABLE.items():
    register_profiles(_name, scaled_by(_table))
