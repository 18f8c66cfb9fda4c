import pytest
import torch

from effbook import backbones, data
from effbook.backbones.architectures import META
from effbook.errors import EffbookError

PUBLISHED = {
    "gpt2-m": 354_823_168,
    "gpt2-l": 774_030_080,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "smollm2": 134_515_008,
    "vit-b": 85_798_656,
    "vit-l": 303_301_632,
    "vit-b-mae": 85_798_656,
    "vit-l-mae": 303_301_632,
    "vit-s14": 22_056_192,
    "resnet18-imagenet100": 11_689_512 - 900 * 513,  # torchvision's, with 100 classes for 1000
    "resnet20-cifar10": 269_722,
}


@pytest.mark.parametrize("name", META)
def test_a_meta_network_has_the_published_number_of_parameters_and_no_memory(name):
    model = backbones.meta(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_llama2_70b_shares_keys_and_values_among_eight_heads():
    attention = backbones.meta("llama2-70b").model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (8192, 8192)
    assert attention.k_proj.weight.shape == attention.v_proj.weight.shape == (1024, 8192)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(EffbookError, match=r"choose one of .*vit-b"):
        backbones.meta("vit-huge")
    with pytest.raises(EffbookError, match=r"choose one of .*llama2-7b"):
        backbones.pretrained("vit-huge")


# ------------------------------------------------------- pretrained: the real loaders on small fakes in their format


@pytest.fixture
def fake_weights(tmp_path, monkeypatch):
    """A folder that stands for whatever manifest is fetched; the fake's own name is checked."""
    fetched = []

    def fetch(name):
        fetched.append(name)
        return tmp_path

    monkeypatch.setattr(data, "fetch", fetch)
    return tmp_path, fetched


def save_timm(folder, image_px=32):
    from timm.models import create_model
    from timm.models._hub import save_for_hf

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(
            "vit_base_patch16_224", img_size=image_px, depth=1, embed_dim=24, num_heads=2, num_classes=7
        )
    model.pretrained_cfg |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    arguments = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
    return model.eval()


def test_a_vit_loads_from_timms_own_format_without_its_classifier(fake_weights):
    folder, fetched = fake_weights
    saved = save_timm(folder)
    loaded = backbones.pretrained("vit-b", image_px=32)
    assert fetched == ["vit-b"]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = saved.forward_head(saved.forward_features(x), pre_logits=True)
        torch.testing.assert_close(loaded(x), expected)
    assert not loaded.training
    assert backbones.normalisation(loaded) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert backbones.normalisation(backbones.toy_vit()) == (backbones.IMAGE_MEAN, backbones.IMAGE_STD)


def test_a_vit_takes_other_image_sizes(fake_weights):
    save_timm(fake_weights[0])
    assert backbones.pretrained("vit-b", image_px=64)(torch.zeros(1, 3, 64, 64)).shape == (1, 24)


def test_another_architecture_or_an_empty_folder_is_refused(fake_weights):
    with pytest.raises(EffbookError, match="no timm weights"):
        backbones.pretrained("vit-b")
    with pytest.raises(EffbookError, match="no language model"):
        backbones.pretrained("gpt2-m")
    save_timm(fake_weights[0])
    with pytest.raises(EffbookError, match="vit_large_patch16_224 belongs"):
        backbones.pretrained("vit-l", image_px=32)


@pytest.mark.parametrize(("name", "manifest"), [("gpt2-m", "gpt2-medium"), ("llama2-7b", "llama2-7b")])
def test_a_language_model_loads_from_transformers_own_format(fake_weights, name, manifest):
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, fetched = fake_weights
    model, tokenizer = backbones.toy_lm()
    if name == "gpt2-m":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=len(tokenizer))).eval()
        tokenizer.pad_token = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded, its_tokenizer = backbones.pretrained(name)
    assert fetched == [manifest]
    assert its_tokenizer.pad_token is not None
    ids = its_tokenizer("The Mill is a pub.", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def test_every_pretrained_name_has_a_manifest():
    from effbook.backbones.architectures import _LANGUAGE, _VISION

    assert {*_LANGUAGE.values(), *_VISION, "vit-s14", "smollm2-135m"} <= set(data.manifests())
