"""A house of one exhibit, tab-0.1, with two runs, and records of its own."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from effbook import cli, exhibits
from effbook.errors import EffbookError
from effbook.runs.recipe import Recipe, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Door(Recipe):
    """A run that gives its seed, or what it was told to do."""

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "door"
    act: ClassVar[BaseException | None] = None

    def run(self, context):
        if Door.act is not None:
            raise Door.act
        return Result({"seed": self.seed})


@pytest.fixture
def door(tmp_path, monkeypatch):
    """The recipe of the exhibit tab-0.1, which stands in place of the register, with records of its own."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))

    def recipes_of(what, profile):
        if what not in ("tab-0.1", "nola"):
            raise EffbookError(f"{what!r} is no exhibit", "did you mean tab-0.1")
        return [Door(seed=0), Door(seed=1)]

    monkeypatch.setattr(Door, "act", None)
    monkeypatch.setattr(exhibits, "recipes_of", recipes_of)
    monkeypatch.setattr(exhibits, "register", lambda: {"tab-0.1": None})
    monkeypatch.setattr(exhibits, "show_terminal", lambda name, profile: print(f"table {name} {profile}"))
    return Door


@pytest.fixture
def effbook(capsys):
    """effbook("run", ...) -> (exit status, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        return (caught.value.code, *capsys.readouterr())

    return call
