"""The register of the dissertation's tables and figures: reported beside measured, claims and their verdicts."""

from effbook.exhibits.claims import judge, verdict
from effbook.exhibits.measure import measured
from effbook.exhibits.register import exhibit, recipe_of, recipes_of, register
from effbook.exhibits.tables import (
    chosen,
    exhibits_json,
    measured_csv,
    reported_csv,
    show_errata,
    show_exhibits,
    show_terminal,
)

__all__ = [
    "chosen",
    "exhibit",
    "exhibits_json",
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
