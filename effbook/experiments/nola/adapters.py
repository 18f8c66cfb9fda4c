"""The methods of the language tables put into a causal language model, quantised and shipped: full, LoRA, NOLA."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from effbook.errors import EffbookError
from effbook.experiments.nola.targets import layers_of, split

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def language_model(name: str, *, device: str, **options: Any) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
    """Return a pre-trained causal language model and its tokenizer; `options` as `backbones.pretrained` takes them."""
    from effbook import backbones

    if name == "toy":
        model, tokenizer = backbones.toy_lm()
        return model.to(device), tokenizer
    return backbones.pretrained(name, device=device, **options)


def add_adapters(
    model: "nn.Module",
    *,
    method: str,
    target: str,
    rank: int,
    k: int,
    scale_c: float,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    shared_basis: bool = False,
    qat_bits: int | None = None,
    seed: int,
) -> "nn.Module":
    """Return the model with just the method's parameters trainable; they are float32 whatever the base is.

    NOLA: k = l, scale c / rank, the start of the released code for language. LoRA: scale alpha / rank.
    """
    if method == "full":
        return model.requires_grad_(True)
    model.requires_grad_(False)
    if method == "none":
        return model
    family = model.config.model_type  # gpt2 or llama
    layers = layers_of(family, target)
    if target == "qv":  # GPT-2's Q, K and V are one layer: K must stay as it is
        model = split(model, family)
    if method == "nola":
        from effbook.nola import NOLASettings, adapt

        settings = NOLASettings(
            k=k,
            l=k,
            rank=rank,
            scale_c=scale_c,
            seed=seed,
            init="language",
            shared_basis=shared_basis,
            bits=qat_bits,
        )
        return adapt(model, settings, targets=layers)
    import torch
    from peft import LoraConfig, get_peft_model

    from effbook.nola.quantise import train_lora_quantised

    config = LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=layers,
        fan_in_fan_out=family == "gpt2" and target == "mlp",  # those are still GPT-2's Conv1D
    )
    with torch.random.fork_rng():  # peft draws A from the global generator
        torch.manual_seed(seed)
        model = get_peft_model(model, config)
    return train_lora_quantised(model, qat_bits) if qat_bits else model


def save_adapters(model: "nn.Module", folder: Path, *, method: str, bits: int | None = None) -> tuple[Path | None, int]:
    """Write what one would ship; return the file (None where nothing is written) and its size in bytes.

    NOLA: its own checkpoint, at `bits` if given. LoRA: peft's file, or for quantised A and B, for which peft has no
    format, only the size of the packed codes. Nothing is written for a fully tuned model, whose size is counted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if method == "nola":
        from effbook.nola import save

        file = folder / "nola.safetensors"
        return file, save(model, file, bits=bits)
    if method == "lora" and bits:
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        tensors = sum(p.requires_grad for p in model.parameters())
        return None, -(-count * bits // 8) + (0 if bits == 16 else 2 * tensors)  # a float16 scale for each matrix
    if method == "lora":
        model.save_pretrained(folder, save_embedding_layers=False)  # True or auto may ask the hub
        file = folder / "adapter_model.safetensors"
        return file, file.stat().st_size
    return None, sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def load_adapters(model: "nn.Module", file: Path, *, method: str) -> None:
    """Give an adapted model the coefficients of a file that `save_adapters` wrote."""
    if method == "nola":
        from effbook.nola import load

        load(model, file)
        return
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    outcome = set_peft_model_state_dict(model, load_file(file))
    if outcome.unexpected_keys:
        raise EffbookError(f"{file} belongs to another model", "run its recipe again with --fresh")


def quantise_adapters(model: "nn.Module", folder: Path, *, method: str, bits: int) -> None:
    """Round the trained coefficients to `bits` in place (post-training quantisation)."""
    if method == "nola":
        file, _ = save_adapters(model, folder, method=method, bits=bits)
        load_adapters(model, file, method=method)  # what is judged is what the file holds
    else:
        from effbook.nola.quantise import quantise_lora

        quantise_lora(model, bits)
