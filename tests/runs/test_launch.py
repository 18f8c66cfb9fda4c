"""Launchers: one run in plain values, room on a machine, shards, Slurm's script, and records from elsewhere."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plain_recipe import Plain

from effbook.errors import EffbookError
from effbook.runs import intake, machine, one, orders, records, shards, slurm
from effbook.runs.batch import RunsFailedError, execute_all
from effbook.runs.execute import execute, work_folder
from effbook.runs.machine import GIB, Card
from effbook.runs.slots import Slots

HERE = Path(__file__).parent


def numbers(found):
    """What may not depend on who ran it, and where."""
    return [(record.recipe, record.profile, record.metrics, record.series, record.artifacts) for record in found]


def test_one_run_is_asked_for_by_name_and_comes_back_as_the_bytes_of_its_files(folders):
    files = one.run_one("plain", {"seed": 3, "steps": 2}, "smoke", modules=["plain_recipe"])
    key = Plain(seed=3, steps=2).key
    record = json.loads(files[f"smoke/nola/plain-{key}.json"])
    assert record["metrics"] == {"sum": 4}
    assert files[f"smoke/nola/{record['artifacts']['picture']['path']}"] == b"seed 3"
    assert f"code/{record['provenance']['fingerprint']}.json" in files
    assert {path: (folders[0] / path).read_bytes() for path in files} == files


def test_an_order_is_plain_json_and_its_answer_tells_what_went_wrong(folders, monkeypatch):
    order = json.loads(json.dumps(orders.order_of(Plain(seed=1, need=("program:no-such",)), "smoke", None)))
    assert isinstance(one.failure_in(one.answer(order)), EffbookError)
    monkeypatch.setenv("PLAIN_FAIL", "1")
    failure = one.failure_in(one.answer(orders.order_of(Plain(seed=1), "smoke", None)))
    assert str(failure) == "ValueError: it was told to fail"


def test_a_work_folder_is_the_same_wherever_the_record_is_to_lie(folders, tmp_path, monkeypatch):
    before = work_folder(Plain(), "smoke")
    monkeypatch.setenv("PLAIN_FAIL", "0")
    with pytest.raises(ValueError, match="told to fail"):
        execute(Plain(), profile="smoke")
    assert (before / "state.txt").read_text().split() == ["0", "1", "2", "3"]
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "elsewhere"))
    (before / "state.txt").write_text("7\n7")
    monkeypatch.delenv("PLAIN_FAIL")
    assert work_folder(Plain(), "smoke") == before
    assert execute(Plain(), profile="smoke").series["steps"] == [7, 7, 2, 3]  # it went on


def test_each_run_sees_cards_with_room_for_it():
    slots = Slots(8, [Card("0", 40 * GIB), Card("1", 40 * GIB), Card("2", 80 * GIB)], 64 * GIB)
    cuda = ("cuda",)
    assert slots.take(Plain(need=("gpu-gib:60",))).cards == ("2",)
    assert slots.take(Plain(need=("gpu-gib:60",), seed=1)) is None
    first, second = (slots.take(Plain(need=cuda, gib=30, seed=seed)) for seed in (2, 3))
    assert {first.cards, second.cards} == {("0",), ("1",)}
    assert slots.take(Plain(need=cuda, gib=19)).cards == ("2",)
    assert slots.take(Plain(need=cuda, gib=10)) is None  # CUDA takes some of its own
    assert slots.take(Plain()).cards != ()  # what asks for nothing sees a card, as it would alone
    slots.give(first)
    assert slots.take(Plain(need=cuda, gib=10)).cards == first.cards


def test_a_run_that_does_not_say_how_much_of_a_card_it_needs_has_one_to_itself():
    slots = Slots(4, [Card("a", 24 * GIB), Card("b", 24 * GIB)])
    places = [slots.take(Plain(need=("cuda",), seed=seed)) for seed in range(3)]
    assert [place and place.cards for place in places] == [("a",), ("b",), None]


def test_whatever_a_run_asks_for_it_gets_its_turn_alone():
    slots = Slots(1, [Card("a", 8 * GIB), Card("b", 24 * GIB)], 8 * GIB)
    for needs in (("gpus:2", "gpu-gib:80"), ("gpus:4",), ("memory-gib:64",), ("gpu-gib:20", "memory-gib:2")):
        place = slots.take(Plain(need=needs))
        assert place is not None
        assert slots.take(Plain()) is None
        slots.give(place)


def test_memory_is_shared_out_too():
    slots = Slots(4, [], 64 * GIB)
    assert slots.take(Plain(need=("memory-gib:48",))) is not None
    assert slots.take(Plain(need=("memory-gib:48",), seed=1)) is None
    assert slots.take(Plain(seed=2)).cards == ()


@pytest.mark.slow
def test_each_run_has_a_process_that_sees_its_own_card(folders, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("PLAIN_LOG", str(log))
    monkeypatch.setattr(machine, "cards", lambda: (Card("GPU-a", 24 * GIB), Card("GPU-b", 24 * GIB)))
    pairs = [(Plain(seed=seed, gib=16), "smoke") for seed in range(4)]
    monkeypatch.setenv("PLAIN_SLEEP_S", "0.5")
    found = execute_all(pairs, jobs=4, quiet=True)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [record.recipe.fields["seed"] for record in found] == [0, 1, 2, 3]
    assert len({process for _, process, _ in lines} - {str(os.getpid())}) == 4
    assert {card for _, _, card in lines[:2]} == {card for _, _, card in lines[2:]} == {"GPU-a", "GPU-b"}


def many():
    found = [Plain(seed=seed, hours=hours) for seed, hours in enumerate((5, 3, 1, 1, 1, 1))]
    found += [Plain(seed=seed, shared=group) for seed, group in itertools.product(range(3), "ab")]
    found += [Plain(seed=10 + seed, need=("cuda",), gib=8) for seed in range(4)]
    found += [Plain(seed=20 + seed, after=10 + seed) for seed in range(2)]
    found += [Plain(seed=30, need=("gpu-gib:40", "memory-gib:32"))]
    return [(recipe, "smoke") for recipe in found]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 40])
def test_shards_hold_each_run_once_and_keep_together_what_shares(count):
    pairs = many()
    found = shards.shards(pairs, count)
    assert len(found) == count
    assert sorted(pair[0].key for runs in found for pair in runs) == sorted(pair[0].key for pair in pairs)
    where = {pair: i for i, runs in enumerate(found) for pair in runs}
    for group in "ab":
        assert len({i for (recipe, _), i in where.items() if recipe.shared == group}) == 1
    assert found == shards.shards(pairs, count)


def test_what_runs_depend_on_is_in_their_shard(folders):
    pairs = [(Plain(seed=seed), "smoke") for seed in range(4)] + [(Plain(seed=9, after=2), "smoke")]
    found = shards.shards(pairs, 4)
    assert [runs for runs in found if len(runs) > 1] == [[pairs[2], pairs[4]]]


def test_shards_have_needs_of_one_kind_and_about_the_same_to_do():
    pairs = many()
    found = shards.shards(pairs, 6)
    kinds = [{bool(recipe.needs()) for recipe, _ in runs} for runs in found]
    assert all(len(kind) == 1 for kind in kinds)
    plain = [(Plain(seed=seed, hours=hours), "smoke") for seed, hours in enumerate((6, 4, 3, 3, 2))]
    assert [shards.seconds_of(runs) / 3600 for runs in shards.shards(plain, 2)] == [9, 9]
    assert shards.seconds_of([(Plain(shared="a", seed=seed), "smoke") for seed in range(3)]) == 2 * 3600


def test_what_is_recorded_does_not_move_other_runs_to_another_shard(folders):
    pairs = [(Plain(seed=seed), "smoke") for seed in range(5)]
    before = shards.shards(pairs, 2)
    execute(Plain(seed=0), profile="smoke")
    assert shards.shards(pairs, 2) == before


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(EffbookError, match="is no shard"):
        shards.parse(text)


def test_two_shards_in_folders_of_their_own_give_the_records_that_one_process_gives(folders, tmp_path, monkeypatch):
    pairs = [(Plain(seed=seed), "smoke") for seed in range(3)] + [(Plain(seed=9, after=0), "smoke")]
    whole = numbers(execute_all(pairs, quiet=True))
    for i, runs in enumerate(shards.shards(pairs, 2)):
        monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / f"machine-{i}"))
        execute_all(runs, quiet=True)
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "together"))
    for i in range(2):
        for files in intake.records_in(tmp_path / f"machine-{i}"):
            assert set(intake.take(files).values()) == {"added"}
    assert numbers([records.find(*pair) for pair in pairs]) == whole


@pytest.fixture
def elsewhere(folders, tmp_path, monkeypatch):
    """(folder of records with one run, its record's path there)."""
    folder = tmp_path / "from-elsewhere"
    monkeypatch.setenv("EFFBOOK_RECORDS", str(folder))
    execute(Plain(), profile="smoke")
    path = records.path_of(Plain(), "smoke")
    monkeypatch.setenv("EFFBOOK_RECORDS", str(folders[0]))
    return folder, path


def taken(folder):
    return [state for files in intake.records_in(folder) for state in intake.take(files).values()]


def test_a_record_from_elsewhere_is_added_with_its_files_and_once(elsewhere, folders):
    assert taken(elsewhere[0]) == ["added"]
    found = records.find(Plain(), "smoke")
    assert found.artifact("picture").read_text() == "seed 0"
    assert records.code_path(found.provenance.fingerprint).exists()
    assert not records.is_stale(found)
    assert taken(elsewhere[0]) == ["here"]


def test_a_record_that_is_here_stays_unless_it_is_damaged_or_stale(elsewhere):
    execute(Plain(), profile="smoke")
    path = records.path_of(Plain(), "smoke")
    own = path.read_bytes()
    assert taken(elsewhere[0]) == ["here"]
    assert path.read_bytes() == own
    path.write_text("{half")
    assert taken(elsewhere[0]) == ["added"]
    edit(path, lambda content: content["provenance"].update(fingerprint="0" * 16))
    assert taken(elsewhere[0]) == ["added"]
    assert not records.is_stale(records.find(Plain(), "smoke"))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["recipe"]["fields"].update(steps=5), "its key does not fit"),
        (lambda c: c["provenance"]["data"].update(digits="0" * 64), "its key does not fit"),
        (
            lambda c: c["provenance"].update(fingerprint="0" * 16, commit="abcdef1234567"),
            "other code .commit abcdef1234",
        ),
        (lambda c: c["artifacts"]["picture"].update(sha256="0" * 64), "was changed"),
        (lambda c: c["artifacts"]["picture"].update(path="../../../../picture.txt"), "comes without its artifact"),
        (lambda c: c.update(schema_version=2), "schema version 2"),
        (lambda c: c.update(profile="paper"), "does not belong under that name"),
        (lambda c: c["metrics"].update(sum="many"), "is not valid"),
    ],
)
def test_a_record_that_was_tampered_with_is_refused_and_nothing_is_written(change, told, elsewhere, folders):
    edit(elsewhere[1], change)
    with pytest.raises(EffbookError, match=told):
        taken(elsewhere[0])
    assert list(folders[0].rglob("*.json")) == []


def test_a_record_of_other_data_is_refused_and_names_them(elsewhere):
    folder, path = elsewhere
    content = json.loads(path.read_text())
    data = {"digits": "0" * 64}
    key = records.key_of("plain", content["recipe"]["fields"], data)
    content["provenance"]["data"], content["recipe"]["key"] = data, key
    path.with_name(f"plain-{key}.json").write_text(json.dumps(content))
    path.unlink()
    with pytest.raises(EffbookError, match=r"other data than is described here \(digits\)"):
        taken(folder)


def test_a_record_whose_artifact_was_left_behind_is_refused(elsewhere):
    shutil.rmtree(elsewhere[1].with_suffix(""))
    with pytest.raises(EffbookError, match="comes without its artifact picture"):
        taken(elsewhere[0])


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(EffbookError, match="holds no records"):
        intake.records_in(tmp_path)
    with pytest.raises(EffbookError, match="is no folder"):
        intake.records_in(tmp_path / "missing")


@pytest.mark.slow
def test_slurm_runs_every_shard_and_puts_one_back_whose_time_is_up(folders, tmp_path, monkeypatch):
    pairs = [(Plain(seed=seed), "smoke") for seed in range(3)]
    code = (
        "import sys; from plain_recipe import Plain; from effbook.runs import shards\n"
        "from effbook.runs.batch import execute_all\n"
        "pairs = [(Plain(seed=seed), 'smoke') for seed in range(3)]\n"
        "i, n = shards.parse(sys.argv[2]); execute_all(shards.shards(pairs, n)[i - 1], quiet=True)\n"
    )
    (tmp_path / "run.py").write_text(code)
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = {  # Slurm's, as far as the script needs them: tasks one after another, and a call in mid-run
        "sbatch": "cat > job.sh\nfor i in 1 2; do export SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i\n"
        'bash job.sh & job=$!; if [ -n "$PLAIN_LOG" ]; then while [ ! -s "$PLAIN_LOG" ]; do sleep 0.1; done\n'
        'rm "$PLAIN_LOG"; kill -USR1 $job; fi; wait $job || exit 1; done',
        "scontrol": 'echo "$@" >> requeued',
    }
    for name, text in fake.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    text = slurm.script(pairs, 2, [sys.executable, str(tmp_path / "run.py")], hours=3)
    assert "#SBATCH --array=1-2\n" in text
    assert "#SBATCH --time=3:00:00\n" in text
    assert "#SBATCH --requeue\n" in text
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "PATH": f"{programs}:{os.environ['PATH']}"}
    slow = environment | {"PLAIN_LOG": str(tmp_path / "started"), "PLAIN_SLEEP_S": "600"}
    subprocess.run(["sh", "-c", text], cwd=tmp_path, env=slow, check=True)
    assert (tmp_path / "requeued").read_text() == "requeue 7_1\nrequeue 7_2\n"
    assert [records.find(*pair) for pair in pairs] == [None] * 3
    subprocess.run(["sh", "-c", text], cwd=tmp_path, env=environment, check=True)
    assert all(records.find(*pair) for pair in pairs)


def test_slurm_gets_an_array_for_each_sort_of_machine():
    text = slurm.script(many(), 6, ["effbook", "run", "nola"], hours=24)
    arrays = text.split("sbatch <<'END'")[1:]
    assert len(arrays) == 3
    assert ["--gres=gpu:1" in array for array in arrays] == [False, True, True]
    assert "--mem=32G" in arrays[2]
    assert "a GPU with 40 GiB" in arrays[2]
    assert all(array.count('effbook run nola --shard "$SLURM_ARRAY_TASK_ID/6" &') == 1 for array in arrays)
    checked = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_an_unknown_launcher_is_refused(folders):
    with pytest.raises(EffbookError, match="--on dask is no launcher"):
        execute_all([(Plain(), "smoke")], on="dask")


@pytest.fixture
def ray(folders, monkeypatch):
    """A local Ray of two places; it inherits the environment as it is when `start` is called."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or os.getcwd() for path in sys.path))

    def start():
        ray.init("local", num_cpus=4, num_gpus=0, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        return ray

    yield start
    ray.shutdown()


@pytest.mark.slow
def test_ray_gives_the_records_that_one_process_gives_though_a_worker_is_killed(folders, ray, tmp_path, monkeypatch):
    pairs = [(Plain(seed=seed, steps=3), "smoke") for seed in range(3)]
    pairs += [(Plain(seed=5, steps=3, after=7), "smoke")]
    execute(Plain(seed=7), profile="smoke")  # sent along
    monkeypatch.setenv("PLAIN_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PLAIN_KILLED_SEED", "1")  # it would be killed each time if it did not go on where it was
    ray()
    found = execute_all(pairs, on="ray", quiet=True)
    lines = [line.split()[:2] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(seed for seed, _ in lines) == ["0", "1", "1", "2", "5"]
    assert len({process for _, process in lines} - {str(os.getpid())}) == 5
    monkeypatch.delenv("PLAIN_KILLED_SEED")
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "alone"))
    assert numbers(execute_all(pairs, quiet=True)) == numbers(found)

    monkeypatch.setenv("EFFBOOK_RECORDS", str(folders[0]))
    failing = [(Plain(seed=seed, need=need), "smoke") for seed, need in ((8, ("program:no-such",)), (9, ("cuda",)))]
    with pytest.raises(RunsFailedError, match="2 of 2 runs failed"):
        execute_all(failing, on="ray", quiet=True)
