"""Names, types and values of a notebook's parameters."""

import pytest

from effbook.book.parameters import check_parameters, check_values, parse_parameters
from effbook.errors import EffbookError

CELL = """profile: str = "mini"  # smoke, mini, lab or paper
shots: int = 10  # 5 or 10: training images of each class
k: int = 1000  # 1 or more
rate: float = 0.1  # 0 to 1
note: str = ""  # any text
fresh: bool = False  # True or False: compute again
"""


def test_each_line_gives_a_parameter_with_its_type_default_and_choices():
    found = parse_parameters(CELL)
    assert [(p.name, p.type, p.default) for p in found.values()] == [
        ("profile", str, "mini"),
        ("shots", int, 10),
        ("k", int, 1000),
        ("rate", float, 0.1),
        ("note", str, ""),
        ("fresh", bool, False),
    ]
    assert found["profile"].choices == ("smoke", "mini", "lab", "paper")
    assert found["shots"].choices == ("5", "10")
    assert (found["k"].low, found["rate"].high) == (1, 1)
    assert found["note"].choices == ()


@pytest.mark.parametrize(
    "good",
    [
        {"profile": "paper"},
        {"shots": 5},
        {"k": 1},
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
        ({"zebra": 1}, "its parameters are profile, shots, k, rate, note, fresh"),
        ({"profile": "huge"}, "must be smoke, mini, lab or paper, not 'huge'"),
        ({"profile": 3}, "must be a string, not 3"),
        ({"shots": 7}, "must be 5 or 10, not 7"),
        ({"shots": "10"}, "must be a whole number, not '10'"),
        ({"shots": True}, "must be a whole number, not True"),
        ({"k": 0}, "must be 1 or more, not 0"),
        ({"k": 2.5}, "must be a whole number, not 2.5"),
        ({"rate": 1.5}, "must be from 0 to 1, not 1.5"),
        ({"rate": float("nan")}, "finite"),
        ({"fresh": 1}, "must be True or False, not 1"),
    ],
)
def test_a_wrong_name_type_or_value_gets_one_sentence(bad, says):
    with pytest.raises(EffbookError) as raised:
        check_values(parse_parameters(CELL), bad, "notebooks/nola/vision.ipynb")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_annotation_of_another_type_is_refused():
    with pytest.raises(EffbookError, match="annotate it as str, int, float or bool"):
        parse_parameters("rows: list = [1]  # rows")


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
    [("shotz = 5", "did you mean 'shots'"), ("shots = 6", "must be 5 or 10"), ("profile = None", "must be a string")],
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
