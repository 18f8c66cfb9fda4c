"""Two modalities of one thing: frames and optical flow of a video, or luminance and colour of an image in their place.

`Images` and `Videos` have the same members: batches of views for the training, and features for an evaluation.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from effbook.backbones.convnets import resnet
from effbook.cmsf.video import S3D, draw_clip, flow_as_frames, split_modalities, tvl1_flow
from effbook.data.listing import list_files
from effbook.errors import EffbookError
from effbook.evaluate.vision import features
from effbook.experiments.cmsf.stages import OTHER, Stages
from effbook.experiments.shared.draws import subset
from effbook.experiments.shared.encoders import LOOKED_AT, small
from effbook.experiments.shared.splits import BATCH, Split, normalised, split
from effbook.runs.recipe import Context
from effbook.training.augment import Draws, View, augment, draw, make, strong, weak
from effbook.training.views import Views

CHANNELS = {"rgb": 1, "flow": 2}  # of the stand-in: luminance, colour
FLOWS = "cmsf-flow"  # kind of kept result
FEW = 100  # videos; for fewer, starting processes takes longer than decoding


def read_part(recipe: Stages, context: Context, part: str, *, wanted: int | None, seed: int) -> "Images | Videos":
    """A part of the recipe's data set, or `wanted` of its items, drawn from the seed."""
    if recipe.modalities == "luminance-colour":
        return Images(
            recipe=recipe, split=split(recipe.dataset, part, size_px=recipe.image_px, wanted=wanted, seed=seed)
        )
    return _videos(recipe, context, part, wanted=wanted, seed=seed)


def new_encoder(recipe: Stages, modality: str, images: "Images | Videos | None" = None) -> nn.Module:
    """The encoder of a modality before training, [B, ...] to [B, num_features].

    A whitening stem takes its filters from the images; without them it has noise for filters, to be replaced.
    """
    if recipe.encoder == "s3d":
        encoder = S3D(seed=recipe.seed)
        encoder.num_features = encoder.dim
        return encoder
    channels, size_px = CHANNELS[modality], recipe.image_px
    if recipe.encoder == "resnet18":
        return resnet(recipe.encoder, channels=channels, small_images=True, seed=recipe.seed)
    looked_at = images and of_image(images.split.images[:LOOKED_AT], modality)
    return small(recipe.encoder, looked_at, size_px=size_px, channels=channels, seed=recipe.seed)


# -------------------------------------------------------------------------------------- the stand-in: parts of an image


def of_image(pixels: Tensor, modality: str) -> Tensor:
    """What a modality's network sees of [B, 3, H, W], uint8 or in 0..1: "rgb" its luminance, "flow" its colour.

    Both are brought to about zero mean and unit deviation.
    """
    luminance, colour = split_modalities(pixels / 255 if pixels.dtype == torch.uint8 else pixels)
    x = (luminance - 0.5) / 0.25 if modality == "rgb" else colour / 0.07  # [B, 1, H, W] or [B, 2, H, W]
    return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images held as one array, of which each network sees a part."""

    recipe: Stages
    split: Split

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Tensor:
        """[N]."""
        return self.split.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.split.classes

    @property
    def broken(self) -> dict[str, int]:
        """The metric of what could not be decoded: none lies in files."""
        return {}

    def views(self, modality: str, *, other: bool) -> Views:
        """Batches of a modality; with `other` also a weak view of its own of the other one.

        No view is made grey: its colour would be nothing.
        """
        size_px = self.recipe.image_px
        online = strong(size_px, grey_chance=0.0, blur_px=(0.1, max(0.2, 2.0 * size_px / 224)))  # 2 px are of 224
        target = partial(_image_view, view=weak(size_px))
        return Views(
            TensorDataset(self.split.images, torch.full_like(self.labels, -1)),
            strong=partial(_image_view, view=online, modality=modality),
            weak=partial(target, modality=modality),
            extra=partial(target, modality=OTHER[modality]) if other else None,
            seed=self.recipe.seed,
        )

    def features(self, encoder: nn.Module, modality: str, clips: int = 1) -> tuple[Tensor, Tensor]:
        """Features [N, D] of whole images and their labels [N], on the CPU."""
        transform = partial(of_image, modality=modality)
        return features(encoder, self.split.images, BATCH, transform=transform), self.labels


def _image_view(pixels: Tensor, generator: Generator, *, view: View, modality: str) -> Tensor:
    return of_image(augment(pixels, view, generator=generator), modality)


# ------------------------------------------------------------------------------------------------------------- videos


@dataclass(frozen=True, kw_only=True)
class Videos:
    """Videos that lie as files, and beside each the file of its flow: `files` maps a modality to paths [N]."""

    recipe: Stages
    files: dict[str, tuple[Path, ...]]
    labels: Tensor
    classes: tuple[str, ...]
    broken: dict[str, int]  # as a metric

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def workers(self) -> int:
        """Processes that decode."""
        return _workers(len(self))

    def views(self, modality: str, *, other: bool) -> Views:
        """Batches of clips of a modality, each from a moment of its own; with `other` also weak ones of the other one.

        Colours are changed in RGB's strong view alone, and a clip's frames all alike.
        """
        size_px = self.recipe.image_px
        items = [({name: paths[i] for name, paths in self.files.items()}, -1) for i in range(len(self))]
        online = strong(size_px, blur_px=(0.1, 2.0 * size_px / 224)) if modality == "rgb" else weak(size_px)
        target = partial(_clips, view=weak(size_px), recipe=self.recipe)
        return Views(
            items,
            strong=partial(target, view=online, modality=modality),
            weak=partial(target, modality=modality),
            extra=partial(target, modality=OTHER[modality]) if other else None,
            seed=self.recipe.seed,
            workers=self.workers,
        )

    def features(self, encoder: nn.Module, modality: str, clips: int) -> tuple[Tensor, Tensor]:
        """Features [N, D], each the mean over so many clips, evenly spread, of the frames' centre; labels [N]."""
        cut = partial(_centres, recipe=self.recipe, modality=modality, clips=clips)
        loader = DataLoader(self.files[modality], batch_size=None, num_workers=self.workers, collate_fn=cut)
        return torch.stack([features(encoder, each, clips).mean(0) for each in loader]), self.labels


def of_frames(x: Tensor, modality: str) -> Tensor:
    """What S3D sees of frames [T, 3, H, W] in 0..1: [3, T, H, W] of about zero mean. Of flow, no motion is 0."""
    x = normalised(x) if modality == "rgb" else 4 * (x - x.new_tensor([0.5, 0.5, 0.0])[:, None, None])
    return x.transpose(0, 1).contiguous()


def read_video(path: Path, *, short_px: int | None = None) -> Tensor:
    """All frames of a video, uint8 [T, 3, H, W], the shorter side resized; EffbookError for fewer than two frames."""
    import cv2

    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frame = read[1]
        if short_px is not None:
            scale = short_px / min(frame.shape[:2])
            size = tuple(max(short_px, round(side * scale)) for side in frame.shape[1::-1])
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    video.release()
    if len(frames) < 2:
        raise EffbookError(f"the video {path} cannot be decoded", "fetch the data set again")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def short_px(recipe: Stages) -> int:
    """To what the shorter side of a frame is resized: 256 for crops of 224, as for images."""
    return round(recipe.image_px * 256 / 224)


def _videos(recipe: Stages, context: Context, part: str, *, wanted: int | None, seed: int) -> Videos:
    """A split's videos. Their flow is computed once, of the resized frames, and kept as motion JPEG."""
    listed = list_files(recipe.dataset, part)
    wanted = wanted if wanted is not None and wanted < len(listed) else None
    chosen = subset(len(listed), wanted, seed=seed)
    paths = tuple(listed.paths[place] for place in chosen)

    def write(folder: Path) -> None:
        one = partial(_write_flow, paths=paths, folder=folder, short_px=short_px(recipe))
        bar = context.progress(len(paths), "optical flow")
        broken = []
        loader = DataLoader(range(len(paths)), batch_size=None, num_workers=_workers(len(paths)), collate_fn=one)
        for place, sound in enumerate(loader):
            broken += [] if sound else [place]
            bar.advance(1)
        (folder / "broken.json").write_text(json.dumps(broken), encoding="utf-8")

    drawn = {"part": part, "wanted": wanted, "seed": 0 if wanted is None else seed, "short_px": short_px(recipe)}
    own = recipe.training()
    folder = context.cached(FLOWS, drawn | {"data": own.digests}, own, write)
    broken = set(json.loads((folder / "broken.json").read_text(encoding="utf-8")))
    sound = [place for place in range(len(paths)) if place not in broken]
    if not sound:
        raise EffbookError(f"no video of {recipe.dataset} in {part} can be decoded", "fetch the data set again")
    return Videos(
        recipe=recipe,
        files={"rgb": tuple(paths[p] for p in sound), "flow": tuple(_flow_path(folder, p) for p in sound)},
        labels=torch.from_numpy(listed.labels[chosen])[sound],
        classes=listed.classes,
        broken={"broken_videos": len(broken)},
    )


def _flow_path(folder: Path, place: int) -> Path:
    return folder / f"{place:05}.avi"


def _write_flow(place: int, *, paths: Sequence[Path], folder: Path, short_px: int) -> bool:
    """Write a video's flow, with one frame fewer; False where the video cannot be decoded."""
    import cv2

    try:
        clip = read_video(paths[place], short_px=short_px)
    except EffbookError:
        return False
    height, width = clip.shape[-2:]
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(_flow_path(folder, place)), cv2.CAP_OPENCV_MJPEG, codec, 25.0, (width, height))
    for frame in (flow_as_frames(tvl1_flow(clip)) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        video.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    video.release()
    return True


def _read(path: Path, recipe: Stages, modality: str) -> Tensor:
    return read_video(path, short_px=short_px(recipe) if modality == "rgb" else None)  # flow was computed at its size


def _clips(videos: list[dict[str, Path]], generator: Generator, *, view: View, recipe: Stages, modality: str) -> Tensor:
    """A random clip of each video, [B, 3, T, S, S], all frames of it cut and changed alike."""
    found = []
    for video in videos:
        frames = _read(video[modality], recipe, modality)
        frames = frames[draw_clip(len(frames), length=recipe.frames, generator=generator)]
        once = draw(view, 1, *frames.shape[-2:], generator=generator)
        fields = (getattr(once, field.name) for field in dataclasses.fields(once))
        x = make(frames, view, Draws(*(field.repeat_interleave(len(frames), dim=0) for field in fields)))
        if modality == "flow" and once.flips[0]:
            x[:, 0] = 1 - x[:, 0]  # mirrored, what moved to the right moves to the left
        found.append(of_frames(x, modality))
    return torch.stack(found)


def _centres(path: Path, *, recipe: Stages, modality: str, clips: int) -> Tensor:
    """Evenly spread clips of one video, [clips, 3, T, S, S], cut from the middle."""
    frames, size = _read(path, recipe, modality), recipe.image_px
    top, left = ((side - size) // 2 for side in frames.shape[-2:])
    frames = frames[:, :, top : top + size, left : left + size] / 255
    starts = torch.linspace(0, max(0, len(frames) - recipe.frames), clips).round().long()
    places = (starts[:, None] + torch.arange(recipe.frames)) % len(frames)  # a short video is repeated
    return torch.stack([of_frames(frames[each], modality) for each in places])


def _workers(videos: int) -> int:
    return 0 if videos < FEW else min(16, os.cpu_count() or 1)
