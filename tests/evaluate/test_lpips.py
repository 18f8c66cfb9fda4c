"""LPIPS against loops over numbers and against torchvision's own network, and what it refuses."""

import math

import pytest
import torch

from effbook.errors import EffbookError
from effbook.evaluate.lpips import BLOCKS, Lpips, load_lpips

WIDTHS = (2, 3, 2, 3, 2)  # of five tiny blocks
CONVOLUTIONS = (2, 2, 3, 3, 3)


def tiny_weights(seed=0):
    """Checkpoints with torchvision's and LPIPS's names: a convolution and its ReLU count as two, a pooling as one."""
    generator = torch.Generator().manual_seed(seed)
    tower, heads, number, before = {}, {}, 0, 3
    for i, (width, convolutions) in enumerate(zip(WIDTHS, CONVOLUTIONS, strict=True)):
        for _ in range(convolutions):
            tower[f"features.{number}.weight"] = torch.randn(width, before, 3, 3, generator=generator) / math.sqrt(
                before
            )
            tower[f"features.{number}.bias"] = torch.rand(width, generator=generator) / 4
            number, before = number + 2, width
        number += 1
        heads[f"lin{i}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    tower["classifier.0.weight"] = torch.zeros(2, 2)
    return tower, heads


@pytest.fixture
def files(tmp_path):
    tower, heads = tiny_weights()
    torch.save(tower, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "vgg.pth")
    return {"vgg": tmp_path / "vgg16.pth", "linear": tmp_path / "vgg.pth"}


def pair(height=18, width=21, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, 3, generator=generator), torch.rand(height, width, 3, generator=generator)


def slow_lpips(image, wanted, tower, heads, signed=True):
    """The definition in loops over plain numbers: planes[channel][row][column]."""
    total = 0.0
    for i, (ours, theirs) in enumerate(
        zip(slow_features(image, tower, signed), slow_features(wanted, tower, signed), strict=True)
    ):
        weights = heads[f"lin{i}.model.1.weight"].flatten().tolist()
        rows, columns = len(ours[0]), len(ours[0][0])
        for r in range(rows):
            for c in range(columns):
                a, b = ([plane[r][c] for plane in planes] for planes in (ours, theirs))
                length_a, length_b = (math.sqrt(sum(v * v for v in values)) + 1e-10 for values in (a, b))
                for w, x, y in zip(weights, a, b, strict=True):
                    total += w * (x / length_a - y / length_b) ** 2 / (rows * columns)
    return total


def slow_features(image, tower, signed):
    shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
    planes = [
        [[((2 * v - 1 if signed else v) - shift[k]) / scale[k] for v in row] for row in image[..., k].tolist()]
        for k in range(3)
    ]
    number = 0
    for convolutions in CONVOLUTIONS:
        if number:
            planes = [
                [
                    [max(p[2 * r][2 * c], p[2 * r][2 * c + 1], p[2 * r + 1][2 * c], p[2 * r + 1][2 * c + 1])
                     for c in range(len(p[0]) // 2)]
                    for r in range(len(p) // 2)
                ]
                for p in planes
            ]  # fmt: skip
        for _ in range(convolutions):
            kernels, bias = tower[f"features.{number}.weight"].tolist(), tower[f"features.{number}.bias"].tolist()
            planes = [slow_convolution(planes, kernel, b) for kernel, b in zip(kernels, bias, strict=True)]
            number += 2
        number += 1
        yield planes


def slow_convolution(planes, kernel, bias):
    rows, columns = len(planes[0]), len(planes[0][0])
    found = [[bias] * columns for _ in range(rows)]
    for plane, weights in zip(planes, kernel, strict=True):
        for r in range(rows):
            for c in range(columns):
                for i in range(max(0, r - 1), min(rows, r + 2)):
                    for j in range(max(0, c - 1), min(columns, c + 2)):
                        found[r][c] += plane[i][j] * weights[i - r + 1][j - c + 1]
    return [[max(0.0, v) for v in row] for row in found]


@pytest.mark.parametrize("signed", [True, False], ids=["as LPIPS", "as 3DGS"])
def test_lpips_is_its_definition_in_loops(files, signed):
    image, wanted = pair()
    found = load_lpips(**files, signed=signed)(image, wanted)
    assert found == pytest.approx(slow_lpips(image, wanted, *tiny_weights(), signed=signed), rel=1e-5)
    assert found > 1e-3


def test_the_layers_are_those_of_torchvisions_vgg16():
    vgg = pytest.importorskip("torchvision.models.vgg")
    torch.manual_seed(0)
    network = vgg.make_layers(vgg.cfgs["D"]).eval()
    heads = [torch.rand(width) for width in (64, 128, 256, 512, 512)]
    state = network.state_dict()
    blocks = [[(state[f"{n}.weight"], state[f"{n}.bias"]) for n in block] for block in BLOCKS]
    image, wanted = pair(32, 34)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = torch.stack([(2 * one - 1 - shift) / scale for one in (image, wanted)]).permute(0, 3, 1, 2)
    expected = 0.0
    with torch.no_grad():
        for number, layer in enumerate(network):
            x = layer(x)
            if number in (3, 8, 15, 22, 29):  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
                unit = torch.nn.functional.normalize(x, dim=1)
                weights = heads[(3, 8, 15, 22, 29).index(number)][:, None, None]
                expected += float((weights * (unit[0] - unit[1]) ** 2).sum(0).mean())
    assert Lpips(blocks=blocks, linear=heads)(image, wanted) == pytest.approx(expected, rel=1e-4)


def test_equal_images_are_at_distance_zero_and_the_order_does_not_matter(files):
    lpips = load_lpips(**files)
    image, wanted = pair()
    assert lpips(image, image) == 0
    assert lpips(image, wanted) == pytest.approx(lpips(wanted, image), rel=1e-6)
    black = torch.zeros(16, 16, 3)
    assert lpips(black, black) == 0
    assert math.isfinite(lpips(black, torch.ones(16, 16, 3)))


def test_a_checkpoint_in_torchs_old_format_is_read(files, tmp_path):
    torch.save(tiny_weights()[0], tmp_path / "old.pth", _use_new_zipfile_serialization=False)  # as VGG16's is
    image, wanted = pair()
    old = load_lpips(vgg=tmp_path / "old.pth", linear=files["linear"])
    assert old(image, wanted) == load_lpips(**files)(image, wanted)


def test_images_that_cannot_be_compared_are_refused(files):
    lpips = load_lpips(**files)
    image, wanted = pair()
    with pytest.raises(EffbookError, match="of one size"):
        lpips(image, wanted[:-1])
    with pytest.raises(EffbookError, match="21 x 15 is too small"):
        lpips(image[:15], wanted[:15])


def test_missing_or_other_weights_are_told_in_one_sentence(files, tmp_path):
    with pytest.raises(EffbookError, match=r"lacks its weights vgg16\.pth; run 'effbook data fetch vgg16 lpips'"):
        load_lpips(vgg=tmp_path / "nowhere" / "vgg16.pth", linear=files["linear"])
    with pytest.raises(EffbookError, match=r"lack 'lin0\.model\.1\.weight'"):
        load_lpips(vgg=files["vgg"], linear=files["vgg"])
    files["linear"].write_bytes(files["linear"].read_bytes()[:200])
    with pytest.raises(EffbookError, match=r"vgg\.pth is no file of weights"):
        load_lpips(**files)
    heads = tiny_weights()[1] | {"lin2.model.1.weight": torch.ones(1, 9, 1, 1)}
    torch.save(heads, files["linear"])
    with pytest.raises(EffbookError, match="do not belong together"):
        load_lpips(**files)


def test_a_file_that_would_run_code_is_refused(files):
    import pickle

    class Calls:
        def __reduce__(self):
            return print, ("called",)

    files["linear"].write_bytes(pickle.dumps(Calls(), protocol=2))
    with pytest.raises(EffbookError, match="no file of weights"):
        load_lpips(**files)
