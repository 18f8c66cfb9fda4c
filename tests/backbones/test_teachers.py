"""Official teachers: each maker's format, computed plainly by its own names, against the converted module."""

import pickle
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effbook import data
from effbook.backbones.foreign import read_haiku, read_tensorflow
from effbook.backbones.teachers import (
    Shape,
    from_byol,
    from_moco,
    from_simclr,
    from_supervised,
    from_swav,
    read_state,
    teacher,
)
from effbook.backbones.vision import IMAGE_MEAN, IMAGE_STD
from effbook.errors import EffbookError

SMALL = Shape(channels=4, blocks=(1, 2, 1, 1))
NAMES = ("moco-v2-r50", "byol-r50", "swav-r50", "simclr-r50x4", "resnet50")
SIZES = [(64, 64), (65, 65), (64, 47)]  # under a stride of 2, padding differs between even and odd


def images(height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def normalised(x, mean=IMAGE_MEAN, std=IMAGE_STD):
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


# ------------------------------------------------------------- the three formats, with random weights, and their twins


class Draw:
    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)

    def weight(self, *shape):
        return self.random.normal(scale=(np.prod(shape) / shape[-1]) ** -0.5 * 2, size=shape).astype(np.float32)

    def near(self, value, *shape):
        return (value + self.random.uniform(-0.4, 0.4, size=shape)).astype(np.float32)


def architecture(shape):
    """(stage, block, layer, kernel, in, out, stride), layer None for the shortcut; written from He et al.'s table 1."""
    before = shape.channels
    for stage in range(4):
        width = shape.channels * (1, 2, 4, 8)[stage]
        for block in range(shape.blocks[stage]):
            stride = 2 if stage > 0 and block == 0 else 1
            if block == 0:
                yield stage, block, None, 1, before, 4 * width, stride
            yield stage, block, 0, 1, before, width, 1
            yield stage, block, 1, 3, width, width, stride
            yield stage, block, 2, 1, width, 4 * width, 1
            before = 4 * width


def run(x, shape, conv, norm, pool):
    """A residual network over the functions of a format: conv(x, key, stride), norm(x, key), pool(x)."""
    x = pool(torch.relu(norm(conv(x, "stem", 2), "stem")))
    for stage in range(4):
        for block in range(shape.blocks[stage]):
            stride = 2 if stage > 0 and block == 0 else 1
            key = (stage, block)
            short = norm(conv(x, (*key, None), stride), (*key, None)) if block == 0 else x
            y = torch.relu(norm(conv(x, (*key, 0), 1), (*key, 0)))
            y = torch.relu(norm(conv(y, (*key, 1), stride), (*key, 1)))
            x = torch.relu(norm(conv(y, (*key, 2), 1), (*key, 2)) + short)
    return x.mean(dim=(2, 3))


def same(x, kernel, stride, fill=0.0):
    """TensorFlow's SAME, from its definition: out = ceil(n / stride), the rest of the padding after the image."""
    for axis in (2, 3):
        size = x.shape[axis]
        out = -(-size // stride)
        total = max(0, (out - 1) * stride + kernel - size)
        before = total // 2
        sides = [(before, total - before) if a == axis else (0, 0) for a in (3, 2)]
        x = F.pad(x, [*sides[0], *sides[1]], value=fill)
    return x


def oihw(array):
    return torch.from_numpy(np.moveaxis(np.array(array), (0, 1, 2, 3), (2, 3, 1, 0)).copy())


def affine(x, scale, offset, mean, variance):
    scale, offset, mean, variance = (torch.as_tensor(a).reshape(1, -1, 1, 1) for a in (scale, offset, mean, variance))
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + offset


def torch_names(key):
    if key == "stem":
        return "conv1", "bn1"
    stage, block, layer = key
    place = f"layer{stage + 1}.{block}"
    if layer is None:
        return f"{place}.downsample.0", f"{place}.downsample.1"
    return f"{place}.conv{layer + 1}", f"{place}.bn{layer + 1}"


def torch_state(prefix, shape=SMALL, seed=0):
    draw, state = Draw(seed), {}
    layers = [("stem", 7, 3, shape.channels)] + [((s, b, n), k, i, o) for s, b, n, k, i, o, _ in architecture(shape)]
    for key, kernel, channels, out in layers:
        conv, norm = torch_names(key)
        state[f"{prefix}{conv}.weight"] = oihw(draw.weight(kernel, kernel, channels, out))
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            state[f"{prefix}{norm}.{part}"] = torch.from_numpy(draw.near(value, out))
        state[f"{prefix}{norm}.num_batches_tracked"] = torch.tensor(7)
    return state


def torch_forward(x, state, prefix, shape=SMALL):
    def conv(x, key, stride):
        weight = state[f"{prefix}{torch_names(key)[0]}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x, key):
        name = f"{prefix}{torch_names(key)[1]}"
        return affine(x, *(state[f"{name}.{p}"] for p in ("weight", "bias", "running_mean", "running_var")))

    return run(x, shape, conv, norm, lambda x: F.max_pool2d(x, 3, 2, padding=1))


def haiku_name(key, kind):
    if key == "stem":
        return f"res_net50/~/initial_{kind}"
    stage, block, layer = key
    last = f"shortcut_{kind}" if layer is None else f"{kind}_{layer}"
    return f"res_net50/~/block_group_{stage}/~/block_{block}/~/{last}"


def haiku_checkpoint(shape=SMALL, seed=0):
    draw, params, state = Draw(seed), {}, {}
    layers = [("stem", 7, 3, shape.channels)] + [((s, b, n), k, i, o) for s, b, n, k, i, o, _ in architecture(shape)]
    for key, kernel, channels, out in layers:
        norm = haiku_name(key, "batchnorm")
        params[haiku_name(key, "conv")] = {"w": draw.weight(kernel, kernel, channels, out)}
        params[norm] = {"scale": draw.near(1, 1, 1, 1, out), "offset": draw.near(0, 1, 1, 1, out)}
        for moment, value in (("mean", 0), ("var", 1)):
            average = draw.near(value, 1, 1, 1, out)
            state[f"{norm}/~/{moment}_ema"] = {"average": average, "hidden": average * 0.9, "counter": np.int32(9)}
    params["classifier"] = {"w": draw.weight(5, 5), "b": draw.weight(5)}
    return {"experiment_state": {"online_params": params, "online_state": state}, "step": 7}


def haiku_forward(x, checkpoint, shape=SMALL):
    params, state = (checkpoint["experiment_state"][part] for part in ("online_params", "online_state"))

    def conv(x, key, stride):
        weight = oihw(params[haiku_name(key, "conv")]["w"])
        return F.conv2d(same(x, weight.shape[-1], stride), weight, stride=stride)

    def norm(x, key):
        name = haiku_name(key, "batchnorm")
        moments = (state[f"{name}/~/{moment}_ema"]["average"] for moment in ("mean", "var"))
        return affine(x, params[name]["scale"], params[name]["offset"], *moments)

    return run(x, shape, conv, norm, lambda x: F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2))


def simclr_numbers(shape):
    """The number of each layer: the graph makes the stem, then in each block the shortcut before the three others."""
    keys = ["stem", *((stage, block, layer) for stage, block, layer, *_ in architecture(shape))]
    return {key: f"_{n}" if n else "" for n, key in enumerate(keys)}


def simclr_checkpoint(shape=SMALL, seed=0):
    draw, found = Draw(seed), {"head_supervised/linear_layer/dense/bias": np.zeros(5, np.float32)}
    layers = [("stem", 7, 3, shape.channels)] + [((s, b, n), k, i, o) for s, b, n, k, i, o, _ in architecture(shape)]
    numbers = simclr_numbers(shape)
    for key, kernel, channels, out in layers:
        found[f"base_model/conv2d{numbers[key]}/kernel"] = draw.weight(kernel, kernel, channels, out)
        for part, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
            found[f"base_model/batch_normalization{numbers[key]}/{part}"] = draw.near(value, out)
    return found


def simclr_forward(x, checkpoint, shape=SMALL):
    numbers = simclr_numbers(shape)

    def conv(x, key, stride):
        weight = oihw(checkpoint[f"base_model/conv2d{numbers[key]}/kernel"])
        if stride == 1:
            return F.conv2d(same(x, weight.shape[-1], 1), weight)
        total = weight.shape[-1] - 1  # fixed_padding: by the kernel alone
        before, after = total // 2, total - total // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride)

    def norm(x, key):
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        return affine(x, *(checkpoint[f"base_model/batch_normalization{numbers[key]}/{part}"] for part in parts))

    return run(x, shape, conv, norm, lambda x: F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2))


# ------------------------------------------------------------------------------------------------------------ parity


def compare(found, wanted):
    assert found.shape == wanted.shape == (2, 32 * SMALL.channels)
    assert wanted.std(dim=0).mean() > 1e-3 * wanted.abs().mean()  # the two images differ, so this can fail
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("size", SIZES)
def test_moco_is_its_query_encoder_without_the_mlp(size):
    state = torch_state("module.encoder_q.")
    head = {"module.encoder_q.fc.0.weight": torch.zeros(3, 3), "module.queue": torch.zeros(2, 2)}
    others = torch_state("module.encoder_k.", seed=1)
    model = from_moco({"epoch": 800, "arch": "resnet50", "state_dict": state | head | others}, SMALL)
    x = normalised(images(*size))
    compare(model(x), torch_forward(x, state, "module.encoder_q."))


@pytest.mark.parametrize("size", SIZES)
def test_swav_divides_red_by_its_own_deviation(size):
    state = torch_state("module.")
    model = from_swav(state | {"module.prototypes.weight": torch.zeros(3, 3)}, SMALL)
    x = images(*size)
    theirs = torch_forward(normalised(x, std=(0.228, 0.224, 0.225)), state, "module.")
    compare(model(normalised(x)), theirs)
    unlike = (model(normalised(x)) - torch_forward(normalised(x), state, "module.")).abs().max()
    assert unlike > 3e-4 * theirs.abs().max()


@pytest.mark.parametrize("size", SIZES)
def test_the_supervised_network_is_torchvisions_without_its_classifier(size):
    state = torch_state("")
    model = from_supervised(state | {"fc.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}, SMALL)
    x = normalised(images(*size))
    compare(model(x), torch_forward(x, state, ""))


@pytest.mark.parametrize("size", SIZES)
def test_byol_is_haikus_online_network_with_its_padding(size):
    checkpoint = haiku_checkpoint()
    model, x = from_byol(checkpoint, SMALL), normalised(images(*size))
    compare(model(x), haiku_forward(x, checkpoint))


@pytest.mark.parametrize("size", SIZES)
def test_simclr_sees_pixels_as_they_are_through_its_fixed_padding(size):
    checkpoint = simclr_checkpoint()
    model, x = from_simclr(checkpoint, SMALL), images(*size)
    compare(model(normalised(x)), simclr_forward(x, checkpoint))


def test_padding_and_normalisation_tell_the_formats_apart():
    """The three twins differ on the same weights, so parity with one is no accident."""
    state = torch_state("")
    x = images(64, 64)
    plain, haiku, simclr = (
        torch_forward(x, state, ""),
        haiku_forward(x, haiku_checkpoint()),
        simclr_forward(x, simclr_checkpoint()),
    )
    scale = plain.abs().mean()
    assert (
        min((plain - haiku).abs().mean(), (haiku - simclr).abs().mean(), (plain - simclr).abs().mean()) > 0.01 * scale
    )


def test_a_teacher_is_frozen_in_evaluation_mode_and_tells_its_width_and_normalisation():
    model = from_byol(haiku_checkpoint(), SMALL)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.num_features == 128
    assert model.pretrained_cfg == {"mean": IMAGE_MEAN, "std": IMAGE_STD}
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}


def test_conversion_draws_no_random_numbers():
    before = torch.get_rng_state()
    from_simclr(simclr_checkpoint(), SMALL)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------- files of the makers


Record = namedtuple("_ByolExperimentState", "online_params target_params online_state target_state opt_state")


class FrozenDict(dict):
    """Pickles as haiku's mapping of the time."""


def _create_namedtuple(*_):
    raise AssertionError("only its name is pickled")


_create_namedtuple.__module__, _create_namedtuple.__qualname__ = "dill._dill", "_create_namedtuple"


class MakersPickler(pickle._Pickler):
    """Writes what dill and haiku write: named tuples by their fields, mappings by haiku's name, in protocol 2."""

    def __init__(self, stream):
        super().__init__(stream, protocol=2)

    def save_global(self, value, name=None):
        if value is Record:  # dill's way with classes of named tuples
            self.save_reduce(_create_namedtuple, (value.__name__, value._fields, "byol.byol_experiment"), obj=value)
        elif value is _create_namedtuple:
            self.write(pickle.GLOBAL + b"dill._dill\n_create_namedtuple\n")
        elif value is FrozenDict:
            self.write(pickle.GLOBAL + b"haiku._src.data_structures\nFlatMapping\n")
        else:
            super().save_global(value, name)

    def save(self, value, save_persistent_id=True):
        if type(value) is FrozenDict:
            self.save_reduce(FrozenDict, (dict(value),), obj=value)
        elif any(value is known for known in (Record, FrozenDict, _create_namedtuple)):
            self.save_global(value)
        else:
            super().save(value, save_persistent_id)


def write_byol(path, checkpoint):
    found = checkpoint["experiment_state"]
    params, state = FrozenDict(found["online_params"]), FrozenDict(found["online_state"])
    content = {"experiment_state": Record(params, params, state, state, ()), "step": np.int64(7)}
    with path.open("wb") as stream:
        MakersPickler(stream).dump(content | {"rng": np.zeros(2, np.uint32)})
    return path


def test_byols_pickle_is_read_as_its_makers_wrote_it(tmp_path):
    checkpoint = haiku_checkpoint()
    path = write_byol(tmp_path / "pretrain_res50x1.pkl", checkpoint)
    assert b"dill._dill\n_create_namedtuple" in path.read_bytes()
    found, x = read_haiku(path), images(64, 64)
    for part in ("online_params", "online_state"):
        for name, wanted in checkpoint["experiment_state"][part].items():
            for key, value in wanted.items():
                if value.dtype.kind == "f":
                    np.testing.assert_array_equal(found["experiment_state"][part][name][key], value)
    assert torch.equal(from_byol(found, SMALL)(x), from_byol(checkpoint, SMALL)(x))


class Bomb:
    def __reduce__(self):
        import os

        return os.mkdir, (Bomb.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, protocol):
    Bomb.target = str(tmp_path / "ran")
    path = tmp_path / "pretrain_res50x1.pkl"
    path.write_bytes(pickle.dumps({"experiment_state": Bomb()}, protocol=protocol))
    with pytest.raises(EffbookError, match=r"the pickle asks for \w+\.mkdir, which weights do not need"):
        teacher("byol-r50", path)
    assert not (tmp_path / "ran").exists()


def test_a_forged_dtype_makes_no_pointers_of_bytes(tmp_path):
    """Numpy's own dtype takes such a state, and reads objects from bytes; ours is a stand-in."""
    forged = (
        b"\x80\x02}X\x01\x00\x00\x00acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
        b"(K\x01K\x01\x85cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89C\x08AAAAAAAAtbs."
    )
    path = tmp_path / "forged.pkl"
    path.write_bytes(forged)
    assert read_haiku(path) == {"a": None}


def varint(value):
    found = b""
    while value > 0x7F:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def message(*fields):
    """A protocol buffer of (number, integer or bytes)."""
    return b"".join(
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    )


def block_of(entries, every=16):
    """A block of LevelDB's table, with the prefix of the key before left out but at each restart point."""
    found, before, restarts = b"", b"", []
    for n, (key, value) in enumerate(entries):
        shared = 0
        if n % every == 0:
            restarts.append(len(found))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        found += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return found + b"".join(n.to_bytes(4, "little") for n in [*restarts, len(restarts)])


def write_tensorflow(index, arrays, per_block=20):
    """A checkpoint as TensorFlow's BundleWriter makes it: one shard, no compression."""
    data, entries = b"", [(b"", message((1, 1), (3, message((1, 1)))))]
    for name, array in sorted(arrays.items()):
        size = message(*((2, message((1, n))) for n in array.shape))
        kind = {"float32": 1, "int64": 9}[array.dtype.name]
        value = message((1, kind), (2, size), *([(4, len(data))] if data else []), (5, array.nbytes))
        entries.append((name.encode(), value + varint(6 << 3 | 5) + b"\0\0\0\0"))
        data += array.tobytes()
    table, places = b"", []
    for start in range(0, len(entries), per_block):
        part = entries[start : start + per_block]
        places.append((part[-1][0], varint(len(table)) + varint(len(block_of(part)))))
        table += block_of(part) + b"\0" + b"\0\0\0\0"  # uncompressed, and a checksum
    handles = []
    for part in ([], places):
        handles.append(varint(len(table)) + varint(len(block_of(part))))
        table += block_of(part) + b"\0" + b"\0\0\0\0"
    footer = b"".join(handles).ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    index.write_bytes(table + footer)
    index.with_name(f"{index.stem}.data-00000-of-00001").write_bytes(data)
    return index


def test_a_checkpoint_of_tensorflow_is_read_without_it(tmp_path):
    checkpoint = simclr_checkpoint()
    path = write_tensorflow(tmp_path / "model.ckpt-7.index", checkpoint | {"global_step": np.array(7)})
    found, x = read_tensorflow(path), images(64, 64)
    assert found.keys() == checkpoint.keys()
    for name, wanted in checkpoint.items():
        np.testing.assert_array_equal(found[name], wanted)
    assert torch.equal(from_simclr(found, SMALL)(x), from_simclr(checkpoint, SMALL)(x))


def test_a_checkpoint_of_tensorflow_that_is_not_whole_is_refused(tmp_path):
    path = write_tensorflow(tmp_path / "model.ckpt-7.index", simclr_checkpoint())
    shard = tmp_path / "model.ckpt-7.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-64])
    with pytest.raises(EffbookError, match="cannot be read as a TensorFlow checkpoint"):
        read_tensorflow(path)
    shard.unlink()
    with pytest.raises(EffbookError, match="cannot be read as a TensorFlow checkpoint"):
        read_tensorflow(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EffbookError, match="it is no index"):
        read_tensorflow(path)


def test_a_file_of_torch_that_holds_more_than_weights_is_refused(tmp_path):
    Bomb.target = str(tmp_path / "ran")
    path = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(EffbookError, match="is no file of PyTorch weights"):
        read_state(path)
    assert not (tmp_path / "ran").exists()


# --------------------------------------------------------------------------------------------------------- bad input


CONVERTERS = {
    "MoCo": (from_moco, lambda: {"state_dict": torch_state("module.encoder_q.")}),
    "SwAV": (from_swav, lambda: torch_state("module.")),
    "torchvision": (from_supervised, lambda: torch_state("")),
    "BYOL": (from_byol, haiku_checkpoint),
    "SimCLR": (from_simclr, simclr_checkpoint),
}


@pytest.mark.parametrize("of", CONVERTERS)
@pytest.mark.parametrize("other", CONVERTERS)
def test_a_file_of_another_teacher_is_refused_by_the_name_that_it_lacks(of, other):
    if of != other:
        with pytest.raises(EffbookError, match=f"this is not the whole file of {of}, as it lacks '"):
            CONVERTERS[of][0](CONVERTERS[other][1](), SMALL)


@pytest.mark.parametrize("of", CONVERTERS)
@pytest.mark.parametrize("wrong", [Shape(channels=8, blocks=SMALL.blocks), Shape(channels=4, blocks=(1, 3, 1, 1))])
def test_a_file_of_another_width_or_depth_is_refused(of, wrong):
    convert, make = CONVERTERS[of]
    with pytest.raises(EffbookError, match=f"of {of}, as it lacks|{of}'s conv1.weight has the shape"):
        convert(make(), wrong)


def test_a_deeper_network_is_not_cut_to_size():
    """torchvision's ResNet-101 has every name and shape of ResNet-50."""
    with pytest.raises(EffbookError, match=r"torchvision's file has 'layer2\.1\.conv1\.weight', one block too many"):
        from_supervised(torch_state("", Shape(channels=4, blocks=(1, 2, 1, 1))), Shape(channels=4, blocks=(1, 1, 1, 1)))


def test_a_weight_that_lacks_or_is_no_array_is_named():
    state = torch_state("module.")
    del state["module.layer2.1.bn3.running_var"]
    with pytest.raises(EffbookError, match=r"not the whole file of SwAV, as it lacks 'module\.layer2\.1\.bn3\.running"):
        from_swav(state, SMALL)
    checkpoint = haiku_checkpoint()
    checkpoint["experiment_state"]["online_params"]["res_net50/~/initial_conv"] = {"w": "text"}
    with pytest.raises(EffbookError, match="something else where weights should be"):
        from_byol(checkpoint, SMALL)
    arrays = simclr_checkpoint()
    arrays["base_model/conv2d/kernel"] = arrays["base_model/conv2d/kernel"][..., 0]
    with pytest.raises(EffbookError, match=r"SimCLR's conv1\.weight has the shape \(7, 7, 3\) where \(4, 3, 7, 7\)"):
        from_simclr(arrays, SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_or_missing_file_is_refused(tmp_path, name):
    path = tmp_path / "file"
    with pytest.raises(EffbookError, match="is no file; give"):
        teacher(name, path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(EffbookError, match=r"cannot be read as|is no file of PyTorch weights"):
        teacher(name, path)


def test_every_teacher_has_a_manifest_and_an_unknown_one_is_refused():
    assert {data.manifest(name).loader for name in NAMES} == {"teacher"}
    with pytest.raises(EffbookError, match="there is no teacher named 'dino'; choose one of moco-v2-r50, "):
        teacher("dino")


def test_a_fetched_teacher_is_a_whole_resnet50(tmp_path, monkeypatch):
    """Through the door: the file by its name in the manifest, the real width and depth."""
    torch.save(torch_state("", Shape()), tmp_path / "resnet50-0676ba61.pth")
    monkeypatch.setattr(data, "fetch", {"resnet50": tmp_path}.__getitem__)
    model = teacher("resnet50")
    assert model(images(32, 32)).shape == (2, model.num_features) == (2, 2048)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 - 2049 * 1000  # torchvision's, less the classifier
