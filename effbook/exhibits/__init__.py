"""The register of the dissertation's tables and figures: reported beside measured, claims and their verdicts."""

from effbook.exhibits.claims import judge, verdict
from effbook.exhibits.export import measured_csv, reported_csv
from effbook.exhibits.listing import chosen, entries
from effbook.exhibits.look import Look
from effbook.exhibits.measure import measured
from effbook.exhibits.register import exhibit, recipe_of, recipes_of, register
from effbook.exhibits.terminal import show_errata, show_exhibits, show_terminal

__all__ = [
    "Look",
    "chosen",
    "entries",
    "exhibit",
    "judge",
    "measured",
    "measured_csv",
    "recipe_of",
    "recipes_of",
    "register",
    "reported_csv",
    "show_errata",
    "show_exhibits",
    "show_terminal",
    "verdict",
]
