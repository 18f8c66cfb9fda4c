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
    scale, offset, mean, variance = (
        torch.from_numpy(np.array(a)).reshape(1, -1, 1, 1) for a in (scale, offset, mean, variance)
    )
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
    assert (model(normalised(x)) - torch_forward(normalised(x), state, "module.")).abs().max() > 1e-3


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
    assert min((plain - haiku).abs().mean(), (haiku - simclr).abs().mean(), (plain - simclr).abs().mean()) > 0.01 * scale


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
