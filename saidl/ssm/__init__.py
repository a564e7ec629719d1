"""State-space layers: HiPPO matrices, discretisations, convolution kernels, S4D and S4, and all of it in NumPy."""

import importlib

from .discretize import METHODS, discretize
from .hippo import INITS, hippo_legs, normal_plus_low_rank
from .kernels import cauchy_kernel, dense_kernel, diagonal_kernel, direct_conv, fft_conv
from .layers import S4, S4D

__all__ = [
    "INITS",
    "METHODS",
    "S4",
    "S4D",
    "cauchy_kernel",
    "dense_kernel",
    "diagonal_kernel",
    "direct_conv",
    "discretize",
    "fft_conv",
    "hippo_legs",
    "normal_plus_low_rank",
    "numpy_s4",
]


def __getattr__(name):
    if name == "numpy_s4":  # apart from torch, so loaded only when asked for
        return importlib.import_module(".numpy_s4", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
