"""The .compgs file: what is written comes back, in the bytes that the text counts, and nothing broken gets through."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from compgs_twin import bytes_of_scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effbook.compgs import (
    BIT_QUANTISED,
    PACKED,
    Codebook,
    Compressed,
    Storage,
    container,
    describe,
    int_x,
    read,
    read_parts,
    write,
)
from effbook.compgs.bits import absmax, bits_for, counted, from_absmax, pack, sorted_by, unpack
from effbook.compgs.layout import MOST_RATIO
from effbook.compgs.model import split
from effbook.errors import EffbookError
from effbook.gaussians.parameters import SHAPES, width

ENTROPY = Storage(entropy=True)
STORAGES = {"packed": PACKED, "entropy": ENTROPY}


def made_up(n=500, codes=(6, 9, 300, 17), parameters=("sh_dc", "sh_rest", "scales", "rotations"), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    books = tuple(
        Codebook(
            parameters=(name,),
            codes=draw(count, width(name)),
            indices=(draw(n).abs() * count / 4).int().clamp(max=count - 1),  # some codes are common, some not used
        )
        for name, count in zip(parameters, codes, strict=True)
    )
    plain = {name: draw(n, *shape) for name, shape in SHAPES.items() if name not in parameters}
    return Compressed(codebooks=books, plain=plain)


def in_order(scene):
    """All parameters of the Gaussians, in an order that does not depend on theirs."""
    g = scene.decode()
    table = torch.cat([t.reshape(len(g), -1) for t in g.tensors().values()], dim=1).numpy()
    return table[np.lexsort(table.T[::-1])]


@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8, 12, 15, 16, 17, 24, 31, 32])
def test_numbers_of_any_width_come_back_in_as_many_bits(bits):
    numbers = np.random.default_rng(bits).integers(0, 2**bits, 77, dtype=np.uint32)
    data = pack(numbers, bits)
    assert len(data) == -(-77 * bits // 8)
    assert (unpack(data, 77, bits) == numbers).all()


def test_one_code_needs_no_bits():
    assert [bits_for(count) for count in (1, 2, 3, 4096, 4097)] == [0, 1, 2, 12, 13]
    assert len(pack(np.zeros(9, np.uint32), 0)) == 0


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_absmax_is_within_half_a_step_and_exact_at_the_peak(bits):
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    numbers, step = absmax(values, bits)
    found = from_absmax(numbers, step, bits)
    assert step == pytest.approx(np.abs(values).max() / (2 ** (bits - 1) - 1))
    assert np.abs(found - values).max() <= step / 2 + 1e-6
    assert np.abs(found).max() == pytest.approx(np.abs(values).max())


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("n", [1, 2, 500, 3000])
def test_a_scene_comes_back_bit_for_bit(tmp_path, name, n, monkeypatch):
    monkeypatch.setattr(container, "ROWS", 700)  # several groups
    scene = made_up(n)
    size = write(scene, tmp_path / "scene.compgs", STORAGES[name])
    assert size == (tmp_path / "scene.compgs").stat().st_size
    assert (in_order(read(tmp_path / "scene.compgs")) == in_order(scene)).all()
    parts = list(read_parts(tmp_path / "scene.compgs"))
    assert sum(map(len, parts)) == n
    whole = torch.cat([part.means for part in parts])
    assert torch.equal(whole, read(tmp_path / "scene.compgs").plain["means"])


def test_any_subset_of_parameters_can_be_coded(tmp_path):
    both = made_up(100, (5,), ("scales",))
    colours = torch.randn(4, 48)
    joined = Compressed(
        codebooks=(Codebook(parameters=("sh_dc", "sh_rest"), codes=colours, indices=torch.arange(100).int() % 4),),
        plain={name: torch.randn(100, *SHAPES[name]) for name in ("means", "opacities", "scales", "rotations")},
    )
    none = Compressed(codebooks=(), plain={name: torch.randn(100, *shape) for name, shape in SHAPES.items()})
    no_sh = Compressed(codebooks=(), plain={name: t for name, t in none.plain.items() if name != "sh_rest"})
    everything = made_up(100, (5, 5, 5, 5, 5, 5), tuple(SHAPES))
    for scene in (both, joined, none, no_sh):
        for storage in STORAGES.values():
            write(scene, tmp_path / "scene.compgs", storage)
            assert (in_order(read(tmp_path / "scene.compgs")) == in_order(scene)).all()
    assert (no_sh.decode().sh_rest == 0).all()
    assert torch.equal(joined.decode().sh_dc[5], split(colours, ("sh_dc", "sh_rest"))["sh_dc"][1])
    write(everything, tmp_path / "scene.compgs")
    assert (in_order(read(tmp_path / "scene.compgs")) == in_order(everything)).all()


def framing(path):
    """Bytes of the file that are no scene: header, lengths, checksums, run lengths."""
    told = describe(path)
    head = 14 + int.from_bytes(path.read_bytes()[10:14], "little") + 4
    groups = -(-told["gaussians"] // told["rows"])
    sections = len(told["books"]) + (told["first"] is not None)
    sections += groups * (len(told["plain"]) + max(0, len(told["books"]) - 1))
    return head + 8 * told["runs"] + 13 * sections


@pytest.mark.parametrize(
    ("storage", "bits"),
    [(PACKED, {}), (BIT_QUANTISED, {"position_bits": 16, "opacity_bits": 8})],
    ids=["packed", "BitQ"],
)
def test_bytes_are_those_of_the_text(tmp_path, storage, bits):
    path = tmp_path / "scene.compgs"
    size = write(made_up(4000), path, storage)
    assert size - framing(path) == pytest.approx(
        bytes_of_scene(4000, [(3, 6), (45, 9), (3, 300), (4, 17)], **bits), abs=len(SHAPES)
    )


def sizes_of_the_thirteen_scenes():
    """(Gaussians, megabytes as printed) of CompGS 32K in Table B.5."""
    table = Path(container.__file__).parents[1] / "exhibits" / "register" / "tab-B.5.yaml"
    rows = [row for row in yaml.safe_load(table.read_text())["rows"] if row["id"].endswith("-compgs-32k")]
    assert len(rows) == 13
    return [pytest.param(row["count"]["gaussians"], row["values"]["mem"], id=row["id"]) for row in rows]


@pytest.mark.parametrize(("n", "printed"), sizes_of_the_thirteen_scenes())
def test_a_file_of_each_scene_of_table_b5_has_the_megabytes_that_are_printed(tmp_path, n, printed):
    """N x (16 + 39 / 8) + 1,703,936 bytes with 4096 and 32,768 codes, and less than 15 kB beside."""
    generator = torch.Generator().manual_seed(n)
    sizes = {"sh_dc": 4096, "sh_rest": 4096, "scales": 32_768, "rotations": 32_768}
    books = tuple(
        Codebook(
            parameters=(name,),
            codes=torch.zeros(codes, width(name)),
            indices=(torch.rand(n, generator=generator) ** 3 * codes).short(),  # a few are used by thousands
        )
        for name, codes in sizes.items()
    )
    scene = Compressed(codebooks=books, plain={"means": torch.zeros(n, 3), "opacities": torch.zeros(n)})
    size = write(scene, tmp_path / "scene.compgs")
    wanted = bytes_of_scene(n, [(3, 4096), (45, 4096), (3, 32_768), (4, 32_768)])
    assert wanted == n * (16 + 39 / 8) + 1_703_936
    assert wanted < size < wanted + 14_500
    assert f"{size / 1e6:.0f}" == printed


def test_a_sorted_index_is_that_of_numpy_by_two_keys():
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 50, 3000), generator.integers(0, 9, 3000).astype(np.uint8)
    rows = np.arange(3000, dtype=np.uint32)
    for keys in (second, first):
        often = counted(keys, 60)
        assert (often == np.bincount(keys, minlength=60)).all()
        rows = sorted_by(keys, np.cumsum(often) - often, rows)
    assert (rows == np.lexsort([second, first])).all()


@pytest.mark.parametrize("name", STORAGES)
def test_a_codebook_comes_back_in_one_order_whoever_uses_it(tmp_path, name):
    """Codes are stored in the order of their use: two scenes that share them must still read the same codebook."""
    found = []
    for seed in (1, 2):
        scene = made_up(400, (30,), ("scales",))
        scene.codebooks[0].indices = torch.randint(0, 30, (400,), generator=torch.Generator().manual_seed(seed))
        write(scene, tmp_path / "scene.compgs", STORAGES[name])
        found.append(read(tmp_path / "scene.compgs").codebooks[0])
    assert torch.equal(found[0].codes, found[1].codes)
    assert not torch.equal(found[0].indices, found[1].indices)


@pytest.mark.parametrize(
    ("codes", "kind"),
    [(1, torch.uint8), (256, torch.uint8), (257, torch.int16), (32_768, torch.int16), (32_769, torch.int32)],
)
def test_indices_are_read_in_the_smallest_type_and_written_from_any(tmp_path, codes, kind):
    scene = made_up(300, (codes,), ("scales",))
    scene.codebooks[0].indices[:2] = torch.tensor([0, codes - 1])
    wide = scene.codebooks[0].indices
    for other in (kind, torch.int32, torch.int64):
        scene.codebooks[0].indices = wide.to(other)
        write(scene, tmp_path / "scene.compgs")
        back = read(tmp_path / "scene.compgs")
        assert back.codebooks[0].indices.dtype == kind
        assert (in_order(back) == in_order(scene)).all()


def test_in_memory_a_scene_takes_about_the_bytes_of_its_file(tmp_path):
    size = write(made_up(30_000, (256, 256, 4096, 4096)), tmp_path / "scene.compgs")
    assert read(tmp_path / "scene.compgs").bytes_at_rest() < 1.25 * size


def test_int_x_takes_the_bits_it_is_named_for(tmp_path):
    scene = Compressed(codebooks=(), plain={name: torch.randn(2000, *shape) for name, shape in SHAPES.items()})
    cases = ((int_x(16), 59 * 2), (int_x(8), 59), (int_x(8, positions=False), 12 + 56), (int_x(4), 29.5))
    for storage, values in cases:
        path = tmp_path / "scene.compgs"
        assert write(scene, path, storage) - framing(path) == pytest.approx(2000 * values, abs=6)
        kept = read(path)
        assert float((kept.plain["scales"] - scene.plain["scales"]).abs().max()) < 1.0


def test_entropy_coding_makes_the_file_smaller_and_loses_nothing(tmp_path):
    scene = made_up(20_000, (256, 256, 1024, 1024))
    packed = write(scene, tmp_path / "packed.compgs")
    small = write(scene, tmp_path / "small.compgs", ENTROPY)
    assert small < 0.9 * packed
    assert (in_order(read(tmp_path / "small.compgs")) == in_order(scene)).all()


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "scene.compgs"
    write(made_up(), path)
    before, broken = path.read_bytes(), made_up()
    broken.plain["means"][3, 1] = float("nan")
    with pytest.raises(EffbookError, match="not finite"):
        write(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["scene.compgs"]


@pytest.mark.parametrize("name", STORAGES)
def test_a_changed_byte_anywhere_is_found(tmp_path, name):
    path = tmp_path / "scene.compgs"
    write(made_up(40, (3, 3, 4, 3)), path, STORAGES[name])
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 + at % 255)]) + good[at + 1 :])
        with pytest.raises(EffbookError):
            read(path)


@pytest.mark.parametrize("name", STORAGES)
def test_an_end_too_early_or_too_late_is_found(tmp_path, name):
    path = tmp_path / "scene.compgs"
    write(made_up(40, (3, 3, 4, 3)), path, STORAGES[name])
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(EffbookError):
            read(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(EffbookError):
        read(path)


def with_header(good, **changes):
    """The file with another header and a checksum that fits it."""
    length = int.from_bytes(good[10:14], "little")
    told = json.dumps(json.loads(good[14 : 14 + length]) | changes).encode()
    head = good[:10] + len(told).to_bytes(4, "little") + told
    return head + zlib.crc32(head).to_bytes(4, "little") + good[14 + length + 4 :]


def told_by(good):
    return json.loads(good[14 : 14 + int.from_bytes(good[10:14], "little")])


@pytest.mark.parametrize("name", STORAGES)
def test_more_gaussians_or_codes_than_the_bytes_can_hold_are_refused(tmp_path, name):
    path = tmp_path / "scene.compgs"
    write(made_up(40, (3, 3, 4, 3)), path, STORAGES[name])
    good = path.read_bytes()
    for changes in ({"gaussians": 10**11}, {"gaussians": 2**40, "rows": 1}, {"gaussians": 0}, {"gaussians": True}):
        path.write_bytes(with_header(good, **changes))
        with pytest.raises(EffbookError):
            read(path)
    books = told_by(good)["books"]
    books[0]["codes"] = 2**30
    for changes in ({"books": books}, {"gaussians": 2**32 - 1}, {"gaussians": 2**32 - 1, "rows": 1}):
        path.write_bytes(with_header(good, **changes))
        with pytest.raises(EffbookError, match="does not fit"):
            read(path)


def all_in_one_book(n, codes):
    indices = torch.arange(n) % codes
    book = Codebook(parameters=tuple(SHAPES), codes=torch.randn(codes, 59), indices=indices.int())
    return Compressed(codebooks=(book,), plain={})


def with_runs(good, gaussians, length):
    """A file of one book whose single number of Gaussians a code is another."""
    told = told_by(good)
    assert told["runs"] == 1
    changed = with_header(good, gaussians=gaussians)
    section = (
        (8).to_bytes(8, "little")
        + b"\0"
        + length.to_bytes(4, "little")
        + told["books"][0]["codes"].to_bytes(4, "little")
    )
    return changed[:-21] + section + zlib.crc32(section).to_bytes(4, "little")


@pytest.mark.parametrize("name", STORAGES)
def test_gaussians_that_cost_a_file_nothing_are_bounded_by_its_bytes(tmp_path, name):
    """One book of all parameters: its index is told by run lengths, and a short file could claim terabytes."""
    path = tmp_path / "scene.compgs"
    write(all_in_one_book(64, 32), path, STORAGES[name])
    good = path.read_bytes()
    path.write_bytes(with_runs(good, 320, 10))
    assert len(read(path)) == 320  # the crafting works
    for length in (10**6, 2**26, 2**32 // 32 - 1):
        path.write_bytes(with_runs(good, 32 * length, length))
        for reader in (read, describe, lambda path: list(read_parts(path))):
            with pytest.raises(EffbookError, match="does not fit"):
                reader(path)
    path.write_bytes(with_header(with_runs(good, 32 * 10**4, 10**4), rows=1))  # memory enough, but one by one
    with pytest.raises(EffbookError, match="does not fit"):
        read(path)


@pytest.mark.parametrize("name", STORAGES)
def test_what_could_not_be_read_is_not_written(tmp_path, name):
    path = tmp_path / "scene.compgs"
    with pytest.raises(EffbookError, match="keep a parameter plain"):
        write(all_in_one_book(3_000_000, 2), path, STORAGES[name])
    for wrong in (-1, 3):
        scene = made_up(40, (3, 3, 4, 3))
        scene.codebooks[1].indices[7] = wrong
        with pytest.raises(EffbookError, match="sh_rest have indices from"):
            write(scene, path, STORAGES[name])
    nothing = Compressed(codebooks=(), plain={name: torch.zeros(0, *shape) for name, shape in SHAPES.items()})
    with pytest.raises(EffbookError, match="0 Gaussians"):
        write(nothing, path, STORAGES[name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", ["nothing", "4 bits"])
def test_a_scene_that_compresses_without_end_can_still_be_read(tmp_path, kept):
    """All zeros: the compressed sections are filled up so that no honest file is beyond the limit."""
    n, path = 200_000, tmp_path / "scene.compgs"
    if kept == "nothing":
        scene = Compressed(codebooks=(), plain={name: torch.zeros(n, *shape) for name, shape in SHAPES.items()})
        size = write(scene, path, ENTROPY)
        assert size < 236 * n / 30
    else:  # the most that decodes for each byte: opacities in 4 bits, five books of one code and an index for nothing
        names = tuple(name for name in SHAPES if name != "opacities")
        books = tuple(
            Codebook(parameters=(name,), codes=torch.zeros(1, width(name)), indices=torch.zeros(n).int())
            for name in names
        )
        scene = Compressed(codebooks=books, plain={"opacities": torch.zeros(n)})
        size = write(scene, path, Storage(plain_bits={"opacities": 4}, entropy=True))
        assert size < n / 20
    found = read(path)
    assert len(found) == n
    assert found.bytes_at_rest() < MOST_RATIO * size


def test_a_header_that_contradicts_itself_is_refused(tmp_path):
    path = tmp_path / "scene.compgs"
    write(made_up(40, (3, 3, 4, 3)), path)
    good = path.read_bytes()
    told = json.loads(good[14 : 14 + int.from_bytes(good[10:14], "little")])
    for changes in (
        {"first": None},
        {"first": 7},
        {"first": -1},
        {"second": -1},
        {"second": 4},
        {"second": told["first"]},
        {"runs": 0},
        {"runs": told["runs"] + 1},
        {"rows": 2**16 + 1},
        {"plain": told["plain"][:1]},
        {"plain": told["plain"] * 2},
        {"books": []},
        {"surprise": 1},
    ):
        path.write_bytes(with_header(good, **changes))
        with pytest.raises(EffbookError):
            read(path)


def test_other_versions_and_other_files_are_told_apart(tmp_path):
    path = tmp_path / "scene.compgs"
    write(made_up(), path)
    good = path.read_bytes()
    path.write_bytes(good[:8] + b"\x01\x00" + good[10:])
    with pytest.raises(EffbookError, match="version 1, this reads version 2"):
        read(path)
    path.write_bytes(b"ply\nformat binary_little_endian 1.0\n")
    with pytest.raises(EffbookError, match=r"no \.compgs file"):
        read(path)
    with pytest.raises(EffbookError, match="cannot be read"):
        read(tmp_path / "missing.compgs")


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_nothing_but_our_own_error_comes_of_a_broken_file(tmp_path, data):
    """Bytes changed anywhere with all checksums set right again: what a stranger could do on purpose."""
    path = tmp_path / "scene.compgs"
    if not path.exists():
        write(made_up(60, (3, 3, 40, 3)), path, ENTROPY)
        (tmp_path / "good").write_bytes(path.read_bytes())
    good = (tmp_path / "good").read_bytes()
    head = 14 + int.from_bytes(good[10:14], "little") + 4
    sections, at = [], head
    while at < len(good):
        length = int.from_bytes(good[at : at + 8], "little")
        sections.append(bytearray(good[at : at + 9 + length]))
        at += 13 + length
    for _ in range(data.draw(st.integers(1, 4))):
        section = sections[data.draw(st.integers(0, len(sections) - 1))]
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    told = b"".join(bytes(section) + zlib.crc32(bytes(section)).to_bytes(4, "little") for section in sections)
    path.write_bytes(good[:head] + told)
    try:
        scene = read(path)
    except EffbookError:
        return
    scene.decode().check_finite()


HEADERS = """
import json, random, resource, sys, zlib
import torch
from effbook.compgs import read
from effbook.errors import EffbookError

def places(value, at=()):
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))

for path in sys.argv[2:]:
    read(path)  # everything is imported and compiled
with open("/proc/self/statm") as told:
    now = int(told.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 2**20,) * 2)
chance, refused = random.Random(0), 0
values = [0, 1, -1, 2, 3, 4, 7, 16, 255, 257, 2**15, 2**16, 2**20, 2**30, 2**31, 2**32 - 1, 2**40, 10**30, None, True]
values += ["", "means", "sh_rest", [], {}, 0.5, 1e29, 1e-300]
for _ in range(400):
    good = open(chance.choice(sys.argv[2:]), "rb").read()
    length = int.from_bytes(good[10:14], "little")
    header = json.loads(good[14 : 14 + length])
    for _ in range(chance.randint(1, 3)):
        *way, last = chance.choice([at for at in places(header) if at])
        inside = header
        for key in way:
            inside = inside[key]
        inside[last] = chance.choice(values)
    told = json.dumps(header).encode()
    head = good[:10] + len(told).to_bytes(4, "little") + told
    with open(sys.argv[1], "wb") as out:
        out.write(head + zlib.crc32(head).to_bytes(4, "little") + good[14 + length + 4 :])
    try:
        read(sys.argv[1]).decode()
    except EffbookError:
        refused += 1
print(refused)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_no_header_makes_reading_take_much_memory_or_fail_in_a_way_of_its_own(tmp_path):
    """Headers changed at random with their checksum set right again, under a limit of 200 MB beyond the imports."""
    for name, storage in STORAGES.items():
        write(made_up(60, (3, 1, 40, 3)), tmp_path / f"{name}.compgs", storage)
        write(all_in_one_book(64, 32), tmp_path / f"{name}-one.compgs", storage)
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", HEADERS, str(tmp_path / "changed"), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 300 < int(done.stdout) < 400  # some changes, like that of a step, make another scene


MAPPED = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from effbook.compgs import Codebook, Compressed, Storage, write
from effbook.compgs.model import index_type
from effbook.gaussians.parameters import SHAPES, width

def scene(folder, n, books):
    def mapped(name, kind, *shape):
        size = n * int(np.prod(shape))
        np.memmap(folder / name, str(kind).removeprefix("torch."), "w+", shape=size)[::7] = 1
        return torch.from_file(str(folder / name), shared=False, size=size, dtype=kind).reshape(n, *shape)
    found = tuple(
        Codebook(parameters=(name,), codes=torch.ones(k, width(name)), indices=mapped(name, index_type(k)))
        for name, k in books.items()
    )
    plain = {name: mapped(name, torch.float32, *shape) for name, shape in SHAPES.items() if name not in books}
    return Compressed(codebooks=found, plain=plain)

folder, n, books = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
storage = Storage(entropy=sys.argv[4] == "entropy")
write(scene(folder, 70_000, books), folder / "scene.compgs", storage)  # everything is imported and compiled
large = scene(folder, n, books)
print("ready", flush=True)
sys.stdin.readline()
print(write(large, folder / "scene.compgs", storage))
"""


def rss_anon(pid):
    """Bytes of memory of a process that no file on disk stands for."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("n", "books", "storage", "group"),
    [
        (1_200_000, {"sh_dc": 256, "scales": 4096, "rotations": 4096}, "packed", 100 * 2**20),
        (8_000_000, {"means": 2, "sh_dc": 2, "sh_rest": 2, "scales": 300, "rotations": 300}, "packed", 20 * 2**20),
        (8_000_000, {"means": 2, "sh_dc": 2, "sh_rest": 2, "scales": 300, "rotations": 300}, "entropy", 20 * 2**20),
    ],
    ids=["wide", "many", "many, entropy"],
)
def test_writing_needs_eight_bytes_a_gaussian_and_the_memory_of_a_group(tmp_path, n, books, storage, group):
    """All tensors lie on disk: a scene larger than the memory can be written."""
    command = [sys.executable, "-c", MAPPED, str(tmp_path), str(n), json.dumps(books), storage]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        before = most = rss_anon(child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
        while child.poll() is None:
            try:
                most = max(most, rss_anon(child.pid))
            except (FileNotFoundError, ProcessLookupError):
                break
        size = int(child.stdout.readline())
    told = describe(tmp_path / "scene.compgs")
    assert (told["gaussians"], told["bytes"]) == (n, size)
    assert most - before < 8 * n + group
