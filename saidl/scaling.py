"""What a training step costs, measured here: time and memory of whole networks against the length of their input.

A step is forward and backward. Its time is the fastest of a few: a busy machine only ever adds. Its memory is what the
forward pass keeps for the backward pass, every storage once, parameters left out, as autograd's hooks see it: what
grows with length and fills a device first. Work space that lives within one operation is not in it.

    >>> round(crossing([256, 1024, 4096], [1, 4, 16], [0.25, 4, 64]))      # L against L^2
    1024
"""

import math
import time
import timeit
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn


def against_length(nets: Mapping[str, nn.Module], lengths: Sequence[int], limit: float = 1.0):
    """One training step of every network at every length.

    Arguments: nets, `models.SequenceClassifier`s by name; lengths, rising; limit, seconds: a network whose step took
        longer is not asked for the next length, which could take many times that.
    Returns: DataFrame with name, parameters, length, ms, mb (MiB kept for the backward pass).
    """
    rows = []
    for name, net in nets.items():
        size = sum(p.numel() for p in net.parameters())
        for length in lengths:
            call = step(net, length)
            mb, first = kept(net, call)
            seconds = fastest(call, repeats=1 if first > limit else 5 if length <= 1024 else 2)
            rows.append((name, size, length, 1e3 * seconds, mb))
            if seconds > limit:
                break
    return pd.DataFrame(rows, columns=["name", "parameters", "length", "ms", "mb"])


def step(net: nn.Module, length: int, batch: int = 1) -> Callable[[], None]:
    """A call that runs the network forward and backward on a random batch (batch, length, d_input)."""
    x = torch.randn(batch, length, net.d_input, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(batch, dtype=torch.int64)

    def call() -> None:
        net.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(x), y).backward()

    return call


def fastest(call: Callable, repeats: int = 5) -> float:
    """Seconds of the fastest of some calls."""
    return min(timeit.repeat(call, number=1, repeat=repeats))


def kept(net: nn.Module, call: Callable) -> tuple[float, float]:
    """MiB that one call keeps for its backward pass, and its seconds; it serves as the warm-up of `fastest` too."""
    own, sizes = {p.untyped_storage().data_ptr() for p in net.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        began = time.perf_counter()
        call()
        seconds = time.perf_counter() - began
    return sum(sizes.values()) / 2**20, seconds


def crossing(lengths: Sequence[float], a: Sequence[float], b: Sequence[float]) -> float:
    """The length from which on `b` costs more than `a`, straight lines between the logarithms; NaN if it never does.

    A `b` that costs more at the first length already crosses there or before: that length is returned.
    """
    x, gap = np.log(np.asarray(lengths, float)), np.log(np.asarray(b, float)) - np.log(np.asarray(a, float))
    if not gap[-1] > 0:
        return math.nan
    below = np.flatnonzero(gap <= 0)
    if not len(below):
        return float(lengths[0])
    i = below[-1]  # the last length at which b is not yet dearer
    return float(np.exp(x[i] - gap[i] * (x[i + 1] - x[i]) / (gap[i + 1] - gap[i])))
