"""A stand-in for a graphics card: a device named "card" whose numbers lie on the CPU, and which won't mix with it.

    with card():
        recipe.run(Context(profile="smoke", folder=folder, ...))  # with context.device = "card"

Inside, a tensor on the device "card" wraps one of the CPU. Every operation is looked at before it runs: tensors of
both devices in one operation, or a generator of the CPU that draws into a tensor of the card, raise
`MixedDevicesError`, as CUDA would refuse them. A scalar (a tensor without dimensions) may come from the CPU, and so
may indices into a tensor of the card, as with CUDA.

What it does not catch: whatever asks for the word "cuda" (Triton and gsplat kernels, `torch.cuda...`, which checkpoint
or clock is taken), operations and number types that a card lacks, errors that come late, memory, other bits than the
CPU's, tensors of inference mode where they mustn't be. The type of a parameter on the card is not `nn.Parameter`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "card"
aten = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
MOVES = {aten._to_copy.default, aten.copy_.default}  # from one device to the other
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class MixedDevicesError(RuntimeError):
    """An operation that a real card would refuse."""


class CardTensor(torch.Tensor):
    """A tensor that says it is on the card; `held` is the same on the CPU."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "CardTensor":
        with torch.inference_mode(False):  # or views, in inference mode, of tensors made outside would be refused
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=torch.device(NAME, 0),
            )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def storage(self) -> torch.TypedStorage:
        return self.held.storage()

    def tolist(self) -> list:
        return self.held.tolist()

    def numpy(self, **_: object) -> None:
        raise MixedDevicesError("a tensor of the card is no NumPy array")

    __array__ = numpy

    def __repr__(self) -> str:
        return f"{self.held!r} on {NAME}"


class _Card(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._can_decompose() and func.has_kernel_for_dispatch_key(COMPOSITE):  # inference mode leaves these whole
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return dispatched(func, args, kwargs or {})


def dispatched(func, args: tuple, kwargs: dict):
    """Run one operation on the CPU, for tensors that are all of the card or all of the CPU."""
    leaves = tree_flatten((args, kwargs))[0]
    there = [x for x in leaves if isinstance(x, CardTensor)]
    here = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, CardTensor)]
    named = kwargs.get("device")
    to_card = torch.device(named).type == NAME if named is not None else bool(there)
    if func not in MOVES and there and [x for x in here if x.dim()] and not _may_mix(func, args):
        raise MixedDevicesError(f"{func} takes tensors of the card and of the CPU")
    if to_card and any(isinstance(x, torch.Generator) for x in leaves):
        raise MixedDevicesError(f"{func} draws on the card from a generator of the CPU")
    inner = {
        key: torch.device("cpu") if key == "device" and value is not None else value for key, value in kwargs.items()
    }
    held = tree_map(lambda x: x.held if isinstance(x, CardTensor) else x, (args, inner))
    result = func(*held[0], **held[1])
    if func is aten.copy_.default:
        return args[0]
    back = {id(x.held): x for x in there}  # what is written in place stays the same tensor

    def wrap(x):
        if not isinstance(x, torch.Tensor):
            return x
        return back[id(x)] if id(x) in back else CardTensor(x)

    return tree_map(wrap, result) if to_card else result


def _may_mix(func, args: tuple) -> bool:
    return func in INDEXED and isinstance(args[0], CardTensor)


class _Module:
    """What torch asks of `torch.card`."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_rng_state(device: object = 0) -> torch.Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: object = 0) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@cache
def _registered() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())


@contextmanager
def card() -> Iterator[None]:
    """Inside, torch has the device "card"."""
    _registered()
    swaps, lifts = torch.__future__.get_swap_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch.__future__.set_swap_module_params_on_conversion(True)  # module.to(...) keeps its parameters' identity
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(data, device="card") is made on the CPU, then moved
    try:
        with _Card():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        torch._C._set_only_lift_cpu_tensors(lifts)
