import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from effbook import backbones, data
from effbook.backbones import language
from effbook.errors import EffbookError

TEXT = "The Mill is a pub near the river, naïve café, £20."


@pytest.fixture
def toy_folder(tmp_path):
    model, tokenizer = backbones.toy_lm()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_the_toy_tokenizer_gives_every_text_back_and_keeps_the_turn_markers_whole():
    model, tokenizer = backbones.toy_lm()
    ids = tokenizer(TEXT).input_ids
    assert len(ids) == len(TEXT.encode())
    assert tokenizer.decode(ids) == TEXT
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert turn == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer(turn).input_ids.count(tokenizer.eos_token_id) == 1
    assert model(torch.tensor([ids])).logits.shape == (1, len(ids), len(tokenizer))


def test_the_toy_language_model_has_the_module_names_of_the_real_one():
    def of_a_layer(model):
        return {name for name, _ in model.model.layers[0].named_modules()}

    assert of_a_layer(backbones.toy_lm()[0]) == of_a_layer(backbones.meta("smollm2"))


def test_an_eight_bit_base_multiplies_by_its_rounded_weights_and_passes_gradients(toy_folder):
    pytest.importorskip("bitsandbytes")
    plain, _ = language.load_causal_lm(toy_folder)
    coded, _ = language.load_causal_lm(toy_folder, int8=True)
    layer, weight = coded.model.layers[0].mlp.gate_proj, plain.model.layers[0].mlp.gate_proj.weight
    assert layer.weight.dtype == torch.int8
    assert coded.lm_head.weight.dtype == torch.float32

    largest = weight.abs().amax(dim=1, keepdim=True)  # LLM.int8: one scale a row
    rounded = (weight / largest * 127).round() / 127 * largest
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    coded.train()
    y = layer(x)
    torch.testing.assert_close(y, x @ rounded.T, rtol=0, atol=2e-3)
    assert not torch.allclose(y, x @ weight.T, rtol=0, atol=1e-6)
    y.sum().backward()
    torch.testing.assert_close(x.grad, rounded.sum(dim=0).expand_as(x), rtol=0, atol=2e-3)


def test_lora_learns_over_an_eight_bit_base_that_stays_as_it_is(toy_folder):
    pytest.importorskip("bitsandbytes")
    from peft import LoraConfig, get_peft_model

    model, _ = language.load_causal_lm(toy_folder, int8=True)
    ids = torch.arange(3, 35).reshape(2, 16)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).train()
    codes = {name: p.detach().clone() for name, p in model.named_parameters() if p.dtype == torch.int8}
    assert len(codes) == 2 * 7
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(8):
        loss = model(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert all(torch.equal(codes[name], p) for name, p in model.named_parameters() if name in codes)


def test_an_eight_bit_base_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EffbookError, match="pip install bitsandbytes"):
        language.eight_bit()


# ------------------------------------------------------------------------------------------- conversion of GGUF


def test_a_conversion_is_written_once_and_a_new_version_gets_its_own(tmp_path, monkeypatch):
    calls = []

    def read(gguf):
        calls.append(gguf)
        return backbones.toy_lm()

    monkeypatch.setattr(language, "read_gguf", read)
    gguf = tmp_path / "model.gguf"
    first = language.converted(gguf, version="a" * 64)
    assert language.converted(gguf, version="a" * 64) == first
    assert len(calls) == 1
    assert language.converted(gguf, version="b" * 64) != first
    assert len(calls) == 2
    model, _ = language.load_causal_lm(first)
    assert torch.equal(model.lm_head.weight, backbones.toy_lm()[0].lm_head.weight)


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def read(gguf):
        raise KeyboardInterrupt

    monkeypatch.setattr(language, "read_gguf", read)
    with pytest.raises(KeyboardInterrupt):
        language.converted(tmp_path / "model.gguf", version="a" * 64)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_of_two_that_convert_at_once_one_does_and_the_other_waits(tmp_path, monkeypatch):
    gguf, calls, begun, go_on = tmp_path / "model.gguf", [], threading.Event(), threading.Event()

    def read(_):
        calls.append(1)
        begun.set()
        go_on.wait()
        return backbones.toy_lm()

    monkeypatch.setattr(language, "read_gguf", read)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(language.converted, gguf, version="a" * 64)
        begun.wait()
        second = pool.submit(language.converted, gguf, version="a" * 64)
        assert not second.done()
        go_on.set()
        assert first.result() == second.result() == tmp_path / f"float32-{'a' * 12}"
    assert len(calls) == 1


# ---------------------------------------------------------------------------------------------- the packaged model


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_smollm2_has_the_stated_size_and_answers(int8):
    if not data.is_cached("smollm2-135m"):
        pytest.skip("smollm2-135m is not in the cache")
    model, tokenizer = backbones.smollm2(int8=int8)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=10, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0][prompt["input_ids"].shape[1] :])
    assert data.verify("smollm2-135m") == []  # the conversion beside it is no damage
