"""Eq. 3.2 fitted to a given matrix, against a plain least-squares fit over explicit products."""

import itertools

import pytest
import torch

from effbook.errors import EffbookError
from effbook.nola.approximate import _least_squares, approximate


def matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_one_step_is_the_least_squares_fit_over_the_products_written_out():
    basis, other, target = matrix(5, 7, 2, seed=1), matrix(2, 6, seed=2), matrix(7, 6, seed=3)
    columns = torch.stack([(a @ other).flatten() for a in basis], dim=1)  # every A_i B as one long vector
    slow = torch.linalg.lstsq(columns, target.flatten()).solution
    torch.testing.assert_close(_least_squares(basis, other, target), slow)


def test_the_product_is_what_the_coefficients_give_and_the_error_is_its_own():
    target = matrix(8, 6)
    fit = approximate(target, k=5, l=4, rank=2)
    assert fit.errors[-1] == pytest.approx(float((target - fit.product).norm() / target.norm()))
    assert fit.alpha.shape == (5,)
    assert fit.beta.shape == (4,)


def test_the_error_never_grows_over_the_rounds():
    errors = approximate(matrix(8, 6), k=9, l=7, rank=2).errors
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("spare", [0, 3])
def test_a_complete_basis_reaches_the_best_matrix_of_the_rank(spare):
    target = matrix(8, 6)
    best = torch.linalg.svdvals(target)[2:].norm() / target.norm()
    fit = approximate(target, k=16 + spare, l=12 + spare, rank=2, rounds=200)
    assert fit.errors[-1] == pytest.approx(float(best), rel=1e-4)


def test_with_inputs_only_what_they_see_counts():
    inputs = matrix(50, 8) * torch.tensor([1.0] * 2 + [1e-9] * 6)  # they lie in two directions
    target = matrix(8, 6, seed=4)
    fit = approximate(target, inputs=inputs, k=16, l=12, rank=2, rounds=200)
    assert fit.errors[-1] < 1e-4
    assert float((target - fit.product).norm() / target.norm()) > 0.1


@pytest.mark.parametrize("wrong", [{"k": 0}, {"rank": 0}, {"rounds": 0}, {"inputs": torch.ones(3, 5)}])
def test_impossible_sizes_get_one_sentence(wrong):
    with pytest.raises(EffbookError):
        approximate(**{"target": matrix(8, 6), "k": 2, "l": 2, "rank": 1} | wrong)
