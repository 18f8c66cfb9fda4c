"""The plan: what is to do, what it takes, and what several runs share."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from tiny_recipe import Tiny

from effbook import data
from effbook.data.manifest import Manifest
from effbook.runs import records
from effbook.runs.context import Context
from effbook.runs.execute import execute
from effbook.runs.plan import plan, seconds_of
from effbook.runs.recipe import Cost, Recipe, Result, Shared, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Training(Recipe):
    """Shares the training of its seed, and takes the record of a tiny run."""

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "tiny-training"
    shown: int = 0
    reads: tuple[str, ...] = ()
    needs_tiny: bool = False

    def cost(self):
        return Cost(seconds=130.0)

    def shares(self):
        return (Shared("training", {"seed": self.seed}, 100.0),)

    def depends(self):
        return (Tiny(steps=2),) if self.needs_tiny else ()

    def datasets(self):
        return self.reads


def test_a_plan_sums_what_is_to_do(folders):
    took = execute(Tiny(), profile="smoke").cost.wall_seconds
    found = plan([(Tiny(seed=seed), "smoke") for seed in (0, 1, 2, 1)])
    assert [run.state for run in found.runs] == ["recorded", "to do", "to do"]
    assert found.hours == pytest.approx(2 * took / 3600)
    assert plan([(Tiny(seed=seed), "mini") for seed in (1, 2)]).hours == pytest.approx(0.2)  # nothing to go by
    assert found.gpu_bytes == 2 * 2**30
    assert found.disk_bytes == 2 * 2**20


def test_a_run_is_estimated_by_what_the_recorded_ones_most_like_it_took(folders):
    for seed, seconds in enumerate((10.0, 30.0, 20.0)):
        recorded_in(Tiny(steps=3, seed=seed), seconds)
    recorded_in(Tiny(steps=4), 500.0)
    found = plan([(Tiny(steps=steps, seed=9), "smoke") for steps in (3, 4)])
    assert [run.seconds for run in found.runs] == [20.0, 500.0]


def recorded_in(recipe, seconds):
    cost = records.CostOf(wall_seconds=seconds, peak_memory_bytes=1)
    records.write(recipe, "smoke", Result(metrics={}), fingerprint="0" * 16, modules={}, accelerator="cpu", cost=cost)


def test_what_runs_share_is_counted_once_and_not_where_it_is_in_the_cache(folders, tmp_path):
    pairs = [(Training(seed=seed, shown=shown), "smoke") for seed in range(2) for shown in range(3)]
    assert [run.seconds for run in plan(pairs).runs] == [130, 30, 30, 130, 30, 30]
    assert plan(pairs).hours == pytest.approx(380 / 3600)
    context = Context("smoke", tmp_path / "run")
    context.cached("training", {"seed": 0}, Training(), lambda folder: (folder / "x").touch())
    assert [run.seconds for run in plan(pairs).runs] == [30, 30, 30, 130, 30, 30]


def test_the_runs_that_a_run_depends_on_are_planned_before_it(folders):
    pairs = [(Training(needs_tiny=True), "smoke"), (Training(needs_tiny=True, shown=1), "smoke")]
    assert [run.recipe.name for run in plan(pairs).runs] == ["tiny", "tiny-training", "tiny-training"]
    execute(Tiny(steps=2), profile="smoke", quiet=True)
    assert [run.recipe.name for run in plan(pairs).runs] == ["tiny-training", "tiny-training"]
    path = records.path_of(Tiny(steps=2), "smoke")
    content = json.loads(path.read_text())
    content["provenance"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(content))
    both = plan([(Tiny(steps=2), "smoke"), *pairs])
    assert [(run.recipe.name, run.state) for run in both.runs[:2]] == [("tiny", "to do"), ("tiny-training", "to do")]
    assert plan([(Tiny(steps=2), "smoke")]).runs[0].state == "stale"


def test_the_time_left_counts_what_runs_depend_on_and_once_what_they_share(folders):
    pairs = [(Training(needs_tiny=True), "smoke"), (Training(needs_tiny=True, shown=1), "smoke"), (Tiny(), "smoke")]
    tiny = Tiny().cost().seconds
    assert seconds_of(pairs) == dict(zip(pairs, (tiny + 130, 30, tiny), strict=True))


def test_the_data_that_is_not_in_the_cache_is_added_and_an_unknown_size_is_told(folders, monkeypatch):
    sizes = {"digits": 1000, "letters": 50, "scans": None, "here": 7}
    monkeypatch.setattr(data, "is_cached", lambda name: name == "here")
    monkeypatch.setattr(data, "manifest", lambda name: type("Described", (), {"size_bytes": sizes[name]}))
    monkeypatch.setattr(data, "digest", lambda name: name)
    reads = [("digits", "letters"), ("digits", "here"), ("scans",)]
    found = plan([(Training(reads=names), "smoke") for names in reads])
    assert (found.data_bytes, found.disk_bytes, found.unknown) == (1050, 1050, ("scans",))


def test_a_manifest_tells_the_bytes_of_its_first_source_that_knows_them():
    told = {"name": "x", "title": "x", "kind": "images", "licence": "x", "citation": "x", "homepage": "x"}
    unknown = {"kind": "local", "folder": "x"}
    files = [{"path": "a", "size_bytes": 3, "url": "https://x/a"}, {"path": "b", "size_bytes": 4, "url": "https://x/b"}]
    optional = {"path": "c", "optional": True, "url": "https://x/c"}
    sources = [unknown, {"kind": "url", "files": [*files, optional]}]
    described = Manifest.model_validate({**told, "loader": "x", "sources": sources})
    assert described.size_bytes == 7
    assert described.model_copy(update={"sources": described.sources[:1]}).size_bytes is None


def test_a_plan_is_made_without_torch(folders):
    code = (
        "import sys; from effbook.runs import cache, machine\n"
        "from effbook.runs.plan import plan\n"
        "from test_plan import Training\n"
        "assert plan([(Training(), 'smoke')]).runs[0].seconds == 130\n"
        "assert 'torch' not in sys.modules or machine.gpu_bytes() is not None\n"
    )
    here = Path(__file__).parent
    path = f"{here}:{here.parents[1]}"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
