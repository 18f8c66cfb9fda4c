"""peft's own common tests with NOLA in the place of its methods, run from peft's source where `$PEFT_SOURCE` names it.

    pip download --no-binary :all: --no-deps peft && tar xf peft-*.tar.gz
    PEFT_SOURCE=peft-0.21.2 pytest tests/nola/test_peft_common.py

The source is that of the installed version. Of its tests run those that go through every method: on custom models, with
several adapters, under FSDP, and on decoders: tiny random ones, made on the spot under the names that the
tests know. The two libraries that its tests import for other matters need not be there.
"""

import importlib.util
import os
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from effbook.nola.peft import NOLAConfig

SOURCE = Path(os.environ.get("PEFT_SOURCE", "")).resolve() / "tests"
if not (SOURCE / "testing_common.py").is_file():
    pytest.skip("$PEFT_SOURCE names no source of peft", allow_module_level=True)
if f"\nVersion: {peft.__version__}\n" not in (SOURCE.parent / "PKG-INFO").read_text():
    pytest.skip(f"$PEFT_SOURCE isn't peft {peft.__version__}", allow_module_level=True)

SMALL = {"r": 4, "k": 32, "l": 24}
LINEAR = {"MLP lin0, by name": "lin0", "MLP lin0": ["lin0"], "MLP lin1": ["lin1"], "MLP both": ["lin0", "lin1"]}
CUSTOM = [(name, "MLP", NOLAConfig, {**SMALL, "target_modules": target}) for name, target in LINEAR.items()]
CUSTOM += [
    ("MLP lin1 saved", "MLP", NOLAConfig, {**SMALL, "target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    ("Conv1D", "EmbConv1D", NOLAConfig, {**SMALL, "target_modules": ["conv1d"]}),
    ("MLP shared", "MLP", NOLAConfig, {**SMALL, "target_modules": ["lin0", "lin1"], "shared_basis": True}),
    ("MLP regenerated", "MLP", NOLAConfig, {**SMALL, "target_modules": ["lin0", "lin1"], "regenerate": True}),
]
LIN0, LIN1 = ({**SMALL, "target_modules": [name], "init_weights": False} for name in ("lin0", "lin1"))
SEVERAL = [
    ("NOLA same", "nola", NOLAConfig, LIN0, {**LIN0, "seed": 1}),
    ("NOLA different", "nola", NOLAConfig, LIN0, LIN1),
    ("NOLA shared", "nola", NOLAConfig, LIN0 | {"shared_basis": True}, LIN0 | {"shared_basis": True, "seed": 1}),
]
DECODER = {**SMALL, "task_type": "CAUSAL_LM", "target_modules": None}
DECODERS = [(NOLAConfig, DECODER), (NOLAConfig, {**DECODER, "shared_basis": True})]

WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
WIDTH |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
MODELS = {
    "opt": WIDTH | {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "gpt2": WIDTH | {"n_positions": 64},
    "gptj": WIDTH | {"rotary_dim": 4, "n_positions": 64},
    "llama": WIDTH | GROUPED,
    "mistral": WIDTH | GROUPED,
    "qwen2": WIDTH | GROUPED,
    "gemma3_text": WIDTH | GROUPED | {"layer_types": ["sliding_attention", "full_attention"]},
}


def source_module(name: str):
    """One of peft's test modules, as a package of its own beside our tests."""
    if "peft_tests" not in sys.modules:
        package = sys.modules["peft_tests"] = types.ModuleType("peft_tests")
        package.__path__ = [str(SOURCE)]
        stand_ins = {"diffusers": "StableDiffusionPipeline", "datasets": "load_dataset"}
        stand_ins = {name: what for name, what in stand_ins.items() if importlib.util.find_spec(name) is None}
        for absent, attribute in stand_ins.items():
            sys.modules[absent] = types.ModuleType(absent)
            setattr(sys.modules[absent], attribute, type(attribute, (), {}))
        importlib.import_module("peft_tests.testing_common")
        for absent in stand_ins:
            del sys.modules[absent]  # nobody else is to take it for the library
    return importlib.import_module(f"peft_tests.{name}")


def take(name: str, matrices: dict[str, list]) -> None:
    """Put NOLA's rows into the module's matrices, in place, and keep of its tests those that go through one of them."""
    module = source_module(name)
    for matrix, rows in matrices.items():
        getattr(module, matrix)[:] = rows
    ours = [id(getattr(module, matrix)) for matrix in matrices]
    module.hub_online_once = lambda model_id: nullcontext()
    for owner in [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]:
        tests = {key: test for key, test in vars(owner).items() if key.startswith("test_")}
        kept = 0
        for key, test in tests.items():
            if any(id(values) in ours for mark in getattr(test, "pytestmark", ()) for values in mark.args):
                kept += 1
            else:
                delattr(owner, key)
        if kept:
            globals()[owner.__name__] = owner


common = source_module("testing_common")
common.hub_online_once = lambda model_id: nullcontext()
common._skip_if_conv1d_not_supported = lambda *_: None  # a list of methods that do, which can't know NOLA
source_module("test_decoder_models").check_beft_config = lambda *_: None  # meant for BEFT, it skips for every method
custom = source_module("test_custom_models")
NAMELESS = custom.TestPeftCustomModel.test_adapter_name_makes_no_difference.pytestmark[0].args[1]
custom.NAMELESS = NAMELESS
take(
    "test_custom_models",
    {
        "TEST_CASES": CUSTOM,
        "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES": SEVERAL,
        "ALL_PEFT_CONFIG_CLASSES": [NOLAConfig],
        "NAMELESS": [NOLAConfig(**LIN0)],
    },
)
take("test_decoder_models", {"ALL_CONFIGS": DECODERS})


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with tiny random models, each under the name by which peft's tests ask for it."""
    folder = tmp_path_factory.mktemp("models")
    for name in source_module("test_decoder_models").PEFT_DECODER_MODELS_TO_TEST:
        kind = next(kind for kind in MODELS if kind.partition("_")[0] in name.lower())
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **MODELS[kind])
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _offline(models, monkeypatch):
    monkeypatch.chdir(models)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
