"""The engines against one another; Triton's kernels run here in its interpreter and are compiled for real cards."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from effbook.errors import EffbookError
from effbook.nola import kernels
from effbook.nola.basis import Basis, combine, generate

# a size with a ragged last block, one of several tiles, a single entry; seeds and streams with their top bits set
BASES = [
    Basis(seed=2**63 + 5, stream=2**32 - 1, count=5, rows=11, cols=13, bound=0.37),
    Basis(seed=7, stream=0, count=9, rows=30, cols=41, bound=1000**-0.5),
    Basis(seed=1, stream=1, count=1, rows=1, cols=1, bound=1.0),
]


def outcome(basis, engine, dtype, device="cpu"):
    """The basis, the sum of it and the gradient of the coefficients."""
    draw = torch.Generator().manual_seed(6)
    c = torch.randn(basis.count, generator=draw, dtype=torch.float64).to(device, dtype).requires_grad_()
    grad = torch.randn(basis.rows, basis.cols, generator=draw, dtype=torch.float64).to(device, dtype)
    total = combine(c, basis, chunk=2, engine=engine)
    made = generate(basis, dtype=dtype, device=device, engine=engine)
    return made, total.detach(), torch.autograd.grad(total, c, grad)[0]


def agree(mine, other, dtype):
    """Equal bits of the basis; sums within rounding of their size."""
    assert torch.equal(mine[0].cpu(), other[0].cpu())
    for a, b in zip(mine[1:], other[1:], strict=True):
        tolerance = (1e-6 if dtype == torch.float32 else 1e-14) * (1 + b.abs().max().item())
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=tolerance)


INTERPRETED = """
import sys, torch
from safetensors.torch import save_file
from tests.nola.test_kernels import BASES, outcome
from effbook.nola import kernels_triton

tensors = {}
for programs in (1, 2048):  # with one program nothing is split, with many everything is
    kernels_triton.PROGRAMS = programs
    for number, basis in enumerate(BASES):
        for dtype in (torch.float32, torch.float64):
            for name, tensor in zip(("made", "total", "grad"), outcome(basis, "triton", dtype), strict=True):
                tensors[f"{programs}/{number}/{dtype}/{name}"] = tensor.contiguous().clone()
save_file(tensors, sys.argv[1])
"""


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What the Triton kernels give in the interpreter, which must be asked for before Triton is imported."""
    pytest.importorskip("triton")
    path = tmp_path_factory.mktemp("triton") / "interpreted.safetensors"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return load_file(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("basis", BASES)
def test_numba_and_torch_agree(basis, dtype):
    agree(outcome(basis, "numba", dtype), outcome(basis, "torch", dtype), dtype)


@pytest.mark.parametrize("programs", [1, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", range(len(BASES)))
def test_triton_in_its_interpreter_and_torch_agree(interpreted, number, dtype, programs):
    mine = [interpreted[f"{programs}/{number}/{dtype}/{name}"] for name in ("made", "total", "grad")]
    agree(mine, outcome(BASES[number], "torch", dtype), dtype)


def test_large_matrices_cross_the_torch_engines_blocks():
    basis = Basis(seed=3, stream=3, count=2, rows=1025, cols=1025, bound=0.1)
    assert torch.equal(generate(basis, engine="torch"), generate(basis, engine="numba"))


def test_two_threads_may_combine_at_once():
    basis = Basis(seed=3, stream=3, count=200, rows=100, cols=100, bound=0.1)
    alone = combine(torch.ones(200), basis)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: combine(torch.ones(200), basis), range(4)))
    assert all(torch.equal(one, alone) for one in both)


def test_the_engine_follows_the_device_and_what_is_installed(monkeypatch):
    assert kernels.engine(torch.device("cpu")).__name__.endswith("kernels_numba")
    assert kernels.engine(torch.device("mps")) is kernels.TorchEngine
    monkeypatch.setattr(kernels, "_importable", lambda name: False)
    assert kernels.engine(torch.device("cpu")) is kernels.TorchEngine
    assert kernels.engine(torch.device("cuda")) is kernels.TorchEngine


def test_an_engine_that_cannot_serve_is_refused_in_one_sentence():
    with pytest.raises(EffbookError, match="no engine named 'fortran'"):
        kernels.engine(torch.device("cpu"), "fortran")
    with pytest.raises(EffbookError, match="numba doesn't serve the device cuda"):
        kernels.engine(torch.device("cuda"), "numba")
    with pytest.raises(EffbookError, match="triton doesn't serve the device cpu"):
        kernels.engine(torch.device("cpu"), "triton")


SIGNATURES = {
    "_generate": {"out": "*fp32", "numel": "i32", "start": "i32"},
    "_combine": {"parts": "*fp32", "coefficients": "*fp32", "numel": "i32", "count": "i32", "share": "i32"},
    "_contract": {"parts": "*fp32", "grad": "*fp32", "numel": "i32", "count": "i32", "share": "i32"},
}


@pytest.mark.parametrize("kernel", SIGNATURES)
def test_the_cuda_kernels_compile_and_round_an_entry_before_it_is_summed(kernel, tmp_path, monkeypatch):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from effbook.nola import kernels_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    key = {"stream": "i32", "seed_low": "i32", "seed_high": "i32", "bound": "fp32"}
    constants = {"BLOCK": kernels_triton.BLOCK} | ({} if kernel == "_generate" else {"DTYPE": triton.language.float32})
    signature = SIGNATURES[kernel] | key | dict.fromkeys(constants, "constexpr")
    source = ASTSource(getattr(kernels_triton, kernel), signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": True})
    assert len(compiled.asm["cubin"]) > 0
    # four conversions and two roundings each (2**-23 and bound) stand apart from the four fused sums
    assert len(re.findall(r"cvt\.rn\.f32\.s32", compiled.asm["ptx"])) == 4
    assert len(re.findall(r"mul(?:\.rn)?\.f32", compiled.asm["ptx"])) == 8
    assert len(re.findall(r"fma\.rn\.f32", compiled.asm["ptx"])) == (0 if kernel == "_generate" else 4)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("engine", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("basis", [*BASES, Basis(seed=9, stream=4, count=300, rows=384, cols=96, bound=0.02)])
def test_cuda_and_cpu_agree(basis, dtype, engine):
    agree(outcome(basis, engine, dtype, "cuda"), outcome(basis, "numba", dtype), dtype)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cuda_and_cpu_cast_alike(dtype):
    assert torch.equal(generate(BASES[1], dtype=dtype, device="cuda").cpu(), generate(BASES[1], dtype=dtype))


@pytest.mark.gpu
@needs_cuda
def test_the_fused_sum_on_cuda_gives_the_same_bits_twice_and_takes_the_same_memory_for_any_count():
    peaks = []
    for count in (250, 4000):
        basis = Basis(seed=0, stream=0, count=count, rows=1024, cols=1024, bound=1.0)
        first, second = outcome_on_cuda(basis), outcome_on_cuda(basis)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        del first, second
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        outcome_on_cuda(basis)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.05 * peaks[0] + 2**20


def outcome_on_cuda(basis):
    """The sum and the gradient alone, without the held basis."""
    c = torch.linspace(-1, 1, basis.count, device="cuda", requires_grad=True)
    total = combine(c, basis)
    return total.detach(), torch.autograd.grad(total, c, torch.ones_like(total))[0]
