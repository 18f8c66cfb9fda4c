import numpy as np
import pytest
import torch

from effbook.data.canvases import OVERLAP, canvases
from effbook.errors import EffbookError


def objects(n=50):
    """Pictures of one colour each, which is at most 250; and labels that say which."""
    images = np.zeros((n, 32, 32, 3), dtype=np.uint8)
    images[..., 0] = np.arange(n)[:, None, None] * 5
    images[..., 1] = 255
    return images, np.arange(n)


def test_each_box_holds_the_object_of_its_label():
    pictures, found = canvases(*objects(), count=30, seed=0)
    assert pictures.shape == (30, 3, 96, 96)
    assert pictures.dtype == torch.uint8
    for picture, one in zip(pictures, found, strict=True):
        assert one["boxes"].shape == (len(one["labels"]), 4)
        last = one["boxes"][-1].int().tolist()  # what is laid last is whole
        inside = picture[:, last[1] : last[3], last[0] : last[2]]
        wanted = torch.tensor([5 * int(one["labels"][-1]), 255, 0])
        assert torch.equal(inside, wanted[:, None, None].expand_as(inside).to(torch.uint8))


def test_objects_are_one_to_four_in_the_canvas_of_many_sizes_and_hardly_overlap():
    _, found = canvases(*objects(), count=100, seed=1)
    assert {len(one["labels"]) for one in found} == {1, 2, 3, 4}
    boxes = torch.cat([one["boxes"] for one in found])
    sides = boxes[:, 2] - boxes[:, 0]
    assert torch.equal(sides, boxes[:, 3] - boxes[:, 1])
    assert boxes.min() >= 0
    assert boxes.max() <= 96
    assert sides.min() in (24, 25)
    assert sides.max() in (47, 48)
    shared = []
    for one in found:
        b = one["boxes"]
        low, high = torch.maximum(b[:, None, :2], b[None, :, :2]), torch.minimum(b[:, None, 2:], b[None, :, 2:])
        area = (b[:, 2] - b[:, 0]) ** 2
        both = (high - low).clamp(min=0).prod(dim=2) / torch.minimum(area[:, None], area[None])
        shared.append(both[~torch.eye(len(b), dtype=torch.bool)])
    shared = torch.cat(shared)
    assert 0 < shared.max() <= OVERLAP


def test_canvases_follow_their_seed_and_fewer_are_the_first_of_more():
    state = torch.get_rng_state()
    some, boxes = canvases(*objects(), count=6, seed=2)
    more, _ = canvases(*objects(), count=9, seed=2)
    other, _ = canvases(*objects(), count=6, seed=3)
    assert torch.equal(more[:6], some)
    assert not torch.equal(other, some)
    assert not torch.equal(boxes[0]["boxes"], boxes[1]["boxes"])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_background_is_smooth_colour_with_a_texture():
    pictures, found = canvases(*objects(), count=20, seed=4)
    for picture, one in zip(pictures, found, strict=True):
        free = torch.ones(96, 96, dtype=torch.bool)
        for left, top, right, bottom in one["boxes"].int().tolist():
            free[top:bottom, left:right] = False
        both = free[:, 1:] & free[:, :-1]
        steps = (picture[:, :, 1:].float() - picture[:, :, :-1].float())[:, both]
        assert 5 < steps.std() < 25
        assert picture.float()[:, free].std() > steps.std()


def test_what_is_no_object_is_told_in_one_sentence():
    images, labels = objects()
    with pytest.raises(EffbookError, match=r"give uint8 \[N, 32, 32, 3\]"):
        canvases(images / 255, labels, count=2, seed=0)
    with pytest.raises(EffbookError, match="3 labels do not go with 50 images"):
        canvases(images, labels[:3], count=2, seed=0)
    with pytest.raises(EffbookError, match="2 canvases of 40 pixels cannot be made; ask for one or more, of 48"):
        canvases(images, labels, count=2, seed=0, size_px=40)
