"""What each profile changes in the dissertation's CompGS recipes: the one place, readable as a table.

`mini` trains small scenes in place of large ones (STAND_INS) and scales the rest by three numbers. All iterations are
divided by 10. All codebooks are divided by 64. The number of Gaussians is capped at 5,000, a 660th of Mip-NeRF360's
mean, about one for each pixel of an image (there it is two and a half); so the opacity penalty, a sum over Gaussians
beside a mean over pixels, is multiplied by 660. Of a still life's 64 training views every third is used: with few
views, as with photographs, the error on held-out views is one of generalising. With all 64 it is one of too few
Gaussians, and removing half of them costs 0.5 dB or more (in trials on `metals`, not recorded).

Where the question is how many codes a kind of value needs (Figures 3.4 and B.1), codebooks keep their size: that number
does not fall with the number of Gaussians.

`lab` trains the still lifes at 800 x 800 pixels, with all iterations and codebooks; Gaussians are capped at an eleventh
of Mip-NeRF360's mean, and the penalty is multiplied by 11.
"""

from collections.abc import Callable
from typing import Any

from effbook.experiments.compgs.scene import ITERATIONS
from effbook.experiments.shared.profiles import SKIP, scaled_by
from effbook.runs.profiles import register_profiles

# Data set and scene of the text -> those that stand in for it. Deep Blending, DL3DV and ARKit have no stand-in.
STAND_INS = {
    ("mip-nerf360", "all"): ("still-lifes", "all"),
    ("mip-nerf360", "counter"): ("still-lifes", "metals"),
    ("mip-nerf360", "garden"): ("still-lifes", "plastics"),
    ("mip-nerf360", "bonsai"): ("still-lifes", "cage"),
    ("nerf-synthetic", "all"): ("still-lifes", "all"),
    ("nerf-synthetic", "materials"): ("still-lifes", "metals"),
    ("nerf-synthetic", "chair"): ("still-lifes", "plastics"),
    ("nerf-synthetic", "lego"): ("still-lifes", "cage"),
    ("tanks-and-temples", "all"): ("fox", "all"),
    ("tanks-and-temples", "train"): ("still-lifes", "metals"),
    ("tanks-and-temples", "truck"): ("fox", "all"),
}
# What Tables 3.3, 3.8 and B.6 to B.9 try in other settings than the text settles on, which are the recipe's defaults.
TRIED = (
    "least_opacity",
    "densify_interval",
    "densify_end",
    "gradient_threshold",
    "kmeans_iterations",
    "kmeans_interval",
)


def divided(field: str, by: int) -> Callable[[Any], int]:
    """The field's value in the dissertation, divided; at least 1."""
    return lambda recipe: max(1, getattr(recipe, field) // by)


def _unusual(recipe: Any) -> bool:
    """Settings that the text tries and does not settle on."""
    changed = any(getattr(recipe, name) != getattr(type(recipe), name) for name in TRIED)
    return changed or recipe.codes_covariance == 8192


def own_dataset(recipe: Any) -> object:
    """The data set that stands in.

    3DGS's own thresholds and intervals have no run here: they act on how many Gaussians are made, and the cap decides
    that. K-means with other iterations, intervals and sizes (Table 3.8) is left out for the sake of time.
    """
    return SKIP if _unusual(recipe) else STAND_INS.get((recipe.dataset, recipe.scene), (SKIP, ""))[0]


def own_scene(recipe: Any) -> str:
    """The scene that stands in."""
    return STAND_INS.get((recipe.dataset, recipe.scene), ("", recipe.scene))[1]


def for_fox(fox: int, others: int) -> Callable[[Any], int]:
    """One value for the photographs and another for the still lifes."""
    return lambda recipe: fox if own_dataset(recipe) == "fox" else others


def scaled_codes(field: str) -> Callable[[Any], int]:
    """A 64th of the codes, but all of them where their number is the question."""
    return lambda recipe: getattr(recipe, field) // (1 if recipe.name == "compgs-codes" else 64)


MINI: dict[str, Any] = {
    "dataset": own_dataset,
    "scene": own_scene,
    "shrink": for_fox(16, 2),  # 1080 x 1920 to 67 x 120 pixels, 128 to 64 pixels a side, by averaging
    "every_nth_view": for_fox(1, 3),
    "points": 2000,
    "most_gaussians": 5_000,
    **{field: divided(field, 10) for field in ITERATIONS},
    "codes_colour": scaled_codes("codes_colour"),
    "codes_covariance": scaled_codes("codes_covariance"),
    "penalty": lambda recipe: round(recipe.penalty * 660, 12),
}
TABLE: dict[str, dict[str, Any]] = {
    "smoke": MINI
    | {
        "dataset": lambda recipe: SKIP if own_dataset(recipe) is SKIP else "toy",
        "scene": "all",
        "shrink": 1,
        "every_nth_view": 1,
        "points": 300,
        "most_gaussians": 400,
        **{field: divided(field, 1000) for field in ITERATIONS},
        "codes_colour": 8,
        "codes_covariance": 16,
    },
    "mini": MINI,
    "lab": {
        "dataset": lambda recipe: {"still-lifes": "still-lifes-800"}.get(found := own_dataset(recipe), found),
        "scene": own_scene,
        "shrink": for_fox(2, 1),
        "most_gaussians": 300_000,
        "penalty": lambda recipe: round(recipe.penalty * 11, 12),
    },
}


def also(**more: Any) -> dict[str, dict[str, Any]]:
    """TABLE with more changes under each of its profiles."""
    return {profile: changes | more for profile, changes in TABLE.items()}


for _name in ("compgs-scene", "compgs-codes"):
    register_profiles(_name, scaled_by(TABLE))
register_profiles("compgs-shared", scaled_by(also(source="metals")))
register_profiles(
    "compgs-spread",
    scaled_by(also(runs=3)),  # in place of 20
    seeds=dict.fromkeys(("mini", "lab", "paper"), (0,)),
)
