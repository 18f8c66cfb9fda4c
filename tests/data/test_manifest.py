"""Manifests: valid, strict, and a digest that stays."""

import pytest

from effbook import data
from effbook.data.images import ARRAY_READERS
from effbook.data.listing import FILE_READERS
from effbook.data.text import INSTRUCTION_READERS, PAIR_READERS
from effbook.errors import EffbookError

NAMED = [
    "cifar10",
    "mnist",
    "fashion-mnist",
    "digits",
    "vit-s14",
    "smollm2-135m",
    "webnlg",
    "e2e",
    "wordnet",
    "gpt2-medium",
    "gpt2-large",
    "llama2-7b",
    "llama2-13b",
    "llama2-70b",
    "alpaca",
    "mmlu",
    "dart",
    "cifar100",
    "cub200",
    "caltech101",
    "aircraft",
    "food101",
    "pets",
    "sun397",
    "imagenet100",
    "imagenet",
    "imagenet-lists",
    "cars",
    "dtd",
    "flowers102",
    "caltech101-background",
    "ucf101",
    "vit-b",
    "vit-l",
    "vit-b-mae",
    "vit-l-mae",
    "toy-shapes",
    "toy-pairs",
    "mip-nerf360",
    "tanks-and-temples",
    "deep-blending",
    "nerf-synthetic",
    "dl3dv-140",
    "arkit-200",
    "fox",
    "vgg16",
    "lpips",
    "moco-v2-r50",
    "byol-r50",
    "swav-r50",
    "simclr-r50x4",
    "resnet50",
    "voc",
    "deit-ti",
    "deit-s",
    "deit-b",
    "avit-ti",
    "avit-s",
]
POSED = {"colmap", "synthetic", "ngp", "dl3dv", "arkit"}  # read by the scenes of CompGS
READERS = {
    "images": {*ARRAY_READERS, *FILE_READERS, "voc", "imagenet-lists"} - {"ucf101"},
    "videos": {"ucf101"},
    "scenes": POSED,
    "pairs": set(PAIR_READERS),
    "instructions": set(INSTRUCTION_READERS),
    "weights": {"timm", "transformers", "gguf", "vit-onnx", "lpips", "teacher", "deit"},
    "lexicon": {"wordnet"},
}


def test_every_data_set_of_the_chapters_has_a_manifest():
    assert set(NAMED) <= set(data.manifests())


@pytest.mark.parametrize("name", NAMED)
def test_every_manifest_validates_and_names_a_reader_that_exists(name):
    described = data.manifest(name)
    assert described.loader in READERS[described.kind]
    assert described.citation
    assert described.licence
    if described.kind in ("images", "videos", "scenes", "pairs", "instructions"):
        assert described.splits


def test_every_package_file_is_pinned_by_sha256_and_size():
    for described in data.manifests().values():
        for source in described.sources:
            if source.kind == "package":
                assert all(file.sha256 and file.size_bytes for file in source.files)


def test_one_archive_serves_two_data_sets_that_each_pick_their_scenes():
    picked = {name: data.manifest(name).sources[0].files[0] for name in ("tanks-and-temples", "deep-blending")}
    assert len({file.url for file in picked.values()}) == 1
    assert {name: file.pick for name, file in picked.items()} == {"tanks-and-temples": "tandt/", "deep-blending": "db/"}


def test_an_unknown_name_lists_the_nearest_ones():
    with pytest.raises(EffbookError, match="'cifar1O'; the nearest names are cifar10"):
        data.manifest("cifar1O")


def test_an_unknown_key_is_refused_by_name(house):
    house.write(colour="red")
    with pytest.raises(EffbookError, match=r"thing\.yaml is not valid \(colour: Extra inputs"):
        data.manifests()


@pytest.mark.parametrize("path", ["/etc/passwd", "../other", "a/../../b", "a\\b", ""])
def test_a_path_out_of_its_folder_is_refused(house, path):
    house.write(sources=[{"kind": "local", "folder": "x", "files": [{"path": path}]}])
    with pytest.raises(EffbookError, match="not valid"):
        data.manifests()


def test_a_misspelt_checksum_is_refused(house):
    house.write(sources=[{"kind": "local", "folder": "x", "files": [{"path": "a", "sha256": "abc"}]}])
    with pytest.raises(EffbookError, match="sha256"):
        data.manifests()


def test_a_file_name_that_differs_from_the_name_inside_is_refused(house):
    house.write().rename(house.manifests / "other.yaml")
    with pytest.raises(EffbookError, match="calls itself 'thing'"):
        data.manifests()


def test_the_digest_changes_with_the_pinned_bytes_and_with_nothing_else(house):
    def digest_with(letters, **changes):
        sources = [
            {"kind": "local", "folder": "x", "files": [{"path": "f", "sha256": letter * 64}]} for letter in letters
        ]
        house.write(sources=sources, **changes)
        return data.digest("thing")

    first = digest_with("a")
    assert len(first) == 64
    assert digest_with("a", title="Renamed", homepage="https://example.com") == first
    assert digest_with("ab") == first  # a further source of the same data
    assert digest_with("b") != first


def test_data_that_nobody_has_pinned_has_a_digest_too(house):
    house.write()
    assert len(data.digest("thing")) == 64


def test_the_digests_of_the_embedded_data_are_those_that_records_hold():
    # A change here makes every record that used the data stale: it must be meant.
    known = {
        "cifar10": "a60d0a79dda0",
        "e2e": "583b6c48ecb2",
        "mnist": "5536f5c0f48e",
        "smollm2-135m": "5c0b85b50a87",
        "vit-s14": "883b7bf26f86",
        "webnlg": "09702c434ce4",
    }
    assert {name: data.digest(name)[:12] for name in known} == known
