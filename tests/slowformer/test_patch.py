"""A patch's place, and its files: whole, of known size and colours, the same when read again."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from slowformer.fakes import drawn

from effbook.errors import EffbookError
from effbook.slowformer import AttackConfig, Patch, load_patch, paste, save_patch

CONFIG = AttackConfig(patch_px=5, top_px=2, left_px=1, seed=7)
LEVELS = (255 * drawn(3, 5, 5)).byte()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "of" / "avit.png"
    save_patch(Patch(LEVELS, (12, 10), 2, 1), path, victim="A-ViT", config=CONFIG, loss="AViTLoss(sign='code')")
    return path


def test_pasting_replaces_the_pixels_of_one_place_and_sums_the_gradient_over_images():
    images, values = drawn(4, 3, 12, 10), 255 * drawn(3, 5, 5, seed=1)
    values.requires_grad_()
    pasted = paste(images, values, top_px=7, left_px=5)
    expected = images.clone()
    for image in expected:
        for y in range(5):
            for x in range(5):
                image[:, 7 + y, 5 + x] = values[:, y, x].detach() / 255
    assert torch.equal(pasted, expected)
    pasted.sum().backward()
    torch.testing.assert_close(values.grad, torch.full_like(values, 4 / 255))


@pytest.mark.parametrize("place", [(0, 0), (7, 5), (12 - 5, 0)])
def test_a_patch_may_lie_at_any_place_up_to_the_edge(place):
    assert Patch(LEVELS, (12, 10), *place)(drawn(1, 3, 12, 10)).shape == (1, 3, 12, 10)


def test_a_saved_patch_comes_back_with_its_place_and_what_made_it(saved):
    patch, about = load_patch(saved)
    assert torch.equal(patch.levels, LEVELS)
    assert (patch.image_px, patch.top_px, patch.left_px) == ((12, 10), 2, 1)
    assert about["victim"] == "A-ViT"
    assert about["seed"] == 7
    assert about["config"]["learning_rate"] == 0.2
    assert about["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert sorted(f.name for f in saved.parent.iterdir()) == ["avit.json", "avit.png"]


def test_another_program_can_use_the_files(saved):
    about = json.loads(saved.with_suffix(".json").read_text())
    picture = np.asarray(Image.open(saved))  # [h, w, 3]
    image = np.zeros((about["image_height_px"], about["image_width_px"], 3), np.uint8)
    top, left = about["top_px"], about["left_px"]
    image[top : top + about["height_px"], left : left + about["width_px"]] = picture
    own = load_patch(saved)[0](torch.zeros(1, 3, 12, 10))[0]
    assert np.array_equal(image, (own * 255).round().byte().movedim(0, -1).numpy())


def rewrite(change):
    def spoil(path):
        with Image.open(path) as image:
            changed = change(image.copy())
        changed.save(path)

    return spoil


def tell(**changes):
    def spoil(path):
        about = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**about, **changes}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (rewrite(lambda image: image.convert("L")), "has the colour mode L, a patch has RGB"),
        (rewrite(lambda image: image.convert("RGBA")), "has the colour mode RGBA, a patch has RGB"),
        (rewrite(lambda image: image.resize((6, 5))), "has 5 x 6 pixels, and its JSON says 5 x 5"),
        (rewrite(lambda image: image.rotate(90)), "is not the file that its JSON describes"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "is no image that can be read"),
        (lambda path: path.write_text("none"), "is no image that can be read"),
        (lambda path: path.unlink(), "avit.png is not there; keep a patch's PNG beside its JSON"),
        (lambda path: path.with_suffix(".json").unlink(), "avit.json is not there"),
        (lambda path: path.with_suffix(".json").write_text("{"), "avit.json describes no patch"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "avit.json describes no patch"),
        (tell(top_px="2"), "avit.json describes no patch"),
        (tell(top_px=8), "5 x 5 pixels at 8 from the top and 1 from the left goes over the edge of images of 12 x 10"),
        (tell(image_height_px=4), "a patch of 5 x 5 pixels is larger than images of 4 x 10"),
    ],
)
def test_a_broken_patch_file_is_refused_in_one_sentence(saved, spoil, told):
    spoil(saved)
    with pytest.raises(EffbookError, match=told):
        load_patch(saved)


def test_what_is_no_patch_is_not_saved(tmp_path):
    with pytest.raises(EffbookError, match=r"give one that ends in \.png"):
        save_patch(Patch(LEVELS, (12, 10)), tmp_path / "a.jpg", victim="", config=CONFIG)
    with pytest.raises(EffbookError, match="cannot be a PNG in colour"):
        save_patch(Patch(LEVELS[:, :0, :0], (12, 10)), tmp_path / "a.png", victim="", config=CONFIG)
    with pytest.raises(EffbookError, match="give uint8"):
        Patch(LEVELS.float(), (12, 10))
    assert not list(tmp_path.iterdir())
