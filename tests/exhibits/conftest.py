"""Made-up measurements, so that claims and tables can be tested without a run."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from effbook.exhibits.measure import Measured, Table
from effbook.exhibits.schema import Exhibit

sys.path.insert(0, str(Path(__file__).parent))


def made_up(
    found: Exhibit,
    values: dict[tuple[str, str], Sequence[float]],
    *,
    profile: str = "paper",
    same_run: Sequence[tuple[str, str]] = (),
    draws: dict[tuple[str, str], dict[int, int]] | None = None,
) -> Table:
    """A table whose cells have the given values, one a seed; a cell without values has not run.

    The cells of `same_run` come from one run; `draws` says for a cell which seeds share a draw.
    """
    cells = {}
    for row in found.rows:
        for column in found.columns:
            place = (row.id, column.id)
            given = values.get(place, ())
            cells[place] = Measured(
                row=row.id,
                column=column.id,
                profile="paper" if column.arithmetic else profile,
                state="measured" if len(given) else "not run",
                by_seed=dict(enumerate(given)),
                draws=(draws or {}).get(place, {}),
                planned=len(given),
                keys=("one",) if place in same_run else ("/".join(place),),
                exact=column.arithmetic,
            )
    return Table(exhibit=found, profile=profile, cells=cells)


@pytest.fixture
def table() -> Callable[..., Table]:
    return made_up


@pytest.fixture
def small() -> Exhibit:
    """Two rows of accuracy and a count, with one claim."""
    return Exhibit.model_validate(exhibit_fields())


@pytest.fixture
def fields() -> dict:
    """The same exhibit as the content of a register file."""
    return exhibit_fields()


def exhibit_fields() -> dict:
    recipe = {"name": "nola-subspace", "d": 8, "n": 4}
    return {
        "id": "tab-9.1",
        "kind": "table",
        "title": "A table",
        "section": "9",
        "chapter": "nola",
        "notebook": "notebooks/nola/subspace.ipynb",
        "systems": ["nola"],
        "columns": [
            {
                "id": "trainable",
                "label": "# parameters",
                "metric": "trainable",
                "arithmetic": True,
                "unit": "parameters",
            },
            {"id": "accuracy", "label": "Accuracy", "unit": "%", "direction": "higher", "metric": "coverage"},
        ],
        "rows": [
            {
                "id": "a",
                "label": {"Method": "NOLA"},
                "origin": "own",
                "recipe": {**recipe, "method": "nola"},
                "values": {"trainable": "47K", "accuracy": "70.1"},
                "spreads": {"accuracy": "0.4"},
            },
            {
                "id": "b",
                "label": {"Method": "LoRA"},
                "origin": "rerun",
                "recipe": {**recipe, "method": "pranc"},
                "values": {"accuracy": None},
                "notes": {"accuracy": "Blank in our text."},
            },
        ],
        "claims": [
            {
                "id": "better",
                "text": "NOLA is better.",
                "source": "9",
                "all": [
                    {"left": {"row": "a", "column": "accuracy"}, "right": {"row": "b", "column": "accuracy"}, "op": ">"}
                ],
            }
        ],
    }


@pytest.fixture
def rich_exhibit(monkeypatch, fields) -> Exhibit:
    """A figure that waits, with settings, footnotes, notes, errata and readings set right; alone on the register."""
    nothing = {"accuracy": None, "trainable": None}
    fields |= {
        "id": "fig-9.1",
        "kind": "figure",
        "waits_for": "The recipes of a chapter.",
        "figure": {
            "form": "bars",
            "shows": "Bars that climb.",
            "x": "method",
            "y": "accuracy",
            "series": ["one", "two"],
            "given": "All.",
            "drawn_by": "The recipe.",
        },
        "footnotes": {"*": "own augmentation", "†": "run again"},
        "errata": [{"text": "It says two.", "decided": "One."}],
        "set_right": [{"where": "Row a", "read": "7O.1", "taken": "70.1", "because": "The sum."}],
    }
    fields["columns"].append({"id": "epochs", "label": "Epochs", "setting": True})
    fields["rows"][0] |= {"recipe": None, "footnotes": {"accuracy": "*", "row": "†"}}
    fields["rows"][0]["marks"] = {"accuracy": "best", "trainable": "near"}
    fields["rows"][0]["values"]["epochs"] = "100 (x2)"
    fields["rows"][1] |= {
        "origin": "quoted",
        "recipe": None,
        "waits_for": "Quoted from the LoRA paper.",
        "values": nothing,
        "notes": {"accuracy": "Blank in our text.", "trainable": "Printed as a dash: nothing to train."},
    }
    fields["claims"][0]["all"][0]["right"] = 50.0
    fields["claims"][0]["disputed"] = True
    found = Exhibit.model_validate(fields)
    for module in ("measure", "claims"):
        monkeypatch.setattr(importlib.import_module(f"effbook.exhibits.{module}"), "exhibit", lambda _: found)
    return found
