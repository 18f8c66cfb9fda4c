"""CompGS for a scene of one's own: `python -m effbook.compgs compress scene.ply scene.compgs`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from effbook.errors import EffbookError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Compress a trained 3D Gaussian splatting scene.")
console = Console(soft_wrap=True, highlight=False, markup=False)  # a name may hold brackets

Source = Annotated[Path, typer.Argument(help="A trained scene: .ply, .splat or .spz.")]


@app.command()
def compress(
    source: Source,
    target: Annotated[Path, typer.Argument(help="The .compgs file to write.")],
    colour_codes: Annotated[int, typer.Option(help="Codes for DC and for the other harmonics.")] = 4096,
    covariance_codes: Annotated[int, typer.Option(help="Codes for scales and for rotations.")] = 16_384,
    iterations: Annotated[int, typer.Option(help="Rounds of K-means.")] = 10,
    bitq: Annotated[bool, typer.Option(help="Positions in 16 bits, opacities in 8 (BitQ).")] = False,
    entropy: Annotated[bool, typer.Option(help="Compress the streams, too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the first codes.")] = 0,
) -> None:
    """Cluster a trained scene's parameters and write them as codes and indices."""
    from effbook.compgs import BIT_QUANTISED, CompGSSettings, Storage, books, read, write
    from effbook.compgs import compress as cluster
    from effbook.compgs.inspect import pictures_apart
    from effbook.gaussians.formats.ply import check_place

    check_place(target)
    scene = _read(source)
    settings = CompGSSettings(books=books(colour=colour_codes, covariance=covariance_codes), seed=seed)
    small = cluster(scene, settings, iterations=iterations)
    storage = Storage(plain_bits=BIT_QUANTISED.plain_bits if bitq else {}, entropy=entropy)
    size = write(small, target, storage)
    plain = 236 * len(scene)
    console.print(f"{len(scene):,} Gaussians: {plain / 1e6:,.2f} MB as 59 floats each, {size / 1e6:,.2f} MB here")
    console.print(f"{plain / size:.1f} times smaller: {target}")
    apart = pictures_apart(scene, read(target).decode())
    console.print(f"pictures of both from six sides: PSNR of {min(apart):.1f} to {max(apart):.1f} dB to each other")
    console.print(
        "Clustering after training costs quality: 2 dB on real scenes in the dissertation (Table 3.2), where training\n"
        "with the codes costs 0.5. `effbook.compgs.fit` does that, from the photos."
    )


@app.command()
def decompress(
    source: Annotated[Path, typer.Argument(help="A .compgs file.")],
    target: Annotated[Path, typer.Argument(help="The scene to write: .ply, .splat or .spz.")],
) -> None:
    """Write a compressed scene as an ordinary one, for other tools."""
    from effbook.compgs import describe, read, read_parts
    from effbook.gaussians.formats import write_ply, write_splat, write_spz
    from effbook.gaussians.formats.ply import check_place

    check_place(target)
    if target.suffix == ".ply":
        write_ply(read_parts(source), target, count=describe(source)["gaussians"])
    elif target.suffix in (".splat", ".spz"):
        {".splat": write_splat, ".spz": write_spz}[target.suffix](read(source).decode(), target)
    else:
        raise EffbookError(f"{target} has an unknown ending", "choose .ply, .splat or .spz")
    console.print(f"{describe(source)['gaussians']:,} Gaussians in {target}, {target.stat().st_size / 1e6:,.2f} MB")


@app.command()
def info(source: Annotated[Path, typer.Argument(help="A .compgs file.")]) -> None:
    """Say what a .compgs file holds; only its header is believed after its checksums are."""
    from effbook.compgs import describe

    told = describe(source)
    console.print(f"version {told['version']}, {told['gaussians']:,} Gaussians, {told['bytes']:,} bytes")
    for book in told["books"]:
        console.print(f"  {' and '.join(book['parameters'])}: {book['codes']:,} codes of {book['bits']} bits a value")
    for part in told["plain"]:
        console.print(f"  {part['parameter']}: {part['bits']} bits a value")


def _read(path: Path):
    from effbook.gaussians.formats import read_ply, read_splat, read_spz

    readers = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz}
    if path.suffix not in readers:
        raise EffbookError(f"{path} has an unknown ending", "choose a .ply, .splat or .spz file")
    return readers[path.suffix](path)


def main() -> None:
    """Run a command; an error is one sentence and exit status 1."""
    try:
        app()
    except EffbookError as error:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
