"""Every kind of .ply that programs write: each is read, or one sentence says why not."""

import numpy as np
import pytest
import torch
from gaussians_twin import scene

from effbook.errors import EffbookError
from effbook.gaussians.formats import read_ply, write_ply
from effbook.gaussians.rasterise import render


def columns_of(gaussians, harmonics=45):
    """(name, values [N]) in the usual order, for so many of the harmonics."""
    g = gaussians.map(torch.Tensor.double)
    found = [(axis, g.means[:, i]) for i, axis in enumerate("xyz")]
    found += [(f"f_dc_{i}", g.sh_dc[:, i]) for i in range(3)]
    bands = harmonics // 3
    found += [(f"f_rest_{i}", g.sh_rest[:, i % bands, i // bands]) for i in range(harmonics)]
    found += [("opacity", g.opacities)] + [(f"scale_{i}", g.scales[:, i]) for i in range(3)]
    return [(name, values.numpy()) for name, values in found + [(f"rot_{i}", g.rotations[:, i]) for i in range(4)]]


KINDS = {"float": "f4", "double": "f8", "ushort": "u2", "short": "i2", "char": "i1", "uint": "u4", "uchar": "u1"}


def ply(columns, *, order="<", kinds=None, extra=(), end="\n", before="", before_data=b"", after=""):
    """The bytes of a file; `kinds` are those of some columns, `extra` columns hold whole numbers from 0 on."""
    n = len(columns[0][1])
    columns = [*columns, *((name, np.arange(n) % 100) for name, _ in extra)]
    kinds = {name: "float" for name, _ in columns} | (kinds or {}) | dict(extra)
    name = {"<": "binary_little_endian", ">": "binary_big_endian", "": "ascii"}[order]
    head = ["ply", f"format {name} 1.0", *filter(None, before.split("|")), f"element vertex {n}"]
    head += [f"property {kinds[name]} {name}" for name, _ in columns] + [*filter(None, after.split("|")), "end_header"]
    if order:
        table = np.zeros(n, [(name, order + KINDS[kinds[name]]) for name, _ in columns])
        for name, values in columns:
            table[name] = values
        data = table.tobytes()
    else:
        data = "".join(" ".join(repr(float(values[i])) for _, values in columns) + end for i in range(n)).encode()
    return "".join(line + end for line in head).encode("latin-1") + before_data + data


def single(n=20):
    return scene(n, dtype=torch.float32)


def assert_read(path, wanted, harmonics=45):
    found = read_ply(path)
    for name, tensor in wanted.tensors().items():
        if name == "sh_rest":
            bands = harmonics // 3
            assert torch.equal(found.sh_rest[:, :bands], tensor[:, :bands])
            assert (found.sh_rest[:, bands:] == 0).all()
        else:
            assert torch.equal(getattr(found, name), tensor), name


@pytest.mark.parametrize("order", ["<", ">", ""], ids=["little", "big", "ascii"])
@pytest.mark.parametrize("harmonics", [0, 9, 24, 45])
def test_each_order_of_bytes_and_each_degree_is_read(tmp_path, order, harmonics):
    (tmp_path / "scene.ply").write_bytes(ply(columns_of(single(), harmonics), order=order))
    assert_read(tmp_path / "scene.ply", single(), harmonics)


@pytest.mark.parametrize(
    "options",
    [
        {"end": "\r\n"},
        {"end": "\r\n", "order": ""},
        {"kinds": {"x": "double", "opacity": "double"}},
        {"kinds": {"x": "double", "opacity": "double"}, "order": ">"},
        {"extra": [("a", "ushort"), ("b", "short"), ("c", "char"), ("d", "uint"), ("e", "uchar")]},
        {"extra": [("a", "ushort"), ("b", "double")], "order": ">"},
        {"before": "comment caf\xe9 \xff"},
        {"before": "obj_info by hand|comment end_header"},
        {"before": "element camera 2|property float fov|property ushort id", "before_data": b"\1" * 12},
        {
            "before": "element face 2|property uchar kind|property list uchar int corners",
            "before_data": b"\7\1\0\0\0\0\7\2" + b"\0" * 8,
        },
        {"after": "element face 3|property list uchar int corners"},
    ],
    ids=str,
)
def test_headers_and_columns_of_all_kinds_are_read(tmp_path, options):
    (tmp_path / "scene.ply").write_bytes(ply(columns_of(single()), **options))
    assert_read(tmp_path / "scene.ply", single())


def test_elements_before_the_vertices_of_an_ascii_file_are_passed_over(tmp_path):
    before = "element face 2|property list uchar int corners"
    raw = ply(columns_of(single()), order="", before=before, before_data=b"1 0\n2 5 6\n")
    (tmp_path / "scene.ply").write_bytes(raw)
    assert_read(tmp_path / "scene.ply", single())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"before": "element face 2|property list uchar int corners", "before_data": b"\xff"},
            "ends before its element",
        ),
        ({"before": "element vertex 2|property float q"}, "an element twice"),
        ({"before": "property float q"}, "broken header .property float q"),
        ({"before": "element camera"}, "broken header .element camera"),
        ({"before": "element camera 1|property list float int q"}, "no number"),
        ({"order": "", "before": "element camera 3|property float q"}, "of different lengths|claims 20 Gaussians"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, change, message):
    (tmp_path / "scene.ply").write_bytes(ply(columns_of(single()), **change))
    with pytest.raises(EffbookError, match=message) as told:
        read_ply(tmp_path / "scene.ply")
    assert "scene.ply" in str(told.value)


def test_rows_of_words_or_of_other_lengths_are_refused(tmp_path):
    raw = ply(columns_of(single()), order="")
    for wrong in (raw.replace(b"\n", b"\nword ", 70).replace(b"word ply", b"ply"), raw[: raw.rindex(b" ")] + b"\n"):
        (tmp_path / "scene.ply").write_bytes(wrong)
        with pytest.raises(EffbookError, match=r"scene\.ply"):
            read_ply(tmp_path / "scene.ply")


@pytest.mark.parametrize("order", ["<", ""], ids=["binary", "ascii"])
def test_infinite_logits_and_sizes_of_0_are_clamped_and_counted(tmp_path, order):
    gaussians = single()
    gaussians.opacities[3], gaussians.opacities[4], gaussians.opacities[5] = float("inf"), float("inf"), -float("inf")
    gaussians.scales[7, 1] = -float("inf")
    (tmp_path / "scene.ply").write_bytes(ply(columns_of(gaussians), order=order))
    said = []
    found = read_ply(tmp_path / "scene.ply", say=said.append)
    assert [sentence.split(": ", 1)[1].split(" are ")[0] for sentence in said] == [
        "3 infinite opacities",
        "1 sizes of 0",
    ]
    assert found.opacities[3:6].sigmoid().tolist() == pytest.approx([1, 1, 0], abs=2e-7)
    assert float(found.scales[7, 1].exp()) < 1e-8
    assert torch.equal(found.opacities[6:], gaussians.opacities[6:])
    with pytest.warns(UserWarning, match="infinite opacities"):
        read_ply(tmp_path / "scene.ply")
    write_ply(found, tmp_path / "again.ply")  # what was clamped can be written


@pytest.mark.parametrize(
    ("name", "value"),
    [("opacity", "nan"), ("scale_1", "nan"), ("scale_1", "inf"), ("x", "inf"), ("rot_0", "nan"), ("f_rest_9", "-inf")],
)
def test_other_values_that_are_not_finite_are_refused_with_file_and_number(tmp_path, name, value):
    columns = [(one, values.copy()) for one, values in columns_of(single())]
    next(values for one, values in columns if one == name)[[2, 9]] = float(value)
    (tmp_path / "scene.ply").write_bytes(ply(columns))
    with pytest.raises(EffbookError, match=r"scene\.ply: 2 values of \w+ are not finite"):
        read_ply(tmp_path / "scene.ply")


def test_a_double_that_no_float_holds_is_refused(tmp_path):
    columns = [(one, values.copy()) for one, values in columns_of(single())]
    columns[0][1][4] = 1e300
    (tmp_path / "scene.ply").write_bytes(ply(columns, kinds={"x": "double"}))
    with pytest.raises(EffbookError, match="1 values of means"):
        read_ply(tmp_path / "scene.ply")


def test_a_rotation_of_length_0_is_read_and_drawn_as_none(tmp_path):
    from gaussians_twin import camera

    gaussians, still = single(), single()
    gaussians.rotations[:] = 0.0
    still.rotations[:] = torch.tensor([1.0, 0, 0, 0])
    write_ply(gaussians, tmp_path / "scene.ply")
    found = read_ply(tmp_path / "scene.ply")
    assert torch.equal(render(found, camera()).image, render(still, camera()).image)
