"""Delayed recall: solved by a state-space model whose memory spans the sequence, not by one that sees its end alone."""

from dataclasses import replace

import pytest
import torch

from saidl import data, losses, models, training

LENGTH = 128
SETTINGS = training.Settings(
    epochs=3, batch_size=8, optimizer="adamw", lr=0.01, weight_decay=0.01, view="sequence", precision="float32", eval_every=3
)  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return data.synthetic("delayed-recall", length=LENGTH, train=1024, test=1024)


def network(dt: float) -> models.SequenceClassifier:
    torch.manual_seed(0)
    net = models.SequenceClassifier(
        8, 8, 16, 2, "s4d", init="lin", dt_min=dt, dt_max=dt, norm="batch", pooling="last", dropout=0
    )
    with torch.no_grad():
        for block in net.blocks:  # outputs of order one under white noise, whose size the step scales by sqrt(dt)
            block.mixer.C /= dt**0.5
    return net


def accuracy(dt: float, split, settings=SETTINGS) -> float:
    loss = losses.make("ce", 8)
    return training.fit(network(dt), *split, loss, settings, seed=0, device="cpu").test_accuracy[-1]


def test_a_memory_as_long_as_the_sequence_recalls_its_first_symbol(split):
    assert accuracy(1 / LENGTH, split) > 0.9


def test_the_last_step_alone_says_nothing(split):
    end = data.Split(*(replace(part, images=part.images[..., -1:]) for part in split))
    sigma = (1 / 8 * 7 / 8 / len(end.test)) ** 0.5
    assert abs(accuracy(1 / LENGTH, end, replace(SETTINGS, epochs=1, eval_every=1)) - 1 / 8) < 4 * sigma


def test_an_untrained_long_memory_still_feels_the_first_symbol_and_a_short_one_does_not(split):
    x = data.as_sequence(split.test.images[:1])
    other = x.clone()
    other[:, 0] = other[:, 0].roll(1, -1)

    def felt(dt: float) -> float:
        net = network(dt).eval()
        return (net(x) - net(other)).abs().max().item()

    assert felt(1 / LENGTH) > 1e-2
    assert felt(1.0) == pytest.approx(0, abs=1e-6)
