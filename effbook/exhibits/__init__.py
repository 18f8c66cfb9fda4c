"""The register of the dissertation's tables and figures: reported beside measured, claims and their verdicts."""

from effbook.exhibits.register import exhibit, recipe_of, recipes_of, register

__all__ = ["exhibit", "recipe_of", "recipes_of", "register"]
