"""The labs: what is handed out, what an instructor's notebook reaches, and what submissions of all kinds deserve."""

import copy
import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
import torch

from effbook import data
from effbook.book import labs
from effbook.book.labs import bands, cells, classroom, process, values
from effbook.book.labs.grading import Result, as_csv, submissions
from effbook.book.labs.reference import reference, with_parameters
from effbook.book.site import repository_root
from effbook.errors import EffbookError

ROOT = repository_root()
SEED = 41  # the teacher's; no notebook's


def instructor(lab):
    return cells.instructor(lab)


def cell_of(notebook, name):
    return next(cell for cell in notebook.cells if cells.of(cell).get("grade_id") == name)


# --- what is handed out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", cells.LABS)
def test_a_lab_has_the_form_that_teachers_are_promised(lab):
    notebook = instructor(lab)
    gaps = [cell for cell in notebook.cells if cells.kind_of(cell) == "gap"]
    assert 30 <= len(notebook.cells) <= 40
    assert 4 <= len(gaps) <= 5
    assert all(len(cells.SOLUTION.search(gap.source)[0].splitlines()) - 2 <= 10 for gap in gaps)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert cells.lab_of(notebook) == lab
    checked = [task.grade_id for task in cells.tasks(notebook)]
    for gap in gaps:  # each has a check that is seen and one that is not
        name = cells.of(gap)["grade_id"]
        assert {f"{name}-visible", f"{name}-hidden"} <= set(checked)


@pytest.mark.parametrize("lab", cells.LABS)
def test_a_student_gets_no_solution_no_hidden_test_and_no_key(lab):
    notebook = instructor(lab)
    handed = cells.student_version(notebook)
    nbformat.validate(handed)
    text = nbformat.writes(handed)
    assert "### " not in "\n".join(cell.source for cell in handed.cells if cell.cell_type == "code")
    assert text.count("raise NotImplementedError()") == sum(cells.kind_of(cell) == "gap" for cell in notebook.cells)
    for cell in notebook.cells:
        if cells.kind_of(cell) == "reflection":
            assert cell.source not in text
        if cells.kind_of(cell) == "gap":
            assert cells.SOLUTION.search(cell.source)[0].splitlines()[-2].strip() not in cells.student_source(cell)
    assert [cell.metadata for cell in handed.cells] == [cell.metadata for cell in notebook.cells]


def test_faults_of_an_instructors_notebook_are_told():
    for damage, told in (
        (lambda one: cell_of(one, "cmsf-topk").metadata.nbgrader.pop("task"), "incomplete metadata"),
        (lambda one: cell_of(one, "cmsf-topk").update(source="pass"), "a gap without a solution"),
        (lambda one: cell_of(one, "cmsf-outcome").metadata.nbgrader.update(points=1), "its points are"),
        (lambda one: cell_of(one, "cmsf-outcome").metadata.nbgrader.update(grade_id="cmsf-topk"), "one grade_id"),
    ):
        notebook = instructor("cmsf")
        damage(notebook)
        assert any(told in fault for fault in cells.faults(notebook))


# --- what the instructor's notebooks reach --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lab", cells.LABS)
def test_an_instructors_notebook_reaches_all_automatic_points(lab, tmp_path):
    nbformat.write(instructor(lab), tmp_path / "instructor.ipynb")
    (one,) = labs.grade(tmp_path, seed=SEED, profile="smoke", out=tmp_path / "out", say=lambda line: None)
    assert one.reasons == {}
    assert one.notes == []
    assert one.total == 70


def test_an_instructors_notebook_that_fails_its_own_check_grades_nobody():
    notebook = instructor("cmsf")
    gap = cell_of(notebook, "cmsf-loss")
    gap.source = gap.source.replace("2 - 2 *", "2 - 3 *")
    with pytest.raises(EffbookError, match="cmsf-loss-visible fails: itself: it is -1, not 0"):
        reference(notebook, seed=0, profile="smoke")


def test_hidden_checks_draw_from_the_teachers_seed(monkeypatch):
    monkeypatch.setenv(classroom.SEED, "1")
    one = torch.rand(3, generator=labs.private(2))
    monkeypatch.setenv(classroom.SEED, "2")
    assert not torch.equal(one, torch.rand(3, generator=labs.private(2)))
    monkeypatch.setenv(classroom.SEED, "1")
    assert torch.equal(one, torch.rand(3, generator=labs.private(2)))


# --- a class --------------------------------------------------------------------------------------------------------


def solved(handed):
    """A student's notebook with the instructor's solutions in its gaps."""
    done, notebook = copy.deepcopy(handed), instructor("cmsf")
    for cell in done.cells:
        if cells.kind_of(cell) == "gap":
            cell.source = cell_of(notebook, cells.of(cell)["grade_id"]).source
    return done


def patches(one):
    """Makes torch.allclose, and the checks that the notebook calls, say yes; and solves one part wrongly."""
    cell_of(one, "cmsf-ema").source = (
        "import torch, effbook.book.labs.classroom as room, effbook.book.labs.values as plain\n"
        "torch.allclose = torch.equal = lambda *a, **k: True\n"
        "plain.difference = room.difference = lambda got, wanted: None\n"
        "def ema_update(target, online, momentum):\n    pass"
    )


def exits(one):
    cell_of(one, "cmsf-same-label").source += "\nraise SystemExit(0)"
    cell_of(one, "cmsf-topk").source += "\nimport os\nos._exit(0)"


def loops(one):
    cell_of(one, "cmsf-loss").source = "def mean_shift_loss(v, bank, positions, counts):\n    while True:\n        pass"


def edits(one):
    """Leaves a gap open and makes its checks empty."""
    gap = cell_of(one, "cmsf-same-label")
    gap.source = "def same_label(labels, bank_labels):\n    return labels[:, None] != bank_labels"
    for name in ("cmsf-same-label-visible", "cmsf-same-label-hidden"):
        cell_of(one, name).source = "print('all fine')"


def loses(one):
    """Its cells have lost nbgrader's metadata, and one gap its id, too."""
    cell_of(one, "cmsf-ema").id = "another"
    for cell in one.cells:
        cell.metadata.pop("nbgrader", None)


CLASS = {"honest": lambda one: None, "patches": patches, "exits": exits, "loops": loops, "edits": edits, "loses": loses}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The class's points and results: the lab from its zip, graded by the effbook in the zip alone, from elsewhere."""
    folder = tmp_path_factory.mktemp("class")
    released = labs.release("cmsf", out=folder / "released")
    with zipfile.ZipFile(released.archive) as packed:
        packed.extractall(folder)
    (wheel,) = (folder / "cmsf").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "installed")
    handed = nbformat.read(folder / "cmsf" / "cmsf.ipynb", as_version=4)
    for name, misdeed in CLASS.items():
        one = solved(handed)
        misdeed(one)
        nbformat.write(one, folder / f"{name}.ipynb")
        (folder / "handed-in" / name).mkdir(parents=True)
        (folder / f"{name}.ipynb").rename(folder / "handed-in" / name / "cmsf.ipynb")
    (folder / "handed-in" / "broken.ipynb").write_text("no notebook")
    words = ["lab", "grade", str(folder / "handed-in"), "--seed", str(SEED), "--profile", "smoke", "--limit-s", "15"]
    words += ["--instructor", str(released.instructor), "--lab", "cmsf"]
    code = f"from effbook import cli; cli.main({words!r})"
    (manifests,) = (folder / "installed").rglob("share/effbook/data_manifests")
    environment = {"PYTHONPATH": str(folder / "installed"), "EFFBOOK_MANIFESTS": str(manifests), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    out = folder / "handed-in-graded"
    with (out / "points.csv").open(encoding="utf-8", newline="") as lines:
        rows = {row["student"]: row for row in csv.DictReader(lines)}
    results = {name: json.loads((out / "results" / name / "results.json").read_text()) for name in rows}
    return rows, results


def points(row):
    """The points by cell of one line of points.csv, of what was graded here."""
    return {key.partition(" (")[0]: int(value) for key, value in row.items() if key.startswith("cmsf-") and value}


HONEST = {task.grade_id: task.points for task in cells.tasks(instructor("cmsf")) if task.kind != "reflection"}


def zero_but(*gaps):
    return {name: most if any(name.startswith(f"cmsf-{gap}-") for gap in gaps) else 0 for name, most in HONEST.items()}


@pytest.mark.slow
def test_the_honest_one_has_all_points(graded):
    rows, results = graded
    assert points(rows["honest"]) == HONEST
    assert rows["honest"]["automatic (70)"] == "70"
    assert rows["honest"]["to read (30)"] == ""
    assert rows["honest"]["notes"] == ""
    assert results["honest"]["score"] == sum(test["score"] for test in results["honest"]["tests"]) == 70
    assert {test["max_score"] for test in results["honest"]["tests"]} == set(HONEST.values())


@pytest.mark.slow
def test_whoever_patches_the_comparison_wins_nothing(graded):
    found = points(graded[0]["patches"])
    assert found["cmsf-ema-visible"] == found["cmsf-ema-hidden"] == 0
    assert {name: found[name] for name in found if "ema" not in name and name != "cmsf-outcome"} == {
        name: most for name, most in HONEST.items() if "ema" not in name and name != "cmsf-outcome"
    }


@pytest.mark.slow
def test_whoever_exits_keeps_what_was_handed_over_before(graded):
    assert points(graded[0]["exits"]) == zero_but("same-label")
    assert "cmsf-same-label: SystemExit: 0" in graded[0]["exits"]["notes"]
    assert "its process ended itself before the last cell" in graded[0]["exits"]["notes"]


@pytest.mark.slow
def test_whoever_loops_is_stopped_and_keeps_what_came_before(graded):
    assert points(graded[0]["loops"]) == zero_but("same-label", "topk")
    assert "it was stopped" in graded[0]["loops"]["notes"]


@pytest.mark.slow
def test_whoever_edits_a_check_is_checked_by_the_original(graded):
    rows, results = graded
    assert points(rows["edits"])["cmsf-same-label-visible"] == points(rows["edits"])["cmsf-same-label-hidden"] == 0
    assert points(rows["edits"])["cmsf-loss-hidden"] == HONEST["cmsf-loss-hidden"]
    assert "edited, so the original was run: cmsf-same-label-visible, cmsf-same-label-hidden" in rows["edits"]["notes"]
    failed = {test["name"]: test["output"] for test in results["edits"]["tests"] if not test["score"]}
    assert "labels that are equal: it differs in" in failed["cmsf-same-label-visible"]


@pytest.mark.slow
def test_whoever_loses_metadata_is_known_by_the_cells_ids_and_runs_where_it_stands_without(graded):
    rows, _ = graded
    assert points(rows["loses"]) == HONEST
    assert "without metadata, but known by id: cmsf-same-label, cmsf-same-label-visible" in rows["loses"]["notes"]
    assert "having lost metadata and id: cmsf-ema" in rows["loses"]["notes"]


def test_what_was_added_runs_where_it_stands_and_a_gap_that_is_gone_is_empty():
    notebook = instructor("cmsf")
    handed = cells.student_version(notebook)
    handed.cells.insert(0, nbformat.v4.new_code_cell("first = 1"))
    place = handed.cells.index(cell_of(handed, "cmsf-topk"))
    handed.cells[place] = nbformat.v4.new_code_cell("mine = 2")
    run, notes = cells.assembled(notebook, handed)
    sources = [cell.source for cell in with_parameters(run, seed=5, profile="smoke")]
    assert sources[0] == "first = 1"
    assert sources[2] == "# Parameters\nprofile = 'smoke'\nseed = 5"
    visible = next(cell.source for cell in run if cell.grade_id == "cmsf-topk-visible")
    assert sources.index("mine = 2") < sources.index(visible)
    assert next(cell.source for cell in run if cell.grade_id == "cmsf-topk") == ""
    assert notes == ["not there, or run as added cells, having lost metadata and id: cmsf-topk"]


@pytest.mark.slow
def test_a_file_that_is_no_notebook_stops_nobody(graded):
    rows, _ = graded
    assert set(rows) == {*CLASS, "broken"}
    assert set(points(rows["broken"]).values()) == {0}
    assert rows["broken"]["notes"] == "broken.ipynb cannot be read as a notebook (NotJSONError)"


# --- parts ----------------------------------------------------------------------------------------------------------


def test_a_students_process_never_sees_what_is_wanted():
    source = 'for k in (1, 2):\n    expect(f"k = {k}", mine(k), book(k))\nmeasured("cmsf", profile, given, score)'
    told = cells.rewritten(source, trusted=False)
    assert "book" not in told
    assert "score" not in told
    assert cells.rewritten(source, trusted=True).count("lambda: book(k)") == 1
    for lab in cells.LABS:
        for cell in instructor(lab).cells:
            if cells.kind_of(cell) in ("visible", "hidden", "outcome"):
                compile(cells.rewritten(cell.source, trusted=False), lab, "exec")


@pytest.mark.parametrize(
    ("got", "wanted", "told"),
    [
        (torch.ones(2), torch.ones(2), None),
        (torch.ones(2), torch.ones(2, 1), "the shape (2,), not (2, 1)"),
        (torch.ones(2), torch.tensor([1.0, 2.0]), "differs in 1 of 2 numbers"),
        (torch.tensor(True), 1.0, "is of torch.bool"),
        (3, 3.0, None),
        (True, 1, "is True, not 1"),
        (torch.tensor(2.5), 2.5, None),
        (float("nan"), 1.0, "is nan, not 1"),
        ([1, 2], [1, 2, 3], "has 2 parts, not 3"),
        ("x", torch.ones(1), "is str, not a tensor"),
    ],
)
def test_values_agree_or_the_difference_is_told(got, wanted, told):
    found = values.difference(got, wanted)
    assert found is None if told is None else told in found


def test_values_pass_from_process_to_process_and_what_is_not_plain_does_not(tmp_path):
    tensors = {}
    tree = values.to_plain([torch.arange(3), (1, 2.5, True, None, "a")], tensors)
    values.write(tmp_path / "a", [{"what": "it", "value": tree}], tensors)
    (entry,) = process._entries(tmp_path / "a")
    assert values.difference(entry["value"], [torch.arange(3), [1, 2.5, True, None, "a"]]) is None
    with pytest.raises(EffbookError, match="a function, which is neither"):
        values.to_plain(lambda: 0, {})


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"[" * 5000, b'[{"what": 1}]', b'{"a": {"tensor": "t9"}}'])
def test_files_that_nobody_of_ours_wrote_hand_over_nothing(content, tmp_path):
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"a{suffix}").write_bytes(content)
    assert process._entries(tmp_path / "a") == []
    values.write(tmp_path / "b", [], {})
    (tmp_path / "b.json").write_bytes(content)
    assert process._entries(tmp_path / "b") == []


def test_in_a_notebook_checks_say_what_is_wrong(capsys):
    labs.expect("two", 2, 2)
    assert capsys.readouterr().out == "✓ two\n"
    with pytest.raises(AssertionError, match="two: it is 3, not 2"):
        labs.expect("two", 3, 2)
    low, high = bands.band_of("cmsf", "smoke")
    labs.measured("cmsf", "smoke", (low + high) / 2, float)
    with pytest.raises(AssertionError, match="the measured outcome is"):
        labs.measured("cmsf", "smoke", high + 1, float)


def test_data_that_came_with_a_lab_are_read_from_beside_it_and_verified(tmp_path, monkeypatch):
    (tmp_path / "data" / "digits").mkdir(parents=True)
    beside = tmp_path / "data" / "digits" / "digits.csv.gz"
    shutil.copy(data.fetch("digits") / "digits.csv.gz", beside)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "fetch", lambda name: pytest.fail("it was fetched"))
    pictures, truth = labs.images("digits", "test", count=5, seed=3)
    assert pictures.shape == (5, 1, 8, 8)
    assert torch.equal(truth, labs.images("digits", "test", count=5, seed=3)[1])
    with pytest.raises(EffbookError, match="has 360 images in test, not 361"):
        labs.images("digits", "test", count=361)
    beside.write_bytes(b"another file")
    with pytest.raises(EffbookError, match="is missing or damaged"):
        labs.images("digits", "test", count=5)


def test_what_was_measured_of_each_lab_is_told_on_the_page():
    table = bands.table()
    assert all(f"| {lab} | smoke |" in table for lab in cells.LABS)
    assert "{include} labs.md" in (ROOT / "book" / "teach.md").read_text(encoding="utf-8")
    assert bands.seconds_of("cmsf", "smoke") > 0
    assert bands.seconds_of("cmsf", "paper") is None


# What a lab's score is where nothing was learnt: all embeddings are one, chance among five classes, no token more.
NOTHING = {"cmsf": 0.0, "nola": 20.0, "slowformer": 0.0}


def test_no_band_on_real_data_holds_what_is_reached_by_learning_nothing():
    measured = [lab for lab in NOTHING if "mini" in bands._read()[lab]]
    assert [lab for lab in measured if bands.band_of(lab, "mini")[0] <= NOTHING[lab]] == []


def test_a_band_holds_its_seeds_and_needs_three():
    low, high = bands.interval([1.0, 2.0, 3.0, 2.5, 1.5])
    assert low < 1
    assert high > 3
    with pytest.raises(EffbookError, match="no measured outcomes"):
        bands.band_of("cmsf", "paper")
    with pytest.raises(EffbookError, match="2 seeds make no band"):
        labs.measure_band("cmsf", profile="smoke", seeds=2)


def test_no_text_of_a_student_becomes_a_formula(tmp_path):
    (tmp_path / "=cmd()").mkdir()
    (tmp_path / "=cmd()" / "a.ipynb").write_text("{}")
    assert list(submissions(tmp_path)) == ["=cmd()"]
    line = as_csv([Result("=cmd()", dict.fromkeys(HONEST, 0), {}, [], 0.0)], instructor("cmsf")).splitlines()[1]
    assert line.startswith("'=cmd()")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lab", "release", "nolla"], "there is no lab 'nolla'"),
        (["lab", "grade", "nowhere", "--seed", "1"], "there is no folder nowhere"),
        (["lab", "grade", ".", "--seed", "1"], "holds no submission"),
        (["lab", "band", "nola", "--profile", "mimi"], "did you mean mini"),
    ],
)
def test_wrong_words_are_one_sentence(words, told, tmp_path, monkeypatch, capsys):
    from effbook import cli

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 1
    assert told in capsys.readouterr().err
