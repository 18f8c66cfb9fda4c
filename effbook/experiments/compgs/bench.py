"""CompGS's lines of the ledger: the CPU renderer beside a dense one, quantised beside plain training, packing a scene.

Both sides of a ratio run in turns in one process. The dissertation's own figures are from one RTX 6000 (Table 3.1).
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from effbook.runs.bench import FromRecords, Ratio, compare, mean_of, ratio, register_bench

GAUSSIANS, SIZE_PX = 10_000, 128
ITERATIONS = 300  # a tenth of `mini`, with the same third of them quantised


def made_up(n: int, *, seed: int = 0):  # -> Gaussians
    """A ball of n Gaussians whose footprints are those of a trained scene of so many, some pixels wide."""
    import torch

    from effbook.gaussians.model import Gaussians

    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> "torch.Tensor":
        return torch.randn(*shape, generator=generator)

    means = torch.nn.functional.normalize(draw(n, 3), dim=-1) * torch.rand(n, 1, generator=generator) ** (1 / 3)
    return Gaussians(
        means=means,
        sh_dc=draw(n, 3),
        sh_rest=0.1 * draw(n, 15, 3),
        opacities=1.5 * draw(n),
        scales=-3.8 + 0.4 * draw(n, 3),
        rotations=draw(n, 4),
    )


def camera(size_px: int = SIZE_PX):  # -> Camera
    """Sees the whole ball."""
    import torch

    from effbook.gaussians.camera import Camera

    pose = torch.eye(4)
    pose[2, 3] = 3.0
    focal = 1.3 * size_px
    return Camera(
        world_to_camera=pose,
        width=size_px,
        height=size_px,
        focal_x=focal,
        focal_y=focal,
        centre_x=size_px / 2,
        centre_y=size_px / 2,
    )


def step(model, draw: Callable) -> Callable[[], None]:
    """Draw and go backward once."""
    leaves = model.map(lambda t: t.clone().requires_grad_())

    def once() -> None:
        draw(leaves).square().sum().backward()
        for tensor in leaves.tensors().values():
            tensor.grad = None

    return once


def draw_dense(model, view, pixels_at_once: int = 512):  # -> Tensor [pixels, 3]
    """Every Gaussian at every pixel in plain torch, as section 3.1.3 has it, some pixels at a time."""
    import torch

    from effbook.gaussians.project import project

    splats = project(model, view)
    order = splats.depths.argsort(stable=True)
    centres, conics = splats.means2d[order], splats.conics[order]
    colours, opacities = splats.colours[order], splats.opacities[order]
    ys, xs = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing="ij")
    places = torch.stack([xs, ys], dim=-1).reshape(-1, 2) + 0.5
    rows = []
    for some in places.split(pixels_at_once):
        dx, dy = (some[:, None] - centres[None]).unbind(-1)  # [P, M]
        power = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
        alphas = (opacities * torch.exp(-power)).clamp(max=0.999)
        alphas = torch.where(alphas < 1 / 255, torch.zeros_like(alphas), alphas)
        passed = torch.cumprod(torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas], dim=1), dim=1)[:, :-1]
        rows.append((alphas * passed) @ colours)
    return torch.cat(rows)


IN_A_ROW = 20  # the dense side takes so long that its end finds the other's memory and threads cold


def dense_beside_tiles() -> Ratio:
    """Time of drawing 10,000 Gaussians and going backward: every Gaussian at every pixel, against our CPU engine.

    Ours is the mean of 20 in a row, as a training run calls it.
    """
    from effbook.gaussians.rasterise import render

    model, view = made_up(GAUSSIANS), camera()
    dense = step(model, lambda leaves: draw_dense(leaves, view))
    tiles = step(model, lambda leaves: render(leaves, view, engine="cpu").image)

    def many() -> None:
        for _ in range(IN_A_ROW):
            tiles()

    found = compare(dense, many, repeats=3, warm_up=1)
    scaled = {name: getattr(found, name) * IN_A_ROW for name in ("value", "low", "high")}
    return dataclasses.replace(found, **scaled, b=found.b / IN_A_ROW)


def one_core_beside_two() -> Ratio:
    """Time of drawing and going backward with one thread against two."""
    import numba

    from effbook.gaussians.rasterise import render

    once = step(made_up(GAUSSIANS), lambda leaves: render(leaves, camera(), engine="cpu").image)
    most = numba.get_num_threads()

    def with_threads(n: int) -> Callable[[], None]:
        def run() -> None:
            numba.set_num_threads(min(n, most))
            once()

        return run

    try:
        return compare(with_threads(1), with_threads(2), repeats=20)
    finally:
        numba.set_num_threads(most)


def quantised_beside_plain(colour: int, covariance: int) -> Ratio:
    """Time of a training run of which the last third is quantised, against one without; 5,000 Gaussians throughout."""
    from effbook.compgs.config import CompGSSettings, books
    from effbook.compgs.quantise import fit as fit_compressed
    from effbook.gaussians.config import DensitySettings, TrainSettings
    from effbook.gaussians.rasterise import render
    from effbook.gaussians.train import fit

    model, view = made_up(GAUSSIANS // 2), camera(64)
    wanted = render(made_up(2000, seed=1), view).image.detach()
    training = TrainSettings(iterations=ITERATIONS, sh_interval=1, density=DensitySettings(end=0))
    settings = CompGSSettings(
        books=books(colour=colour, covariance=covariance), start=200, interval=10, end=250, penalty=0.0
    )

    def plain() -> None:
        fit(model, [view], [wanted], training, extent=1.0)

    def quantised() -> None:
        fit_compressed(model, [view], [wanted], training, settings, extent=1.0)

    return compare(quantised, plain, repeats=5, warm_up=1)


def compressed(n: int):  # -> Compressed
    """A made-up compressed scene; codes are used as unevenly as a normal distribution is."""
    import torch

    from effbook.compgs.model import Codebook, Compressed, width

    generator = torch.Generator().manual_seed(0)
    plain = made_up(n)

    def book(name: str, codes: int) -> Codebook:
        indices = (codes * torch.special.ndtr(0.8 * torch.randn(n, generator=generator))).int().clamp(0, codes - 1)
        return Codebook(parameters=(name,), codes=torch.randn(codes, width(name), generator=generator), indices=indices)

    sizes = {"sh_dc": 4096, "sh_rest": 4096, "scales": 16_384, "rotations": 16_384}
    return Compressed(
        codebooks=tuple(book(name, codes) for name, codes in sizes.items()),
        plain={"means": plain.means, "opacities": plain.opacities},
    )


def container_beside_npy(entropy: bool, n: int = 1_000_000) -> Ratio:
    """Time of writing and reading a million Gaussians in four codebooks, against their 236 MB as one .npy."""
    import numpy as np

    from effbook.compgs.config import Storage
    from effbook.compgs.container import read, write

    scene, table = compressed(n), np.random.default_rng(0).normal(size=(n, 59)).astype(np.float32)
    storage = Storage(entropy=entropy)
    with tempfile.TemporaryDirectory() as folder:
        packed, plain = Path(folder) / "scene.compgs", Path(folder) / "scene.npy"

        def container() -> None:
            write(scene, packed, storage)
            read(packed)

        def npy() -> None:
            np.save(plain, table)
            np.load(plain)

        return compare(container, npy, repeats=15, warm_up=2)


PLAIN: dict[str, object] = {}
PENALISED = {"penalty": 1e-7}
SMALL = {"quantised": "dc sh scale rotation", "penalty": 1e-7}


def recorded(metric: str, **fields: object) -> FromRecords:
    """A metric of the scenes of `mini`, the mean over its seeds, from the records."""
    from effbook.experiments.compgs.scene import SceneRecipe
    from effbook.runs.profiles import scale, seeds, with_seeds

    small = scale(SceneRecipe(dataset="mip-nerf360", **fields), "mini")
    return mean_of(metric, with_seeds(small, seeds(small, "mini")), "mini")


def more_error(**fields: object) -> Ratio:
    """By how much the squared error grows from plain 3DGS to these fields, from the mean PSNRs: 0.5 dB is 1.122."""
    error, plain = (recorded("psnr", **one).map(lambda psnr: 10 ** (-psnr / 10)) for one in (fields, PLAIN))
    return ratio(error, plain, "squared error")


register_bench("compgs", "draw and backward: dense torch / CPU engine", dense_beside_tiles, ">= 30")
register_bench("compgs", "draw and backward: one core / two", one_core_beside_two, ">= 1.2")
register_bench(
    "compgs",
    "training: K-means with 64 and 256 codes / plain",
    lambda: quantised_beside_plain(64, 256),
    "<= 1.15",
    "1.06 (16K codes, with fewer Gaussians)",
)
register_bench(
    "compgs",
    "training: K-means with 64 and 512 codes / plain",
    lambda: quantised_beside_plain(64, 512),
    "<= 1.4",
    "1.36 (32K codes, with fewer Gaussians)",
)
register_bench("compgs", "write and read 1M Gaussians: packed / .npy", lambda: container_beside_npy(False), "<= 3")
register_bench("compgs", "write and read 1M Gaussians: compressed / .npy", lambda: container_beside_npy(True), "<= 3")
register_bench(
    "compgs",
    "bytes: compressed / packed, mini",
    lambda: ratio(recorded("entropy_bytes", **SMALL), recorded("packed_bytes", **SMALL), "bytes"),
    "<= 0.9",
)
register_bench(
    "compgs",
    "bytes: 3DGS / CompGS 16K compressed, mini",
    lambda: ratio(recorded("bytes", **PLAIN), recorded("entropy_bytes", **SMALL), "bytes"),
    ">= 20",
    "43 (packed)",
)
register_bench(
    "compgs",
    "squared error: CompGS 16K / 3DGS, mini (1.122 is 0.5 dB)",
    lambda: more_error(**SMALL),
    "<= 1.122",
    "1.094",
)
register_bench(
    "compgs",
    "Gaussians: 3DGS / with the opacity penalty, mini",
    lambda: ratio(recorded("gaussians", **PLAIN), recorded("gaussians", **PENALISED), "Gaussians"),
    ">= 2",
    "3.9",
)
register_bench(
    "compgs",
    "squared error: with the opacity penalty / 3DGS, mini (1.047 is 0.2 dB)",
    lambda: more_error(**PENALISED),
    "<= 1.047",
    "1.000",
)


# --- the codec for trained scenes, beside what people pick -----------------------------------------------------------


def bytes_at_its_psnr(name: str) -> Ratio:
    """Bytes of the codec's file that is at least as near to the scene, against an encoder's."""
    from effbook.experiments.compgs.peers import ours, point, standing

    peer = point(name)
    prepared, judge = standing()
    return ratio(ours(prepared, min(max(peer.psnr_db, 10), 90), judge).size_bytes, peer.size_bytes, "bytes")


def psnr_at_its_bytes(name: str) -> Ratio:
    """PSNR of the codec's file of at most as many bytes, beside an encoder's."""
    from effbook.compgs.rate import at_size
    from effbook.experiments.compgs.peers import point, standing

    peer = point(name)
    prepared, judge = standing()
    a, b = at_size(prepared, peer.size_bytes, judge=judge).psnr_db, peer.psnr_db
    return Ratio(value=a - b, low=a - b, high=a - b, a=a, b=b, unit="dB", pairs=1, sign="-")


def seconds_of_codec(what: str, allowed_s: float, n: int = 100_000) -> Ratio:
    """Processor seconds for n Gaussians with harmonics, against those allowed; kernels are compiled before."""
    import time

    from effbook.compgs.codec import pack, prepare, unpack

    pack(prepare(made_up(100)), 0.01)
    scene, start = made_up(n), time.process_time()
    data, _ = pack(prepare(scene), 0.005)
    packed = time.process_time()
    unpack(data)
    seconds = packed - start if what == "encode" else time.process_time() - packed
    return ratio(seconds, allowed_s, "s")


def _register_peers() -> None:
    from effbook.experiments.compgs.peers import names

    for name, needs in names():
        register_bench(
            "compgs",
            f"bytes at its PSNR, a still life: codec / {name}",
            functools.partial(bytes_at_its_psnr, name),
            "<= 1",
            needs=needs,
        )
        register_bench(
            "compgs",
            f"PSNR at its bytes, a still life: codec - {name}",
            functools.partial(psnr_at_its_bytes, name),
            ">= 0",
            needs=needs,
        )


_register_peers()
register_bench(
    "compgs",
    "processor seconds, 100K Gaussians: codec's encoding / 5 s",
    lambda: seconds_of_codec("encode", 5.0),
    "<= 1",
)
register_bench(
    "compgs",
    "processor seconds, 100K Gaussians: codec's decoding / 0.5 s",
    lambda: seconds_of_codec("decode", 0.5),
    "<= 1",
)
