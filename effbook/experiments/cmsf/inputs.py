"""What a training and its evaluations read and train: views, encoders, and features of a packaged network."""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.utils.data import TensorDataset

from effbook.backbones.convnets import mobilenet_v2, resnet
from effbook.cmsf.heads import mlp
from effbook.evaluate.vision import features
from effbook.experiments.cmsf.settings import FEATURES, Training
from effbook.experiments.shared.encoders import SMALL, looked_at, small
from effbook.experiments.shared.splits import Split, features_of, normalised, seen, train_split, with_labels
from effbook.runs.recipe import Context
from effbook.training.augment import augment, standard, strong, weak
from effbook.training.seeds import generator
from effbook.training.views import Views

WIDTH = 256  # of the MLP on features, in both layers
FEATURE_PX = 64
AT_ONCE = 10_000  # images


def training_views(recipe: Training, images: Split, labels: Tensor) -> Views:
    """The batches that the method sees, with the labels [N] that it is shown."""
    size_px = recipe.view_px or recipe.image_px
    blurred = strong(size_px, blur_px=(0.1, max(0.2, 2.0 * size_px / 224)))  # 2 px are of 224
    online, target = {
        "weak-strong": (blurred, weak(size_px)),
        "strong": (blurred, blurred),
        "standard": (standard(size_px), standard(size_px)),
    }[recipe.augmentation]
    crop = dataclasses.replace(online, size_px=recipe.crop_px, scale=recipe.crop_scale)
    return Views(
        with_labels(images, labels),
        strong=partial(seen, view=online),
        weak=partial(seen, view=target),
        crops=[partial(seen, view=crop)] * recipe.crops,
        extra=partial(seen, view=target) if recipe.third_view else None,
        seed=recipe.seed,
        workers=images.workers,
    )


def new_encoder(recipe: Training, images: Split | None = None) -> nn.Module:
    """The encoder before training, [B, ...] to [B, num_features].

    A whitening stem takes its filters from the images; without them it has noise for filters, to be replaced.
    """
    size_px = recipe.image_px
    if recipe.features_of:
        encoder = mlp(_of(recipe).num_features, WIDTH, WIDTH, seed=recipe.seed)
        encoder.num_features = WIDTH
        return encoder
    if recipe.encoder == "pixels":
        encoder = nn.Flatten()
        encoder.num_features = 3 * size_px**2
        return encoder
    if recipe.encoder in SMALL:
        return small(recipe.encoder, looked_at(images), size_px=size_px, seed=recipe.seed)
    return resnet(recipe.encoder, small_images=size_px <= 64, seed=recipe.seed)


def kept_encoder(recipe: Training, folder: Path) -> nn.Module:
    """The encoder that a training left in its folder."""
    encoder = new_encoder(recipe)
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    return encoder.eval()


def embed(recipe: Training, context: Context, encoder: nn.Module, images: Split) -> tuple[Tensor, Tensor]:
    """Features [n, D] and labels [n] of whole images, unaltered, on the CPU; broken files are left out."""
    if not recipe.features_of:
        return features_of(encoder, images)
    x, y = plain_features(recipe, context, images)
    return features(encoder, x, 256), y


def plain_inputs(recipe: Training, context: Context, images: Split) -> Callable[[Tensor], Tensor]:
    """What the encoder takes of unaltered images, by their indices [B]; features are computed when first asked for."""
    if not recipe.features_of:
        return lambda index: normalised(images.whole(index))
    kept = cache(lambda: plain_features(recipe, context, images)[0])
    return lambda index: kept()[index]


# ------------------------------------------------------------------------------- features of a packaged network


def _of(recipe: Training) -> nn.Module:
    return {"mobilenet-v2": mobilenet_v2}[recipe.features_of]()


def feature_views(recipe: Training, context: Context) -> Tensor:
    """Features [N, V, D] of V strongly augmented views of each training image, on the CPU."""

    def make(folder: Path) -> None:
        network, images = _of(recipe).to(context.device), train_split(recipe)
        view = strong(recipe.image_px, scale=(0.2, 1.0))
        made = []
        for place in range(recipe.views):
            draw = generator(recipe.seed, place)
            parts = (images.whole(index) for index in torch.arange(len(images)).split(AT_ONCE))
            pixels = ((augment(part, view, generator=draw) * 255).round().to(torch.uint8) for part in parts)
            made.append(torch.cat([features(network, x, transform=_enlarged) for x in pixels]))
        save_file({"features": torch.stack(made, dim=1)}, folder / "features.safetensors")

    folder = context.cached(FEATURES, recipe.view_parts(), recipe.training(), make)
    return load_file(folder / "features.safetensors")["features"]


def plain_features(recipe: Training, context: Context, images: Split) -> tuple[Tensor, Tensor]:
    """Features [n, D] of whole images by the packaged network, and their labels [n]."""

    def make(folder: Path) -> None:
        x, y = features_of(_of(recipe).to(context.device), images, transform=_enlarged)
        save_file({"features": x, "labels": y}, folder / "features.safetensors")

    digests = {name: recipe.digests[name] for name in (images.drawn[0], recipe.features_of)}
    own = {"drawn": list(images.drawn), "image_px": recipe.image_px, "features_of": recipe.features_of}
    folder = context.cached(FEATURES, own | {"data": digests}, recipe.training(), make)
    kept = load_file(folder / "features.safetensors")
    return kept["features"], kept["labels"]


def _enlarged(pixels: Tensor) -> Tensor:
    x = pixels.float() / 255
    return normalised(nn.functional.interpolate(x, FEATURE_PX, mode="bilinear", antialias=True))


def views_of_features(features: Tensor, labels: Tensor, *, seed: int) -> Views:
    """Batches that see, of the V views of each image in features [N, V, D], one drawn for each network."""
    return Views(TensorDataset(features, labels), strong=one_of, weak=one_of, seed=seed)


def one_of(features: Tensor, draw: Generator) -> Tensor:
    """Of the views of each image in features [B, V, D] one, drawn: [B, D]."""
    view = torch.randint(features.shape[1], (len(features),), generator=draw)
    return features[torch.arange(len(features)), view]
