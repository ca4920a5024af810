"""Many trainings at once: each must give what it would give alone."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from common import data, train, utils
from common.many import fit_many
from common.model import ConvBlock, batch_norm_and_dropout, fully_connected_head, under_10k

AUGMENT = data.Augment(rotate=10, shift=2, scale=0.1)
SEEDS = (0, 7, 3)


class DoubleLoader(data.Loader):
    """The same batches in float64, where rounding hides nothing."""

    def batch(self, chosen):
        images, targets = super().batch(chosen)
        return images.double(), targets


def setup_of(build, digits):
    """The setup of one training: a network and a loader that both depend on the seed."""

    def setup(seed):
        utils.set_seed(seed)
        chosen = torch.randperm(len(digits.train.labels))[:40]  # the last batch is smaller
        few = data.Split(digits.train.images[chosen], digits.train.labels[chosen])
        pixels = {"mean": digits.mean, "std": digits.std}
        return build().double(), DoubleLoader(few, 16, augment=AUGMENT, shuffle=True, seed=seed, **pixels)

    return setup


def adam(network, loader):
    return torch.optim.Adam(network.parameters(), 0.003), None


def steps(network, loader):
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    return optimizer, StepLR(optimizer, 1, 0.5)


def one_cycle(network, loader):
    return train.one_cycle(network, loader, 0.1, epochs=2)


@pytest.mark.parametrize(
    ("build", "optimise"),
    [
        (lambda: fully_connected_head(10), adam),
        (lambda: nn.Sequential(*fully_connected_head(10), nn.Softmax(dim=1)), adam),
        (under_10k, one_cycle),
        (lambda: under_10k(dropout=0.1), one_cycle),
        (batch_norm_and_dropout, steps),
    ],
    ids=["s05, Adam", "s05, softmax", "s06, OneCycle", "s06, dropout", "s04, StepLR"],
)
def test_each_network_equals_that_of_a_single_run(digits, build, optimise):
    setup = setup_of(build, digits)
    networks, histories = fit_many(setup, SEEDS, optimise, epochs=2)
    for seed, network, history in zip(SEEDS, networks, histories, strict=True):
        alone, loader = setup(seed)
        optimizer, schedule = optimise(alone, loader)
        expected = train.fit(alone, loader, None, optimizer, epochs=2, schedule=schedule, log=lambda line: None)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-7, atol=1e-9)
        for row, wanted in zip(history.epochs, expected.epochs, strict=True):
            assert row == pytest.approx(wanted, rel=1e-6)
    assert not torch.equal(*[next(network.parameters()) for network in networks[:2]])


def test_networks_are_trained_only_once(digits):
    setup = setup_of(lambda: fully_connected_head(10), digits)
    networks, _ = fit_many(setup, SEEDS, adam, epochs=1)
    _, loader = setup(SEEDS[0])
    with pytest.raises(ValueError, match="trained already"):
        train.fit(networks[0], loader, None, adam(networks[0], loader)[0], epochs=1)
    with pytest.raises(ValueError, match="trained already"):
        fit_many(lambda seed: (networks[0], loader), SEEDS, adam, epochs=1)


def test_what_cannot_be_put_side_by_side_is_refused(digits):
    mixing = setup_of(lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.LayerNorm(10)), digits)
    with pytest.raises(TypeError, match="LayerNorm"):
        fit_many(mixing, SEEDS, adam, epochs=1)

    def unequal(seed):
        few = data.Split(digits.train.images[: 50 + seed], digits.train.labels[: 50 + seed])
        return under_10k(), data.Loader(few, 16, digits.mean, digits.std)

    with pytest.raises(ValueError, match="same number of images"):
        fit_many(unequal, SEEDS, adam, epochs=1)


def test_a_loss_that_is_not_finite_names_its_seed(digits):
    def setup(seed):
        network, loader = setup_of(lambda: nn.Sequential(ConvBlock(1, 10, 28), nn.Flatten()), digits)(seed)
        if seed == 7:
            network[0][0].weight.data.fill_(float("nan"))
        return network, loader

    with pytest.raises(ArithmeticError, match="seed 7"):
        fit_many(setup, SEEDS, adam, epochs=1)
