"""Two modalities: frames and optical flow of videos (A.1.2), or brightness and colour of images as their stand-in."""

from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor, nn

from effbook.errors import EffbookError

LARGEST_PX = 20.0  # of a motion; larger ones are cut off


def draw_clip(frames: int, *, length: int, step: int = 1, generator: Generator) -> Tensor:
    """Positions [length] of a clip's frames, `step` apart, from a random start in a video of so many frames.

    A video that is too short is repeated from its beginning. Raises EffbookError where a number is below 1.
    """
    if min(frames, length, step) < 1:
        raise EffbookError(
            f"no clip of {length} frames, {step} apart, is in a video of {frames}", "give numbers of at least 1"
        )
    starts = max(1, frames - (length - 1) * step)
    start = torch.randint(starts, (1,), generator=generator)
    return (start + step * torch.arange(length)) % frames


def tvl1_flow(clip: Tensor) -> Tensor:
    """TV-L1 optical flow of a clip, uint8 [T, 3, H, W]: [T - 1, 2, H, W] float32, in pixels to the right and down.

    Motions are cut off at 20 pixels. Raises EffbookError for another kind of clip, or where OpenCV's optical flow is
    missing. Source: A.1.2.
    """
    if clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[1] != 3 or len(clip) < 2:
        raise EffbookError(f"A clip {tuple(clip.shape)} of {clip.dtype} has no flow", "give uint8 [T, 3, H, W], T >= 2")
    try:
        import cv2

        method = cv2.optflow.DualTVL1OpticalFlow_create()
    except (ModuleNotFoundError, AttributeError) as error:
        raise EffbookError(
            "OpenCV with its optical flow is not installed", "pip install opencv-contrib-python-headless"
        ) from error
    grey = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in clip.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
    flows = [method.calc(before, after, None) for before, after in pairwise(grey)]  # [H, W, 2]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).clamp(-LARGEST_PX, LARGEST_PX)


def flow_as_frames(flow: Tensor) -> Tensor:
    """Flow [T, 2, H, W] in pixels as input of an encoder for frames: [T, 3, H, W] in 0..1, the third channel 0."""
    scaled = (flow / LARGEST_PX + 1) / 2
    return torch.cat((scaled, torch.zeros_like(scaled[:, :1])), 1)


class S3D(nn.Module):
    """torchvision's S3D without its classifier, from random weights: clips [B, 3, T, H, W] to features [B, 1024].

    T of at least 16 frames; any size of at least 32 pixels, as features are averaged over time and place (torchvision's
    own pooling needs 224). The weights are drawn from `seed`. Raises EffbookError where torchvision is missing, or a
    clip is too small.
    """

    dim = 1024

    def __init__(self, *, seed: int) -> None:
        super().__init__()
        try:
            from torchvision.models.video import s3d
        except ModuleNotFoundError as error:
            raise EffbookError("torchvision is not installed", "pip install 'effbook[experiments]'") from error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = s3d(weights=None).features

    def forward(self, clips: Tensor) -> Tensor:
        if clips.ndim != 5 or clips.shape[1] != 3 or clips.shape[2] < 16 or min(clips.shape[3:]) < 32:
            raise EffbookError(
                f"S3D cannot take clips {tuple(clips.shape)}", "give [B, 3, T, H, W] with T >= 16 and sides >= 32"
            )
        return self.features(clips).mean((2, 3, 4))


def split_modalities(images: Tensor) -> tuple[Tensor, Tensor]:
    """A stand-in for frames and flow: luminance [B, 1, H, W] and colour [B, 2, H, W] of RGB images in 0..1.

    The colour is Cb and Cr of JPEG's YCbCr, from -0.5 to 0.5: grey is 0. Together they are the whole image
    (`join_modalities`). Raises EffbookError for other than floating [B, 3, H, W].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise EffbookError(f"{tuple(images.shape)} of {images.dtype} are no colour images", "give floats [B, 3, H, W]")
    red, green, blue = images.unbind(1)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return y[:, None], torch.stack(((blue - y) / 1.772, (red - y) / 1.402), 1)


def join_modalities(luminance: Tensor, colour: Tensor) -> Tensor:
    """The RGB images [B, 3, H, W] of which `split_modalities` made luminance [B, 1, H, W] and colour [B, 2, H, W]."""
    y, (cb, cr) = luminance[:, 0], colour.unbind(1)
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    return torch.stack((red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue), 1)
