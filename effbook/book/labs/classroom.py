"""What a lab's notebook calls: checks, the measured outcome, the private draw and the images.

`effbook lab grade` puts something else in the place of `expect` and `measured`: there a student's process hands its
values over, and they are compared outside it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from effbook.book.labs.bands import band_of
from effbook.book.labs.values import difference
from effbook.errors import EffbookError
from effbook.training.seeds import generator

SEED = "EFFBOOK_LAB_SEED"  # the teacher's, from which the hidden checks draw; 0 where nobody set it
DATA = "EFFBOOK_LAB_DATA"  # the folder of the data that came with the lab; by default the one beside the notebook


def expect(what: str, got: object, wanted: object) -> None:
    """Say that `got` is what was wanted, or raise AssertionError with how it differs."""
    why = difference(got, wanted)
    if why is not None:
        raise AssertionError(f"{what}: it {why}")
    print(f"\N{CHECK MARK} {what}")


def measured(lab: str, profile: str, given: object, score: Callable[[object], float]) -> float:
    """Score what the lab ends with, and say whether the score lies in the lab's band; AssertionError if not."""
    found, (low, high) = float(score(given)), band_of(lab, profile)
    told = f"{found:.2f}, and the band of the profile {profile} is {low:.2f} to {high:.2f}"
    if not low <= found <= high:
        raise AssertionError(f"the measured outcome is {told}")
    print(f"\N{CHECK MARK} the measured outcome is {told}")
    return found


def private(*key: int) -> torch.Generator:
    """A generator for the teacher's seed and these numbers: what hidden checks draw from."""
    return generator(int(os.environ.get(SEED, "0")), *key)


def images(name: str, split: str, *, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`count` images of a split, drawn by the seed: float [N, C, H, W] in 0..1, and labels [N].

    From `data/NAME` beside the notebook if the lab came with it, its checksums verified, else from effbook's cache,
    where the set is fetched. Raises EffbookError where the files are others, or the split has fewer images.
    """
    from effbook import data

    beside = Path(os.environ.get(DATA, "data")) / name
    if beside.is_dir():
        found = _from_files(beside, name, split)
    else:
        data.fetch(name)
        found = data.load_images(name, split)
    if count > len(found):
        raise EffbookError(f"{name} has {len(found)} images in {split}, not {count}", "ask for fewer")
    chosen = torch.randperm(len(found), generator=generator(seed, len(found)))[:count]
    pictures = torch.from_numpy(found.images)[chosen].float() / 255
    pictures = pictures[:, None] if pictures.ndim == 3 else pictures.movedim(-1, 1)
    return pictures.contiguous(), torch.from_numpy(found.labels)[chosen]


def _from_files(folder: Path, name: str, split: str) -> object:
    from effbook.data.cache import checksum
    from effbook.data.images import ARRAY_READERS
    from effbook.data.manifest import manifest

    described = manifest(name)
    wanted = {f.path: f.sha256 for source in described.sources if source.kind == "package" for f in source.files}
    for path, digest in wanted.items():
        if not (folder / path).is_file() or checksum(folder / path) != digest:
            raise EffbookError(f"{folder / path} is missing or damaged", "unpack the lab's zip again")
    return ARRAY_READERS[described.loader](folder, split, described)
