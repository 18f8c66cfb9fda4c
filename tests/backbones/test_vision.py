import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effbook import backbones, data
from effbook.backbones.vision import resize_grid
from effbook.errors import EffbookError
from effbook.evaluate.vision import features, nearest_neighbour


def weights_of_vit_s14():
    if not data.is_cached("vit-s14"):
        pytest.skip("vit-s14 is not in the cache")
    return data.fetch("vit-s14") / "vit_s_focus.onnx"


@pytest.mark.data
def test_vit_s14_computes_what_the_publishers_graph_computes():
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(weights_of_vit_s14())
    graph = model.graph
    last = next(node for node in graph.node if "backbone.layernorm.bias" in node.input).output[0]
    wanted, kept = {last}, []
    for node in reversed(graph.node):  # leave the saliency head out
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    theirs = ReferenceEvaluator(model).run(None, {"input_image": x.numpy()})[0]  # [1, 257, 384]
    with torch.no_grad():
        ours = backbones.vit_s14(image_px=224).forward_features(x).numpy()
    assert ours.shape == (1, 257, 384)
    np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.data
def test_vit_s14_has_the_stated_size_and_takes_smaller_images():
    weights_of_vit_s14()
    before = torch.random.get_rng_state()
    native = backbones.vit_s14(image_px=518)
    assert sum(p.numel() for p in native.parameters()) == 22_056_192
    small = backbones.vit_s14(image_px=56)
    assert small.pos_embed.shape == (1, 1 + 4 * 4, 384)
    assert torch.equal(small.pos_embed[:, 0], native.pos_embed[:, 0])
    with torch.no_grad():
        assert small(torch.zeros(2, 3, 56, 56)).shape == (2, 384)
    assert not small.training
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.data
@pytest.mark.slow
def test_vit_s14_features_tell_photographs_apart():
    weights_of_vit_s14()
    if not data.is_cached("cifar10"):
        pytest.skip("cifar10 is not in the cache")
    found = data.load_images("cifar10", "test", indices=range(450))
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbones.IMAGE_MEAN, backbones.IMAGE_STD))

    def enlarge(x):
        x = F.interpolate(x.permute(0, 3, 1, 2) / 255, size=(84, 84), mode="bicubic", antialias=True)
        return (x.clamp(0, 1) - mean) / std

    images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
    f = features(backbones.vit_s14(image_px=84), images, 50, transform=enlarge)
    score = nearest_neighbour(f[:300], labels[:300], f[300:], labels[300:])
    assert score > 25  # chance is 10; 150 pictures leave a standard error of 4


@pytest.mark.parametrize("image_px", [100, 0, -14, 13])
def test_images_that_no_patches_tile_are_refused_before_anything_is_fetched(image_px):
    with pytest.raises(EffbookError, match="multiple of 14"):
        backbones.vit_s14(image_px=image_px)


def test_a_resized_grid_keeps_constants_and_its_own_size():
    grid = torch.randn(1, 25, 3, generator=torch.Generator().manual_seed(0))
    assert resize_grid(grid, 5) is grid
    torch.testing.assert_close(resize_grid(torch.full((1, 25, 3), 2.0), 3), torch.full((1, 9, 3), 2.0))
    ramp = torch.arange(5.0).repeat_interleave(5).reshape(1, 25, 1)  # grows downwards
    rows = resize_grid(ramp, 3).reshape(3, 3)
    assert torch.all(rows[1:] > rows[:-1])
    torch.testing.assert_close(rows[:, 0], rows[:, 2])


def slow_option_a(x, channels, stride):
    """He et al. 2016, 4.2: identity where sizes agree, else every other pixel and zeros for the new channels."""
    batch, before, height, width = x.shape
    out = torch.zeros(batch, channels, -(-height // stride), -(-width // stride), dtype=x.dtype)
    front = (channels - before) // 2
    for c in range(before):
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                out[:, front + c, i, j] = x[:, c, i * stride, j * stride]
    return out


def test_resnet20_has_269722_parameters_and_option_a_shortcuts():
    model = backbones.resnet20()
    assert sum(p.numel() for p in model.parameters()) == 269_722
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    block = model.blocks[3].eval()  # 16 to 32 channels
    torch.nn.init.zeros_(block.bn2.weight)  # the residual branch is silent, the shortcut remains
    x = torch.rand(2, 16, 6, 6)
    torch.testing.assert_close(block(x), slow_option_a(x, 32, 2))


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_state_alone():
    before = torch.random.get_rng_state()
    for make in (backbones.resnet20, backbones.resnet18, backbones.toy_vit):
        one, again, other = make(seed=1).state_dict(), make(seed=1).state_dict(), make(seed=2).state_dict()
        assert all(torch.equal(one[name], again[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_toy_vit_has_the_module_names_of_the_real_one():
    def kinds(model):
        return {name.replace("blocks.1.", "blocks.0.") for name, _ in model.named_modules() if "blocks.0" in name}

    assert kinds(backbones.toy_vit()) == kinds(backbones.meta("vit-s14"))
    assert backbones.toy_vit()(torch.zeros(2, 3, 28, 28)).shape == (2, 32)
    with pytest.raises(EffbookError, match="do not tile"):
        backbones.toy_vit(image_px=30)
