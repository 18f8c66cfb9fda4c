"""The .compgs file: what is written comes back, in the bytes that the text counts, and nothing broken gets through."""

import json
import zlib

import numpy as np
import pytest
import torch
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
from effbook.compgs.bits import absmax, bits_for, from_absmax, pack, unpack
from effbook.compgs.model import SHAPES, split, width
from effbook.errors import EffbookError

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
    runs = 0 if told["first"] is None else -(-told["books"][told["first"]]["codes"] * told["run_bits"] // 8)
    sections = len(told["books"]) + (told["first"] is not None)
    sections += groups * (len(told["plain"]) + max(0, len(told["books"]) - 1))
    return head + runs + 13 * sections


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


def test_the_dissertations_size_of_a_scene_follows(tmp_path):
    """N x (16 + 39 / 8) + 1,703,936 bytes with 4096 and 32,768 codes; beside it less than one byte in two hundred."""
    n = 300_000
    scene = made_up(n, (4096, 4096, 32_768, 32_768))
    size = write(scene, tmp_path / "scene.compgs")
    wanted = n * (16 + 39 / 8) + 1_703_936
    assert bytes_of_scene(n, [(3, 4096), (45, 4096), (3, 32_768), (4, 32_768)]) == wanted
    assert wanted < size < 1.005 * wanted


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


@pytest.mark.parametrize("name", STORAGES)
def test_lengths_that_claim_gigabytes_are_refused_before_anything_is_allocated(tmp_path, name, monkeypatch):
    path = tmp_path / "scene.compgs"
    write(made_up(40, (3, 3, 4, 3)), path, STORAGES[name])
    good = path.read_bytes()
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("allocated"))
    for changes in ({"gaussians": 10**11}, {"gaussians": 2**40, "rows": 1}, {"gaussians": 0}, {"gaussians": True}):
        path.write_bytes(with_header(good, **changes))
        with pytest.raises(EffbookError):
            read(path)
    books = json.loads(good[14 : 14 + int.from_bytes(good[10:14], "little")])["books"]
    books[0]["codes"] = 2**31
    path.write_bytes(with_header(good, books=books))
    with pytest.raises(EffbookError, match="does not fit"):
        read(path)


def test_a_header_that_contradicts_itself_is_refused(tmp_path):
    path = tmp_path / "scene.compgs"
    write(made_up(40, (3, 3, 4, 3)), path)
    good = path.read_bytes()
    told = json.loads(good[14 : 14 + int.from_bytes(good[10:14], "little")])
    for changes in (
        {"first": None},
        {"first": 7},
        {"first": -1},
        {"second": told["first"]},
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
    path.write_bytes(good[:8] + b"\x02\x00" + good[10:])
    with pytest.raises(EffbookError, match="version 2"):
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


def test_writing_needs_memory_for_a_group_of_rows_and_not_for_the_scene(tmp_path):
    """Parameters may lie on disk: a scene larger than half of the memory can be written."""
    import tracemalloc

    n = 600_000
    plain = {}
    for name, shape in SHAPES.items():
        size = n * int(np.prod(shape))
        np.memmap(tmp_path / name, np.float32, "w+", shape=size)[::7] = 1.5
        plain[name] = torch.from_file(str(tmp_path / name), shared=False, size=size).reshape(n, *shape)
    tracemalloc.start()
    size = write(Compressed(codebooks=(), plain=plain), tmp_path / "scene.compgs")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 236 * n
    assert peak < 0.45 * size
    seen = sum(len(part) for part in read_parts(tmp_path / "scene.compgs"))
    assert seen == n
