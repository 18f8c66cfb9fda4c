import pytest
import torch

from effbook.errors import EffbookError
from effbook.evaluate.few import few_label_evaluation, few_labels, listed, read_list
from effbook.evaluate.linear import LinearSettings, linear_evaluation


def _slow_counts(labels, share):
    """Images of each class from the rule: equally many, and those left over to some classes one each."""
    total = max(len(set(labels)), int(share * len(labels)))
    even, left = divmod(total, len(set(labels)))
    return [even] * (len(set(labels)) - left) + [even + 1] * left


def test_imagenets_counts_come_out():
    """The published lists have 12 or 13 images a class (12,811) and 128 or 129 (128,116)."""
    sizes = torch.full((1000,), 1281)
    sizes[:167] += 1
    labels = torch.arange(1000).repeat_interleave(sizes)
    assert len(labels) == 1_281_167
    for share, total, few, many in ((0.01, 12_811, {12: 189, 13: 811}, 13), (0.1, 128_116, {128: 884, 129: 116}, 129)):
        counts = torch.bincount(labels[few_labels(labels, share, seed=0)])
        assert int(counts.sum()) == total
        assert dict(zip(*(each.tolist() for each in counts.unique(return_counts=True)), strict=True)) == few
        assert int(counts.max()) == many


@pytest.mark.parametrize("share", [0.01, 0.07, 0.1, 0.5])
def test_the_draw_follows_the_rule_from_its_seed(share):
    labels = torch.randint(7, (300,), generator=torch.Generator().manual_seed(0))
    drawn = few_labels(labels, share, seed=0)
    assert sorted(torch.bincount(labels[drawn]).tolist()) == _slow_counts(labels.tolist(), share)
    assert torch.equal(drawn, drawn.unique())
    assert torch.equal(drawn, few_labels(labels, share, seed=0))
    assert not torch.equal(drawn, few_labels(labels, share, seed=1))


def test_the_whole_share_is_all_images_and_the_least_is_one_a_class():
    labels = torch.tensor([0, 0, 0, 2, 5])
    assert few_labels(labels, 1, seed=0).tolist() == [0, 1, 2, 3, 4]
    assert labels[few_labels(labels, 0.001, seed=0)].tolist() == [0, 2, 5]


def test_with_all_labels_it_is_linear_evaluation_and_with_few_only_the_chosen_count():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, 6, generator=g), torch.arange(4).repeat(10)
    test, settings = (torch.randn(20, 6, generator=g), torch.arange(4).repeat(5)), LinearSettings(epochs=3, batch=8)
    all_of_it = few_label_evaluation(x, y, *test, chosen=torch.arange(40), settings=settings)
    assert torch.equal(
        all_of_it.classifier[1].weight, linear_evaluation(x, y, *test, settings=settings).classifier[1].weight
    )
    chosen = few_labels(y, 0.2, seed=1)
    few = few_label_evaluation(x, y, *test, chosen=chosen, settings=settings)
    hidden = torch.ones(40, dtype=torch.bool)
    hidden[chosen] = False
    changed_x, changed_y = x.clone(), y.clone()
    changed_x[:, hidden], changed_y[hidden] = 7.0, 0
    again = few_label_evaluation(changed_x, changed_y, *test, chosen=chosen, settings=settings)
    assert torch.equal(few.classifier[1].weight, again.classifier[1].weight)


def test_a_class_without_a_chosen_image_still_counts_as_a_class():
    x, y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(3).repeat(4)
    found = few_label_evaluation(x, y, x, y, chosen=torch.tensor([0, 1, 3, 4]), settings=LinearSettings(epochs=2))
    assert found.classifier(x).shape == (12, 3)
    assert found.top1 <= 100 * 2 / 3 + 1e-9


def test_a_list_is_read_and_found_among_files_in_folders(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("n02000000_2.JPEG\nn01000000_10.JPEG\n")
    names = read_list(path)
    assert names == ("n02000000_2.JPEG", "n01000000_10.JPEG")
    files = ["n01000000/n01000000_1.JPEG", "n01000000/n01000000_10.JPEG", "n02000000/n02000000_2.JPEG"]
    assert listed(files, names).tolist() == [1, 2]
    with pytest.raises(EffbookError, match="1 of 2 images of the list are not in the data set, such as n02000000_2"):
        listed(files[:2], names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one.txt is empty"),
        ("n02000000_2.JPEG\nfile.png\n", "has 'file.png' where"),
        ("n02000000_2.JPEG\nn02000000_2.JPEG\n", "names 1 images twice"),
        (None, "cannot be read"),
    ],
)
def test_a_list_of_another_form_is_refused(text, message, tmp_path):
    path = tmp_path / "one.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EffbookError, match=message):
        read_list(path)


@pytest.mark.parametrize(
    ("labels", "share", "message"),
    [
        (torch.tensor([0, 0, 1]), 0.0, "no share"),
        (torch.tensor([0, 0, 1]), 1.1, "no share"),
        (torch.tensor([0] * 9 + [1]), 0.5, "Class 1 has 1 images"),
        (torch.tensor([-1, 0]), 0.5, "reach from -1"),
        (torch.tensor([], dtype=torch.long), 0.5, "do not go with 0"),
    ],
)
def test_draws_that_cannot_be_made_are_refused(labels, share, message):
    with pytest.raises(EffbookError, match=message):
        few_labels(labels, share, seed=0)
