"""Kernels against SciPy's impulse response and explicit powers; convolutions against their definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import dimpulse, dlti

from saidl import ssm
from saidl.ssm import kernels

LENGTHS = [1, 2, 3, 31, 64, 101]


def options(method):
    return {"gbt": {"alpha": 0.3}, "async": {"gaps": 1.0}}.get(method, {})


def pairs(H=3, N=4, seed=0, dtype=torch.complex128):
    """A stable random system in conjugate-pair halves: A, B, C (H, N), dt (H,)."""
    g = torch.Generator().manual_seed(seed)
    A, B, C = torch.randn(3, H, N, dtype=torch.complex128, generator=g)
    dt = torch.rand(H, dtype=torch.float64, generator=g) * 0.1 + 0.01
    A = torch.complex(-A.real.abs() - 0.1, 3 * A.imag)
    return A.to(dtype), B.to(dtype), C.to(dtype), dt.to(dtype.to_real())


def dense(H=3, N=4, seed=0):
    """Random dense systems with A + A^T < 0: A (H, N, N), B, C (H, N), dt (H,)."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(H, N, N, dtype=torch.float64, generator=g)
    A = A - A.mT - torch.diag_embed(torch.rand(H, N, dtype=torch.float64, generator=g) + 0.1)
    B, C = torch.randn(2, H, N, dtype=torch.float64, generator=g)
    return A, B, C, torch.rand(H, dtype=torch.float64, generator=g) * 0.1 + 0.01


def impulse_response(Ab, Bb, C, length):
    """SciPy's answer to 1, 0, 0, ..; its y_k = C x_k with x_{k+1} = Ab x_k + Bb u_k is a step late: drop the first."""
    system = dlti(Ab.numpy(), Bb.numpy()[:, None], C.numpy()[None], np.zeros((1, 1)), dt=1)
    return torch.from_numpy(dimpulse(system, n=length + 1)[1][0][1:, 0])


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize("length", LENGTHS)
def test_dense_kernel_is_scipys_impulse_response(method, length):
    A, B, C, dt = dense()
    K = ssm.dense_kernel(A, B, C, dt, length, method, **options(method))
    Ab, Bb = ssm.discretize(A, B, dt, method, **options(method))
    expected = torch.stack([impulse_response(Ab[h], Bb[h], C[h], length) for h in range(len(A))])
    torch.testing.assert_close(K, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize("length", LENGTHS)
def test_diagonal_kernel_is_scipys_impulse_response(method, length):
    """The same system in real coordinates, handed to SciPy."""
    A, B, C, dt = pairs()
    K = ssm.diagonal_kernel(A, B, C, dt, length, method, **options(method))
    A, B = kernels.dplr_to_dense(A, torch.zeros_like(A), B)
    Ab, Bb = ssm.discretize(A, B, dt, method, **options(method))
    expected = torch.stack([impulse_response(Ab[h], Bb[h], kernels.real_row(C)[h], length) for h in range(len(A))])
    torch.testing.assert_close(K, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("length", LENGTHS)
def test_cauchy_kernel_is_the_dense_kernel(length):
    A, B, C, dt = pairs()
    P = pairs(seed=1)[1]
    K = ssm.dense_kernel(*kernels.dplr_to_dense(A, P, B), kernels.real_row(C), dt, length, "bilinear")
    torch.testing.assert_close(ssm.cauchy_kernel(A, P, B, C, dt, length), K, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ssm.dplr_kernel(A, P, B, C, dt, length), K, rtol=1e-9, atol=1e-11)


def test_truncated_cauchy_kernel_is_what_s4_trains():
    """C (I - Ab^L) given in place of C: the circular kernel of length L is the truncated one of C."""
    A, B, C, dt = pairs()
    P, L = pairs(seed=1)[1], 20
    Ad, Bd = kernels.dplr_to_dense(A, P, B)
    Ab, _ = ssm.discretize(Ad, Bd, dt, "bilinear")
    row = kernels.real_row(C).unsqueeze(1)
    truncated = kernels.complex_row((row - row @ torch.linalg.matrix_power(Ab, L)).squeeze(1))
    K = ssm.cauchy_kernel(A, P, B, truncated, dt, L, truncated=True)
    torch.testing.assert_close(K, ssm.cauchy_kernel(A, P, B, C, dt, L))


def test_real_coordinates_are_the_complex_system():
    A, B, C, _ = pairs()
    P = pairs(seed=1)[1]
    Ad, _ = kernels.dplr_to_dense(A, P, B)
    x = pairs(seed=2)[1]
    low_rank = P * 2 * (P.conj() * x).sum(-1, keepdim=True).real  # P (P^H x) with the conjugate half's share
    torch.testing.assert_close(
        (Ad @ kernels.real_column(x).unsqueeze(-1)).squeeze(-1), kernels.real_column(A * x - low_rank)
    )
    torch.testing.assert_close((kernels.real_row(C) * kernels.real_column(x)).sum(-1), 2 * (C * x).sum(-1).real)
    torch.testing.assert_close(kernels.complex_row(kernels.real_row(C)), C)
    assert torch.linalg.eigvalsh(Ad + Ad.mT).max() < 1e-12  # so bilinear and zoh make it a contraction


@pytest.mark.parametrize("method", ssm.METHODS)
def test_low_rank_discretisation_is_the_dense_one(method):
    """Sherman and Morrison's inverse against a linear solve."""
    A, B, _, dt = pairs()
    P = 3 * pairs(seed=1)[1]
    gaps = torch.ones(()) if method == "async" else None
    ours = kernels.discretize_dplr(A, P, B, dt, method, 0.7, gaps)
    dense = ssm.discretize(*kernels.dplr_to_dense(A, P, B), dt, method, alpha=0.7, gaps=gaps)
    torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0, 1e-12, 1e-6, 0.5, 1])
def test_low_rank_discretisation_keeps_its_digits_at_any_alpha(alpha):
    Lambda, P, B, _ = (x.unsqueeze(0) for x in ssm.normal_plus_low_rank(16))
    dt = torch.tensor([1e-3], dtype=torch.float64)
    exact = ssm.discretize(*kernels.dplr_to_dense(Lambda, P, B), dt, "gbt", alpha=alpha)
    torch.testing.assert_close(kernels.discretize_dplr(Lambda, P, B, dt, "gbt", alpha), exact, rtol=1e-11, atol=1e-14)
    single = kernels.discretize_dplr(*(x.to(torch.complex64) for x in (Lambda, P, B)), dt.float(), "gbt", alpha)
    torch.testing.assert_close([x.double() for x in single], list(exact), rtol=1e-5, atol=1e-6)
    inputs = [x.requires_grad_() for x in (*pairs(2, 2)[:2], pairs(2, 2, seed=1)[1], 10 * pairs(2, 2)[3])]
    torch.autograd.gradcheck(lambda *x: kernels.discretize_dplr(*x, "gbt", alpha), inputs)


def test_single_precision_is_precise():
    """float32 kernels of the hardest initialisation, large frequencies at large steps, lose nothing to long powers."""
    A = ssm.INITS["legs"](64).expand(8, -1)
    dt = torch.logspace(-3, -1, 8, dtype=torch.float64)
    C = torch.randn(8, 32, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    single = [x.to(torch.complex64) for x in (A, torch.ones_like(A), C)]
    exact = ssm.diagonal_kernel(*(x.to(torch.complex128) for x in single), dt.float().double(), 4096)
    K = ssm.diagonal_kernel(*single, dt.float(), 4096)
    assert K.dtype == torch.float32
    assert (K - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize("length", [1, 5, 16, 23])
def test_diagonal_kernel_gradients(method, length):
    inputs = tuple(x.requires_grad_() for x in pairs(2, 3))
    torch.autograd.gradcheck(lambda *x: ssm.diagonal_kernel(*x, length, method, **options(method)), inputs)


def test_diagonal_kernel_gradient_where_a_power_vanishes():
    """Forward Euler with dt A = -1: Ab = 0, K = (c, 0, 0, ..), and dK_1 / dAb = c all the same."""
    A, B, C, dt = (torch.full((1, 1), v, dtype=torch.complex128) for v in (-4.0, 1, 1, 0))
    dt = torch.full((1,), 0.25, dtype=torch.float64)
    A, C = A.requires_grad_(), C.requires_grad_()
    torch.autograd.gradcheck(lambda A, C: ssm.diagonal_kernel(A, B, C, dt, 5, "forward-euler"), (A, C))


@pytest.mark.parametrize("method", ["zoh", "bilinear", "forward-euler"])
@pytest.mark.parametrize("length", [1, 5, 23])
def test_dense_kernel_gradients(method, length):
    inputs = tuple(x.requires_grad_() for x in dense(2, 3))
    torch.autograd.gradcheck(lambda *x: ssm.dense_kernel(*x, length, method), inputs)


@pytest.mark.parametrize("kernel", [ssm.cauchy_kernel, ssm.dplr_kernel])
@pytest.mark.parametrize("length", [1, 7, 12])
def test_low_rank_kernel_gradients(kernel, length):
    A, B, C, dt = pairs(2, 2)
    inputs = tuple(x.requires_grad_() for x in (A, pairs(2, 2, seed=1)[1], B, C, dt))
    torch.autograd.gradcheck(lambda *x: kernel(*x, length), inputs)


LOW_RANK = [ssm.cauchy_kernel, ssm.dplr_kernel]
KERNELS = [ssm.diagonal_kernel, ssm.dense_kernel, *LOW_RANK]


def inputs(kernel, dtype=torch.complex128):
    """A small system for any of the four."""
    A, B, C, dt = dense(2, 3) if kernel is ssm.dense_kernel else pairs(2, 2)
    system = (A, pairs(2, 2, seed=1)[1], B, C) if kernel in LOW_RANK else (A, B, C)
    return [*(x.to(dtype if x.is_complex() else dtype.to_real()) for x in system), dt]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("length", [1, 2, 7, 12])
def test_second_derivatives(kernel, length):
    """Of all inputs, and of one alone: then a part of the backward pass has nothing to give."""
    x = [v.requires_grad_() for v in inputs(kernel)]
    fixed = [v.detach() for v in x]
    torch.autograd.gradgradcheck(lambda *x: kernel(*x, length), x, fast_mode=True)
    torch.autograd.gradgradcheck(lambda C: kernel(*fixed[:-2], C, fixed[-1], length), x[-2], fast_mode=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_step_may_have_another_precision_and_the_length_any_integer_type(kernel):
    *system, dt = inputs(kernel, torch.complex64)
    K = kernel(*system, dt, 20)
    assert K.dtype == torch.float32
    torch.testing.assert_close(K, kernel(*system, dt.float(), np.int64(20)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [ssm.diagonal_kernel, ssm.dense_kernel, ssm.dplr_kernel])
def test_async_kernel_ages_the_state_by_its_gap(kernel):
    """K_l = C exp(2.5 dt A)^l A^-1 (exp(dt A) - I) B, of the system in real coordinates."""
    *system, dt = inputs(kernel)
    K = kernel(*system, dt, 5, "async", gaps=2.5)
    if kernel is not ssm.dense_kernel:
        A, *P, B, C = system
        system = *kernels.dplr_to_dense(A, P[0] if P else torch.zeros_like(A), B), kernels.real_row(C)
    for h, (A, B, C) in enumerate(zip(*system, strict=True)):
        Bb = torch.linalg.solve(A, torch.matrix_exp(dt[h] * A) @ B - B)
        expected = torch.stack([C @ torch.matrix_exp(2.5 * l * dt[h] * A) @ Bb for l in range(5)])
        torch.testing.assert_close(K[h], expected, rtol=1e-7, atol=1e-9)  # A^-1 costs digits


# --------------------------------------------------------------------------------------------------------- convolution


def by_definition(u, kernel):
    back, ahead = kernel if kernel.ndim == 3 else (kernel, None)
    y = torch.zeros_like(u)
    for t in range(u.shape[-1]):
        for s in range(u.shape[-1]):
            if s <= t and t - s < back.shape[-1]:
                y[..., t] += back[:, t - s] * u[..., s]
            if ahead is not None and s > t and s - t - 1 < ahead.shape[-1]:
                y[..., t] += ahead[:, s - t - 1] * u[..., s]
    return y


@pytest.mark.parametrize("conv", [ssm.fft_conv, ssm.direct_conv])
@pytest.mark.parametrize("directions", [(), (2,)])
@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 3), H=st.integers(1, 4), L=st.integers(1, 19), K=st.integers(1, 24), seed=st.integers(0, 99))
def test_convolution_is_its_definition(conv, directions, B, H, L, K, seed):
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(B, H, L, dtype=torch.float64, generator=g)
    k = torch.randn(*directions, H, K, dtype=torch.float64, generator=g)
    torch.testing.assert_close(conv(u, k), by_definition(u, k), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 40, 2**20])
@pytest.mark.parametrize("directions", [(), (2,)])
def test_fft_conv_gradients_in_any_pieces(monkeypatch, chunk, directions):
    monkeypatch.setattr(kernels, "CHUNK", chunk)
    u = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    for K in (5, 7, 9):
        k = torch.randn(*directions, 3, K, dtype=torch.float64, requires_grad=True)
        torch.autograd.gradcheck(ssm.fft_conv, (u, k))
        torch.testing.assert_close(ssm.fft_conv(u, k), ssm.direct_conv(u, k))
    torch.autograd.gradcheck(lambda u: ssm.fft_conv(u, k.detach()), u)
    torch.autograd.gradcheck(lambda k: ssm.fft_conv(u.detach(), k), k)


@pytest.mark.parametrize("directions", [(), (2,)])
@pytest.mark.parametrize("K", [5, 9])
def test_fft_conv_has_second_derivatives(directions, K):
    u = torch.randn(2, 3, 7, dtype=torch.float64)
    k = torch.randn(*directions, 3, K, dtype=torch.float64)
    torch.autograd.gradgradcheck(ssm.fft_conv, (u.requires_grad_(), k.requires_grad_()))
    u, k = u.detach(), k.detach()
    for x, arguments in ((k, lambda k: (u, k)), (u, lambda u: (u, k)), (u, lambda u: (u, k * u.sum()))):
        losses = [lambda x, f=f, a=arguments: f(*a(x)).square().sum() for f in (ssm.fft_conv, ssm.direct_conv)]
        torch.testing.assert_close(*(torch.autograd.functional.hessian(loss, x) for loss in losses))


def test_fft_conv_keeps_layout_and_precision():
    u, k = torch.randn(2, 9, 3), torch.randn(3, 9)
    y = ssm.fft_conv(u.transpose(1, 2), k)
    assert y.stride() == u.transpose(1, 2).stride()
    exact = ssm.direct_conv(u.double().transpose(1, 2), k.double())
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-5)
    half = ssm.fft_conv(u.bfloat16(), torch.randn(9, 9))
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("conv", [ssm.fft_conv, ssm.direct_conv])
@pytest.mark.parametrize("directions", [(), (2,)])
def test_autocast_leaves_convolutions_as_they_are(conv, directions):
    for u in (torch.randn(2, 3, 9), torch.randn(2, 3, 9).bfloat16()):
        k = torch.randn(*directions, 3, 9)
        y = conv(u, k)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(conv(u, k), y)
        assert y.dtype == u.dtype


def test_direct_convolution_is_causal_to_the_last_bit():
    u, k = torch.randn(2, 3, 40), torch.randn(3, 40)
    later = u.clone()
    later[..., 25:] = 1e6 * torch.randn(2, 3, 15)
    assert torch.equal(ssm.direct_conv(u, k)[..., :25], ssm.direct_conv(later, k)[..., :25])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_fft_conv_leaks_from_the_future_is_rounding(dtype):
    """A change of size 1 in the future moves the past by no more than a few roundings of the numbers transformed."""
    u, k = torch.randn(2, 3, 1000, dtype=dtype), torch.randn(3, 1000, dtype=dtype)
    later = u.clone()
    later[..., 500:] += torch.randn(2, 3, 500, dtype=dtype)
    leak = (ssm.fft_conv(u, k) - ssm.fft_conv(later, k))[..., :500].abs().max()
    assert leak <= 10 * torch.finfo(dtype).eps * ssm.fft_conv(later, k).abs().max()


def test_fft_sizes():
    for least in [*range(1, 300), 1999, 2**15 + 1]:
        n = kernels.fft_size(least)
        assert n >= least
        assert n % 2 == 0
        assert n <= (1.13 if least >= 64 else 1.5) * max(least, 2)
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        assert n == 1


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length must be .* 0"),
        ({"length": 2.5}, "length must be .* 2.5"),
        ({"length": True}, "length must be .* True"),
        ({"dt": torch.zeros(3)}, "dt must be positive"),
        ({"dt": torch.ones(2)}, r"dt \(H,\)"),
        ({"dt": 0.1}, r"dt \(H,\)"),
        ({"B": torch.ones(3, 5)}, r"\(3, 5\)"),
        ({"C": np.ones((3, 4))}, "C must be a torch tensor, got ndarray"),
        ({"dt": "short"}, "dt must be a number.*'short'"),
        ({"method": "euler"}, "method must be one of"),
        ({"method": "async"}, "needs gaps"),
        ({"method": "async", "gaps": torch.ones(5)}, "one gap"),
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_bad_kernel_input(kernel, changes, message):
    takes_it = (
        kernel is not ssm.cauchy_kernel or "method" not in changes
    )  # the Cauchy form is the bilinear rule's alone
    A = -torch.eye(4).expand(3, 4, 4) if kernel is ssm.dense_kernel else -torch.ones(3, 4, dtype=torch.complex64)
    ones = torch.ones(3, 4).to(A.dtype)
    arguments = {"B": ones, "C": ones, "dt": torch.ones(3), "length": 5}
    arguments |= {"Lambda": A, "P": ones} if kernel in LOW_RANK else {"A": A}
    with pytest.raises(ValueError if takes_it else TypeError, match=message if takes_it else "unexpected"):
        kernel(**arguments | changes)


@pytest.mark.parametrize("kernel", [ssm.diagonal_kernel, *LOW_RANK])
def test_real_diagonals_are_refused(kernel):
    *system, dt = inputs(kernel)
    for i in range(len(system)):
        if (kernel, i) != (ssm.diagonal_kernel, 1):  # its B may be real
            with pytest.raises(ValueError, match="complex"):
                kernel(*system[:i], system[i].real, *system[i + 1 :], dt, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype):
    """Its inverses and exponentials were infinite."""
    with pytest.raises(ValueError, match=f"single or double precision, got {dtype}"):
        ssm.dense_kernel(*(x.to(dtype) for x in dense()), 5)


@pytest.mark.parametrize(
    ("u", "kernel", "message"),
    [
        (torch.ones(2, 3), torch.ones(3, 5), "u must be"),
        (np.ones((2, 3, 5)), torch.ones(3, 5), "u must be a torch tensor"),
        (torch.ones(2, 3, 5), None, "kernel must be a torch tensor"),
        (torch.ones(2, 3, 5), torch.ones(4, 5), "u must be"),
        (torch.ones(2, 3, 5), torch.ones(3, 3, 5), "u must be"),
        (torch.ones(2, 3, 0), torch.ones(3, 5), "at least 1"),
        (torch.ones(2, 3, 5), torch.ones(3, 5, dtype=torch.cfloat), "real floating point"),
        (torch.ones(2, 3, 5, dtype=torch.int64), torch.ones(3, 5), "real floating point"),
    ],
)
@pytest.mark.parametrize("conv", [ssm.fft_conv, ssm.direct_conv])
def test_bad_convolution_input(conv, u, kernel, message):
    with pytest.raises(ValueError, match=message):
        conv(u, kernel)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_empty_batch_is_convolved_to_one(device):
    u, kernel = torch.zeros(0, 3, 5, device=device), torch.zeros(3, 5, device=device)
    assert kernels._FFTConv.apply(u, kernel).shape == (0, 3, 5)  # autocast, around it, knows no meta device


def test_autocast_costs_the_cauchy_kernel_no_digits():
    torch.manual_seed(0)
    layer = ssm.S4(4, 16)
    args = [torch.view_as_complex(x.detach()) for x in (layer.P, layer.B, layer.C)]
    system = layer._A().detach().cfloat(), *args, layer.log_dt.detach().exp()
    with torch.autocast("cpu", torch.bfloat16):
        K = ssm.cauchy_kernel(*system, 64)
    assert torch.equal(K, ssm.cauchy_kernel(*system, 64))
