"""The dissertation's chapters and their names; a chapter is a system, or the introduction."""

from typing import Literal, get_args

System = Literal["cmsf", "simreg", "compgs", "nola", "slowformer"]
Chapter = Literal["introduction", System]
CHAPTERS: tuple[Chapter, ...] = get_args(Chapter)
SYSTEMS: tuple[System, ...] = get_args(System)
TITLES: dict[Chapter, str] = {
    "introduction": "Introduction",
    "cmsf": "Constrained mean shift",
    "simreg": "SimReg",
    "compgs": "CompGS",
    "nola": "NOLA",
    "slowformer": "SlowFormer",
}
