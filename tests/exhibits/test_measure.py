"""Records become cells: means and intervals over seeds, with their profile, staleness, and what is missing."""

import dataclasses
import json
import statistics
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from recording import recorded

from effbook.exhibits import exhibit, measured, recipe_of, recipes_of
from effbook.exhibits.look import Look
from effbook.exhibits.measure import Measured, ran_as, stand_in
from effbook.exhibits.register import recipes_of_exhibit, unit_of
from effbook.exhibits.schema import Exhibit
from effbook.exhibits.states import counted, progress, state_of
from effbook.exhibits.text import matches, recheck_text, state_text
from effbook.runs import attest, records
from effbook.runs.code import fingerprint
from effbook.runs.profiles import register_profiles
from effbook.runs.recipe import Recipe, register_recipe

ROW, COLUMN = "nola-d8", "n-16"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path))
    return tmp_path


def cell_recipe(exhibit_id="fig-3.7", row=ROW, column=COLUMN):
    found = exhibit(exhibit_id)
    return recipe_of(found, found.row(row), found.column(column))


def record(recipe, profile, *, code="", **metrics):
    recorded(recipe, profile, metrics, code=code)


def record_seeds(*values, profile="paper", code=""):
    for seed, value in enumerate(values):
        record(dataclasses.replace(cell_recipe(), seed=seed), profile, coverage=value, code=code)


def counts_of(exhibit_id, profile="paper"):
    return progress(exhibit(exhibit_id), profile).model_dump(exclude={"state", "rows", "rows_measured"})


def test_the_mean_over_seeds_comes_with_half_its_95_percent_interval():
    record_seeds(0.9, 1.0, 0.8)
    cell = measured("fig-3.7", "paper").cell(ROW, COLUMN)
    assert (cell.state, cell.n, cell.stale, cell.profile) == ("measured", 3, False, "paper")
    assert cell.value == pytest.approx(0.9)
    assert cell.half_width == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)
    assert len(set(cell.keys)) == 3


def test_a_cell_without_records_has_not_run():
    cell = measured("fig-3.7", "paper").cell(ROW, COLUMN)
    assert (cell.state, cell.value, cell.half_width, cell.planned) == ("not run", None, None, 3)


def test_a_record_of_another_profile_is_not_shown():
    record_seeds(0.9, 1.0, 0.8, profile="lab")
    assert measured("fig-3.7", "paper").cell(ROW, COLUMN).state == "not run"
    assert measured("fig-3.7", "lab").cell(ROW, COLUMN).profile == "lab"


def test_missing_seeds_make_a_cell_partial_and_further_seeds_count():
    record_seeds(0.9, 1.0)
    assert measured("fig-3.7", "paper").cell(ROW, COLUMN).state == "partial"
    record_seeds(0.9, 1.0, 0.8, 0.7, 0.6)
    cell = measured("fig-3.7", "paper").cell(ROW, COLUMN)
    assert (cell.state, cell.n) == ("measured", 5)


def test_a_record_of_other_code_is_stale_and_shown_all_the_same():
    record_seeds(0.9, 1.0, 0.8, code="0123456789abcdef")
    cell = measured("fig-3.7", "paper").cell(ROW, COLUMN)
    assert cell.stale
    assert cell.value == pytest.approx(0.9)
    assert counts_of("fig-3.7") == {"runs": 126, "recorded": 3, "rechecked": 0, "stale": 3}


def test_a_metric_that_could_not_be_had_gives_its_reason():
    for seed in range(3):
        record(dataclasses.replace(cell_recipe(), seed=seed), "paper", coverage=None)
    cell = measured("fig-3.7", "paper").cell(ROW, COLUMN)
    assert (cell.state, cell.value, cell.note) == ("no value", None, "its program is not here")


def test_a_replaced_record_is_read_again():
    record_seeds(0.9, 1.0, 0.8)
    assert measured("fig-3.7", "paper").cell(ROW, COLUMN).value == pytest.approx(0.9)
    record_seeds(0.1, 0.1, 0.1)
    assert measured("fig-3.7", "paper").cell(ROW, COLUMN).value == pytest.approx(0.1)


def test_a_damaged_record_is_one_sentence(folder):
    from effbook.errors import EffbookError

    record_seeds(0.9)
    path = next(folder.glob("paper/nola/*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(EffbookError, match="restore it from git, or run its recipe again"):
        measured("fig-3.7", "paper")


def test_counts_are_of_paper_scale_under_any_profile():
    record(cell_recipe("tab-3.17", "nola", "trainable"), "paper", trainable=12_876)
    found = exhibit("tab-3.17")
    for profile in ("mini", "paper"):
        cell = measured("tab-3.17", profile).cell("nola", "trainable")
        assert (cell.value, cell.exact, cell.profile, cell.state) == (12_876, True, "paper", "measured")
    assert matches(found.row("nola"), found.column("trainable"), 12_876)
    assert not matches(found.row("nola"), found.column("trainable"), 12_877)


def test_a_column_may_change_the_unit():
    found = exhibit("tab-B.13")
    assert found.column("dart-meteor").scale == 0.01  # percent in the record, a fraction in the table
    assert exhibit("tab-3.11").column("memory").scale == 1e-9


def test_a_quoted_row_without_a_recipe_has_no_state_to_run():
    cell = measured("tab-3.18", "paper").cell("hashednet", "accuracy")
    assert cell.state == "none"
    assert "Quoted" in cell.note


def test_what_a_profile_changes_is_told():
    assert ran_as(exhibit("fig-3.7"), "paper") == {}
    changed = ran_as(exhibit("tab-3.15"), "mini")
    assert "vit-b → vit-s14" in changed["model"]
    assert "seed" not in changed


def test_recorded_runs_are_those_that_recipes_of_names():
    for run in recipes_of("fig-3.7", "paper"):
        if run.fields["d"] == 8:
            record(run, "paper", coverage=1.0)
    assert counts_of("fig-3.7") == {"runs": 126, "recorded": 42, "rechecked": 0, "stale": 0}


def counts(row="nola"):
    return cell_recipe("tab-3.17", row, "trainable")


def test_an_exhibits_state_follows_its_records():
    figure = exhibit("fig-3.7")
    assert state_of(figure, "paper") == "not run"
    record_seeds(0.9)
    assert state_of(figure, "paper") == "partly"
    for run in recipes_of("fig-3.7", "paper"):
        record(run, "paper", coverage=1.0)
    assert state_of(figure, "paper") == "measured"
    assert state_of(figure, "mini") == "not run"
    record_seeds(0.9, code="0123456789abcdef")
    assert state_of(figure, "paper") == "stale"
    assert state_of(exhibit("tab-3.18"), "mini") == "no run"


def test_counts_alone_do_not_make_an_exhibit_with_runs_measured():
    for row in ("trained", "pranc", "lora", "nola"):
        record(counts(row), "paper", trainable=1)
    found = exhibit("tab-3.17")
    assert counted(found)
    assert state_of(found, "mini") == "not run"
    assert state_of(exhibit("tab-3.18"), "mini") == "no run"


def test_an_exhibit_of_arithmetic_alone_is_measured_once_that_is_recorded_under_any_profile():
    found = exhibit("fig-3.6")
    assert state_of(found, "mini") == "not run"
    rows = found.rows
    for row in rows[:-1]:
        record(cell_recipe("fig-3.6", row.id, "trainable"), "paper", trainable=1)
    assert (state_of(found, "mini"), counted(found)) == ("partly", False)
    record(cell_recipe("fig-3.6", rows[-1].id, "trainable"), "paper", trainable=1)
    assert (state_of(found, "mini"), state_of(found, "paper"), counted(found)) == ("measured", "measured", True)


def test_an_exhibit_waits_although_its_arithmetic_is_recorded(fields):
    fields["rows"][0]["count"] = {"name": "nola-count", "model": "gpt2-l", "method": "lora", "rank": 1}
    for row in fields["rows"]:
        row["recipe"] = None
    found = Exhibit.model_validate(fields | {"waits_for": "A recipe."})
    assert (state_of(found, "paper"), counted(found)) == ("waiting", False)
    record(recipe_of(found, found.row("a"), found.column("trainable")), "paper", trainable=1)
    assert (state_of(found, "paper"), counted(found)) == ("waiting", True)


def test_a_row_without_a_run_leaves_its_exhibit_partly_measured_and_is_counted(fields):
    fields["columns"] = fields["columns"][1:]
    fields["rows"][0]["values"].pop("trainable")
    third = fields["rows"][0] | {"id": "c", "label": {"Method": "Other"}, "recipe": None, "waits_for": "A network."}
    quoted = third | {"waits_for": None} | {"id": "d", "label": {"Method": "Quoted"}, "origin": "quoted"}
    found = Exhibit.model_validate(fields | {"rows": [*fields["rows"], third, quoted], "claims": []})
    for run in recipes_of_exhibit(found, "paper"):
        record(run, "paper", coverage=1.0)
    told = progress(found, "paper")
    assert (told.recorded, told.rows_measured, told.rows, told.state) == (told.runs, 2, 3, "partly")


def test_a_row_that_waits_leaves_its_exhibit_partly_measured_and_nothing_to_measure_is_a_drawing(fields):
    fields["rows"][1] |= {"recipe": None, "waits_for": "A network."}
    fields["columns"] = fields["columns"][1:]
    fields["rows"][0]["values"].pop("trainable")
    found = Exhibit.model_validate(fields | {"claims": []})
    assert state_of(found, "paper") == "not run"
    for run in recipes_of_exhibit(found, "paper"):
        record(run, "paper", coverage=1.0)
    assert state_of(found, "paper") == "partly"
    fields["rows"][0] |= {"recipe": None, "waits_for": "A network."}
    assert state_of(Exhibit.model_validate(fields | {"claims": []}), "paper") == "waiting"
    assert (
        state_of(Exhibit.model_validate(fields | {"claims": [], "rows": [], "why": "A drawing."}), "paper") == "drawing"
    )


def test_one_look_sees_a_record_as_it_was_and_the_next_as_it_is():
    record_seeds(0.9, 1.0, 0.8)
    look = Look()
    assert measured("fig-3.7", "paper", look).cell(ROW, COLUMN).value == pytest.approx(0.9)
    record_seeds(0.1, 0.1, 0.1)
    assert measured("fig-3.7", "paper", look).cell(ROW, COLUMN).value == pytest.approx(0.9)
    assert measured("fig-3.7", "paper").cell(ROW, COLUMN).value == pytest.approx(0.1)


def attested(recipe, old):
    """A line as `effbook recheck` writes it: records of that recipe by `old` code give the same numbers now."""
    line = {
        "recipe": recipe.name,
        "kind": attest.kind_of(recipe.fields),
        "old": old,
        "new": fingerprint(recipe.modules()),
        "commit": "3f2a1bc55d",
        "agrees": True,
        "largest": 0.0,
        "compared": 3,
        "probe": {},
        "keys": [recipe.key],
        "tolerance": 0.0,
        "here": "aaaa",
        "dirty": False,
        "device": "two cores",
        "packages": {},
        "created": "2026-11-20T10:00:00+00:00",
    }
    with (records.records_folder() / "rechecked.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


OLD, OLDER = "0123456789abcdef", "fedcba9876543210"


def test_a_record_that_a_recheck_attests_is_rechecked_and_says_by_which():
    record_seeds(0.9, 1.0, 0.8, code=OLD)
    attested(cell_recipe(), OLD)
    cell = measured("fig-3.7", "paper").cell(ROW, COLUMN)
    assert (cell.standing, cell.stale, cell.rechecked) == ("rechecked", False, ("3f2a1bc5, 2026-11-20",))
    assert "at its commit and now (3f2a1bc5, 2026-11-20)" in recheck_text(cell)
    assert counts_of("fig-3.7") == {"runs": 126, "recorded": 3, "rechecked": 3, "stale": 0}
    assert state_text(cell) == "rechecked"


def test_a_cell_is_as_stale_as_its_worst_record():
    record_seeds(0.9, 1.0, 0.8)
    for seed, code, standing in ((0, OLD, "rechecked"), (1, OLDER, "stale")):
        attested(cell_recipe(), OLD)
        record(dataclasses.replace(cell_recipe(), seed=seed), "paper", coverage=0.5, code=code)
        assert measured("fig-3.7", "paper").cell(ROW, COLUMN).standing == standing


def test_an_exhibit_partly_measured_and_partly_rechecked_is_rechecked():
    found = exhibit("fig-3.7")
    for run in recipes_of("fig-3.7", "paper"):
        record(run, "paper", coverage=1.0)
    record_seeds(0.9, 1.0, 0.8, code=OLD)
    assert state_of(found, "paper") == "stale"
    attested(cell_recipe(), OLD)
    assert state_of(found, "paper") == "rechecked"


def relative(fields, column=1):
    """The small exhibit, its accuracy in units of another run's."""
    fields["columns"][column]["per"] = {"name": "nola-subspace", "d": 8, "n": 16}
    return Exhibit.model_validate(fields)


def test_a_column_may_be_in_units_of_another_run_seed_by_seed(fields):
    found = relative(fields)
    row, column = found.rows[0], found.columns[1]
    unit, own = unit_of(column), recipe_of(found, row, column)
    assert unit != own
    for seed, (mine, theirs) in enumerate([(6.0, 2.0), (9.0, 3.0), (4.0, 1.0)]):
        record(dataclasses.replace(own, seed=seed), "paper", **{column.metric: mine})
        if seed < 2:
            record(dataclasses.replace(unit, seed=seed), "paper", **{column.metric: theirs})
    cell = measured(found, "paper").cell(row.id, column.id)
    assert cell.by_seed == {0: 3.0, 1: 3.0}
    assert cell.state == "partial"
    assert set(recipes_of_exhibit(found, "paper")) >= {dataclasses.replace(unit, seed=2)}


def test_without_the_run_that_gives_the_unit_a_cell_has_not_run(fields):
    found = relative(fields)
    row, column = found.rows[0], found.columns[1]
    record(recipe_of(found, row, column), "paper", **{column.metric: 1.0})
    cell = measured(found, "paper").cell(row.id, column.id)
    assert (cell.state, cell.value) == ("not run", None)
    assert "unit" in cell.note


def test_the_run_that_gives_the_unit_stands_behind_the_cell_with_its_key_and_its_staleness(fields):
    found = relative(fields)
    row, column = found.rows[0], found.columns[1]
    unit, own = unit_of(column), recipe_of(found, row, column)
    for seed in range(3):
        record(dataclasses.replace(own, seed=seed), "paper", **{column.metric: 6.0})
        record(dataclasses.replace(unit, seed=seed), "paper", **{column.metric: 2.0})
    cell = measured(found, "paper").cell(row.id, column.id)
    seeds = range(3)
    assert cell.keys == tuple(dataclasses.replace(run, seed=seed).key for run in (own, unit) for seed in seeds)
    assert [path.rpartition("-")[2] for path in cell.paths] == [f"{key}.json" for key in cell.keys]
    assert not cell.stale
    record(dataclasses.replace(unit, seed=1), "paper", code="0123456789abcdef", **{column.metric: 2.0})
    assert measured(found, "paper").cell(row.id, column.id).stale


def test_a_unit_that_is_missing_or_stale_shows_in_the_exhibits_state(fields):
    fields["columns"] = fields["columns"][1:]
    fields["rows"][0]["values"].pop("trainable")
    found = relative(fields | {"claims": []}, column=0)
    unit = unit_of(found.columns[0])
    own = [run for run in recipes_of_exhibit(found, "paper") if run.fields["n"] != unit.fields["n"]]
    units = [dataclasses.replace(unit, seed=seed) for seed in range(3)]
    for run in own:
        record(run, "paper", coverage=1.0)
    assert state_of(found, "paper") == "partly"
    for run in units:
        record(run, "paper", coverage=1.0)
    assert state_of(found, "paper") == "measured"
    record(units[0], "paper", coverage=1.0, code="0123456789abcdef")
    assert state_of(found, "paper") == "stale"


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Nested(Recipe):
    """Runs of which each three share a draw."""

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nested"

    def group(self):
        return self.seed // 3


def test_seeds_that_share_a_draw_are_averaged_first(fields):
    register_profiles("nested", lambda recipe, profile: recipe, seeds={"paper": tuple(range(12))})
    fields["columns"] = fields["columns"][1:]
    fields |= {"rows": [fields["rows"][0] | {"recipe": {"name": "nested"}, "values": {}, "spreads": {}}], "claims": []}
    found = Exhibit.model_validate(fields | {"why": "Made up."})
    for seed in range(12):
        record(Nested(seed=seed), "paper", coverage=float(seed // 3) + 0.1 * (seed % 3 - 1))
    cell = measured(found, "paper").cell("a", "accuracy")
    assert (cell.n, cell.planned, cell.state) == (4, 12, "measured")
    assert cell.by_draw == pytest.approx({0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0})
    assert cell.half_width == pytest.approx(3.182446 * statistics.stdev([0, 1, 2, 3]) / 2, rel=1e-6)


def test_intervals_over_draws_cover_the_truth_as_often_as_they_say():
    draw = np.random.default_rng(0)
    sets, within = draw.normal(size=(2000, 4, 1)), 0.7 * draw.normal(size=(2000, 4, 3))
    covered = {"by set": 0, "by seed": 0}
    for values in (sets + within).reshape(2000, 12).tolist():  # four sets of images, three initialisations each
        for name, draws in (("by set", {seed: seed // 3 for seed in range(12)}), ("by seed", {})):
            by_seed = dict(enumerate(values))
            cell = Measured(row="r", column="c", profile="paper", state="measured", by_seed=by_seed, draws=draws)
            covered[name] += abs(cell.value) <= cell.half_width
    assert covered["by set"] / 2000 == pytest.approx(0.95, abs=0.015)
    assert covered["by seed"] / 2000 < 0.85


def test_a_row_names_the_network_that_stands_in_for_the_dissertations():
    found = exhibit("tab-3.12")
    assert stand_in(found, found.rows[0], "mini") == "smollm2"
    assert stand_in(found, found.rows[0], "paper") == ""
    found = exhibit("tab-2.8")
    assert stand_in(found, found.row("r18-backbone"), "mini") == "small-half"
