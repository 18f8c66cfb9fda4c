"""Plain values that one process hands to another, by a JSON and a safetensors file; and when two of them agree.

Nothing here is ever unpickled: what a stranger's process wrote can be wrong, and do no harm.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from effbook.errors import EffbookError

MOST_NUMBERS = 20_000_000  # in the tensors of one file
MOST_BYTES = 100_000_000  # of one file
RELATIVE, ABSOLUTE = 1e-3, 1e-5  # tolerances: float32 summed in another order


def to_plain(value: object, tensors: dict[str, Tensor]) -> object:
    """A value as JSON, with its tensors put aside under names. Raises EffbookError for anything that is not plain."""
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(np.asarray(value))
    if isinstance(value, Tensor):
        kept = value.detach().cpu().contiguous().clone()
        name = f"t{len(tensors)}"
        tensors[name] = kept.float() if kept.dtype in (torch.bfloat16, torch.float16) else kept
        if sum(t.numel() for t in tensors.values()) > MOST_NUMBERS:
            raise EffbookError(f"more than {MOST_NUMBERS:,} numbers", "hand over less")
        return {"tensor": name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [to_plain(one, tensors) for one in value]
    raise EffbookError(f"a {type(value).__name__}, which is neither a tensor nor a number", "return tensors or numbers")


def from_plain(tree: object, tensors: dict[str, Tensor]) -> object:
    """The inverse of `to_plain`; tuples have become lists. Raises EffbookError for what `to_plain` does not write."""
    if isinstance(tree, dict):
        if set(tree) != {"tensor"} or tree["tensor"] not in tensors:
            raise EffbookError("what was handed over names a tensor that is not there", "")
        return tensors[tree["tensor"]]
    return [from_plain(one, tensors) for one in tree] if isinstance(tree, list) else tree


def write(place: Path, told: object, tensors: dict[str, Tensor]) -> None:
    """Write `told` (JSON) and the tensors as place.json and place.safetensors; the JSON, last, says that both are."""
    save_file(tensors, place.with_suffix(".safetensors"))
    place.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")


def read(place: Path) -> tuple[object, dict[str, Tensor]]:
    """What `write` wrote. Raises EffbookError where it is missing, too large or broken."""
    try:
        for suffix in (".json", ".safetensors"):
            if place.with_suffix(suffix).stat().st_size > MOST_BYTES:
                raise EffbookError("what was handed over is too large", "hand over less")
        told = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        return told, load_file(place.with_suffix(".safetensors"))
    except EffbookError:
        raise
    except Exception as error:  # files of strangers
        raise EffbookError(f"nothing usable was handed over ({type(error).__name__})", "") from None


def difference(got: object, wanted: object) -> str | None:
    """In which way a value is not what was wanted, as the end of a sentence; None where they agree."""
    if isinstance(wanted, Tensor) or isinstance(got, Tensor):
        return _of_tensors(got, wanted)
    if isinstance(wanted, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(wanted):
            return f"has {len(got) if isinstance(got, list | tuple) else 'no'} parts, not {len(wanted)}"
        return next((why for a, b in zip(got, wanted, strict=True) if (why := difference(a, b))), None)
    if isinstance(wanted, bool) or isinstance(got, bool) or not isinstance(wanted, int | float):
        return None if type(got) is type(wanted) and got == wanted else f"is {got!r}, not {wanted!r}"
    if not isinstance(got, int | float):
        return f"is {got!r}, no number"
    return None if _near(float(got), float(wanted)) else f"is {got:.6g}, not {wanted:.6g}"


def _of_tensors(got: object, wanted: object) -> str | None:
    try:
        a, b = (one if isinstance(one, Tensor) else torch.as_tensor(one) for one in (got, wanted))
    except (TypeError, ValueError, RuntimeError):
        return f"is {type(got).__name__}, not a tensor"
    if a.shape != b.shape:
        return f"has the shape {tuple(a.shape)}, not {tuple(b.shape)}"
    if (a.dtype == torch.bool) != (b.dtype == torch.bool):
        return f"is of {a.dtype}, not {b.dtype}"
    a, b = a.detach().double().cpu().numpy(), b.detach().double().cpu().numpy()
    if np.allclose(a, b, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True):
        return None
    if a.ndim == 0:
        return f"is {float(a):.6g}, not {float(b):.6g}"
    return f"differs in {int((~np.isclose(a, b, rtol=RELATIVE, atol=ABSOLUTE)).sum())} of {a.size} numbers"


def _near(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE) or (math.isnan(a) and math.isnan(b))
