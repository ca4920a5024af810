"""The LR finder against torch-lr-finder, its rules against other implementations; it leaves no trace."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import linregress
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch_lr_finder import LRFinder, TrainDataLoaderIter, ValDataLoaderIter

from common import data, plots, train, utils
from common.lr_finder import Search, find_lr, valley
from common.model import resnet18, under_10k


def parts(digits, batch_size=32, seed=0):
    """A small network with batch norm and dropout, its loaders, and an optimiser."""
    few = data.Split(digits.train.images[:300], digits.train.labels[:300])
    held_out = data.Split(digits.train.images[300:500], digits.train.labels[300:500])
    augment = data.Augment(shift=2)
    utils.set_seed(seed)
    model = under_10k(dropout=0.1)
    loader = data.Loader(few, batch_size, digits.mean, digits.std, augment=augment, shuffle=True, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    return model, loader, optimizer, data.Loader(held_out, 64, digits.mean, digits.std)


# ---------------------------------------------------------------------------------------------------------------
# The oracle


class OracleBatches(TrainDataLoaderIter):
    def __init__(self, loader):
        self.data_loader, self._iterator, self.auto_reset = loader, iter(loader), True


class OracleHeldOut(ValDataLoaderIter):
    dataset = property(lambda self: self.data_loader.targets)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("mode", ["training", "held out"])
@pytest.mark.parametrize("hi", [0.3, 1000.0])
def test_rates_and_raw_losses_match_torch_lr_finder(digits, linear, mode, hi):
    """The training loss allows all 30 steps up to 0.3, three epochs; else the loss explodes: both end at that step."""
    model, loader, optimizer, held_out = parts(digits)
    held_out = held_out if mode == "held out" else None
    options = {"lo": 1e-4, "hi": hi, "steps": 30, "linear": linear}
    search = find_lr(model, loader, optimizer, held_out=held_out, smoothing=0, **options)

    model, loader, optimizer, _ = parts(digits)
    finder = LRFinder(model, optimizer, F.cross_entropy)
    limits = {"start_lr": 1e-4, "end_lr": hi, "num_iter": 30, "smooth_f": 0, "diverge_th": 4}
    how = {"step_mode": "linear" if linear else "exp", "val_loader": OracleHeldOut(held_out) if held_out else None}
    finder.range_test(OracleBatches(loader), **limits, **how)
    assert search.rates == pytest.approx(finder.history["lr"], rel=1e-12)
    assert search.losses == pytest.approx(finder.history["loss"], abs=1e-5, rel=1e-5)
    assert search.smoothed == pytest.approx(search.losses)
    assert (search.end == "all steps done") == (len(search.rates) == 30) == (hi == 0.3 and mode == "training")


# ---------------------------------------------------------------------------------------------------------------
# The rules


def curve(seed, points=40):
    """A noisy loss that falls, then rises, over unevenly spaced rates."""
    generator = torch.Generator().manual_seed(seed)
    rates = (torch.rand(points, generator=generator).cumsum(0) * 0.3 - 10).exp()
    losses = 2.3 - 2 * torch.linspace(-4, 4, points).sigmoid() + 0.05 * torch.randn(points, generator=generator)
    losses[-5:] += torch.arange(5)
    return Search(rates.tolist(), losses.tolist(), losses.tolist())


@pytest.mark.parametrize("seed", range(20))
def test_steepest_is_the_lowest_slope_of_a_parabola_through_three_points(seed):
    """The derivative of the parabola through a point and its two neighbours; at the ends, of the line."""
    search = curve(seed)
    x, y = [math.log(rate) for rate in search.rates], search.smoothed
    slopes = [linregress(x[:2], y[:2]).slope]
    for i in range(1, len(x) - 1):
        before, after = (y[i] - y[i - 1]) / (x[i] - x[i - 1]), (y[i + 1] - y[i]) / (x[i + 1] - x[i])
        share = (x[i + 1] - x[i]) / (x[i + 1] - x[i - 1])
        slopes.append(share * before + (1 - share) * after)
    slopes.append(linregress(x[-2:], y[-2:]).slope)
    down = slopes[4 : y.index(min(y)) + 1]  # without the first tenth of the 40
    assert search.suggestions()["steepest"] == search.rates[slopes.index(min(down))]


def test_steepest_looks_only_at_the_way_down():
    losses = [2.3, 2.2, 1.8, 1.5, 1.4, 3.0, 1.6]  # the last fall, from an explosion, is the fastest of all
    search = Search([10.0**i for i in range(7)], losses, losses)
    assert search.suggestions()["steepest"] == 10.0**2


def test_steepest_of_a_loss_that_never_falls_is_after_the_first_tenth():
    losses = [1.0 + 0.1 * i for i in range(20)]
    assert Search([10.0**i for i in range(20)], losses, losses).suggestions()["steepest"] == 10.0**2


@pytest.mark.parametrize("seed", range(20))
def test_valley_is_the_middle_of_the_longest_fall(seed):
    """Found by trying all subsets of points, the largest first."""
    losses = torch.rand(10, generator=torch.Generator().manual_seed(seed)).tolist()

    def falls(count):
        choices = itertools.combinations(range(len(losses)), count)
        return [c for c in choices if all(losses[a] > losses[b] for a, b in itertools.pairwise(c))]

    longest = next(found for count in range(len(losses), 0, -1) if (found := falls(count)))
    assert valley(losses) in [fall[len(fall) // 2] for fall in longest]


def test_valley_of_simple_curves_is_the_obvious_one():
    assert valley([5, 4, 3, 2, 1]) == 2
    assert valley([1, 2, 3, 4, 5]) == 0
    assert valley([9, 9, 8, 7, 9, 6, 5, 9, 9]) == 3  # 9 8 7 6 5, over the spike in its middle


@pytest.mark.parametrize("seed", range(5))
def test_minimum_divided_by_10(seed):
    search = curve(seed)
    _, best = min(zip(search.smoothed, search.rates, strict=True))
    assert search.suggestions()["minimum / 10"] == best / 10


def test_a_search_of_one_step_suggests_nothing():
    with pytest.raises(ValueError, match="begin with a lower rate"):
        Search([1.0], [2.0], [2.0], "the loss exploded").suggestions()


def test_smoothing_is_the_weighted_mean_of_all_losses_so_far(digits):
    model, loader, optimizer, _ = parts(digits)
    search = find_lr(model, loader, optimizer, hi=0.1, steps=20, smoothing=0.8)
    for step, smoothed in enumerate(search.smoothed):
        weights = [0.8**age for age in range(step, -1, -1)]
        mean = sum(w * loss for w, loss in zip(weights, search.losses, strict=False)) / sum(weights)
        assert smoothed == pytest.approx(mean)


# ---------------------------------------------------------------------------------------------------------------
# The end of a search


def test_a_loss_that_explodes_ends_the_search(digits):
    search = find_lr(*parts(digits)[:3], hi=1e4, steps=60)
    assert 2 < len(search.rates) < 60
    assert search.smoothed[-1] > 4 * min(search.smoothed)
    assert all(value <= 4 * min(search.smoothed[: i + 1]) for i, value in enumerate(search.smoothed[:-1]))
    assert "exploded" in search.end


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_search_and_is_left_out(digits, bad):
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        return F.cross_entropy(outputs, targets) * (bad if len(calls) == 8 else 1)

    model, loader, optimizer, _ = parts(digits)
    before = snapshot(model, loader, optimizer)
    search = find_lr(model, loader, optimizer, hi=0.1, loss=loss)
    assert len(calls) == 8
    assert len(search.rates) == len(search.losses) == len(search.smoothed) == 7
    assert all(math.isfinite(value) for value in search.losses)
    assert str(bad) in search.end
    assert_equal(snapshot(model, loader, optimizer), before)


# ---------------------------------------------------------------------------------------------------------------
# No trace


def snapshot(model, loader, optimizer, *schedules):
    """Everything that a search could change."""
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "gradients": [parameter.grad for parameter in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "optimizer": optimizer.state_dict(),
            "schedules": [schedule.state_dict() for schedule in schedules],
            "random": torch.get_rng_state(),
            "gpus": torch.cuda.get_rng_state_all(),
            "batches": loader.generator.get_state(),
        }
    )


def assert_equal(found, expected):
    """Equal to the bit, through dicts and lists."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


@pytest.mark.parametrize("mode", ["training", "held out"])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_everything_is_put_back_to_the_bit(digits, kind, mode):
    """In the middle of a training: with momentum, gradients, two schedulers, and one module in another mode."""
    model, loader, optimizer, held_out = parts(digits)
    if kind == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedules = OneCycleLR(optimizer, 0.1, total_steps=100), ReduceLROnPlateau(optimizer)
    train.train_epoch(model, loader, optimizer, schedules[0])
    model[0].eval()
    before = snapshot(model, loader, optimizer, *schedules)
    search = find_lr(model, loader, optimizer, steps=15, held_out=held_out if mode == "held out" else None)
    assert len(search.rates) > 5
    assert_equal(snapshot(model, loader, optimizer, *schedules), before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back_after_an_error_too(digits, error):
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) == 5:
            raise error
        return F.cross_entropy(outputs, targets)

    model, loader, optimizer, _ = parts(digits)
    before = snapshot(model, loader, optimizer)
    with pytest.raises(error):
        find_lr(model, loader, optimizer, loss=loss)
    assert_equal(snapshot(model, loader, optimizer), before)


def test_a_second_search_sees_the_same(digits):
    model, loader, optimizer, held_out = parts(digits)
    searches = [find_lr(model, loader, optimizer, steps=20, held_out=mode) for mode in (None, held_out, None)]
    assert searches[0] == searches[2]
    assert searches[0].losses != searches[1].losses


def test_training_after_a_search_is_training_without_one(digits):
    def run(search_first):
        model, loader, optimizer, held_out = parts(digits)
        schedule = ReduceLROnPlateau(optimizer, patience=0)
        if search_first:
            find_lr(model, loader, optimizer, steps=12, held_out=held_out)
        return train.fit(model, loader, None, optimizer, epochs=2, schedule=schedule, held_out=held_out).epochs

    assert run(True) == run(False)


@pytest.mark.parametrize("options", [{"lo": 0}, {"lo": 1, "hi": 0.1}, {"hi": math.inf}, {"steps": 1}, {"smoothing": 1}])
def test_impossible_settings_are_refused(digits, options):
    with pytest.raises(ValueError, match="A search needs"):
        find_lr(*parts(digits)[:3], **options)


def test_the_plot_names_the_suggestions(digits):
    model, loader, optimizer, held_out = parts(digits)
    modes = {"training loss": None, "held-out loss": held_out}
    searches = {name: find_lr(model, loader, optimizer, steps=30, held_out=mode) for name, mode in modes.items()}
    figure, text = plots.lr_searches(searches, "valley")
    assert [axes.get_title() for axes in figure.axes] == list(searches)
    for axes, search in zip(figure.axes, searches.values(), strict=True):
        labels = " ".join(entry.get_text() for entry in axes.get_legend().get_texts())
        for name, rate in search.suggestions().items():
            assert f"{name}: {rate:.2g}" in labels
            assert f"{name} {rate:.2g}" in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_everything_is_put_back_too(digits):
    utils.set_seed(0)
    model = resnet18(4, channels=1).cuda()
    loader, _ = data.loaders(digits, 64, data.Augment(crop_padding=2), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = snapshot(model, loader, optimizer)
    find_lr(model, loader, optimizer, steps=20)
    assert_equal(snapshot(model, loader, optimizer), before)
