"""The fingerprint changes with the code that makes the numbers, and with nothing else."""

import pytest

import effbook
from effbook.errors import EffbookError
from effbook.runs.code import fingerprint, here

_TREE = {
    "__init__.py": '__version__ = "1"\n',
    "errors.py": "class EffbookError(Exception): ...\n",
    "unused.py": "x = 1\n",
    "data/__init__.py": "from effbook.data.load import load\n\n\ndef helper():\n    return load()\n",
    "data/load.py": "def load():\n    return 1\n",
    "nola/__init__.py": (
        '"""Names."""\nfrom effbook.nola.layer import Layer\nfrom .peft import Peft\n__all__ = ["Layer", "Peft"]\n'
    ),
    "nola/layer.py": "from . import basis\nclass Layer:\n    rank = basis.RANK\n",
    "nola/basis.py": "import importlib\nRANK = 1\n\ndef engine(name):\n"
    '    return importlib.import_module(f"effbook.nola.kernels_{name}")\n',
    "nola/kernels_cpu.py": "x = 1\n",
    "nola/peft.py": "class Peft: ...\n",
    "experiments/__init__.py": "",
    "runs/__init__.py": "",
    "runs/recipe.py": "class Recipe: ...\n",
    "experiments/nola/__init__.py": "from effbook.experiments.nola import runs\n",
    "experiments/nola/profiles.py": "from effbook.unused import x\n",
    "experiments/nola/runs.py": (
        '"""Runs."""\nfrom typing import TYPE_CHECKING\nfrom effbook.errors import EffbookError\n'
        "from effbook.runs.recipe import Recipe\nfrom effbook.experiments.nola.profiles import x\n"
        "if TYPE_CHECKING:\n    from effbook.unused import x\n"
        "class Run(Recipe):\n    def run(self, n=None):\n"
        '        """Run."""\n        from effbook.nola import Layer\n        return Layer\n'
    ),
}
_RUNS = ("effbook.experiments.nola.runs",)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name, text in _TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(effbook, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    return tmp_path


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.usefixtures("tree")
def test_the_closure_follows_names_to_where_they_are_defined():
    assert here().closure(_RUNS) == [
        "effbook.experiments.nola.runs",
        "effbook.nola",
        "effbook.nola.basis",
        "effbook.nola.kernels_cpu",
        "effbook.nola.layer",
    ]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("nola/layer.py", "rank = basis.RANK", "rank  =  (basis.RANK)  # the rank"),
        ("experiments/nola/runs.py", '"""Run."""', '"""Run it."""'),
        ("experiments/nola/runs.py", '"""Runs."""\n', ""),
        ("experiments/nola/runs.py", "return Layer", "# why\n        return Layer"),
        ("nola/peft.py", "class Peft: ...", "class Peft: x = 1"),
        ("unused.py", "x = 1", "x = 2"),
        ("runs/recipe.py", "class Recipe: ...", "class Recipe: x = 1"),
        ("experiments/nola/profiles.py", "import x", "import x as y"),
        ("errors.py", "class EffbookError(Exception): ...", "class EffbookError(Exception): x = 1"),
        ("__init__.py", '"1"', '"2"'),
        ("nola/__init__.py", '"""Names."""', '"""Other names."""'),
    ],
)
def test_comments_docstrings_formatting_and_code_not_used_keep_it(tree, file, old, new):
    before = fingerprint(_RUNS)
    _edit(tree / file, old, new)
    assert fingerprint(_RUNS) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("nola/basis.py", "RANK = 1", "RANK = 2"),
        ("nola/kernels_cpu.py", "x = 1", "x = 2"),
        ("nola/layer.py", "rank = basis.RANK", "rank = -basis.RANK"),
        ("experiments/nola/runs.py", "n=None", "n=0"),
        ("experiments/nola/runs.py", "import Layer\n", "import Layer, Peft\n"),
        ("nola/__init__.py", "__all__", "Layer.rank = 3\n__all__"),
        ("nola/__init__.py", "effbook.nola.layer", "effbook.nola.peft"),
    ],
)
def test_changed_code_changes_it_at_any_depth(tree, file, old, new):
    before = fingerprint(_RUNS)
    _edit(tree / file, old, new)
    assert fingerprint(_RUNS) != before


def test_a_package_imported_as_a_whole_stands_for_all_that_it_passes_on(tree):
    _edit(tree / "experiments/nola/runs.py", "from effbook.nola import Layer", "from effbook import nola as Layer")
    assert "effbook.nola.peft" in here().closure(_RUNS)
    _edit(tree / "experiments/nola/runs.py", "from effbook import nola as Layer", "import effbook.nola as Layer")
    assert "effbook.nola.peft" in here().closure(_RUNS)


def test_a_package_with_code_of_its_own_counts_with_what_it_imports(tree):
    _edit(
        tree / "experiments/nola/runs.py", "from effbook.nola import Layer", "from effbook.data import helper as Layer"
    )
    assert {"effbook.data", "effbook.data.load"} <= set(here().closure(_RUNS))


def test_a_module_without_source_is_told():
    with pytest.raises(EffbookError, match="no source"):
        fingerprint(("sys",))


def test_every_registered_recipe_has_a_fingerprint():
    from effbook.runs.recipe import recipe_class, recipe_names

    for name in recipe_names():
        assert len(fingerprint((recipe_class(name).__module__,))) == 16


def test_a_file_that_moves_keeps_it(tree):
    before, listed = fingerprint(_RUNS), here().listing(_RUNS)
    (tree / "adapters").mkdir()
    (tree / "adapters/__init__.py").write_text("")
    (tree / "nola/basis.py").rename(tree / "adapters/basis.py")
    _edit(tree / "nola/layer.py", "from . import basis", "from effbook.adapters import basis")
    assert fingerprint(_RUNS) == before
    assert sorted(here().listing(_RUNS).values()) == sorted(listed.values())


def test_a_name_that_comes_from_elsewhere_than_before_changes_it_though_no_module_did(tree):
    (tree / "nola/other.py").write_text("RANK = 2\n")
    _edit(tree / "nola/layer.py", "from . import basis", "from . import basis, other")
    before = fingerprint(_RUNS)
    _edit(tree / "nola/layer.py", "from . import basis, other", "from . import other as basis, basis as other")
    assert fingerprint(_RUNS) != before


@pytest.mark.parametrize("module", ["cache", "fetch", "manifest", "sources"])
def test_what_fetches_and_keeps_data_keeps_it(tree, module):
    (tree / f"data/{module}.py").write_text("x = 1\n")
    _edit(tree / "data/load.py", "def load", f"from effbook.data.{module} import x\n\n\ndef load")
    _edit(tree / "experiments/nola/runs.py", "import Layer\n", "import Layer\n        from effbook.data import load\n")
    before = fingerprint(_RUNS)
    (tree / f"data/{module}.py").write_text("x = 2\n")
    assert fingerprint(_RUNS) == before
    _edit(tree / "data/load.py", "return 1", "return 2")
    assert fingerprint(_RUNS) != before


def test_the_engine_of_another_device_than_the_run_used_keeps_it(tree):
    (tree / "nola/kernels_cuda.py").write_text('DEVICE = "cuda"\nx = 1\n')
    before = {device: fingerprint(_RUNS, device) for device in ("cpu", "cuda")}
    (tree / "nola/kernels_cuda.py").write_text('DEVICE = "cuda"\nx = 2\n')
    assert fingerprint(_RUNS, "cpu") == before["cpu"]
    assert fingerprint(_RUNS, "cuda") != before["cuda"]


def test_names_that_a_package_passes_on_late_are_followed(tree):
    late = (
        'import importlib\n_FROM = {"Layer": "layer", "Peft": "peft"}\n\n\ndef __getattr__(name):\n'
        '    return getattr(importlib.import_module(f"effbook.nola.{_FROM[name]}"), name)\n'
    )
    (tree / "nola/__init__.py").write_text(late)
    assert "effbook.nola.layer" in here().closure(_RUNS)
    assert "effbook.nola.peft" not in here().closure(_RUNS)
    before = fingerprint(_RUNS)
    (tree / "lower").mkdir()
    (tree / "nola/layer.py").rename(tree / "lower/layer.py")
    _edit(tree / "lower/layer.py", "from . import basis", "from effbook.nola import basis")
    _edit(tree / "nola/__init__.py", '"Layer": "layer"', '"Layer": "effbook.lower.layer"')
    assert fingerprint(_RUNS) == before  # a name from elsewhere is followed there
    _edit(tree / "nola/basis.py", "RANK = 1", "RANK = 2")
    assert fingerprint(_RUNS) != before


def test_what_is_for_type_checkers_only_keeps_it(tree):
    before = fingerprint(_RUNS)
    _edit(tree / "experiments/nola/runs.py", "    from effbook.unused import x\n", "    import typing\n")
    assert fingerprint(_RUNS) == before
