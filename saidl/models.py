"""Networks: the papers' CNNs and ResNet for images, and sequence classifiers around one interchangeable layer.

>>> sum(p.numel() for p in make("cnn8").parameters())                  # Ma et al. 2020, CIFAR-10
1639794
"""

import math
import re

import torch
from einops import rearrange
from torch import Tensor, nn

from saidl import ssm
from saidl.checks import between, flag, form, one_of, whole

# ------------------------------------------------------------------------------------------------------------------- images


def conv(c_in: int, c_out: int, pool: bool = False) -> list[nn.Module]:
    """Convolution, batch norm, ReLU. The max-pool stands before the ReLU: the same function, as both are monotone, for a quarter of the
    work."""
    layers = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    return layers if pool else layers[:2] + layers[3:]


class Flatten(nn.Flatten):
    """nn.Flatten's gradient comes out channels first. On a CPU what stands before it, computed channels last, would then work on two
    layouts at once, slowly: here the gradient is laid out as the input was, with the same values."""

    def forward(self, x: Tensor) -> Tensor:
        last = torch.channels_last
        if x.requires_grad and x.is_cpu and x.is_contiguous(memory_format=last):
            x.register_hook(lambda grad: grad.contiguous(memory_format=last))
        return super().forward(x)


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
            Flatten(),
            nn.Linear(c * 16, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        initialise(self)


class CNN4(nn.Sequential):
    """Ma et al. 2020's 4-layer CNN for MNIST: two 3x3 convolutions, each with a 2x2 max-pool, then 128 hidden units; batch norm and
    ReLU after every layer but the last.

    Input (B, 1, 28, 28) -> logits (B, K).
    """

    def __init__(self, num_classes: int = 10, channels=(32, 64), hidden: int = 128):
        a, b = channels
        super().__init__(
            *conv(1, a, pool=True), *conv(a, b, pool=True),
            Flatten(),
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
            *conv(in_channels, a, pool=True), *conv(a, b), Flatten(), nn.Linear(b * (size // 2) ** 2, num_classes)
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

    Raises ValueError for an unknown name, or options that cannot be.
    """
    one_of("model", name, (*IMAGE_MODELS, *LAYERS))
    for option in options.keys() & {"num_classes", "in_channels", "hidden", "size"}:
        whole(option, options[option], 1)
    try:
        for channels in options.get("channels", ()):
            whole("channels", channels, 1)
        return IMAGE_MODELS[name](**options) if name in IMAGE_MODELS else SequenceClassifier(layer=name, **options)
    except TypeError as error:
        raise ValueError(f"model {name} cannot be built with {options}: {error}") from error


# ---------------------------------------------------------------------------------------------------------------- sequences

LAYERS = ("s4d", "s4", "lstm", "gru", "transformer")
PRESETS = {  # options of SequenceClassifier; parameters for 10 classes
    # state-spaces/s4's example.py, 88 or 89 % on colour sCIFAR by its texts: 201,482 parameters for three channels, 201,226 for one
    "s4d-4x128": {"layer": "s4d", "d_model": 128, "n_layers": 4, "init": "lin", "dropout": 0.1},
    # the papers' size for sCIFAR and LRA Image (88 to 92 %): 6 x 512, both directions
    "s4d-6x512": {"layer": "s4d", "d_model": 512, "n_layers": 6, "init": "lin", "dropout": 0.1, "bidirectional": True},
    "s4-6x512": {"layer": "s4", "d_model": 512, "n_layers": 6, "dropout": 0.1, "bidirectional": True},
    # the controlled comparison on LRA Image in state-spaces/s4, 82.8 % in validation: 266,762 parameters, no final norm
    "s4d-lra-small": {
        "layer": "s4d", "d_model": 128, "n_layers": 4, "init": "lin", "dropout": 0.1,
        "bidirectional": True, "train_B": True, "prenorm": True, "norm": "batch", "final_norm": False,
    },
}  # fmt: skip


class SequenceClassifier(nn.Module):
    """Sequences (B, L, d_input) of any length -> logits (B, num_classes): linear, blocks, pooling over length, linear.

    Arguments: layer, one of LAYERS, what carries information along the sequence, the rest being equal; dropout in
        [0, 1), tied over length, but not in a Transformer; norm, "layer" or "batch"; prenorm, norm before or after each
        block (None: after, but before in a Transformer), final_norm (None: as prenorm); bidirectional (None: causal, but
        not a Transformer, as published); pooling, "mean" or "last"; layer_options, those of the `ssm` layers, but for
        method "async", which needs more than a sequence, or a Transformer's `heads`.
    Raises ValueError for an unknown name or a value out of range, TypeError for an option that the layer has not.

    >>> net = SequenceClassifier(3, 10, **PRESETS["s4d-4x128"])
    >>> sum(p.numel() for p in net.parameters())
    201482
    """

    def __init__(
        self, d_input: int, num_classes: int, d_model: int, n_layers: int, layer: str = "s4d", *,
        dropout: float = 0.1, norm: str = "layer", prenorm: bool | None = None, final_norm: bool | None = None,
        bidirectional: bool | None = None, pooling: str = "mean", **layer_options,
    ):  # fmt: skip
        super().__init__()
        one_of("layer", layer, LAYERS)
        one_of("norm", norm, NORMS)
        one_of("pooling", pooling, ("mean", "last"))
        sizes = {"d_input": d_input, "num_classes": num_classes, "d_model": d_model, "n_layers": n_layers}
        for name, value in sizes.items():
            whole(name, value, 1)
        if layer_options.get("method") == "async":
            raise ValueError("method must not be 'async', which needs the gaps between inputs: use the `ssm` layers")
        between("dropout", dropout, 0, 1, below=True)
        attends = layer == "transformer"
        prenorm, bidirectional = (attends if value is None else value for value in (prenorm, bidirectional))
        final_norm = prenorm if final_norm is None else final_norm
        for name, value in {"prenorm": prenorm, "bidirectional": bidirectional, "final_norm": final_norm}.items():
            flag(name, value)
        self.layer, self.pooling, self.d_input = layer, pooling, d_input
        self.encoder = nn.Linear(d_input, d_model)
        block = TransformerBlock if attends else SequenceBlock
        mixers = (mixer(layer, d_model, bidirectional, **layer_options) for _ in range(n_layers))
        self.blocks = nn.ModuleList(block(m, d_model, dropout, prenorm, norm) for m in mixers)
        self.norm = NORMS[norm](d_model) if final_norm else nn.Identity()
        self.decoder = nn.Linear(d_model, num_classes)

    def forward(self, x: Tensor, rate: float = 1.0) -> Tensor:
        """x (B, L, d_input) -> (B, num_classes); `rate`, see `ssm.S4D`, is for state-space layers alone."""
        fits = isinstance(x, Tensor) and x.ndim == 3 and x.shape[1] > 0 and x.shape[2] == self.d_input
        if not fits or not x.is_floating_point():
            raise ValueError(f"input must be (B, L, {self.d_input}) with L >= 1, floating point, not {form(x)}")
        ssm.layers.check_rate(rate)
        if rate != 1 and self.layer not in ("s4d", "s4"):
            raise ValueError(f"{self.layer} has no sampling rate: rate must be 1, not {rate!r}")
        x = self.encoder(x)
        x = x + positions(x) if self.layer == "transformer" else x
        for block in self.blocks:
            x = block(x) if rate == 1 else block(x, rate)
        x = self.norm(x)
        return self.decoder(x.mean(1) if self.pooling == "mean" else x[:, -1])

    def initial_state(self, batch: int, rate: float = 1.0) -> tuple:
        """What `step` carries before the first input: each layer's state, the sum of the steps so far, their number.

        Raises ValueError for a layer other than s4d and s4, both directions, a batch below 0 or a rate <= 0.
        """
        if self.layer not in ("s4d", "s4"):
            raise ValueError(f"layer must be s4d or s4 to run step by step, not {self.layer}")
        layers = tuple(block.mixer.initial_state(batch, rate) for block in self.blocks)
        return layers, self.encoder.weight.new_zeros(batch, 1, self.encoder.out_features), 0

    def step(self, x_t: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """One more input (B, d_input) -> the logits (B, num_classes) of the sequence so far, and the next state.

        What `forward` gives in evaluation, at the same cost for every input; training, dropout is drawn at every step.
        Raises ValueError for a state that is not this network's, or x_t of another shape than the state's batch and d_input.
        """
        if not isinstance(state, tuple) or len(state) != 3 or len(state[0]) != len(self.blocks):
            raise ValueError(f"state must be this network's, of `initial_state` or `step`, not {form(state)}")
        layers, total, count = state
        if not isinstance(x_t, Tensor) or x_t.shape != (len(total), self.d_input) or not x_t.is_floating_point():
            raise ValueError(f"x_t must be ({len(total)}, {self.d_input}), floating point, not {form(x_t)}")
        x, after = self.encoder(x_t).unsqueeze(1), []
        for block, of_layer in zip(self.blocks, layers, strict=True):
            x, of_layer = block.step(x, of_layer)
            after.append(of_layer)
        x = self.norm(x)
        total, count = total + x, count + 1
        return self.decoder((total / count if self.pooling == "mean" else x)[:, 0]), (tuple(after), total, count)

    def extra_repr(self) -> str:
        """The option that no part's repr shows: a checkpoint is of the same network if the whole repr is the same."""
        return f"pooling={self.pooling!r}"


class SequenceBlock(nn.Module):
    """Mixer, GELU, dropout, linear to 2H and GLU, dropout; around it a residual and a norm. (B, L, H) -> (B, L, H).

    Raises ValueError for a norm that is not "layer" or "batch", a dropout outside [0, 1), a d_model below 1.
    """

    def __init__(self, mixer: nn.Module, d_model: int, dropout=0.0, prenorm: bool = False, norm: str = "layer"):
        super().__init__()
        one_of("norm", norm, NORMS)
        between("dropout", dropout, 0, 1, below=True)
        self.mixer, self.prenorm = mixer, prenorm
        self.norm = NORMS[norm](whole("d_model", d_model, 1))
        self.dropout = TiedDropout(dropout)
        self.mix = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, *rate: float) -> Tensor:
        return self.around(x, self.mixer(self.norm(x) if self.prenorm else x, *rate))

    def step(self, x: Tensor, state) -> tuple[Tensor, "ssm.State"]:
        """One step x (B, 1, H) -> (B, 1, H) and the mixer's next state."""
        z, state = self.mixer.step((self.norm(x) if self.prenorm else x)[:, 0], state)
        return self.around(x, z.unsqueeze(1)), state

    def around(self, x: Tensor, z: Tensor) -> Tensor:
        z = self.dropout(nn.functional.gelu(z))
        x = x + self.dropout(nn.functional.glu(self.mix(z), dim=-1))
        return x if self.prenorm else self.norm(x)

    def extra_repr(self) -> str:
        return f"prenorm={self.prenorm}"


class TransformerBlock(nn.Module):
    """Attention, then two linear layers with 4H hidden units, each with residual and norm. (B, L, H) -> (B, L, H).

    Raises ValueError as `SequenceBlock`.
    """

    def __init__(self, mixer: nn.Module, d_model: int, dropout=0.0, prenorm: bool = True, norm: str = "layer"):
        super().__init__()
        one_of("norm", norm, NORMS)
        between("dropout", dropout, 0, 1, below=True)
        whole("d_model", d_model, 1)
        self.mixer, self.prenorm = mixer, prenorm
        self.norms = nn.ModuleList([NORMS[norm](d_model), NORMS[norm](d_model)])
        self.mlp = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        for f, norm in zip((self.mixer, self.mlp), self.norms, strict=True):
            x = x + self.dropout(f(norm(x))) if self.prenorm else norm(x + self.dropout(f(x)))
        return x

    def extra_repr(self) -> str:
        return f"prenorm={self.prenorm}"


def mixer(layer: str, d_model: int, bidirectional: bool, **options) -> nn.Module:
    """What carries information along the sequence, (B, L, H) -> (B, L, H)."""
    if layer in ("s4d", "s4"):
        return {"s4d": ssm.S4D, "s4": ssm.S4}[layer](d_model, bidirectional=bidirectional, **options)
    if layer == "transformer":
        return Attention(d_model, bidirectional, **options)
    return Recurrent(layer, d_model, bidirectional, **options)


class Recurrent(nn.Module):
    """torch's LSTM or GRU; two of half the width if bidirectional."""

    def __init__(self, kind: str, d_model: int, bidirectional: bool):
        super().__init__()
        if bidirectional and d_model % 2:
            raise ValueError(f"d_model must be even for two directions, not {d_model}")
        width = d_model // 2 if bidirectional else d_model
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](d_model, width, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return self.rnn(x)[0]
        with torch.autocast("cuda", enabled=False):  # it would make float16 of it, whatever type it was asked for
            return self.rnn(x.float())[0]


class Attention(nn.Module):
    """Multi-head attention through torch's fused kernels, causal unless bidirectional."""

    def __init__(self, d_model: int, bidirectional: bool, heads: int = 4):
        super().__init__()
        if d_model % whole("heads", heads, 1):
            raise ValueError(f"heads must divide d_model = {d_model}, not {heads}")
        self.heads, self.bidirectional = heads, bidirectional
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=not self.bidirectional)
        return self.out(rearrange(y, "b h l d -> b l (h d)"))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, bidirectional={self.bidirectional}"


def positions(x: Tensor) -> Tensor:
    """Sines and cosines of positions, wavelengths 2 pi to 20000 pi (Vaswani et al. 2017): x (B, L, H) -> (L, H)."""
    _, L, H = x.shape
    frequency = 1e-4 ** (torch.arange(0, H, 2, device=x.device) / H)
    angle = torch.arange(L, device=x.device).unsqueeze(1) * frequency  # (L, H/2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :H].to(x.dtype)


class TiedDropout(nn.Dropout):
    """Drops whole channels of (B, L, H), one mask for all of the sequence: untied, it costs S4 several points."""

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x.new_ones(len(x), 1, x.shape[2])) if self.training and self.p else x


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of (B, L, H) over B and L."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)


NORMS = {"layer": nn.LayerNorm, "batch": BatchNorm}


def matched_width(layer: str, options: dict, *, d_input: int = 1) -> int:
    """The d_model, a multiple of 4, that brings `layer` nearest in size to S4D with these `options`."""
    common = ("n_layers", "dropout", "prenorm", "norm", "final_norm", "bidirectional", "pooling")
    common += ("d_state",) * (layer in ("s4d", "s4"))
    common = {name: value for name, value in options.items() if name in common}
    options = {name: value for name, value in options.items() if name != "layer"}

    def parameters(layer, **options):
        with torch.random.fork_rng(devices=[]), torch.device("cpu" if layer in ("s4d", "s4") else "meta"):
            return sum(p.numel() for p in SequenceClassifier(d_input, 10, layer=layer, **options).parameters())

    budget, width = parameters("s4d", **options), 4
    while parameters(layer, d_model=width + 4, **common) <= budget:
        width += 4
    return min((width, width + 4), key=lambda d: abs(parameters(layer, d_model=d, **common) - budget))


def parameter_groups(model: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """Optimiser groups: a layer's `slow_parameters` (A, B, dt) at min(lr, 1e-3) and no decay, the rest as told.

    Raises ValueError for an lr or a weight_decay that is no finite number of at least 0, or a model that is no network.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch module, not {form(model)}")
    lr, weight_decay = between("lr", lr, 0, math.inf, True), between("weight_decay", weight_decay, 0, math.inf, True)
    marked = (p for m in model.modules() for name in getattr(m, "slow_parameters", ()) for p in trained(m, name))
    slow = {id(p): p for p in marked}
    rest = [p for p in model.parameters() if id(p) not in slow]
    groups = [{"params": rest, "lr": lr, "weight_decay": weight_decay}]
    return groups + ([{"params": list(slow.values()), "lr": min(lr, 1e-3), "weight_decay": 0.0}] if slow else [])


def trained(module: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters behind module.name: it, or those that torch's pruning or parametrizations compute it from."""
    behind = re.compile(rf"{name}(_orig)?|parametrizations\.{name}\.original\d*")
    return [p for n, p in module.named_parameters(remove_duplicate=False) if behind.fullmatch(n)]
