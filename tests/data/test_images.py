"""Images: each published format, read from a small tree written in it."""

import gzip
import json
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image

from effbook import data
from effbook.errors import EffbookError


def picture(path, colour, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def colours(images):
    """The mean colour of each image, rounded to tens (JPEG isn't exact), [N, 3]."""
    return [tuple(int(v) for v in image.mean((0, 1)).round(-1)) for image in images]


RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def records(labels, label_bytes, rng):
    """CIFAR's binary format: label bytes, then the red, green and blue planes."""
    images = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    raw = b"".join(
        bytes([99] * (label_bytes - 1) + [label]) + image.transpose(2, 0, 1).tobytes()
        for label, image in zip(labels, images, strict=True)
    )
    return images, raw


def test_cifar100_is_read_from_the_authors_binary_format(house):
    rng = np.random.default_rng(0)
    root = house.local / "cifar100" / "cifar-100-binary"
    root.mkdir(parents=True)
    images, raw = records([7, 0, 3], 2, rng)
    (root / "train.bin").write_bytes(raw)
    (root / "test.bin").write_bytes(raw[:3074])
    (root / "fine_label_names.txt").write_text("\n".join(f"c{i}" for i in range(100)) + "\n")
    house.borrow("cifar100", {"train": 3, "test": 1})
    data.fetch("cifar100")
    found = data.load_images("cifar100", "train")
    assert np.array_equal(found.images, images)
    assert found.images.dtype == np.uint8
    assert found.labels.tolist() == [7, 0, 3]
    assert found.classes[7] == "c7"
    chosen = data.load_images("cifar100", "train", indices=[2, 0])
    assert np.array_equal(chosen.images, images[[2, 0]])
    assert len(data.load_images("cifar100", "test")) == 1


def test_cifar10_gives_the_same_from_sheets_and_from_the_binary_archive(house):
    from effbook.data.images import read_cifar

    rng = np.random.default_rng(0)
    house.borrow_whole("cifar10")
    described = data.manifest("cifar10")
    sheets, binary = house.local / "sheets", house.local / "binary"
    (binary / "cifar-10-batches-bin").mkdir(parents=True)
    sheets.mkdir()
    every = []
    for i in range(1, 6):
        labels = rng.integers(0, 10, 2).tolist()
        images, raw = records(labels, 1, rng)
        (binary / "cifar-10-batches-bin" / f"data_batch_{i}.bin").write_bytes(raw)
        Image.fromarray(images.reshape(2, 1024, 3)).save(sheets / f"data_batch_{i}.png")
        every += labels
    (sheets / "train_lables.json").write_text(json.dumps(every))
    one, other = read_cifar(sheets, "train", described), read_cifar(binary, "train", described)
    assert np.array_equal(one.images, other.images)
    assert one.labels.tolist() == other.labels.tolist() == every
    assert one.classes[3] == "cat"


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_plain_and_gzipped(house, zipped):
    from effbook.data.images import read_idx_pair

    house.borrow_whole("mnist")
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    header = b"\0\0\x08"
    files = {
        "train-images-idx3-ubyte": header + b"\3" + np.array([2, 3, 4], ">i4").tobytes() + images.tobytes(),
        "train-labels-idx1-ubyte": header + b"\1" + np.array([2], ">i4").tobytes() + bytes([9, 4]),
    }
    for name, content in files.items():
        path = house.local / (name + ".gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    found = read_idx_pair(house.local, "train", data.manifest("mnist"))
    assert np.array_equal(found.images, images)
    assert found.labels.tolist() == [9, 4]


def test_cub200_follows_its_three_lists(house):
    root = house.local / "cub200" / "CUB_200_2011"
    picture(root / "images/001.Black_footed_Albatross/a.jpg", RED)
    picture(root / "images/002.Laysan_Albatross/b.jpg", GREEN)
    picture(root / "images/002.Laysan_Albatross/c.jpg", BLUE)
    (root / "images.txt").write_text(
        "1 001.Black_footed_Albatross/a.jpg\n2 002.Laysan_Albatross/b.jpg\n3 002.Laysan_Albatross/c.jpg\n"
    )
    (root / "image_class_labels.txt").write_text("1 1\n2 2\n3 2\n")
    (root / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n")
    (root / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    house.borrow("cub200", {"train": 2, "test": 1})
    data.fetch("cub200")
    train = data.load_images("cub200", "train", image_px=16)
    assert train.images.shape == (2, 16, 16, 3)
    assert colours(train.images) == [RED, BLUE]
    assert train.labels.tolist() == [0, 1]
    assert train.classes == ("Black footed Albatross", "Laysan Albatross")
    assert colours(data.load_images("cub200", "test", image_px=16).images) == [GREEN]


def test_only_the_chosen_images_are_decoded(house):
    root = house.local / "cub200" / "CUB_200_2011"
    picture(root / "images/001.A/a.jpg", RED)
    (root / "images/001.A/b.jpg").write_bytes(b"no image")
    (root / "images.txt").write_text("1 001.A/b.jpg\n2 001.A/a.jpg\n")
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n")
    (root / "train_test_split.txt").write_text("1 1\n2 1\n")
    (root / "classes.txt").write_text("1 001.A\n")
    house.borrow("cub200", {"train": 2, "test": 0})
    data.fetch("cub200")
    assert len(data.list_images("cub200", "train")) == 2
    assert colours(data.load_images("cub200", "train", image_px=8, indices=[1]).images) == [RED]


def test_aircraft_is_read_with_train_and_val_together(house):
    root = house.local / "aircraft" / "fgvc-aircraft-2013b" / "data"
    for name, colour in {"0001": RED, "0002": GREEN, "0003": BLUE}.items():
        picture(root / "images" / f"{name}.jpg", colour)
    (root / "variants.txt").write_text("707-320\nA380\n")
    (root / "images_variant_trainval.txt").write_text("0001 A380\n0002 707-320\n")
    (root / "images_variant_test.txt").write_text("0003 A380\n")
    house.borrow("aircraft", {"train": 2, "test": 1})
    data.fetch("aircraft")
    train, test = (data.load_images("aircraft", split, image_px=16) for split in ("train", "test"))
    assert colours(train.images) == [RED, GREEN]
    assert train.labels.tolist() == [1, 0]
    assert (colours(test.images), test.labels.tolist(), test.classes) == ([BLUE], [1], ("707-320", "A380"))


def test_food101_is_read_by_its_lists(house):
    root = house.local / "food101" / "food-101"
    picture(root / "images/apple_pie/1.jpg", RED)
    picture(root / "images/waffles/2.jpg", GREEN)
    (root / "meta").mkdir()
    for split, content in {
        "train": {"apple_pie": ["apple_pie/1"], "waffles": []},
        "test": {"waffles": ["waffles/2"]},
    }.items():
        (root / "meta" / f"{split}.json").write_text(json.dumps(content))
    (root / "meta" / "classes.txt").write_text("apple_pie\nwaffles\n")
    house.borrow("food101", {"train": 1, "test": 1})
    data.fetch("food101")
    assert colours(data.load_images("food101", "train", image_px=16).images) == [RED]


def test_pets_are_read_by_their_lists(house):
    root = house.local / "pets" / "oxford-iiit-pet"
    picture(root / "images/Abyssinian_1.jpg", RED)
    picture(root / "images/american_bulldog_7.jpg", GREEN)
    (root / "annotations").mkdir()
    (root / "annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\namerican_bulldog_7 2 2 1\n")
    (root / "annotations/test.txt").write_text("#a comment\nAbyssinian_1 1 1 1\n")
    house.borrow("pets", {"train": 2, "test": 1})
    data.fetch("pets")
    train = data.load_images("pets", "train", image_px=16)
    assert colours(train.images) == [RED, GREEN]
    assert train.labels.tolist() == [0, 1]
    assert train.classes == ("Abyssinian", "american bulldog")


def test_sun397_follows_its_first_partition(house):
    root = house.local / "sun397"
    picture(root / "SUN397/a/abbey/sun_1.jpg", RED)
    picture(root / "SUN397/b/bow_window/indoor/sun_2.jpg", GREEN)
    (root / "SUN397/ClassName.txt").write_text("/a/abbey\n/b/bow_window/indoor\n")
    (root / "Partitions").mkdir()
    (root / "Partitions/Training_01.txt").write_text("/b/bow_window/indoor/sun_2.jpg\n")
    (root / "Partitions/Testing_01.txt").write_text("/a/abbey/sun_1.jpg\n")
    house.borrow("sun397", {"train": 1, "test": 1})
    data.fetch("sun397")
    train, test = (data.load_images("sun397", split, image_px=16) for split in ("train", "test"))
    assert (colours(train.images), train.labels.tolist()) == ([GREEN], [1])
    assert (colours(test.images), test.labels.tolist()) == ([RED], [0])
    assert train.classes == ("abbey", "bow_window/indoor")


def test_caltech101_draws_thirty_a_class_and_leaves_the_background_out(house):
    root = house.local / "caltech101" / "101_ObjectCategories"
    for name, count in {"BACKGROUND_Google": 2, "accordion": 33, "yin_yang": 31}.items():
        for i in range(count):
            picture(root / name / f"image_{i:04d}.jpg", RED, (8, 8))
    house.borrow("caltech101", {"train": 60, "test": 4})
    data.fetch("caltech101")
    train, test = (data.list_images("caltech101", split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [30, 30]
    assert np.bincount(test.labels).tolist() == [3, 1]
    assert not set(train.paths) & set(test.paths)
    assert train.classes == ("accordion", "yin_yang")
    assert data.list_images("caltech101", "train").paths == train.paths


def test_imagenet100_reads_only_its_classes(house):
    from effbook.data.folders import read_imagenet_folder

    house.borrow_whole("imagenet100")
    described = data.manifest("imagenet100")
    assert len(set(described.classes)) == 100
    two = described.model_copy(update={"classes": ("n02", "n01")})
    for name, colour in {"n01": RED, "n02": GREEN, "n03": BLUE}.items():
        for split in ("train", "val"):
            picture(house.local / split / name / "x.JPEG", colour)
    found = read_imagenet_folder(house.local, "test", two)
    assert found.classes == ("n01", "n02")
    assert [path.parent.name for path in found.paths] == ["n01", "n02"]
    assert all("val" in path.parts for path in found.paths)


def test_a_picture_is_cut_from_its_centre(house):
    from effbook.data.images import decode

    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(house.local / "wide.png")
    cut = decode(house.local / "wide.png", 10)
    assert cut.shape == (10, 10, 3)
    assert cut[:, 2:8].min() > 200


def test_a_wrong_count_is_told(house):
    root = house.local / "pets" / "oxford-iiit-pet"
    picture(root / "images/Abyssinian_1.jpg", RED)
    (root / "annotations").mkdir()
    (root / "annotations/test.txt").write_text("Abyssinian_1 1 1 1\n")
    house.borrow("pets", {"train": 2, "test": 2})
    data.fetch("pets")
    with pytest.raises(EffbookError, match="pets has 1 items in test where its manifest counts 2"):
        data.load_images("pets", "test")


def test_a_folder_laid_out_otherwise_is_told_in_one_sentence(house):
    root = house.local / "pets" / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    house.borrow("pets", {"train": 2, "test": 2})
    data.fetch("pets")
    with pytest.raises(EffbookError, match=r"incomplete or laid out otherwise .*test\.txt.* compare it with"):
        data.load_images("pets", "test")


def test_an_unknown_split_and_a_wrong_kind_are_told():
    with pytest.raises(EffbookError, match="has no split 'val'; choose train or test"):
        data.load_images("toy-shapes", "val")
    with pytest.raises(EffbookError, match="toy-pairs holds pairs, not images"):
        data.load_images("toy-pairs", "train")


def test_a_fetched_archive_of_images_serves_as_the_folder_does(house):
    root = house.local / "tree"
    picture(root / "oxford-iiit-pet/images/Abyssinian_1.jpg", RED)
    (root / "oxford-iiit-pet/annotations").mkdir()
    (root / "oxford-iiit-pet/annotations/test.txt").write_text("Abyssinian_1 1 1 1\n")
    house.borrow_whole("pets")
    described = data.manifest("pets")
    files = []
    for file in described.sources[0].files:
        part = file.path.removesuffix(".tar.gz")
        with tarfile.open(house.local / file.path, "w:gz") as opened:
            opened.add(root / "oxford-iiit-pet" / part, part)
        files.append({"path": file.path, "unpack_to": file.unpack_to, "url": (house.local / file.path).as_uri()})
    changed = described.model_dump(mode="json") | {"splits": {"test": 1}, "sources": [{"kind": "url", "files": files}]}
    house.write(**changed)
    data.fetch("pets")
    assert colours(data.load_images("pets", "test", image_px=8).images) == [RED]


def pets(house, **files):
    """A fetched copy of pets whose test split is `files`: name -> bytes, or None for a picture; all of class 1."""
    root = house.local / "pets" / "oxford-iiit-pet"
    for name, content in files.items():
        picture(root / f"images/{name}.jpg", RED)
        if content is not None:
            (root / f"images/{name}.jpg").write_bytes(content)
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/test.txt").write_text("".join(f"{name} 1 1 1\n" for name in files))
    house.borrow("pets", {"test": len(files)})
    data.fetch("pets")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bomb"])
def test_an_image_that_cannot_be_decoded_is_named(house, monkeypatch, damage):
    picture(house.local / "whole.jpg", RED, (400, 300))
    whole = (house.local / "whole.jpg").read_bytes()
    content = {"empty": b"", "text": b"no image", "cut": whole[: len(whole) // 2], "bomb": whole}[damage]
    if damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    pets(house, good_1=None, bad_1=content)
    if damage != "bomb":
        assert len(data.load_images("pets", "test", image_px=8, indices=[0])) == 1
    with pytest.raises(EffbookError, match=r"the image .*/images/bad_1\.jpg cannot be decoded .*; fetch"):
        data.load_images("pets", "test", image_px=8, indices=[1])


def test_an_image_that_is_listed_but_not_there_is_named(house):
    pets(house, good_1=None, lost_1=None)
    (house.local / "pets/oxford-iiit-pet/images/lost_1.jpg").unlink()
    with pytest.raises(EffbookError, match=r"lost_1\.jpg cannot be decoded"):
        data.load_images("pets", "test", image_px=8)


def test_no_pixel_is_no_image(house):
    pets(house, good_1=None)
    with pytest.raises(EffbookError, match="image_px = 0 leaves nothing"):
        data.load_images("pets", "test", image_px=0)


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([-1], "has no image -1 in test; choose from 0 to 199"),
        ([0, 200], "has no image 200 in test"),
        ([0.5], "not whole numbers"),
        (np.ones(200, dtype=bool), "not whole numbers"),
        ([[0, 1]], "not whole numbers"),
    ],
)
def test_indices_beyond_the_images_are_refused(indices, words):
    with pytest.raises(EffbookError, match=words):
        data.load_images("toy-shapes", "test", indices=indices)


def test_no_indices_are_no_images():
    assert data.load_images("toy-shapes", "test", indices=[]).images.shape == (0, 32, 32, 3)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 10], "labels from 0 to 10 for 10 classes"),
        ([-1, 3], "labels from -1 to 3 for 10 classes"),
        ([1, 2, 3], "3 items in test where its manifest counts 2"),
        ([1, "two"], "laid out otherwise"),
        ({"a": 1}, "laid out otherwise"),
    ],
)
def test_labels_that_are_wrong_are_told(house, labels, words):
    house.borrow_whole("cifar10")
    described = data.manifest("cifar10").model_dump(mode="json")
    source = {"kind": "local", "folder": "sheets", "files": [{"path": "test_batch.png"}, {"path": "test_lables.json"}]}
    (house.local / "sheets").mkdir()
    (house.local / "sheets" / "test_lables.json").write_text(json.dumps(labels))
    Image.fromarray(np.zeros((2, 1024, 3), dtype=np.uint8)).save(house.local / "sheets" / "data_batch_1.png")
    Image.fromarray(np.zeros((2, 1024, 3), dtype=np.uint8)).save(house.local / "sheets" / "test_batch.png")
    source["files"].append({"path": "data_batch_1.png"})
    house.write(**described | {"splits": {"test": 2}, "sources": [source]})
    data.fetch("cifar10")
    with pytest.raises(EffbookError, match=words):
        data.load_images("cifar10", "test")


def test_images_without_a_label_each_are_told(house):
    images = np.zeros((3, 8, 8), dtype=np.uint8)
    (house.local / "mnist").mkdir()
    header = b"\0\0\x08"
    names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    contents = (
        header + b"\3" + np.array([3, 8, 8], ">i4").tobytes() + images.tobytes(),
        header + b"\1" + np.array([2], ">i4").tobytes() + bytes([9, 4]),
    )
    for name, content in zip(names, contents, strict=True):
        (house.local / "mnist" / name).write_bytes(content)
    source = {"kind": "local", "folder": "mnist", "files": [{"path": name} for name in names]}
    described = yaml.safe_load((house.real_manifests / "mnist.yaml").read_text())
    house.write(**described | {"splits": {"test": 2}, "sources": [source]})
    data.fetch("mnist")
    with pytest.raises(EffbookError, match="mnist has 3 images and 2 labels in test"):
        data.load_images("mnist", "test")


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\3\0\0", b"\0\0\x0d\1\0\0\0\1", b"\0\0\x08\1\0\0\0\x09ab"])
def test_an_idx_file_that_is_cut_off_is_told(house, content):
    (house.local / "mnist").mkdir()
    names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for name in names:
        (house.local / "mnist" / name).write_bytes(content)
    source = {"kind": "local", "folder": "mnist", "files": [{"path": name} for name in names]}
    described = yaml.safe_load((house.real_manifests / "mnist.yaml").read_text())
    house.write(**described | {"splits": {"test": 2}, "sources": [source]})
    data.fetch("mnist")
    with pytest.raises(EffbookError, match=r"mnist|idx file"):
        data.load_images("mnist", "test")


def test_photos_of_scenes_are_no_images_with_labels():
    with pytest.raises(EffbookError, match="fox holds scenes, not images"):
        data.load_images("fox", "scenes")


def test_a_loader_of_another_kind_is_told(house):
    house.write(kind="images", loader="webnlg", splits={"train": 1})
    with pytest.raises(EffbookError, match="names the loader 'webnlg', which reads no images; use one of cifar"):
        data.load_images("thing", "train")
