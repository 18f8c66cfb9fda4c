"""SOG (PlayCanvas's specification, versions 1 and 2): a scene as lossless images, in a .sog archive or a folder.

A pixel of each image belongs to one Gaussian. Positions are 16 bits an axis in two images, in the range that meta.json
gives, after sign(x) log(1 + |x|); rotations are the smallest three of four in 8 bits; opacities 8 bits; harmonics are
an index of 16 bits into a palette, which is an image, too. In version 2, sizes, colours and the palette's numbers are
indices into codebooks of 256 numbers; in version 1 they are shares of a range. Its axes are those of 3DGS's .ply.
"""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading
from effbook.gaussians.formats.values import Say, checked, logits_of_bytes, of_smallest_three, warn
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_REST

META = "meta.json"
IN_A_ROW = 64  # entries of the palette
BANDS = (0, 3, 8, 15)  # harmonics a channel, by the number of bands
MOST_PALETTE = 1 << 16
FIRST_MODE = 252  # of the alpha that tells the largest of w, x, y, z

Finite = Annotated[float, Field(allow_inf_nan=False)]
Three = tuple[Finite, Finite, Finite]
Four = tuple[Finite, Finite, Finite, Finite]
Codes = Annotated[list[Finite], Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")

    files: Annotated[list[str], Field(min_length=1, max_length=2)]


class _Means(_Part):
    mins: Three
    maxs: Three
    shape: list[int] = []


class _Scales(_Part):
    codebook: Codes | None = None
    mins: Three | None = None
    maxs: Three | None = None


class _Colours(_Part):
    codebook: Codes | None = None
    mins: Four | None = None
    maxs: Four | None = None


class _Rest(_Part):
    count: Annotated[int, Field(ge=1, le=MOST_PALETTE)] | None = None
    bands: Annotated[int, Field(ge=1, le=3)] | None = None
    codebook: Codes | None = None
    mins: Finite | None = None
    maxs: Finite | None = None


class _Meta(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int = 1
    count: int = 0
    means: _Means
    scales: _Scales
    quats: _Part
    sh0: _Colours
    shN: _Rest | None = None


def read_sog(path: Path | str, *, say: Say = warn) -> Gaussians:
    """Read a .sog archive, a folder with meta.json, or that meta.json.

    Raises EffbookError for what is broken, of another version, or whose images do not fit each other.
    """
    return _Reader(Path(path)).scene(say)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path if path.is_dir() else path.parent if path.name == META else None
        self.archive: zipfile.ZipFile | None = None

    def scene(self, say: Say) -> Gaussians:
        if self.folder is not None:
            return self._scene(say)
        with reading(self.path) as file:
            try:
                with zipfile.ZipFile(file) as self.archive:
                    return self._scene(say)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
                raise self._broken(f"an archive that cannot be opened ({error})") from None

    def _scene(self, say: Say) -> Gaussians:
        meta = self._meta()
        n = self.count = meta.count if meta.version == 2 else (meta.means.shape or [0])[0]
        if n < 1:
            raise EffbookError(f"{self.path} holds no Gaussian", "export a trained scene")
        if len(meta.means.files) != 2 or (meta.shN and len(meta.shN.files) != 2):
            raise self._broken("a part with a file too few")
        low, high = (self._pixels(name) for name in meta.means.files)
        quats, colours = self._pixels(meta.quats.files[0]), self._pixels(meta.sh0.files[0])
        shares = ((high[:, :3].astype(np.int64) << 8) | low[:, :3]) / 65_535
        logs = _between(meta.means.mins, meta.means.maxs, shares)
        modes = quats[:, 3].astype(np.int64) - FIRST_MODE
        if (modes < 0).any():
            raise self._broken("rotations of which none of four parts is told to be the largest")
        if meta.version == 2:
            opacities = logits_of_bytes(colours[:, 3])
            sh_dc = self._looked_up(meta.sh0.codebook, colours[:, :3])
            scales = self._looked_up(meta.scales.codebook, self._pixels(meta.scales.files[0])[:, :3])
        else:
            scales = self._ranged(meta.scales, self._pixels(meta.scales.files[0])[:, :3])
            four = self._ranged(meta.sh0, colours)
            sh_dc, opacities = four[:, :3], torch.from_numpy(four[:, 3].astype(np.float32))
        with np.errstate(over="ignore"):
            means = np.sign(logs) * np.expm1(np.abs(logs))
            found = Gaussians(
                means=torch.from_numpy(means.astype(np.float32)),
                sh_dc=torch.from_numpy(sh_dc.astype(np.float32)),
                sh_rest=torch.from_numpy(self._rest(meta)),
                opacities=opacities,
                scales=torch.from_numpy(scales.astype(np.float32)),
                rotations=torch.from_numpy(of_smallest_three(modes, (quats[:, :3] / 255 - 0.5) * np.sqrt(2))),
            )
        return checked(found, self.path, say)

    def _meta(self) -> _Meta:
        raw = self._bytes(META)
        try:
            told = json.loads(raw)
            if isinstance(told, dict) and (version := told.get("version", 1)) not in (1, 2):
                raise EffbookError(f"{self.path} is SOG of version {version}, this reads 1 and 2", "export it again")
            return _Meta.model_validate(told)
        except (ValueError, RecursionError) as error:
            if not isinstance(error, ValidationError):
                raise self._broken(f"a {META} that is no JSON") from None
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "all of it"
            raise self._broken(f"a {META} of which {where} is wrong ({first['msg'].lower()})") from None

    def _rest(self, meta: _Meta) -> np.ndarray:
        """Harmonics [n, 15, 3]: each Gaussian's entry of the palette."""
        found = np.zeros((self.count, SH_REST, 3), np.float32)
        told = meta.shN
        if told is None:
            return found
        entries, labels = self._image(told.files[0]), self._pixels(told.files[1])
        bands = BANDS[told.bands] if told.bands else entries.shape[1] // IN_A_ROW
        if bands not in BANDS[1:] or entries.shape[1] != IN_A_ROW * bands:
            raise self._broken(f"a palette of {entries.shape[1]} pixels a row")
        entries = entries[:, :, :3].reshape(-1, bands, 3)  # row by row, 64 entries in each
        index = labels[:, 0].astype(np.int64) | labels[:, 1].astype(np.int64) << 8
        if int(index.max()) >= min(len(entries), told.count or len(entries)):
            raise self._broken("labels beyond its palette")
        coded = self._looked_up(told.codebook, entries) if meta.version == 2 else self._ranged(told, entries)
        found[:, :bands] = coded.astype(np.float32)[index]
        return found

    def _looked_up(self, codebook: list[float] | None, index: np.ndarray) -> np.ndarray:
        if codebook is None or int(index.max()) >= len(codebook):
            raise self._broken("no codebook, or indices beyond it")
        return np.asarray(codebook)[index]

    def _ranged(self, told: _Scales | _Colours | _Rest, values: np.ndarray) -> np.ndarray:
        if told.mins is None or told.maxs is None:
            raise self._broken("no range for some of its values")
        return _between(told.mins, told.maxs, values / 255)

    def _pixels(self, name: str) -> np.ndarray:
        """The first pixels of an image, one a Gaussian, [n, 4]."""
        image = self._image(name)
        if image.shape[0] * image.shape[1] < self.count:
            raise self._broken(f"{name} with {image.shape[0] * image.shape[1]:,} pixels for {self.count:,} Gaussians")
        return image.reshape(-1, 4)[: self.count]

    def _image(self, name: str) -> np.ndarray:
        """An image as it lies in its file, [H, W, 4]."""
        try:
            with Image.open(io.BytesIO(self._bytes(name)), formats=["WEBP", "PNG"]) as opened:
                if opened.mode not in ("RGB", "RGBA"):
                    raise self._broken(f"{name}, which is no image of three or four channels")
                return np.asarray(opened.convert("RGBA"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._broken(f"{name}, which cannot be read as an image ({error})") from None

    def _bytes(self, name: str) -> bytes:
        if self.folder is not None:
            if Path(name).name != name:  # nothing outside of the folder
                raise self._broken(f"a file {name!r} that lies elsewhere")
            with reading(self.folder / name) as file:
                return file.read()
        try:
            return self.archive.read(name)
        except KeyError:
            raise self._broken(f"no file {name!r}") from None

    def _broken(self, what: str) -> EffbookError:
        return EffbookError(f"{self.path} is no readable SOG scene: it has {what}", "copy or export it again")


def _between(low: object, high: object, shares: np.ndarray) -> np.ndarray:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return low + shares * (high - low)
