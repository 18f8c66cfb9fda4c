"""Views that are drawn from (seed, epoch, index)."""

import pytest
import torch
from torch.utils.data import TensorDataset

from effbook.errors import EffbookError
from effbook.simreg import DistillSettings, DistillViews

COUNT = 10


def images(channels=3, height=8, width=8):
    return torch.rand(COUNT, channels, height, width, generator=torch.Generator().manual_seed(1))


def views(dataset=None, **options):
    workers = options.pop("workers", 0)
    return DistillViews(images() if dataset is None else dataset, DistillSettings(**options), workers=workers)


def one(data, index, epoch=0):
    (batch,) = data.batches([torch.tensor(index)], epoch=epoch)
    return batch


@pytest.mark.parametrize("form", [images(), list(images()), TensorDataset(images(), torch.arange(COUNT))])
def test_a_view_does_not_depend_on_who_shares_its_batch(form):
    before = torch.get_rng_state()
    whole = one(views(form), list(range(COUNT)), epoch=3).strong[0]
    part = one(views(form), [7, 2], epoch=3).strong[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(part, whole[[7, 2]], rtol=0, atol=1e-6)
    assert not torch.equal(part, one(views(form), [7, 2], epoch=4).strong[0])
    assert not torch.equal(part, one(views(form, seed=1), [7, 2], epoch=3).strong[0])


def test_the_same_view_is_one_tensor_and_different_ones_share_the_teachers():
    same, different = one(views(), [1, 2]), one(views(same=False), [1, 2])
    assert same.weak is same.strong[0]
    assert torch.equal(different.weak, same.weak)
    assert not torch.equal(different.strong[0], different.weak)


def test_views_of_the_teacher_repeat_after_so_many_epochs_and_with_them_what_the_student_shares():
    for same in (True, False):
        data = views(distinct_views=2, same=same)
        first, second, third = (one(data, [1, 2], epoch=epoch) for epoch in (0, 1, 2))
        assert torch.equal(first.weak, third.weak)
        assert torch.equal(first.strong[0], third.strong[0]) == same
        assert not torch.equal(first.weak, second.weak)


def test_the_plain_view_is_the_normalised_image_or_its_central_square():
    options = {"teacher_view": "plain", "student_view": "plain", "mean": (0.5, 0.4, 0.3), "deviation": (0.1, 0.2, 0.3)}
    mean, deviation = (torch.tensor(options[n])[:, None, None] for n in ("mean", "deviation"))
    torch.testing.assert_close(one(views(**options), [3]).weak[0], (images()[3] - mean) / deviation)
    wide = images(width=12)
    torch.testing.assert_close(one(views(wide, **options), [3]).weak[0], (wide[3][:, :, 2:10] - mean) / deviation)


def test_strong_views_change_colours_and_weak_ones_do_not():
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    flat = torch.full_like(grey, 0.5)
    none = {"mean": (0.0,) * 3, "deviation": (1.0,) * 3}
    weak, strong = (
        one(views(flat, teacher_view=v, student_view=v, **none), list(range(COUNT))).weak for v in ("weak", "strong")
    )
    torch.testing.assert_close(weak, flat)
    assert (strong - flat).abs().max() > 0.05


def test_images_of_several_sizes_and_pictures_become_views_of_one_size():
    from PIL import Image

    pictures = [Image.new("RGB", (9 + i, 12), (10 * i, 200, 30)) for i in range(4)]
    data = views(pictures, size_px=6, workers=1)
    assert one(data, [0, 3]).weak.shape == (2, 3, 6, 6)
    assert torch.equal(one(data, [0, 3]).weak, one(views(pictures, size_px=6), [0, 3]).weak)


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        ([], {}, "the data set is empty"),
        (
            2 * images(),
            {},
            r"holds numbers from .* to .*; give uint8, or floating numbers from 0 to 1 that are not norma",
        ),
        (images().long(), {}, "an image of type torch.int64"),
        ([images()[0], images(channels=1)[0]], {}, r"an image has the shape \(1, 8, 8\), the first \(3, 8, 8\)"),
        (images(channels=4), {}, r"the images have 4 channels, and the mean \(.*\) is of 3"),
        (
            images(channels=1),
            {"mean": (0.5,), "deviation": (0.2,), "teacher_view": "strong", "student_view": "strong"},
            "colours of images with 1 channels cannot be changed",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(given, options, told):
    with pytest.raises(EffbookError, match=told):
        views(given, **options)


def test_a_grey_picture_among_many_coloured_ones_is_named_when_its_turn_comes():
    from PIL import Image

    pictures = [Image.new("L" if i == 6 else "RGB", (8, 8)) for i in range(40)]  # not one of those looked at before
    data = views(pictures)
    assert one(data, [5, 7]).weak.shape == (2, 3, 8, 8)
    with pytest.raises(EffbookError, match=r"image 6 has the shape \(1, 8, 8\), others have 3 channels; give all with"):
        one(data, [5, 6])
    with pytest.raises(EffbookError, match=r"the first \(3, 8, 8\)"):
        views(pictures[5:8])


def test_images_with_one_channel_have_weak_views():
    data = views(images(channels=1), mean=(0.5,), deviation=(0.2,))
    assert one(data, [0, 1]).weak.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"teacher_view": "strong"}, "the same view cannot be strong for the teacher and weak for the student"),
        ({"teacher_view": "none"}, "teacher_view is 'none'; choose one of plain, weak, strong"),
        ({"objective": "crd"}, "objective is 'crd'; choose one of simreg"),
        ({"head": "3L"}, "head is '3L'"),
        ({"head": "none"}, "simreg without a head"),
        ({"mean": (0.5,)}, "do not go together"),
        ({"mean": (0.5,), "deviation": (0.0,)}, "a number above 0"),
        ({"distinct_views": 0}, "distinct_views is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_impossible_settings_are_named(wrong, told):
    with pytest.raises(EffbookError, match=told):
        DistillSettings(**wrong)
