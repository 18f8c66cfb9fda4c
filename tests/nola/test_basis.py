"""The basis as its users see it: the same bits everywhere, sums without a stored basis, exact gradients."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from effbook.errors import EffbookError
from effbook.nola.basis import Basis, combine, generate, stream_of

BASIS = Basis(seed=11, stream=stream_of("model.layers.0.q_proj/A"), count=37, rows=9, cols=13, bound=0.2)


def twin_combine(coefficients, basis):
    """Equation 3.2 word for word: a loop over held matrices, differentiated by autograd."""
    total = torch.zeros(basis.rows, basis.cols, dtype=coefficients.dtype)
    for c, matrix in zip(coefficients, generate(basis, dtype=coefficients.dtype, engine="torch"), strict=True):
        total = total + c * matrix
    return total


def coefficients_of(basis, dtype=torch.float64):
    draw = torch.Generator().manual_seed(3)
    return torch.randn(basis.count, dtype=dtype, generator=draw).requires_grad_()


def test_the_same_seed_gives_the_same_bits_for_any_chunk_size():
    whole = generate(BASIS)
    for size in (1, 2, 5, 36, 37):
        pieces = [generate(BASIS, i, min(i + size, BASIS.count)) for i in range(0, BASIS.count, size)]
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_number_types_are_the_float32_entries_cast(dtype):
    assert torch.equal(generate(BASIS, dtype=dtype), generate(BASIS).to(dtype))


def test_a_cast_in_many_pieces_is_the_same_cast():
    basis = Basis(seed=1, stream=1, count=5, rows=2048, cols=2049, bound=1.0)  # 2**24 entries hold 3 matrices
    assert torch.equal(generate(basis, dtype=torch.bfloat16), generate(basis).to(torch.bfloat16))


def test_neither_the_number_of_threads_nor_the_order_of_calls_changes_a_bit():
    one = Basis(seed=4, stream=stream_of("a"), count=40, rows=300, cols=201, bound=0.5)
    two = Basis(seed=4, stream=stream_of("b"), count=40, rows=300, cols=201, bound=0.5)
    draw = torch.Generator().manual_seed(0)
    grad = torch.randn(300, 201, generator=draw)
    threads, seen = torch.get_num_threads(), []
    try:
        for number, order in ((1, (one, two)), (2, (two, one)), (3, (one, two))):
            torch.set_num_threads(number)
            results = {}
            for basis in order:
                c = coefficients_of(basis, torch.float32)
                total = combine(c, basis)
                results[basis.stream] = (generate(basis), total, *torch.autograd.grad(total, c, grad))
            seen.append([tensor for stream in sorted(results) for tensor in results[stream]])
    finally:
        torch.set_num_threads(threads)
    for again in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], again, strict=True))


def test_global_random_states_stay_as_they_were():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for engine in ("torch", "numba"):
        generate(BASIS, engine=engine)
        combine(coefficients_of(BASIS), BASIS, engine=engine).sum().backward()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_global_seeds_have_no_say():
    first = generate(BASIS)
    torch.manual_seed(999)
    assert torch.equal(generate(BASIS), first)


def test_fewer_matrices_or_entries_are_the_beginning_of_more():
    fewer = Basis(seed=11, stream=BASIS.stream, count=5, rows=9, cols=13, bound=0.2)
    shorter = Basis(seed=11, stream=BASIS.stream, count=37, rows=4, cols=13, bound=0.2)
    assert torch.equal(generate(fewer), generate(BASIS)[:5])
    assert torch.equal(generate(shorter), generate(BASIS)[:, :4])


def test_another_seed_or_stream_is_another_basis():
    for change in ({"seed": 12}, {"seed": 11 + 2**32}, {"stream": BASIS.stream ^ 1}):
        fields = {"seed": 11, "stream": BASIS.stream, "count": 37, "rows": 9, "cols": 13, "bound": 0.2} | change
        same = generate(Basis(**fields)) == generate(BASIS)
        assert same.float().mean() < 0.01


def test_the_stream_of_a_name_never_changes():
    assert stream_of("shared/A") == 0xD7CABE8A
    assert stream_of("shared/B") == 0xAC3D299E


@pytest.mark.parametrize("engine", ["torch", "numba"])
@pytest.mark.parametrize(("rows", "cols"), [(9, 13), (1, 1), (2, 3), (64, 130)])
def test_combine_is_equation_3_2_forward_and_backward(engine, rows, cols):
    basis = Basis(seed=2, stream=7, count=17, rows=rows, cols=cols, bound=0.7)
    c = coefficients_of(basis)
    draw = torch.Generator().manual_seed(8)
    grad = torch.randn(rows, cols, dtype=torch.float64, generator=draw)
    mine, twin = combine(c, basis, chunk=5, engine=engine), twin_combine(c, basis)
    torch.testing.assert_close(mine, twin, rtol=0, atol=1e-12)
    mine_grad, twin_grad = (torch.autograd.grad(total, c, grad)[0] for total in (mine, twin))
    torch.testing.assert_close(mine_grad, twin_grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_gradcheck_passes(engine):
    basis = Basis(seed=2, stream=7, count=6, rows=3, cols=5, bound=0.7)
    assert torch.autograd.gradcheck(lambda c: combine(c, basis, chunk=4, engine=engine), coefficients_of(basis))


def test_a_unit_coefficient_picks_its_matrix_exactly():
    for i in (0, 17, 36):
        c = torch.zeros(BASIS.count)
        c[i] = 1
        assert torch.equal(combine(c, BASIS), generate(BASIS)[i])


def test_half_precision_coefficients_are_summed_in_float32():
    c = coefficients_of(BASIS, torch.float32).detach().to(torch.bfloat16).requires_grad_()
    total = combine(c, BASIS)
    assert total.dtype == torch.bfloat16
    assert torch.equal(total, combine(c.detach().float(), BASIS).to(torch.bfloat16))
    total.float().sum().backward()
    assert c.grad.dtype == torch.bfloat16


def test_the_backward_pass_holds_no_tensor():
    total = combine(coefficients_of(BASIS), BASIS)
    assert not hasattr(total.grad_fn, "saved_tensors") or not total.grad_fn.saved_tensors
    assert not any(isinstance(value, torch.Tensor) for value in vars(total.grad_fn).values())


def test_strided_and_expanded_gradients_are_read_right():
    c = coefficients_of(BASIS)
    weight = torch.arange(117, dtype=torch.float64).view(13, 9)
    (from_strided,) = torch.autograd.grad((combine(c, BASIS).T * weight).sum(), c)
    expected = (generate(BASIS).double() * weight.T).sum((1, 2))
    torch.testing.assert_close(from_strided, expected)
    (from_expanded,) = torch.autograd.grad(combine(c, BASIS).sum(), c, create_graph=True)
    torch.testing.assert_close(from_expanded, generate(BASIS).double().sum((1, 2)))


def test_the_meta_device_gives_shapes_only():
    assert generate(BASIS, device="meta").shape == (37, 9, 13)
    assert combine(torch.empty(37, device="meta"), BASIS).shape == (9, 13)


MEMORY = """
import resource, sys, torch
from effbook.nola.basis import Basis, combine
torch.set_num_threads(2)
peaks = []
for count in (250, 4000):
    basis = Basis(seed=0, stream=0, count=count, rows=256, cols=256, bound=1.0)
    c = torch.ones(count, requires_grad=True)
    combine(c, basis, engine=sys.argv[1]).sum().backward()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert peaks[1] < 1.05 * peaks[0], peaks  # held, 4000 matrices are 1 GiB
"""

FORK = """
import multiprocessing, torch
from effbook.nola.basis import Basis, combine
torch.set_num_threads(2)
basis = Basis(seed=0, stream=0, count=300, rows=100, cols=100, bound=1.0)
def work(number):
    return combine(torch.full((300,), float(number)), basis).sum().item()
here = [work(1), work(2)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, [1, 2]) == here
"""


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_matrices():
    run(MEMORY, "numba")


@pytest.mark.slow
def test_forked_workers_can_combine_after_their_parent_did():
    run(FORK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count = 0"),
        ({"rows": 0}, "rows = 0"),
        ({"cols": -1}, "cols = -1"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**64}, "64-bit"),
        ({"stream": 2**32}, "32-bit"),
        ({"bound": 0.0}, "entries up to 0.0"),
        ({"bound": float("nan")}, "nan"),
    ],
)
def test_an_impossible_basis_is_refused_in_one_sentence(change, message):
    fields = {"seed": 0, "stream": 0, "count": 1, "rows": 1, "cols": 1, "bound": 1.0} | change
    with pytest.raises(EffbookError, match=message):
        Basis(**fields)


def test_impossible_requests_are_refused_in_one_sentence():
    with pytest.raises(EffbookError, match=r"outside a basis of 37"):
        generate(BASIS, 30, 38)
    with pytest.raises(EffbookError, match=r"don't fit a basis of 37"):
        combine(torch.ones(36), BASIS)
    with pytest.raises(EffbookError, match=r"chunk of 0"):
        combine(torch.ones(37), BASIS, chunk=0)
