import pytest
import torch
from torch import nn

from effbook.backbones import meta, split_qkv, toy_vit
from effbook.errors import EffbookError


def tiny_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16)).eval()


def test_splitting_changes_neither_outputs_nor_gradients_of_a_vit():
    fused, split = toy_vit().double(), split_qkv(toy_vit().double())
    x = torch.randn(3, 3, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = fused(a), split(b)
    torch.testing.assert_close(ya, yb, rtol=0, atol=1e-14)
    ya.square().sum().backward()
    yb.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
    whole = fused.blocks[0].attn.qkv.weight.grad
    parts = torch.cat([getattr(split.blocks[0].attn.qkv, name).weight.grad for name in "qkv"])
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-12)


def test_splitting_changes_no_output_of_gpt2_and_leaves_only_linear_layers():
    from transformers.pytorch_utils import Conv1D

    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        before = tiny_gpt2()(ids).logits
        model = split_qkv(tiny_gpt2())
        torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=1e-6)
    assert not any(isinstance(module, Conv1D) for module in model.modules())
    assert isinstance(model.transformer.h[0].mlp.c_fc, nn.Linear)
    assert model.lm_head.weight is model.transformer.wte.weight  # still tied


def test_splitting_keeps_the_number_of_parameters_and_frozen_ones_frozen():
    model = toy_vit().requires_grad_(False)
    count = sum(p.numel() for p in model.parameters())
    split = split_qkv(model)
    assert sum(p.numel() for p in split.parameters()) == count
    assert not any(p.requires_grad for p in split.parameters())


def test_lora_on_query_and_value_trains_the_reported_number_of_parameters():
    from peft import LoraConfig, get_peft_model

    def trained(name, rank, targets):
        model = get_peft_model(split_qkv(meta(name)), LoraConfig(r=rank, target_modules=targets))
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    assert trained("vit-b", 4, ["q", "v"]) == 147_456  # 141K in units of 1024, Table 3.15
    assert trained("gpt2-m", 4, ["q", "v"]) == 24 * 2 * 4 * (1024 + 1024)


def test_a_fused_layer_of_unequal_parts_is_refused():
    model = nn.Sequential()
    model.add_module("qkv", nn.Linear(8, 16))
    with pytest.raises(EffbookError, match="no fused query, key and value"):
        split_qkv(model)


def test_models_without_fused_layers_pass_unchanged():
    model = meta("smollm2")
    names = [name for name, _ in model.named_modules()]
    assert [name for name, _ in split_qkv(model).named_modules()] == names
