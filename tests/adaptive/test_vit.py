"""A ViT's parts put together again are the ViT, and what they do not cover is refused."""

import pytest
import timm
import torch

from effbook.adaptive import vit as parts
from effbook.adaptive.packing import masked_attention
from effbook.adaptive.victim import check_run
from effbook.errors import EffbookError


def toy(*, seed=0, **settings):
    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.models.VisionTransformer(**(sizes | settings))
        for parameter in network.parameters():  # else biases are 0, and random blocks hardly change their input
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"init_values": 0.5, "reg_tokens": 2},
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False},
        {"global_pool": "avg", "pool_include_prefix": True},
        {"global_pool": "avgmax"},
        {"global_pool": "max", "no_embed_class": True},
        {"qk_norm": True, "pre_norm": True, "qkv_bias": False},
    ],
    ids=str,
)
def test_the_parts_together_are_the_vit_to_the_bit(settings):
    network = toy(**settings)
    parts.check_vit(network)
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    tokens = parts.embed(network, images)
    for block in network.blocks:
        attended = masked_attention(*parts.queries_keys_values(block, tokens))
        tokens = parts.after_attention(block, tokens, attended)
    everyone = torch.ones(tokens.shape[:2], dtype=torch.bool)
    assert torch.equal(parts.class_logits(network, network.norm(tokens), everyone), network(images))


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
def test_pooling_leaves_out_what_is_not_alive(pool):
    network = toy(global_pool=pool)
    tokens = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(2))
    alive = torch.ones(2, 10, dtype=torch.bool)
    alive[:, 4:7] = False
    without = torch.cat([tokens[:, :4], tokens[:, 7:]], 1)
    torch.testing.assert_close(parts.class_logits(network, tokens, alive), network.forward_head(without))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"drop_path_rate": 0.1}, "stochastic depth"),
        ({"proj_drop_rate": 0.1}, "dropout"),
        ({"patch_drop_rate": 0.5}, "dropout"),
        ({"global_pool": "map"}, "pooling by attention"),
        ({"global_pool": "", "class_token": False}, "none"),
        ({"num_classes": 0}, "no classifier"),
        ({"scale_mlp_norm": True}, "MLPs"),
        ({"scale_attn_norm": True}, "attention outputs"),
        ({"dynamic_img_size": True}, "embedding of another kind"),
        ({"block_fn": timm.models.vision_transformer.ParallelScalingBlock}, "blocks of another kind"),
        ({"norm_layer": timm.layers.RmsNorm}, "no LayerNorm"),
        ({"mlp_layer": timm.layers.SwiGLU}, "MLP of another kind"),
    ],
    ids=str,
)
def test_a_vit_of_another_kind_is_refused_in_one_sentence(settings, told):
    with pytest.raises(EffbookError, match=told):
        parts.check_vit(toy(**settings))


def test_another_network_is_refused():
    with pytest.raises(EffbookError, match="Linear is no plain timm"):
        parts.check_vit(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("images", "execution", "told"),
    [
        (torch.rand(1, 3, 12, 12), "fast", "execution"),
        (torch.zeros(1, 3, 12, 12, dtype=torch.uint8), "masked", "floating point"),
        (torch.rand(3, 12, 12), "masked", "shape"),
        (torch.rand(0, 3, 12, 12), "masked", "shape"),
        (torch.rand(1, 3, 12, 8), "masked", "resize"),
        (torch.rand(1, 1, 12, 12), "masked", "resize"),
        (2 * torch.ones(1, 3, 12, 12), "masked", "in 0..1"),
        (torch.full((1, 3, 12, 12), float("nan")), "masked", "in 0..1"),
        (-torch.ones(1, 3, 12, 12), "dropped", "in 0..1"),
    ],
)
def test_images_that_the_victim_cannot_take_are_refused(images, execution, told):
    with pytest.raises(EffbookError, match=told):
        check_run(images, execution, image_px=(12, 12))


@pytest.mark.parametrize("values", [(1.0,), (1.0, 2.0, float("nan")), (1.0, 0.0, 1.0)])
def test_deviations_are_three_numbers_above_0(values):
    with pytest.raises(EffbookError, match="std"):
        parts.channels(values, "std")
