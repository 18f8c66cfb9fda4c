"""The labs: what their notebooks call, and what hands them out and grades them.

A lab is one notebook, the instructor's, in nbgrader's metadata. `release` makes the student's from it, `grade` grades a
folder of what came back, `measure_band` finds the band of the measured outcome. Names are imported when they are asked
for: a student's notebook needs those of `classroom` alone.
"""

import importlib

_FROM = {
    "expect": "classroom",
    "grade": "grading",
    "images": "classroom",
    "measure_band": "measuring",
    "measured": "classroom",
    "private": "classroom",
    "release": "releasing",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return __all__
