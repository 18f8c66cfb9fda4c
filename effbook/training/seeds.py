"""Draws from whole numbers alone, always made on the CPU; torch's global state is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """One seed below 2^63 from several whole numbers of at least 0 (a seed, an epoch, a process, ...)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(*key: int) -> torch.Generator:
    """A generator on the CPU for these whole numbers."""
    return torch.Generator().manual_seed(seed_of(*key))


@contextmanager
def seeded(*key: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Let what asks torch's global state (initialisation, dropout) draw from these whole numbers, and put it back."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(*key))
        yield
