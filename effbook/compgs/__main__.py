"""CompGS for a scene of one's own: `python -m effbook.compgs compress scene.ply scene.compgs`."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from effbook.errors import EffbookError

if TYPE_CHECKING:
    from effbook.gaussians.model import Gaussians

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compress a trained 3D Gaussian splatting scene, or convert it between the formats of other tools.",
)
console = Console(soft_wrap=True, highlight=False, markup=False)  # a name may hold brackets


def _file(name: str) -> Path:
    if not name:
        raise typer.BadParameter("the name of a file is empty")
    return Path(name)


KINDS = ".ply (compressed.ply is read, too), .splat, .spz or .sog"
Scene = Annotated[Path, typer.Argument(parser=_file, metavar="SCENE", help=f"A trained scene: {KINDS}.")]
Other = Annotated[Path, typer.Argument(parser=_file, metavar="OTHER", help=f"The scene to write: {KINDS}.")]
Compact = Annotated[Path, typer.Argument(parser=_file, metavar="COMPGS", help="A .compgs file.")]
Turn = Annotated[
    bool,
    typer.Option(
        help="The axes of .spz point right, up and back, as its makers have it: a scene is turned on its way in and "
        "out. Some programs leave it as it is: say --no-turn for their files."
    ),
]
Version = Annotated[int, typer.Option(min=2, max=4, help="Of an .spz that is written.")]


def _read(source: Path, turn: bool) -> "Gaussians":
    """A scene from its file; what was clamped on the way is printed."""
    from effbook.gaussians.formats import READERS, ending

    kind = ending(source)
    return READERS[kind](source, say=console.print, **({"turn": turn} if kind == ".spz" else {}))


def _write(scene: "Gaussians", target: Path, turn: bool, version: int) -> None:
    from effbook.gaussians.formats import writer

    options = {"turn": turn, "version": version} if target.suffix.lower() == ".spz" else {}
    writer(target)(scene, target, say=console.print, **options)


@app.command()
def compress(
    source: Scene,
    target: Compact,
    context: typer.Context,
    codec: Annotated[
        Literal["steps", "codebooks"],
        typer.Option(help="Each Gaussian's own values in steps that pictures allow, or the dissertation's codebooks."),
    ] = "steps",
    psnr: Annotated[float | None, typer.Option(help="How alike pictures must be, in dB (steps; default: 50).")] = None,
    size: Annotated[str | None, typer.Option(help="At most so many bytes: 800kB, 1MB, 1.5MiB (steps).")] = None,
    colour_codes: Annotated[int, typer.Option(help="Codes for DC and for the other harmonics.")] = 4096,
    covariance_codes: Annotated[int, typer.Option(help="Codes for scales and for rotations.")] = 16_384,
    iterations: Annotated[int, typer.Option(min=0, help="Rounds of K-means.")] = 10,
    code_bits: Annotated[int, typer.Option(help="Bits of a number of the codes: 4, 8, 16, or 32 for floats.")] = 8,
    bitq: Annotated[bool, typer.Option(help="Positions in 16 bits, opacities in 8 (BitQ).")] = False,
    entropy: Annotated[bool, typer.Option(help="Compress the streams, too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the first codes.")] = 0,
    turn: Turn = True,
) -> None:
    """Write a trained scene in fewer bytes: as few as a PSNR allows, or as near to the scene as a size allows.

    With --codec codebooks its parameters are clustered, as in the dissertation, and kept as codes and indices; the
    options from --colour-codes to --seed choose these, too. There are never more codes than Gaussians. The dissertation
    keeps codes as floats (--code-bits 32); in 8 bits most files are a quarter to two thirds smaller, at a few
    hundredths of a dB against photographs.
    """
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    if of_books := sorted(given & {"colour_codes", "covariance_codes", "iterations", "code_bits", "bitq", "seed"}):
        option = f"--{of_books[0].replace('_', '-')}"
        if codec == "steps" and "codec" in given:
            raise EffbookError(f"{option} belongs to codebooks", "say --codec codebooks, or leave it out")
        codec = "codebooks"
    if codec == "steps":
        _compress_in_steps(source, target, turn, psnr, size)
        return
    if psnr is not None or size is not None:
        raise EffbookError("codebooks have no --psnr and no --size", "leave their options out, or choose their codes")
    from effbook.compgs.config import BIT_QUANTISED, CompGSSettings, Storage, books

    storage = Storage(plain_bits=BIT_QUANTISED.plain_bits if bitq else {}, code_bits=code_bits, entropy=entropy)
    CompGSSettings(books=books(colour=colour_codes, covariance=covariance_codes), seed=seed)  # refused before the work

    from effbook.compgs.container import read, write
    from effbook.compgs.inspect import pictures_apart
    from effbook.compgs.quantise import compress as cluster
    from effbook.gaussians.formats import ending
    from effbook.gaussians.formats.place import check_place

    ending(source)
    check_place(target, source=source)
    if target.suffix.lower() != ".compgs":
        raise EffbookError(f"{target} has an unknown ending", "choose .compgs")
    scene = _read(source, turn)
    most = len(scene)
    if most < max(colour_codes, covariance_codes):
        console.print(f"as there are no more Gaussians, codebooks have at most {most:,} codes")
    sizes = books(colour=min(colour_codes, most), covariance=min(covariance_codes, most))
    small = cluster(scene, CompGSSettings(books=sizes, seed=seed), iterations=iterations)
    size = write(small, target, storage)
    plain = 236 * len(scene)
    console.print(f"{len(scene):,} Gaussians: {plain / 1e6:,.2f} MB as 59 floats each, {size / 1e6:,.2f} MB here")
    console.print(f"{plain / size:.1f} times smaller: {_shown(target)}")
    apart = pictures_apart(scene, read(target).decode())
    console.print(
        f"pictures of both from {len(apart)} sides: PSNR of {min(apart):.1f} to {max(apart):.1f} dB to each other, "
        "where the scene is"
    )
    console.print(
        "Clustering after training costs quality: 2 dB on real scenes in the dissertation (Table 3.2), where training\n"
        "with the codes costs 0.5. `effbook.compgs.fit` does that, from the photos."
    )


def _compress_in_steps(source: Path, target: Path, turn: bool, psnr: float | None, size: str | None) -> None:
    """The part of `compress` for the codec of version 3."""
    if psnr is not None and size is not None:
        raise EffbookError("both --psnr and --size are given", "choose one of them")
    if psnr is not None and not 10 <= psnr <= 90:
        raise EffbookError(f"a PSNR of {psnr:g} dB", "ask for 10 to 90")
    most = None if size is None else _bytes(size)
    from effbook.compgs.codec import prepare
    from effbook.compgs.rate import PSNR_DB, at_psnr, at_size
    from effbook.gaussians.formats import ending
    from effbook.gaussians.formats.place import check_place, replacing

    ending(source)
    check_place(target, source=source)
    if target.suffix.lower() != ".compgs":
        raise EffbookError(f"{target} has an unknown ending", "choose .compgs")
    prepared = prepare(_read(source, turn))
    for name, count in prepared.moved.items():
        console.print(f"{count:,} infinite values of {name} are clamped")
    found = at_psnr(prepared, PSNR_DB if psnr is None else psnr) if most is None else at_size(prepared, most)
    with replacing(target) as out:
        out.write(found.data)
    plain, written = 236 * len(prepared), len(found.data)
    console.print(f"{len(prepared):,} Gaussians: {plain / 1e6:,.2f} MB as 59 floats each, {written / 1e6:,.2f} MB here")
    console.print(f"{plain / written:.1f} times smaller: {_shown(target)}")
    console.print(f"pictures of both from all sides: PSNR of {found.psnr_db:.1f} dB to each other, where the scene is")


def _bytes(text: str) -> int:
    """The bytes that a text like 1MB or 800 kB says. Raises EffbookError for another."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMG]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found:
        raise EffbookError(f"{text!r} is no number of bytes", "write it like 800kB, 1MB or 1.5MiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmg".index(unit.lower() or " "))


@app.command()
def decompress(source: Compact, target: Scene, turn: Turn = True, spz_version: Version = 3) -> None:
    """Write a compressed scene as an ordinary one, for other tools."""
    from effbook.compgs import codec, streams
    from effbook.compgs.container import describe, read, read_parts
    from effbook.gaussians.formats import write_ply, writer
    from effbook.gaussians.formats.place import check_place

    write_scene = writer(target)
    check_place(target, source=source)
    if streams.version_of(source) == streams.VERSION:
        scene = codec.read(source)
        _write(scene, target, turn, spz_version)
        console.print(f"{len(scene):,} Gaussians in {_shown(target)}, {target.stat().st_size / 1e6:,.2f} MB")
        return
    count = describe(source)["gaussians"]
    if write_scene is write_ply:
        write_ply(read_parts(source), target, count=count)  # it need not fit into the memory
    else:
        _write(read(source).decode(), target, turn, spz_version)
    console.print(f"{count:,} Gaussians in {_shown(target)}, {target.stat().st_size / 1e6:,.2f} MB")


@app.command()
def convert(source: Scene, target: Other, turn: Turn = True, spz_version: Version = 3) -> None:
    """Write a scene in another tool's format, and say what that cannot hold."""
    from effbook.gaussians.formats import ending, writer
    from effbook.gaussians.formats.place import check_place

    ending(source)
    writer(target)
    check_place(target, source=source)
    scene = _read(source, turn)
    _write(scene, target, turn, spz_version)
    console.print(f"{len(scene):,} Gaussians in {_shown(target)}, {target.stat().st_size / 1e6:,.2f} MB")


@app.command()
def info(source: Compact) -> None:
    """Say what a .compgs file holds; only its header is believed after its checksums are."""
    from effbook.compgs import streams
    from effbook.compgs.container import describe

    newer = streams.version_of(source) == streams.VERSION
    told = streams.describe(source) if newer else describe(source)
    console.print(f"version {told['version']}, {told['gaussians']:,} Gaussians, {told['bytes']:,} bytes")
    if newer:
        for name, size in told["sections"].items():
            console.print(f"  {name}: {size:,} bytes")
        return
    for book in told["books"]:
        console.print(f"  {' and '.join(book['parameters'])}: {book['codes']:,} codes of {book['bits']} bits a value")
    for part in told["plain"]:
        console.print(f"  {part['parameter']}: {part['bits']} bits a value")


def _shown(path: Path) -> str:
    """A path as text that can be printed, whatever bytes it has."""
    return os.fsencode(path).decode(errors="replace")


def main() -> None:
    """Run a command; an error is one sentence on standard error and an exit status above 0."""
    try:
        status = app(prog_name="python -m effbook.compgs", standalone_mode=False)
    except EffbookError as error:
        sys.exit(_failed(str(error), 1))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_failed("interrupted.", 130))
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of the command-line library has it
            raise
        message = " ".join(error.format_message().split()).rstrip(".")
        sys.exit(_failed(f"{message}; see 'python -m effbook.compgs --help'." if message else "", 2))
    sys.exit(status if isinstance(status, int) else 0)


def _failed(sentence: str, status: int) -> int:
    if sentence:
        line = " ".join(sentence.splitlines()).encode(errors="replace").decode()
        typer.echo(f"error: {line}", err=True)
    return status


if __name__ == "__main__":
    main()
