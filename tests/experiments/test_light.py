"""Recipes are made, checked and keyed without torch: `effbook show` and `plan` must not wait for it."""

import subprocess
import sys

CODE = """
import sys
import effbook.nola.config
from effbook.experiments import cmsf, introduction, nola, shared, slowformer
from effbook.experiments.shared import arithmetic, draws, images, profiles, training
from effbook.experiments.nola import profiles_language, targets
from effbook.runs.profiles import NotInProfileError, scale, seeds
from effbook.runs.recipe import make
from effbook.nola.config import NOLASettings
NOLASettings(k=1, l=1, rank=1)
for name, fields in {
    "nola-vision": {}, "nola-language": {}, "nola-instruction": {}, "nola-scratch-cnn": {}, "nola-scratch-mlp": {},
    "nola-subspace": {}, "nola-count": {"model": "vit-b"}, "growth-fit": {"quantity": "compute"},
    "cmsf-splits": {"classes": 2, "images": 9, "test": 2, "val": 2},
    "slowformer-dense": {"victim": "dense"}, "slowformer-clean": {}, "slowformer-victim": {}, "slowformer-attack": {},
    "slowformer-within": {}, "slowformer-stages": {}, "slowformer-starts": {}, "slowformer-tokens": {},
    "slowformer-defence": {}, "slowformer-clock": {}, "slowformer-suffix": {}, "slowformer-patch": {},
    "cmsf-flops": {"unlabeled_forward": 2, "unlabeled_backward": 1, "unlabeled_batch": 3, "iterations": 4},
}.items():
    for profile in ("smoke", "mini", "lab", "paper"):
        try:
            recipe = scale(make(name, **fields), profile)
        except NotInProfileError:
            continue
        recipe.key, recipe.cost(), recipe.shares(), recipe.needs(), recipe.probe(), seeds(recipe, profile)
print(*sorted({"torch", "numba", "scipy", "transformers"} & set(sys.modules)))
"""


def test_recipes_are_made_without_torch_numba_and_scipy():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
