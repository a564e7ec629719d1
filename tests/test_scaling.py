"""What `scaling` counts, against networks and costs whose answer is known."""

import math

import torch
from torch import nn

from saidl import models, scaling


def test_crossing_of_power_laws_is_exact():
    lengths = [256, 1024, 4096, 16384]
    linear, square = [3 * L for L in lengths], [L**2 / 1000 for L in lengths]
    assert math.isclose(scaling.crossing(lengths, linear, square), 3000)
    assert math.isnan(scaling.crossing(lengths, square, linear))
    assert scaling.crossing(lengths, [1.0] * 4, [2.0] * 4) == 256


def test_memory_kept_is_that_of_the_inputs_autograd_needs():
    net = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
    x = torch.randn(1024, 16)
    # the linear layer keeps its input, tanh its output: 2 x 64 KiB, and no parameters
    assert scaling.kept(net, lambda: net(x).sum().backward())[0] == 2 * x.numel() * 4 / 2**20


def test_memory_grows_with_length_and_a_slow_network_is_not_asked_again():
    nets = {"s4d": models.SequenceClassifier(1, 2, 4, 1, "s4d", d_state=4)}
    rows = scaling.against_length(nets, (64, 256))
    assert list(rows.length) == [64, 256]
    assert rows.ms.min() > 0
    assert 2 < rows.mb.iloc[1] / rows.mb.iloc[0] <= 4.5
    assert len(scaling.against_length(nets, (64, 256), limit=0)) == 1
