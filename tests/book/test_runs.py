"""What notebooks ask of the runs: their records, a sentence about them, a live demonstration."""

import pytest

from effbook import data
from effbook.book import ensure_runs, live, runs_in_words
from effbook.errors import EffbookError
from effbook.exhibits import html as page
from effbook.runs import records
from effbook.runs.recipe import make


@pytest.fixture(autouse=True)
def own_records(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))


def test_recorded_computes_nothing_missing_what_lacks_and_fresh_everything():
    assert ensure_runs("fig-3.7", profile="smoke", runs="recorded") == 4
    assert records.all_records("smoke") == []
    assert runs_in_words("fig-3.7", profile="smoke").startswith("0 of the 4 runs")
    ensure_runs("fig-3.7", profile="smoke", runs="missing")
    first = records.all_records("smoke")
    assert len(first) == 4
    assert runs_in_words("fig-3.7", profile="smoke").startswith("4 of the 4 runs")
    ensure_runs("fig-3.7", profile="smoke", runs="missing")
    assert records.all_records("smoke") == first
    ensure_runs("fig-3.7", profile="smoke", runs="fresh")
    again = records.all_records("smoke")
    assert [r.metrics for r in again] == [r.metrics for r in first]
    assert any(a.cost != b.cost for a, b in zip(again, first, strict=True))


def test_an_exhibit_without_runs_under_the_profile_adds_none_and_the_sentence_says_so():
    assert ensure_runs("tab-3.18", profile="mini", runs="missing") == 0
    assert runs_in_words("tab-3.18", profile="mini") == "Nothing of what is shown below has a run under mini."


def test_the_sentence_and_the_refusal_name_what_the_machine_lacks(monkeypatch):
    monkeypatch.setattr("effbook.runs.machine.gpu_bytes", lambda: None)
    assert "GPU" in runs_in_words("tab-3.11", profile="paper")
    assert "which this machine lacks" in runs_in_words("tab-3.11", profile="paper")
    with pytest.raises(EffbookError, match="which this machine lacks"):
        ensure_runs("tab-3.11", profile="paper", runs="missing")


def test_a_demonstration_takes_toy_data_where_the_real_cannot_be_had_and_says_so(monkeypatch, capsys):
    recipe = make("nola-vision", dataset="cifar10", method="nearest")
    assert live(recipe, "smoke").dataset == "toy-shapes"

    def refuse(name, **_):
        raise EffbookError(f"{name} is nowhere", "put it somewhere")

    monkeypatch.setattr(data, "fetch", refuse)
    assert live(recipe, "paper").dataset == "toy-shapes"
    assert capsys.readouterr().out == "cifar10 is nowhere: what follows shows toy data instead.\n"
    monkeypatch.setattr(data, "fetch", lambda name, **_: None)
    assert live(recipe, "paper").dataset == "cifar10"


def test_numbers_and_verdicts_in_running_text_carry_their_scale():
    assert page.value("fig-3.7", "nola-d8", "n-8", "smoke") == "not run"
    assert page.value("tab-3.10", "gpt2-m-prelayer", "bleu", "smoke") == "not measured"
    ensure_runs("fig-3.7", profile="smoke")
    assert page.value("fig-3.7", "nola-d8", "n-8", "smoke") == "1.00 [smoke]"  # d = 4 at smoke, and n = 2 d
    assert page.verdict("fig-3.7", "nola-saturates", "smoke").endswith("[smoke]")
