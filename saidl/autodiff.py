"""Which kind of differentiation is at work."""

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp ..) or forward-mode differentiation is at work: it takes plain operations, not
    autograd functions of our own."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
