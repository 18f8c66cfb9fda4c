"""Listing any data set that lies as files: what `effbook.data.list_images` knows, and what came after it.

The newer layouts are not entered in `folders`, as its code is part of the fingerprint of hundreds of recorded numbers.
"""

from effbook import data
from effbook.data.folders import FOLDER_READERS, Reader
from effbook.data.imagenet import read_imagenet
from effbook.data.images import ImageFiles
from effbook.data.transfer import read_caltech101_background, read_cars, read_dtd, read_flowers102
from effbook.data.ucf101 import read_ucf101
from effbook.errors import EffbookError

FILE_READERS: dict[str, Reader] = {
    **FOLDER_READERS,
    "caltech101-background": read_caltech101_background,
    "cars": read_cars,
    "dtd": read_dtd,
    "flowers102": read_flowers102,
    "imagenet": read_imagenet,
    "imagenet-folder": read_imagenet,  # the same paths in the same order, and missing classes are named
    "ucf101": read_ucf101,
}


def list_files(name: str, split: str) -> ImageFiles:
    """Paths and labels of a split that lies as image files or clips, from the cache; nothing is decoded.

    Raises `EffbookError` where it isn't fetched, is laid out otherwise, or holds another number than its manifest says.
    """
    described = data.manifest(name)
    if described.loader not in FILE_READERS:
        raise EffbookError(f"{name} does not lie as files", "use effbook.data.load_images")
    described = data._described(name, split, described.kind)
    return data._labelled(data._read(FILE_READERS[described.loader], described, split, described), described, split)
