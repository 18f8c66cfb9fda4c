"""CompGS for a scene of one's own: `python -m effbook.compgs compress scene.ply scene.compgs`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from effbook.errors import EffbookError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compress a trained 3D Gaussian splatting scene.",
)
console = Console(soft_wrap=True, highlight=False, markup=False)  # a name may hold brackets


def _file(name: str) -> Path:
    if not name:
        raise typer.BadParameter("the name of a file is empty")
    return Path(name)


Scene = Annotated[Path, typer.Argument(parser=_file, metavar="SCENE", help="A trained scene: .ply, .splat or .spz.")]
Compact = Annotated[Path, typer.Argument(parser=_file, metavar="COMPGS", help="A .compgs file.")]


@app.command()
def compress(
    source: Scene,
    target: Compact,
    colour_codes: Annotated[int, typer.Option(help="Codes for DC and for the other harmonics.")] = 4096,
    covariance_codes: Annotated[int, typer.Option(help="Codes for scales and for rotations.")] = 16_384,
    iterations: Annotated[int, typer.Option(min=0, help="Rounds of K-means.")] = 10,
    bitq: Annotated[bool, typer.Option(help="Positions in 16 bits, opacities in 8 (BitQ).")] = False,
    entropy: Annotated[bool, typer.Option(help="Compress the streams, too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the first codes.")] = 0,
) -> None:
    """Cluster a trained scene's parameters and write them as codes and indices."""
    from effbook.compgs.config import BIT_QUANTISED, CompGSSettings, Storage, books

    settings = CompGSSettings(books=books(colour=colour_codes, covariance=covariance_codes), seed=seed)
    storage = Storage(plain_bits=BIT_QUANTISED.plain_bits if bitq else {}, entropy=entropy)

    from effbook.compgs.container import read, write
    from effbook.compgs.inspect import pictures_apart
    from effbook.compgs.quantise import compress as cluster
    from effbook.gaussians.formats import READERS, ending
    from effbook.gaussians.formats.place import check_place

    read_scene = READERS[ending(source)]
    check_place(target, source=source)
    if target.suffix.lower() != ".compgs":
        raise EffbookError(f"{target} has an unknown ending", "choose .compgs")
    scene = read_scene(source)
    small = cluster(scene, settings, iterations=iterations)
    size = write(small, target, storage)
    plain = 236 * len(scene)
    console.print(f"{len(scene):,} Gaussians: {plain / 1e6:,.2f} MB as 59 floats each, {size / 1e6:,.2f} MB here")
    console.print(f"{plain / size:.1f} times smaller: {_shown(target)}")
    apart = pictures_apart(scene, read(target).decode())
    console.print(f"pictures of both from six sides: PSNR of {min(apart):.1f} to {max(apart):.1f} dB to each other")
    console.print(
        "Clustering after training costs quality: 2 dB on real scenes in the dissertation (Table 3.2), where training\n"
        "with the codes costs 0.5. `effbook.compgs.fit` does that, from the photos."
    )


@app.command()
def decompress(source: Compact, target: Scene) -> None:
    """Write a compressed scene as an ordinary one, for other tools."""
    from effbook.compgs.container import describe, read, read_parts
    from effbook.gaussians.formats import WRITERS, ending, write_ply
    from effbook.gaussians.formats.place import check_place

    write_scene = WRITERS[ending(target)]
    check_place(target, source=source)
    count = describe(source)["gaussians"]
    if write_scene is write_ply:
        write_ply(read_parts(source), target, count=count)  # it need not fit into the memory
    else:
        write_scene(read(source).decode(), target)
    console.print(f"{count:,} Gaussians in {_shown(target)}, {target.stat().st_size / 1e6:,.2f} MB")


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
