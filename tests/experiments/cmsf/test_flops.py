"""Training FLOPs by Eq. A.1: against a training that is walked through step by step."""

import pytest

from effbook.errors import EffbookError
from effbook.experiments.cmsf.flops import FlopsRecipe
from effbook.runs.profiles import NotInProfileError, scale, seeds
from effbook.runs.recipe import make

MSF = {"unlabeled_forward": 2, "unlabeled_backward": 1, "unlabeled_batch": 256}
PAWS = {
    "unlabeled_forward": 3.1,
    "unlabeled_backward": 3.1,
    "unlabeled_batch": 256,
    "labeled_forward": 1,
    "labeled_backward": 1,
    "labeled_batch": 400,
}


def metrics(**fields):
    return FlopsRecipe(**fields).run(None).metrics


def walked(*, unlabeled, labeled, iterations, epochs):
    """The same from the text: one step after another, one kind of image after another.

    `unlabeled` and `labeled` are (forward crops, backward crops, batch). A backward pass costs two forward ones.
    """
    passes = flops = 0.0
    for _ in range(epochs):
        for _ in range(iterations):
            for forward_crops, backward_crops, batch in (unlabeled, labeled):
                passes += forward_crops * batch
                flops += forward_crops * batch * 3.9e9
                passes += backward_crops * batch
                flops += backward_crops * batch * 3.9e9 + backward_crops * batch * 3.9e9
    return passes, flops


@pytest.mark.parametrize(
    ("unlabeled", "labeled", "iterations", "epochs"),
    [
        ((2, 1, 256), (0, 0, 0), 50, 3),
        ((3.1, 3.1, 64), (1, 1, 100), 7, 5),
        ((3, 2, 16), (2, 2, 4), 11, 1),
        ((2, 0, 8), (1, 1, 8), 1, 1),
    ],
)
def test_passes_and_flops_are_those_of_a_training_walked_step_by_step(unlabeled, labeled, iterations, epochs):
    names = ("forward", "backward", "batch")
    fields = {f"unlabeled_{name}": value for name, value in zip(names, unlabeled, strict=True)}
    fields |= {f"labeled_{name}": value for name, value in zip(names, labeled, strict=True)}
    found = metrics(**fields, iterations=iterations, epochs=epochs)
    passes, flops = walked(unlabeled=unlabeled, labeled=labeled, iterations=iterations, epochs=epochs)
    assert found["passes"] == pytest.approx(passes, rel=1e-9)
    assert found["flops"] == pytest.approx(flops, rel=1e-9)
    assert found["mini_batch"] * iterations * epochs == pytest.approx(passes, rel=1e-9)


def test_without_backward_passes_flops_are_forward_ones_alone():
    found = metrics(unlabeled_forward=2, unlabeled_backward=0, unlabeled_batch=10, iterations=5, epochs=2)
    assert found == {"mini_batch": 20, "passes": 200, "flops": pytest.approx(200 * 3.9e9)}


def test_only_the_product_of_batch_iterations_and_epochs_counts():
    whole = metrics(**MSF, iterations=5004, epochs=200)
    assert metrics(**{**MSF, "unlabeled_batch": 768}, iterations=1668, epochs=200)["flops"] == whole["flops"]
    assert metrics(**MSF, iterations=5004 * 200)["passes"] == whole["passes"]


def test_the_crops_of_swav_are_two_large_and_six_of_96_pixels():
    small = (96 / 224) ** 2
    assert f"{small:.3f}" == "0.184"
    assert f"{2 + 6 * small:.1f}" == "3.1"


def test_flops_are_of_paper_scale_and_of_one_seed():
    recipe = FlopsRecipe(**MSF, iterations=5004, epochs=200)
    assert scale(recipe, "paper") == recipe
    assert seeds(recipe, "paper") == (0,)
    with pytest.raises(NotInProfileError):
        scale(recipe, "mini")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"unlabeled_batch": 0}, "unlabeled_batch above 0"),
        ({"iterations": 0}, "iterations above 0"),
        ({"epochs": -1}, "epochs above 0"),
        ({"unlabeled_backward": 4}, "choose unlabeled_backward from 0 to unlabeled_forward"),
        ({"labeled_backward": -1.0}, "choose labeled_backward of at least 0"),
        ({"labeled_batch": 0}, "choose both above 0"),
        ({"labeled_forward": 0, "labeled_backward": 0}, "choose both above 0"),
        ({"labeled_batch": -400}, "choose labeled_batch of at least 0"),
        ({"unlabeled_forward": 0, "unlabeled_backward": 0}, "choose both above 0"),
        ({"unlabeled_forward": float("inf")}, "not finite|not valid"),
    ],
)
def test_what_is_no_training_is_refused(wrong, sentence):
    with pytest.raises(EffbookError, match=sentence):
        make("cmsf-flops", **{**PAWS, "iterations": 5004, "epochs": 100, **wrong})
