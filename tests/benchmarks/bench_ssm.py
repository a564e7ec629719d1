"""State-space layers against the textbook, forward and backward, float32; the baselines as a competent reader of the papers writes them."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from saidl import models, ssm
from tests.benchmarks.harness import agree, compare, measure, peak_memory, with_gradients

H, N = 256, 64  # channels, states (32 conjugate pairs)


def full_tensor_kernel(A: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    """S4D's kernel as its paper's minimal code has it: every power of every mode, an (H, N, L) tensor, and a sum over modes."""
    z = dt.unsqueeze(-1) * A
    powers = torch.exp(z.unsqueeze(-1) * torch.arange(length, device=z.device))
    return 2 * torch.einsum("hn,hnl->hl", C * B * (torch.exp(z) - 1) / A, powers).real


def autograd_conv(u: Tensor, kernel: Tensor) -> Tensor:
    """Padded FFT convolution, differentiated by autograd."""
    n = 2 * u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(kernel, n=n), n=n)[..., : u.shape[-1]]


def s4d_system(layer: ssm.S4D) -> list[Tensor]:
    A = layer._A().to(torch.complex64)
    return [A, torch.ones_like(A), torch.view_as_complex(layer.C), torch.exp(layer.log_dt)]


def textbook_layer(u: Tensor, log_dt: Tensor, log_A_real: Tensor, A_imag: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The whole S4D layer from the same parameters, on u (B, H, L), the layout that suits it."""
    A = torch.complex(-torch.exp(log_A_real), A_imag)
    K = full_tensor_kernel(A, torch.ones_like(A), torch.view_as_complex(C), torch.exp(log_dt), u.shape[-1])
    return autograd_conv(u, K) + u * D.unsqueeze(-1)


def s4_system(length: int) -> tuple[list[Tensor], Tensor]:
    """Lambda, P, B, C, dt of an S4 layer, and C (I - Ab^length), which the Cauchy form trains in place of C."""
    layer = ssm.S4(H, N).requires_grad_(False)
    Lambda, (P, B, C) = layer._A().to(torch.complex64), (torch.view_as_complex(x) for x in (layer.P, layer.B, layer.C))
    Ab, _, row = layer.double()._discretised(1.0)
    rest = (row.unsqueeze(1) @ torch.linalg.matrix_power(Ab, length)).squeeze(1)
    return [Lambda, P, B, C, torch.exp(layer.log_dt).float()], ssm.kernels.complex_row(row - rest).to(C.dtype)


def kernel_rows(repeats: int, quick: bool) -> Iterator[dict]:
    inputs = s4d_system(ssm.S4D(H, N))
    for L, target in {1024: 15, 4096: 25, 16384: 40}.items():
        if quick and L > 4096:
            continue
        w = torch.randn(H, L)
        ours = with_gradients(lambda *x, L=L: ssm.diagonal_kernel(*x, L), inputs, w)
        full = with_gradients(lambda *x, L=L: full_tensor_kernel(*x, L), inputs, w)
        # phases of 1e5 rad in float32: the full tensor's dt gradient is off by 1e-4
        yield compare(
            f"diagonal kernel, full tensor, L {L}",
            ours,
            full,
            repeats=min(repeats, 3 if L > 4096 else 9),
            target=target,
            rtol=1e-3,
        )
    for L, target in {1024: 5, 4096: 20}.items():
        inputs, truncated = s4_system(L)
        theirs = [*inputs[:3], truncated, inputs[4]]
        w = torch.randn(H, L)
        ours = with_gradients(lambda *x, L=L: ssm.dplr_kernel(*x, L), inputs, w)
        cauchy = with_gradients(lambda *x, L=L: ssm.cauchy_kernel(*x, L, truncated=True), theirs, w)
        agree("S4 kernel", ours()[0], cauchy()[0], 1e-3)
        # the gradients are those of C and of C (I - Ab^L), so only the kernels are compared
        yield compare(f"S4 kernel, Cauchy form, L {L}", ours, cauchy, repeats=min(repeats, 5), target=target, rtol=None)


def convolution_rows(repeats: int, quick: bool) -> Iterator[dict]:
    u, K, w = torch.randn(16, H, 1024), torch.randn(H, 1024) / 32, torch.randn(16, H, 1024)
    ours, plain = (with_gradients(f, [u, K], w) for f in (ssm.fft_conv, autograd_conv))
    yield compare("fft_conv, plain autograd, B 16, L 1024", ours, plain, repeats=repeats, target=1.25)
    layer = ssm.S4D(H, N)
    names = ("log_dt", "log_A_real", "A_imag", "C", "D")
    parameters = [getattr(layer, name) for name in names]
    call = lambda u, *p: torch.func.functional_call(layer, dict(zip(names, p, strict=True)), (u,))  # noqa: E731
    ours = with_gradients(call, [u.mT.contiguous(), *parameters], w.mT.contiguous())
    theirs = with_gradients(textbook_layer, [u, *parameters], w)
    yield compare(
        "S4D layer, textbook layer, B 16, L 1024",
        ours,
        lambda: transposed(theirs()),
        repeats=repeats,
        target=5,
        rtol=1e-3,
    )


def transposed(results: tuple) -> list:
    """The textbook's (B, H, L) output and input gradient as (B, L, H) views."""
    y, du, *rest = results
    return [y.mT, du.mT, *rest]


def step_rows(repeats: int, quick: bool) -> Iterator[dict]:
    """One recurrent step against copying its state, the least traffic there can be: a ratio of 1/3 is three times the floor."""
    for B in (64,) if quick else (64, 256):
        layer = ssm.S4D(H, N).eval().requires_grad_(False)
        u, state = torch.randn(B, H), layer.initial_state(B)
        other = torch.empty_like(state.x)
        step, copy = lambda: layer.step(u, state)[0], lambda: other.copy_(state.x)  # noqa: B023
        yield compare(f"S4D step, a copy of its state, B {B}", step, copy, repeats=5 * repeats, target=1 / 3, rtol=None)


def run_kernel(kind: str, length: int) -> None:
    """Forward and backward once, for memory: everything is made here, so that a fresh process can do it."""
    with torch.random.fork_rng(devices=[]):
        layer = ssm.S4D(H, N) if kind != "s4" else ssm.S4(H, N)
    if kind == "full":
        full_tensor_kernel(*s4d_system(layer), length).sum().backward()
    else:
        layer.kernel(length).sum().backward()


def growth_rows(quick: bool) -> Iterator[dict]:
    """Time and peak memory of one kernel, forward and backward, against length; then of whole networks of equal size."""
    lengths = [256, 1024, 4096] if quick else [2**k for k in range(8, 17)]
    for kind in ("s4d", "s4", "full"):
        upto = [L for L in lengths if kind != "full" or (1024 if quick else 16384) >= L]
        calls = [partial(run_kernel, kind, L) for L in upto]
        for L, call, peak in zip(upto, calls, peak_memory(calls), strict=True):
            row = measure(f"{kind} kernel, L {L}", call, repeats=3, kind=f"{kind}-kernel", length=L, peak_mb=peak)
            yield row


def memory_row(rows: list[dict]) -> dict | None:
    """The full tensor's peak over ours at the largest length both have."""
    peaks = {kind: {r["length"]: r for r in rows if r.get("kind") == f"{kind}-kernel"} for kind in ("s4d", "full")}
    L = max(set(peaks["s4d"]) & set(peaks["full"]))
    ours, full = peaks["s4d"][L], peaks["full"][L]
    ratio = full["peak_mb"] / max(ours["peak_mb"], 1e-9)
    return {
        "name": f"diagonal kernel's peak memory, full tensor, L {L}",
        **{"ours_ms": ours["ours_ms"], "baseline_ms": full["ours_ms"], "ratio": ratio, "low": ratio, "high": ratio},
        **{"ours_mb": ours["peak_mb"], "baseline_mb": full["peak_mb"], "target": 10, "repeats": 1},
    }


def network_rows(quick: bool) -> Iterator[dict]:
    """One block of each kind in a network of about the same size, forward and backward on one sequence, against length."""
    options = {"d_model": 128, "n_layers": 2}
    for layer in models.LAYERS:
        width = options["d_model"] if layer in ("s4d", "s4") else models.matched_width(layer, options)
        net = models.SequenceClassifier(1, 10, width, 2, layer, dropout=0.0)
        for L in (256, 1024) if quick else (256, 1024, 4096, 16384):
            u = torch.randn(1, L, 1)
            call = lambda net=net, u=u: nn.functional.cross_entropy(net(u), torch.zeros(1, dtype=torch.long)).backward()  # noqa: E731
            yield measure(f"{layer} network, L {L}", call, repeats=3, kind=f"{layer}-network", length=L)


def rows(quick: bool = False) -> Iterator[dict]:
    repeats = 5 if quick else 9
    torch.manual_seed(0)
    yield from kernel_rows(repeats, quick)
    yield from convolution_rows(repeats, quick)
    yield from step_rows(repeats, quick)
    grown = []
    for row in growth_rows(quick):
        grown.append(row)
        yield row
    yield memory_row(grown)
    yield from network_rows(quick)
