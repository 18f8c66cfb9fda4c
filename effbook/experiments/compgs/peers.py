"""What people pick to keep a trained scene small, beside ours: bytes, likeness of pictures, seconds of the processor.

The scene is a still life, path-traced and trained here and now as plain 3DGS; so the comparison needs no data. Encoders
write to a folder and read back what they wrote; pictures are compared by `compgs.rate.Judge`.
"""

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effbook.compgs.codec import Prepared
    from effbook.compgs.rate import Judge, Packed
    from effbook.gaussians.model import Gaussians

Writer = Callable[
    ["Gaussians", Path], tuple[Path, Callable[[], "Gaussians"]]
]  # a folder -> the file, and what reads it
ITERATIONS = {"smoke": 60, "mini": 800}
MOST = {"smoke": 400, "mini": 12_000}
PROGRAM = "splat-transform"  # of npm's @playcanvas/splat-transform
TRANSFORM = "SPLAT_TRANSFORM"  # where the program's cli.mjs lies, where it is not on the path


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file of one encoder."""

    encoder: str
    size_bytes: int
    psnr_db: float
    encode_s: float  # CPU seconds, of its own process where it is one
    decode_s: float


@functools.cache
def trained_scene(scale: str = "mini") -> "Gaussians":
    """The still life as 3DGS: some seconds at `mini`, on the views that pages show."""
    from effbook.experiments.compgs import gallery
    from effbook.gaussians.config import DensitySettings, TrainSettings

    iterations = ITERATIONS[scale]
    views = gallery.few_views("toy" if scale == "smoke" else "still-lifes", "metals", train=16)
    density = DensitySettings(
        start=iterations // 10, end=iterations // 2, interval=20, reset_interval=iterations, most=MOST[scale]
    )
    settings = TrainSettings(iterations=iterations, sh_interval=max(1, iterations // 8), density=density)
    return gallery.trained(views, settings, scale=scale).model.decode()


# --- encoders ------------------------------------------------------------------------------------------------------


def _codebooks(code_bits: int, *, bitq: bool) -> Writer:
    def run(scene: "Gaussians", folder: Path) -> tuple[Path, Callable[[], "Gaussians"]]:
        from effbook.compgs.config import BIT_QUANTISED, CompGSSettings, Storage, books
        from effbook.compgs.container import read, write
        from effbook.compgs.quantise import compress

        sizes = books(colour=min(4096, len(scene)), covariance=min(16_384, len(scene)))
        bits = BIT_QUANTISED.plain_bits if bitq else {}
        small = compress(scene, CompGSSettings(books=sizes))
        write(small, folder / "s.compgs", Storage(plain_bits=bits, code_bits=code_bits, entropy=True))
        return folder / "s.compgs", lambda: read(folder / "s.compgs").decode()

    return run


def _format(name: str, **options: int) -> Writer:
    def run(scene: "Gaussians", folder: Path) -> tuple[Path, Callable[[], "Gaussians"]]:
        from effbook.gaussians.formats import READERS, WRITERS, ending

        path = folder / name
        WRITERS[ending(path)](scene, path, say=lambda sentence: None, **options)  # PSNR tells it
        return path, lambda: READERS[ending(path)](path)

    return run


def _gsply(scene: "Gaussians", folder: Path) -> tuple[Path, Callable[[], "Gaussians"]]:
    import gsply

    from effbook.gaussians.formats import read_ply

    path = folder / "s.compressed.ply"
    parts = {name: t.numpy() for name, t in scene.tensors().items()}
    data = gsply.GSData(
        means=parts["means"], scales=parts["scales"], quats=parts["rotations"], opacities=parts["opacities"],
        sh0=parts["sh_dc"], shN=parts["sh_rest"],
    )  # fmt: skip
    gsply.plywrite(path, data, compressed=True)
    return path, lambda: read_ply(path)


def _transform(name: str, *options: str) -> Writer:
    def run(scene: "Gaussians", folder: Path) -> tuple[Path, Callable[[], "Gaussians"]]:
        from effbook.gaussians.formats import READERS, ending, write_ply

        write_ply(scene, folder / "plain.ply")
        path = folder / name
        subprocess.run(
            [*_program(), "-q", *options, str(folder / "plain.ply"), str(path)], check=True, capture_output=True
        )
        return path, lambda: READERS[ending(path)](path)

    return run


def _program() -> list[str]:
    """What starts splat-transform; nothing where it is not installed."""
    if found := os.environ.get(TRANSFORM):
        return ["node", found] if shutil.which("node") and Path(found).is_file() else []
    return [found] if (found := shutil.which(PROGRAM)) else []


DISSERTATION = "CompGS 16K"


def encoders() -> dict[str, Writer]:
    """All of them, the dissertation's first."""
    return {
        DISSERTATION: _codebooks(32, bitq=False),
        "CompGS 16K BitQ, codes in 8 bits": _codebooks(8, bitq=True),
        ".splat": _format("s.splat"),
        ".spz 3": _format("s.spz", version=3),
        ".spz 4": _format("s.spz", version=4),
        "SOG": _format("s.sog"),
        "compressed.ply (gsply)": _gsply,
        "SOG (splat-transform)": _transform("t.sog", "-g", "cpu"),
        ".spz (splat-transform)": _transform("t.spz"),
    }


def names() -> list[tuple[str, tuple[str, ...]]]:
    """Each encoder with what it needs, in the words of a recipe's `needs`."""
    program = () if _program() else (f"program:{PROGRAM}",)
    needs = {"gsply": ("package:gsply",), PROGRAM: program}
    return [(name, needs.get(name.rpartition("(")[2].rstrip(")"), ())) for name in encoders()]


# --- measuring -----------------------------------------------------------------------------------------------------


def measured(name: str, scene: "Gaussians", judge: "Judge") -> Point:
    """One encoder's file of a scene."""
    with tempfile.TemporaryDirectory() as folder:
        start = _seconds()
        path, reading = encoders()[name](scene, Path(folder))
        written = _seconds()
        back = reading()
        done = _seconds()
        size = path.stat().st_size
    return Point(
        encoder=name, size_bytes=size, psnr_db=judge.psnr(back), encode_s=written - start, decode_s=done - written
    )


def ours(prepared: "Prepared", wanted_db: float, judge: "Judge") -> Point:
    """The codec's file at a PSNR; the seconds are those of one file, without the search."""
    from effbook.compgs.codec import pack, prepare, unpack
    from effbook.compgs.rate import at_psnr

    found: Packed = at_psnr(prepared, wanted_db, judge=judge)
    start = _seconds()
    pack(prepare(prepared.scene), found.delta)
    written = _seconds()
    unpack(found.data)
    return Point(
        encoder="codec",
        size_bytes=len(found.data),
        psnr_db=found.psnr_db,
        encode_s=written - start,
        decode_s=_seconds() - written,
    )


def _seconds() -> float:
    """Of this process and of those that it has waited for."""
    told = os.times()
    return time.process_time() + told.children_user + told.children_system


@functools.cache
def standing(scale: str = "mini") -> tuple["Prepared", "Judge"]:
    """The scene made ready, and what compares its pictures."""
    from effbook.compgs.codec import prepare
    from effbook.compgs.rate import Judge

    prepared = prepare(trained_scene(scale))
    return prepared, Judge(prepared.scene)


@functools.cache
def point(name: str, scale: str = "mini") -> Point:
    """An encoder's file of the still life, measured once."""
    _, judge = standing(scale)
    return measured(name, trained_scene(scale), judge)
