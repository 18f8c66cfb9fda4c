"""A register file says exactly what the format knows, and each value has its reason to be missing."""

import copy

import pytest
import yaml

from effbook.errors import EffbookError
from effbook.exhibits.register import read
from effbook.exhibits.schema import Exhibit


def written(tmp_path, fields):
    path = tmp_path / f"{fields['id']}.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return path


def change(fields, *place, value):
    changed = copy.deepcopy(fields)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return changed


def test_a_valid_file_is_read(tmp_path, fields):
    assert read(written(tmp_path, fields)).row("a").values["accuracy"] == "70.1"


@pytest.mark.parametrize(
    "place", [("colour",), ("rows", 0, "colour"), ("columns", 1, "colour"), ("claims", 0, "all", 0, "colour")]
)
def test_an_unknown_key_is_refused_in_a_sentence_with_file_and_key(tmp_path, fields, place):
    with pytest.raises(EffbookError, match=r"^tab-9\.1\.yaml: unknown key 'colour'.*; correct the file\.$"):
        read(written(tmp_path, change(fields, *place, value="red")))


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("rows", 0, "values", "accuracy"), 70.10, "valid string"),  # unquoted, YAML would drop the printed zero
        (("rows", 0, "values", "accuracy"), "about 70", "not a number as printed"),
        (("rows", 1, "notes"), {}, "notes must give the reason"),
        (("rows", 0, "values", "speed"), "1", "names the column speed"),
        (("rows", 0, "recipe"), None, "waits_for must say"),
        (("rows", 0, "recipe"), {"d": 8}, "a recipe needs its name"),
        (("rows", 1, "id"), "a", "row a is there twice"),
        (("claims", 0, "all", 0, "left", "row"), "c", "there is no cell c / accuracy"),
        (("claims", 0, "all"), [], "give tests under"),
        (("claims", 0, "all", 0, "op"), "==", "'>'"),
        (("id",), "table-9.1", "pattern"),
        (("kind",), "figure", "starts with fig-"),
        (("systems",), ["nolla"], "nola"),
        (("rows", 0, "origin"), "stolen", "own"),
        (("rows", 0, "footnotes"), {"accuracy": "*"}, "not spelled out"),
        (("rows", 0, "footnotes"), {"speed": "*"}, "names the column speed"),
        (("columns", 1, "setting"), True, "a setting has no metric"),
        (("columns", 1, "per"), {"d": 8}, "per needs a metric and a recipe's name"),
        (("columns", 1, "follows"), {"name": "nola-count", "fields": ["d"]}, "is arithmetic"),
        (("figure",), {"form": "curve", "shows": "a line", "given": "none", "drawn_by": "nobody"}, "nothing else does"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_sentence(tmp_path, fields, place, value, sentence):
    with pytest.raises(EffbookError, match=sentence) as caught:
        read(written(tmp_path, change(fields, *place, value=value)))
    assert str(caught.value).count("\n") == 0


def test_a_setting_may_be_any_text_and_no_claim_reads_it(tmp_path, fields):
    fields["columns"].append({"id": "epochs", "label": "Epochs", "setting": True})
    fields["rows"][0]["values"]["epochs"] = "200 (x2)"
    assert read(written(tmp_path, fields)).row("a").values["epochs"] == "200 (x2)"
    with pytest.raises(EffbookError, match="epochs is a setting"):
        read(written(tmp_path, change(fields, "claims", 0, "all", 0, "left", "column", value="epochs")))


def test_a_quoted_row_that_nobody_here_runs_gets_no_verdict(tmp_path, fields):
    fields["rows"][1] |= {"origin": "quoted", "recipe": None}
    with pytest.raises(EffbookError, match="quoted and never measured"):
        read(written(tmp_path, fields))
    fields["claims"] = []
    assert read(written(tmp_path, fields)).row("b").origin == "quoted"


def test_rows_without_a_recipe_wait_for_what_their_exhibit_waits_for(tmp_path, fields):
    fields["rows"][0]["recipe"] = None
    found = read(written(tmp_path, fields | {"waits_for": "The recipes of the chapter."}))
    assert found.missing(found.row("a")) == "The recipes of the chapter."


def test_an_exhibit_without_values_says_why(tmp_path, fields):
    for row in fields["rows"]:
        row["values"], row["spreads"], row["notes"] = {}, {}, {}
    with pytest.raises(EffbookError, match="why must say"):
        read(written(tmp_path, fields))
    assert not read(written(tmp_path, fields | {"why": "A drawing."})).reported


def test_a_key_that_is_there_twice_is_refused_with_its_line(tmp_path, fields):
    path = written(tmp_path, fields)
    path.write_text(path.read_text() + "title: Another\n")
    with pytest.raises(EffbookError, match=r"tab-9\.1\.yaml, line \d+: the key 'title' is there twice"):
        read(path)


def test_a_file_that_is_no_yaml_is_refused_with_its_line(tmp_path):
    path = tmp_path / "tab-9.1.yaml"
    path.write_text("id: [tab\nkind: table\n")
    with pytest.raises(EffbookError, match=r"tab-9\.1\.yaml, line \d+"):
        read(path)


def test_a_file_named_after_another_exhibit_is_refused(tmp_path, fields):
    path = written(tmp_path, fields).rename(tmp_path / "tab-9.2.yaml")
    with pytest.raises(EffbookError, match=r"name the file tab-9\.1\.yaml"):
        read(path)


def test_over_stands_for_one_test_a_column(fields):
    one = {"left": {"row": "a", "column": "*"}, "right": {"row": "b", "column": "*"}, "op": ">"}
    fields["claims"][0]["all"] = [one | {"over": ["accuracy", "trainable"]}]
    tests = Exhibit.model_validate(fields).claims[0].tests
    assert [(t.left.column, t.right.column) for t in tests] == [("accuracy",) * 2, ("trainable",) * 2]


def test_the_recipe_of_arithmetic_follows_from_the_rows_as_its_column_says_unless_the_row_has_its_own(fields):
    fields["columns"][0] |= {
        "follows": {"name": "nola-count", "fields": ["method", "rank"]},
        "recipe": {"target": "all"},
    }
    fields["rows"][1]["count"] = {"name": "nola-count", "model": "gpt2-l"}
    found = Exhibit.model_validate(fields)
    made = [found.recipe_fields(row, found.column("trainable")) for row in found.rows]
    assert made == [
        {"name": "nola-count", "method": "nola", "target": "all"},
        {"name": "nola-count", "model": "gpt2-l", "target": "all"},
    ]
    del fields["columns"][0]["follows"]
    assert (
        Exhibit.model_validate(fields).recipe_fields(found.row("a"), Exhibit.model_validate(fields).columns[0]) is None
    )
