"""Figure 3.7 against what linear algebra says: PRANC covers n of d² dimensions, NOLA the product k l = n² / 4."""

import pytest
import torch

from effbook.errors import EffbookError
from effbook.experiments.nola.subspace import SubspaceRecipe, sample
from effbook.nola.basis import Basis, generate, stream_of
from effbook.runs.recipe import Context


def coverage(tmp_path, **fields) -> float:
    recipe = SubspaceRecipe(**fields)
    return recipe.run(Context(profile="smoke", folder=tmp_path)).metrics["coverage"]


@pytest.mark.parametrize("n", [2, 4, 8, 12, 40])
def test_prancs_coverage_is_n_over_d_squared(tmp_path, n):
    assert coverage(tmp_path, method="pranc", d=6, n=n) == pytest.approx(min(1, n / 36))


@pytest.mark.parametrize("n", [2, 4, 8, 12, 16])
def test_nolas_coverage_is_the_number_of_pairs_of_basis_matrices(tmp_path, n):
    assert coverage(tmp_path, method="nola", d=6, n=n, rank=2) == pytest.approx(min(1, (n / 2) ** 2 / 36))


def test_a_sample_is_eq_3_1_and_3_2_written_as_loops():
    recipe = SubspaceRecipe(method="nola", d=3, n=4, rank=2, seed=5, surplus=1)
    draw = torch.Generator().manual_seed(5)
    count, k = 3 * 3 + 1, 2
    alpha, beta = (torch.randn(count, k, generator=draw, dtype=torch.float64) for _ in range(2))
    shape = {"A": (3, 2), "B": (2, 3)}
    basis = {
        side: generate(
            Basis(seed=5, stream=stream_of(f"subspace/{side}"), count=k, rows=rows, cols=cols, bound=1.0)
        ).double()
        for side, (rows, cols) in shape.items()
    }
    for s in range(count):
        expected = torch.zeros(3, 3, dtype=torch.float64)
        for i in range(k):
            for j in range(k):
                expected += alpha[s, i] * beta[s, j] * basis["A"][i] @ basis["B"][j]
        torch.testing.assert_close(sample(recipe)[s].view(3, 3), expected)


def test_an_odd_n_for_nola_is_refused_in_one_sentence():
    with pytest.raises(EffbookError, match="even"):
        SubspaceRecipe(method="nola", n=5)
