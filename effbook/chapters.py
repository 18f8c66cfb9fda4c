"""The dissertation's chapters and their names; a chapter is a system, or the introduction."""

from typing import Literal, get_args

Chapter = Literal["introduction", "cmsf", "simreg", "compgs", "nola", "slowformer"]
CHAPTERS: tuple[Chapter, ...] = get_args(Chapter)
SYSTEMS = CHAPTERS[1:]
TITLES: dict[Chapter, str] = {
    "introduction": "Introduction",
    "cmsf": "Constrained mean shift",
    "simreg": "SimReg",
    "compgs": "CompGS",
    "nola": "NOLA",
    "slowformer": "SlowFormer",
}
