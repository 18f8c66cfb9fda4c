"""The settings of training, compression and storage: what is refused, and that they are light to import."""

import subprocess
import sys

import pytest

import effbook.compgs
from effbook.compgs.config import BIT_QUANTISED, PACKED, Book, CompGSSettings, Storage, books, int_x
from effbook.errors import EffbookError
from effbook.gaussians.config import DensitySettings, Rates, TrainSettings


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CompGSSettings, {"interval": 0}),
        (CompGSSettings, {"interval": 1.5}),
        (CompGSSettings, {"kmeans_iterations": True}),
        (CompGSSettings, {"prune_interval": -1}),
        (CompGSSettings, {"penalty": -1e-7}),
        (CompGSSettings, {"penalty": float("nan")}),
        (CompGSSettings, {"least_opacity": float("inf")}),
        (CompGSSettings, {"start": -1}),
        (CompGSSettings, {"seed": 2**63}),
        (CompGSSettings, {"seed": -1}),
        (TrainSettings, {"iterations": 0}),
        (TrainSettings, {"sh_degree": 4}),
        (TrainSettings, {"sh_interval": 0}),
        (TrainSettings, {"seed": 10**22}),
        (TrainSettings, {"ssim_weight": -0.1}),
        (DensitySettings, {"interval": 0}),
        (DensitySettings, {"reset_interval": 0}),
        (DensitySettings, {"most": -1}),
        (DensitySettings, {"split_shrink": 0.0}),
        (Rates, {"scales": -1e-3}),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_by_its_name(kind, wrong):
    with pytest.raises(EffbookError, match=f"^{next(iter(wrong))} is .*; give a"):
        kind(**wrong)


def test_books_that_overlap_name_nothing_or_hold_nothing_are_refused():
    for given in ((Book(("sh_dc",), 4), Book(("sh_dc", "scales"), 4)), (Book(("colour",), 4),)):
        with pytest.raises(EffbookError, match="at most once"):
            CompGSSettings(books=given)
    with pytest.raises(EffbookError, match="give at least 1"):
        books(colour=0)
    with pytest.raises(EffbookError, match="raise end"):
        CompGSSettings(start=10, end=9)


def test_a_storage_of_other_parameters_or_bits_is_refused():
    with pytest.raises(EffbookError, match="is no parameter"):
        Storage(plain_bits={"colour": 8})
    with pytest.raises(EffbookError, match="not 4, 8, 16 or 32"):
        Storage(code_bits=7)
    assert Storage() == PACKED
    assert BIT_QUANTISED.plain_bits == {"means": 16, "opacities": 8}
    assert "means" not in int_x(8, positions=False).plain_bits


LIGHT = """
import sys
import effbook.gaussians.config, effbook.compgs.config
from effbook.compgs import BIT_QUANTISED, PACKED, Book, CompGSSettings, Storage, books, int_x
CompGSSettings(), effbook.gaussians.config.TrainSettings()
print(*({name.partition(".")[0] for name in sys.modules} & {"torch", "numba", "scipy", "numpy", "faiss", "pydantic"}))
"""


def test_settings_bring_no_library_along():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_is_found_where_it_is_defined():
    assert sorted(effbook.compgs.__all__) == sorted(set(effbook.compgs.__all__)) == dir(effbook.compgs)
    for name in effbook.compgs.__all__:
        found = getattr(effbook.compgs, name)
        module = getattr(found, "__module__", None) or "effbook.compgs.config"  # an instance has that of its class
        assert module == f"effbook.compgs.{effbook.compgs._FROM[name]}"
    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        _ = effbook.compgs.unknown
