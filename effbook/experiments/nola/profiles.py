"""What each profile changes in the dissertation's NOLA recipes: the one place, readable as a table.

`paper` changes nothing. A value may be a function of the paper recipe, where the scaled one depends on it; `SKIP` in
its place says that the recipe has no run under that profile.
"""

from typing import Any

from effbook.experiments.nola.profiles_language import INSTRUCTION, LANGUAGE
from effbook.experiments.shared.profiles import SKIP, Table, scaled_by
from effbook.runs.profiles import register_profiles

# ------------------------------------------------------------------------------------------------- vision

# No ImageNet ViT is in a package: ViT-S/14 stands in for ViT-B and ViT-L, but not for the self-supervised MAE ones.
SMALL_VIT = {"vit-b": "vit-s14", "vit-l": "vit-s14"}
# CIFAR-10 is itself; MNIST, far from the backbone's photographs, stands in for Aircraft. No others are in a package.
SMALL_IMAGES = {"cifar10": "cifar10", "aircraft": "mnist"}
# From the dissertation's grids. Linear, LoRA and NOLA: the better of 5e-3 and 1e-3 on 300 held-out training images of
# CIFAR-10 at 10 shots, one draw. Full: a middle one, untuned; 8e-5 did no better than 41 % there.
MINI_RATE = {"linear": 5e-3, "lora": 5e-3, "nola": 5e-3, "full": 5e-5, "nearest": 1e-3}
# Its publisher fine-tuned the ViT-S/14 to find salient regions; the last three blocks serve that, and classify worse.
TRUNCATED = {"blocks": 9, "pool": "avg"}


def smaller_k(recipe: Any) -> int:
    """Keep NOLA's count against LoRA's: a third of rank 4 for ViT-B's rows, all or half of rank 1 for ViT-L's."""
    return recipe.k * 3 // 8 if recipe.model == "vit-l" and recipe.method == "nola" else recipe.k // 2


VISION = {
    "smoke": {
        "model": "toy",
        "dataset": "toy-shapes",
        "k": 8,
        "epochs": 2,
        "learning_rates": (1e-3,),
        "test_images": 20,
        "image_px": 28,
        "initialisations": 1,
    },
    "mini": {
        # of ViT-L's rows only those with as many parameters as LoRA r = 1, for the sake of time
        "model": lambda r: SKIP if (r.model, r.k, r.method) == ("vit-l", 512, "nola") else SMALL_VIT.get(r.model, SKIP),
        "dataset": lambda r: SMALL_IMAGES.get(r.dataset, SKIP),
        "k": smaller_k,
        "shots": lambda r: SKIP if (r.dataset, r.shots) == ("aircraft", 10) else r.shots,  # for the sake of time
        "epochs": 12,
        "learning_rates": lambda r: (MINI_RATE[r.method],),
        "test_images": 500,
        "image_px": 84,  # 36 patches
        "precision": "bfloat16",
        **TRUNCATED,
        "initialisations": 1,  # each seed draws its own images
    },
    "lab": {
        "model": lambda r: SMALL_VIT.get(r.model, SKIP),
        "dataset": lambda r: SMALL_IMAGES.get(r.dataset, SKIP),
        "k": smaller_k,
        "image_px": 112,
        **TRUNCATED,
    },
}

# ------------------------------------------------------------------------------------------------- from scratch

SCRATCH_CNN = {
    "smoke": {
        "model": "resnet20",
        "dataset": "toy-shapes",
        "rank": 2,
        "k": 4,
        "k_classifier": 8,
        "epochs": 1,
        "batch_size": 16,
        "train_images": 32,
        "test_images": 20,
    },
    "mini": {
        "model": lambda r: "resnet20" if r.model == "resnet20" else SKIP,  # ImageNet-100 is in no package
        "epochs": 6,  # of 200, on a fiftieth of the images
        "batch_size": 128,
        "learning_rate": lambda r: r.learning_rate * 5,  # far fewer steps
        "train_images": 1000,
        "test_images": 1000,
    },
    "lab": {"model": lambda r: "resnet20" if r.model == "resnet20" else SKIP, "epochs": 100},
}
SCRATCH_MLP = {
    "smoke": {"dataset": "digits", "epochs": 2, "train_images": 512},
    "mini": {"epochs": 10},
    "lab": {},
}
SUBSPACE = {
    "smoke": {"d": 4, "n": lambda r: min(r.n, 8)},
    "mini": {},  # the paper's own protocol takes seconds
    "lab": {},
}

# recipe name -> its table, and the seeds where they aren't the usual ones
TABLE: dict[str, Table] = {
    "nola-vision": VISION,
    "nola-language": LANGUAGE,
    "nola-instruction": INSTRUCTION,
    "nola-scratch-cnn": SCRATCH_CNN,
    "nola-scratch-mlp": SCRATCH_MLP,
    "nola-subspace": SUBSPACE,
}
SEEDS = {"nola-vision": {"paper": tuple(range(12))}}  # four sets of images, three initialisations each

for _name, _table in TABLE.items():
    register_profiles(_name, scaled_by(_table), seeds=SEEDS.get(_name))
