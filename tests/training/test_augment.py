import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from effbook.errors import EffbookError
from effbook.training.augment import Draws, View, augment, draw, jitter_, make, standard, strong, transforms, weak


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pictures(count, height=32, width=32, seed=0):
    """Smooth colour pictures with an edge, in 0..1."""
    small = torch.rand(count, 3, 5, 5, generator=seeded(seed))
    big = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)
    big[:, :, : height // 3, : width // 2] = 1 - big[:, :, : height // 3, : width // 2]
    return big


def jittered(images, factors, order):
    x = images.clone()
    jitter_(x, factors, order)
    return x


def by_torchvision(image, view, draws, i, *, antialias=True):
    """The drawn view of one image, by torchvision's functions in the order of MoCo v2's pipeline."""
    top, left, height, width = draws.boxes[i].tolist()
    x = TF.resized_crop(image, top, left, height, width, [view.size_px, view.size_px], antialias=antialias)
    brightness, contrast, saturation, hue = draws.factors[i].tolist()
    for step in draws.order[i].tolist():
        if step == 0:
            x = TF.adjust_brightness(x, brightness)
        elif step == 1:
            x = TF.adjust_contrast(x, contrast)
        elif step == 2:
            x = TF.adjust_saturation(x, saturation)
        else:
            x = TF.adjust_hue(x, hue)
    if draws.greys[i]:
        x = TF.rgb_to_grayscale(x, num_output_channels=3)
    if draws.sigmas_px[i] > 0:
        x = TF.gaussian_blur(x, [2 * view.blur_reach + 1] * 2, [draws.sigmas_px[i].item()] * 2)
    return TF.horizontal_flip(x) if draws.flips[i] else x


@pytest.mark.parametrize("size_px", [32, 20, 48])
def test_each_view_is_torchvisions_of_the_same_draws(size_px):
    images, view = pictures(24, 32, 28), strong(size_px)
    draws = draw(view, 24, 32, 28, generator=seeded(1))
    assert draws.flips.any()
    assert draws.greys.any()
    assert (draws.sigmas_px > 0).any()
    ours = make(images, view, draws)
    theirs = torch.stack([by_torchvision(images[i], view, draws, i) for i in range(24)])
    assert (ours - theirs).abs().max() < 2e-5


def test_a_crop_that_is_made_smaller_is_antialiased_and_one_made_larger_need_not_be():
    images, view = pictures(8, 32, 32), View(size_px=32, flip_chance=0.0)
    draws = draw(view, 8, 32, 32, generator=seeded(0))
    plain = torch.stack([by_torchvision(images[i], view, draws, i, antialias=False) for i in range(8)])
    assert (make(images, view, draws) - plain).abs().max() < 2e-5
    view = View(size_px=12, scale=(0.9, 1.0), flip_chance=0.0)
    draws = draw(view, 8, 32, 32, generator=seeded(0))
    plain = torch.stack([by_torchvision(images[i], view, draws, i, antialias=False) for i in range(8)])
    assert (make(images, view, draws) - plain).abs().max() > 0.02


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_the_colours_change_in_the_drawn_order(order):
    images = pictures(6)
    factors = torch.tensor([[0.6, 1.4, 0.7, 0.1]] * 3 + [[1.4, 0.6, 1.4, -0.1]] * 3)
    view = View(size_px=32)
    whole = Draws(
        boxes=torch.tensor([[0, 0, 32, 32]] * 6),
        flips=torch.zeros(6, dtype=torch.bool),
        factors=factors,
        order=torch.tensor([order] * 6),
        greys=torch.zeros(6, dtype=torch.bool),
        sigmas_px=torch.zeros(6),
    )
    theirs = torch.stack([by_torchvision(images[i], view, whole, i) for i in range(6)])
    assert (make(images, view, whole) - theirs).abs().max() < 1e-5
    reverse = jittered(images, factors, whole.order.flip(1))
    assert (make(images, view, whole) - reverse).abs().max() > 0.02


def test_pure_and_grey_colours_turn_as_torchvision_turns_them():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3).T.reshape(1, 3, 3, 9)
    for turn in (-0.5, -0.1, 0.05, 1 / 3, 0.5):
        ours = jittered(corners, torch.tensor([[1.0, 1.0, 1.0, turn]]), torch.tensor([[3, 0, 1, 2]]))
        assert (ours - TF.adjust_hue(corners, turn)).abs().max() < 1e-5


def test_bytes_give_the_views_of_the_numbers_they_stand_for():
    images = (pictures(4) * 255).round().to(torch.uint8)
    one = augment(images, strong(32), generator=seeded(0))
    assert torch.equal(one, augment(images / 255, strong(32), generator=seeded(0)))
    assert one.dtype == torch.float32
    assert one.min() >= 0
    assert one.max() <= 1 + 1e-6


def test_a_view_that_may_change_nothing_is_the_image():
    images = pictures(5)
    view = View(size_px=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_chance=0.0, jitter_chance=1.0)
    assert torch.allclose(augment(images, view, generator=seeded(0)), images, atol=1e-6)
    jitter_zero = strong(32, jitter=(0.0, 0.0, 0.0, 0.0), grey_chance=0.0, blur_chance=0.0)
    same_box = weak(32)
    assert torch.allclose(
        augment(images, jitter_zero, generator=seeded(3)), augment(images, same_box, generator=seeded(3)), atol=1e-6
    )


def test_a_very_narrow_blur_is_none():
    images = pictures(5)
    view = View(size_px=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_chance=0.0, blur_chance=1.0, blur_px=(0.01, 0.02))
    assert torch.allclose(augment(images, view, generator=seeded(0)), images, atol=1e-6)
    wide = View(size_px=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_chance=0.0, blur_chance=1.0, blur_px=(2.0, 2.0))
    assert (augment(images, wide, generator=seeded(0)) - images).abs().max() > 0.05


def test_a_flip_mirrors():
    images = pictures(5)
    view = View(size_px=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_chance=1.0)
    assert torch.allclose(augment(images, view, generator=seeded(0)), images.flip(3), atol=1e-6)


@pytest.mark.parametrize(("view", "height", "width"), [(weak(32), 32, 32), (standard(24), 30, 40)])
def test_boxes_are_distributed_as_torchvisions(view, height, width):
    count = 4000
    ours = draw(view, count, height, width, generator=seeded(0)).boxes.double()
    crop = v2.RandomResizedCrop(view.size_px, scale=view.scale, ratio=view.ratio)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = [crop.make_params([torch.zeros(3, height, width)]) for _ in range(count)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in made], dtype=torch.float64)
    for number in (ours, theirs):
        assert (number[:, 0] + number[:, 2]).max() <= height
        assert (number[:, 1] + number[:, 3]).max() <= width
    kinds = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: (b[:, 3] / b[:, 2]).log(),
        "top": lambda b: b[:, 0] / (height - b[:, 2] + 1),
        "left": lambda b: b[:, 1] / (width - b[:, 3] + 1),
    }
    for name, kind in kinds.items():
        a, b = kind(ours).sort().values, kind(theirs).sort().values
        points = torch.cat((a, b))
        gap = (torch.searchsorted(a, points, right=True) - torch.searchsorted(b, points, right=True)).abs().max()
        assert gap / count < 1.95 * math.sqrt(2 / count), name  # Kolmogorov and Smirnov at 0.1 %


def test_where_no_box_fits_the_largest_central_one_is_taken():
    view = View(size_px=16, scale=(1.0, 1.0))
    boxes = draw(view, 3, 10, 40, generator=seeded(0)).boxes
    assert boxes.tolist() == [[0, 13, 10, 13]] * 3  # 40 wide would be four times the height
    assert draw(view, 1, 40, 10, generator=seeded(0)).boxes.tolist() == [[13, 0, 13, 10]]


def test_the_chances_and_strengths_are_those_of_the_view():
    draws = draw(strong(32), 20000, 32, 32, generator=seeded(0))
    jitter = (draws.factors != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1)
    for share, chance in ((jitter, 0.8), (draws.greys, 0.2), (draws.sigmas_px > 0, 0.5), (draws.flips, 0.5)):
        assert abs(share.double().mean() - chance) < 4 * math.sqrt(chance * (1 - chance) / 20000)
    changed = draws.factors[jitter]
    for column, low, high in ((0, 0.6, 1.4), (1, 0.6, 1.4), (2, 0.6, 1.4), (3, -0.1, 0.1)):
        values = changed[:, column]
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.01 * (high - low)
    sigmas = draws.sigmas_px[draws.sigmas_px > 0]
    assert 0.1 <= sigmas.min() < 0.12
    assert 1.98 < sigmas.max() <= 2.0
    orders = (draws.order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(orders) == 24
    assert ((orders - 20000 / 24).square() / (20000 / 24)).sum() < 49.8  # chi-square at 0.1 %, 23 degrees of freedom


def test_images_are_drawn_for_one_by_one_and_from_the_generator_alone():
    images, state = pictures(1).expand(6, -1, -1, -1), torch.get_rng_state()
    one, again = (augment(images, strong(24), generator=seeded(5)) for _ in range(2))
    assert torch.equal(one, again)
    assert len({tuple(x.flatten().tolist()) for x in one}) == 6
    assert torch.equal(torch.get_rng_state(), state)


def test_the_pipeline_for_workers_draws_from_the_same_view():
    image = (pictures(1)[0] * 255).to(torch.uint8)
    steps = transforms(strong(24)).transforms
    assert [type(step).__name__ for step in steps] == [
        "ToImage",
        "RandomResizedCrop",
        "RandomApply",
        "RandomGrayscale",
        "RandomApply",
        "RandomHorizontalFlip",
        "ToDtype",
    ]
    view = View(size_px=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_chance=1.0)
    assert torch.allclose(transforms(view)(image), image.flip(2) / 255)
    out = transforms(strong(24))(v2.functional.to_pil_image(image))
    assert out.shape == (3, 24, 24)
    assert out.dtype == torch.float32


@pytest.mark.parametrize(
    "fields",
    [
        {"size_px": 0},
        {"size_px": 32.0},
        {"scale": (0.5, 0.2)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.2, 1.5)},
        {"flip_chance": 1.5},
        {"jitter": (0.4, 0.4, 0.4, 0.6)},
        {"jitter": (0.4, 0.4, 0.4)},
        {"blur_px": (0.0, 2.0)},
    ],
)
def test_impossible_views_are_refused(fields):
    with pytest.raises(EffbookError):
        View(**({"size_px": 32} | fields))


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64)]
)
def test_other_than_colour_images_are_refused(images):
    with pytest.raises(EffbookError):
        augment(images, weak(8), generator=seeded(0))
