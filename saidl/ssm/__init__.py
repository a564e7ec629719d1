"""State-space layers: HiPPO matrices, discretisations, convolution kernels, S4D and S4, and all of it in NumPy.

Names load when first used, so that `saidl.ssm.numpy_s4` loads NumPy alone.
"""

import importlib

_HOME = {
    "hippo": ("INITS", "hippo_legs", "normal_plus_low_rank"),
    "discretization": ("METHODS", "discretize"),
    "kernels": ("cauchy_kernel", "dense_kernel", "diagonal_kernel", "direct_conv", "dplr_kernel", "fft_conv"),
    "layers": ("S4", "S4D", "State"),
    "numpy_s4": (),
}
_WHERE = {name: module for module, names in _HOME.items() for name in (*names, module)}
__all__ = sorted(_WHERE)


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_WHERE[name]}", __name__)
    return module if name == _WHERE[name] else getattr(module, name)


def __dir__():
    return __all__
