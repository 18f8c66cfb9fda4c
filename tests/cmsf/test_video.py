import sys

import pytest
import torch

from effbook.cmsf.video import S3D, draw_clip, flow_as_frames, join_modalities, split_modalities, tvl1_flow
from effbook.errors import EffbookError


def moving_square(frames, step):
    """A textured square that moves to the right by `step` pixels a frame, uint8 [T, 3, 48, 48]."""
    texture = torch.randint(60, 255, (20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    texture = texture.float()[None, None]
    texture = torch.nn.functional.avg_pool2d(texture, 5, stride=1, padding=2)[0, 0].to(torch.uint8)
    clip = torch.zeros(frames, 3, 48, 48, dtype=torch.uint8)
    for t in range(frames):
        clip[t, :, 14:34, 8 + step * t : 28 + step * t] = texture
    return clip


def test_the_flow_of_a_moving_square_is_its_motion():
    pytest.importorskip("cv2")
    flow = tvl1_flow(moving_square(3, step=2))
    assert flow.shape == (2, 2, 48, 48)
    assert flow.dtype == torch.float32
    middle = flow[0, :, 18:30, 14:24]
    assert middle[0].median() == pytest.approx(2.0, abs=0.3)
    assert middle[1].median() == pytest.approx(0.0, abs=0.3)
    assert tvl1_flow(moving_square(2, step=0)).abs().max() == 0


@pytest.mark.parametrize("present", [False, True], ids=["no OpenCV", "OpenCV without its contributed modules"])
def test_without_optical_flow_one_is_told_what_to_install(monkeypatch, present):
    monkeypatch.setitem(sys.modules, "cv2", type(sys)("cv2") if present else None)
    with pytest.raises(EffbookError, match="opencv-contrib-python-headless"):
        tvl1_flow(moving_square(2, step=1))


@pytest.mark.parametrize(
    "clip", [torch.zeros(3, 3, 8, 8), torch.zeros(1, 3, 8, 8).byte(), torch.zeros(3, 1, 8, 8).byte()]
)
def test_other_than_a_clip_has_no_flow(clip):
    with pytest.raises(EffbookError):
        tvl1_flow(clip)


def test_flow_fills_the_range_of_frames():
    flow = torch.tensor([-20.0, 0.0, 20.0]).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    frames = flow_as_frames(flow)
    assert frames.shape == (3, 3, 4, 4)
    assert frames[:, 0, 0, 0].tolist() == frames[:, 1, 0, 0].tolist() == [0.0, 0.5, 1.0]
    assert frames[:, 2].abs().max() == 0


def test_clips_lie_anywhere_in_a_video_and_short_videos_repeat():
    g = torch.Generator().manual_seed(0)
    clips = [draw_clip(20, length=4, step=3, generator=g) for _ in range(300)]
    assert {int(clip[0]) for clip in clips} == set(range(11))
    assert all((clip.diff() == 3).all() for clip in clips)
    assert draw_clip(3, length=5, generator=g).tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(EffbookError):
        draw_clip(0, length=5, generator=g)


def test_s3d_gives_1024_features_at_any_size_and_its_seed_decides_it():
    state = torch.get_rng_state()
    one, again = S3D(seed=0).eval(), S3D(seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    clips = torch.rand(2, 3, 16, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = one(clips)
        assert torch.allclose(one(clips[1:])[0], features[1], atol=1e-5)
    assert features.shape == (2, one.dim) == (2, 1024)
    with pytest.raises(EffbookError):
        one(clips[:, :, :8])
    with pytest.raises(EffbookError):
        one(clips[:, :2])


def test_luminance_and_colour_hold_the_whole_image_and_no_part_of_each_other():
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    luminance, colour = split_modalities(images)
    assert luminance.shape == (2, 1, 5, 7)
    assert colour.shape == (2, 2, 5, 7)
    assert torch.allclose(join_modalities(luminance, colour), images, atol=1e-6)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(split_modalities(grey)[0], grey[:, :1], atol=1e-6)
    assert split_modalities(grey)[1].abs().max() < 1e-6
    brighter = split_modalities(images + 0.1)
    assert torch.allclose(brighter[1], colour, atol=1e-6)
    assert torch.allclose(brighter[0], luminance + 0.1, atol=1e-6)


def test_the_colours_are_those_of_jpeg():
    from PIL import Image

    images = torch.randint(256, (3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pil = Image.fromarray(images.permute(1, 2, 0).numpy()).convert("YCbCr")
    theirs = torch.frombuffer(bytearray(pil.tobytes()), dtype=torch.uint8).view(4, 4, 3).permute(2, 0, 1).float()
    luminance, colour = split_modalities(images[None] / 255)
    assert (luminance[0, 0] * 255 - theirs[0]).abs().max() < 1.01
    assert (colour[0] * 255 + 128 - theirs[1:]).abs().max() < 1.01


def test_grey_images_have_no_second_modality():
    with pytest.raises(EffbookError):
        split_modalities(torch.zeros(1, 1, 4, 4))
