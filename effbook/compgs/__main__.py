"""CompGS for a scene of one's own: `python -m effbook.compgs compress scene.ply scene.compgs`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    colour_codes: Annotated[int, typer.Option(help="Codes for DC and for the other harmonics.")] = 4096,
    covariance_codes: Annotated[int, typer.Option(help="Codes for scales and for rotations.")] = 16_384,
    iterations: Annotated[int, typer.Option(min=0, help="Rounds of K-means.")] = 10,
    code_bits: Annotated[int, typer.Option(help="Bits of a number of the codes: 4, 8, 16, or 32 for floats.")] = 8,
    bitq: Annotated[bool, typer.Option(help="Positions in 16 bits, opacities in 8 (BitQ).")] = False,
    entropy: Annotated[bool, typer.Option(help="Compress the streams, too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the first codes.")] = 0,
    turn: Turn = True,
) -> None:
    """Cluster a trained scene's parameters and write them as codes and indices.

    There are never more codes than Gaussians. The dissertation keeps codes as floats (--code-bits 32); in 8 bits most
    files are a quarter to two thirds smaller, at a few hundredths of a dB against photographs.
    """
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


@app.command()
def decompress(source: Compact, target: Scene, turn: Turn = True, spz_version: Version = 3) -> None:
    """Write a compressed scene as an ordinary one, for other tools."""
    from effbook.compgs.container import describe, read, read_parts
    from effbook.gaussians.formats import write_ply, writer
    from effbook.gaussians.formats.place import check_place

    write_scene = writer(target)
    check_place(target, source=source)
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
    from effbook.compgs.container import describe

    told = describe(source)
    console.print(f"version {told['version']}, {told['gaussians']:,} Gaussians, {told['bytes']:,} bytes")
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
