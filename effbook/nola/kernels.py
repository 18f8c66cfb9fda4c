"""The engines behind `generate` and `combine`: plain torch, numba on the CPU, Triton on CUDA.

An engine is a module (or class) with three functions. `basis` is an `effbook.nola.basis.Basis`; N is its rows * cols.

- ``generate(basis, start, stop, *, device)``: matrices start..stop-1 in float32, [stop - start, N];
- ``combine(coefficients, basis, *, chunk)``: sum_i c_i A_i, [N];
- ``contract(grad, basis, *, chunk)``: <G, A_i> for every i, [count], the gradient of the coefficients.

Torch chunks serve any device. The fused engines generate an entry in registers, use it and forget it.
"""

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.nola import philox

ENGINES = ("torch", "numba", "triton")


def engine(device: torch.device, name: str | None = None):
    """Return the engine of this name, by default the fastest for the device: numba, Triton, else plain torch."""
    if name is None:
        name = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
        name = name if _importable(name) else "torch"
    elif name not in ENGINES:
        raise EffbookError(f"there is no engine named {name!r}", f"choose one of {', '.join(ENGINES)}")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's interpreter works on CPU tensors
    if (name == "numba" and device.type != "cpu") or (name == "triton" and device.type != "cuda" and not interpreted):
        raise EffbookError(f"the engine {name} doesn't serve the device {device}", "leave the choice to effbook")
    return _load(name)


@cache
def _importable(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@cache
def _load(name: str):
    # numba and Triton take a second to import: only who combines pays for it
    if name == "torch":
        return TorchEngine
    return importlib.import_module(f"effbook.nola.kernels_{name}")


class TorchEngine:
    """The basis in chunks of matrices, then a matrix product: the readable version, on any device."""

    @staticmethod
    def generate(basis, start: int, stop: int, *, device: torch.device) -> Tensor:
        made = torch.empty(stop - start, basis.numel, device=device)
        block = 2**20  # entries at a time: the integers in between take a hundred bytes each
        columns = min(basis.numel, block)
        matrices = max(1, block // columns)
        for i in range(start, stop, matrices):
            for e in range(0, basis.numel, columns):
                some = slice(i - start, min(i + matrices, stop) - start), slice(e, min(e + columns, basis.numel))
                made[some] = philox.entries(
                    seed=basis.seed,
                    stream=basis.stream,
                    start=i,
                    stop=min(i + matrices, stop),
                    first=e,
                    last=some[1].stop,
                    bound=basis.bound,
                    device=device,
                )
        return made

    @staticmethod
    def combine(coefficients: Tensor, basis, *, chunk: int) -> Tensor:
        total = coefficients.new_zeros(basis.numel)
        for start in range(0, basis.count, chunk):
            stop = min(start + chunk, basis.count)
            matrices = TorchEngine.generate(basis, start, stop, device=total.device)
            total += coefficients[start:stop] @ matrices.to(total.dtype)
        return total

    @staticmethod
    def contract(grad: Tensor, basis, *, chunk: int) -> Tensor:
        products = grad.new_empty(basis.count)
        for start in range(0, basis.count, chunk):
            stop = min(start + chunk, basis.count)
            matrices = TorchEngine.generate(basis, start, stop, device=grad.device)
            products[start:stop] = matrices.to(grad.dtype) @ grad
        return products
