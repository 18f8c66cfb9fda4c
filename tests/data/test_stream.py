"""Streaming image files: a broken one is counted and passed over."""

import numpy as np
import pytest
from PIL import Image

from effbook.data import ImageFiles
from effbook.data.stream import ImageStream
from effbook.errors import EffbookError


def tree(folder, sound):
    """Files 0, 1, ... whose red is ten times their number, those broken where `sound` says so; labels as numbers."""
    paths = []
    for i, whole in enumerate(sound):
        path = folder / f"{i}.png"
        Image.new("RGB", (6, 4), (10 * i, 0, 0)).save(path)
        if not whole:
            path.write_bytes(path.read_bytes()[:40])
        paths.append(path)
    classes = tuple(str(i) for i in range(len(sound)))
    return ImageFiles(paths=tuple(paths), labels=np.arange(len(sound)), classes=classes)


def test_images_come_with_label_and_index(tmp_path):
    stream = ImageStream(tree(tmp_path, [1, 1, 1]))
    image, label, index = stream[2]
    assert image.shape == (4, 6, 3)
    assert (image[0, 0].tolist(), label, index) == ([20, 0, 0], 2, 2)
    assert stream[-1][2] == 2
    assert len(stream) == 3
    assert stream.broken() == ()
    assert ImageStream(stream.files, lambda image: image.size)[0][0] == (6, 4)
    with pytest.raises(IndexError):
        stream[3]


def test_a_broken_file_is_named_and_the_next_sound_one_stands_in(tmp_path):
    stream = ImageStream(tree(tmp_path, [1, 0, 0, 1, 0]))
    assert [stream[i][1:] for i in range(5)] == [(0, 0), (3, 3), (3, 3), (3, 3), (0, 0)]
    assert stream[1][0][0, 0].tolist() == [30, 0, 0]
    assert [path.name for path in stream.broken()] == ["1.png", "2.png", "4.png"]


def test_a_broken_file_is_named_once(tmp_path, caplog):
    stream = ImageStream(tree(tmp_path, [1, 0, 1]))
    for i in (0, 1, 2, 1):
        stream[i]
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path / '1.png'} cannot be decoded (")
    assert said.endswith("; the next image stands in for it")


def test_a_lost_file_counts_as_broken(tmp_path):
    files = tree(tmp_path, [1, 1])
    files.paths[0].unlink()
    stream = ImageStream(files)
    assert stream[0][2] == 1
    assert stream.broken() == (files.paths[0],)


def test_workers_mark_broken_files_for_all(tmp_path):
    from torch.utils.data import DataLoader

    stream = ImageStream(tree(tmp_path, [1, 0, 1, 1, 0, 1, 1, 1]))
    batches = [index.tolist() for _, _, index in DataLoader(stream, batch_size=4, num_workers=2)]
    assert batches == [[0, 2, 2, 3], [5, 5, 6, 7]]
    assert [path.name for path in stream.broken()] == ["1.png", "4.png"]


def test_an_error_of_the_transform_is_not_taken_for_a_broken_file(tmp_path):
    def fails(image):
        raise ValueError("mine")

    stream = ImageStream(tree(tmp_path, [1, 1]), fails)
    with pytest.raises(ValueError, match="mine"):
        stream[0]
    assert stream.broken() == ()


def test_where_no_file_can_be_read_it_stops(tmp_path):
    stream = ImageStream(tree(tmp_path, [0, 0]))
    with pytest.raises(EffbookError, match=r"no image of 2 in a row, from .*0\.png on, can be decoded \(.+\); check"):
        stream[0]
    with pytest.raises(EffbookError, match="there is no image to stream"):
        ImageStream(ImageFiles(paths=(), labels=np.arange(0), classes=()))
