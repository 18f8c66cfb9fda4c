"""Random views of images: batches of small ones as tensors, or torchvision's transforms for large ones in workers.

A view is drawn first (`draw`, on the CPU, so every device sees the same views) and then made (`make`). Crop with
resizing, flip and blur are linear and act on rows and columns apart: each is a matrix on either side of the image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from effbook.errors import EffbookError

LUMA = (0.2989, 0.587, 0.114)  # as in torchvision, and in the fourth digit not quite the norm
TRIES = 10  # boxes drawn before the whole image is taken, as in torchvision


@dataclass(frozen=True, kw_only=True)
class View:
    """What a view may change: the box (share of the area, ratio of the sides), flip, colours, and sharpness.

    `jitter` is the strength for brightness, contrast, saturation and hue; chances are per image. A view of another size
    or scale (multi-crop) is another `View`. Raises EffbookError where a value is impossible. Source: facts of 2.1.4.
    """

    size_px: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_chance: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_chance: float = 0.0
    grey_chance: float = 0.0
    blur_px: tuple[float, float] = (0.1, 2.0)  # sigma
    blur_chance: float = 0.0

    def __post_init__(self) -> None:
        if type(self.size_px) is not int or self.size_px < 2:
            raise EffbookError(f"A view's size_px is {self.size_px!r}", "give a whole number of at least 2")
        for name, most in (("scale", 1.0), ("ratio", math.inf), ("blur_px", math.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise EffbookError(f"A view's {name} is {(low, high)}", "give a lower and an upper bound above 0")
        for name in ("flip_chance", "jitter_chance", "grey_chance", "blur_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise EffbookError(f"A view's {name} is {getattr(self, name)!r}", "give a probability from 0 to 1")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise EffbookError(f"A view's jitter is {self.jitter}", "give four strengths, that of hue at most 0.5")

    @property
    def blur_reach(self) -> int:
        """How many pixels to each side the blur looks: three of the largest sigma, within the image."""
        return min(math.ceil(3 * self.blur_px[1]), self.size_px - 1)


def weak(size_px: int, **changes: Any) -> View:
    """The target's view: box and flip."""
    return replace(View(size_px=size_px), **changes)


def strong(size_px: int, **changes: Any) -> View:
    """The online network's view: box, flip, colour jitter, grey and blur, as in MoCo v2."""
    colours = {"jitter": (0.4, 0.4, 0.4, 0.1), "jitter_chance": 0.8, "grey_chance": 0.2, "blur_chance": 0.5}
    return replace(View(size_px=size_px, **colours), **changes)


def standard(size_px: int, **changes: Any) -> View:
    """The view of ordinary supervised training ("std. aug" of Table A.10): boxes down to 8 % of the area, and flip."""
    return replace(View(size_px=size_px, scale=(0.08, 1.0)), **changes)


@dataclass(frozen=True)
class Draws:
    """The chance of one batch, on the CPU: what `make` needs beside the images and the view."""

    boxes: Tensor  # [B, 4] top, left, height, width in pixels
    flips: Tensor  # [B] bool
    factors: Tensor  # [B, 4] of brightness, contrast, saturation; turn of the hue. (1, 1, 1, 0) changes nothing
    order: Tensor  # [B, 4] the order of these four
    greys: Tensor  # [B] bool
    sigmas_px: Tensor  # [B] of the blur; 0 is none


def draw(view: View, count: int, height: int, width: int, *, generator: Generator) -> Draws:
    """Draw the views of `count` images [height, width], distributed as torchvision's transforms draw them.

    How many numbers are taken from `generator` (on the CPU) depends on `count` only.
    """

    def uniform(low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    area = height * width * uniform(*view.scale, TRIES, count)  # [T, B]
    ratio = uniform(math.log(view.ratio[0]), math.log(view.ratio[1]), TRIES, count).exp()
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.int().argmax(0, keepdim=True)  # the first box that fits
    box_h, box_w = heights.gather(0, first)[0], widths.gather(0, first)[0]  # [B]
    top = ((height - box_h + 1) * torch.rand(count, generator=generator)).floor()
    left = ((width - box_w + 1) * torch.rand(count, generator=generator)).floor()
    none = ~fits.any(0)  # then the largest central box of an allowed ratio
    all_h = min(height, round(width / view.ratio[0]))
    all_w = min(width, round(height * view.ratio[1]))
    whole = torch.tensor([(height - all_h) // 2, (width - all_w) // 2, all_h, all_w])
    boxes = torch.where(none[:, None], whole, torch.stack((top, left, box_h, box_w), 1).long())

    flips = torch.rand(count, generator=generator) < view.flip_chance
    strength = torch.tensor(view.jitter)
    factors = uniform((1 - strength).clamp(min=0), 1 + strength, count, 4)
    factors[:, 3] = uniform(-view.jitter[3], view.jitter[3], count)
    order = torch.rand(count, 4, generator=generator).argsort(1)
    unchanged = torch.rand(count, generator=generator) >= view.jitter_chance
    factors[unchanged] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    greys = torch.rand(count, generator=generator) < view.grey_chance
    sigmas_px = uniform(*view.blur_px, count) * (torch.rand(count, generator=generator) < view.blur_chance)
    return Draws(boxes, flips, factors, order, greys, sigmas_px)


@torch.no_grad()
def make(images: Tensor, view: View, draws: Draws) -> Tensor:
    """Make the drawn views: [B, 3, S, S] in 0..1 of images [B, 3, H, W], uint8 or floating in 0..1, on their device."""
    x = images / 255 if images.dtype == torch.uint8 else images
    top, left, height, width = draws.boxes.to(x).unbind(1)
    rows = resizing(top, height, images.shape[2], view.size_px)  # [B, S, H]
    cols = resizing(left, width, images.shape[3], view.size_px)  # [B, S, W]
    cols = torch.where(draws.flips.to(x.device)[:, None, None], cols.flip(1), cols)
    x = between(rows, x, cols)
    if (draws.factors != torch.tensor([1.0, 1.0, 1.0, 0.0])).any():
        jitter_(x, draws.factors, draws.order)
    if draws.greys.any():
        grey = draws.greys.nonzero()[:, 0].to(x.device)
        x[grey] = luminance(x[grey]).expand(-1, 3, -1, -1)
    chosen = draws.sigmas_px.nonzero()[:, 0]
    if len(chosen):
        blur = blurring(draws.sigmas_px[chosen].to(x), view.size_px, view.blur_reach)  # [b, S, S]
        chosen = chosen.to(x.device)
        x[chosen] = between(blur, x[chosen], blur)
    return x


def augment(images: Tensor, view: View, *, generator: Generator) -> Tensor:
    """One random view of each image: [B, 3, S, S] in 0..1 of [B, 3, H, W], uint8 or floating in 0..1.

    Normalising by mean and deviation is left to the caller. Raises EffbookError where these are no colour images.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise EffbookError(
            f"Images of shape {tuple(images.shape)} and type {images.dtype} cannot be augmented",
            "give [B, 3, H, W], as uint8 or as floating numbers from 0 to 1",
        )
    return make(images, view, draw(view, len(images), *images.shape[2:], generator=generator))


def between(rows: Tensor, x: Tensor, cols: Tensor) -> Tensor:
    """The images [B, 3, H, W] between their matrices [B, S, H] and [B, S, W]: [B, 3, S, S]."""
    x = torch.bmm(x.flatten(1, 2), cols.mT.contiguous()).unflatten(1, x.shape[1:3])  # a third of the time of one einsum
    return rows[:, None] @ x


def resizing(start: Tensor, length: Tensor, size: int, size_out: int) -> Tensor:
    """Matrices [B, S, size] that resize the stretch of `length` from `start` [B] to S pixels, bilinear, antialiased."""
    step = (length / size_out)[:, None, None]  # [B, 1, 1] source pixels an output pixel
    centre = start[:, None, None] + step * (torch.arange(size_out, device=start.device)[:, None] + 0.5)  # [B, S, 1]
    pixel = torch.arange(size, device=start.device) + 0.5  # [size]
    weight = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)  # [B, S, size]
    inside = (pixel > start[:, None, None]) & (pixel < (start + length)[:, None, None])  # nothing beyond the box
    weight = weight * inside
    return weight / weight.sum(2, keepdim=True)


def blurring(sigmas_px: Tensor, size: int, reach: int) -> Tensor:
    """Matrices [B, size, size] of a Gaussian blur that looks `reach` pixels to each side; mirrored at the edge."""
    offset = torch.arange(-reach, reach + 1, device=sigmas_px.device)  # [K]
    kernel = (-0.5 * (offset / sigmas_px[:, None]).square()).softmax(1)  # [B, K]
    source = torch.arange(size, device=offset.device)[:, None] + offset  # [size, K]
    source = (size - 1) - ((size - 1) - source.abs()).abs()  # mirrored, the edge itself once
    return torch.zeros(len(kernel), size, size, dtype=kernel.dtype, device=kernel.device).scatter_add_(
        2, source.expand(len(kernel), -1, -1), kernel[:, None].expand(-1, size, -1)
    )


def luminance(x: Tensor) -> Tensor:
    """How bright each pixel is: [B, 1, H, W] of [B, 3, H, W]."""
    return (x.new_tensor([LUMA]) @ x.flatten(2)).unflatten(2, x.shape[2:])


def jitter_(x: Tensor, factors: Tensor, order: Tensor) -> None:
    """Change brightness, contrast, saturation and hue of [B, 3, H, W] by `factors`, each image in its own `order`.

    The first three mix the image with black, its mean grey and its greys, and differ in nothing else. All is done in
    place: memory for a new batch costs more time than the arithmetic.
    """
    for step in order.unbind(1):  # what each image's turn is, [B]
        ratio = factors.gather(1, step[:, None])[:, 0].where(step < 3, 1.0)
        ratio, mean, each = (r.to(x)[:, None, None, None] for r in (ratio, step == 1, step == 2))
        grey = luminance(x)
        other = mean * grey.mean((2, 3), keepdim=True) + each * grey
        x.lerp_(other, 1 - ratio).clamp_(0, 1)
        turned = ((step == 3) & (factors[:, 3] != 0)).nonzero()[:, 0]
        if len(turned):
            places = turned.to(x.device)
            x[places] = turn_hue(x[places], factors[turned, 3].to(x))


def turn_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of [B, 3, H, W] by so many circles [B]; what is brightest and darkest in a pixel stays."""
    red, green, blue = x.unbind(1)  # [B, H, W]
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    sixth = torch.where(  # the hue, in sixths of a circle from red
        high == red,
        green - blue,
        torch.where(high == green, torch.add(blue - red, span, alpha=2), torch.add(red - green, span, alpha=4)),
    )
    sixth = sixth.div_(span.clamp(min=1e-12)).add_(6 * turns[:, None, None])  # in place: half the time
    sixth.sub_(6 * (sixth / 6).floor_())  # 0..6
    peaks = (sixth - 3).abs_().sub_(1), 2 - (sixth - 2).abs_(), 2 - (sixth - 4).abs_()
    return torch.stack(peaks, 1).clamp_(0, 1).sub_(1).mul_(span[:, None]).add_(high[:, None])


def transforms(view: View) -> Callable[[Any], Tensor]:
    """The same view as torchvision's transforms, for one large image (PIL or uint8 [3, H, W]) in a loader's worker.

    Returns [3, S, S] in 0..1. Draws come from torch's global state, which a loader seeds in each worker from its own
    generator. Raises EffbookError where torchvision is missing.
    """
    try:
        from torchvision.transforms import v2
    except ModuleNotFoundError as error:
        raise EffbookError("torchvision is not installed", "pip install 'effbook[experiments]'") from error
    kernel = 2 * view.blur_reach + 1
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(view.size_px, scale=view.scale, ratio=view.ratio, antialias=True),
            v2.RandomApply([v2.ColorJitter(*view.jitter)], p=view.jitter_chance),
            v2.RandomGrayscale(p=view.grey_chance),
            v2.RandomApply([v2.GaussianBlur(kernel, sigma=view.blur_px)], p=view.blur_chance),
            v2.RandomHorizontalFlip(p=view.flip_chance),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
