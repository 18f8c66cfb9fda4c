"""NOLA through peft's own doors: what works with LoRA works with it."""

import json
import subprocess
import sys

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from effbook.errors import EffbookError
from effbook.nola import NOLASettings, adapt, adapted
from effbook.nola.peft import NOLAConfig, NOLAPeftLinear


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def config(**fields):
    given = {"r": 4, "k": 16, "l": 12, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "seed": 5}
    return NOLAConfig(**(given | fields))


def scatter(model, seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=g))
    return model.eval()


TOKENS = torch.arange(16).reshape(2, 8)
SHARED = pytest.mark.parametrize("shared", [False, True])


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def test_importing_the_library_doesnt_import_peft_or_transformers():
    code = "import effbook.nola, sys; sys.exit(bool({'peft', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@SHARED
def test_a_new_adapter_changes_nothing_and_trains_its_coefficients_only(shared):
    before = logits(llama())
    model = get_peft_model(llama(), config(shared_basis=shared))
    torch.testing.assert_close(logits(model), before)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trainable) == 8
    assert all(name.endswith(("nola_factors.default.alpha", "nola_factors.default.beta")) for name in trainable)
    assert model.get_nb_trainable_parameters()[0] == 2 * 2 * (16 + 12)


@SHARED
def test_peft_and_the_library_build_the_same_model(shared):
    """One implementation: the same names, seed and coefficients give the same outputs either way."""
    model = scatter(get_peft_model(llama(), config(shared_basis=shared)))
    own = adapt(llama(), NOLASettings(k=16, l=12, rank=4, seed=5, shared_basis=shared), targets=["q_proj", "v_proj"])
    for name, layer in adapted(own).items():
        factors = model.get_submodule(f"base_model.model.{name}").nola_factors["default"]
        layer.alpha.data.copy_(factors.alpha)
        layer.beta.data.copy_(factors.beta)
    torch.testing.assert_close(logits(model), logits(own))


@SHARED
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saving_ships_coefficients_only_and_loading_gives_the_same_model(tmp_path, shared, low_cpu_mem_usage):
    model = scatter(get_peft_model(llama(), config(shared_basis=shared, init="vision")))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sorted(t.numel() for t in tensors.values()) == [12] * 4 + [16] * 4
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["peft_type"], saved["seed"], saved["shared_basis"]) == ("NOLA", 5, shared)
    again = PeftModel.from_pretrained(llama(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    torch.testing.assert_close(logits(again), logits(model))


@SHARED
def test_several_adapters_are_chosen_disabled_and_deleted(shared):
    base = logits(llama())
    model = scatter(get_peft_model(llama(), config(shared_basis=shared)))
    first = logits(model)
    model.add_adapter("second", config(shared_basis=shared, target_modules=["q_proj", "o_proj"], seed=6, r=2))
    torch.testing.assert_close(logits(model), first)
    model.set_adapter("second")
    torch.testing.assert_close(logits(model), base)
    second = logits(scatter(model, seed=1))
    assert not torch.allclose(second, base)
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained
    assert all(".second." in name for name in trained)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), base)
    model.set_adapter("default")
    torch.testing.assert_close(logits(model), first)
    model.base_model.set_adapter(["default", "second"])
    assert not torch.allclose(logits(model), first)
    model.set_adapter("default")
    model.delete_adapter("second")
    torch.testing.assert_close(logits(model), first)
    assert not any("second" in name for name, _ in model.named_modules())


@SHARED
def test_merging_and_back_and_merging_for_good(shared):
    model = scatter(get_peft_model(llama(), config(shared_basis=shared)))
    y = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), y, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), y, rtol=1e-4, atol=1e-5)
    plain = model.merge_and_unload(safe_merge=True)
    assert not any(isinstance(m, NOLAPeftLinear) for m in plain.modules())
    assert not plain._forward_pre_hooks, "no shared basis is computed for a model that has none"
    torch.testing.assert_close(logits(plain), y, rtol=1e-4, atol=1e-5)
    assert plain.state_dict().keys() == llama().state_dict().keys()


def test_a_safe_merge_refuses_what_isnt_finite():
    model = get_peft_model(llama(), config())
    next(p for p in model.parameters() if p.requires_grad).data[0] = float("nan")
    with pytest.raises(EffbookError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)


def test_gpt2s_layers_and_the_default_targets_work():
    gpt2_config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(gpt2_config).eval()
    before = logits(gpt2)
    model = scatter(get_peft_model(gpt2, config(target_modules=None)))
    assert model.peft_config["default"].target_modules == {"c_attn"}
    y = logits(model)
    assert not torch.allclose(y, before)
    torch.testing.assert_close(logits(model.merge_and_unload()), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["nola", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_transformers_trainer_runs_as_with_lora(tmp_path, method, checkpointing):
    from transformers import Trainer, TrainingArguments

    given = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "r": 4}
    chosen = config(shared_basis=True) if method == "nola" else LoraConfig(**given)
    model = get_peft_model(llama(), chosen)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    data = [{"input_ids": TOKENS[0], "labels": TOKENS[0]}] * 32
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=4, learning_rate=0.1, report_to=[],
        save_steps=6, logging_steps=1, disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.05
    again = PeftModel.from_pretrained(llama(), tmp_path / "checkpoint-12")
    torch.testing.assert_close(logits(again), logits(model.eval()))


def test_words_are_generated():
    model = scatter(get_peft_model(llama(), config()))
    prompt = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    out = model.generate(**prompt, max_new_tokens=3, do_sample=False)
    merged = model.merge_and_unload().generate(**prompt, max_new_tokens=3, do_sample=False)
    assert torch.equal(out, merged)


class EightBit(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_features, self.out_features = 6, 4
        self.register_buffer("weight", torch.arange(-12, 12, dtype=torch.int8).reshape(4, 6))

    def forward(self, x):
        return x @ self.weight.to(x.dtype).T


def test_a_quantised_layer_gets_an_adapter_and_refuses_to_merge():
    model = get_peft_model(nn.ModuleDict({"fc": EightBit()}), NOLAConfig(r=2, k=3, l=3, target_modules=["fc"]))
    layer = scatter(model).base_model.model["fc"]
    x = torch.ones(2, 6)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ layer.get_delta_weight("default").T)
    with pytest.raises(EffbookError, match="quantised"):
        model.merge_adapter()


@pytest.mark.parametrize("fields", [{"r": 0}, {"k": 0}, {"l": -1}, {"init": "scratch"}, {"bias": "some"}, {"bits": 7}])
def test_impossible_values_are_refused(fields):
    with pytest.raises(EffbookError):
        config(**fields)


def test_unknown_keys_and_layers_that_arent_linear_are_refused():
    with pytest.raises(TypeError, match="rnak"):
        NOLAConfig(rnak=3)
    with pytest.raises(EffbookError, match="Embedding"):
        get_peft_model(llama(), config(target_modules=["embed_tokens"]))


def test_the_method_is_registered_with_peft():
    assert peft.PeftType("NOLA") is peft.PeftType.NOLA
    assert peft.PeftType.NOLA in list(peft.PeftType)
    assert peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.NOLA] is NOLAConfig
