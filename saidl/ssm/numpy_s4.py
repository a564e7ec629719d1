"""S4 in NumPy alone: every forward pass, and every gradient by hand.

A state-space layer reads a sequence u and writes a sequence y through a hidden state x that obeys a linear equation:

    x'(t) = A x(t) + B u(t),    y(t) = C x(t) + D u(t).

Four steps turn it into a layer that trains fast, and this page takes them in order:

    1. HiPPO gives an A whose state remembers the whole past.                         hippo_legs, hippo_modes
    2. Discretising with a step dt gives a recurrence, x_k = Ab x_{k-1} + Bb u_k.     discretize
    3. Unrolling the recurrence gives a convolution, y = K * u, K_l = C Ab^l Bb.      diagonal_kernel, dense_kernel
    4. By FFT the convolution costs L log L.                                          fft_conv

S4D keeps A diagonal; S4 adds a rank-one term, A = Lambda - P P^H. A small classifier, Adam and a training loop follow.

How to read it: `f(inputs) -> output, cache` stands above `f_backward(d_output, cache) -> d_inputs`, the derivation
between the two. dX is the gradient of the loss with respect to X. For a complex Z = X + iY it is dL/dX + i dL/dY, as in
torch, so a change of Z moves the loss by Re(conj(dZ) deltaZ), and through W = f(Z) with f holomorphic the chain rule
reads dZ = conj(f'(Z)) dW.

Shapes: batch B, channels H, length L, states N, conjugate pairs M = N/2; sequences are (B, H, L) inside.

Sources: Gu, Goel and Re, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022 (S4); Gu, Gupta, Goel
and Re, "On the Parameterization and Initialization of Diagonal State Space Models", 2022 (S4D).
"""

from functools import partial
from math import factorial
from numbers import Integral

import numpy as np

# ---------------------------------------------------------------------------------------------------------- 1. HiPPO


def hippo_legs(n):
    """HiPPO-LegS, whose state holds the coefficients of the past in n Legendre polynomials: A (n, n), B (n,)."""
    require_count("n", n)
    r = np.sqrt(2 * np.arange(n) + 1)
    return -np.tril(np.outer(r, r), -1) - np.diag(np.arange(1.0, n + 1)), r


def hippo_modes(n):
    """Diagonal-plus-rank-one form of HiPPO-LegS, one of each conjugate pair: Lambda, P, B, each (n/2,) complex.

    With P_k = sqrt(k + 1/2), A + P P^T is -1/2 on the diagonal plus a skew-symmetric matrix. That is normal, so a
    unitary V diagonalises it: A = V (Lambda - (V^H P)(V^H P)^H) V^H. Times -i the skew part is Hermitian: `eigh`.
    """
    require_count("n", n)
    require(n % 2 == 0, "n", n, "even, as the modes come in pairs")
    A, B = hippo_legs(n)
    P = np.sqrt(np.arange(n) + 0.5)
    omega, V = np.linalg.eigh(-1j * (A + np.outer(P, P) + 0.5 * np.eye(n)))
    V = V[:, n // 2 :].conj().T  # omega ascends and comes in pairs -w, w: keep w > 0
    return -0.5 + 1j * omega[n // 2 :], V @ P, V @ B


# ------------------------------------------------------------------------------------------------- 2. Discretisation


def zoh(z):
    """Exact for an input held constant over each step: f = e^z, g = (e^z - 1)/z, and both derivatives."""
    f, g, near, dg = np.exp(z), np.expm1(z) / z, np.where(abs(z) < 1, z, 0), 0
    for k in range(18, 0, -1):  # g' = sum_k k z^(k-1) / (k+1)!, because f - g cancels as z -> 0
        dg = dg * near + k / factorial(k + 1)
    return f, f, g, np.where(near == z, dg, (f - g) / z)


def gbt(z, alpha):
    """Slope at a point alpha between the ends of a step: f = (1 + (1 - alpha) z)/(1 - alpha z), g = 1/(1 - alpha z)."""
    g = 1 / (1 - alpha * z)
    return (1 + (1 - alpha) * z) * g, g**2, g, alpha * g**2


METHODS = {
    "zoh": zoh,
    "bilinear": lambda z: gbt(z, 0.5),
    "backward-euler": lambda z: gbt(z, 1.0),
    "forward-euler": lambda z: gbt(z, 0.0),
}


def discretize(A, B, dt, method="zoh"):
    """Diagonal system, A and B (H, M) complex, dt (H,): Ab = f(dt A), Bb = dt g(dt A) B."""
    require(method in list(METHODS), "method", method, f"one of {list(METHODS)}")
    fits = np.shape(dt) == A.shape[:1] and A.shape == B.shape
    require(fits, "shapes of A, B, dt", (A.shape, B.shape, np.shape(dt)), "(H, M), (H, M), (H,)")
    require(
        (dt > 0).all() and np.isfinite(dt).all() and (A.real < 0).all(),
        "dt, A",
        (dt, A),
        "dt > 0, finite, and Re A < 0",
    )
    dt = dt[:, None]  # (H, 1)
    f, df, g, dg = METHODS[method](dt * A)
    return (f, dt * g * B), (A, B, dt, df, g, dg)


# z = dt A enters Ab through f and Bb through g; dt enters Bb and z; the chain rule of the opening page, term by term:
#     dz = conj(f') dAb + conj(dt g' B) dBb,   dA = dt dz,   dB = conj(dt g) dBb,
#     d(dt) = Re sum_m [conj(A) dz + conj(g B) dBb], real because dt is.
def discretize_backward(dAb, dBb, cache):
    A, B, dt, df, g, dg = cache
    dz = df.conj() * dAb + (dt * dg * B).conj() * dBb
    ddt = (A.conj() * dz + (g * B).conj() * dBb).real.sum(-1)
    return dt * dz, dt * g.conj() * dBb, ddt


# ------------------------------------------------------------------------------------------------------- 3. Kernels


def diagonal_kernel(A, B, C, dt, length, method="zoh"):
    """S4D's kernel K_l = 2 Re sum_m C_m Bb_m Ab_m^l; A, B, C (H, M), one of each conjugate pair, dt (H,) -> (H, L)."""
    require_system(A, B, C, dt, length, A.shape)
    require(np.iscomplexobj(C), "C.dtype", C.dtype, "complex")  # else the powers would be cut to their real parts
    (Ab, Bb), discrete = discretize(
        A.astype(complex), B.astype(complex), dt.astype(float), method
    )  # an error in Ab grows with the lag
    V = np.ones(
        (*Ab.shape, length), complex
    )  # (H, M, L), the powers Ab^l, in double precision as well: their roundings add up
    V[..., 1:] = Ab[..., None]
    V, Bb = np.cumprod(V, axis=-1, out=V).astype(C.dtype), Bb.astype(C.dtype)
    K = 2 * ((C * Bb)[:, None, :] @ V)[:, 0].real
    return K, (C, Bb, V, discrete)


# Let w = C Bb. K_l = 2 Re sum_m w_m Ab_m^l is real, so its dK is too, and
#     dw_m = 2 sum_l conj(Ab_m^l) dK_l,   dAb_m = 2 conj(w_m) sum_l conj(l Ab_m^{l-1}) dK_l,
#     dC = conj(Bb) dw,   dBb = conj(C) dw.
def diagonal_kernel_backward(dK, cache):
    C, Bb, V, discrete = cache
    V, l = V.conj(), np.arange(1, dK.shape[-1], dtype=dK.dtype)
    dw = 2 * (V @ dK[..., None])[..., 0]
    dAb = 2 * (C * Bb).conj() * (V[..., :-1] @ (l * dK[:, 1:])[..., None])[..., 0]
    dA, dB, ddt = discretize_backward(dAb, C.conj() * dw, discrete)
    return dA, dB, Bb.conj() * dw, ddt


def dense_kernel(A, B, C, dt, length):
    """S4's kernel K_l = C Ab^l Bb, bilinear; A (H, N, N), B and C (H, N), all real, dt (H,) -> (H, L)."""
    require_system(A, B, C, dt, length, A.shape[:-1])
    kinds = [x.dtype for x in (A, B, C, dt)]
    require(all(kind.kind == "f" for kind in kinds), "dtypes of A, B, C, dt", kinds, "floating point")
    require((dt > 0).all() and np.isfinite(dt).all(), "dt", dt, "> 0, finite")
    I, dt, B = np.eye(A.shape[-1], dtype=A.dtype), dt[:, None, None], B[..., None]  # B is a column, (H, N, 1)
    R = np.linalg.inv(I - dt / 2 * A)
    Ab = 2 * R - I  # (I - dt/2 A)^-1 (I + dt/2 A), because I + dt/2 A = 2 I - R^-1
    X = np.empty((*A.shape[:2], length), A.dtype)  # (H, N, L), the states x_l = Ab^l Bb after an impulse
    X[..., :1] = x = dt * R @ B
    for l in range(1, length):
        X[..., l : l + 1] = x = Ab @ x
    return (C[:, None, :] @ X)[:, 0], (A, B, C, dt, R, Ab, X)


# K_l = C x_l and x_{l+1} = Ab x_l, so the states' gradients obey a recurrence that runs backwards in time:
#     dx_l = C^T dK_l + Ab^T dx_{l+1},   dC = sum_l dK_l x_l,   dAb = sum_l dx_{l+1} x_l^T,   dBb = dx_0.
# Through Ab = 2 R - I and Bb = dt R B:   dR = 2 dAb + dt dBb B^T,   dB = dt R^T dBb,   d(dt) = dBb . R B + ...
# S = R^-1 = I - dt/2 A, and R moves by -R (delta S) R:   dS = -R^T dR R^T,   dA = -dt/2 dS,   d(dt) = ... - A . dS/2.
def dense_kernel_backward(dK, cache):
    A, B, C, dt, R, Ab, X = cache
    dX = C[..., None] * dK[:, None, :]  # (H, N, L)
    for l in reversed(range(dK.shape[-1] - 1)):
        dX[..., l : l + 1] += T(Ab) @ dX[..., l + 1 : l + 2]
    dAb, dBb = dX[..., 1:] @ T(X[..., :-1]), dX[..., :1]
    dS = -T(R) @ (2 * dAb + dt * dBb @ T(B)) @ T(R)
    ddt = (dBb * (R @ B)).sum((1, 2)) - (A * dS).sum((1, 2)) / 2
    return -dt / 2 * dS, (dt * T(R) @ dBb)[..., 0], (X @ dK[..., None])[..., 0], ddt


def T(X):
    """Transpose of the last two axes."""
    return X.swapaxes(-1, -2)


# ------------------------------------------------------------------------------------------ 4. Convolution, recurrence


def fft_conv(u, kernel):
    """Causal convolution y_t = sum_{s <= t} K_s u_{t-s}; u (B, H, L), kernel (H, L) -> (B, H, L)."""
    L = u.shape[-1]
    require(u.dtype.kind == "f", "u.dtype", u.dtype, "floating point")
    require(kernel.shape == u.shape[1:], "kernel.shape", kernel.shape, f"{u.shape[1:]}, as u (batch, channels, length)")
    Uf, Kf = np.fft.rfft(u, 2 * L), np.fft.rfft(kernel, 2 * L)  # L zeros: the end must not wrap round to the start
    return np.fft.irfft(Uf * Kf, 2 * L)[..., :L].astype(u.dtype), (Uf, Kf)


# dK_s = sum_t dy_t u_{t-s} and du_s = sum_t dy_t K_{t-s} are correlations, and a correlation transforms into a product
# with a conjugate. With U, Kf, G the transforms of u, K, dy:   dK = irfft(sum_b conj(U) G),   du = irfft(conj(Kf) G).
def fft_conv_backward(dy, cache):
    Uf, Kf = cache
    L = dy.shape[-1]
    G = np.fft.rfft(dy, 2 * L)
    du = np.fft.irfft(Kf.conj() * G, 2 * L)[..., :L]
    dK = np.fft.irfft((Uf.conj() * G).sum(0), 2 * L)[..., :L]
    return du.astype(dy.dtype), dK.astype(dy.dtype)


def recurrence(u, A, B, C, dt, method="zoh"):
    """The same map one step at a time, x_k = Ab x_{k-1} + Bb u_k, y_k = 2 Re C x_k: what a deployed model runs."""
    require(u.dtype.kind == "f", "u.dtype", u.dtype, "floating point")
    require(u.ndim == 3 and u.shape[1] == len(A), "u.shape", u.shape, f"(batch, {len(A)}, length)")
    (Ab, Bb), _ = discretize(A, B, dt, method)
    x, y = np.zeros((len(u), *Ab.shape), Ab.dtype), np.empty_like(u)  # x: (B, H, M)
    for k in range(u.shape[-1]):
        x = Ab * x + Bb * u[..., k, None]
        y[..., k] = 2 * (C * x).real.sum(-1)
    return y


# ------------------------------------------------------------------------------------------- 5. The layers' parameters
# Both layers train log dt, log(-Re Lambda), Im Lambda, B, C, D, and S4 also P. The logarithms keep dt > 0 and
# Re Lambda < 0 whatever the optimiser does, so the system stays stable. D u is one more tap of the kernel, at lag 0.


def init_ssm(rng, d_model, d_state, dt_min=1e-3, dt_max=1e-1):
    """Parameters of an S4 layer: HiPPO-LegS in every channel, C random, dt log-uniform in [dt_min, dt_max]."""
    require(0 < dt_min <= dt_max < np.inf, "dt_min, dt_max", (dt_min, dt_max), "0 < dt_min <= dt_max")
    Lambda, P, B = (np.tile(v, (d_model, 1)) for v in hippo_modes(d_state))  # (H, M)
    C = rng.standard_normal((d_model, d_state)).view(complex) / 2**0.5
    log_dt = rng.uniform(np.log(dt_min), np.log(dt_max), d_model)
    p = {"log_dt": log_dt, "log_A_real": np.log(-Lambda.real), "A_imag": Lambda.imag}
    return p | {"B": B, "P": P, "C": C, "D": rng.standard_normal(d_model)}


def rates(p):
    """The trained numbers as Lambda (H, M) and dt (H,), in double precision: an error in dt Lambda grows with the lag."""
    Lambda, dt = -np.exp(p["log_A_real"], dtype=float) + 1j * p["A_imag"], np.exp(p["log_dt"], dtype=float)
    return (Lambda, dt), (Lambda, dt)


# dt = e^{log_dt} and Re Lambda = -e^{log_A_real} are their own derivatives.
def rates_backward(dLambda, ddt, cache):
    Lambda, dt = cache
    return {"log_dt": dt * ddt, "log_A_real": Lambda.real * dLambda.real, "A_imag": dLambda.imag}


def s4d(p, length, method="zoh"):
    """Kernel of the diagonal layer, A = Lambda, with D at lag 0 -> (H, L)."""
    (Lambda, dt), cache0 = rates(p)
    K, cache1 = diagonal_kernel(Lambda, p["B"], p["C"], dt, length, method)
    K[:, 0] += p["D"]
    return K, (cache0, cache1)


def s4d_backward(dK, cache):
    dLambda, dB, dC, ddt = diagonal_kernel_backward(dK, cache[1])
    return rates_backward(dLambda, ddt, cache[0]) | {"B": dB, "C": dC, "D": dK[:, 0]}


def s4(p, length):
    """Kernel of the diagonal-plus-rank-one layer, A = Lambda - P P^H, bilinear, with D at lag 0 -> (H, L)."""
    (Lambda, dt), cache0 = rates(p)
    (A, B, C), cache1 = real_system(Lambda.astype(p["C"].dtype), p["P"], p["B"], p["C"])
    K, cache2 = dense_kernel(A, B, C, dt.astype(A.dtype), length)
    K[:, 0] += p["D"]
    return K, (cache0, cache1, cache2)


def s4_backward(dK, cache):
    dA, dB, dC, ddt = dense_kernel_backward(dK, cache[2])
    dLambda, dP, dB, dC = real_system_backward(dA, dB, dC, cache[1])
    return rates_backward(dLambda, ddt, cache[0]) | {"B": dB, "P": dP, "C": dC, "D": dK[:, 0]}


def real_system(Lambda, P, B, C):
    """A mode v and its conjugate in real coordinates sqrt(2) (Re v, Im v): A (H, N, N), B, C (H, N), all real.

    There Lambda is the block [[Re, -Im], [Im, Re]], A = block - p p^T is HiPPO itself in another orthonormal basis,
    and A + A^T <= 0, so that the powers of the bilinear Ab cannot grow.
    """
    p, I = to_real(P), np.eye(P.shape[-1], dtype=P.real.dtype)
    re, im = Lambda.real[..., None] * I, Lambda.imag[..., None] * I  # (H, M, M)
    A = np.block([[re, -im], [im, re]]) - p[..., None] * p[:, None, :]
    return (A, to_real(B), to_real(C.conj())), p


# Re Lambda stands on the diagonals of two blocks, Im Lambda on the lower left one's, its negative on the upper right's.
# -p p^T moves by -(delta p) p^T - p (delta p)^T:   dp = -(dA + dA^T) p.
def real_system_backward(dA, dB, dC, p):
    H, N = p.shape
    (a, b), (c, d) = np.einsum("himjm->ijhm", dA.reshape(H, 2, N // 2, 2, N // 2))  # the blocks' diagonals, each (H, M)
    dp = -((dA + T(dA)) @ p[..., None])[..., 0]
    return a + d + 1j * (c - b), to_real_backward(dp), to_real_backward(dB), to_real_backward(dC).conj()


def to_real(v):
    return 2**0.5 * np.concatenate([v.real, v.imag], -1)


def to_real_backward(dr):
    dx, dy = np.split(2**0.5 * dr, 2, -1)
    return dx + 1j * dy


# --------------------------------------------------------------------------------------------- 6. The rest of a network


def linear(x, W, b):
    """Mixes channels at every time step: x (B, I, L), W (O, I), b (O,) -> (B, O, L)."""
    return W @ x + b[:, None], (x, W)


# y_t = W x_t + b:   dx_t = W^T dy_t,   dW = sum_{batch, t} dy_t x_t^T,   db = sum_{batch, t} dy_t.
def linear_backward(dy, cache):
    x, W = cache
    return W.T @ dy, np.tensordot(dy, x, axes=((0, 2), (0, 2))), dy.sum((0, 2))


def glu(x):
    """Gated linear unit, the network's only nonlinearity: half of the channels opens or shuts the other half."""
    a, b = np.split(x, 2, axis=1)
    gate = (1 + np.tanh(b / 2)) / 2  # the logistic function, without overflow
    return a * gate, (a, gate)


# y = a s(b) and s' = s (1 - s):   da = s dy,   db = a s (1 - s) dy.
def glu_backward(dy, cache):
    a, gate = cache
    da = gate * dy
    return np.concatenate([da, a * (1 - gate) * da], axis=1)


# -log p_y = -z_y + log sum_k e^{z_k}:   dz = (p - onehot(y)) / B.
def cross_entropy(logits, y):
    """Mean of -log softmax(logits)_y, the end of the chain: loss, dlogits; logits (B, K), y (B,)."""
    logits, rows = logits - logits.max(1, keepdims=True), np.arange(len(y))
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    dlogits = np.exp(logp)
    dlogits[rows, y] -= 1
    return -logp[rows, y].mean(), dlogits / len(y)


LAYERS = {
    "s4d": (s4d, s4d_backward),
    "s4d-bilinear": (partial(s4d, method="bilinear"), s4d_backward),
    "s4": (s4, s4_backward),
}


class Classifier:
    """Encoder, n_layers blocks h + GLU(W SSM(h) + b), mean over time, decoder; `layer` is one of LAYERS.

    `params` is a list of dictionaries: encoder, blocks, decoder. `backward` returns a list just like it.
    """

    def __init__(self, d_input, num_classes, d_model=32, d_state=32, n_layers=2, layer="s4d", dtype="float32", seed=0):
        require(layer in list(LAYERS), "layer", layer, f"one of {list(LAYERS)}")
        sizes = {"d_input": d_input, "num_classes": num_classes, "d_model": d_model, "n_layers": n_layers}
        for name, size in (sizes | {"d_state": d_state}).items():
            require_count(name, size)
        require(d_state % 2 == 0, "d_state", d_state, "even, for conjugate pairs")
        require(dtype in ("float32", "float64", np.float32, np.float64), "dtype", dtype, "float32 or float64")
        self.kernel, self.kernel_backward = LAYERS[layer]
        rng = np.random.default_rng(seed)

        def weights(d_in, d_out):
            r = d_in**-0.5
            return {"W": rng.uniform(-r, r, (d_out, d_in)), "b": rng.uniform(-r, r, d_out)}

        params = [weights(d_input, d_model)]
        for _ in range(n_layers):
            params.append(init_ssm(rng, d_model, d_state) | weights(d_model, 2 * d_model))
            if layer != "s4":
                del params[-1]["P"]
        params.append(weights(d_model, num_classes))
        dtypes = {"f": dtype, "c": np.result_type(dtype, np.complex64)}
        self.params = [{k: v.astype(dtypes[v.dtype.kind]) for k, v in p.items()} for p in params]

    def forward(self, x):
        """x (B, L, d_input) -> logits (B, num_classes), cache."""
        encoder, *blocks, decoder = self.params
        require(x.ndim == 3 and x.shape[2] == encoder["W"].shape[1], "x.shape", x.shape, "(batch, length, d_input)")
        h, first = linear(x.astype(encoder["W"].dtype).transpose(0, 2, 1), **encoder)  # (B, H, L)
        caches = []
        for p in blocks:
            K, c0 = self.kernel(p, h.shape[-1])
            y, c1 = fft_conv(h, K)
            y, c2 = linear(y, p["W"], p["b"])
            y, c3 = glu(y)
            h = h + y
            caches.append((c0, c1, c2, c3))
        logits, last = linear(h.mean(-1, keepdims=True), **decoder)  # (B, K, 1)
        return logits[..., 0], (h.shape, first, caches, last)

    def backward(self, dlogits, cache):
        """dlogits (B, num_classes) -> the gradient of every parameter."""
        shape, first, caches, last = cache
        dh, dW, db = linear_backward(dlogits[..., None], last)
        grads = [{"W": dW, "b": db}]
        dh = np.broadcast_to(dh / shape[-1], shape)  # of a mean over time, each step has its share
        for c0, c1, c2, c3 in reversed(caches):
            dy, dW, db = linear_backward(glu_backward(dh, c3), c2)
            du, dK = fft_conv_backward(dy, c1)
            dh = dh + du  # h went two ways, past the SSM and through it
            grads.append({"W": dW, "b": db} | self.kernel_backward(dK, c0))
        _, dW, db = linear_backward(dh, first)
        return [{"W": dW, "b": db}, *reversed(grads)]

    def predict(self, x, batch_size=256):
        """x (N, L, d_input) -> classes (N,)."""
        require_count("len(x)", len(x))
        require_count("batch_size", batch_size)
        return np.concatenate([self.forward(x[i : i + batch_size])[0].argmax(1) for i in range(0, len(x), batch_size)])


# ------------------------------------------------------------------------------------------------------- 7. Training

SLOW = {"log_dt", "log_A_real", "A_imag", "P", "B"}  # a small change here moves the whole kernel: small steps, no decay


class Adam:
    """AdamW with a cosine schedule over `steps`; what SLOW names steps by at most 1e-3 and does not decay."""

    def __init__(self, params, lr, weight_decay, steps):
        self.params, self.lr, self.weight_decay, self.steps, self.t = params, lr, weight_decay, steps, 0
        self.moments = [{k: (np.zeros_like(real(v)), np.zeros_like(real(v))) for k, v in p.items()} for p in params]

    def step(self, grads, beta1=0.9, beta2=0.99, eps=1e-8):
        """m, v: running means of g and g^2, corrected for their start at 0;  p <- p - lr (m / sqrt(v) + decay p)."""
        cosine = (1 + np.cos(np.pi * self.t / self.steps)) / 2
        self.t += 1
        for layer, layer_grads, moments in zip(self.params, grads, self.moments, strict=True):
            for name, (m, v) in moments.items():
                p, g = real(layer[name]), real(layer_grads[name])
                m += (1 - beta1) * (g - m)
                v += (1 - beta2) * (g * g - v)
                lr, decay = (min(self.lr, 1e-3), 0) if name in SLOW else (self.lr, self.weight_decay)
                direction = m / (1 - beta1**self.t) / (np.sqrt(v / (1 - beta2**self.t)) + eps)
                p -= cosine * lr * (direction + decay * p)


def real(v):
    """A complex array seen as twice as many real numbers in the same memory; a real array as it is."""
    return v.view(v.real.dtype)


def train(model, x, y, *, epochs=20, batch_size=32, lr=1e-2, weight_decay=0.01, seed=0):
    """Trains in place on x (N, L, d_input), y (N,); yields {epoch, loss, accuracy}, on the training set, each epoch."""
    classes, n, rng, x, y = (
        model.params[-1]["b"].size,
        len(x),
        np.random.default_rng(seed),
        np.asarray(x),
        np.asarray(y),
    )
    width = model.params[0]["W"].shape[1]
    require(x.ndim == 3 and x.shape[2] == width, "x.shape", x.shape, f"(samples, length, {width})")
    fits = y.shape == (n,) and n > 0 and y.dtype.kind in "iu" and ((y >= 0) & (y < classes)).all()
    require(fits, "y", y, f"{n} integer labels in [0, {classes})")
    require(np.isfinite(x).all(), "x", x, "finite")
    for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
        require_count(name, value)
    for name, value in {"lr": lr, "weight_decay": weight_decay}.items():
        require(0 <= value < np.inf, name, value, "finite and at least 0")
    return epochs_of(model, x, y, epochs, batch_size, lr, weight_decay, rng)


def epochs_of(model, x, y, epochs, batch_size, lr, weight_decay, rng):
    """`train` itself; apart, because a generator would look at its arguments only when it is first asked for an epoch."""
    n = len(x)
    adam = Adam(model.params, lr, weight_decay, steps=epochs * -(-n // batch_size))
    for epoch in range(epochs):
        order, loss_sum, correct = rng.permutation(n), 0.0, 0
        for batch in (order[i : i + batch_size] for i in range(0, n, batch_size)):
            logits, cache = model.forward(x[batch])
            loss, dlogits = cross_entropy(logits, y[batch])
            adam.step(model.backward(dlogits, cache))
            loss_sum, correct = loss_sum + loss * len(batch), correct + (logits.argmax(1) == y[batch]).sum()
        yield {"epoch": epoch, "loss": float(loss_sum / n), "accuracy": float(correct / n)}


def require_system(A, B, C, dt, length, vectors):
    """B and C must be of the shape `vectors`, (H, M) or (H, N), A of one or two such, dt (H,); ValueError otherwise."""
    require_count("length", length)
    shapes = tuple(map(np.shape, (A, B, C, dt)))
    fits = len(vectors) == 2 and shapes[1:] == (vectors, vectors, vectors[:1]) and shapes[0][-1] == vectors[-1]
    require(
        fits,
        "shapes of A, B, C, dt",
        shapes,
        "(H, M), (H, M), (H, M), (H,), or of a dense A (H, N, N), (H, N), (H, N), (H,)",
    )


def require_count(name, value):
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(whole and value >= 1, name, value, "an integer of at least 1")


def require(condition, name, value, allowed):
    if not condition:
        raise ValueError(f"{name}={value!r}: must be {allowed}")
