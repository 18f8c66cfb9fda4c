import pytest

from effbook.errors import EffbookError
from effbook.nola import NOLASettings


def settings(**fields):
    return NOLASettings(**({"k": 4, "l": 4, "rank": 2} | fields))


@pytest.mark.parametrize("name", ["k", "l", "rank", "chunk"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_a_size_below_one_or_not_a_whole_number_is_refused(name, value):
    with pytest.raises(EffbookError, match=name):
        settings(**{name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"init": "vison"},
        {"scale_c": 0},
        {"scale_c": float("nan")},
        {"scale_c": True},
        {"bits": 5},
        {"bits": 32},
        {"shared_basis": 1},
        {"regenerate": "yes"},
    ],
)
def test_impossible_values_are_refused(fields):
    with pytest.raises(EffbookError):
        settings(**fields)


def test_an_unknown_key_is_refused_with_a_near_name():
    with pytest.raises(EffbookError, match="did you mean rank"):
        NOLASettings.from_dict({"k": 1, "l": 1, "rnak": 2})


def test_a_missing_key_is_named():
    with pytest.raises(EffbookError, match="rank"):
        NOLASettings.from_dict({"k": 1, "l": 1})


def test_settings_survive_a_dictionary():
    s = settings(init="vision", bits=3, seed=7)
    assert NOLASettings.from_dict(s.to_dict()) == s


def test_the_basis_is_shared_by_default_only_where_the_released_code_shares_it():
    assert settings(init="vision").shared_basis is True
    assert settings().shared_basis is False
    assert settings(init="vision", shared_basis=False).shared_basis is False


def test_the_scale_follows_the_start():
    assert settings(rank=8, scale_c=4.0).scale == 0.5
    assert settings(rank=8, scale_c=4.0, init="vision").scale == 1 / 8
    assert settings(rank=8, scale_c=4.0, init="scratch").scale == 4.0
