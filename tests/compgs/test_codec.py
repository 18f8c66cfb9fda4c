"""The codec of version 3: what is kept of each stream, scenes at the edge, files that are not believed."""

import math

import codec_twin
import numpy as np
import pytest
import torch
from gaussians_twin import scene

from effbook.compgs import codec, container, streams
from effbook.compgs.canonical import from_log_opacity, log_opacity, sorted_axes
from effbook.compgs.codec import pack, prepare, read, unpack, write
from effbook.compgs.config import CompGSSettings, books
from effbook.compgs.entropy import decode, encode, pack_bits, size_of, unpack_bits
from effbook.compgs.quantise import compress
from effbook.compgs.rate import Judge, at_psnr, at_size
from effbook.compgs.sensitivity import measure, views_of
from effbook.compgs.tables import Tables, classes_of
from effbook.errors import EffbookError
from effbook.gaussians.model import Gaussians
from effbook.gaussians.project import rotation_matrices


def single(n=300, size=-2.0, seed=0):
    return scene(n, size=size, seed=seed).map(torch.Tensor.float)


def changed(model, **parts):
    return Gaussians(**(model.tensors() | parts))


def covariances(model):
    axes = rotation_matrices(model.rotations.double()) * model.scales.double().exp()[:, None, :]
    return axes @ axes.transpose(1, 2)


# --- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 1), (1, 3), (700, 1), (400, 3), (60, 45), (10, 0)])
def test_numbers_come_back_within_half_a_step_and_as_the_encoder_says(rows, columns):
    rng = np.random.default_rng(rows + columns)
    values = np.rint(rng.laplace(size=(rows, columns)) * rng.choice([1, 50, 3000], (rows, 1))).astype(np.int64)
    values[rows // 2 : rows // 2 + 1] = 10**11
    steps = rng.choice([1, 16, 22, 64], rows).astype(np.int64)
    others = columns - 1 if 0 < columns < 4 else 0
    weights = rng.integers(-60, 80, (columns, 3 + others))
    spread = np.full(columns, 100)
    room = np.empty(9 * values.size + 64, np.uint8)
    size, known = encode(values, steps, weights, spread, 0, room)
    again, used = decode(room[:size].copy(), rows, steps, weights, spread)
    assert used == size
    assert (again == known).all()
    assert (2 * np.abs(known - values) <= steps[:, None]).all()
    slow = codec_twin.columns(room[:size].tobytes(), rows, steps.tolist(), weights.tolist(), spread.tolist())
    assert slow == known.tolist()


def test_a_size_is_four_times_the_logarithm_rounded_down_between_quarters():
    for exponent in range(62):
        for value in (2**exponent, 2**exponent + 2**exponent // 3, 2 ** (exponent + 1) - 1):
            assert size_of(value) == codec_twin.size_of(value)
    assert size_of(0) == 0


def test_numbers_that_are_nearly_always_zero_take_a_fraction_of_a_bit():
    values = np.zeros((4000, 1), np.int64)
    values[::500] = 16
    room = np.empty(9 * 4000 + 64, np.uint8)
    size, _ = encode(values, np.full(4000, 16), np.zeros((1, 3), np.int64), np.ones(1, np.int64), 0, room)
    assert size < 4000 / 8 / 8


def test_plain_bits_come_back_and_another_number_of_bytes_is_refused():
    rng = np.random.default_rng(0)
    widths = rng.integers(0, 25, 999)
    numbers = rng.integers(0, 1 << 30, 999) & ((1 << widths) - 1)
    data = pack_bits(numbers, widths)
    assert len(data) == math.ceil(widths.sum() / 8)
    assert (unpack_bits(data, widths) == numbers).all()
    with pytest.raises(ValueError, match="bytes"):
        unpack_bits(data + b"\0", widths)
    assert pack_bits(np.zeros(0, int), np.zeros(0, int)) == b""


# --- canonical form ------------------------------------------------------------------------------------------------


def test_the_canonical_form_is_the_same_gaussian_with_its_axes_sorted_and_a_small_turn():
    model = scene(500)
    scales, rotations = sorted_axes(model.scales.numpy(), model.rotations.numpy())
    assert (np.diff(scales, axis=1) <= 0).all()
    assert (rotations[:, :1] >= np.abs(rotations[:, 1:]) - 1e-12).all()
    same = changed(model, scales=torch.from_numpy(scales), rotations=torch.from_numpy(rotations))
    torch.testing.assert_close(covariances(same), covariances(model))


def test_a_quaternion_of_zeros_turns_nothing():
    _, rotations = sorted_axes(np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 4)))
    assert rotations.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_opacities_come_back_from_their_logarithms():
    logits = np.array([-19.0, -5.0, 0.0, 3.0, 9.0], np.float32)
    assert np.allclose(from_log_opacity(log_opacity(logits)), logits, rtol=1e-5)
    assert from_log_opacity(np.array([0.0, 0.3])).tolist() == [20.0, 20.0]


# --- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.05, 0.002])
def test_each_stream_comes_back_within_half_of_its_step(delta):
    prepared = prepare(single(600))
    tables = Tables.fit(prepared.scene, prepared.weights, delta)
    cells, _ = tables.cells_of(prepared.scene.means.numpy())
    order = np.argsort(cells, kind="stable")
    wanted, back = prepared.scene.map(lambda t: t[torch.from_numpy(order)]), unpack(pack(prepared, delta)[0])
    classes = classes_of(prepared.weights, delta)[order]
    steps = 16 * 2.0 ** (classes / 2)
    leaning = 0.5 + 10 / 64 + 0.1  # of a step: towards the prediction, and rounding to units

    def off(name):
        ours, theirs = (tables.transformed(model, name, np.arange(600), classes) for model in (wanted, back))
        return np.abs(ours - theirs) / tables.streams[name].unit

    assert (off("scales") <= leaning * steps[:, None]).all()
    assert (off("sh_dc") <= leaning * steps[:, None] + 1).all()
    assert (off("opacities") <= leaning * steps[:, None]).all()
    known = np.rint((back.scales.double().numpy() - tables.streams["scales"].mean) / tables.streams["scales"].unit)
    turns = tables.steps_of_turns(classes, known.astype(np.int64))
    assert (
        off("rotations") <= np.maximum(leaning * turns, 2)[:, None] + 2**-20 / tables.streams["rotations"].unit
    ).all()
    widths = tables.widths(classes, known.astype(np.int64))
    apart = (wanted.means - back.means).abs().double().numpy()
    assert (apart <= 0.5 * tables.cell * 2.0**-widths + 1e-6).all()


def test_a_file_is_what_the_encoder_said_and_what_a_slow_reader_finds():
    model = single(150)
    model = changed(model, means=torch.cat([model.means[:-1], torch.full((1, 3), 1e4)]))
    data, back = pack(prepare(model), 0.02)
    found, slow = unpack(data), codec_twin.read(data)
    for name, tensor in found.tensors().items():
        assert torch.equal(tensor, getattr(back, name))
        torch.testing.assert_close(tensor.double(), torch.from_numpy(slow[name]), rtol=1e-5, atol=1e-5, msg=name)


def test_the_same_scene_gives_the_same_bytes_and_a_scene_read_back_keeps_its_order():
    first, _ = pack(prepare(single(200)), 0.01)
    assert pack(prepare(single(200)), 0.01)[0] == first
    once = unpack(first)
    twice = unpack(pack(prepare(once), 1e-3)[0])
    assert (once.means - twice.means).abs().max() < 0.05
    assert (once.sh_dc - twice.sh_dc).abs().max() < 0.05


def test_finer_steps_are_nearer_and_take_more_bytes():
    model = single(800)
    prepared, judge = prepare(model), Judge(model)
    found = [pack(prepared, delta) for delta in (0.1, 0.02, 0.004)]
    assert len(found[0][0]) < len(found[1][0]) < len(found[2][0]) < 236 * 800
    quality = [judge.psnr(back) for _, back in found]
    assert quality[0] + 5 < quality[1] < quality[2] - 5


def test_importance_is_what_one_finds_by_changing_a_colour():
    model = prepare(single(40, size=-1.0)).scene
    cameras = views_of(model, views=4, size_px=64)
    found = np.mean([measure(model, cameras, seed=seed).importance for seed in range(40)], axis=0)
    from effbook.gaussians.rasterise import render

    truth = np.zeros(40)
    for camera in cameras:
        plain = render(model, camera).image
        for i in range(40):
            moved = model.sh_dc.clone()
            moved[i] += 0.05
            change = (render(changed(model, sh_dc=moved), camera).image - plain) / (0.05 * 0.28209479)
            truth[i] += float(change.double().square().sum()) / 3
    seen = truth > 0.1 * truth.max()
    assert np.abs(np.log2(found[seen] / truth[seen])).max() < 1


# --- scenes at the edge --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_few_gaussians_or_none_come_back(n, tmp_path):
    model = single(n)
    write(model, tmp_path / "s.compgs", delta=0.005)
    back = read(tmp_path / "s.compgs")
    assert len(back) == n
    assert streams.describe(tmp_path / "s.compgs")["gaussians"] == n
    ours, theirs = (m.means[m.means[:, 0].argsort()] for m in (model, back))
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)
    at_psnr(prepare(model), 40)


def test_equal_gaussians_take_next_to_nothing_and_come_back_equal():
    model = single(1).map(lambda t: t.repeat(3000, *[1] * (t.ndim - 1)))
    data, back = pack(prepare(model), 0.01)
    assert len(data) < 4 * 3000
    assert (back.means - model.means).abs().max() < 1e-3
    assert (back.sh_dc - model.sh_dc).abs().max() < 0.1
    assert (back.opacities - model.opacities).abs().max() < 0.3


def test_a_gaussian_far_away_is_kept_exactly_and_costs_the_others_nothing():
    model = single(500)
    far = model.means.clone()
    far[7] = torch.tensor([1e4, -3.0, 2.0])
    strange, cameras = changed(model, means=far), views_of(model, turn=0.3)
    data, back = pack(prepare(strange, views_of(model)), 0.01)
    plain, without = pack(prepare(model, views_of(model)), 0.01)
    assert [1e4, -3.0, 2.0] in back.means.tolist()
    assert len(data) < 1.1 * len(plain) + 100
    assert Judge(strange, cameras).psnr(back) > Judge(model, cameras).psnr(without) - 3


def test_a_huge_logit_is_kept_exactly_and_costs_the_others_nothing():
    model = single(500)
    logits = model.opacities.clone()
    logits[3] = 1000.0
    strange = changed(model, opacities=logits)
    prepared = prepare(strange)
    data, back = pack(prepared, 0.01)
    assert 1000.0 in back.opacities.tolist()
    assert len(data) < 1.1 * len(pack(prepare(model), 0.01)[0]) + 400
    assert Judge(strange).psnr(back) > Judge(model).psnr(pack(prepare(model), 0.01)[1]) - 3


def test_infinite_logits_and_flat_scales_are_moved_and_counted_and_nan_is_refused():
    model = single(50)
    logits, scales = model.opacities.clone(), model.scales.clone()
    logits[0], logits[1], scales[2, 1] = math.inf, -math.inf, -math.inf
    prepared = prepare(changed(model, opacities=logits, scales=scales))
    assert prepared.moved == {"opacities": 2, "scales": 1}
    assert all(bool(torch.isfinite(t).all()) for t in pack(prepared, 0.01)[1].tensors().values())
    for name in ("means", "opacities", "sh_rest"):
        broken = getattr(model, name).clone()
        broken.view(-1)[4] = math.nan
        with pytest.raises(EffbookError, match=f"1 values of {name} are NaN or infinite"):
            prepare(changed(model, **{name: broken}))


def test_a_value_beyond_all_steps_is_kept_exactly():
    model = single(100)
    colours = model.sh_dc.clone()
    colours[5, 1] = 3e30
    _, back = pack(prepare(changed(model, sh_dc=colours)), 0.01)
    assert float(back.sh_dc.max()) == pytest.approx(3e30)


def test_several_groups_of_rows_are_one_scene(monkeypatch):
    monkeypatch.setattr(codec, "ROWS", 64)
    data, back = pack(prepare(single(200)), 0.01)
    assert len(back) == 200
    assert torch.equal(unpack(data).means, back.means)


def test_a_scene_without_harmonics_has_none():
    model = changed(single(100), sh_rest=torch.zeros(100, 15, 3))
    assert not pack(prepare(model), 0.01)[1].sh_rest.any()


# --- a target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [30, 45])
def test_a_psnr_is_reached_and_not_by_far_exceeded(wanted):
    prepared = prepare(single(1500))
    found = at_psnr(prepared, wanted)
    assert wanted <= found.psnr_db < wanted + 1
    assert Judge(prepared.scene).psnr(unpack(found.data)) == pytest.approx(found.psnr_db)


def test_a_size_is_kept_and_used():
    prepared = prepare(single(1500))
    found = at_size(prepared, 30_000)
    assert 27_000 < len(found.data) <= 30_000
    with pytest.raises(EffbookError, match="do not fit into 100 bytes"):
        at_size(prepared, 100)
    with pytest.raises(EffbookError, match="a PSNR of 300 dB"):
        at_psnr(prepared, 300)


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_of_the_version_before_are_read_too(tmp_path):
    small = compress(single(60), CompGSSettings(books=books(colour=8, covariance=8)))
    container.write(small, tmp_path / "old.compgs")
    assert torch.equal(read(tmp_path / "old.compgs").means, container.read(tmp_path / "old.compgs").decode().means)
    write(single(60), tmp_path / "new.compgs", delta=0.01)
    assert (streams.version_of(tmp_path / "old.compgs"), streams.version_of(tmp_path / "new.compgs")) == (2, 3)
    with pytest.raises(EffbookError, match="has version 3"):
        container.read(tmp_path / "new.compgs")


def test_a_file_that_is_changed_anywhere_or_cut_off_is_refused():
    data = pack(prepare(single(30)), 0.05)[0]
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 60):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(EffbookError, match=r"is broken|is no .compgs file"):
            unpack(bytes(broken))
    for length in (0, 5, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(EffbookError):
            unpack(data[:length])
    with pytest.raises(EffbookError):
        unpack(data + b"\0")


def test_a_header_that_claims_more_than_the_bytes_hold_is_refused_before_anything_is_made():
    header = streams.Header(gaussians=2**31, rows=1 << 18, harmonics=45, cell_bits=10)
    with pytest.raises(EffbookError, match="is broken"):
        unpack(header.to_bytes() + bytes(1000))
