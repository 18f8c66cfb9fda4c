"""The nearest that NOLA comes to a given change of weights: Eq. 3.2 fitted by alternating least squares."""

from dataclasses import dataclass

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.nola.basis import Basis, generate, stream_of


@dataclass(frozen=True, kw_only=True)
class Approximation:
    """Coefficients with the matrices they stand for; `errors` holds the relative error after each round."""

    alpha: Tensor  # [k]
    beta: Tensor  # [l]
    a: Tensor  # [m, r]
    b: Tensor  # [r, n]
    errors: tuple[float, ...]

    @property
    def product(self) -> Tensor:
        """AB [m, n]."""
        return self.a @ self.b


def approximate(
    target: Tensor,
    *,
    k: int,
    l: int,  # noqa: E741  the text's letter
    rank: int,
    inputs: Tensor | None = None,
    seed: int = 0,
    rounds: int = 20,
) -> Approximation:
    """Fit alpha and beta so that AB = (sum alpha_i A_i)(sum beta_j B_j) does what `target` [m, n] does (Eq. 3.2).

    Minimises |T - AB|, or |X T - X A B| where `inputs` X [N, m] are given, relative to |T| or |X T|. With B fixed that
    is a least-squares problem in alpha, and the other way round, so the error never grows; the result is a local
    optimum. Computes in float64. Raises EffbookError for shapes that don't fit and for sizes below 1.
    """
    if target.dim() != 2 or (inputs is not None and (inputs.dim() != 2 or inputs.shape[1] != target.shape[0])):
        shapes = f"{tuple(target.shape)}" + ("" if inputs is None else f" with inputs {tuple(inputs.shape)}")
        raise EffbookError(f"NOLA cannot approximate a target of shape {shapes}", "give [m, n], and inputs [N, m]")
    if rounds < 1:
        raise EffbookError(f"Nothing is fitted in {rounds} rounds", "give rounds >= 1")
    m, n = target.shape
    make = {"dtype": torch.float64, "device": target.device}
    family_a = Basis(seed=seed, stream=stream_of("approximate/A"), count=k, rows=m, cols=rank, bound=1.0)
    family_b = Basis(seed=seed, stream=stream_of("approximate/B"), count=l, rows=rank, cols=n, bound=1.0)
    a_i = generate(family_a, **make)  # [k, m, r]
    b_j = generate(family_b, **make)  # [l, r, n]
    seen = torch.eye(m, **make)
    if inputs is not None:  # |X D| = |R D| for X = QR: m rows instead of N
        seen = torch.linalg.qr(inputs.to(**make), mode="r").R
    wanted = seen @ target.double()
    seen_a = seen @ a_i
    beta = torch.full((l,), l**-0.5, **make)
    errors = []
    for _ in range(rounds):
        b = torch.einsum("l,lrn->rn", beta, b_j)
        alpha = _least_squares(seen_a, b, wanted)
        a = torch.einsum("k,kmr->mr", alpha, a_i)
        beta = _least_squares(b_j.mT, (seen @ a).mT, wanted.mT)  # (AB)^T = B^T A^T has the same form
        b = torch.einsum("l,lrn->rn", beta, b_j)
        errors.append(float(torch.linalg.norm(wanted - seen @ a @ b) / torch.linalg.norm(wanted)))
    return Approximation(alpha=alpha, beta=beta, a=a, b=b, errors=tuple(errors))


def _least_squares(basis: Tensor, other: Tensor, target: Tensor) -> Tensor:
    """c minimising |T - (sum c_i A_i) B| from A_i [k, m, r], B [r, n], T [m, n], without forming any A_i B."""
    flat = basis.flatten(1)  # [k, m*r]
    gram = (basis @ (other @ other.mT)).flatten(1) @ flat.mT  # <A_i B, A_j B> = <A_i B B^T, A_j>
    right = flat @ (target @ other.mT).flatten()  # <A_i B, T> = <A_i, T B^T>
    # More matrices than entries leave the Gram matrix singular: take the shortest solution.
    return torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ right
