"""What needs no scene needs no torch: recipes, their keys and scales are for every command of the book."""

import subprocess
import sys

HEAVY = ("torch", "numba", "scipy", "mitsuba", "pycolmap", "faiss")
SCRIPT = f"""
import sys
import effbook.experiments.compgs
from effbook.errors import EffbookError
from effbook.runs.profiles import PROFILES, scale
from effbook.runs.recipe import make

four = "dc sh scale rotation"
recipes = [
    make("compgs-scene", dataset="mip-nerf360"),
    make("compgs-scene", dataset="tanks-and-temples", quantised=four, penalty=1e-7, storage="bitq"),
    make("compgs-codes", dataset="mip-nerf360", quantised=four, counted="sh"),
    make("compgs-shared", dataset="mip-nerf360", quantised=four),
    make("compgs-spread", dataset="mip-nerf360"),
    make("compgs-storage", method="compgs", gaussians=10),
    make("compgs-showcase"),
]
for recipe in recipes:
    for profile in PROFILES:
        try:
            scaled = scale(recipe, profile)
        except EffbookError:
            continue
        scaled.key, scaled.cost(), scaled.needs()
        if scaled is not recipe:
            scaled.probe()
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_recipes_are_made_scaled_and_named_without_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
