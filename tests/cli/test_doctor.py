"""What a stranger is told about a machine: what it can run, what is missing, and what to do about each."""

import pytest

from effbook import data, exhibits
from effbook.cli import tiers
from effbook.evaluate import text

REQUIREMENTS = [
    "numpy>=2",
    'No_Such.Package>=1; extra == "experiments"',
    "effbook[experiments]; extra == 'book'",
    "papermill (>=2.7) ; python_version > '3' and extra == 'book'",
]


@pytest.fixture
def diagnosed(door, effbook, monkeypatch):
    """diagnosed() -> all that doctor prints, its lines joined."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(exhibits, "recipes_of", lambda what, profile: [door()])

    def call():
        status, out, err = effbook("doctor")
        assert (status, err) == (0, "")
        return out

    return call


def test_doctor_tells_the_machine_and_every_profile(door, diagnosed, monkeypatch):
    monkeypatch.setattr(door, "needs", lambda self: ("package:no_such_package",))
    out = diagnosed()
    assert all(word in out for word in ("processor", "GPU", "smoke", "mini", "lab", "paper", "GiB free"))
    assert "0 of 1 runs can run here" in out
    assert "missing: the package no_such_package" in out


def test_data_that_is_missing_is_told_with_the_command_that_fetches_it(door, diagnosed, monkeypatch):
    monkeypatch.setattr(door, "datasets", lambda self: ("mnist", "e2e"))
    monkeypatch.setattr(data, "is_cached", lambda name: name == "e2e")
    out = diagnosed()
    assert "1 of 2 sets are here; missing: mnist" in out
    assert out.count("effbook data fetch mnist") == 1  # not again for each profile


def test_a_folder_that_cannot_be_used_is_one_row_among_the_others(diagnosed, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    for variable in ("EFFBOOK_RECORDS", "EFFBOOK_DATA"):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
    out = diagnosed()
    assert f"EFFBOOK_RECORDS names {tmp_path / 'file'}" in out
    assert "set EFFBOOK_DATA to a folder" in out
    assert "1 of 1 runs can run here" in out


def test_a_tier_that_is_not_installed_is_told_with_the_command_that_installs_it(diagnosed, monkeypatch):
    monkeypatch.setattr(tiers, "tiers", lambda: {"": ("numpy",), "book": ("no-such-package", "numpy")})
    out = diagnosed()
    assert "missing: no-such-package" in out
    assert "pip install 'effbook[book]'" in out
    assert "complete" in out


def test_a_metric_without_java_is_told_with_what_brings_it(diagnosed, monkeypatch):
    monkeypatch.setattr(text, "available", lambda: {"bleu": None, "meteor": "there is no java"})
    assert "no meteor: there is no java" in diagnosed()


def test_the_tiers_are_those_that_the_package_was_installed_with(monkeypatch):
    monkeypatch.setattr("importlib.metadata.requires", lambda name: REQUIREMENTS)
    found = tiers.tiers.__wrapped__()
    assert found == {"": ("numpy",), "experiments": ("no-such-package",), "book": ("papermill",)}
    monkeypatch.setattr(tiers, "tiers", lambda: found)
    assert tiers.remedy("papermill.execute") == "pip install 'effbook[book]'"
    assert tiers.remedy("unheard_of") == "pip install unheard-of"
    assert tiers.missing("experiments") == ["no-such-package"]
