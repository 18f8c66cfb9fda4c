import numpy as np
import pytest

from effbook import data
from effbook.data.voc import load_voc
from effbook.errors import EffbookError

DOG = ("dog", (48, 240, 195, 371), 0)
MAN = ("person", (8, 12, "352.5", 498), 1)


def xml(*objects):
    """An image's annotations; each object has a part with a box of its own, as some of VOC's have."""
    parts = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        + "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        + "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>".format(*box)
        for name, box, difficult in objects
    )
    return f"<annotation><size><width>353</width><height>500</height></size>{parts}</annotation>"


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def voc(house):
    """A devkit of three images to train on and one to test on."""
    root = house.local / "voc/VOCdevkit"
    for year, name, images in (
        ("VOC2007", "trainval", {"000005": xml(DOG, MAN)}),
        ("VOC2007", "test", {"000001": xml(MAN)}),
        ("VOC2012", "trainval", {"2008_000008": xml(DOG), "2008_000002": xml()}),
    ):
        write(root / year / f"ImageSets/Main/{name}.txt", "".join(f"{image}\n" for image in images))
        for image, text in images.items():
            write(root / year / f"Annotations/{image}.xml", text)
            write(root / year / f"JPEGImages/{image}.jpg")
    house.borrow("voc", {"train": 3, "test": 1})
    data.fetch("voc")
    return root


def test_both_years_are_trained_on_and_the_first_is_tested_on(voc):
    train, test = load_voc("train"), load_voc("test")
    names = [path.relative_to(path.parents[2]).as_posix() for path in train.paths]
    assert names == [
        "VOC2007/JPEGImages/000005.jpg",
        "VOC2012/JPEGImages/2008_000008.jpg",
        "VOC2012/JPEGImages/2008_000002.jpg",
    ]
    assert all(path.is_file() for path in train.paths)
    assert (len(train), len(test)) == (3, 1)
    assert test.paths[0].name == "000001.jpg"
    assert len(train.classes) == 20
    assert list(train.classes) == sorted(train.classes)


def test_boxes_count_pixels_from_zero_and_end_behind_the_object(voc):
    train = load_voc("train")
    assert train.boxes[0].tolist() == [[47, 239, 195, 371], [7, 11, 352.5, 498]]
    assert train.boxes[0].dtype == np.float32
    assert [train.classes[label] for label in train.labels[0]] == ["dog", "person"]
    assert train.difficult[0].tolist() == [False, True]
    assert train.boxes[2].shape == (0, 4)
    assert len(train.labels[2]) == len(train.difficult[2]) == 0


def test_a_missing_image_is_named(voc):
    (voc / "VOC2012/JPEGImages/2008_000002.jpg").unlink()
    with pytest.raises(EffbookError, match=r"1 of the 3 images of voc in train are missing, .*2008_000002\.jpg"):
        load_voc("train")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (xml(("unicorn", (1, 1, 5, 5), 0)), r"000001\.xml has an object 'unicorn', which is no class of VOC"),
        (xml(("dog", (5, 1, 4, 9), 0)), r"000001\.xml has a box without an area"),
        ("<annotation><object><name>dog</name></object></annotation>", r"000001\.xml has a box without an area"),
        ("<annotation><object>", "laid out otherwise"),
        (
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>',
            "a file of annotations defines a document type",
        ),
        ('<!DOCTYPE a SYSTEM "file:///etc/hostname"><annotation/>', "a file of annotations defines a document type"),
    ],
)
def test_annotations_of_another_kind_are_refused(voc, text, told):
    write(voc / "VOC2007/Annotations/000001.xml", text)
    with pytest.raises(EffbookError, match=told):
        load_voc("test")


def test_what_is_not_fetched_or_of_another_number_is_told(house, voc):
    house.borrow("voc", {"train": 4, "test": 1})
    with pytest.raises(EffbookError, match="voc has 3 items in train where its manifest counts 4"):
        load_voc("train")
    with pytest.raises(EffbookError, match="voc has no split 'val'; choose test or train"):
        load_voc("val")


def test_the_manifest_counts_as_the_dissertation_trains_and_pins_the_makers_archives():
    described = data.manifest("voc")
    assert described.splits == {"train": 5011 + 11540, "test": 4952}
    assert len(set(described.classes)) == 20
    assert all(file.pinned for file in described.sources[0].files)
