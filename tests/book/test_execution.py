"""Executing the book's notebooks: what runs again, what is said, and what several failures are told as."""

import pytest

from effbook.book import execution
from effbook.errors import EffbookError

NAMES = ["notebooks/a.ipynb", "notebooks/b.ipynb", "notebooks/c.ipynb"]


@pytest.fixture
def root(tmp_path, monkeypatch, write_notebook):
    (tmp_path / "notebooks").mkdir()
    for name in NAMES:
        write_notebook(tmp_path / name)
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(execution, "CODE", (".none",))
    return tmp_path


@pytest.fixture
def run(root, monkeypatch):
    """run(failing={name: error}) -> (names that ran, lines said); what was said before an error is in `run.said`."""
    failing = {}

    def in_reverse(jobs, *, at_a_time):
        assert at_a_time == 2
        for job in reversed(jobs):  # the last ends first
            error = failing.get(job.path.name)
            if not error:
                job.out.parent.mkdir(parents=True, exist_ok=True)
                job.out.write_text("executed")
            yield job, error

    def call(**given):
        failing.clear()
        failing.update(given.pop("failing", {}))
        call.said = []
        return execution.execute(root, NAMES, profile="mini", work=root / "work", say=call.said.append, jobs=2, **given)

    monkeypatch.setattr(execution, "run_notebooks", in_reverse)
    return call


def test_only_what_changed_runs_again_unless_all_is_asked_for(run, root, write_notebook):
    assert run() == NAMES
    assert run() == []
    write_notebook(root / NAMES[1], more=["print('changed')"])
    assert run() == NAMES[1:2]
    assert run.said == ["2 of 3 notebooks: unchanged", "[1/1] notebooks/b.ipynb: executed"]
    assert run(fresh=True) == NAMES
    (root / "records").mkdir()
    (root / "records" / "rechecked.jsonl").write_text("{}\n")  # changes the state that pages tell
    assert run() == NAMES


def test_a_failure_is_told_as_it_is_and_leaves_the_others_done(run):
    with pytest.raises(EffbookError, match="b broke; mend it"):
        run(failing={"b.ipynb": EffbookError("b broke", "mend it")})
    assert [line.partition(": ")[2] for line in run.said] == ["executed", "failed: b broke; mend it.", "executed"]
    assert run() == NAMES[1:2]


def test_of_several_failures_the_first_in_the_books_order_is_the_cause_and_all_are_said(run):
    with pytest.raises(EffbookError, match=r"2 of 3 notebooks failed, the first because: OSError: disk"):
        run(failing={"a.ipynb": OSError("disk"), "c.ipynb": EffbookError("c broke", "mend it")})
    assert sum("failed" in line for line in run.said) == 2
