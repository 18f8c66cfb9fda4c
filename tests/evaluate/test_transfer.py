import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from effbook.errors import EffbookError
from effbook.evaluate.logistic import LogisticSettings, fit_logistic
from effbook.evaluate.measures import mean_per_class
from effbook.evaluate.transfer import TransferSettings, search, transfer_evaluation
from effbook.evaluate.vision import accuracy

FEW = {"trials": 5, "iterations": (1, 8)}


def _drawn(n=80, classes=3, dim=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    x = torch.nn.functional.one_hot(y, dim).float() + torch.randn(n, dim, generator=g)
    return (x[:40], y[:40]), (x[40:60], y[40:60]), (x[60:], y[60:])


def test_the_best_trial_is_refitted_on_training_and_validation_and_tested():
    train, val, test = _drawn()
    found = transfer_evaluation(train, val, test, settings=TransferSettings(**FEW))
    scores = []
    for trial in found.trials:
        layer = fit_logistic(*train, classes=3, settings=trial.settings)
        scores.append(accuracy(layer(val[0]), val[1]))
    assert scores == [trial.score for trial in found.trials]
    assert found.best is found.trials[scores.index(max(scores))]
    final = fit_logistic(
        torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]]), classes=3, settings=found.best.settings
    )
    assert torch.equal(final.weight, found.classifier.weight)
    assert found.score == accuracy(final(test[0]), test[1])


def test_the_trials_lie_in_their_ranges_uniform_in_the_logarithm_at_first():
    train, val, _ = _drawn()
    settings = TransferSettings(
        trials=10, iterations=(2, 9), lr=(1e-4, 1e-1), weight_decay=(1e-6, 1e-2), base=LogisticSettings(max_iter=1)
    )
    trials = search(train, val, settings=settings)
    for name in ("iterations", "lr", "weight_decay"):
        low, high = getattr(settings, name)
        values = [getattr(trial.settings, name) for trial in trials]
        assert low <= min(values) < max(values) <= high
    middle = np.mean([np.log10(trial.settings.lr) for trial in trials])
    assert abs(middle + 2.5) < 1  # a uniform draw of the rate itself would stand at -1.4
    assert all(trial.settings.max_iter == 1 and trial.settings.history_size == 10 for trial in trials)


def test_a_range_of_one_value_is_that_value():
    train, val, _ = _drawn()
    settings = TransferSettings(trials=2, iterations=(3, 3), lr=(0.5, 0.5), weight_decay=(1e-3, 1e-3))
    expected = LogisticSettings(iterations=3, lr=0.5, weight_decay=1e-3)
    assert [trial.settings for trial in search(train, val, settings=settings)] == [expected, expected]


def test_the_dissertations_ranges_are_the_default():
    one = TransferSettings()
    assert (one.trials, one.iterations, one.lr, one.weight_decay) == (200, (1, 1000), (1e-6, 1.0), (1e-9, 1.0))
    assert (one.base.max_iter, one.base.history_size) == (20, 10)


def test_equal_seeds_repeat_the_search_others_do_not_and_no_global_state_is_touched():
    train, val, test = _drawn()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    one, two, other = (
        transfer_evaluation(train, val, test, settings=TransferSettings(seed=seed, **FEW)) for seed in (0, 0, 1)
    )
    assert one.trials == two.trials
    assert one.score == two.score
    assert one.trials != other.trials
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_the_search_never_sees_the_test_set():
    train, val, test = _drawn()
    one = transfer_evaluation(train, val, test, settings=TransferSettings(**FEW))
    other = transfer_evaluation(train, val, (test[0] * 0, test[1].flip(0)), settings=TransferSettings(**FEW))
    assert one.trials == other.trials
    assert torch.equal(one.classifier.weight, other.classifier.weight)


def test_the_measure_is_used_for_validation_and_for_testing():
    train, val, test = _drawn()
    keep = (train[1] != 2) | (torch.arange(40) < 6)  # class 2 becomes rare
    found = transfer_evaluation(
        (train[0][keep], train[1][keep]), val, test, settings=TransferSettings(measure="mean", **FEW)
    )
    layer = fit_logistic(train[0][keep], train[1][keep], classes=3, settings=found.trials[0].settings)
    assert found.trials[0].score == mean_per_class(layer(val[0]), val[1])
    assert found.score == mean_per_class(found.classifier(test[0]), test[1])


def test_each_trial_is_reported_as_it_ends():
    train, val, _ = _drawn()
    heard = []
    trials = search(train, val, settings=TransferSettings(**FEW), each_trial=heard.append)
    assert tuple(heard) == trials


def test_digits_are_told_apart():
    data = load_digits()
    x, y = torch.from_numpy(data.data / 16).float(), torch.from_numpy(data.target)
    train, val = ((x[part], y[part]) for part in (slice(0, 800), slice(800, 1000)))
    found = transfer_evaluation(
        train, val, (x[1000:], y[1000:]), settings=TransferSettings(trials=6, iterations=(1, 8))
    )
    assert found.score > 85


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (0, (torch.full((40, 4), float("nan")), torch.zeros(40, dtype=torch.long)), "training features are not finite"),
        (1, (torch.zeros(20, 4), torch.full((20,), 3)), "validation labels reach from 3 to 3, outside 0 to 2"),
        (2, (torch.zeros(20, 5), torch.zeros(20, dtype=torch.long)), "the test features 5"),
    ],
)
def test_bad_input_is_refused_before_the_search(part, change, message):
    splits = list(_drawn())
    splits[part] = change
    with pytest.raises(EffbookError, match=message):
        transfer_evaluation(*splits, settings=TransferSettings(), classes=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"trials": 0}, "0 trials"),
        ({"iterations": (0, 1000)}, "iterations cannot be drawn log-uniformly from 0 to 1000"),
        ({"lr": (1.0, 0.1)}, "lr cannot be drawn"),
        ({"measure": "top5"}, "no measure 'top5'"),
    ],
)
def test_settings_without_a_meaning_are_refused(wrong, message):
    with pytest.raises(EffbookError, match=message):
        TransferSettings(**wrong)
