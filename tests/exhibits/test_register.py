"""The register as it is: whole, in order, in agreement with itself, and every recipe in it can be made."""

import importlib

import pytest

from effbook.book.site import repository_root
from effbook.errors import EffbookError
from effbook.exhibits import exhibit, recipe_of, recipes_of, register, text
from effbook.exhibits.schema import Exhibit
from effbook.exhibits.states import state_of
from effbook.exhibits.text import as_printed
from effbook.runs.recipe import recipe_names

REGISTER = importlib.import_module("effbook.exhibits.register")
NOLA = [
    *("fig-3.6", "fig-3.7"),
    *(f"tab-3.{i}" for i in range(10, 19)),
    *(f"tab-B.{i}" for i in range(10, 14)),
]
CELLS = [(e.id, r.id, c.id) for e in register().values() for r in e.rows for c in e.columns]


def values(exhibit_id, row):
    return exhibit(exhibit_id).row(row).values


def test_every_exhibit_of_the_nola_chapter_is_there_with_a_claim():
    known = register()
    assert set(NOLA) <= set(known)
    assert all(known[name].claims for name in NOLA)


def test_all_69_tables_and_29_figures_are_there():
    tables = {"2": 15, "3": 18, "4": 6, "A": 17, "B": 13}
    figures = {"1": 1, "2": 7, "3": 7, "4": 3, "A": 2, "B": 5, "C": 4}
    wanted = [f"tab-{part}.{i + 1}" for part, n in tables.items() for i in range(n)]
    wanted += [f"fig-{part}.{i + 1}" for part, n in figures.items() for i in range(n)]
    assert len(wanted) == 69 + 29
    assert {e.id for e in register().values() if e.kind != "prose"} == set(wanted)


def test_what_stands_in_prose_only_is_counted_apart():
    prose = [e.id for e in register().values() if e.kind == "prose"]
    assert {"prose-3.2.4.6", "prose-3.2.4.6-time"} <= set(prose)
    assert list(register())[-len(prose) :] == prose


def test_the_register_is_in_the_books_order():
    tables = [name for name in register() if name.startswith("tab-")]
    assert tables.index("tab-3.9") < tables.index("tab-3.10") if "tab-3.9" in tables else True
    assert tables.index("tab-3.18") < tables.index("tab-B.10") < tables.index("tab-B.13")


def test_every_recipe_that_the_register_names_can_be_made():
    for exhibit_id, row, column in CELLS:
        found = exhibit(exhibit_id)
        fields = found.recipe_fields(found.row(row), found.column(column))
        recipe_of(found, found.row(row), found.column(column))
        assert fields is None or fields["name"] in recipe_names(), (exhibit_id, row, fields)


def test_every_row_is_measured_or_says_what_it_waits_for():
    """A quoted row may be left to its paper; of any other, a recipe that exists measures a cell, or it waits."""
    for one in register().values():
        for row in one.rows:
            made = [fields for column in one.columns if (fields := one.recipe_fields(row, column))]
            assert all(fields["name"] in recipe_names() for fields in made), (one.id, row.id)
            assert made or one.missing(row) or row.origin == "quoted", (one.id, row.id)


def test_reported_tables_are_complete():
    """Where a row of a group has a value in a column, or a reason for none, every row of the group has.

    The parts of a table may have columns of their own; counts may stand in some rows only.
    """
    for one in register().values():
        groups = {row.group for row in one.rows} if one.reported else ()
        for group in groups:
            rows = [row for row in one.rows if row.group == group]
            used = {c.id for c in one.columns if not c.arithmetic and any(c.id in row.values for row in rows)}
            assert used or group or all(c.arithmetic for c in one.columns), one.id
            for row in rows:
                assert used <= set(row.values), (one.id, row.id, sorted(used - set(row.values)))


def test_every_table_and_every_figure_that_shows_measurements_has_a_claim():
    def measures(one):
        if one.kind == "figure" and one.figure.form in ("diagram", "photographs"):
            return False
        return one.kind != "figure" or any(not column.setting for column in one.columns)

    assert [one.id for one in register().values() if measures(one) and not one.claims] == []


def test_no_claim_reads_a_quoted_row_that_nobody_runs():
    for one in register().values():
        for cell in (c for claim in one.claims for test in claim.tests for c in test.cells):
            other = exhibit(cell.exhibit or one.id)
            row, column = other.row(cell.row), other.column(cell.column)
            assert row.origin != "quoted" or row.recipe or column.arithmetic, (one.id, cell)


def test_every_notebook_that_is_named_is_there_or_its_exhibit_waits_or_is_a_drawing():
    root = repository_root()
    for one in register().values():
        if state_of(one, "paper") not in ("waiting", "drawing"):
            assert (root / one.notebook).is_file(), (one.id, one.notebook)


def test_a_disputed_claim_has_its_erratum():
    assert [one.id for one in register().values() if any(c.disputed for c in one.claims) and not one.errata] == []


def test_the_number_of_reported_values_is_as_printed():
    printed = {e.id: sum(v is not None for r in e.rows for v in r.values.values()) for e in register().values()}
    assert printed["tab-3.10"] == 25 * 6
    assert printed["tab-3.11"] == 3 * 8
    assert printed["tab-3.12"] == 12 * 6
    assert printed["tab-3.13"] == 12 * 5
    assert printed["tab-3.14"] == 9 * 4 - 3
    assert printed["tab-3.15"] == 24 * 9 - 4 - 3  # nearest neighbour has no count, three cells are blank
    assert printed["tab-3.16"] == 5 * 9 - 1
    assert printed["tab-B.12"] == 2 * 9
    assert printed["tab-B.13"] == 21 * 7


def test_a_run_that_is_printed_in_two_tables_is_one_recipe():
    def recipe(exhibit_id, row, column="bleu"):
        found = exhibit(exhibit_id)
        return found.recipe_fields(found.row(row), found.column(column))

    assert recipe("tab-3.10", "gpt2-l-lora-r1") == recipe("tab-3.11", "lora-r1") == recipe("tab-3.13", "lora-ptq-16")
    assert recipe("tab-3.12", "gpt2-m-r8-96k") == recipe("tab-3.12", "gpt2-m-r8-96k-again")
    same = [("tab-3.10", "gpt2-l-nola-qv-144k"), ("tab-3.11", "nola-own-basis"), ("tab-3.12", "gpt2-l-r8-144k")]
    made = {recipe_of(exhibit(e), exhibit(e).row(r), exhibit(e).column("bleu")) for e, r in same}
    assert len(made) == 1


def test_table_b12_repeats_vit_b_although_it_says_vit_l():
    ours, theirs = exhibit("tab-B.12").row("nola-mlp-47k"), exhibit("tab-3.15").row("vit-b-nola-mlp-47k")
    assert (ours.values, ours.spreads) == (theirs.values, theirs.spreads)
    assert ours.recipe["model"] == "vit-b"


def test_column_fields_are_merged_into_the_rows_recipe():
    found = exhibit("tab-3.15")
    fields = found.recipe_fields(found.row("vit-b-nola-mlp-47k"), found.column("cub200-10"))
    assert (fields["dataset"], fields["shots"], fields["model"], fields["k"]) == ("cub200", 10, "vit-b", 1024)


@pytest.mark.parametrize(
    "what", ["fig-3.7", "subspace", "nola/subspace", "/x/notebooks/nola/subspace.ipynb", "nola-subspace"]
)
def test_an_exhibit_a_notebook_and_a_recipe_stand_for_their_runs(what):
    runs = recipes_of(what, "paper")
    assert len(runs) == len(set(runs)) == 6 * 7 * 3
    assert {run.seed for run in runs} == {0, 1, 2}
    assert {run.name for run in runs} == {"nola-subspace"}


def test_a_system_and_all_hold_every_exhibits_runs_once():
    everything = recipes_of("all", "paper")
    assert len(everything) == len(set(everything))
    assert set(recipes_of("fig-3.7", "paper")) <= set(recipes_of("nola", "paper")) <= set(everything)


def test_counts_run_under_paper_only():
    assert any(run.name == "nola-count" for run in recipes_of("tab-3.17", "paper"))
    assert not any(run.name == "nola-count" for run in recipes_of("tab-3.17", "mini"))


@pytest.mark.parametrize(("what", "near"), [("tab-3.100", "tab-3.10"), ("nolla", "nola"), ("subspac", "subspace")])
def test_what_is_unknown_is_refused_with_near_names(what, near):
    with pytest.raises(EffbookError, match=near):
        recipes_of(what, "mini")


def test_an_unknown_profile_and_an_exhibit_without_runs_are_refused():
    with pytest.raises(EffbookError, match="mini"):
        recipes_of("tab-3.12", "minni")
    with pytest.raises(EffbookError, match=r"fig-3\.6 has no mini run"):
        recipes_of("fig-3.6", "mini")
    with pytest.raises(EffbookError, match=r"fig-3\.6 has no mini run: .* arithmetic, which runs under paper"):
        recipes_of("fig-3.6", "mini")
    with pytest.raises(EffbookError, match=r"did you mean tab-3\.1"):
        exhibit("tab-3.100")


def test_an_exhibit_that_waits_says_for_what_and_where_its_arithmetic_runs(monkeypatch, fields):
    def known(**changes):
        one = Exhibit.model_validate(fields | {"waits_for": "The recipes of a chapter."} | changes)
        monkeypatch.setattr(REGISTER, "_read_all", lambda folder: {one.id: one})

    bare = [row | {"recipe": None} for row in fields["rows"]]
    known(rows=bare)
    with pytest.raises(EffbookError) as caught:
        recipes_of("tab-9.1", "mini")
    assert str(caught.value) == (
        "tab-9.1 cannot run yet, as it waits for the recipes of a chapter; "
        "'effbook show tab-9.1' prints what is reported."
    )
    known(rows=[bare[0] | {"count": {"name": "nola-count", "model": "gpt2-l", "method": "lora", "rank": 1}}, bare[1]])
    with pytest.raises(EffbookError, match=r"'effbook plan tab-9\.1 --profile paper' tells what runs there"):
        recipes_of("tab-9.1", "mini")
    assert [run.name for run in recipes_of("tab-9.1", "paper")] == ["nola-count"]


def test_a_system_all_of_whose_exhibits_wait_says_so(monkeypatch, fields):
    waiting = {"waits_for": "A recipe.", "rows": [row | {"recipe": None} for row in fields["rows"]]}
    there = {i: Exhibit.model_validate(fields | waiting | {"id": i}) for i in ("tab-9.1", "tab-9.2")}
    monkeypatch.setattr(REGISTER, "_read_all", lambda folder: there)
    with pytest.raises(EffbookError, match=r"all its 2 exhibits wait .*; 'effbook exhibits --chapter nola' lists them"):
        recipes_of("nola", "mini")


def test_a_stem_that_several_notebooks_share_is_asked_back(monkeypatch, fields):
    there = {
        id_: Exhibit.model_validate(fields | {"id": id_, "notebook": f"notebooks/{folder}/method.ipynb"})
        for id_, folder in (("tab-9.1", "nola"), ("tab-9.2", "compgs"))
    }
    monkeypatch.setattr(REGISTER, "_read_all", lambda folder: there)
    with pytest.raises(EffbookError, match=r"say which: notebooks/nola/method\.ipynb or notebooks/compgs/method"):
        recipes_of("method", "paper")
    assert recipes_of("compgs/method", "paper") == recipes_of("notebooks/compgs/method.ipynb", "paper")


def test_counts_are_printed_in_the_tables_own_unit():
    assert as_printed(49_152, "47K", 1 << 20) == "47K"
    assert as_printed(85_798_656, "82M", 1 << 20) == "82M"
    assert as_printed(350_016, "0.350M") == "0.350M"
    assert as_printed(12_876, "12,876") == "12,876"
    assert as_printed(57_344, "0.06M") == "0.06M"
    assert as_printed(96_000, "96K") == "96K"
    assert as_printed(0, "0") == "0"
    assert as_printed(393_216, "0.350M") == "0.393M"


@pytest.mark.parametrize(
    ("value", "printed", "ours", "in_full"),
    [
        (19.341973, "19", "19", "19.34"),  # MB
        (1422.154644, "1422", "1422", "1,422"),
        (2099.5, "2,100", "2,100", "2,100"),
        (7.686144, "7.7", "7.7", "7.686"),  # x 10^8
        (11.9455488, "12.0", "11.9", "11.95"),
        (67.899, "68", "68", "67.90"),  # %
        (0.853244, "1", "1", "0.8532"),
        (25395.2, "25395", "25395", "25,395"),
        (3.6349747199999996e9 * 1e-8, "36.6", "36.3", "36.35"),
        (0.1 + 0.2, "0.30", "0.30", "0.3000"),
        (99.999999999999, "100", "100", "100"),
        (46_340_000_000, "46340000000", "46340000000", "46,340,000,000"),
        (-1.23456, "-1.2", "-1.2", "-1.235"),
        (0.0, "0", "0", "0"),
    ],
)
def test_arithmetic_is_printed_in_the_printed_digits_and_in_full(value, printed, ours, in_full):
    assert (as_printed(value, printed), text.in_full(value)) == (ours, in_full)
