"""Mixed precision, where a method asks for it."""

from contextlib import nullcontext

import torch
from torch import Tensor


def in_precision(precision: str, x: Tensor) -> torch.autocast | nullcontext:
    """Autocast on the device of `x` for "bfloat16"; nothing for "float32"."""
    return torch.autocast(x.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
