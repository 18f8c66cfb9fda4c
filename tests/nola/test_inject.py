import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from effbook.errors import EffbookError
from effbook.nola import (
    NOLAConv2d,
    NOLALinear,
    NOLASettings,
    adapt,
    adapted,
    count_parameters,
    split_fused,
)

S = NOLASettings(k=3, l=4, rank=2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.v_proj, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.v_proj(self.q_proj(x)))


def model():
    return nn.ModuleDict({"blocks": nn.ModuleList([Block(), Block()]), "head": nn.Linear(4, 2)})


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ("q_proj", ["blocks.0.q_proj", "blocks.1.q_proj"]),
        (["q_proj", "v_proj"], ["blocks.0.q_proj", "blocks.0.v_proj", "blocks.1.q_proj", "blocks.1.v_proj"]),
        (r"blocks\.1\..*", ["blocks.1.q_proj", "blocks.1.v_proj"]),
        ("blocks.0.v_proj", ["blocks.0.v_proj"]),
        (lambda name, m: isinstance(m, nn.Linear) and "v_" in name, ["blocks.0.v_proj", "blocks.1.v_proj"]),
    ],
)
def test_targets_are_endings_expressions_or_functions(targets, found):
    assert list(adapted(adapt(model(), S, targets=targets))) == found


def test_a_target_that_matches_nothing_is_told_with_near_names_and_changes_nothing():
    m = model()
    with pytest.raises(EffbookError, match="did you mean q_proj"):
        adapt(m, S, targets=["v_proj", "q_porj"])
    assert not adapted(m)
    assert all(p.requires_grad for p in m.parameters())


@pytest.mark.parametrize("targets", ["norm", "blocks", lambda name, m: False, []])
def test_a_target_that_isnt_a_layer_nola_knows_is_refused(targets):
    with pytest.raises(EffbookError):
        adapt(model(), S, targets=targets)


def test_a_layer_isnt_adapted_twice():
    m = adapt(model(), S, targets="q_proj")
    with pytest.raises(EffbookError):
        adapt(m, S, targets="q_proj")
    assert count_parameters(m) == 14


def test_the_attention_of_torch_that_never_calls_its_layer_is_refused():
    with pytest.raises(EffbookError):
        adapt(nn.ModuleDict({"a": nn.MultiheadAttention(4, 2)}), S, targets="out_proj")


def test_everything_else_is_frozen_but_what_is_to_train_along():
    m = adapt(model(), S, targets="q_proj", also_train=["head", "norm"])
    training = {name for name, p in m.named_parameters() if p.requires_grad}
    assert {name for name in training if "factors" not in name} == {
        "head.weight", "head.bias", "blocks.0.norm.weight", "blocks.0.norm.bias", "blocks.1.norm.weight",
        "blocks.1.norm.bias",
    }  # fmt: skip
    assert count_parameters(m) == 2 * (3 + 4) + 10 + 16
    assert count_parameters(m, exclude=["head"]) == 2 * (3 + 4) + 16
    with pytest.raises(EffbookError, match="heda"):
        adapt(model(), S, targets="q_proj", also_train=["heda"])


def test_a_second_call_with_other_settings_leaves_the_first():
    m = adapt(model(), S, targets="q_proj", also_train=["norm"])
    adapt(m, NOLASettings(k=10, l=10, rank=1, init="vision"), targets="head")
    assert count_parameters(m) == 2 * 7 + 16 + 20
    assert m["head"].settings.k == 10


@pytest.mark.parametrize("target", ["a", "b", ["a", "b"]])
def test_a_layer_used_under_two_names_stays_one_layer(target):
    shared = nn.Linear(4, 4)
    m = nn.ModuleDict({"a": shared, "b": shared})
    adapt(m, S, targets=target)
    assert m["a"] is m["b"]
    assert isinstance(m["b"], NOLALinear)
    assert count_parameters(m) == 7


def test_a_fused_layer_taken_apart_computes_the_same():
    torch.manual_seed(0)
    timm_like = nn.ModuleDict({"qkv": nn.Linear(6, 12)})
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()
    x, tokens = torch.randn(2, 6), torch.arange(8)[None]
    before = timm_like["qkv"](x), gpt2(tokens).logits
    split_fused(timm_like, targets="qkv")
    split_fused(gpt2, targets="c_attn")
    torch.testing.assert_close(timm_like["qkv"](x), before[0])
    torch.testing.assert_close(gpt2(tokens).logits, before[1])
    adapt(gpt2, S, targets=["c_attn.q", "c_attn.v"])
    assert count_parameters(gpt2) == 2 * 7
    with pytest.raises(EffbookError, match="split"):
        split_fused(nn.ModuleDict({"qkv": nn.Linear(6, 10)}), targets="qkv")


@pytest.mark.parametrize(("layers", "width", "count"), [(24, 1024, 96_000), (36, 1280, 144_000)])
def test_gpt2s_counts_are_the_dissertations(layers, width, count):
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=width, n_head=width // 64))
    split_fused(gpt2, targets="c_attn")
    adapt(gpt2, NOLASettings(k=1000, l=1000, rank=8), targets=["c_attn.q", "c_attn.v"])
    assert count_parameters(gpt2) == count


@pytest.mark.parametrize(("layers", "k", "count"), [(32, 128, 57_344), (40, 256, 143_360), (80, 512, 573_440)])
def test_llamas_counts_are_the_dissertations(layers, k, count):
    # widths don't enter the count
    config = LlamaConfig(vocab_size=8, hidden_size=64, intermediate_size=96, num_hidden_layers=layers)
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    adapt(llama, NOLASettings(k=k, l=k, rank=16, shared_basis=True), targets=r".*_proj")
    assert count_parameters(llama) == count


def test_resnet18s_count_is_the_dissertations():
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        resnet = torchvision.models.resnet18(num_classes=100)
    start = {"rank": 64, "init": "scratch"}
    adapt(
        resnet,
        NOLASettings(k=2000, l=2000, **start),
        targets=lambda _, m: isinstance(m, nn.Conv2d),
        also_train=["bn1", "bn2", r".*downsample\.1"],
    )
    adapt(resnet, NOLASettings(k=10_000, l=10_000, **start), targets="fc")
    layers = adapted(resnet).values()
    assert sum(isinstance(layer, NOLAConv2d) for layer in layers) == 20
    assert count_parameters(resnet) == 109_600


def test_the_meta_device_takes_a_forward_pass_and_no_memory():
    with torch.device("meta"):
        m = nn.Sequential(nn.Linear(4096, 4096), nn.Linear(4096, 4096))
    for shared in (True, False):
        new = adapt(copy.deepcopy(m), NOLASettings(k=8, l=8, rank=4, shared_basis=shared), targets=["0", "1"])
        assert new(torch.empty(2, 4096, device="meta")).shape == (2, 4096)
