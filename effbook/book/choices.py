"""What a notebook's parameter may be: the names that its annotation is made of.

    profile: Profile = "mini"  # smoke, mini, lab or paper: the scale of the tables
    shots: Literal[5, 10] = 10  # training images of each class
    rank: Between[1, 16] = 4  # columns of A and rows of B
    seed: AtLeast[0] = 0  # which examples

papermill lists a notebook's parameters by a pattern that knows neither quotes nor a second equals sign in a line, and
warns of each parameter that it did not find. So words to choose from have a name here, and bounds a form of their own.
"""

from typing import Annotated, Literal

from pydantic import Field

Profile = Literal["smoke", "mini", "lab", "paper"]
Runs = Literal["recorded", "missing"]  # "missing" first computes the runs that have no record
Texts = Literal["e2e", "webnlg"]
Images = Literal["cifar10", "mnist"]


class Between:
    """``Between[1, 16]``: a whole number from 1 to 16."""

    def __class_getitem__(cls, ends: tuple[int, int]) -> object:
        low, high = ends
        return Annotated[int, Field(ge=low, le=high)]


class AtLeast:
    """``AtLeast[0]``: a whole number, 0 or more."""

    def __class_getitem__(cls, low: int) -> object:
        return Annotated[int, Field(ge=low)]
