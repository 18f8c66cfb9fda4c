"""DeiT's files, by themselves or within a training run's, against the networks that they came from."""

import pytest
import timm
import torch

from effbook.backbones.deit import deit, deit_from_file
from effbook.errors import EffbookError

TINY = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(TINY, num_classes=1000).eval()


@pytest.mark.parametrize("inside", [None, "model", "state_dict"])
def test_weights_are_read_whatever_holds_them(network, tmp_path, inside):
    state = {f"module.{name}" if inside == "state_dict" else name: v for name, v in network.state_dict().items()}
    torch.save(state if inside is None else {inside: state, "epoch": 3}, tmp_path / "w.pth")
    found = deit_from_file(tmp_path / "w.pth", architecture=TINY)
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found(images), network(images))


def test_positions_are_resized_to_the_image(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert deit_from_file(tmp_path / "w.pth", architecture=TINY, image_px=96).pos_embed.shape[1] == 6 * 6 + 1


def test_other_files_and_names_are_refused_in_a_sentence(network, tmp_path):
    state = dict(network.state_dict())
    state["blocks.0.gate"] = torch.zeros(1)
    torch.save(state, tmp_path / "more.pth")
    torch.save({"model": 3}, tmp_path / "none.pth")
    with pytest.raises(EffbookError, match=r"is no deit_tiny_patch16_224 \(Unexpected key"):
        deit_from_file(tmp_path / "more.pth", architecture=TINY)
    with pytest.raises(EffbookError, match="holds no tensors by name"):
        deit_from_file(tmp_path / "none.pth", architecture=TINY)
    with pytest.raises(EffbookError, match="there are no DeiT weights named 'deit-xl'"):
        deit("deit-xl")
