"""The paper's networks: their shapes alone on the meta device, and the same with their pretrained weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effbook.backbones.language import load_causal_lm, smollm2
from effbook.backbones.vision import ResNet20, vit_s14
from effbook.errors import EffbookError

# GPT-2's published sizes (Radford et al. 2019; vocabulary 50,257, context 1024).
_GPT2 = {
    "gpt2-m": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-l": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
}

# LLaMA-2's published sizes (Touvron et al. 2023; vocabulary 32,000, context 4096). Only 70B shares keys and values.
_LLAMA2 = {
    "llama2-7b": (4096, 11008, 32, 32, 32),  # width, MLP width, layers, heads, key-value heads
    "llama2-13b": (5120, 13824, 40, 40, 40),
    "llama2-70b": (8192, 28672, 80, 64, 8),
}
_SMOLLM2 = (576, 1536, 30, 9, 3)


def _gpt2(name: str) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**_GPT2[name]))


def _llama(sizes: tuple[int, int, int, int, int], vocabulary: int, tied: bool) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    width, mlp_width, layers, heads, kv_heads = sizes
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=mlp_width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=tied,
        )
    )


def _timm(architecture: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(architecture, pretrained=False, num_classes=0, **options)


def _resnet18() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(weights=None, num_classes=100)


# The shapes need no weights, nor the time to draw them: an MAE-pretrained ViT-B is a ViT-B. Heads are left off, the
# text never counts them.
META: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: _gpt2(name) for name in _GPT2},
    **{name: lambda sizes=sizes: _llama(sizes, 32_000, tied=False) for name, sizes in _LLAMA2.items()},
    "smollm2": lambda: _llama(_SMOLLM2, 49_152, tied=True),
    "vit-b": lambda: _timm("vit_base_patch16_224", weight_init="skip"),
    "vit-l": lambda: _timm("vit_large_patch16_224", weight_init="skip"),
    "vit-b-mae": lambda: _timm("vit_base_patch16_224", weight_init="skip"),
    "vit-l-mae": lambda: _timm("vit_large_patch16_224", weight_init="skip"),
    "vit-s14": lambda: _timm("vit_small_patch14_dinov2", img_size=518, weight_init="skip"),
    "resnet18-imagenet100": _resnet18,
    "resnet20-cifar10": ResNet20,
}


def meta(name: str) -> nn.Module:
    """The real architecture without weights, on the meta device: all shapes, no memory, no download.

    Names: see `META`. Fused projections stay as the libraries have them (see `effbook.nola.split_fused`).
    Raises `EffbookError` for an unknown name.
    """
    if name not in META:
        raise EffbookError(f"No architecture is called {name!r}", f"choose one of {', '.join(sorted(META))}")
    with torch.device("meta"):
        return META[name]().eval()


# Name here: name of the manifest. timm's ViTs and transformers' language models, each as its library saves it.
_LANGUAGE = {"gpt2-m": "gpt2-medium", "gpt2-l": "gpt2-large"} | {name: name for name in _LLAMA2}
_VISION = {"vit-b": "vit_base", "vit-b-mae": "vit_base", "vit-l": "vit_large", "vit-l-mae": "vit_large"}


def pretrained(name: str, *, device: str | torch.device = "cpu", **options: Any) -> Any:
    """A pretrained network of the paper, or one of the packaged ones: what the recipes ask for by name.

    Vision models give features [B, D] (``image_px`` resizes the position embedding); language models come as
    (model, tokenizer) (``dtype``, ``int8``). Reads the folder that ``effbook data fetch`` made. Raises `EffbookError`
    where the weights cannot be had, or the folder does not hold what it should.
    """
    if name == "vit-s14":
        return vit_s14(device=device, **options)
    if name == "smollm2":
        return smollm2(device=device, **options)
    if name not in _LANGUAGE and name not in _VISION:
        known = ", ".join(sorted((*_LANGUAGE, *_VISION, "vit-s14", "smollm2")))
        raise EffbookError(f"No pretrained network is called {name!r}", f"choose one of {known}")
    from effbook import data

    if name in _LANGUAGE:
        return load_causal_lm(data.fetch(_LANGUAGE[name]), device=device, **options)
    return vit_from_folder(data.fetch(name), architecture=f"{_VISION[name]}_patch16_224", device=device, **options)


def vit_from_folder(
    folder: Path, *, architecture: str, image_px: int = 224, device: str | torch.device = "cpu"
) -> nn.Module:
    """A timm ViT as timm publishes it (config.json beside model.safetensors), its classifier left off.

    Raises `EffbookError` where the folder holds another architecture or no readable weights.
    """
    import timm

    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, img_size=image_px)
    except (OSError, RuntimeError, ValueError) as error:
        raise EffbookError(f"{folder} holds no timm weights that load ({error})", "fetch the weights again") from error
    if model.pretrained_cfg["architecture"] != architecture:
        raise EffbookError(
            f"{folder} holds {model.pretrained_cfg['architecture']} where {architecture} belongs",
            "put the right weights there",
        )
    return model.to(device).eval()
