"""From x' = A x + B u to x_k = Ab x_{k-1} + Bb u_k, by every rule the S4 literature uses.

| method         | Ab                                         | Bb                       | stable for Re A < 0     |
|----------------|--------------------------------------------|--------------------------|-------------------------|
| zoh            | exp(dt A)                                  | A^-1 (exp(dt A) - I) B   | always                  |
| bilinear       | (I - dt/2 A)^-1 (I + dt/2 A)               | (I - dt/2 A)^-1 dt B     | always                  |
| forward-euler  | I + dt A                                   | dt B                     | if every |1 + dt a| < 1 |
| backward-euler | (I - dt A)^-1                              | (I - dt A)^-1 dt B       | always                  |
| gbt            | (I - alpha dt A)^-1 (I + (1-alpha) dt A)   | (I - alpha dt A)^-1 dt B | if alpha >= 1/2         |
| dirac          | exp(dt A)                                  | B                        | always                  |
| async          | exp(gap dt A)                              | A^-1 (exp(dt A) - I) B   | always                  |

gbt, the generalised bilinear transform, is forward Euler, bilinear and backward Euler at alpha = 0, 1/2, 1. async is
Event-SSM (arXiv 2404.18508): the time since the last event ages the state, the event itself counts dt.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saidl.autodiff import transformed
from saidl.checks import between, one_of

METHODS = ("zoh", "bilinear", "forward-euler", "backward-euler", "gbt", "dirac", "async")
ALPHA = {"forward-euler": 0.0, "bilinear": 0.5, "backward-euler": 1.0}


def discretize(A, B, dt, method: str = "zoh", *, alpha: float = 0.5, gaps=None):
    """Discretise x' = A x + B u with step `dt`.

    Arguments:
        A: diagonal (..., N), real or complex, or dense (..., N, N), single or double precision; tensor or NumPy array
        B: (..., N); A is taken as dense exactly when it has one dimension more than B
        dt: step > 0, a number or (...,); the leading dimensions broadcast, A and B having equally many
        method: one of METHODS
        alpha: in [0, 1], for "gbt" alone
        gaps: for "async", and required there: times since the last event in units of dt, >= 0, a number or any array
    Returns: Ab and Bb of the types of A and B, arrays if A is one; leading dimensions broadcast (for Ab A's and dt's). "async": Ab has
        dimensions of `gaps` before those of the state
    Raises: ValueError for any of the above out of range.

    >>> Ab, Bb = discretize(torch.tensor([-1.0]), torch.tensor([1.0]), 0.1, "backward-euler")
    >>> round(Ab.item(), 4), round(Bb.item(), 4)
    (0.9091, 0.0909)
    """
    as_array = isinstance(A, np.ndarray)
    A, B = as_tensor("A", A), as_tensor("B", B)
    dt = as_tensor("dt", dt, A.real)
    gaps = None if gaps is None else as_tensor("gaps", gaps, A.real)
    check(A, B, dt, method, alpha, gaps)
    if A.is_complex() and not B.is_complex():
        B = B.to(A.dtype)
    Ab, Bb = (discretize_dense if A.ndim == B.ndim + 1 else discretize_diagonal)(A, B, dt, method, alpha, gaps)
    return (Ab.numpy(), Bb.numpy()) if as_array else (Ab, Bb)


def check(A: Tensor, B: Tensor, dt: Tensor, method: str, alpha: float = 0.5, gaps: Tensor | None = None) -> None:
    """ValueError for what `discretize` does not take; reads the values of dt and gaps, so it waits for a GPU."""
    check_method(method, alpha)
    if A.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise ValueError(f"A must be floating point or complex of single or double precision, got {A.dtype}")
    if not dt.is_floating_point():
        raise ValueError(f"dt must be floating point, got {dt.dtype}")
    if not (B.is_floating_point() or B.is_complex()):
        raise ValueError(f"B must be floating point or complex, got {B.dtype}")
    dense = A.ndim == B.ndim + 1
    if dense and B.dtype not in (A.dtype, A.real.dtype):
        raise ValueError(f"B must be of the type of a dense A, {A.dtype}, got {B.dtype}")
    shapes = f"A {tuple(A.shape)} and B {tuple(B.shape)}"
    fits = B.ndim > 0 and (dense or A.ndim == B.ndim) and A.shape[-1] == B.shape[-1]
    if not fits or (dense and A.shape[-2] != A.shape[-1]):
        raise ValueError(f"A must be (..., N) or (..., N, N) for B (..., N), got {shapes}")
    try:
        torch.broadcast_shapes(dt.shape, A.shape[: B.ndim - 1], B.shape[:-1])
    except RuntimeError:
        told = f"dt {tuple(dt.shape)}, {shapes}"
        raise ValueError(f"dt and the leading dimensions of A and B must broadcast, got {told}") from None
    if not transformed() and len(bad := dt[~((dt > 0) & dt.isfinite())]):  # in a vmap there are no values to look at
        raise ValueError(f"dt must be positive and finite, got {bad[0].item()}")
    if method == "async" and gaps is None:
        raise ValueError("method 'async' needs gaps: the time since the last event in units of dt, at least 0")
    if method != "async" and gaps is not None:
        raise ValueError(f"gaps belong to method 'async', got them with {method!r}")
    if gaps is not None and not transformed() and len(bad := gaps[~((gaps >= 0) & gaps.isfinite())]):
        raise ValueError(f"gaps must be at least 0 and finite, got {bad[0].item()}")


def as_tensor(name: str, value, like: Tensor | None = None) -> Tensor:
    """A number, array or tensor as a tensor, of the type and on the device of `like`; ValueError for anything else, and for complex
    numbers where `like` is real."""
    to = {} if like is None else {"dtype": like.dtype, "device": like.device}
    try:
        if like is None or like.is_complex() or not torch.as_tensor(value).is_complex():
            return torch.as_tensor(value, **to)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a number, an array or a tensor, got {value!r}") from error
    raise ValueError(f"{name} must be real, got {value!r}")


def check_method(method: str, alpha: float = 0.5) -> None:
    one_of("method", method, METHODS)
    between("alpha", alpha, 0, 1)


def discretize_diagonal(A: Tensor, B: Tensor, dt: Tensor, method: str, alpha: float = 0.5, gaps: Tensor | None = None):
    dt = dt.unsqueeze(-1) if dt.ndim else dt  # (..., 1)
    z = dt * A
    if method in ("zoh", "dirac", "async"):
        Bb = torch.broadcast_tensors(B, z)[0].clone() if method == "dirac" else dt * B * _expm1_over(z)
        return torch.exp(z if gaps is None else _outer(gaps, z, 1)), Bb
    alpha = ALPHA.get(method, alpha)
    return (1 + (1 - alpha) * z) / (1 - alpha * z), dt * B / (1 - alpha * z)


def discretize_dense(A: Tensor, B: Tensor, dt: Tensor, method: str, alpha: float = 0.5, gaps: Tensor | None = None):
    dt = dt[..., None, None] if dt.ndim else dt  # (..., 1, 1)
    N, z, b = A.shape[-1], dt * A, B.unsqueeze(-1)
    batch = torch.broadcast_shapes(z.shape[:-2], B.shape[:-1])
    if method == "dirac":
        return matrix_exp(z), B.expand(*batch, N).clone()
    each, Bb = z.expand(*batch, N, N), (dt * b).expand(*batch, N, 1)
    of_z = tuple(map(slice, z.shape[:-2]))  # what belongs to Ab, which has no more leading dimensions than dt A
    if method in ("zoh", "async"):
        # exp [[dt A, dt B], [0, 0]] = [[Ab, Bb], [0, 1]]: no inverse of A, so a singular A (an integrator) is right too
        # linear in B, so B is brought to size 1: a large B would cost digits, as the exponential scales by the larger of dt A and dt B
        size = _size(Bb)
        block = torch.cat([each, Bb / size], -1)
        block = matrix_exp(torch.cat([block, torch.zeros_like(block[..., :1, :])], -2))
        Ab = block[..., :N, :N][of_z] if gaps is None else matrix_exp(_outer(gaps, z, 2))
        return Ab, block[..., :N, N] * size[..., 0]
    alpha = ALPHA.get(method, alpha)
    eye = torch.eye(N, dtype=A.dtype, device=A.device)
    explicit = eye + (1 - alpha) * each
    if alpha:
        both = torch.linalg.solve(eye - alpha * each, torch.cat([explicit, Bb], -1))
        explicit, Bb = both[..., :N], both[..., N:]
    return explicit[of_z], Bb.squeeze(-1)


def matrix_exp(z: Tensor) -> Tensor:
    """exp(z) of z (..., N, N), value and gradient with all the digits that torch's own at times has not."""
    return _exp(z) if transformed() else _Exp.apply(z)


def _exp(z: Tensor) -> Tensor:
    """With one more column, of size 1, which the exponential of the rest does not see: torch takes a polynomial that is too short where
    the norm is about 0.03 in float64, 0.5 in float32."""
    N = z.shape[-1]
    z = F.pad(z, (0, 1, 0, 1))
    z[..., 0, N] = 1
    return torch.matrix_exp(z)[..., :N, :N]


class _Exp(torch.autograd.Function):
    """dz is a corner of exp [[z^H, G], [0, z^H]], linear in the incoming gradient G. torch's own derivative leaves G at whatever size it
    is, and a large one is squared many times: at a loss times 65536 (a gradient scaler's) float32 has no digit left. Here G has size 1."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return _exp(z)

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        N, size = z.shape[-1], _size(grad)
        below = torch.cat([torch.zeros_like(z), z.mH], -1)
        block = torch.cat([torch.cat([z.mH, grad / size], -1), below], -2)
        return torch.matrix_exp(block)[..., :N, N:] * size


def _size(x: Tensor) -> Tensor:
    """The 1-norm (..., 1, 1) of x (..., N, M), and 1 where that is 0."""
    size = x.detach().abs().sum(-2, keepdim=True).amax(-1, keepdim=True)
    return torch.where(size > 0, size, 1)


def _outer(gaps: Tensor, z: Tensor, state_dims: int) -> Tensor:
    """gaps (g...) times z (..., state): (..., g..., state)."""
    batch = z.shape[: z.ndim - state_dims]
    z = z.reshape(*batch, *(1,) * gaps.ndim, *z.shape[z.ndim - state_dims :])
    return z * gaps.reshape(*gaps.shape, *(1,) * state_dims)


def _expm1_over(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z without the cancellation near 0, and 1 at 0; differentiable there."""
    small = z.abs() < 1e-2
    safe = torch.where(small, torch.ones_like(z), z)
    z = torch.where(small, z, torch.zeros_like(z))  # the branch not taken overflows, and 0 x inf is its gradient
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6 * (1 + z / 7)))))
    return torch.where(small, series, torch.expm1(safe) / safe)
