import math

import torch

from utils.ema import ExponentialMovingAverage


def test_average_of_weights_and_statistics() -> None:
    network = torch.nn.BatchNorm1d(1)
    network.weight.data.zero_()
    ema = ExponentialMovingAverage(network, 0.5)
    expected = 0.0
    for number in range(40):
        network.running_mean.fill_(number)
        network.weight.data.fill_(number)
        ema.update(network)
        decay = min(0.5, (2 + number) / (11 + number))
        expected = decay * expected + (1 - decay) * number
        assert math.isclose(ema.module.running_mean.item(), expected, rel_tol=1e-5)
        assert math.isclose(ema.module.weight.item(), expected, rel_tol=1e-5)


def test_a_young_average_does_not_cling_to_the_beginning() -> None:
    network = torch.nn.Linear(1, 1)
    network.weight.data.fill_(100)
    ema = ExponentialMovingAverage(network, 0.9999)
    for _ in range(50):
        network.weight.data.fill_(1)
        ema.update(network)
    assert ema.module.weight.item() < 1.5


def test_counts_are_copied() -> None:
    network = torch.nn.BatchNorm1d(2)
    ema = ExponentialMovingAverage(network, 0.9)
    for _ in range(3):
        network(torch.randn(4, 2))
        ema.update(network)
    assert int(ema.module.num_batches_tracked) == 3


def test_state_comes_back() -> None:
    network = torch.nn.Linear(1, 1)
    one, other = ExponentialMovingAverage(network, 0.9), ExponentialMovingAverage(torch.nn.Linear(1, 1), 0.9)
    one.update(network)
    other.load_state_dict(one.state_dict())
    assert other.updates == 1
    assert torch.equal(other.module.weight, one.module.weight)
