"""What users of peft's other methods get with NOLA, too: each kind of its common tests, and the rest of its doors."""

import copy
import warnings

import pytest
import torch
from peft import (
    PeftModel,
    convert_to_lora,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from effbook.errors import EffbookError
from effbook.nola.peft import NOLAConfig, NOLAPeftLinear

TOKENS = torch.arange(16).reshape(2, 8)
KEPT = pytest.mark.parametrize(
    "kept", [{}, {"shared_basis": True}, {"regenerate": True}], ids=["own", "shared", "anew"]
)


def llama(**fields):
    torch.manual_seed(0)
    given = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    given |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**(given | fields))).eval()


def config(**fields):
    given = {"r": 4, "k": 16, "l": 12, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "seed": 5}
    return NOLAConfig(**(given | {"init_weights": False} | fields))


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, NOLAPeftLinear)}


def coefficients(model, adapter="default"):
    return {n: p for n, p in model.named_parameters() if f"nola_factors.{adapter}." in n}


# dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_coefficients_have_the_dtype_that_peft_promises(tmp_path, dtype, autocast, low_cpu_mem_usage):
    wanted = torch.float32 if autocast and dtype != torch.float64 else dtype
    model = get_peft_model(llama().to(dtype), config(), autocast_adapter_dtype=autocast)
    model.add_adapter("second", config(seed=6), autocast_adapter_dtype=autocast)
    model.save_pretrained(tmp_path)
    loading = {"autocast_adapter_dtype": autocast, "low_cpu_mem_usage": low_cpu_mem_usage}
    again = PeftModel.from_pretrained(llama().to(dtype), tmp_path, **loading)
    again.load_adapter(tmp_path / "second", adapter_name="second", **loading)
    for one in (model, again):
        found = {p.dtype for name in ("default", "second") for p in coefficients(one, name).values()}
        assert found == {wanted}
    assert torch.equal(logits(model), logits(again))
    assert torch.isfinite(logits(model)).all()


@pytest.mark.parametrize("autocast", [True, False])
def test_a_half_precision_model_computes_and_merges_in_its_dtype(autocast):
    exact = logits(get_peft_model(llama(), config()))
    model = get_peft_model(llama().bfloat16(), config(), autocast_adapter_dtype=autocast)
    beside = logits(model)
    assert beside.dtype == torch.bfloat16
    model.merge_adapter(safe_merge=True)
    assert {p.dtype for n, p in model.named_parameters() if "base_layer" in n} == {torch.bfloat16}
    spread = exact.std()
    assert (beside - exact).abs().max() < 0.1 * spread
    assert (logits(model) - exact).abs().max() < 0.1 * spread


def test_a_random_start_follows_the_seed_that_is_set_and_moves_no_random_state():
    def start(seed, name):
        base = llama()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        model = get_peft_model(base, config(), adapter_name=name)
        assert torch.equal(torch.get_rng_state(), state)
        return torch.cat([p.detach() for p in coefficients(model, name).values()])

    assert torch.equal(start(1, "default"), start(1, "other"))
    assert not torch.equal(start(1, "default"), start(2, "default"))


# merging


@KEPT
def test_several_adapters_merge_to_the_sum_of_their_changes(kept):
    model = get_peft_model(llama(), config(**kept))
    model.add_adapter("second", config(seed=6, **kept))
    before = {name: layer.weight.clone() for name, layer in layers(model).items()}
    merged = copy.deepcopy(model)
    merged.merge_adapter(adapter_names=["second", "default"], safe_merge=True)
    for name, layer in layers(merged).items():
        deltas = [layer.get_delta_weight(adapter) for adapter in ("default", "second")]
        torch.testing.assert_close(layer.weight, before[name] + deltas[0] + deltas[1])
        assert layer.merged_adapters == ["second", "default"]
    model.base_model.set_adapter(["default", "second"])
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-5)
    for one in ("default", "second"):
        model.set_adapter(one)
        alone = copy.deepcopy(model).merge_and_unload(adapter_names=[one])
        torch.testing.assert_close(logits(alone), logits(model), rtol=1e-4, atol=1e-5)
    merged.unmerge_adapter()
    for name, layer in layers(merged).items():
        torch.testing.assert_close(layer.weight, before[name])


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_broken_adapter_is_refused_as_peft_refuses_it_and_spoils_nothing(poison):
    model = get_peft_model(llama(), config())
    before = {name: layer.weight.clone() for name, layer in layers(model).items()}
    for p in coefficients(model).values():
        p.data[0] = poison
    with pytest.raises(ValueError, match=r"NaNs detected in the merged weights\. The adapter default seems") as error:
        model.merge_and_unload(safe_merge=True)
    assert isinstance(error.value, EffbookError)
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers(model).items())


def test_a_sum_that_outruns_half_precision_is_refused():
    model = get_peft_model(llama().half(), config())
    for p in coefficients(model).values():
        p.data.fill_(1e4)
    assert all(torch.isfinite(layer.get_delta_weight("default")).all() for layer in layers(model).values())
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_adapter(safe_merge=True)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_merge_into_a_tied_head_leaves_the_embedding_alone(tmp_path):
    base = llama(tie_word_embeddings=True)
    assert base.lm_head.weight is base.model.embed_tokens.weight
    model = get_peft_model(base, config(target_modules=["q_proj", "lm_head"]))
    words, wanted = base.model.embed_tokens.weight.clone(), logits(model)
    with pytest.warns(UserWarning, match="lm_head was tied"):
        merged = model.merge_and_unload()
    assert torch.equal(merged.model.embed_tokens.weight, words)
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), wanted, rtol=1e-4, atol=1e-5)


def test_tied_embeddings_stay_tied_where_other_layers_are_adapted():
    base = llama(tie_word_embeddings=True)
    model = get_peft_model(base, config())
    wanted = logits(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = model.merge_and_unload()
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-5)


# state


@pytest.mark.parametrize("bias", ["all", "nola_only"])
def test_learnable_biases_train_and_are_saved(tmp_path, bias):
    def mlp():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))

    model = get_peft_model(mlp(), NOLAConfig(r=2, k=4, l=4, target_modules=["0"], bias=bias))
    x = torch.linspace(-1, 1, 12).reshape(2, 6)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    trained = {n.removeprefix("base_model.model.") for n, p in model.named_parameters() if p.requires_grad}
    biases = {"0.base_layer.bias", "2.bias"} if bias == "all" else {"0.base_layer.bias"}
    assert {n for n in trained if "bias" in n} == biases
    model.save_pretrained(tmp_path)
    assert sum("bias" in key for key in load_file(tmp_path / "adapter_model.safetensors")) == len(biases)
    assert torch.equal(PeftModel.from_pretrained(mlp(), tmp_path)(x), model(x))
    assert not torch.equal(model(x), mlp()(x))


def test_an_adapter_is_injected_without_a_peft_model_and_its_state_goes_to_and_fro():
    first = inject_adapter_in_model(config(shared_basis=True), llama())
    state = {key: value.clone() for key, value in get_peft_model_state_dict(first).items()}
    assert sorted(value.numel() for value in state.values()) == [12] * 4 + [16] * 4
    torch.manual_seed(1)
    second = inject_adapter_in_model(config(shared_basis=True), llama())
    assert not set_peft_model_state_dict(second, state).unexpected_keys
    assert torch.equal(logits(second), logits(first))


def test_an_adapter_becomes_a_lora_of_its_rank():
    gpt2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    for base, targets in ((llama, ["q_proj", "v_proj"]), (lambda: GPT2LMHeadModel(gpt2), ["c_attn", "c_fc"])):
        torch.manual_seed(0)
        model = get_peft_model(base(), config(target_modules=targets)).eval()
        lora, state = convert_to_lora(model, rank=4)
        torch.manual_seed(0)
        converted = get_peft_model(base(), lora).eval()
        set_peft_model_state_dict(converted, state)
        torch.testing.assert_close(logits(converted), logits(model), rtol=1e-4, atol=1e-5)


def test_batches_of_mixed_adapters_are_refused():
    model = get_peft_model(llama(), config())
    with pytest.raises(EffbookError, match="mixed"):
        model(input_ids=TOKENS, adapter_names=["default", "__base__"])


# training


def gradients(model):
    model.train()
    model.zero_grad()
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    return {name: p.grad.clone() for name, p in coefficients(model).items()}


@KEPT
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(kept, use_reentrant):
    model = get_peft_model(llama(), config(**kept))
    plain = gradients(model)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-4, atol=1e-6)
        assert grad.abs().max() > 0


@KEPT
def test_a_compiled_model_computes_and_trains_alike(kept):
    """Compiled before anything ran, so that the basis is first drawn there; twice, as coefficients change."""
    torch.compiler.reset()
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8))
    settings = NOLAConfig(r=4, k=16, l=12, target_modules=["0", "2"], init_weights=False, **kept)
    model = get_peft_model(base, settings)
    plain, compiled = copy.deepcopy(model), torch.compile(model, backend="aot_eager")
    x = torch.linspace(-1, 1, 48).reshape(3, 16)
    for _ in range(2):
        for one in (plain, compiled):
            one(x).square().sum().backward()
            with torch.no_grad():
                torch.testing.assert_close(one(x), plain(x))
        for p, wanted in zip(coefficients(model).values(), coefficients(plain).values(), strict=True):
            torch.testing.assert_close(p.grad, wanted.grad)
            for each in (p, wanted):
                each.data.mul_(0.5)


@pytest.mark.parametrize("shared", [False, True])
def test_a_trainer_resumes_from_its_checkpoint(tmp_path, shared):
    data = [{"input_ids": row, "labels": row} for row in torch.arange(64).reshape(8, 8)]

    def train(folder, steps, resume=None):
        model = get_peft_model(llama(), config(shared_basis=shared, init_weights=True))
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=0.05,
            lr_scheduler_type="constant", report_to=[], save_steps=3, disable_tqdm=True, use_cpu=True, seed=0,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == steps
        return {name: p.detach().clone() for name, p in coefficients(model).items()}

    straight = train("straight", 6)
    half = train("half", 3)
    resumed = train("half", 6, str(tmp_path / "half" / "checkpoint-3"))
    for name, p in resumed.items():
        torch.testing.assert_close(p, straight[name])
    assert not all(torch.allclose(p, half[name]) for name, p in resumed.items())


# the weighted sum of adapters


def several(count=2, change=(), **fields):
    """A float64 model with one or two adapters; `change` are functions of the adapters' factors at a layer."""
    model = get_peft_model(llama().double(), config(**fields), adapter_name="one")
    if count == 2:
        torch.manual_seed(1)
        model.add_adapter("two", config(**fields))
    with torch.no_grad():
        for layer in layers(model).values():
            for function in change:
                function(*layer.nola_factors.values())
    return model.eval()


def check_sum(model, adapters, weights):
    model.add_weighted_adapter(adapters, weights, "sum")
    for layer in layers(model).values():
        pairs = [(a, w) for a, w in zip(adapters, weights, strict=True) if a in layer.nola_factors]
        wanted = sum(w * layer.get_delta_weight(a) for a, w in pairs)
        torch.testing.assert_close(layer.get_delta_weight("sum"), wanted, rtol=1e-5, atol=1e-7)
        assert not any(p.requires_grad for p in layer.nola_factors["sum"].parameters())
    assert model.active_adapters == ["one"]
    model.set_adapter("sum")
    summed = logits(model)
    model.base_model.set_adapter(adapters)
    return summed


def same_alpha(one, other):
    other.alpha.copy_(one.alpha)


def parallel_alpha(one, other):
    other.alpha.copy_(-3 * one.alpha)


def parallel_beta(one, other):
    other.beta.copy_(2 * one.beta)


@KEPT
@pytest.mark.parametrize("init", ["language", "vision"])
@pytest.mark.parametrize("weight", [0.5, -2.0, 0.0])
def test_one_adapter_is_scaled(kept, init, weight):
    check_sum(several(1, init=init, **kept), ["one"], [weight])


@pytest.mark.parametrize(
    ("init", "change"),
    [("language", same_alpha), ("language", parallel_beta), ("vision", parallel_alpha), ("vision", parallel_beta)],
)
def test_adapters_that_agree_but_for_one_side_add_up(init, change):
    model = several(2, [change], init=init)
    summed = check_sum(model, ["one", "two"], [1.0, 1.0])
    torch.testing.assert_close(logits(model), summed)  # both active
    check_sum(several(2, [change], init=init), ["one", "two"], [0.3, -1.7])


def test_a_scaled_adapter_keeps_its_coefficients_but_for_beta():
    for init in ("language", "vision"):
        model = several(1, init=init)
        model.add_weighted_adapter(["one"], [3.0], "three")
        for layer in layers(model).values():
            old, new = layer.nola_factors["one"], layer.nola_factors["three"]
            torch.testing.assert_close(new.alpha, old.alpha, check_device=False)
            torch.testing.assert_close(new.beta, 3 * old.beta)


def test_adapters_of_different_layers_become_one(tmp_path):
    model = get_peft_model(llama(), config(target_modules=["q_proj"], layers_to_transform=[0]), adapter_name="one")
    model.add_adapter("two", config(target_modules=r".*\.1\..*\.v_proj"))
    summed = check_sum(model, ["one", "two"], [2.0, -1.0])
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    again = PeftModel.from_pretrained(llama(), tmp_path / "sum")
    torch.testing.assert_close(logits(again), summed, rtol=1e-4, atol=1e-5)


def test_quantised_coefficients_are_summed_as_they_are_rounded():
    check_sum(several(2, [same_alpha], bits=4), ["one", "two"], [0.5, 0.25])


def test_a_sum_without_a_nola_is_refused_before_anything_changes():
    model = several(2)
    names, configs = [name for name, _ in model.named_modules()], set(model.peft_config)
    with pytest.raises(EffbookError, match="rank above one"):
        model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "sum")
    cancelled = several(2, [parallel_beta])  # 2 * (A0 + A) B - 1 * (A0 + A') 2 B: no A0 is left
    with pytest.raises(EffbookError, match="no NOLA"):
        cancelled.add_weighted_adapter(["one", "two"], [2.0, -1.0], "sum")
    assert [name for name, _ in model.named_modules()] == names
    assert set(model.peft_config) == configs


def test_any_weighted_sum_comes_of_scaled_adapters_that_are_active_together():
    model = several(2)
    weights = {"one": 0.3, "two": -1.5}
    for name, weight in weights.items():
        model.add_weighted_adapter([name], [weight], f"scaled{name}")
    model.base_model.set_adapter(["scaledone", "scaledtwo"])
    plain = llama().double()
    for name, layer in layers(model).items():
        target = plain.get_submodule(name.removeprefix("base_model.model."))
        target.weight.data += sum(w * layer.get_delta_weight(a).detach() for a, w in weights.items())
    torch.testing.assert_close(logits(model), logits(plain))


@pytest.mark.parametrize(
    ("fields", "adapters", "weights", "name", "told"),
    [
        ({"seed": 6}, ["one", "two"], [1.0, 1.0], "sum", "differ in seed"),
        ({"r": 2}, ["one", "two"], [1.0, 1.0], "sum", "differ in rank"),
        ({}, ["one", "three"], [1.0, 1.0], "sum", "no adapter three"),
        ({}, ["one"], [1.0], "two", "adapter two already"),
        ({}, ["one", "two"], [1.0], "sum", "finite weight"),
        ({}, ["one"], [float("nan")], "sum", "finite weight"),
        ({"modules_to_save": ["lm_head"]}, ["one", "two"], [1.0, 1.0], "sum", "Adapter two trains other"),
    ],
)
def test_impossible_sums_are_refused(fields, adapters, weights, name, told):
    model = get_peft_model(llama(), config(), adapter_name="one")
    model.add_adapter("two", config(**fields))
    with pytest.raises(EffbookError, match=told):
        model.add_weighted_adapter(adapters, weights, name)
