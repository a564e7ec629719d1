"""S4D and S4: d_model independent state-space systems, one a channel, run as a convolution or step by step.

    S4D   x' = diag(A) x + B u,            y = 2 Re(C x) + D u    Gu et al. 2022; B = 1 unless trained, only C B counts
    S4    x' = (Lambda - P P^H) x + B u,   y = 2 Re(C x) + D u    Gu, Goel and Re 2022; run in real coordinates

Every parameter is real (pairs where the maths is complex), none depends on the length, and Re A = -exp(.) < 0 always.
These are the bare systems; activation, mixing, norm, dropout and residual are `models.SequenceBlock`'s.
"""

import functools
import math
import numbers
import weakref
import zlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saidl.autodiff import transformed
from saidl.checks import between, flag, form, one_of, whole

from . import kernels
from .discretization import as_tensor, check_method, discretize_diagonal, matrix_exp
from .hippo import INITS, normal_plus_low_rank, pairs

CONVS = {"fft": kernels.conv, "direct": kernels.direct_conv}
TENSORS = ("log_dt", "log_A_real", "A_imag", "P", "B", "C", "D")  # what a kernel is made of
KEPT = weakref.WeakKeyDictionary()  # layer -> its last kernel (`_SSM._kept`): here, and so in no copy and no saved file


class State(NamedTuple):
    """What `step` carries: the state, and the matrices, discretised once when the sequence began."""

    x: Tensor  # S4D (B, H, N/2) complex, in units of Bb, which C has taken in; S4 (B, H, N)
    Ab: Tensor  # dt A, in double precision, where the method is "async": its exponential waits for the gap
    Bb: Tensor | None
    C: Tensor


def _exactly(method):
    """Run in full precision and outside torch.compile, which handles complex tensors badly; the rest still compiles."""

    def exact(self, *args, **kwargs):
        with torch.autocast(self.log_dt.device.type, enabled=False):
            return method(self, *args, **kwargs)

    @functools.wraps(method)
    def run(*args, **kwargs):
        if not hasattr(run, "outside"):  # at the first call, not at import: it loads the compiler
            run.outside = torch.compiler.disable(exact)
        return run.outside(*args, **kwargs)

    return run


def _wide(x: Tensor) -> Tensor:
    """In double precision before the exponential is taken: an error in dt A grows with the lag."""
    return x.to(kernels.wide_complex(x).to_real())


class _SSM(nn.Module):
    """What S4D and S4 share: parameters A, C, D, dt, convolution mode, and the checks."""

    def __init__(self, d_model, A, method, alpha, bidirectional, dt_min, dt_max, conv):
        super().__init__()
        check_method(method, alpha)
        if method == "async" and bidirectional:
            raise ValueError("method 'async' runs step by step, and a bidirectional layer needs the future")
        whole("d_model", d_model, 1)
        flag("bidirectional", bidirectional)
        dt_min, dt_max = (between(n, dt, 0, math.inf, below=True) for n, dt in (("dt_min", dt_min), ("dt_max", dt_max)))
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")
        one_of("conv", conv, CONVS)
        self.method, self.alpha, self.bidirectional, self.conv = method, alpha, bidirectional, conv
        self.dt_min, self.dt_max = dt_min, dt_max
        A = A.expand(d_model, -1).contiguous()  # whatever the strides of one given: parameters are saved as they lie
        shape = (2, *A.shape, 2) if bidirectional else (*A.shape, 2)
        self.log_dt = nn.Parameter(torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_A_real = nn.Parameter(torch.log(-A.real).to(self.log_dt.dtype))
        self.A_imag = nn.Parameter(A.imag.to(self.log_dt.dtype, copy=True))
        self.C = nn.Parameter(torch.randn(shape) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(d_model))

    def forward(self, u: Tensor, rate: float = 1.0, gaps: Tensor | None = None) -> Tensor:
        """u (B, L, H) -> (B, L, H), L >= 1.

        `rate` is the input's sampling step relative to the one trained on: 0.5 for input sampled twice as finely (under "dirac", whose
        inputs are areas rather than heights, halve them as well).
        `gaps` (L,), for method "async" alone: the time before each input in units of dt; it then runs step by step.
        Raises: ValueError for another shape or type, a rate <= 0, gaps missing or out of place.
        """
        check_rate(rate)
        fits = isinstance(u, Tensor) and u.ndim == 3 and u.shape[1] > 0 and u.shape[2] == len(self.D)
        if not fits or not u.is_floating_point():
            raise ValueError(f"u must be (B, L, {len(self.D)}) with L >= 1, floating point, got {form(u)}")
        if (gaps is None) == (self.method == "async"):
            raise ValueError(f"gaps (L,) are needed by method 'async' and by no other, got {gaps} with {self.method!r}")
        return self._convolve(u, rate) if gaps is None else self._recur(u, rate, gaps)

    @_exactly
    def kernel(self, length: int, rate: float = 1.0) -> Tensor:
        """The kernel (H, length) without the D skip, (2, H, length) if bidirectional; "async" as if all gaps were 1."""
        whole("length", length, 1)
        check_rate(rate)
        return self._powers(*self._discretised(rate), length)

    @_exactly
    def _convolve(self, u: Tensor, rate: float) -> Tensor:
        plain = type(self.D) in (Tensor, nn.Parameter)  # those of a torch.export have no values
        anew = torch.is_grad_enabled() or transformed() or not (plain and self.D.is_cpu)
        kernel = self._kernel_and_skip if anew else self._kept
        return CONVS[self.conv](u.transpose(1, 2), kernel(u.shape[1], rate)).transpose(1, 2)

    def _kernel_and_skip(self, length: int, rate: float) -> Tensor:
        skip = F.pad(self.D.unsqueeze(-1), (0, length - 1))  # D is lag 0 of the kernel: no pass over u of its own
        return self.kernel(length, rate) + (torch.stack([skip, torch.zeros_like(skip)]) if self.bidirectional else skip)

    def _kept(self, length: int, rate: float) -> Tensor:
        """The last such kernel, if it was of the same tensors: of the same values, however they got there (pruning, say,
        puts one in a parameter's place). Without gradients only, and on a CPU, as the comparison would wait for another device."""
        tensors = {name: x for name in TENSORS if (x := getattr(self, name, None)) is not None}
        settings = length, float(rate), self.method, self.alpha, self.bidirectional, *tensors
        before, values, kernel = KEPT.get(self, (None, (), None))
        if settings != before or not all(map(_same, values, tensors.values())):
            kernel = self._kernel_and_skip(length, rate)
            KEPT[self] = settings, [x.detach().clone() for x in tensors.values()], kernel
        return kernel

    @_exactly
    def _recur(self, u: Tensor, rate: float, gaps: Tensor) -> Tensor:
        gaps = _checked_gaps(gaps, (u.shape[1],), kernels.full(self.log_dt))
        state, ys = self.initial_state(len(u), rate), []
        for u_t, gap in zip(u.unbind(1), gaps.unbind(), strict=True):
            y_t, state = self._step(u_t, state, gap)
            ys.append(y_t)
        return torch.stack(ys, 1)

    @_exactly
    def step(self, u_t: Tensor, state: State, gap: Tensor | float = 1.0) -> tuple[Tensor, State]:
        """One input u_t (B, H) -> y_t (B, H) in its dtype and the next state; only "async" looks at the gap since the last.

        Raises: ValueError for another shape or type, no state, a gap < 0, a bidirectional layer.
        """
        _check_step(self)
        if not isinstance(state, State):
            raise ValueError(f"state must be one of `initial_state` or `step`, got {type(state).__name__}")
        H, pairs = self.A_imag.shape
        if (own := (H, self._per_pair * pairs)) != tuple(state.x.shape[1:]):
            raise ValueError(f"state must be this layer's, its x (B, {', '.join(map(str, own))}), got {form(state.x)}")
        shape = len(state.x), len(self.D)
        if not isinstance(u_t, Tensor) or tuple(u_t.shape) != shape or not u_t.is_floating_point():
            raise ValueError(f"u_t must be {shape}, floating point, got {form(u_t)}")
        gap = _checked_gaps(gap, (), kernels.full(self.log_dt), "gap") if self.method == "async" else None
        return self._step(u_t, state, gap)

    def _step(self, u_t: Tensor, state: State, gap: Tensor | None) -> tuple[Tensor, State]:
        y, x = self._advance(u_t, state, gap)
        return torch.addcmul(y, self.D, u_t).to(u_t.dtype), state._replace(x=x)

    def _dt(self, rate: float) -> Tensor:
        return torch.exp(_wide(self.log_dt)) * rate  # (H,)

    def _A(self) -> Tensor:
        return torch.complex(-torch.exp(_wide(self.log_A_real)), _wide(self.A_imag))  # (H, N/2)

    def extra_repr(self) -> str:
        """Every option: a checkpoint is of the same network if its repr is the same."""
        d_model, half = self.A_imag.shape
        options = {"method": self.method, "alpha": float(self.alpha), "bidirectional": bool(self.bidirectional)}
        options |= {"dt_min": float(self.dt_min), "dt_max": float(self.dt_max), "conv": self.conv}
        return f"{d_model}, {2 * half}, " + ", ".join(f"{name}={value!r}" for name, value in options.items())


class S4D(_SSM):
    """Diagonal state-space layer.

    Arguments:
        d_model: channels H >= 1; d_state: N, even
        init: "legs", "lin", "inv", "real", or a complex tensor or array (N/2,) or (H, N/2) with Re < 0
        method, alpha: as in `discretize`; forward Euler, and gbt below alpha = 1/2, diverge unless dt_max is small
        train_B: train B (H, N/2) as well, from 1
        bidirectional: a second C, for the future
        dt_min, dt_max: the first steps are log-uniform between them
        conv: "fft", or "direct": O(L^2), and causal to the last bit
    Raises: ValueError for any of the above out of range.
    """

    slow_parameters = ("log_dt", "log_A_real", "A_imag", "B")  # lr <= 1e-3, no decay: see models.parameter_groups
    _powers, _per_pair = staticmethod(kernels.power_sum_kernel), 1  # numbers of state a conjugate pair

    def __init__(
        self, d_model: int, d_state: int = 64, *, init: str | Tensor = "legs", method: str = "zoh", alpha: float = 0.5,
        train_B: bool = False, bidirectional: bool = False, dt_min: float = 1e-3, dt_max: float = 1e-1, conv: str = "fft",
    ):  # fmt: skip
        flag("train_B", train_B)
        A = _initial_A(init, d_model, d_state)
        super().__init__(d_model, A, method, alpha, bidirectional, dt_min, dt_max, conv)
        self.init = init if isinstance(init, str) else _fingerprint(A)
        B = torch.stack([torch.ones_like(self.A_imag), torch.zeros_like(self.A_imag)], -1)
        self.B = nn.Parameter(B) if train_B else None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, init={self.init!r}, train_B={self.B is not None}"

    def _discretised(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        A = self._A()
        B = torch.ones_like(A) if self.B is None else torch.view_as_complex(kernels.full(self.B)).to(A.dtype)
        Ab, Bb = discretize_diagonal(A, B, self._dt(rate), self.method, self.alpha)
        return Ab, Bb, torch.view_as_complex(kernels.full(self.C))

    @_exactly
    def initial_state(self, batch: int, rate: float = 1.0) -> State:
        """The state (zero) before the first input; the system is discretised here, as the weights are now, for the whole
        sequence."""
        _check_step(self, rate, batch)
        Ab, Bb, C = self._discretised(rate)
        Ab = self._dt(rate).unsqueeze(-1) * self._A() if self.method == "async" else Ab.to(C.dtype)
        x = torch.zeros(batch, *C.shape, dtype=C.dtype, device=C.device)
        # a real product with (Re x, Im x) is Re(C x)
        return State(x, Ab, None, torch.view_as_real((2 * C * Bb).to(C.dtype).conj_physical()))

    def _advance(self, u_t: Tensor, state: State, gap: Tensor | None) -> tuple[Tensor, Tensor]:
        Ab = state.Ab if gap is None else torch.exp(gap * state.Ab).to(state.x.dtype)
        x = torch.addcmul(u_t.unsqueeze(-1).to(Ab.dtype), Ab, state.x)
        # as a matrix product, one a channel, it takes four times as long
        return (torch.view_as_real(x) * state.C).flatten(2).sum(-1), x


class S4(_SSM):
    """Diagonal-plus-rank-one state-space layer, HiPPO-LegS at the start; arguments as for `S4D` but init and train_B."""

    slow_parameters = ("log_dt", "log_A_real", "A_imag", "P", "B")
    _powers, _per_pair = staticmethod(kernels.krylov_kernel), 2

    def __init__(
        self, d_model: int, d_state: int = 64, *, method: str = "bilinear", alpha: float = 0.5,
        bidirectional: bool = False, dt_min: float = 1e-3, dt_max: float = 1e-1, conv: str = "fft",
    ):  # fmt: skip
        Lambda, P, B, _ = normal_plus_low_rank(2 * pairs(d_state))
        super().__init__(d_model, Lambda, method, alpha, bidirectional, dt_min, dt_max, conv)
        P, B = (torch.view_as_real(x).to(self.log_dt.dtype) for x in (P, B))
        self.P, self.B = (nn.Parameter(x.repeat(d_model, 1, 1)) for x in (P, B))

    def _discretised(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        P, B, C = (torch.view_as_complex(kernels.full(x)) for x in (self.P, self.B, self.C))
        A, dt = self._A().to(P.dtype), self._dt(rate).to(P.real.dtype)
        Ab, Bb = kernels.discretize_dplr(A, P, B, dt, self.method, self.alpha)
        return Ab, Bb, kernels.real_row(C)

    @_exactly
    def initial_state(self, batch: int, rate: float = 1.0) -> State:
        """The state (zero) before the first input; the system is discretised here, for the whole sequence."""
        _check_step(self, rate, batch)
        Ab, Bb, C = self._discretised(rate)
        if self.method == "async":
            A = self._A()
            P = torch.view_as_complex(kernels.full(self.P)).to(A.dtype)
            Ab = self._dt(rate)[:, None, None] * kernels.dplr_to_dense(A, P, P)[0]
        return State(torch.zeros(batch, *Bb.shape, dtype=Bb.dtype, device=Bb.device), Ab, Bb, C)

    def _advance(self, u_t: Tensor, state: State, gap: Tensor | None) -> tuple[Tensor, Tensor]:
        Ab = state.Ab if gap is None else matrix_exp(gap * state.Ab).to(state.x.dtype)
        x = torch.addcmul(torch.einsum("hij,bhj->bhi", Ab, state.x), u_t.unsqueeze(-1).to(Ab.dtype), state.Bb)
        return (x * state.C).sum(-1), x


def _initial_A(init: str | Tensor, d_model: int, d_state: int) -> Tensor:
    modes = pairs(d_state)
    if isinstance(init, str):
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)} or a complex tensor, got {init!r}")
        return INITS[init](d_state)
    try:
        init = torch.as_tensor(init)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"init must be one of {', '.join(INITS)} or a complex tensor, got {init!r}") from error
    if tuple(init.shape) not in ((modes,), (d_model, modes)) or not init.is_complex() or not init.isfinite().all():
        shapes = f"({modes},) or ({d_model}, {modes})"
        raise ValueError(f"init must be complex, finite and of shape {shapes}, got {form(init)}: {init}")
    if not (init.real < 0).all():
        raise ValueError(f"init must have Re A < 0 (a decaying system), got {init.real.max().item()}")
    return init


def _fingerprint(A: Tensor) -> str:
    """An init given by hand, in brief."""
    values = A.detach().cpu().to(torch.complex128).resolve_conj().contiguous().numpy()
    return f"{tuple(A.shape)} {zlib.crc32(values):08x}"


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _checked_gaps(gaps, shape: tuple[int, ...], like: Tensor, name: str = "gaps") -> Tensor:
    gaps = as_tensor(name, gaps, like)
    if tuple(gaps.shape) != shape or not ((gaps >= 0) & gaps.isfinite()).all():
        raise ValueError(f"{name} must be of shape {shape}, finite and at least 0, got {gaps}")
    return gaps


def check_rate(rate: float) -> None:
    single = isinstance(rate, numbers.Real) or (isinstance(rate, Tensor) and rate.ndim == 0 and not rate.is_complex())
    if not single or not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive and finite, one number, got {rate!r}")


def _check_step(layer: _SSM, rate: float = 1.0, batch: int = 0) -> None:
    check_rate(rate)
    whole("batch", batch, 0)
    if layer.bidirectional:
        raise ValueError("a bidirectional layer needs the future: it has no state and no step")
