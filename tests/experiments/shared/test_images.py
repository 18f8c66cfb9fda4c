"""Images made ready and augmented, against plain loops."""

import torch

from effbook.experiments.shared.images import crop_and_flip, prepared


def test_pixels_are_standardised_and_grey_becomes_three_channels():
    grey = torch.full((2, 28, 28), 255, dtype=torch.uint8)
    x = prepared(grey, size_px=14, mean=(0.5, 0.25, 0.0), deviation=(0.5, 0.25, 2.0))
    assert x.shape == (2, 3, 14, 14)
    torch.testing.assert_close(x[0, :, 3, 3], torch.tensor([1.0, 3.0, 0.5]))


def test_crop_and_flip_does_what_plain_loops_do():
    x = torch.randn(6, 3, 8, 8)
    draw = torch.Generator().manual_seed(4)
    got = crop_and_flip(x, draw)
    draw.manual_seed(4)
    top, left = torch.randint(9, (2, 6), generator=draw)
    mirrored = torch.rand(6, generator=draw) < 0.5
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    for i in range(6):
        crop = padded[i, :, top[i] : top[i] + 8, left[i] : left[i] + 8]
        assert torch.equal(got[i], crop.flip(-1) if mirrored[i] else crop)
