"""Tables for programs have exactly the promised columns; tables for people never lack the badge."""

import csv
import dataclasses
import io
import json
import re

import pytest
from recording import recorded
from rich.console import Console
from typer.testing import CliRunner

from effbook.chapters import CHAPTERS
from effbook.errors import EffbookError
from effbook.exhibits import (
    Look,
    chosen,
    entries,
    exhibit,
    measured_csv,
    recipe_of,
    register,
    reported_csv,
    show_errata,
    show_exhibits,
    show_terminal,
)
from effbook.exhibits import html as page
from effbook.exhibits.states import STATES
from effbook.runs import records


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """One cell of fig-3.7 and one count."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path))
    found = exhibit("fig-3.7")
    recipe = recipe_of(found, found.row("nola-d8"), found.column("n-16"))
    runs = [(dataclasses.replace(recipe, seed=s), {"coverage": v}) for s, v in enumerate((0.5, 0.75, 1.0))]
    counted = exhibit("tab-3.17")
    runs.append((recipe_of(counted, counted.row("pranc"), counted.column("trainable")), {"trainable": 11_376}))
    for run, metrics in runs:
        recorded(run, "paper", metrics)
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
    uncounted = {(f"{model}-nearest", "trainable") for model in ("vit-b", "vit-b-mae", "vit-l", "vit-l-mae")}
    assert blank == uncounted | {(row, "cub200-5"), (row, "cub200-10"), (row, "caltech101-10")}


def test_reported_csv_gives_every_value_as_printed():
    for exhibit_id, found in register().items():
        rows = list(csv.DictReader(io.StringIO(reported_csv(exhibit_id))))
        given = {(r["row"], r["column"]): r["value"] or None for r in rows}
        assert given == {(row.id, column): value for row in found.rows for column, value in row.values.items()}


def test_measured_csv_has_exactly_the_promised_columns(runs):
    lines = measured_csv("fig-3.7", "paper").splitlines()
    assert lines[0] == "exhibit,row,column,value,unit,seeds,spread,record,state"
    paths = " ".join(f"paper/nola/nola-subspace-{run.key}.json" for run in runs[:3])
    (line,) = [line.split(",") for line in lines[1:]]
    assert [*line[:6], *line[7:]] == ["fig-3.7", "nola-d8", "n-16", "0.75", "of d x d", "3", paths, "measured"]
    assert float(line[6]) == pytest.approx(4.302652730 * 0.25 / 3**0.5)


def test_measured_csv_of_nothing_is_its_header():
    assert measured_csv("fig-3.7", "mini") == "exhibit,row,column,value,unit,seeds,spread,record,state\n"


COUNTS = ["runs", "recorded", "rechecked", "stale", "state"]


def test_the_json_has_exactly_the_promised_keys():
    listed = [one.model_dump(mode="json") for one in entries()]
    json.dumps(listed, allow_nan=False)
    assert [one["id"] for one in listed] == list(register())
    keys = ["id", "kind", "title", "section", "chapter", "notebook", "reported", "why", "waits_for"]
    for one in listed:
        assert list(one) == [*keys, "systems", "profiles", "claims", "errata"]
        assert list(one["profiles"]) == ["smoke", "mini", "lab", "paper"]
        assert all(
            list(counts) == ["runs", "recorded", "rechecked", "stale", "state", "rows", "rows_measured"]
            for counts in one["profiles"].values()
        )
        assert {counts["state"] for counts in one["profiles"].values()} <= set(STATES)
        assert one["chapter"] in CHAPTERS
        assert one["errata"] == len(exhibit(one["id"]).errata)
        for claim in one["claims"]:
            assert list(claim) == ["id", "text", "verdicts"]
            assert set(claim["verdicts"].values()) <= {"holds", "fails", "undecided", "not run"}
    figure = next(one for one in listed if one["id"] == "fig-3.7")
    runs = {"runs": 126, "recorded": 3, "rechecked": 0, "stale": 0, "state": "partly"}
    assert figure["profiles"]["paper"] == runs | {"rows": len(exhibit("fig-3.7").rows), "rows_measured": 1}
    assert figure["reported"] is False
    assert figure["why"]


def test_a_whole_list_looks_at_each_record_and_each_file_of_code_once(monkeypatch):
    from effbook.exhibits import look

    read, looked, now = [], [], look.records.standing_and_attestation
    monkeypatch.setattr(look, "_read", lambda path, _: read.append(path) or records.read(path))
    monkeypatch.setattr(
        look.records,
        "standing_and_attestation",
        lambda record, sources: looked.append((record.key, sources)) or now(record, sources),
    )
    entries()
    assert len(read) == len(set(read)) == 4
    assert len(looked) == 4
    assert len({id(sources) for _, sources in looked}) == 1


def printed(exhibit_id, profile, look=None):
    console = Console(file=io.StringIO(), width=200)
    show_terminal(exhibit_id, profile, console, look)
    return console.file.getvalue()


def test_the_terminal_shows_reported_beside_measured_with_badge_verdicts_and_errata():
    text = printed("fig-3.7", "paper")
    assert re.search(r"\[paper\].*0\.750 ±0\.621", text)
    assert "not run" in text
    assert "erratum" in text
    text = printed("tab-3.17", "mini")
    assert re.search(r"\[mini\] .*11,376 \[paper, arithmetic\] differs", text)
    assert "12,752" in text


def test_arithmetic_is_shown_in_the_printed_digits_with_the_value_in_full_beside(runs):
    found = exhibit("tab-A.11")
    recipe = recipe_of(found, found.row("simclrv2"), found.column("flops"))
    metrics = {"mini_batch": 25395.2, "passes": 25395.2 * 249_600, "flops": 23_923_261_440_000_000_000}
    recorded(recipe, "paper", metrics)
    console = Console(file=io.StringIO(), width=300)
    show_terminal("tab-A.11", "mini", console)
    text = " ".join(console.file.getvalue().split())
    assert "[paper, arithmetic] 25395 differs 63.4 (63.39) differs 24 (23.92) differs" in text
    assert "[mini] not run" in text  # the other rows
    assert "Total passes [x 10^8]" in text
    html = page.html("tab-A.11", "mini", plot=False)
    assert re.search(r'title="23\.92">24</a> <small>differs', html)
    assert re.search(r'title="25,395">25395</a> <small>differs', html)
    lines = {line["column"]: line for line in csv.DictReader(io.StringIO(measured_csv("tab-A.11", "mini")))}
    assert [lines[column]["value"] for column in ("mini-batch", "passes", "flops")] == [
        "25395.2",
        "63.3864192",
        "23.92326144",
    ]
    assert lines["flops"]["unit"] == "x 10^18"


def test_a_whole_number_is_in_the_csv_to_the_digit(runs):
    found = exhibit("tab-3.14")
    recipe = recipe_of(found, found.row("70b-lora"), found.column("trainable"))
    metrics = {"trainable": 68_976_648_193}
    recorded(recipe, "paper", metrics)
    (line,) = csv.DictReader(io.StringIO(measured_csv("tab-3.14", "mini")))
    assert line["value"] == "68976648193"


@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_every_exhibit_is_shown(profile):
    look = Look()
    for exhibit_id, found in register().items():
        told = printed(exhibit_id, profile, look)
        assert found.title.split()[0] in told
        assert all(claim.text.split()[0] in told for claim in found.claims), exhibit_id


def listed(profile="mini", **words):
    console = Console(file=io.StringIO(), width=200)
    show_exhibits(profile, console, **words)
    return console.file.getvalue()


def test_the_list_begins_with_counts_of_exhibits_states_and_verdicts():
    lines = listed("paper").splitlines()
    tables, figures, prose = (sum(e.kind == kind for e in register().values()) for kind in ("table", "figure", "prose"))
    assert lines[0].startswith(
        f"{tables + figures} exhibits: {tables} tables, {figures} figures; counted apart, {prose} "
    )
    assert re.match(r"under paper: .*1 partly", lines[1])
    assert lines[2].startswith(f"{sum(len(e.claims) for e in register().values())} claims: ")
    assert lines[3] == f"{sum(len(e.errata) for e in register().values())} errata"


def test_the_list_is_narrowed_by_chapter_kind_state_and_verdict():
    assert "fig-3.7" in listed("paper", chapter="nola", kind="figure", state="partly")
    assert "fig-3.7" not in listed("paper", chapter="nola", kind="table")
    assert "tab-3.17" not in listed("paper", state="partly")
    everything = entries(("mini",))
    held = chosen(everything, "mini", verdict="holds")
    assert held == [e for e in everything if "holds" in e.verdicts("mini")]
    assert chosen(everything, "mini", chapter=None) == everything


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ({"chapter": "nolla"}, "did you mean nola"),
        ({"kind": "tabel"}, "did you mean table"),
        ({"state": "wating"}, "did you mean waiting"),
        ({"verdict": "hold"}, "did you mean holds"),
    ],
)
def test_a_word_that_nothing_can_be_is_refused_with_near_ones(words, near):
    with pytest.raises(EffbookError, match=near):
        chosen([], "mini", **words)


def test_the_terminal_spells_out_all_that_an_exhibit_holds(rich_exhibit):
    text = " ".join(printed(rich_exhibit.id, "mini").split())
    for part in (
        "waiting",
        "Form: bars",
        "Shows: Bars that climb.",
        "Across: method Upwards: accuracy Series: one; two Given in the text: All. Drawn anew by: The recipe.",
        "Waits for: The recipes of a chapter.",
        "70.1 (0.4)* 100 (x2)",
        "?[3]",
        "–[2]",
        "NOLA† own run",
        "LoRA[1] quoted",
        "* own augmentation",
        "† run again",
        "[1] Quoted from the LoRA paper.",
        "[2] Printed as a dash: nothing to train.",
        "disputed by the printed values",
        "erratum It says two. One.",
        "set right Row a: read '7O.1', taken as '70.1'. The sum.",
    ):
        assert part in text, part


def test_all_errata_are_printed_by_exhibit():
    console = Console(file=io.StringIO(), width=200)
    show_errata("nola", console)
    text = " ".join(console.file.getvalue().split())
    for one in register().values():
        for erratum in one.errata if one.chapter == "nola" else ():
            assert " ".join(erratum.text.split()) in text, one.id


def test_the_commands_print_what_the_functions_give():
    from effbook.cli import app

    run = CliRunner().invoke
    assert run(app, ["reported", "tab-3.12", "--csv"]).stdout == reported_csv("tab-3.12")
    assert run(app, ["measured", "fig-3.7", "--csv", "--profile", "paper"]).stdout == measured_csv("fig-3.7", "paper")
    assert [one["id"] for one in json.loads(run(app, ["exhibits", "--json"]).stdout)] == list(register())
    assert "tab-3.12" in run(app, ["exhibits"]).stdout
    assert "tab-3.12" not in run(app, ["exhibits", "--kind", "figure"]).stdout
    assert "erratum" in run(app, ["errata", "--chapter", "nola"]).stdout
    assert "E2E" in run(app, ["show", "tab-3.10"]).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "tab-3.100"],
        ["reported", "tab-3.12"],
        ["measured", "tab-3.12"],
        ["exhibits", "--state", "wating"],
        ["errata", "--chapter", "nolla"],
    ],
)
def test_a_command_that_cannot_be_met_says_so_in_a_sentence(arguments, capsys):
    from effbook.cli import main

    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("effbook: ")
    assert told.count("\n") == 1
