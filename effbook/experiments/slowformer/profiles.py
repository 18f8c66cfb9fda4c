"""What each profile changes in the dissertation's SlowFormer recipes: the one place, readable as a table.

`paper` only chooses among the losses where a row leaves it open. Elsewhere the victims are made here, of one ViT for
all of the dissertation's architectures, so that rows which differ in nothing else are one run; a patch has the
dissertation's share of the image.
"""

from collections.abc import Callable
from typing import Any

from effbook.experiments.shared.profiles import Table, scaled_by
from effbook.runs.profiles import register_profiles

# ------------------------------------------------------------------------------------------- the numbers of `mini`
# Chosen on held-out training images, one setting for all seeds.

MINI_PX = 84  # 36 tokens
TRAIN_IMAGES, TEST_IMAGES = 10_240, 500
HEAD = {"trained": "head", "train_steps": 0, "head_images": 2_560, "ridge": 100.0, "pool": "avg"}
GATES = HEAD | {"trained": "gates", "train_steps": 60, "train_batch": 16, "train_noise": False}
GATES |= {"head_images": 0, "last_head_images": 2_560}
VICTIMS: dict[str, dict[str, Any]] = {
    "avit": GATES
    | {"gate": "linear", "readout": "last", "gate_rate": 5e-4, "shift_rate": 3e-2, "target_depth": 8.3}
    | {"two_sided": True},
    "ats": HEAD,
    "adavit": GATES
    | {"head_images": 640, "gate_rate": 5e-3, "usage_weight": 20.0, "decision_start": 1.0}
    | {"patch_target": 0.8, "head_target": 0.85, "block_target": 0.95},
    "dense": HEAD,
}  # fmt: skip
EXTREME_DEPTH = 1.5  # of Table 4.2's A-ViT
ATTACKS: dict[str, dict[str, Any]] = {
    "avit": {"loss": "surrogate", "learning_rate": 1.6},
    "ats": {"loss": "surrogate", "learning_rate": 1.6},
    "adavit": {"loss": "surrogate", "learning_rate": 1.6},
}
STEPS, BATCH, TARGETS, TASK_WEIGHT = 50, 16, 2, 0.1
SHORT_STEPS, SHORT_RATE = 20, 1.6  # of the patches that the defence makes on the way
STARTS = 3
DEFENCE = {"defence_images": 2_560, "defence_batch": 16, "defence_rate": 2e-5, "patches_per_epoch": 5}

# ------------------------------------------------------------------------------------------------------------ tables

PAPER_LOSS = {"avit": "released", "ats": "text", "adavit": "text"}  # where a row does not say
OPEN = ("gate", "readout", "first_shift", "decision_start", "tau", "patch_threshold", "samples", "pool")
OPEN += ("patch_target", "head_target", "block_target", "trained", "train_steps", "train_batch", "vit_rate")
OPEN += ("gate_rate", "shift_rate", "two_sided", "budget_weight", "ramp", "train_noise", "usage_weight")
OPEN += ("erasing", "head_images", "last_head_images", "ridge")


def by_victim(table: dict[str, dict[str, Any]], name: str) -> Callable[[Any], Any]:
    """A field as the table has it for the recipe's victim; untouched where it has none."""
    return lambda recipe: table[recipe.victim].get(name, getattr(recipe, name))


def depth(table: dict[str, dict[str, Any]], extreme: float) -> Callable[[Any], Any]:
    """The depth that A-ViT is trained to."""
    return lambda recipe: extreme if recipe.extreme else table[recipe.victim].get("target_depth")


def victims(table: dict[str, dict[str, Any]], *, extreme: float, px: int, architecture: str, dataset: str) -> dict:
    """The fields of a victim under a profile that makes its own."""
    made = {name: by_victim(table, name) for name in OPEN}
    made |= {"weights": "trained", "architecture": architecture, "dataset": dataset, "image_px": px}
    return made | {"target_depth": depth(table, extreme), "patch_px": lambda r: round(r.patch_px * px / 224)}


def loss(table: dict[str, dict[str, Any]]) -> Callable[[Any], Any]:
    """The profile's loss where the row leaves it open."""
    return lambda recipe: table[recipe.victim]["loss"] if recipe.loss == "default" else recipe.loss


def is_short(recipe: Any) -> bool:
    """Whether the recipe is the defence's short attack (4.1.4)."""
    return recipe.steps is not None


TOY: dict[str, dict[str, Any]] = {
    name: {"gate": "linear", "first_shift": 4.7, "decision_start": 0.0, "trained": "all", "train_steps": 3}
    | {"train_batch": 8, "head_images": 96, "ridge": 1.0, "vit_rate": 1e-5, "gate_rate": 0.1, "shift_rate": 0.01}
    for name in ("avit", "ats", "adavit", "dense")
}  # fmt: skip
LARGE: dict[str, dict[str, Any]] = {
    name: VICTIMS[name]
    | {"trained": "all", "train_steps": 3_000, "train_batch": 64, "head_images": 5_120, "vit_rate": 4e-5}
    | {"last_head_images": 0}
    for name in ("avit", "ats", "adavit", "dense")
}
LAB_PX = 196  # 196 tokens of 14 px, as many as the dissertation's images have
SMOKE_VICTIM = victims(TOY, extreme=2.0, px=28, architecture="toy", dataset="toy-shapes") | {"train_images": 96}
MINI_VICTIM = victims(VICTIMS, extreme=EXTREME_DEPTH, px=MINI_PX, architecture="vit-s14", dataset="cifar10")
MINI_VICTIM |= {"train_images": TRAIN_IMAGES}
LAB_VICTIM = victims(LARGE, extreme=EXTREME_DEPTH, px=LAB_PX, architecture="vit-s14", dataset="cifar10")
LAB_VICTIM |= {"train_images": 20_000}

ONE = {"epochs": 1, "augmented": False, "noise": False}
SMOKE_ATTACK = SMOKE_VICTIM | ONE | {"steps": 4, "attack_batch": 8, "learning_rate": 1.0, "targets": 2}
SMOKE_ATTACK |= {"loss": loss(ATTACKS)}
MINI_ATTACK = MINI_VICTIM | ONE | {
    "steps": lambda r: SHORT_STEPS if is_short(r) else STEPS,
    "attack_batch": BATCH,
    "learning_rate": lambda r: SHORT_RATE if is_short(r) else ATTACKS[r.victim]["learning_rate"],
    "targets": TARGETS,
    "task_weight": TASK_WEIGHT,
    "loss": loss(ATTACKS),
}  # fmt: skip
LAB_ATTACK = LAB_VICTIM | ONE | {
    "steps": lambda r: 100 if is_short(r) else 500,
    "attack_batch": 64,
    "learning_rate": lambda r: SHORT_RATE if is_short(r) else 0.2,
    "targets": 10,
    "task_weight": TASK_WEIGHT,
    "loss": loss(ATTACKS),
}  # fmt: skip
PAPER_ATTACK = {"loss": loss({name: {"loss": of} for name, of in PAPER_LOSS.items()})}


def of_victim(**changes: dict[str, Any]) -> Table:
    """The table of a recipe that attacks nothing."""
    found = {"smoke": SMOKE_VICTIM, "mini": MINI_VICTIM, "lab": LAB_VICTIM}
    return {name: _without_patch(of) | changes.get(name, {}) for name, of in found.items()}


def of_attack(**changes: dict[str, Any]) -> Table:
    """The table of a recipe that attacks, with more changes a profile."""
    found = {"smoke": SMOKE_ATTACK, "mini": MINI_ATTACK, "lab": LAB_ATTACK, "paper": PAPER_ATTACK}
    return {name: of | changes.get(name, {}) for name, of in found.items()}


def _without_patch(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name != "patch_px"}


SMOKE_TEST, MINI_TEST, LAB_TEST = ({"test_images": count} for count in (48, TEST_IMAGES, 5_000))
JUDGED = {"smoke": SMOKE_TEST, "mini": MINI_TEST, "lab": LAB_TEST}
TOY_DEFENCE = {"defence_images": 32, "defence_batch": 8, "patches_per_epoch": 2, "patch_steps": 2, "defence_rate": 1e-3}
SUFFIX = {
    "smoke": {"model": "toy", "steps": 2, "horizon_tokens": 4, "tries": 4, "most_tokens": 8}
    | {"train_prompts": 2, "test_prompts": 2, "prompts_per_step": 2},
    "mini": {"steps": 12, "prompts_per_step": 2, "horizon_tokens": 16, "tries": 8, "most_tokens": 128}
    | {"train_prompts": 12, "test_prompts": 12},
    "lab": {},
}  # fmt: skip
TABLE: dict[str, Table] = {
    "slowformer-victim": of_victim(),
    "slowformer-dense": of_victim(**JUDGED),
    "slowformer-clean": of_victim(**JUDGED),
    "slowformer-patch": of_attack(),
    "slowformer-attack": of_attack(**JUDGED),
    "slowformer-within": of_attack(**JUDGED),
    "slowformer-stages": of_attack(**JUDGED),
    "slowformer-tokens": of_attack(smoke=SMOKE_TEST | {"layer": 2}, mini=MINI_TEST, lab=LAB_TEST),
    "slowformer-starts": of_attack(smoke=SMOKE_TEST | {"starts": 2}, mini=MINI_TEST | {"starts": STARTS}, lab=LAB_TEST),
    "slowformer-defence": of_attack(
        smoke=SMOKE_TEST | TOY_DEFENCE,
        mini=MINI_TEST | DEFENCE | {"patch_steps": SHORT_STEPS, "patch_rate": SHORT_RATE},
        lab=LAB_TEST | {"defence_images": 20_000, "defence_batch": 64, "defence_rate": 2e-5, "patch_steps": 100},
    ),
    "slowformer-clock": of_attack(
        smoke={"clock_images": 4, "repeats": 2, "warm_up": 1, "joule_rounds": 0}, mini={"repeats": 10}
    ),
    "slowformer-suffix": SUFFIX,
}

for _name, _table in TABLE.items():
    register_profiles(_name, scaled_by(_table))
