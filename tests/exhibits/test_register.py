"""The register as it is: whole, in order, in agreement with itself, and every recipe in it can be made."""

import pytest

from effbook.errors import EffbookError
from effbook.exhibits import exhibit, recipe_of, recipes_of, register
from effbook.exhibits.measure import as_printed
from effbook.exhibits.plots import number
from effbook.experiments.recipe import recipe_names

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


def test_what_stands_in_prose_only_is_counted_apart():
    assert [e.id for e in register().values() if e.kind == "prose"] == ["prose-3.2.4.6", "prose-3.2.4.6-time"]
    assert list(register())[-2:] == ["prose-3.2.4.6", "prose-3.2.4.6-time"]


def test_the_register_is_in_the_books_order():
    tables = [name for name in register() if name.startswith("tab-")]
    assert tables.index("tab-3.9") < tables.index("tab-3.10") if "tab-3.9" in tables else True
    assert tables.index("tab-3.18") < tables.index("tab-B.10") < tables.index("tab-B.13")


def test_every_recipe_that_the_register_names_can_be_made():
    for exhibit_id, row, column in CELLS:
        found = exhibit(exhibit_id)
        fields = found.recipe_fields(found.row(row), found.column(column))
        assert fields is None or fields["name"] in recipe_names(), (exhibit_id, row, fields)
        recipe_of(found, found.row(row), found.column(column))


def test_every_row_is_measured_or_says_what_it_waits_for():
    for one in register().values():
        for row in one.rows:
            measurable = any(one.recipe_fields(row, column) for column in one.columns)
            assert measurable or row.waits_for, (one.id, row.id)
            assert row.origin == "quoted" or measurable, (one.id, row.id)


def test_reported_tables_are_complete():
    """Each reported table has a value, or a reason, in every measured column of every row."""
    for one in register().values():
        if one.reported:
            free = [c.id for c in one.columns if not c.arithmetic]
            assert all(set(free) <= set(row.values) for row in one.rows), one.id


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


@pytest.mark.parametrize("rows", [("trained", "pranc", "lora", "nola")])
def test_tables_that_are_printed_twice_agree(rows):
    for row in rows:
        assert values("tab-3.17", row) == values("tab-B.10", row)
        assert values("tab-3.18", row) == values("tab-B.11", row)
    assert values("tab-3.18", "hashednet")["accuracy"] == values("tab-B.11", "hashednet")["accuracy"]
    assert values("tab-3.18", "hashednet")["trainable"] is None
    assert values("tab-B.11", "hashednet")["trainable"] == "129,200"


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        (("tab-3.10", "gpt2-m-nola-qv-96k"), ("tab-3.12", "gpt2-m-r8-96k")),
        (("tab-3.10", "gpt2-m-nola-qv-48k"), ("tab-3.12", "gpt2-m-r8-48k")),
        (("tab-3.10", "gpt2-l-nola-qv-144k"), ("tab-3.12", "gpt2-l-r8-144k")),
        (("tab-3.10", "gpt2-l-nola-qv-144k"), ("tab-3.11", "nola-own-basis")),
        (("tab-3.10", "gpt2-l-nola-qv-144k"), ("tab-3.13", "nola-ptq-16")),
        (("tab-3.10", "gpt2-l-lora-r1"), ("tab-3.11", "lora-r1")),
        (("tab-3.10", "gpt2-l-lora-r1"), ("tab-3.13", "lora-ptq-16")),
    ],
)
def test_a_run_that_is_printed_in_two_tables_has_the_same_values_to_rounding(coarse, fine):
    for column in ("bleu", "nist", "meteor", "rouge-l", "cider"):
        printed = values(*coarse)[column]
        places = len(printed.partition(".")[2])
        assert abs(number(values(*fine)[column]) - number(printed)) <= 0.5 * 10**-places + 1e-9, column


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


@pytest.mark.parametrize("what", ["fig-3.7", "subspace", "notebooks/nola/subspace.ipynb", "nola-subspace"])
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
    with pytest.raises(EffbookError, match=r"did you mean tab-3\.1"):
        exhibit("tab-3.1")


def test_counts_are_printed_in_the_tables_own_unit():
    assert as_printed(49_152, "47K", 1 << 20) == "47K"
    assert as_printed(85_798_656, "82M", 1 << 20) == "82M"
    assert as_printed(350_016, "0.350M") == "0.350M"
    assert as_printed(12_876, "12,876") == "12,876"
    assert as_printed(57_344, "0.06M") == "0.06M"
    assert as_printed(96_000, "96K") == "96K"
    assert as_printed(0, "0") == "0"
    assert as_printed(393_216, "0.350M") == "0.393M"
