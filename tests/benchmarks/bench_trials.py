"""What was tried for more speed, beside what is there: a ratio above 1 says that the trial is slower.

Names of what was not kept begin with "tried:".
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from saidl import results, ssm
from saidl.ssm import kernels
from tests.benchmarks.bench_core import made_up_images, our_epoch
from tests.benchmarks.harness import compare, with_gradients

B, H, N = 16, 256, 64  # batch, channels, states (32 conjugate pairs)
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"


def chunk_tables(Ab: Tensor, Bb: Tensor, C: Tensor, kernel: Tensor, T: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """What depends on the system alone, as the kernel does: not in the time."""
    lag = torch.arange(T).unsqueeze(-1) - torch.arange(T)
    toeplitz = torch.where(lag >= 0, kernel[:, lag.clamp_min(0)], 0).mT  # (H, in, out)
    powers = Ab.unsqueeze(1) ** torch.arange(T + 1).unsqueeze(-1)  # (H, T + 1, n)
    into = torch.view_as_real(powers[:, :T].flip(1) * Bb.unsqueeze(1)).flatten(-2)  # (H, T, 2n)
    out = torch.view_as_real((2 * C.unsqueeze(1) * powers[:, 1:]).conj_physical()).flatten(-2).mT  # (H, 2n, T)
    return toeplitz.to(dtype), into.to(dtype), out.to(dtype), powers[:, T].unsqueeze(1)


def chunked(u: Tensor, toeplitz: Tensor, into: Tensor, out: Tensor, decay: Tensor) -> Tensor:
    """The convolution from matrix products: Toeplitz within chunks of T, states passed from chunk to chunk; u (B, H, L)."""
    T = toeplitz.shape[-1]
    product = lambda a, b: (a.to(b.dtype) @ b).float()  # noqa: E731
    rows = u.unflatten(-1, (-1, T)).transpose(0, 1).flatten(1, 2)  # (H, B J, T)
    ends = torch.view_as_complex(product(rows, into).unflatten(-1, (-1, 2))).unflatten(1, (len(u), -1))  # (H, B, J, n)
    states, x = torch.zeros_like(ends), torch.zeros_like(ends[:, :, 0])
    for j in range(ends.shape[2] - 1):
        x = torch.addcmul(ends[:, :, j], decay, x)
        states[:, :, j + 1] = x
    y = product(rows, toeplitz) + product(torch.view_as_real(states).flatten(-2).flatten(1, 2), out)
    return y.unflatten(1, (len(u), -1)).transpose(0, 1).flatten(2)


def chunk_rows(repeats: int) -> Iterator[dict]:
    layer = ssm.S4D(H, N).requires_grad_(False)
    Ab, Bb, C = (x.to(torch.complex64) for x in layer._discretised(1.0))
    for L in (256, 1024, 4096):
        u, K = torch.randn(B * 1024 // max(L, 1024), H, L), layer.kernel(L)
        for T, dtype in ((32, torch.float32), (64, torch.float32), (64, torch.bfloat16), (128, torch.bfloat16)):
            tables = chunk_tables(Ab, Bb, C, K, T, dtype)
            yield compare(
                f"tried: chunks of {T}, {str(dtype)[6:]}, forward, L {L}",
                lambda u=u, K=K: kernels.conv(u, K),
                lambda u=u, tables=tables: chunked(u, *tables),
                repeats=repeats,
                rtol=1e-4 if dtype == torch.float32 else 5e-2,
            )


def columns_conv(u: Tensor, kernel: Tensor) -> Tensor:
    """u (B, L, H) transformed along its middle, so that nothing is transposed."""
    L, n = u.shape[1], kernels.fft_size(2 * u.shape[1])
    Kf, pad, y = torch.fft.rfft(kernel, n=n).mT, torch.zeros(n, H), torch.empty_like(u)
    for u_b, y_b in zip(u, y, strict=True):
        pad[:L] = u_b
        y_b.copy_(torch.fft.irfft(torch.fft.rfft(pad, dim=0).mul_(Kf), n=n, dim=0)[:L])
    return y


def convolution_row(repeats: int) -> dict:
    u, K = torch.randn(B, 1024, H), torch.randn(H, 1024) / 32
    name = "tried: transforms along the columns, no transpose, forward"
    return compare(name, lambda: kernels.conv(u.mT, K).mT, lambda: columns_conv(u, K), repeats=repeats)


def cache_rows(repeats: int) -> Iterator[dict]:
    """Without gradients the kernel is kept between calls: against making it anew in each."""
    layer = ssm.S4D(H, N).eval().requires_grad_(False)
    for batch in (1, 16):
        u = torch.randn(batch, 1024, H)
        yield compare(
            f"S4D layer without gradients, no kernel kept, B {batch}, L 1024",
            lambda u=u: layer(u),
            lambda u=u: kernels.conv(u.mT, layer._kernel_and_skip(u.shape[1], 1.0)).mT,
            repeats=repeats,
        )


def compile_row(repeats: int) -> dict:
    """GELU, linear, GLU behind a layer."""
    mix, u, w = torch.nn.Linear(H, 2 * H), torch.randn(B, 1024, H), torch.randn(B, 1024, H)
    chain = lambda u, *_: F.glu(mix(F.gelu(u)), dim=-1)  # noqa: E731
    ours, theirs = (with_gradients(f, [u], w) for f in (chain, torch.compile(chain)))
    return compare("tried: torch.compile of GELU, linear, GLU", ours, theirs, repeats=repeats)


def epoch_ms() -> float:
    """CPU time of an epoch, the second of a fresh process."""
    epoch = our_epoch(*made_up_images(640))
    epoch()
    start = time.process_time()
    epoch()
    return (time.process_time() - start) * 1e3


def malloc_row(repeats: int) -> dict:
    """Memory kept by the allocator, in huge pages: environment variables, so each in processes of its own."""

    def child(environment: dict) -> float:
        words = [sys.executable, "-c", "from tests.benchmarks import bench_trials; print(bench_trials.epoch_ms())"]
        environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | environment
        run = subprocess.run(words, env=environment, cwd=results.project(), check=True, capture_output=True, text=True)
        return float(run.stdout.split()[-1])

    pairs = [(child({}), child({"GLIBC_TUNABLES": MALLOC})) for _ in range(repeats)]
    ratios, (ours, theirs) = sorted(b / a for a, b in pairs), (sorted(x) for x in zip(*pairs, strict=True))
    middle = repeats // 2
    return {
        "name": "tried: GLIBC_TUNABLES, CNN8 epoch of 640 images", "ours_ms": ours[middle], "baseline_ms": theirs[middle],
        "ratio": ratios[middle], "low": ratios[0], "high": ratios[-1], "repeats": repeats, "clock": "CPU time",
    }  # fmt: skip


def rows(quick: bool = False) -> Iterator[dict]:
    repeats = 5 if quick else 9
    torch.manual_seed(0)
    with torch.no_grad():
        yield from chunk_rows(repeats)
        yield from cache_rows(repeats)
    yield convolution_row(repeats)
    if sys.platform == "linux":
        yield malloc_row(3)
    if not quick:
        yield compile_row(repeats)
