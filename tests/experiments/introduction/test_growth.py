"""Figure 1.1: the facts are plausible and sourced, and the fit agrees with one written out by hand."""

import math

import numpy as np
import pytest

from effbook.errors import EffbookError
from effbook.experiments.introduction import facts
from effbook.experiments.introduction.growth import GrowthRecipe, chosen, quantity_of
from effbook.runs.recipe import make


def metrics(**fields):
    return GrowthRecipe(**fields).run(None).metrics


def test_every_fact_has_a_source_and_names_are_unique():
    names = [m.name for m in facts.LANGUAGE_MODELS]
    assert len(names) == len(set(names)) >= 15
    for model in facts.LANGUAGE_MODELS:
        assert "arXiv:" in model.source or "20" in model.source or "announcement" in model.source, model.name
        assert 2017 <= model.published.year <= 2024
        assert 1e8 <= model.parameters <= 2e12


def test_where_flops_are_stated_and_tokens_too_six_n_d_agrees_within_a_sixth():
    both = [m for m in facts.LANGUAGE_MODELS if m.stated_flop and m.tokens]
    assert len(both) >= 4
    for model in both:
        assert 6 * model.parameters * model.tokens == pytest.approx(model.stated_flop, rel=1 / 6), model.name


def test_a_model_without_compute_and_tokens_has_none_and_is_not_in_the_fit():
    gpt2 = next(m for m in facts.LANGUAGE_MODELS if m.name == "GPT-2")
    assert gpt2.training_flop is None
    assert gpt2 not in chosen("compute", "all")
    assert gpt2 in chosen("parameters", "all")


def test_records_rise_strictly_and_are_found_by_comparing_with_all_before():
    for quantity in ("parameters", "compute"):
        every = chosen(quantity, "all")
        slow = [
            m
            for m in every
            if all(quantity_of(o, quantity) < quantity_of(m, quantity) for o in every if o.published < m.published)
        ]
        assert chosen(quantity, "records") == slow


def test_no_sparse_model_is_fitted():
    assert any(not m.dense for m in facts.LANGUAGE_MODELS)
    assert all(m.dense for m in chosen("parameters", "all"))


@pytest.mark.parametrize("quantity", ["parameters", "compute"])
@pytest.mark.parametrize("of", ["all", "records"])
def test_the_fit_is_the_one_of_the_normal_equations(quantity, of):
    models = chosen(quantity, of)
    x = np.array([m.published.toordinal() / 365.25 * 12 for m in models])
    y = np.array([math.log2(quantity_of(m, quantity)) for m in models])
    design = np.stack([x - x.mean(), np.ones_like(x)], axis=1)
    slope, level = np.linalg.solve(design.T @ design, design.T @ y)
    residual = y - design @ [slope, level]
    error = math.sqrt(residual @ residual / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
    found = metrics(quantity=quantity, of=of)
    assert found["doubling_months"] == pytest.approx(1 / slope, rel=1e-6)
    assert found["factor_a_year"] == pytest.approx(2 ** (12 * slope), rel=1e-6)
    t = {16: 2.144787, 19: 2.109816, 9: 2.364624, 10: 2.306004}[len(models)]  # from a printed table
    assert found["at_most_months"] == pytest.approx(1 / (slope - t * error), rel=1e-4)


def test_an_unknown_quantity_is_refused():
    with pytest.raises(EffbookError, match="quantity"):
        make("growth-fit", quantity="layers")
