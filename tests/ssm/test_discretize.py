"""Every discretisation against SciPy, against its dense or diagonal twin, and at the edges."""

import numpy as np
import pytest
import torch
from scipy.signal import cont2discrete
from torch.autograd import forward_ad

from saidl import ssm

SCIPY = {
    "zoh": ("zoh", None),
    "bilinear": ("bilinear", None),
    "forward-euler": ("euler", None),
    "backward-euler": ("backward_diff", None),
    "gbt": ("gbt", 0.3),
}


def options(method):
    return {"gbt": {"alpha": 0.3}, "async": {"gaps": 1.0}}.get(method, {})


def diagonal_system(n=5, batch=(), seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(*batch, n, dtype=torch.complex128, generator=g)
    return torch.complex(-A.real.abs() - 0.1, 3 * A.imag), torch.randn(*batch, n, dtype=torch.complex128, generator=g)


@pytest.mark.parametrize("method", SCIPY)
@pytest.mark.parametrize("dt", [1e-3, 0.1])
def test_dense_is_scipys(method, dt):
    A, B = ssm.hippo_legs(8)
    name, alpha = SCIPY[method]
    Ad, Bd, *_ = cont2discrete((A.numpy(), B.numpy()[:, None], np.ones((1, 8)), np.zeros((1, 1))), dt, name, alpha)
    Ab, Bb = ssm.discretize(A, B, dt, method, **options(method))
    np.testing.assert_allclose(Ab, Ad, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(Bb, Bd[:, 0], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("size", [1e-5, 0.01, 0.03, 0.05, 0.3, 3.0])
def test_dense_zoh_is_scipys_to_rounding(size):
    """Where dt A is small torch's exponential takes a polynomial of too low a degree for float64, in a batch above all."""
    A, B = ssm.hippo_legs(8)
    dt = size / torch.linalg.matrix_norm(A, 1)
    Ad, Bd, *_ = cont2discrete((A.numpy(), B.numpy()[:, None], np.ones((1, 8)), np.zeros((1, 1))), dt.item(), "zoh")
    Ab, Bb = ssm.discretize(A.expand(3, 8, 8), torch.stack([B, 1e-3 * B, 1e3 * B]), dt.expand(3), "zoh")
    for i, scale in enumerate((1, 1e-3, 1e3)):
        np.testing.assert_allclose(Ab[i], Ad, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(Bb[i], scale * Bd[:, 0], rtol=1e-12)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 2e-6), (torch.float64, 2e-15)])
@pytest.mark.parametrize(("method", "B"), [("dirac", 1.0), ("async", 1.0), ("zoh", 0.0), ("zoh", 1.0)])
def test_an_exponential_has_its_digits_at_every_size(method, B, dtype, precision):
    """Of a decaying oscillation, whose matrix exponential is known; torch's own loses digits near 0.03 (float64) and 0.5 (float32)."""
    gaps = 1.0 if method == "async" else None
    for size in np.geomspace(1e-3, 3, 60):
        decay, angle = 0.1 * size, 0.9 * size
        A = torch.tensor([[-decay, -angle], [angle, -decay]], dtype=dtype)
        Ab, _ = ssm.discretize(A, torch.full((2,), B, dtype=dtype), 1.0, method, gaps=gaps)
        exact = np.exp(-decay) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(Ab, exact, atol=precision, rtol=0, err_msg=f"size {size}")


@pytest.mark.parametrize("method", ["zoh", "dirac", "async"])
def test_the_gradient_of_an_exponential_is_linear_in_the_loss(method):
    """A mixed-precision scaler multiplies the loss by 65536: the gradient must be that many times as large, to rounding."""
    A, B = (x.float() for x in ssm.hippo_legs(16))
    gaps = torch.ones(()) if method == "async" else None

    def gradients(scale):
        a, b, dt = A.clone().requires_grad_(), B.clone().requires_grad_(), torch.tensor(0.01, requires_grad=True)
        Ab, Bb = ssm.discretize(a, b, dt, method, gaps=gaps)
        found = torch.autograd.grad((Ab.square().sum() + Bb.square().sum()) * scale, (a, b, dt))
        return [grad / scale for grad in found]

    for scale in (2.0**-30, 2.0**16, 2.0**30):
        for got, wanted in zip(gradients(scale), gradients(1.0), strict=True):
            assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore:There is a performance drop", "ignore:`torch.jit.script`")  # torch.func's own
@pytest.mark.parametrize("dense", [False, True])
def test_vmap_and_forward_derivatives(dense):
    """Of every rule: vmap over steps is one step after another, a forward derivative is a difference."""
    A, B = ssm.hippo_legs(3)
    A = A if dense else torch.diagonal(A).clone()
    steps = torch.tensor([0.01, 0.1, 0.7], dtype=torch.float64)
    for method in ssm.METHODS:
        gaps = 2.0 if method == "async" else None
        of_step = lambda dt: torch.cat([x.flatten() for x in ssm.discretize(A, B, dt, method, gaps=gaps)])  # noqa: B023, E731
        torch.testing.assert_close(torch.func.vmap(of_step)(steps), torch.stack([of_step(dt) for dt in steps]))
        slope = (of_step(steps[1] + 1e-6) - of_step(steps[1] - 1e-6)) / 2e-6
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(steps[1], torch.ones((), dtype=torch.float64))
            tangent = forward_ad.unpack_dual(of_step(dual)).tangent
        torch.testing.assert_close(tangent, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ssm.METHODS)
def test_diagonal_is_dense_on_the_diagonal(method):
    A, B = diagonal_system()
    Ab, Bb = ssm.discretize(A, B, 0.2, method, **options(method))
    dense, Bd = ssm.discretize(torch.diag(A), B, 0.2, method, **options(method))
    torch.testing.assert_close(torch.diag(Ab), dense, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(Bb, Bd, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize("dense", [False, True])
def test_batched_is_one_by_one(method, dense):
    A, B = diagonal_system(batch=(2, 3))
    A = torch.diag_embed(A) + 0.1 * torch.ones(5, 5) if dense else A
    dt = torch.linspace(0.01, 1, 6, dtype=torch.float64).view(2, 3)
    Ab, Bb = ssm.discretize(A, B, dt, method, **options(method))
    for i in range(2):
        for j in range(3):
            one = ssm.discretize(A[i, j], B[i, j], dt[i, j], method, **options(method))
            # torch's matrix exponential takes another polynomial for a batch than for one matrix
            near = {"rtol": 1e-8, "atol": 1e-9} if dense and method in ("zoh", "dirac", "async") else {}
            torch.testing.assert_close((Ab[i, j], Bb[i, j]), one, **{"rtol": 1e-10, "atol": 1e-12} | near)


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize("dense", [False, True])
def test_many_steps_for_one_system(method, dense):
    A, B = diagonal_system()
    A = torch.diag(A) if dense else A
    dt = torch.tensor([0.01, 0.1, 0.3], dtype=torch.float64)
    many = ssm.discretize(A, B, dt, method, **options(method))
    one = [ssm.discretize(A, B, step, method, **options(method)) for step in dt]
    torch.testing.assert_close(many, tuple(torch.stack(x) for x in zip(*one, strict=True)))


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize(
    ("a", "b", "steps"), [((1,), (4,), ()), ((4,), (1,), ()), ((2, 1), (1, 4), ()), ((1,), (4,), (4,))]
)
def test_leading_dimensions_broadcast_dense_as_diagonal(method, a, b, steps):
    (A, _), (_, B), dt = diagonal_system(3, a), diagonal_system(3, b), torch.rand(steps, dtype=torch.float64) + 0.1
    Ab, Bb = ssm.discretize(A, B, dt, method, **options(method))
    dense = ssm.discretize(torch.diag_embed(A), B, dt, method, **options(method))
    torch.testing.assert_close(dense, (torch.diag_embed(Ab), Bb), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dense", [False, True])
def test_what_is_returned_is_not_the_callers_own(dense):
    A, B = diagonal_system()
    given = B.clone()
    for method in ssm.METHODS:
        for x in ssm.discretize(torch.diag(A) if dense else A, B, 0.2, method, **options(method)):
            x.zero_()
    assert torch.equal(B, given)


def test_zoh_of_an_integrator():
    """A = 0: x_k = x_{k-1} + dt B u_k; and a double integrator, whose A is singular and not zero."""
    zero, one = torch.zeros(1, dtype=torch.complex128), torch.ones(1, dtype=torch.complex128)
    Ab, Bb = ssm.discretize(zero, one, 0.25)
    assert (Ab.item(), Bb.item()) == (1, 0.25)
    A, B = torch.tensor([[0.0, 1], [0, 0]], dtype=torch.float64), torch.tensor([0.0, 1], dtype=torch.float64)
    Ab, Bb = ssm.discretize(A, B, 0.5)
    torch.testing.assert_close(Ab, torch.tensor([[1, 0.5], [0, 1]], dtype=torch.float64))
    torch.testing.assert_close(Bb, torch.tensor([0.125, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 0.0099, 0.0101, 0.3])
def test_zoh_keeps_its_digits_as_a_goes_to_zero(size):
    """Bb / dt = (e^z - 1)/z = sum z^k / (k+1)!, where the naive form loses up to eleven of sixteen digits."""
    z = size * np.exp(2j)
    series = sum(z**k / float(np.prod(np.arange(1.0, k + 2))) for k in range(30))
    _, Bb = ssm.discretize(torch.tensor([z]), torch.ones(1, dtype=torch.complex128), 1.0)
    assert abs(Bb.item() - series) < 4e-16
    single = ssm.discretize(torch.tensor([z], dtype=torch.complex64), torch.ones(1, dtype=torch.complex64), 1.0)[1]
    assert abs(single.item() - series) < 4e-7


@pytest.mark.parametrize("method", ["zoh", "bilinear", "backward-euler", "gbt", "dirac", "async"])
@pytest.mark.parametrize("init", ssm.INITS)
@pytest.mark.parametrize("dt", [1e-3, 0.1, 10.0])
def test_stable_methods_stay_inside_the_unit_circle(method, init, dt):
    A = ssm.INITS[init](64)
    more = {"gbt": {"alpha": 0.75}}.get(method, options(method))
    assert ssm.discretize(A, torch.ones_like(A), dt, method, **more)[0].abs().max() < 1


def test_forward_euler_does_not():
    A = ssm.INITS["lin"](64)
    assert ssm.discretize(A, torch.ones_like(A), 0.1, "forward-euler")[0].abs().max() > 1


@pytest.mark.parametrize("dense", [False, True])
def test_async_ages_the_state_by_the_gap_and_scales_the_input_by_dt(dense):
    A, B = diagonal_system()
    A = torch.diag(A) if dense else A
    gaps = [0.0, 1.0, 2.5]
    Ab, Bb = ssm.discretize(A, B, 0.2, "async", gaps=gaps)
    for Ab_k, gap in zip(Ab, gaps, strict=True):
        aged = torch.matrix_exp(0.2 * gap * A) if dense else torch.exp(0.2 * gap * A)
        torch.testing.assert_close(Ab_k, aged)
    torch.testing.assert_close(Bb, ssm.discretize(A, B, 0.2)[1])


@pytest.mark.parametrize("method", ssm.METHODS)
@pytest.mark.parametrize("dense", [False, True])
def test_gradients(method, dense):
    A, B = diagonal_system(3)
    A = torch.diag(A) + 0.1 if dense else A
    dt = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    inputs = (A.requires_grad_(), B.requires_grad_(), dt)
    torch.autograd.gradcheck(lambda *x: ssm.discretize(*x, method, **options(method)), inputs)


def test_zoh_gradient_at_zero():
    A = torch.zeros(2, dtype=torch.complex128, requires_grad=True)
    torch.autograd.gradcheck(lambda A: ssm.discretize(A, torch.ones_like(A), 0.3), (A,))


def test_arrays_in_arrays_out():
    A, B = ssm.hippo_legs(4)
    Ab, Bb = ssm.discretize(A.numpy(), B.numpy(), 0.1, "bilinear")
    assert isinstance(Ab, np.ndarray)
    expected = ssm.discretize(A, B, 0.1, "bilinear")
    np.testing.assert_array_equal(Ab, expected[0])
    np.testing.assert_array_equal(Bb, expected[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": 0.0}, "dt must be positive"),
        ({"dt": 1j}, "dt must be real, got 1j"),
        ({"dt": None}, "dt must be a number.*None"),
        ({"A": "A"}, "A must be a number, an array or a tensor"),
        ({"B": torch.ones(4, dtype=torch.int64)}, "B must be floating point or complex"),
        ({"dt": -0.1}, "dt must be positive"),
        ({"dt": float("nan")}, "dt must be positive"),
        ({"dt": float("inf")}, "dt must be positive"),
        ({"method": "tustin"}, "method must be one of zoh.*'tustin'"),
        ({"method": "gbt", "alpha": 1.5}, "alpha must be a number in"),
        ({"method": "gbt", "alpha": float("nan")}, "alpha must be a number in"),
        ({"method": "gbt", "alpha": torch.tensor(0.3)}, r"number in \[0, 1\], not tensor\(0.3"),
        ({"method": "async"}, "'async' needs gaps"),
        ({"method": "async", "gaps": -1.0}, "gaps must be at least 0"),
        ({"method": "async", "gaps": torch.tensor(1 + 1j)}, "gaps must be real"),
        ({"gaps": 1.0}, "gaps belong to method 'async'"),
        ({"B": torch.ones(4, 1)}, "A must be"),
        ({"B": torch.ones(3)}, "A must be"),
        ({"A": torch.ones(4, 3)}, "A must be"),
        ({"A": torch.ones(4, dtype=torch.int64)}, "A must be floating point"),
        ({"A": -torch.ones(4, dtype=torch.bfloat16)}, "A must be floating point.*torch.bfloat16"),
        ({"A": -torch.ones(2, 4), "B": torch.ones(2, 4), "dt": torch.ones(3)}, r"dt .*must broadcast.*\(3,\)"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        ssm.discretize(**{"A": -torch.ones(4), "B": torch.ones(4), "dt": 0.1} | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e3, 1e9])
def test_the_size_of_B_costs_a_dense_A_no_digits(dtype, size):
    A = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    B = size * torch.tensor([1.0, -0.3], dtype=torch.float64)
    exact = torch.matrix_exp(0.1 * A)
    Ab, Bb = ssm.discretize(A.to(dtype), B.to(dtype), 0.1, "zoh")
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    torch.testing.assert_close(Ab.double(), exact, rtol=tolerance, atol=tolerance)
    solved = torch.linalg.solve(A, (exact - torch.eye(2)) @ B)
    torch.testing.assert_close(Bb.double(), solved, rtol=10 * tolerance, atol=10 * tolerance * size)


@pytest.mark.parametrize("method", ["zoh", "async"])
def test_a_B_of_zero_has_the_gradient_of_any_other(method):
    """Bb is linear in B. Gradients as small as those of a mean over many outputs must come through as well."""
    A = ssm.hippo_legs(4)[0].float()
    gaps = torch.ones(()) if method == "async" else None

    def gradient(B):
        Bb = ssm.discretize(A, B.requires_grad_(), 0.1, method, gaps=gaps)[1]
        return torch.autograd.grad(1e-8 * Bb.sum(), B)[0]

    torch.testing.assert_close(gradient(torch.zeros(4)), gradient(torch.ones(4)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_gradient_of_zoh_is_finite_where_the_mode_is_gone_in_a_step(dtype):
    A = torch.tensor([-1e9], dtype=dtype, requires_grad=True)
    Ab, Bb = ssm.discretize(A, torch.ones(1, dtype=dtype), 1.0, "zoh")
    (grad,) = torch.autograd.grad((Ab + Bb).abs().sum(), A)
    assert grad.abs().item() == pytest.approx(1e-18, rel=1e-4)  # d(-1/A)/dA


@pytest.mark.parametrize(("dt", "gaps", "told"), [([0.1, float("inf")], None, "inf"), ([0.1, 0.2], [0.0, -3.0], "-3")])
def test_the_value_that_cannot_be_is_the_one_named(dt, gaps, told):
    A, B = -torch.ones(2, 3), torch.ones(2, 3)
    options = {} if gaps is None else {"gaps": torch.tensor(gaps)}
    with pytest.raises(ValueError, match=f"got {told}"):
        ssm.discretize(A, B, torch.tensor(dt), "zoh" if gaps is None else "async", **options)
