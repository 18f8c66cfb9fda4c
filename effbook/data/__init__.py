"""Data sets and weight files: described by manifests, fetched once into a cache, checked byte for byte."""

from collections.abc import Sequence

import numpy as np

from effbook.data.cache import cache_folder, is_cached, is_generated, verify
from effbook.data.fetch import fetch, remedy
from effbook.data.images import ImageFiles, ImageSet
from effbook.data.manifest import Manifest, digest, manifest, manifests
from effbook.data.text import Instruction, Pair
from effbook.errors import EffbookError

__all__ = [
    "ImageFiles",
    "ImageSet",
    "Instruction",
    "Manifest",
    "Pair",
    "cache_folder",
    "digest",
    "fetch",
    "is_cached",
    "list_images",
    "load_images",
    "load_instructions",
    "load_pairs",
    "manifest",
    "manifests",
    "verify",
]

DEFAULT_IMAGE_PX = 224


def load_images(
    name: str, split: str, *, image_px: int = DEFAULT_IMAGE_PX, indices: Sequence[int] | None = None
) -> ImageSet:
    """Images and labels of a split as arrays, from the cache (nothing is downloaded).

    ``images`` uint8 [N, H, W] or [N, H, W, 3]. Sets of image files are cut to ``image_px`` squares, and only those
    that ``indices`` (whole numbers from 0) names are decoded; sets of one size keep it. Raises `EffbookError` if it
    isn't fetched, is laid out otherwise or holds an image that can't be decoded, and for indices that it lacks.
    """
    from effbook.data import folders, images

    described = _described(name, split, "images")
    if described.loader in folders.FOLDER_READERS:
        files = list_images(name, split)
        chosen = _chosen(indices, files, described, split)
        pictures = np.empty((len(chosen), image_px, image_px, 3), dtype=np.uint8)
        for row, index in enumerate(chosen):
            pictures[row] = images.decode(files.paths[index], image_px)
        return ImageSet(images=pictures, labels=files.labels[chosen], classes=files.classes)
    found = _labelled(_read(_reader(images.ARRAY_READERS, described), described, split, described), described, split)
    if indices is None:
        return found
    chosen = _chosen(indices, found, described, split)
    return ImageSet(images=found.images[chosen], labels=found.labels[chosen], classes=found.classes)


def list_images(name: str, split: str) -> ImageFiles:
    """Paths and labels of a split that lies as image files, for choosing few of them or streaming many."""
    from effbook.data import folders

    described = _described(name, split, "images")
    if described.loader not in folders.FOLDER_READERS:
        raise EffbookError(f"{name} does not lie as image files", "use load_images")
    return _labelled(_read(folders.FOLDER_READERS[described.loader], described, split, described), described, split)


def load_pairs(name: str, split: str) -> list[Pair]:
    """Data-to-text pairs of a split, from the cache; raises `EffbookError` if it isn't fetched."""
    from effbook.data import text

    described = _described(name, split, "pairs")
    return _read(_reader(text.PAIR_READERS, described), described, split)


def load_instructions(name: str, split: str) -> list[Instruction]:
    """Prompts and answers of a split, from the cache; raises `EffbookError` if it isn't fetched."""
    from effbook.data import text

    described = _described(name, split, "instructions")
    return _read(_reader(text.INSTRUCTION_READERS, described), described, split)


def _described(name: str, split: str, kind: str) -> Manifest:
    described = manifest(name)
    if described.kind != kind:
        raise EffbookError(f"{name} holds {described.kind}, not {kind}", "effbook data list shows what each one holds")
    if split not in described.splits:
        raise EffbookError(f"{name} has no split {split!r}", f"choose {' or '.join(described.splits)}")
    return described


def _reader(readers: dict, described: Manifest):
    if described.loader not in readers:
        raise EffbookError(
            f"the manifest of {described.name} names the loader {described.loader!r}, which reads no {described.kind}",
            f"use one of {', '.join(readers)}",
        )
    return readers[described.loader]


def _cached(described: Manifest):
    first = described.sources[0]
    on_this_machine = first.kind == "package" and first.registry == "inside"
    if is_generated(described) or on_this_machine or is_cached(described.name):
        return fetch(described.name)
    local = next((s for s in described.sources if s.kind == "local"), None)
    raise EffbookError(
        f"{described.name} has not been fetched, or its copy in {cache_folder()} is damaged",
        f"run 'effbook data fetch {described.name}'" if local is None else remedy(described),
    )


def _read(reader, described: Manifest, split: str, *more):
    """Call a reader on the cached folder and compare what it found with the manifest's count."""
    folder = _cached(described)
    try:
        found = reader(folder, split, *more)
    except (EffbookError, MemoryError):
        raise
    except Exception as error:  # files of strangers: what a parser raises at them is of every kind
        why = " ".join(str(error).split()) or type(error).__name__
        raise EffbookError(
            f"the copy of {described.name} in {folder} is incomplete or laid out otherwise ({why})",
            f"compare it with {described.homepage}, or run 'effbook data verify {described.name}'",
        ) from error
    wanted = described.splits[split]
    if wanted is not None and len(found) != wanted:
        raise EffbookError(
            f"{described.name} has {len(found)} items in {split} where its manifest counts {wanted}",
            f"run 'effbook data verify {described.name}'",
        )
    return found


def _labelled(found: ImageSet | ImageFiles, described: Manifest, split: str) -> ImageSet | ImageFiles:
    """What a reader of images found, if each image has one label, and each label is that of a class."""
    held = len(found.images if isinstance(found, ImageSet) else found.paths)
    wrong = ""
    if held != len(found.labels):
        wrong = f"{held} images and {len(found.labels)} labels"
    elif len(found) and (found.labels.min() < 0 or found.labels.max() >= len(found.classes)):
        wrong = f"labels from {found.labels.min()} to {found.labels.max()} for {len(found.classes)} classes"
    if wrong:
        raise EffbookError(
            f"{described.name} has {wrong} in {split}",
            f"compare it with {described.homepage}, or run 'effbook data verify {described.name}'",
        )
    return found


def _chosen(indices: Sequence[int] | None, found: ImageSet | ImageFiles, described: Manifest, split: str) -> np.ndarray:
    """The indices as int64 [K], all of them where none are given."""
    if indices is None:
        return np.arange(len(found))
    chosen = np.asarray(indices if len(indices) else np.empty(0, dtype=np.int64))
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise EffbookError(f"indices of {described.name} are not whole numbers in a row", "give whole numbers from 0")
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(found)):
        raise EffbookError(
            f"{described.name} has no image {chosen.min() if chosen.min() < 0 else chosen.max()} in {split}",
            f"choose from 0 to {len(found) - 1}",
        )
    return chosen.astype(np.int64)
