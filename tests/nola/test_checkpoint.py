import copy
import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from effbook.errors import EffbookError
from effbook.nola import NOLASettings, adapt, adapted, count_parameters, load, save
from effbook.nola.quantise import fake_quantise


def base(width=8):
    torch.manual_seed(0)
    layers = [nn.ModuleDict({"q": nn.Linear(width, 8), "k": nn.Linear(width, 8)}) for _ in range(3)]
    return nn.ModuleDict({"layers": nn.ModuleList(layers), "conv": nn.Conv2d(2, 4, 3)})


def trained(**fields):
    model = adapt(base(), NOLASettings(**({"k": 9, "l": 5, "rank": 2, "seed": 3} | fields)), targets=["q", "conv"])
    g = torch.Generator().manual_seed(1)
    for layer in adapted(model).values():
        layer.alpha.data.copy_(torch.randn(layer.alpha.shape, generator=g))
        layer.beta.data.copy_(torch.randn(layer.beta.shape, generator=g))
    return model


def deltas(model):
    return {name: layer.delta_weight() for name, layer in adapted(model).items()}


@pytest.mark.parametrize("init", ["language", "vision", "scratch"])
def test_a_base_model_and_the_file_give_the_same_weights_to_the_bit(tmp_path, init):
    model = trained(init=init)
    save(model, tmp_path / "c.safetensors")
    again = load(base(), tmp_path / "c.safetensors")
    assert deltas(again).keys() == deltas(model).keys()
    assert all(torch.equal(a, b) for a, b in zip(deltas(again).values(), deltas(model).values(), strict=True))


@pytest.mark.parametrize("bits", [16, 8, 4, 3, 2])
def test_quantised_coefficients_come_back_as_quantisation_made_them(tmp_path, bits):
    model = trained()
    save(model, tmp_path / "c.safetensors", bits=bits)
    again = load(base(), tmp_path / "c.safetensors")
    for a, b in zip(adapted(again).values(), adapted(model).values(), strict=True):
        torch.testing.assert_close(a.alpha, fake_quantise(b.alpha, bits), rtol=0, atol=0)
        torch.testing.assert_close(a.beta, fake_quantise(b.beta, bits), rtol=0, atol=0)


def test_what_was_trained_quantised_is_saved_so_and_loses_nothing(tmp_path):
    model = trained(bits=3)
    size = save(model, tmp_path / "c.safetensors")
    assert size < save(model, tmp_path / "full.safetensors", bits=32)
    again = load(base(), tmp_path / "c.safetensors")
    for a, b in zip(deltas(again).values(), deltas(model).values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 3, 2])
def test_a_file_is_its_coefficients_and_less_than_a_kibibyte(tmp_path, bits):
    """SmolLM2's Q and V: 30 layers, 576 to 576 and 576 to 192, k = l = 1000."""
    with torch.device("meta"):
        layers = [nn.ModuleDict({"q_proj": nn.Linear(576, 576), "v_proj": nn.Linear(576, 192)}) for _ in range(30)]
        model = nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList(layers)})})
        adapt(model, NOLASettings(k=1000, l=1000, rank=8, shared_basis=True), targets=["q_proj", "v_proj"])
    model.to_empty(device="cpu")
    for p in model.parameters():
        p.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    count = count_parameters(model)
    assert count == 120_000
    size = save(model, tmp_path / "c.safetensors", bits=bits)
    assert size == (tmp_path / "c.safetensors").stat().st_size
    assert size <= count * bits / 8 + 1024


def test_the_file_holds_one_tensor_and_the_seed_and_no_path(tmp_path):
    save(trained(), tmp_path / "c.safetensors", bits=4)
    with safe_open(tmp_path / "c.safetensors", framework="pt") as f:
        assert list(f.keys()) == ["payload"]
        header = json.loads(f.metadata()["nola"])
    assert header["groups"][0]["seed"] == 3
    assert header["groups"][0]["targets"] == ["conv", r"layers\.\d+\.q"]


def test_layers_that_a_pattern_would_take_along_are_named_one_by_one(tmp_path):
    model = adapt(base(), NOLASettings(k=3, l=3, rank=1), targets=["layers.0.q", "layers.2.q"])
    save(model, tmp_path / "c.safetensors")
    assert list(adapted(load(base(), tmp_path / "c.safetensors"))) == ["layers.0.q", "layers.2.q"]


def with_two_of_one_name():
    """`fc` at the top and in a block, with a layer beside each."""
    torch.manual_seed(0)
    block = nn.ModuleDict({"fc": nn.Linear(8, 8), "0": nn.Linear(8, 8)})
    return nn.ModuleDict({"block": block, "fc": nn.Linear(8, 4), "0": nn.Linear(8, 4), "1": nn.Linear(8, 4)})


SMALL = NOLASettings(k=3, l=2, rank=1, seed=5)


@pytest.mark.parametrize(
    "groups",
    [[["fc"]], [["block.fc"], ["fc"]], [[r"fc|0"]], [["0"]], [["block.0"], ["0", "1"]], [["1"]], [["block.fc"]]],
)
def test_a_layer_at_the_top_is_not_mistaken_for_its_namesake_in_a_block(tmp_path, groups):
    model = with_two_of_one_name()
    for i, targets in enumerate(groups):  # whole names alone, as a function of the caller's may choose them
        settings = NOLASettings(k=3 + i, l=2, rank=1, seed=5)
        adapt(model, settings, targets=lambda name, _, some=targets: any(re.fullmatch(t, name) for t in some))
    for layer in adapted(model).values():
        layer.beta.data.fill_(0.3)
    save(model, tmp_path / "c.safetensors")
    again = load(with_two_of_one_name(), tmp_path / "c.safetensors")
    assert deltas(again).keys() == deltas(model).keys()
    assert all(torch.equal(a, b) for a, b in zip(deltas(again).values(), deltas(model).values(), strict=True))


def test_a_model_that_was_put_into_another_one_is_saved_under_its_own_names(tmp_path):
    model = adapt(base(), SMALL, targets=["layers.0.q", "layers.2.q"])
    save(model, tmp_path / "alone.safetensors")
    save(nn.ModuleDict({"0": nn.Linear(2, 2), "body": model}), tmp_path / "inside.safetensors")
    assert (tmp_path / "inside.safetensors").read_bytes() == (tmp_path / "alone.safetensors").read_bytes()
    assert list(adapted(load(base(), tmp_path / "inside.safetensors"))) == ["layers.0.q", "layers.2.q"]


def test_several_settings_in_one_model_are_kept_apart(tmp_path):
    model = trained()
    adapt(model, NOLASettings(k=2, l=30, rank=1, init="scratch", seed=9), targets="k")
    save(model, tmp_path / "c.safetensors")
    again = load(base(), tmp_path / "c.safetensors")
    for a, b in zip(deltas(again).values(), deltas(model).values(), strict=True):
        assert torch.equal(a, b)


def test_a_model_with_the_same_nola_takes_the_coefficients_merged_or_not(tmp_path):
    model = trained()
    save(model, tmp_path / "c.safetensors")
    other = adapt(base(), NOLASettings(k=9, l=5, rank=2, seed=3, regenerate=True), targets=["q", "conv"])
    layer = adapted(other)["layers.1.q"]
    layer.merge()
    load(other, tmp_path / "c.safetensors")
    x = torch.randn(2, 8)
    torch.testing.assert_close(layer(x), adapted(model)["layers.1.q"](x))
    layer.unmerge()
    assert torch.equal(layer.base.weight, base()["layers"][1]["q"].weight)


@pytest.mark.parametrize("case", ["narrower", "fewer layers", "another k", "another seed", "no such layers"])
def test_another_architecture_or_other_settings_are_refused_and_nothing_changes(tmp_path, case):
    save(trained(), tmp_path / "c.safetensors")
    s = NOLASettings(k=9, l=5, rank=2, seed=3)
    other = {
        "narrower": lambda: base(width=4),
        "fewer layers": lambda: adapt(base(), s, targets="q"),
        "another k": lambda: adapt(base(), NOLASettings(k=8, l=5, rank=2, seed=3), targets=["q", "conv"]),
        "another seed": lambda: adapt(base(), NOLASettings(k=9, l=5, rank=2), targets=["q", "conv"]),
        "no such layers": lambda: nn.Sequential(nn.Linear(3, 3)),
    }[case]()
    before, keys = copy.deepcopy(other.state_dict()), list(other.state_dict())
    with pytest.raises(EffbookError, match="other settings" if case == "another seed" else "another architecture"):
        load(other, tmp_path / "c.safetensors")
    assert list(other.state_dict()) == keys
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def rewrite(path, *, tensor=None, **changes):
    """Save the file again with another header or payload, as a careless or a malicious hand would."""
    with safe_open(path, framework="pt") as f:
        metadata = f.metadata()
    payload = load_file(path)["payload"] if tensor is None else tensor
    header = json.loads(metadata["nola"]) | changes
    save_file({"payload": payload}, path, metadata={**metadata, "nola": json.dumps(header, separators=(",", ":"))})


def test_broken_foreign_and_altered_files_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    save(trained(), path)
    whole = path.read_bytes()

    def refused(match):
        with pytest.raises(EffbookError, match=match):
            load(base(), path)
        path.write_bytes(whole)

    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused("truncated")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("changed")
    path.write_bytes(whole.replace(b'seed\\":3', b'seed\\":4'))
    refused("changed")
    rewrite(path, bits=16)
    refused("changed")
    rewrite(path, tensor=torch.zeros(4))
    refused("changed")
    rewrite(path, version=2)
    refused("version 2")
    save_file({"weight": torch.zeros(3)}, path)
    refused("isn't a NOLA checkpoint")
    path.unlink()
    with pytest.raises(EffbookError, match="no checkpoint"):
        load(base(), path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.safetensors"
    model = trained()
    save(model, path)
    before = path.read_bytes()
    adapted(model)["conv"].alpha.data[0] = float("nan")
    for bits in (None, 4):
        with pytest.raises(EffbookError, match="nan"):
            save(model, path, bits=bits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(EffbookError, match="no NOLA layers"):
        save(base(), path)
    with pytest.raises(EffbookError, match="bits"):
        save(trained(), path, bits=7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_file_means_the_same_basis_on_the_gpu(tmp_path):
    model = trained()
    save(model, tmp_path / "c.safetensors")
    again = load(base().cuda(), tmp_path / "c.safetensors")
    for a, b in zip(deltas(again).values(), deltas(model).values(), strict=True):
        torch.testing.assert_close(a.cpu(), b)
