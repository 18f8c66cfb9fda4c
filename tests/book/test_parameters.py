"""Names, types and values of a notebook's parameters."""

from typing import get_args

import pytest

from effbook.book import choices
from effbook.book.parameters import check_parameters, check_values, parse_parameters
from effbook.errors import EffbookError
from effbook.runs.profiles import PROFILES

CELL = """from typing import Literal

from effbook.book.choices import AtLeast, Between, Profile

profile: Profile = "mini"  # smoke, mini, lab or paper: the scale
shots: Literal[5, 10] = 10  # training images of each class
k: AtLeast[1] = 1000  # codes
rank: Between[1, 16] = 4  # columns of A
rate: float = 0.1  # of learning
note: str = ""  # any text
fresh: bool = False  # compute again
"""


def test_each_line_gives_a_parameter_with_its_type_default_and_explanation():
    found = parse_parameters(CELL)
    assert [(p.name, p.annotation, p.default, p.help) for p in found.values()] == [
        ("profile", "Profile", "mini", "smoke, mini, lab or paper: the scale"),
        ("shots", "Literal[5, 10]", 10, "training images of each class"),
        ("k", "AtLeast[1]", 1000, "codes"),
        ("rank", "Between[1, 16]", 4, "columns of A"),
        ("rate", "float", 0.1, "of learning"),
        ("note", "str", "", "any text"),
        ("fresh", "bool", False, "compute again"),
    ]


def test_words_to_choose_from_may_stand_in_the_annotation_and_the_comment_allows_nothing():
    found = parse_parameters("word: Literal['one', 'two'] = 'one'  # one, two or three")
    assert found["word"].problem("two") is None
    assert found["word"].problem("three") == "must be 'one' or 'two', not 'three'"


@pytest.mark.parametrize(
    "good",
    [
        {"profile": "paper"},
        {"shots": 5},
        {"k": 1},
        {"rank": 16},
        {"rate": 1},
        {"rate": 0.0},
        {"note": "a, b or c"},
        {"fresh": True},
        {},
    ],
)
def test_allowed_values_pass(good):
    check_values(parse_parameters(CELL), good)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"profil": "mini"}, "no parameter 'profil'; did you mean 'profile'"),
        ({"zebra": 1}, "its parameters are profile, shots, k, rank, rate, note, fresh"),
        ({"profile": "huge"}, "must be 'smoke', 'mini', 'lab' or 'paper', not 'huge'; it means: smoke, mini"),
        ({"profile": 3}, "must be 'smoke', 'mini', 'lab' or 'paper', not 3"),
        ({"note": 3}, "must be a valid string, not 3"),
        ({"shots": 7}, "must be 5 or 10, not 7"),
        ({"shots": "10"}, "must be 5 or 10, not '10'"),
        ({"shots": True}, "must be 5 or 10, not True"),
        ({"k": 0}, "must be greater than or equal to 1, not 0"),
        ({"k": True}, "must be a valid integer, not True"),
        ({"k": 2.5}, "must be a valid integer, not 2.5"),
        ({"rank": 17}, "must be less than or equal to 16, not 17"),
        ({"rate": float("nan")}, "must be a finite number"),
        ({"fresh": 1}, "must be a valid boolean, not 1"),
    ],
)
def test_a_wrong_name_type_or_value_gets_one_sentence(bad, says):
    with pytest.raises(EffbookError) as raised:
        check_values(parse_parameters(CELL), bad, "notebooks/nola/vision.ipynb")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("rows: list = [1]  # rows", "has the type list; annotate it as one of str, int"),
        ("rows: Between[1] = 1  # rows", r"has the type Between\[1\]"),
        ("rows: open('x') = 1  # rows", "has the type open"),
        ("rows = 1  # rows", "Line 1 of the parameters cell of the notebook declares no parameter; annotate it"),
        ("rows: int = 2 * 3  # rows", "'rows' of the notebook is computed; give it a plain value"),
    ],
)
def test_a_line_that_declares_nothing_that_can_be_checked_is_refused(line, says):
    with pytest.raises(EffbookError, match=says):
        parse_parameters(line)


def test_the_profiles_are_those_of_the_engine():
    assert get_args(choices.Profile) == PROFILES


def namespace_after(*cells):
    """What a notebook's globals hold once these cells have run."""
    namespace = {}
    for cell in cells:
        exec(cell, namespace)
    return namespace | {"In": ["", *cells, "check_parameters(globals())"]}


def test_a_running_notebook_with_its_defaults_passes():
    check_parameters(namespace_after(CELL))


def test_a_running_notebook_takes_what_papermill_injects():
    check_parameters(namespace_after(CELL, "# Parameters\nshots = 5\nprofile = 'smoke'\n"))


@pytest.mark.parametrize(
    ("injected", "says"),
    [("shotz = 5", "did you mean 'shots'"), ("shots = 6", "must be 5 or 10"), ("profile = None", "must be 'smoke'")],
)
def test_a_running_notebook_refuses_what_papermill_injects_wrongly(injected, says):
    with pytest.raises(EffbookError, match=says):
        check_parameters(namespace_after(CELL, f"# Parameters\n{injected}\n"))


def test_a_cell_that_is_run_again_with_new_values_counts_from_then_on():
    again = CELL.replace("= 10", "= 5")
    check_parameters(namespace_after(CELL, "# Parameters\nshots = 6\n", again))


def test_without_a_parameters_cell_the_check_says_so():
    with pytest.raises(EffbookError, match="first cell"):
        check_parameters({"In": ["", "import os"]})


def test_a_refused_parameter_is_told_by_its_sentence_alone_in_a_kernel():
    with pytest.raises(EffbookError) as raised:
        check_values(parse_parameters("rank: int = 4  # columns of A"), {"rank": "four"})
    assert raised.value._render_traceback_() == [str(raised.value)]
    assert "\n" not in str(raised.value)
