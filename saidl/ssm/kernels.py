"""Convolution kernels K_l = C Ab^l Bb and the causal convolution y_t = sum_{l <= t} K_l u_{t-l}.

Both kernels split the lag, l = i + s j with s about sqrt(L): an (L/s x N) by (N x s) matrix product makes all L values.

    diagonal   K_{i+sj} = 2 Re sum_n (c_n z_n^{sj}) z_n^i   c = C Bb, z = Ab: a real product, no (H, N, L) tensor
    dense      K_{i+sj} = (C Ab^{sj}) (Ab^i Bb)             Krylov rows and columns, grown by doubling: products only

`cauchy_kernel` is the S4 paper's way (generating function at the roots of unity, Woodbury, Cauchy sums): the oracle and
the lesson. The diagonal form's powers are made in float64 (the tables are small); products and transforms run in the
arguments' precision, at least float32.
"""

import functools
import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from saidl.autodiff import transformed
from saidl.checks import whole

from .discretization import ALPHA, as_tensor, check, discretize_dense, discretize_diagonal

CHUNK = 2**19  # real numbers transformed at once on a CPU: about what stays in its second-level cache


def diagonal_kernel(
    A: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, method: str = "zoh", *, alpha=0.5, gaps=None
) -> Tensor:
    """Kernel (H, length) of H diagonal systems, 2 Re sum_n C_n Ab_n^l Bb_n; differentiable in A, B, C, dt.

    Arguments:
        A, B, C: (H, N) complex, one of each conjugate pair
        dt: (H,) > 0
        length: >= 1
        method, alpha: as in `discretize`; gaps: the one gap between all events, for "async"
    Raises: ValueError for any of the above out of range.
    """
    whole("length", length, 1)
    _check_tensors(A=A, B=B, C=C)
    dt = as_tensor("dt", dt)  # a number is refused by its shape
    if not (A.ndim == 2 and A.shape == B.shape == C.shape and dt.shape == A.shape[:1]):
        raise ValueError(f"A, B, C must be (H, N) and dt (H,), got {_shapes(A, B, C, dt)}")
    if not (A.is_complex() and C.is_complex()):
        raise ValueError(f"A and C must be complex, got {A.dtype} and {C.dtype}")
    check(A, B, dt, method, alpha, gaps := _one_gap(gaps, A.real))
    wide = wide_complex(A)
    with torch.autocast(A.device.type, enabled=False):
        Ab, Bb = discretize_diagonal(A.to(wide), B.to(wide), dt.to(wide.to_real()), method, alpha, gaps)
        return power_sum_kernel(Ab, Bb, C, length)


def dense_kernel(
    A: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, method: str = "bilinear", *, alpha=0.5, gaps=None
) -> Tensor:
    """Kernel (H, length) of H dense real systems, C Ab^l Bb; differentiable in A, B, C, dt.

    Arguments: A (H, N, N), B and C (H, N), dt (H,), the rest as in `diagonal_kernel`. Powers of Ab are formed, which is
        safe where it is a contraction: A + A^T <= 0 and a stable method.
    Raises: ValueError for any of the above out of range.
    """
    whole("length", length, 1)
    _check_tensors(A=A, B=B, C=C)
    dt = as_tensor("dt", dt)
    if not (A.ndim == 3 and A.shape[:1] == dt.shape and A.shape[:2] == B.shape == C.shape):
        raise ValueError(f"A must be (H, N, N), B and C (H, N) and dt (H,), got {_shapes(A, B, C, dt)}")
    if not A.dtype == B.dtype == C.dtype or not A.is_floating_point():
        raise ValueError(f"A, B and C must be floating point of one type, got {A.dtype}, {B.dtype} and {C.dtype}")
    check(A, B, dt, method, alpha, gaps := _one_gap(gaps, A))
    with torch.autocast(A.device.type, enabled=False):
        return krylov_kernel(*discretize_dense(A, B, dt.to(A.dtype), method, alpha, gaps), C, length)


def dplr_kernel(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, method="bilinear", *, alpha=0.5, gaps=None
) -> Tensor:
    """S4's kernel (H, length): `dense_kernel` of A = Lambda - P P^H in real coordinates; differentiable in all five.

    Arguments: Lambda, P, B, C (H, N) complex, one of each conjugate pair; dt (H,); the rest as in `diagonal_kernel`.
    Raises: ValueError for any of the above out of range.
    """
    dt, gaps = _check_low_rank(Lambda, P, B, C, dt, length, method, alpha, gaps)
    with torch.autocast(Lambda.device.type, enabled=False):
        return krylov_kernel(*discretize_dplr(Lambda, P, B, dt, method, alpha, gaps), real_row(C), length)


def cauchy_kernel(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, *, truncated: bool = False
) -> Tensor:
    """The bilinear kernel (H, length) of A = Lambda - P P^H as Gu, Goel and Re 2022 make it; O(H N L) time and memory.

    Arguments: Lambda, P, B, C (H, N) complex, one of each conjugate pair; dt (H,); `truncated`: C is C (I - Ab^length)
        already, which is what the paper trains (and why its parameters belong to one length).

    With w_k = exp(-2 pi i k / L) and <a, b> = sum_n a_n b_n 2 dt / (2 (1-w) - dt Lambda_n (1+w)), conjugates included,
    the spectrum of K is <C, B> - <C, P> q <P*, B> / (1 + q <P*, P>), q = (1+w)/2. So written no node has a pole, not
    even w = -1.
    Raises: ValueError for any of the above out of range.
    """
    dt, _ = _check_low_rank(Lambda, P, B, C, dt, length, "bilinear")
    with torch.autocast(Lambda.device.type, enabled=False):
        if not truncated:
            Ab = discretize_dense(*dplr_to_dense(Lambda, P, B), dt, "bilinear")[0]  # (H, 2N, 2N)
            row = real_row(C).unsqueeze(-2)
            C = complex_row((row - row @ torch.linalg.matrix_power(Ab, length)).squeeze(-2))
        both = lambda x: torch.cat([x, x.conj()], -1)  # noqa: E731
        Lambda, P, B, C = both(Lambda), both(P), both(B), both(C)
        k = torch.arange(length // 2 + 1, device=dt.device, dtype=torch.float64)
        w = torch.exp(-2j * math.pi * k / length).to(Lambda.dtype)  # (L/2 + 1,)
        dt = dt[:, None, None]
        cauchy = 2 * dt / (2 * (1 - w) - dt * Lambda.unsqueeze(-1) * (1 + w))  # (H, 2N, L/2 + 1)
        CB, CP, PB, PP = (torch.einsum("hn,hnk->hk", v, cauchy) for v in (C * B, C * P, P.conj() * B, P.conj() * P))
        q = (1 + w) / 2
        return torch.fft.irfft(CB - CP * q * PB / (1 + q * PP), n=length)


def fft_conv(u: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution of u (B, H, L) with kernel (H, K): (B, H, L) in u's dtype and layout, differentiable in both.

    kernel (2, H, K) is bidirectional: kernel[0] acts on the present and the past, kernel[1] on the future, lag 1 first.
    Transforms run in float32 at least. An FFT mixes every input into every output and what is not causal cancels
    only to rounding (about 1e-7 of the largest value in float32); `direct_conv` is causal to the last bit.
    Raises: ValueError for shapes that do not match.
    """
    _check_conv(u, kernel)
    return conv(u, kernel)


def direct_conv(u: Tensor, kernel: Tensor) -> Tensor:
    """`fft_conv` from the definition, O(L^2): output t is made of inputs 0..t alone: causal to the last bit."""
    _check_conv(u, kernel)
    H, K = kernel.shape[-2:]
    back, ahead = (kernel, None) if kernel.ndim == 2 else kernel
    with torch.autocast(u.device.type, enabled=False):
        y = F.conv1d(F.pad(u, (K - 1, 0)), back.flip(-1).unsqueeze(1).to(u.dtype), groups=H)
        if ahead is not None:
            y = y + F.conv1d(F.pad(u, (0, K))[..., 1:], ahead.unsqueeze(1).to(u.dtype), groups=H)
    return y


# --- the same without checks, for the layers


def power_sum_kernel(Ab: Tensor, Bb: Tensor, C: Tensor, length: int) -> Tensor:
    """2 Re sum_n C_n Ab_n^l Bb_n for l < length: Ab and Bb (H, N), C (..., H, N) -> (..., H, length)."""
    c = 2 * C * Bb
    given = c.flatten(0, -2), Ab.expand_as(c).reshape(-1, c.shape[-1]), length, C.real.dtype
    return (_power_sums(*given)[0] if transformed() else _PowerSums.apply(*given)).unflatten(0, c.shape[:-1])


def full(x: Tensor) -> Tensor:
    """float64 as it is, everything below float32 as float32."""
    return x if x.dtype == torch.float64 else x.float()


def wide_complex(x: Tensor) -> torch.dtype:
    """complex128, or complex64 on the one backend that has no float64."""
    return torch.complex64 if x.device.type == "mps" else torch.complex128


def _or_twice(plain):
    """Decorates a `backward` that cannot itself be differentiated: where somebody wants second derivatives, the gradient is
    autograd's of plain(ctx, *inputs), the same function in differentiable operations; the two inputs were saved first."""

    def decorate(backward):
        def twice(ctx, *grads):
            # views are leaves of this little graph: the gradients at hand and one input may depend on the other input
            inputs, needed = [x.view_as(x) for x in ctx.saved_tensors[:2]], ctx.needs_input_grad
            product = sum((y * grad).sum() for y, grad in zip(plain(ctx, *inputs), grads, strict=True))
            wanted = [x for x, need in zip(inputs, needed[:2], strict=True) if need]
            found = iter(torch.autograd.grad(product, wanted, create_graph=True, allow_unused=True))
            return tuple(next(found) if need else None for need in needed)

        @functools.wraps(backward)
        def run(ctx, *grads):
            # begun within autocast, it would multiply in half precision, which cannot be added to the rest
            with torch.autocast(grads[0].device.type, enabled=False):
                return (twice if torch.is_grad_enabled() else backward)(ctx, *grads)

        return run

    return decorate


def _power_sums(c, z, length, dtype):
    """`_PowerSums`, and the tables it is made of."""
    s, J = split(length)
    zi, top = _powers(z, s)  # z^i for i < s: (H, s, N)
    zsj, _ = _powers(top, J)  # z^(sj) for j < J: (H, J, N)
    left, zi, zsj = (x.to(dtype.to_complex()) for x in (c.unsqueeze(1) * zsj, zi, zsj))
    K = _re_im(left.conj_physical()) @ _re_im(zi).mT  # (H, J, s)
    return rearrange(K, "h j s -> h (j s)")[:, :length], left, zi, zsj


class _PowerSums(torch.autograd.Function):
    """Re sum_n c_n z_n^l for l < L: c, z (H, N) -> (H, L)."""

    @staticmethod
    def forward(ctx, c, z, length, dtype):
        ctx.length, ctx.dtype, ctx.wide = length, dtype, z.dtype
        K, *tables = _power_sums(c, z, length, dtype)
        ctx.save_for_backward(c, z, *tables)
        return K

    @staticmethod
    @_or_twice(lambda ctx, c, z: _power_sums(c, z, ctx.length, ctx.dtype)[:1])
    def backward(ctx, grad):
        _, _, left, zi, zsj = ctx.saved_tensors
        s, J = zi.shape[1], zsj.shape[1]
        grad = F.pad(grad, (0, J * s - ctx.length)).unflatten(-1, (J, s))  # (H, J, s)
        rows = _complex(grad @ _re_im(zi))  # sum_i g z^i: (H, J, N)
        columns = _complex(grad.mT @ _re_im(left))  # sum_j g c z^sj: (H, s, N)
        # d/dz of z^i z^sj; the derivative of a power is the table shifted by one, which stays right at z = 0
        i, j = (torch.arange(1, n, device=grad.device, dtype=grad.dtype).unsqueeze(-1) for n in (s, J))
        grad_c = (rows * zsj).sum(1)
        grad_zs = (rows[:, 1:] * left[:, :-1] * j).sum(1)
        grad_z = (columns[:, 1:] * zi[:, :-1] * i).sum(1) + grad_zs * s * zi[:, -1]
        return grad_c.to(ctx.wide).conj(), grad_z.to(ctx.wide).conj(), None, None


def split(length: int) -> tuple[int, int]:
    """How both kernels split a lag below `length`, i + s j: s, a power of two near sqrt(length), and how many j there are."""
    s = 2 ** round(math.log2(length) / 2)
    return s, -(-length // s)


def _powers(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(1, z, .., z^(count-1)) along dimension 1 by doubling, and the next power of two's power of z."""
    table = torch.ones_like(z).unsqueeze(1)
    while table.shape[1] < count:
        table, z = torch.cat([table, table[:, : count - table.shape[1]] * z.unsqueeze(1)], 1), z * z
    return table, z


def _re_im(x: Tensor) -> Tensor:
    """(..., N) complex to (..., 2N) real, Re and Im side by side."""
    return torch.view_as_real(x).flatten(-2)


def _complex(x: Tensor) -> Tensor:
    """The inverse of `_re_im`."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def krylov_kernel(Ab: Tensor, Bb: Tensor, C: Tensor, length: int) -> Tensor:
    """C Ab^l Bb for l < length: Ab (H, N, N), Bb (H, N), C (..., H, N) -> (..., H, length)."""
    s, J = split(length)
    apply = _krylov if transformed() else _Krylov.apply
    columns, Abs = apply(Ab, Bb.unsqueeze(1), s, True)[:2]  # Ab^i Bb: (H, s, N), and Ab^s: (H, N, N)
    starts = C.reshape(-1, *Bb.shape).transpose(0, 1)  # (H, m, N), m = 2 of a bidirectional layer
    rows = apply(Abs.mT, starts, J, False)[0]  # C Ab^(sj): (H, J m, N)
    K = rearrange(rows @ columns.mT, "h (j m) s -> m h (j s)", m=starts.shape[1])
    return K[..., :length].reshape(*C.shape[:-1], length)


def _krylov(A, b, count, power):
    """`_Krylov`, and the powers of A it is made of."""
    X, powers, rows = b, [], count * b.shape[1]
    while X.shape[1] < rows:
        A = powers[-1] @ powers[-1] if powers else A
        powers.append(A)
        X = torch.cat([X, X[:, : rows - X.shape[1]] @ A.mT], 1)
    return X, A @ A if power and powers else A, powers


class _Krylov(torch.autograd.Function):
    """b, A b, .., A^(count-1) b as rows, for A (H, N, N) and m vectors b (H, m, N): (H, count m, N), by doubling.

    And A^count, if asked for; count is then a power of two.
    """

    @staticmethod
    def forward(ctx, A, b, count, power):
        X, top, powers = _krylov(A, b, count, power)
        ctx.save_for_backward(A, b, X, *powers)
        ctx.m, ctx.count, ctx.power = b.shape[1], count, power
        return X, top

    @staticmethod
    @_or_twice(lambda ctx, A, b: _krylov(A, b, ctx.count, ctx.power)[:2])
    def backward(ctx, dX, dtop):
        _, _, X, *powers = ctx.saved_tensors
        dA = dtop if ctx.power else None
        for k in reversed(range(len(powers))):
            A, w = powers[k], ctx.m * 2**k
            if dA is not None:  # of the square above
                dA = torch.baddbmm(dA @ A.mT, A.mT, dA)
            new = dX[:, w : 2 * w]  # = X[:w] A^T
            n = new.shape[1]
            dA = new.mT @ X[:, :n] if dA is None else dA.baddbmm_(new.mT, X[:, :n])
            dX = torch.cat([torch.baddbmm(dX[:, :n], new, A), dX[:, n:w]], 1)
        return dA, dX, None, None


def _plain_conv(ctx, u, kernel):
    n = fft_size(u.shape[-1] + kernel.shape[-1])
    y = torch.fft.irfft(torch.fft.rfft(full(u), n=n) * _spectrum(kernel, n), n=n)
    return (y[..., : u.shape[-1]].to(u.dtype),)


class _FFTConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, kernel):
        ctx.save_for_backward(u, kernel)
        L = u.shape[-1]
        n = fft_size(L + kernel.shape[-1])
        Kf = _spectrum(kernel, n)
        y = torch.empty_like(u)
        for part in _parts(u, n):
            y[part] = torch.fft.irfft(torch.fft.rfft(full(u[part]), n=n).mul_(Kf[part[1]]), n=n)[..., :L]
        return y

    @staticmethod
    @_or_twice(_plain_conv)
    def backward(ctx, grad):
        u, kernel = ctx.saved_tensors
        L = u.shape[-1]
        n = fft_size(L + kernel.shape[-1])
        Kf = _spectrum(kernel, n).conj_physical()
        du, dKf = torch.empty_like(u), torch.zeros_like(Kf)
        for part in _parts(u, n):
            G = torch.fft.rfft(full(grad[part]), n=n)
            if ctx.needs_input_grad[1]:
                dKf[part[1]] += torch.fft.rfft(full(u[part]), n=n).conj_physical_().mul_(G).sum(0)
            if ctx.needs_input_grad[0]:
                du[part] = torch.fft.irfft(G.mul_(Kf[part[1]]), n=n)[..., :L]
        return du, _unspectrum(dKf, kernel, n)


def conv(u: Tensor, kernel: Tensor) -> Tensor:
    with torch.autocast(u.device.type, enabled=False):
        kernel = kernel[..., : u.shape[-1]]
        return _plain_conv(None, u, kernel)[0] if transformed() else _FFTConv.apply(u, kernel)


def fft_size(least: int) -> int:
    """A small even 2^a 3^b 5^c >= least, its odd part at most 225: FFT libraries are fast there."""
    odd = (1, 3, 5, 9, 15, 25, 27, 45, 75, 81, 125, 135, 225)
    return min(q * 2 ** max(1, math.ceil(math.log2(least / q))) for q in odd)


def _parts(u: Tensor, n: int):
    """(batch, channel) slices that cover u: all at once, but on a CPU as many numbers as stay in cache."""
    B, H, _ = u.shape
    rows = max(1, CHUNK // n if u.device.type == "cpu" else B * H)
    b, h = max(1, min(B, rows // H)), min(H, rows)
    for j in range(0, H, h):
        for i in range(0, B, b):
            yield slice(i, i + b), slice(j, j + h)


def _spectrum(kernel: Tensor, n: int) -> Tensor:
    if kernel.ndim == 3:
        back, ahead = kernel
        kernel = torch.cat([F.pad(back, (0, n - 2 * back.shape[-1])), ahead.flip(-1)], -1)  # lag -m stands at n - m
    return torch.fft.rfft(full(kernel), n=n)


def _unspectrum(spectrum: Tensor, kernel: Tensor, n: int) -> Tensor:
    K = kernel.shape[-1]
    k = torch.fft.irfft(spectrum, n=n)
    return k[:, :K] if kernel.ndim == 2 else torch.stack([k[:, :K], k[:, n - K :].flip(-1)])


# --- diagonal plus low rank in real coordinates


def dplr_to_dense(Lambda: Tensor, P: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """(Lambda - P P^H, B) of (H, N) pairs in coordinates sqrt(2) (Re x, Im x): A = D - p p^T (H, 2N, 2N), b (H, 2N)."""
    p = real_column(P)
    return _blocks(Lambda) - p.unsqueeze(-1) * p.unsqueeze(-2), real_column(B)


def discretize_dplr(
    Lambda: Tensor, P: Tensor, B: Tensor, dt: Tensor, method: str, alpha: float = 0.5, gaps: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`discretize` of `dplr_to_dense`; for the generalised bilinear family without a linear solve, by Sherman and Morrison.

    With E = (I - alpha dt D)^-1: R = (I - alpha dt A)^-1 = E - alpha h E p p^T E, h = dt / (1 + alpha dt p^T E p),
    Ab = I + dt A R = I + dt D E - h E p p^T E and Bb = dt R b: nothing is divided by alpha, which may be tiny.
    """
    alpha = ALPHA.get(method, alpha)
    if method not in (*ALPHA, "gbt") or alpha == 0:
        # a matrix exponential is squared many times, and each time doubles its rounding
        wide = wide_complex(Lambda)
        dense = dplr_to_dense(*(x.to(wide) for x in (Lambda, P, B)))
        Ab, Bb = discretize_dense(*dense, dt.to(wide.to_real()), method, alpha, gaps)
        return Ab.to(dt.dtype), Bb.to(dt.dtype)
    dt = dt.unsqueeze(-1)
    e = 1 / (1 - alpha * dt * Lambda)
    q, r, b = real_column(e * P), real_column(e.conj() * P), real_column(e * B)  # E p, E^T p, E b
    h = dt / (1 + alpha * dt * 2 * (e.real * P.abs().square()).sum(-1, keepdim=True))
    Bb = dt * (b - alpha * h * q * (r * real_column(B)).sum(-1, keepdim=True))
    return torch.baddbmm(_blocks(1 + dt * Lambda * e), (-h * q).unsqueeze(-1), r.unsqueeze(-2)), Bb


def _blocks(Lambda: Tensor) -> Tensor:
    """diag(Lambda) (H, N) as a real matrix (H, 2N, 2N)."""
    re, im = torch.diag_embed(Lambda.real), torch.diag_embed(Lambda.imag)
    return torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)


def real_column(x: Tensor) -> Tensor:
    return math.sqrt(2) * torch.cat([x.real, x.imag], -1)


def real_row(C: Tensor) -> Tensor:
    """The row with real_row(C) real_column(x) = 2 Re(C x)."""
    return math.sqrt(2) * torch.cat([C.real, -C.imag], -1)


def complex_row(row: Tensor) -> Tensor:
    """The inverse of `real_row`."""
    re, im = row.chunk(2, -1)
    return torch.complex(re, -im) / math.sqrt(2)


# --- input checks


def _check_low_rank(Lambda, P, B, C, dt, length, method, alpha=0.5, gaps=None):
    """dt and gaps in the precision of Lambda."""
    whole("length", length, 1)
    _check_tensors(Lambda=Lambda, P=P, B=B, C=C)
    dt = as_tensor("dt", dt)
    if not (Lambda.ndim == 2 and Lambda.shape == P.shape == B.shape == C.shape and dt.shape == Lambda.shape[:1]):
        raise ValueError(f"Lambda, P, B, C must be (H, N) and dt (H,), got {_shapes(Lambda, P, B, C, dt)}")
    if not Lambda.is_complex() or not Lambda.dtype == P.dtype == B.dtype == C.dtype:
        types = ", ".join(str(x.dtype) for x in (Lambda, P, B, C))
        raise ValueError(f"Lambda, P, B and C must be complex of one type, got {types}")
    check(Lambda, B, dt, method, alpha, gaps := _one_gap(gaps, Lambda.real))
    return dt.to(Lambda.real.dtype), gaps


def _check_conv(u: Tensor, kernel: Tensor) -> None:
    _check_tensors(u=u, kernel=kernel)
    fits = u.ndim == 3 and kernel.ndim in (2, 3) and u.shape[1] == kernel.shape[-2]
    if not fits or (kernel.ndim == 3 and len(kernel) != 2) or 0 in (u.shape[-1], kernel.shape[-1]):
        told = _shapes(u, kernel)
        raise ValueError(f"u must be (B, H, L) and kernel (H, K) or (2, H, K), L and K at least 1, got {told}")
    if not u.is_floating_point() or not kernel.is_floating_point():
        raise ValueError(f"u and kernel must be real floating point, got {u.dtype} and {kernel.dtype}")


def _one_gap(gaps, like: Tensor) -> Tensor | None:
    if gaps is None:
        return None
    gaps = as_tensor("gaps", gaps, like)
    if gaps.ndim:
        raise ValueError(f"a convolution kernel has one gap between all events, got gaps of shape {tuple(gaps.shape)}")
    return gaps


def _check_tensors(**named) -> None:
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} must be a torch tensor, got {type(x).__name__}")


def _shapes(*tensors: Tensor) -> str:
    return ", ".join(str(tuple(t.shape)) for t in tensors)
