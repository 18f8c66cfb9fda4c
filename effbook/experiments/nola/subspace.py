"""How much of the weight space random coefficients reach: NOLA against PRANC (3.2.4.5, Figure 3.7)."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import PositiveInt

from effbook.errors import EffbookError
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SubspaceRecipe(Recipe):
    """Sample n random coefficients, rebuild the d x d matrix, and measure the rank of many such samples.

    The text fixes neither d, n, r nor the number of samples; these are ours. A surplus of samples over d² is enough
    for the rank, since random samples are in general position.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-subspace"

    method: str = "nola"  # nola or pranc
    d: PositiveInt = 16  # the matrix is d x d
    n: PositiveInt = 16  # coefficients in all; NOLA halves them: k = l = n / 2
    rank: PositiveInt = 4  # of NOLA's factors
    surplus: PositiveInt = 32  # samples beyond d²

    def validate(self) -> None:
        if self.method not in ("nola", "pranc"):
            raise EffbookError(f"method {self.method!r} is unknown", "choose nola or pranc")
        if self.method == "nola" and self.n % 2:
            raise EffbookError(f"n is {self.n}, but NOLA shares n evenly between A and B", "choose an even n")

    def datasets(self) -> tuple[str, ...]:
        return ()

    def cost(self) -> Cost:
        size = self.d**2
        return Cost(seconds=0.1 + 60 * size**3 / 1e12)

    def run(self, context: Context) -> Result:
        import torch

        samples = sample(self)  # [S, d²]
        singular = torch.linalg.svdvals(samples)
        # torch's and numpy's usual tolerance for a numerical rank
        tolerance = singular[0] * max(samples.shape) * torch.finfo(samples.dtype).eps
        rank = int((singular > tolerance).sum())
        return Result(metrics={"rank": rank, "coverage": rank / self.d**2, "samples": len(samples)})


def sample(recipe: SubspaceRecipe):
    """Return flattened matrices [S, d²] in float64, each from fresh standard normal coefficients."""
    import torch

    from effbook.nola.basis import Basis, generate, stream_of

    d, r, count = recipe.d, recipe.rank, recipe.d**2 + recipe.surplus
    draw = torch.Generator().manual_seed(recipe.seed)

    def basis(name: str, k: int, rows: int, cols: int) -> torch.Tensor:
        spec = Basis(seed=recipe.seed, stream=stream_of(f"subspace/{name}"), count=k, rows=rows, cols=cols, bound=1.0)
        return generate(spec).double()  # [k, rows, cols]

    def coefficients(k: int) -> torch.Tensor:
        return torch.randn(count, k, generator=draw, dtype=torch.float64)  # [S, k]

    if recipe.method == "pranc":  # one long vector: sum_i alpha_i theta_i
        theta = basis("theta", recipe.n, d, d).flatten(1)  # [n, d²]
        return coefficients(recipe.n) @ theta
    half = recipe.n // 2  # k = l = n / 2
    a = torch.einsum("sk,kdr->sdr", coefficients(half), basis("A", half, d, r))  # Eq. 3.1
    b = torch.einsum("sk,krd->srd", coefficients(half), basis("B", half, r, d))
    return (a @ b).flatten(1)  # Eq. 3.2, [S, d²]
