"""Data sets that lie as files and came with CMSF: each layout, read from a small tree written in it."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from effbook import data
from effbook.data.listing import FILE_READERS, list_files
from effbook.data.transfer import TRANSFER_SETS, hold_out
from effbook.errors import EffbookError

TENCH, GOLDFISH, SHARK = "n01440764", "n01443537", "n01484850"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def records(**columns):
    """MATLAB's array of structures, one a row."""
    kinds = [(name, "i4" if isinstance(values[0], int) else "O") for name, values in columns.items()]
    return np.array(list(zip(*columns.values(), strict=True)), dtype=kinds)


def names(found):
    return [path.name for path in found.paths]


def small_imagenet(house, splits, classes=(TENCH, SHARK)):
    """The manifest of ImageNet, with few classes and counts."""
    house.borrow("imagenet", splits)
    path = house.manifests / "imagenet.yaml"
    path.write_text(path.read_text() + f"\nclasses: [{', '.join(classes)}]\n")


def test_imagenet_is_read_from_a_folder_a_class(house):
    root = house.local / "imagenet"
    for name in ("train/n01484850/b.JPEG", "train/n01484850/a.JPEG", "train/n01440764/c.JPEG", "val/n01440764/d.JPEG"):
        touch(root / name)
    touch(root / "val/n01484850/e.JPEG")
    touch(root / "train/n01443537/of_another_class.JPEG")
    touch(root / "train/n01484850/notes.txt")
    small_imagenet(house, {"train": 3, "test": 2})
    data.fetch("imagenet")
    train = list_files("imagenet", "train")
    assert names(train) == ["c.JPEG", "a.JPEG", "b.JPEG"]
    assert train.labels.tolist() == [0, 1, 1]
    assert train.classes == (TENCH, SHARK)
    assert names(list_files("imagenet", "test")) == ["d.JPEG", "e.JPEG"]


def test_all_thousand_classes_of_imagenet_are_wanted_and_missing_ones_are_named(house):
    touch(house.local / "imagenet/train/n01440764/a.JPEG")
    (house.local / "imagenet/train/n01443537").mkdir()
    (house.local / "imagenet/val").mkdir()
    house.borrow("imagenet", {"train": 1})
    data.fetch("imagenet")
    words = "has no image of 999 of the 1000 classes of imagenet: n01443537, n01484850, n01491361 and 996 more; put"
    with pytest.raises(EffbookError, match=words):
        list_files("imagenet", "train")


def test_imagenet100_names_a_missing_class_too(house):
    house.borrow("imagenet100", {"train": 100})
    for name in data.manifest("imagenet100").classes:
        touch(house.local / f"imagenet/train/{name}/a.JPEG")
    (house.local / "imagenet/val").mkdir()
    data.fetch("imagenet100")
    found = list_files("imagenet100", "train")
    assert len(found) == 100
    assert [path.parent.name for path in found.paths] == list(found.classes)
    assert found.paths == data.list_images("imagenet100", "train").paths
    (house.local / "imagenet/train/n13040303/a.JPEG").unlink()
    with pytest.raises(EffbookError, match="1 of the 100 classes of imagenet100: n13040303; put"):
        list_files("imagenet100", "train")


@pytest.mark.parametrize("beside", ["devkit", "solution"])
def test_the_flat_validation_set_is_read_with_what_its_makers_say_of_it(house, beside):
    root = house.local / "imagenet"
    for i in (1, 2, 3):
        touch(root / f"val/ILSVRC2012_val_{i:08d}.JPEG")
    (root / "train").mkdir()
    if beside == "devkit":
        kit = root / "ILSVRC2012_devkit_t12/data"
        kit.mkdir(parents=True)
        (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n2\n")
        savemat(kit / "meta.mat", {"synsets": records(ILSVRC2012_ID=[1, 2], WNID=[TENCH, SHARK])})
    else:
        lines = [f"ILSVRC2012_val_{i:08d},{wnid} 1 2 3 4" for i, wnid in ((3, SHARK), (1, SHARK), (2, TENCH))]
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(lines) + "\n")
    small_imagenet(house, {"test": 3})
    data.fetch("imagenet")
    found = list_files("imagenet", "test")
    assert [name[-6] for name in names(found)] == ["2", "1", "3"]
    assert found.labels.tolist() == [0, 1, 1]
    touch(root / "val/cat.jpg")
    with pytest.raises(EffbookError, match=r"no label is known for cat\.jpg"):
        list_files("imagenet", "test")


def test_a_flat_validation_set_alone_is_told(house):
    touch(house.local / "imagenet/val/ILSVRC2012_val_00000001.JPEG")
    (house.local / "imagenet/train").mkdir()
    house.borrow("imagenet", {"test": 1})
    data.fetch("imagenet")
    with pytest.raises(EffbookError, match="nothing says which image is of which; lay the images into folders by wnid"):
        list_files("imagenet", "test")


@pytest.mark.parametrize("count", [1, 3])
def test_cars_are_read_from_the_makers_tables(house, count):
    root = house.local / "cars/stanford_cars"
    (root / "devkit").mkdir(parents=True)
    files = [f"{i:05d}.jpg" for i in range(1, count + 1)]
    for split, table in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        (root / f"cars_{split}").mkdir()
        rows = records(**{"bbox_x1": [5] * count, "class": [2, 1, 2][:count], "fname": files})
        savemat(root / table, {"annotations": rows})
    savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(["Audi TT", "BMW M3"], dtype=object)})
    house.borrow("cars", {"train": count, "test": count})
    data.fetch("cars")
    found = list_files("cars", "train")
    assert names(found) == files
    assert found.paths[0].parent.name == "cars_train"
    assert found.labels.tolist() == [1, 0, 1][:count]
    assert found.classes == ("Audi TT", "BMW M3")
    assert list_files("cars", "test").paths[0].parent.name == "cars_test"


def test_dtd_follows_its_first_partition(house):
    root = house.local / "dtd/dtd"
    (root / "labels").mkdir(parents=True)
    (root / "images").mkdir()
    for part, entries in {
        "train": "zigzag/z_1.jpg banded/b_1.jpg",
        "val": "banded/b_2.jpg",
        "test": "woven/w_1.jpg",
    }.items():
        (root / f"labels/{part}1.txt").write_text("\n".join(entries.split()) + "\n")
    house.borrow("dtd", {"train": 2, "val": 1, "test": 1})
    data.fetch("dtd")
    train = list_files("dtd", "train")
    assert train.classes == ("banded", "woven", "zigzag")
    assert (names(train), train.labels.tolist()) == (["z_1.jpg", "b_1.jpg"], [2, 0])
    assert train.paths[0].parts[-3:] == ("images", "zigzag", "z_1.jpg")
    assert list_files("dtd", "test").labels.tolist() == [1]


def test_flowers_follow_their_two_tables(house):
    pytest.importorskip("torchvision")
    root = house.local / "flowers102/flowers-102"
    (root / "jpg").mkdir(parents=True)
    savemat(root / "imagelabels.mat", {"labels": np.array([77, 1, 102, 5], dtype=np.uint8)})
    splits = {"trnid": [4, 1], "valid": [2], "tstid": [3]}
    savemat(root / "setid.mat", {key: np.array(ids, dtype=np.uint16) for key, ids in splits.items()})
    house.borrow("flowers102", {"train": 2, "val": 1, "test": 1})
    data.fetch("flowers102")
    train = list_files("flowers102", "train")
    assert (names(train), train.labels.tolist()) == (["image_00004.jpg", "image_00001.jpg"], [4, 76])
    assert len(train.classes) == 102
    assert list_files("flowers102", "val").labels.tolist() == [0]
    assert list_files("flowers102", "test").labels.tolist() == [101]


def test_caltech_with_its_background_has_one_class_more(house):
    root = house.local / "caltech101/101_ObjectCategories"
    for name, count in {"BACKGROUND_Google": 32, "accordion": 33}.items():
        for i in range(count):
            touch(root / name / f"image_{i:04d}.jpg")
    touch(root / "BACKGROUND_Google/tmp")  # lies in the published archive
    house.borrow("caltech101-background", {"train": 60, "test": 5})
    data.fetch("caltech101-background")
    train, test = (list_files("caltech101-background", split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [30, 30]
    assert np.bincount(test.labels).tolist() == [2, 3]
    assert not set(train.paths) & set(test.paths)
    assert list_files("caltech101-background", "train").paths == train.paths


def ucf101(house):
    root = house.local / "ucf101"
    for name in ("YoYo/v_YoYo_g08_c01.avi", "Archery/v_Archery_g08_c01.avi", "Archery/v_Archery_g01_c01.avi"):
        touch(root / "UCF-101" / name)
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\r\n2 YoYo\r\n")
    (lists / "trainlist01.txt").write_text("YoYo/v_YoYo_g08_c01.avi 2\r\nArchery/v_Archery_g08_c01.avi 1\r\n")
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\r\n")
    house.borrow("ucf101", {"train": 2, "test": 1})
    data.fetch("ucf101")
    return root


def test_ucf101_lists_the_clips_of_its_first_split(house):
    ucf101(house)
    train, test = (list_files("ucf101", split) for split in ("train", "test"))
    assert (names(train), train.labels.tolist()) == (["v_YoYo_g08_c01.avi", "v_Archery_g08_c01.avi"], [1, 0])
    assert train.classes == ("Archery", "YoYo")
    assert (names(test), test.labels.tolist()) == (["v_Archery_g01_c01.avi"], [0])


def test_a_clip_that_is_missing_is_named(house):
    (ucf101(house) / "UCF-101/YoYo/v_YoYo_g08_c01.avi").unlink()
    with pytest.raises(EffbookError, match=r"1 of the 2 clips of ucf101 in train are missing, .*v_YoYo_g08_c01\.avi"):
        list_files("ucf101", "train")


def test_clips_are_no_images():
    with pytest.raises(EffbookError, match="ucf101 holds videos, not images"):
        data.load_images("ucf101", "train")


def test_a_wrong_count_and_an_unknown_split_are_told(house):
    ucf101(house)
    house.borrow("ucf101", {"train": 3})
    with pytest.raises(EffbookError, match="ucf101 has 2 items in train where its manifest counts 3"):
        list_files("ucf101", "train")
    with pytest.raises(EffbookError, match="ucf101 has no split 'val'; choose train"):
        list_files("ucf101", "val")


def test_a_label_beyond_the_classes_is_told(house):
    lists = ucf101(house) / "ucfTrainTestlist"
    (lists / "classInd.txt").write_text("1 Archery\n3 YoYo\n")
    with pytest.raises(EffbookError, match="ucf101 has labels from 0 to 2 for 2 classes in train"):
        list_files("ucf101", "train")


def test_a_data_set_that_is_no_files_is_told():
    with pytest.raises(EffbookError, match=r"mnist does not lie as files; use effbook\.data\.load_images"):
        list_files("mnist", "train")


def test_what_is_not_there_is_told_with_what_to_put_where(house):
    house.borrow_whole("ucf101")
    with pytest.raises(EffbookError, match=r"ucf101 has not been fetched, .*put UCF-101 and ucfTrainTestlist/classInd"):
        list_files("ucf101", "train")


def test_the_ten_transfer_sets_have_manifests_with_the_sizes_of_table_a13():
    assert len(TRANSFER_SETS) == 10
    for one in TRANSFER_SETS.values():
        described = data.manifest(one.manifest)
        assert described.loader in FILE_READERS or described.loader == "cifar"
        whole = one.train if "val" in described.splits else one.train + one.val
        assert (described.splits["train"], described.splits["test"]) == (whole, one.test), one.manifest
        assert described.splits.get("val", one.val) == one.val
        if one.val_a_class:
            assert one.val_a_class * one.classes == one.val


def test_held_out_images_are_of_each_class_alike_and_follow_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(37), 100))
    train, val = hold_out(labels, TRANSFER_SETS["pets"], seed=3)
    assert np.bincount(labels[val]).tolist() == [20] * 37
    assert sorted([*train, *val]) == list(range(3700))
    assert np.array_equal(hold_out(labels, TRANSFER_SETS["pets"], seed=3)[1], val)
    assert not np.array_equal(hold_out(labels, TRANSFER_SETS["pets"], seed=4)[1], val)


def test_a_fifth_of_each_class_of_aircraft_is_the_tables_number():
    labels = np.repeat(np.arange(100), [67] * 67 + [66] * 33)
    train, val = hold_out(labels, TRANSFER_SETS["aircraft"], seed=0)
    assert (len(train), len(val)) == (5367, 1300)


def test_what_cannot_be_held_out_is_told():
    with pytest.raises(EffbookError, match="dtd has a validation set of its own; load its split val"):
        hold_out(np.zeros(9), TRANSFER_SETS["dtd"], seed=0)
    with pytest.raises(EffbookError, match="class 1 of pets has 20 images, and 20 are for validation"):
        hold_out(np.repeat([0, 1], [30, 20]), TRANSFER_SETS["pets"], seed=0)


def test_the_images_of_a_listed_set_decode(house):
    from effbook.data.images import decode

    root = house.local / "dtd/dtd"
    (root / "labels").mkdir(parents=True)
    (root / "images/woven").mkdir(parents=True)
    Image.new("RGB", (40, 30), (250, 0, 0)).save(root / "images/woven/w.jpg")
    for part in ("train", "val", "test"):
        (root / f"labels/{part}1.txt").write_text("woven/w.jpg\n")
    house.borrow("dtd", {"train": 1, "val": 1, "test": 1})
    data.fetch("dtd")
    assert decode(list_files("dtd", "train").paths[0], 16).shape == (16, 16, 3)
