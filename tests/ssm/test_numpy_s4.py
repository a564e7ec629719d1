"""NumPy's S4 against finite differences, autograd, SciPy, the torch layers, and itself computed another way."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.signal import cont2discrete

from saidl import ssm
from saidl.ssm import numpy_s4 as s4

H, N, L, B = 3, 4, 7, 2  # channels, states, length, batch: small and odd enough to check every number


def system(seed=0, channels=H, pairs=N // 2):
    """A, B, C (H, M) complex and dt (H,), anywhere in the stable half plane."""
    rng = np.random.default_rng(seed)
    A, Bc, C = rng.standard_normal((3, channels, pairs, 2)).view(complex)[..., 0]
    return -0.1 - np.abs(A.real) + 4j * A.imag, Bc, C, rng.uniform(0.05, 0.4, channels)


def batch(seed=0, length=L, d_input=2, classes=5):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, length, d_input)), rng.integers(classes, size=B)


def small(layer, **options):
    """A float64 classifier whose every parameter is away from its special initial value."""
    model = s4.Classifier(2, 5, H, N, 2, layer=layer, dtype="float64", **options)
    rng = np.random.default_rng(1)
    for p in model.params:
        for v in p.values():
            s4.real(v)[...] += 0.1 * rng.standard_normal(s4.real(v).shape)
    return model


def test_imports_numpy_alone():
    code = "import sys, saidl.ssm.numpy_s4; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"torch", "scipy", "einops", "sklearn", "pandas", "matplotlib"} & set(loaded)


# ------------------------------------------------------------------------------------------------ the system


def test_hippo_modes_are_hippo_in_another_basis():
    A, Bv = s4.hippo_legs(8)
    np.testing.assert_array_equal(A, ssm.hippo_legs(8)[0].numpy())
    Lambda, P, Bm = s4.hippo_modes(8)
    (Ar, Br, Cr), _ = s4.real_system(*(v[None] for v in (Lambda, P, Bm, Bm.conj())))  # C = B^T there is B^H here
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(Ar[0]).real), -np.arange(8.0, 0, -1), rtol=1e-8)
    dt = np.array([0.05])
    legs, _ = s4.dense_kernel(A[None], Bv[None], Bv[None], dt, 50)
    np.testing.assert_allclose(s4.dense_kernel(Ar, Br, Cr, dt, 50)[0], legs, rtol=1e-10)


@pytest.mark.parametrize("method", s4.METHODS)
def test_discretize_is_scipys(method):
    A, Bc, _, dt = system()
    (Ab, Bb), _ = s4.discretize(A, Bc, dt, method)
    scipys = {"forward-euler": "euler", "backward-euler": "backward_diff"}.get(method, method)
    for h, m in np.ndindex(A.shape):
        one = np.ones((1, 1))
        ab, bb, *_ = cont2discrete((A[h, m] * one, Bc[h, m] * one, one, 0 * one), dt[h], scipys)
        np.testing.assert_allclose((Ab[h, m], Bb[h, m]), (ab[0, 0], bb[0, 0]), rtol=1e-11)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 0.03, 0.9, 1.1, 4])
@pytest.mark.parametrize(("dtype", "precision"), [("complex64", 1e-6), ("complex128", 1e-14)])
def test_zohs_derivative_keeps_its_digits(size, dtype, precision):
    """g = (e^z - 1)/z is the integral of e^(tz) over t in [0, 1], so g' is that of t e^(tz): by Gauss and Legendre."""
    z = (size * np.exp(1j * np.linspace(1.6, 4.6, 9))).astype(dtype)
    t, weight = np.polynomial.legendre.leggauss(30)
    t = (t + 1) / 2
    want = (weight / 2 * t * np.exp(z.astype(complex)[:, None] * t)).sum(1)
    dg = s4.zoh(z)[3]
    assert dg.dtype == dtype
    assert (abs(dg - want) / abs(want)).max() < precision


@pytest.mark.parametrize("method", s4.METHODS)
@pytest.mark.parametrize("length", [1, 2, 33])
def test_convolution_is_recurrence(method, length):
    A, Bc, C, dt = system()
    u = np.random.default_rng(1).standard_normal((B, H, length))
    y, _ = s4.fft_conv(u, s4.diagonal_kernel(A, Bc, C, dt, length, method)[0])
    want = s4.recurrence(u, A, Bc, C, dt, method)
    np.testing.assert_allclose(y, want, atol=1e-12 * np.abs(want).max())  # forward Euler's response grows: relative


def test_fft_conv_is_convolve():
    rng = np.random.default_rng(0)
    u, K = rng.standard_normal((B, H, L)), rng.standard_normal((H, L))
    y, _ = s4.fft_conv(u, K)
    for b, h in np.ndindex(B, H):
        np.testing.assert_allclose(y[b, h], np.convolve(u[b, h], K[h])[:L], atol=1e-13)


def test_s4_without_low_rank_term_is_s4d():
    A, Bc, C, dt = system()
    real, _ = s4.real_system(A, 0 * Bc, Bc, C)
    diagonal, _ = s4.diagonal_kernel(A, Bc, C, dt, 40, "bilinear")
    np.testing.assert_allclose(s4.dense_kernel(*real, dt, 40)[0], diagonal, atol=1e-13)


# ------------------------------------------------------------------------------------------------ the torch layers


def torch_layer(p, layer):
    """The torch layer that holds the parameters p of a NumPy block."""
    method = "bilinear" if "bilinear" in layer else "zoh"
    twin = ssm.S4(H, N) if layer == "s4" else ssm.S4D(H, N, train_B=True, method=method)
    twin = twin.double()
    with torch.no_grad():
        for name, q in twin.named_parameters():
            q.copy_(torch.from_numpy(s4.real(p[name]).reshape(q.shape)))
    return twin


@pytest.mark.parametrize("layer", s4.LAYERS)
@pytest.mark.parametrize("length", [1, 64, 301])
def test_kernel_and_gradients_are_the_torch_layers(layer, length):
    p = small(layer).params[1]
    kernel, kernel_backward = s4.LAYERS[layer]
    twin, rng = torch_layer(p, layer), np.random.default_rng(0)
    u, dy = rng.standard_normal((2, B, H, length))

    K, c0 = kernel(p, length)
    y, c1 = s4.fft_conv(u, K)
    du, dK = s4.fft_conv_backward(dy, c1)
    grads = kernel_backward(dK, c0)

    ut = torch.from_numpy(u).mT.requires_grad_()
    yt = twin(ut)
    yt.backward(torch.from_numpy(dy).mT)
    K[:, 0] -= p["D"]  # the torch layer's kernel is without the skip
    np.testing.assert_allclose(K, twin.kernel(length).detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(y, yt.detach().mT.numpy(), atol=1e-10)
    np.testing.assert_allclose(du, ut.grad.mT.numpy(), atol=1e-8)
    for name, q in twin.named_parameters():
        scale = max(1, np.abs(grads[name]).max())
        got = s4.real(np.ascontiguousarray(grads[name])).reshape(q.shape)
        np.testing.assert_allclose(got, q.grad.numpy(), atol=1e-8 * scale, err_msg=name)


# ------------------------------------------------------------------------------------------------ gradients


def loss(model, x, y):
    return s4.cross_entropy(model.forward(x)[0], y)[0]


def gradients(model, x, y):
    logits, cache = model.forward(x)
    return model.backward(s4.cross_entropy(logits, y)[1], cache)


@pytest.mark.parametrize("layer", s4.LAYERS)
def test_gradients_are_central_differences(layer):
    model, (x, y), eps = small(layer), batch(), 1e-5
    for i, (p, g) in enumerate(zip(model.params, gradients(model, x, y), strict=True)):
        assert p.keys() == g.keys()
        for name in p:
            value, grad = s4.real(p[name]), s4.real(np.ascontiguousarray(g[name]))
            for index in np.ndindex(value.shape):
                old = value[index]
                value[index] = old + eps
                up = loss(model, x, y)
                value[index] = old - eps
                down = loss(model, x, y)
                value[index] = old
                assert grad[index] == pytest.approx((up - down) / (2 * eps), rel=1e-5, abs=1e-9), (i, name, index)


def textbook(params, x, y, layer):
    """The classifier's loss in torch, from the definitions: powers of A, sums over the past, autograd."""
    encoder, *blocks, decoder = params
    h, length = x @ encoder["W"].T + encoder["b"], x.shape[1]  # (B, L, H)
    for p in blocks:
        A, dt = torch.complex(-p["log_A_real"].exp(), p["A_imag"]), p["log_dt"].exp()[:, None]
        Bc, C = p["B"], p["C"]
        if layer == "s4":  # all N modes, conjugates and all, complex and dense
            A, Bc, C, P = (torch.cat([v, v.conj()], -1) for v in (A, Bc, C, p["P"]))
            A = torch.diag_embed(A) - P[:, :, None] * P[:, None, :].conj()
            I = torch.eye(A.shape[-1], dtype=A.dtype)
            left, right = I - dt[..., None] / 2 * A, I + dt[..., None] / 2 * A
            Ab, v = torch.linalg.solve(left, right), torch.linalg.solve(left, dt * Bc)
            K = []
            for _ in range(length):
                K.append((C * v).sum(-1).real)
                v = torch.einsum("hij,hj->hi", Ab, v)
            K = torch.stack(K, -1)
        else:
            if layer == "s4d":
                Ab, Bb = torch.exp(dt * A), (torch.exp(dt * A) - 1) / A * Bc
            else:
                Ab, Bb = (1 + dt / 2 * A) / (1 - dt / 2 * A), dt * Bc / (1 - dt / 2 * A)
            K = torch.stack([2 * (C * Bb * Ab**l).sum(-1).real for l in range(length)], -1)  # (H, L)
        s = torch.stack([sum(K[:, l] * h[:, t - l] for l in range(t + 1)) for t in range(length)], 1)
        h = h + torch.nn.functional.glu((s + p["D"] * h) @ p["W"].T + p["b"], -1)
    return torch.nn.functional.cross_entropy(h.mean(1) @ decoder["W"].T + decoder["b"], y)


@pytest.mark.parametrize("layer", s4.LAYERS)
def test_loss_and_gradients_are_autograds(layer):
    model, (x, y) = small(layer), batch(length=21)
    twin = [{k: torch.from_numpy(v.copy()).requires_grad_() for k, v in p.items()} for p in model.params]
    want = textbook(twin, torch.from_numpy(x), torch.from_numpy(y), layer)
    want.backward()
    assert loss(model, x, y) == pytest.approx(want.item(), rel=1e-12)
    for p, g in zip(twin, gradients(model, x, y), strict=True):
        for name in p:
            np.testing.assert_allclose(g[name], p[name].grad.resolve_conj().numpy(), atol=1e-8, err_msg=name)


@pytest.mark.parametrize("layer", ["s4d", "s4d-bilinear"])
def test_single_precision_is_precise(layer):
    """float32 parameters lose nothing to exponentials and long powers: against the same numbers in float64."""
    p = s4.Classifier(1, 2, 16, 64, 1, layer).params[1]
    wide = {k: v.astype(np.result_type(v, float)) for k, v in p.items()}
    kernel, kernel_backward = s4.LAYERS[layer]
    K, cache = kernel(p, 2048)
    exact, wide_cache = kernel(wide, 2048)
    dK = np.random.default_rng(0).standard_normal(K.shape).astype(np.float32)
    assert K.dtype == np.float32
    assert np.abs(K - exact).max() < 1e-6 * np.abs(exact).max()
    grads, exact = kernel_backward(dK, cache), kernel_backward(dK.astype(float), wide_cache)
    for name in p.keys() & grads.keys():
        assert np.abs(grads[name] - exact[name]).max() < 5e-6 * np.abs(exact[name]).max(), name


def test_a_kernel_in_single_precision_is_precise():
    """As the torch kernel: what is given in single precision is discretised in double."""
    A, B, C, dt = (
        (-0.01 + 1j * np.pi * np.arange(8))[None],
        np.ones((1, 8), complex),
        np.ones((1, 8), complex),
        np.array([0.01]),
    )
    narrow = (A.astype(np.complex64), B.astype(np.complex64), C.astype(np.complex64), dt.astype(np.float32))
    exact = s4.diagonal_kernel(*(x.astype(np.result_type(x, float)) for x in narrow), 16384)[0]
    K = s4.diagonal_kernel(*narrow, 16384)[0]
    assert K.dtype == np.float32
    assert np.abs(K - exact).max() < 1e-5 * np.abs(exact).max()


# ------------------------------------------------------------------------------------------------ training


def test_adam_is_torchs():
    model, (x, y), steps = small("s4"), batch(), 6
    twins = [{k: torch.from_numpy(s4.real(v).copy()) for k, v in p.items()} for p in model.params]
    slow = [q for p in twins for k, q in p.items() if k in ("log_dt", "log_A_real", "A_imag", "P", "B")]
    fast = [q for p in twins for q in p.values() if not any(q is r for r in slow)]
    groups = [{"params": slow, "lr": 1e-3, "weight_decay": 0.0}, {"params": fast, "lr": 0.02, "weight_decay": 0.3}]
    want = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(want, steps)
    adam = s4.Adam(model.params, lr=0.02, weight_decay=0.3, steps=steps)
    for _ in range(steps):
        grads = gradients(model, x, y)
        for p, g in zip(twins, grads, strict=True):
            for k in p:
                p[k].grad = torch.from_numpy(s4.real(np.ascontiguousarray(g[k])).copy())
        adam.step(grads)
        want.step()
        schedule.step()
    for p, q in zip(model.params, twins, strict=True):
        for k in p:
            np.testing.assert_allclose(s4.real(p[k]), q[k].numpy(), atol=1e-12, err_msg=k)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = ((pixels - pixels.mean()) / pixels.std())[..., None]  # (1797, 64, 1)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order[:1297]], labels[order[:1297]], x[order[1297:]], labels[order[1297:]]


@pytest.mark.parametrize(("layer", "at_least"), [("s4d", 0.95), ("s4", 0.85)])
def test_learns_sequential_digits(digits, layer, at_least):
    x, y, x_test, y_test = digits
    model = s4.Classifier(1, 10, 32, 16, layer=layer)
    history = list(s4.train(model, x, y, epochs=8))
    assert [r["epoch"] for r in history] == list(range(8))
    assert history[-1]["loss"] < history[0]["loss"] / 5
    assert (model.predict(x_test) == y_test).mean() >= at_least
    assert {v.dtype.name for p in model.params for v in p.values()} == {"float32", "complex64"}  # nothing was promoted


def test_same_seed_same_bits(digits):
    x, y, *_ = digits
    once, again = (list(s4.train(s4.Classifier(1, 10, 8, 8), x[:64], y[:64], epochs=2)) for _ in range(2))
    assert once == again


def test_another_seed_draws_other_weights():
    one, other = (s4.Classifier(1, 2, 4, 4, 1, seed=seed).params for seed in (0, 1))
    for p, q in zip(one, other, strict=True):  # encoder, block, decoder
        assert (p["W"] != q["W"]).all()
    assert (one[1]["C"] != other[1]["C"]).all()


def test_another_seed_of_training_takes_other_batches():
    x, y = np.random.default_rng(0).standard_normal((16, L, 2)), np.arange(16) % 5
    one, other = (list(s4.train(small("s4d"), x, y, epochs=1, batch_size=4, seed=seed)) for seed in (0, 1))
    assert one != other


def test_glu_does_not_overflow():
    y, cache = s4.glu(np.array([1, 1, 1e4, -1e4], "float32").reshape(1, 4, 1))
    np.testing.assert_array_equal(y.ravel(), [1, 0])
    assert np.isfinite(s4.glu_backward(np.ones_like(y), cache)).all()


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("layer", lambda: s4.Classifier(1, 2, layer="lstm")),
        ("layer", lambda: s4.Classifier(1, 2, layer=["s4"])),
        ("n", lambda: s4.hippo_legs(0)),
        ("n", lambda: s4.hippo_legs("4")),
        ("n", lambda: s4.hippo_modes(5)),
        ("n", lambda: s4.hippo_modes(4.0)),
        ("d_state", lambda: s4.Classifier(1, 2, d_state=5)),
        ("d_state", lambda: s4.Classifier(1, 2, d_state=4.0)),
        ("d_input", lambda: s4.Classifier(0, 2)),
        ("num_classes", lambda: s4.Classifier(1, -1)),
        ("d_model", lambda: s4.Classifier(1, 2, d_model=0)),
        ("d_model", lambda: s4.Classifier(1, 2, d_model=2.5)),
        ("n_layers", lambda: s4.Classifier(1, 2, n_layers=0)),
        ("method", lambda: s4.discretize(*system()[:2], system()[3], "tustin")),
        ("dt", lambda: s4.discretize(*system()[:2], 0 * system()[3])),
        ("dt", lambda: s4.discretize(*system()[:2], 0.1)),
        ("dt", lambda: s4.discretize(*system()[:2], np.full(H, np.inf))),
        ("shapes of A, B, dt", lambda: s4.discretize(system()[0], system()[1][:1], system()[3])),
        ("u.shape", lambda: s4.recurrence(np.zeros((B, H + 1, L)), *system())),
        (
            "dtypes of A, B, C, dt",
            lambda: s4.dense_kernel(-np.eye(2, dtype=int)[None], *np.ones((2, 1, 2)), np.ones(1), 5),
        ),
        ("length", lambda: s4.diagonal_kernel(*system(), True)),
        ("batch_size", lambda: small("s4d").predict(batch()[0], batch_size=0)),
        ("x.shape", lambda: s4.train(small("s4d"), batch()[0][..., :1].repeat(7, -1), batch()[1])),
        ("C.dtype", lambda: s4.diagonal_kernel(*system()[:2], system()[2].real, system()[3], 5)),
        ("u.dtype", lambda: s4.fft_conv(np.zeros((B, H, L), int), np.zeros((H, L)))),
        ("u.dtype", lambda: s4.recurrence(np.zeros((B, H, L), int), *system())),
        ("A", lambda: s4.discretize(-system()[0], *system()[1::2])),
        ("length", lambda: s4.diagonal_kernel(*system(), 0)),
        ("length", lambda: s4.dense_kernel(-np.eye(2)[None], np.ones((1, 2)), np.ones((1, 2)), np.ones(1), 0)),
        ("dt", lambda: s4.dense_kernel(-np.eye(2)[None], np.ones((1, 2)), np.ones((1, 2)), -np.ones(1), 5)),
        ("shapes of A, B, C, dt", lambda: s4.diagonal_kernel(*system()[:3], 0.1, 5)),
        ("shapes of A, B, C, dt", lambda: s4.diagonal_kernel(*system()[:2], np.ones((1, 1)), system()[3], 5)),
        ("shapes of A, B, C, dt", lambda: s4.dense_kernel(-np.eye(2), np.ones((1, 2)), np.ones((1, 2)), np.ones(1), 5)),
        ("length", lambda: s4.diagonal_kernel(*system(), 2.5)),
        ("dt_min", lambda: s4.init_ssm(np.random.default_rng(0), 2, 4, dt_min=0)),
        ("dtype", lambda: s4.Classifier(1, 2, dtype="int32")),
        ("batch_size", lambda: s4.train(small("s4d"), *batch(), batch_size=0)),
        ("epochs", lambda: s4.train(small("s4d"), *batch(), epochs=0)),
        ("lr", lambda: s4.train(small("s4d"), *batch(), lr=-1)),
        ("x", lambda: s4.train(small("s4d"), np.nan * batch()[0], batch()[1])),
        ("kernel", lambda: s4.fft_conv(np.zeros((B, H, L)), np.zeros((H, L + 1)))),
        ("x.shape", lambda: small("s4d").forward(np.zeros((B, L, 3)))),
        ("y", lambda: s4.train(small("s4d"), batch()[0], np.array([0, 5]))),
        ("y", lambda: s4.train(small("s4d"), batch()[0], np.array([0, -1]))),
        ("y", lambda: s4.train(small("s4d"), batch()[0], np.array([0]))),
        ("y", lambda: s4.train(small("s4d"), batch()[0], np.array([[0], [1]]))),
        ("y", lambda: s4.train(small("s4d"), batch()[0], np.array([0.0, 0.5]))),
    ],
)
def test_bad_input_names_the_argument(name, call):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        call()
