"""Tables for programs have exactly the promised columns; tables for people never lack the badge."""

import csv
import dataclasses
import io
import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from effbook.exhibits import exhibit, exhibits_json, measured_csv, recipe_of, register, reported_csv, show_terminal
from effbook.experiments import records
from effbook.experiments.fingerprint import fingerprint
from effbook.experiments.recipe import Result
from effbook.experiments.records import CostOf


@pytest.fixture(autouse=True)
def recorded(tmp_path, monkeypatch):
    """One cell of fig-3.7 and one count."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path))
    found = exhibit("fig-3.7")
    recipe = recipe_of(found, found.row("nola-d8"), found.column("n-16"))
    runs = [(dataclasses.replace(recipe, seed=s), {"coverage": v}) for s, v in enumerate((0.5, 0.75, 1.0))]
    counted = exhibit("tab-3.17")
    runs.append((recipe_of(counted, counted.row("pranc"), counted.column("trainable")), {"trainable": 11_376}))
    for run, metrics in runs:
        cost = CostOf(wall_seconds=1.0, peak_memory_bytes=1)
        records.write(run, "paper", Result(metrics=metrics), fingerprint=fingerprint(run.modules()), cost=cost)
    return [run for run, _ in runs]


def test_reported_csv_has_exactly_the_promised_columns():
    lines = reported_csv("tab-3.17").splitlines()
    assert lines == [
        "exhibit,row,column,value,unit",
        'tab-3.17,trained,trainable,"269,722",parameters',
        "tab-3.17,trained,accuracy,88.92,%",
        'tab-3.17,pranc,trainable,"12,752",parameters',
        "tab-3.17,pranc,accuracy,81.5,%",
        'tab-3.17,lora,trainable,"13,295",parameters',
        "tab-3.17,lora,accuracy,81.5,%",
        'tab-3.17,nola,trainable,"12,876",parameters',
        "tab-3.17,nola,accuracy,82.4,%",
    ]


def test_a_value_that_our_text_lacks_is_an_empty_field():
    rows = list(csv.DictReader(io.StringIO(reported_csv("tab-3.15"))))
    blank = {(r["row"], r["column"]) for r in rows if r["value"] == ""}
    row = "vit-l-mae-nola-mlp-94k"
    assert blank == {(row, "cub200-5"), (row, "cub200-10"), (row, "caltech101-10")}


@pytest.mark.parametrize("exhibit_id", list(register()))
def test_reported_csv_gives_every_value_as_printed(exhibit_id):
    rows = list(csv.DictReader(io.StringIO(reported_csv(exhibit_id))))
    found = exhibit(exhibit_id)
    given = {(r["row"], r["column"]): r["value"] or None for r in rows}
    assert given == {(row.id, column): value for row in found.rows for column, value in row.values.items()}


def test_measured_csv_has_exactly_the_promised_columns(recorded):
    lines = measured_csv("fig-3.7", "paper").splitlines()
    assert lines[0] == "exhibit,row,column,value,unit,seeds,spread,record"
    paths = " ".join(f"paper/nola/nola-subspace-{run.key}.json" for run in recorded[:3])
    (line,) = [line.split(",") for line in lines[1:]]
    assert [*line[:6], line[7]] == ["fig-3.7", "nola-d8", "n-16", "0.75", "of d x d", "3", paths]
    assert float(line[6]) == pytest.approx(4.302652730 * 0.25 / 3**0.5)


def test_measured_csv_of_nothing_is_its_header():
    assert measured_csv("fig-3.7", "mini") == "exhibit,row,column,value,unit,seeds,spread,record\n"


def test_the_json_has_exactly_the_promised_keys():
    listed = exhibits_json()
    json.dumps(listed, allow_nan=False)
    assert [one["id"] for one in listed] == list(register())
    for one in listed:
        keys = ["id", "kind", "title", "section", "notebook", "reported", "why", "systems", "profiles", "claims"]
        assert list(one) == keys
        assert list(one["profiles"]) == ["smoke", "mini", "lab", "paper"]
        assert all(list(counts) == ["runs", "recorded", "stale"] for counts in one["profiles"].values())
        for claim in one["claims"]:
            assert list(claim) == ["id", "text", "verdicts"]
            assert set(claim["verdicts"].values()) <= {"holds", "fails", "undecided", "not run"}
    figure = next(one for one in listed if one["id"] == "fig-3.7")
    assert figure["profiles"]["paper"] == {"runs": 126, "recorded": 3, "stale": 0}
    assert figure["reported"] is False
    assert figure["why"]


def printed(exhibit_id, profile):
    console = Console(file=io.StringIO(), width=200)
    show_terminal(exhibit_id, profile, console)
    return console.file.getvalue()


def test_the_terminal_shows_reported_beside_measured_with_badge_verdicts_and_errata():
    text = printed("fig-3.7", "paper")
    assert re.search(r"\[paper\].*0\.750 ±0\.621", text)
    assert "not run" in text
    assert "erratum" in text
    text = printed("tab-3.17", "mini")
    assert re.search(r"\[mini\] .*11,376 \[paper, arithmetic\] differs", text)
    assert "12,752" in text


@pytest.mark.parametrize("exhibit_id", list(register()))
@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_every_exhibit_is_shown(exhibit_id, profile):
    text = printed(exhibit_id, profile)
    assert exhibit(exhibit_id).claims[0].text.split()[0] in text


def test_the_commands_print_what_the_functions_give():
    from effbook.cli import app

    run = CliRunner().invoke
    assert run(app, ["reported", "tab-3.12", "--csv"]).stdout == reported_csv("tab-3.12")
    assert run(app, ["measured", "fig-3.7", "--csv", "--profile", "paper"]).stdout == measured_csv("fig-3.7", "paper")
    assert [one["id"] for one in json.loads(run(app, ["exhibits", "--json"]).stdout)] == list(register())
    assert "tab-3.12" in run(app, ["exhibits"]).stdout
    assert "E2E" in run(app, ["show", "tab-3.10"]).stdout


@pytest.mark.parametrize("arguments", [["show", "tab-3.100"], ["reported", "tab-3.12"], ["measured", "tab-3.12"]])
def test_a_command_that_cannot_be_met_says_so_in_a_sentence(arguments, capsys):
    from effbook.cli import main

    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("effbook: ")
    assert told.count("\n") == 1
