"""What gsplat compiles its kernels with, asked for before any work starts; no card is needed here."""

import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.errors import EffbookError
from effbook.gaussians import cuda, toolkit
from effbook.gaussians.project import project
from effbook.runs import machine


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with gsplat's wheel and without any program; its folder of programs and the CUDA toolkit's place."""
    (tmp_path / "gsplat" / "cuda").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    wheel = ModuleSpec("gsplat", None, is_package=True)
    wheel.submodule_search_locations = [str(tmp_path / "gsplat")]
    known = toolkit.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: wheel if name == "gsplat" else known(name))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolkit, "STANDARD_HOME", tmp_path / "cuda")
    toolkit.check.cache_clear()
    yield tmp_path
    toolkit.check.cache_clear()


def program(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def lacking():
    return [word for word in machine.missing(toolkit.needs()) if "GPU" not in word]


def test_the_compiler_the_toolkit_and_ninja_are_asked_for_in_a_recipes_words(bare):
    assert toolkit.needs() == ("cuda", "package:gsplat", "program:nvcc", "program:c++", "program:ninja")
    assert lacking() == ["the program nvcc", "the program c++", "the program ninja"]
    for name in ("nvcc", "c++", "ninja"):
        program(bare / "bin", name)
    assert lacking() == []


@pytest.mark.parametrize("where", ["standard", "CUDA_HOME", "CUDA_PATH"])
def test_the_toolkit_is_found_where_torch_finds_it(bare, monkeypatch, where):
    home = bare / "cuda" if where == "standard" else bare / "elsewhere"
    if where != "standard":
        monkeypatch.setenv(where, str(home))
    assert "the program nvcc" in lacking()
    program(home / "bin", "nvcc")
    assert f"program:{home}/bin/nvcc" in toolkit.needs()
    assert lacking() == ["the program c++", "the program ninja"]


def test_another_compiler_may_be_named(bare, monkeypatch):
    monkeypatch.setenv("CXX", "clang++ -std=c++20")
    assert "program:clang++" in toolkit.needs()


def test_kernels_that_came_compiled_need_no_compiler(bare):
    (bare / "gsplat" / "csrc.so").write_bytes(b"")
    assert toolkit.needs() == ("cuda", "package:gsplat")
    toolkit.check()


def test_the_engine_says_in_one_sentence_what_is_missing_before_it_works(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)  # importing it would fail in another way
    program(bare / "bin", "ninja")
    splats = project(scene(5, dtype=torch.float32), camera())
    for _ in range(2):
        with pytest.raises(EffbookError, match=r"^gsplat compiles .*, and nvcc and c\+\+ cannot be run here; install"):
            cuda.blend(splats, torch.zeros(3), 40, 28)
    for name in ("nvcc", "c++"):
        program(bare / "bin", name)
    toolkit.check()


def test_without_gsplat_it_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    toolkit.check.cache_clear()
    with pytest.raises(EffbookError, match="needs the package gsplat"):
        toolkit.check()


def test_asking_takes_no_torch():
    code = "import sys; from effbook.gaussians import toolkit; toolkit.needs(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
