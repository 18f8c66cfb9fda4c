"""What a training and its evaluations read: a subset of a data set, its labels as the method sees them, its encoder."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.utils.data import TensorDataset

from effbook.backbones import IMAGE_MEAN, IMAGE_STD
from effbook.backbones.convnets import mobilenet_v2, resnet, small_resnet
from effbook.cmsf.augment import View, augment, standard, strong, weak
from effbook.cmsf.heads import mlp
from effbook.cmsf.seeds import generator
from effbook.cmsf.views import Views
from effbook.data import load_images
from effbook.evaluate.vision import features
from effbook.experiments.cmsf.training import Training
from effbook.experiments.shared.draws import subset
from effbook.runs.recipe import Context

SMALL = {"small": ((16, 32, 64, 128), 1), "small-half": ((8, 16, 32, 64), 1), "small-deep": ((16, 32, 64, 128), 2)}
WIDTH = 512  # of the MLP on features, in both layers
FEATURE_PX = 64


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of one split: `pixels` uint8 [N, 3, H, W], `labels` [N] as they are, `classes` their names."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def split(recipe: Training, dataset: str, name: str, *, wanted: int | None, seed: int) -> Split:
    """A split of a data set at the recipe's size of images, or `wanted` of its images, drawn from the seed."""
    found = load_images(dataset, name, image_px=recipe.image_px)
    chosen = subset(len(found), wanted and min(wanted, len(found)), seed=seed)
    images = torch.from_numpy(found.images[chosen])
    images = images[..., None].expand(-1, -1, -1, 3) if images.ndim == 3 else images
    pixels = images.permute(0, 3, 1, 2).contiguous()
    if pixels.shape[-1] != recipe.image_px:
        size = (recipe.image_px, recipe.image_px)
        x = nn.functional.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
        pixels = x.round().clamp(0, 255).to(torch.uint8)
    return Split(pixels=pixels, labels=torch.from_numpy(found.labels[chosen]), classes=found.classes)


def train_split(recipe: Training) -> Split:
    """What the method trains on: the seed draws the images, where they are not all."""
    return split(recipe, recipe.dataset, "train", wanted=recipe.train_images, seed=recipe.seed)


def normalised(pixels: Tensor) -> Tensor:
    """[B, 3, H, W], uint8 or in 0..1, less ImageNet's mean, over its deviation."""
    x = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    mean, deviation = (x.new_tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    return ((x - mean) / deviation).contiguous(memory_format=torch.channels_last)


def training_views(recipe: Training, pixels: Tensor, labels: Tensor) -> Views:
    """The batches that the method sees."""
    size_px = recipe.image_px
    blurred = strong(size_px, blur_px=(0.1, max(0.2, 2.0 * size_px / 224)))  # 2 px are of 224
    online, target = {
        "weak-strong": (blurred, weak(size_px)),
        "strong": (blurred, blurred),
        "standard": (standard(size_px), standard(size_px)),
    }[recipe.augmentation]
    crop = dataclasses.replace(online, size_px=recipe.crop_px, scale=recipe.crop_scale)
    third = partial(_seen, view=target) if recipe.third_view else None
    return Views(
        TensorDataset(pixels, labels),
        strong=partial(_seen, view=online),
        weak=partial(_seen, view=target),
        crops=[partial(_seen, view=crop)] * recipe.crops,
        extra=third,
        seed=recipe.seed,
    )


def _seen(pixels: Tensor, draw: Generator, *, view: View) -> Tensor:
    return normalised(augment(pixels, view, generator=draw))


def new_encoder(recipe: Training, pixels: Tensor) -> nn.Module:
    """The encoder before training, [B, ...] to [B, num_features]; a whitening stem takes its filters from `pixels`."""
    if recipe.features_of:
        encoder = mlp(_of(recipe).num_features, WIDTH, WIDTH, seed=recipe.seed)
        encoder.num_features = WIDTH
        return encoder
    if recipe.encoder == "pixels":
        encoder = nn.Flatten()
        encoder.num_features = pixels[0].numel()
        return encoder
    if recipe.encoder in SMALL:
        widths, blocks = SMALL[recipe.encoder]
        return small_resnet(normalised(pixels), widths=widths, blocks=blocks, seed=recipe.seed)
    return resnet(recipe.encoder, small_images=recipe.image_px <= 64, seed=recipe.seed)


def kept_encoder(recipe: Training, folder: Path) -> nn.Module:
    """The encoder that a training left in its folder."""
    some = torch.rand(2, 3, recipe.image_px, recipe.image_px)  # for the stem's shape; all values are replaced
    encoder = new_encoder(recipe, some)
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    return encoder.eval()


def embed(recipe: Training, context: Context, encoder: nn.Module, images: Split, *, of: str) -> Tensor:
    """Features [N, D] of whole images, unaltered, on the CPU; `of` names the images, for what is kept of them."""
    if not recipe.features_of:
        return features(encoder, images.pixels, 256, transform=normalised)
    return features(encoder, plain_features(recipe, context, images, of=of), 256)


# ------------------------------------------------------------------------------- features of a packaged network


def _of(recipe: Training) -> nn.Module:
    return {"mobilenet-v2": mobilenet_v2}[recipe.features_of]()


def feature_views(recipe: Training, context: Context) -> Tensor:
    """Features [N, V, D] of V strongly augmented views of each training image."""

    def make(folder: Path) -> None:
        network, pixels = _of(recipe), train_split(recipe).pixels
        view = strong(recipe.image_px, scale=(0.2, 1.0))
        seen = [augment(pixels, view, generator=generator(recipe.seed, place)) for place in range(recipe.views)]
        made = [features(network, (x * 255).round().to(torch.uint8), transform=_enlarged) for x in seen]
        save_file({"features": torch.stack(made, dim=1)}, folder / "features.safetensors")

    own = ("dataset", "train_images", "image_px", "features_of", "views", "seed")
    parts = {name: getattr(recipe, name) for name in own} | {"data": recipe.digests}
    folder = context.cached("cmsf-features", parts, recipe.training(), make)
    return load_file(folder / "features.safetensors")["features"]


def plain_features(recipe: Training, context: Context, images: Split, *, of: str) -> Tensor:
    """Features [N, D] of whole images by the packaged network."""

    def make(folder: Path) -> None:
        save_file(
            {"features": features(_of(recipe), images.pixels, transform=_enlarged)}, folder / "features.safetensors"
        )

    parts = {"of": of, "image_px": recipe.image_px, "features_of": recipe.features_of, "data": recipe.digests}
    folder = context.cached("cmsf-features", parts, recipe.training(), make)
    return load_file(folder / "features.safetensors")["features"]


def _enlarged(pixels: Tensor) -> Tensor:
    x = pixels.float() / 255
    return normalised(nn.functional.interpolate(x, FEATURE_PX, mode="bilinear", antialias=True))


def views_of_features(features: Tensor, labels: Tensor, *, seed: int) -> Views:
    """Batches that see, of the V views of each image in features [N, V, D], one drawn for each network."""
    return Views(TensorDataset(features, labels), strong=_one_of, weak=_one_of, seed=seed)


def _one_of(features: Tensor, draw: Generator) -> Tensor:
    view = torch.randint(features.shape[1], (len(features),), generator=draw)
    return features[torch.arange(len(features)), view]
