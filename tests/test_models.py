"""The image networks: the papers' sizes, shapes and initialisation."""

import pytest
import torch
from torch import nn

from saidl import models


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "options", "shape", "parameters"),
    [
        ("cnn8", {}, (3, 32, 32), 1_639_794),  # Ma et al. 2020's network, counted from their code
        ("cnn4", {}, (1, 28, 28), 422_090),  # by hand: 320 + 64 + 18,496 + 128 + 401,536 + 256 + 1,290
        ("small-cnn", {}, (1, 8, 8), 29_258),  # by hand: 320 + 64 + 18,496 + 128 + 10,250
        (
            "resnet34",
            {"num_classes": 100},
            (3, 32, 32),
            21_328_292,
        ),  # torchvision's 21,797,672, less 9,408 - 1,728 of the stem, less 461,700 of classes
    ],
)
def test_sizes(name, options, shape, parameters):
    net = models.make(name, **options).eval()
    assert count(net) == parameters
    classes = options.get("num_classes", 10)
    assert net(torch.zeros(2, *shape)).shape == (2, classes)


def test_pooling_before_relu_is_the_papers_order():
    """Max-pool and ReLU commute; the papers' code has them the other way round."""
    torch.manual_seed(0)
    ours = nn.Sequential(*models.conv(3, 4, pool=True)).eval()
    theirs = nn.Sequential(ours[0], ours[1], nn.ReLU(), nn.MaxPool2d(2))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(ours(x), theirs(x))


def test_initialisation_has_the_stated_bounds():
    torch.manual_seed(0)
    net = models.make("cnn8")
    conv, linear = net[3], net[-1]
    assert conv.weight.abs().max() <= (6 / (64 * 9)) ** 0.5  # Kaiming-uniform, fan-in
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert linear.weight.abs().max() <= (6 / (256 + 10)) ** 0.5  # Xavier-uniform
    assert linear.weight.std().item() == pytest.approx((2 / (256 + 10)) ** 0.5, rel=0.05)


def test_resnet34s_stem_keeps_the_size_of_the_image():
    shapes = []
    with torch.device("meta"):  # shapes alone
        net = models.make("resnet34").eval()
        net.layer1.register_forward_hook(lambda _, __, y: shapes.append(y.shape))
        net(torch.zeros(1, 3, 32, 32))
    assert shapes == [(1, 64, 32, 32)]


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="model must be one of cnn8"):
        models.make("vgg")
