"""Image files one by one, for training on more than fits into memory: broken files are named, and it goes on."""

import logging
from collections.abc import Callable
from multiprocessing import RawArray
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from effbook.data.images import ImageFiles
from effbook.errors import EffbookError

LOG = logging.getLogger(__name__)
BROKEN_IN_A_ROW = 100  # so many are no bad files, but a disk that is gone


class Streamed(NamedTuple):
    """An image of a stream. `index` says which one it is, which where a file is broken is not the one asked for."""

    image: Any
    label: int
    index: int


class ImageStream:
    """A data set for `torch.utils.data.DataLoader`: ``stream[i]`` is (transformed image, label, index).

    A file that can't be decoded is passed over for the next one that can: ``index`` is then not the i asked for, so
    that an evaluation can drop it, and `broken` lists the file. Batches keep their size. The marks are in memory that
    worker processes share; whoever meets a broken file first names it as a warning of the log.
    """

    def __init__(self, files: ImageFiles, transform: Callable[[Any], Any] | None = None) -> None:
        """``transform`` gets a PIL image in RGB; without one the image is uint8 [H, W, 3]."""
        if not len(files):
            raise EffbookError("there is no image to stream", "choose a split that holds some")
        self.files = files
        self.transform = transform or (lambda image: np.asarray(image))
        self._broken = RawArray("B", len(files))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Streamed:
        """Raises `EffbookError` where 100 files in a row, or all there are, can't be decoded."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        why = ""
        for tried in range(min(BROKEN_IN_A_ROW, len(self))):
            at = (index + tried) % len(self)
            if not self._broken[at]:
                try:
                    image = _decoded(self.files.paths[at])
                except MemoryError:
                    raise
                except Exception as error:  # the decoders of the many formats raise errors of every kind
                    why = f" ({' '.join(str(error).split()) or type(error).__name__})"
                    if not self._broken[at]:  # no other thread was faster
                        self._broken[at] = 1
                        LOG.warning(
                            "%s cannot be decoded%s; the next image stands in for it", self.files.paths[at], why
                        )
                else:
                    return Streamed(self.transform(image), int(self.files.labels[at]), at)
        raise EffbookError(
            f"no image of {tried + 1} in a row, from {self.files.paths[index]} on, can be decoded{why}",
            "check that the folder is still there, or fetch the data set again",
        )

    def broken(self) -> tuple[Path, ...]:
        """The files that could not be decoded so far, in any process."""
        return tuple(self.files.paths[i] for i in np.flatnonzero(self.marks()))

    def marks(self) -> np.ndarray:
        """Which files could not be decoded so far: bool [N]."""
        return np.frombuffer(self._broken, dtype=np.uint8) > 0


def _decoded(path: Path) -> Any:
    from PIL import Image  # here, as whoever lists data needs no decoder

    with Image.open(path) as opened:
        return opened.convert("RGB")
