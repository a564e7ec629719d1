"""Networks: the papers' CNNs and ResNet for images, and sequence classifiers around one interchangeable layer.

    >>> sum(p.numel() for p in make("cnn8").parameters())                  # Ma et al. 2020, CIFAR-10
    1639794
"""

import torch
from einops import rearrange
from torch import Tensor, nn

# ------------------------------------------------------------------------------------------------------------------- images


def conv(c_in: int, c_out: int, pool: bool = False) -> list[nn.Module]:
    """Convolution, batch norm, ReLU. The max-pool stands before the ReLU: the same function, as both are monotone, at a quarter of the work."""
    layers = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    return layers if pool else layers[:2] + layers[3:]


class CNN8(nn.Sequential):
    """Ma et al. 2020's 8-layer CNN for CIFAR-10: three stages of two 3x3 convolutions and a 2x2 max-pool, then 256 hidden units; batch
    norm and ReLU after every layer but the last. channels (64, 128, 196) are the paper's; (32, 64, 96) is the laptop profile's.

    Input (B, 3, 32, 32) -> logits (B, K).
    """

    def __init__(self, num_classes: int = 10, channels=(64, 128, 196), hidden: int = 256):
        a, b, c = channels
        super().__init__(
            *conv(3, a), *conv(a, a, pool=True),
            *conv(a, b), *conv(b, b, pool=True),
            *conv(b, c), *conv(c, c, pool=True),
            nn.Flatten(),
            nn.Linear(c * 16, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        initialise(self)


class CNN4(nn.Sequential):
    """Ma et al. 2020's 4-layer CNN for MNIST: two convolutions with max-pooling, batch-normed 128 hidden units.

    Input (B, 1, 28, 28) -> logits (B, K).
    """

    def __init__(self, num_classes: int = 10, channels=(32, 64), hidden: int = 128):
        a, b = channels
        super().__init__(
            nn.Conv2d(1, a, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True),
            nn.Conv2d(a, b, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(b * 49, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        initialise(self)


class SmallCNN(nn.Sequential):
    """A CNN for the 8 x 8 digits: two convolutions around a max-pool and one linear layer on all positions, which is enough to memorise
    wrong labels.

    Input (B, C, size, size) -> logits (B, K).
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, channels=(32, 64), size: int = 8):
        a, b = channels
        super().__init__(
            *conv(in_channels, a, pool=True), *conv(a, b), nn.Flatten(), nn.Linear(b * (size // 2) ** 2, num_classes)
        )
        initialise(self)


def resnet34(num_classes: int = 100) -> nn.Module:
    """torchvision's ResNet-34 with the CIFAR stem, 3x3 without pooling (the papers' network for CIFAR-100 and CIFAR-10N)."""
    from torchvision.models import resnet34 as build

    net = build(weights=None, num_classes=num_classes)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return net


def initialise(net: nn.Module) -> None:
    """Kaiming-uniform convolutions, Xavier-uniform linear layers (Ma et al. 2020's code)."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)


IMAGE_MODELS = {"cnn8": CNN8, "cnn4": CNN4, "small-cnn": SmallCNN, "resnet34": resnet34}


def make(name: str, **options) -> nn.Module:
    """An image network of IMAGE_MODELS by name, or a `SequenceClassifier` whose layer is `name`.

    Raises ValueError for an unknown name.
    """
    if name in IMAGE_MODELS:
        return IMAGE_MODELS[name](**options)
    if name in LAYERS:
        return SequenceClassifier(layer=name, **options)
    raise ValueError(f"model must be one of {', '.join([*IMAGE_MODELS, *LAYERS])}, not {name!r}")


# ---------------------------------------------------------------------------------------------------------------- sequences

LAYERS = ("s4d", "s4", "lstm", "gru", "transformer")


def parameter_groups(model: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """Optimiser groups: parameters a layer marks as `ssm` (A, B, dt) learn at min(lr, 1e-3) without decay, the rest at lr with it."""
    small = [p for p in model.parameters() if getattr(p, "ssm", False)]
    rest = [p for p in model.parameters() if not getattr(p, "ssm", False)]
    groups = [{"params": rest, "lr": lr, "weight_decay": weight_decay}]
    return groups + ([{"params": small, "lr": min(lr, 1e-3), "weight_decay": 0.0}] if small else [])
