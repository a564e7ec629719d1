"""Training on a GPU against the loops and layers most code has; no rows where there is no GPU.

Beside each ratio: images or steps a second, the share of the GPU's measured rate of matrix products, and by kind of kernel where the
time goes.
"""

import os

os.environ |= {
    "TEARDOWN_CUPTI": "0",
    "DISABLE_CUPTI_LAZY_REINIT": "1",
} | os.environ  # else the profiler may crash on recordings

from collections.abc import Iterator
from unittest import mock

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from saidl import data, experiments, losses, models, ssm, training
from saidl.ssm import layers
from tests.benchmarks.bench_core import made_up_images, our_epoch, plain_epoch, times
from tests.benchmarks.bench_ssm import autograd_conv, full_tensor_kernel
from tests.benchmarks.harness import compare, measure

KINDS = {  # what names of kernels tell
    "fft": ("fft",),
    "matrix": ("gemm", "cutlass", "nvjet", "xmma", "fprop", "wgrad", "dgrad"),
    "norm": ("layer_norm", "batch_norm", "batchnorm", "bn_"),
}


def matrix_rate(device: str, size: int = 8192) -> dict:
    """The bf16 matrix product, to hold the rest against."""
    a = torch.randn(size, size, device=device).bfloat16()
    row = measure(f"20 matrix products {size}, bfloat16, on the {device}", times(lambda: a @ a, 20))
    return row | {"tflops": 20 * 2 * size**3 / row["ours_ms"] / 1e9}


def flops(net: nn.Module, x: torch.Tensor) -> float:
    """Floating-point operations of a training step, forward and backward, in matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    return float(counter.get_total_flops())


def image_rows(device: str, rate: dict, count: int, repeats: int) -> Iterator[dict]:
    images, labels = made_up_images(count)
    ours = our_epoch(images, labels, device)
    work = flops(models.make("cnn8"), torch.zeros(2, 3, 32, 32)) / 2 * count
    title = f"CNN8 epoch of {count} images on the {device}"

    def told(row: dict) -> dict:
        seconds = row["ours_ms"] / 1e3
        share = work / seconds / 1e12 / rate["tflops"]
        return row | {"images_per_s": count / seconds, "matrix_share": share, "of_time": of_time(ours, device)}

    plain = plain_epoch(images, labels, device, workers=min(8, os.cpu_count() or 1))
    yield told(compare(f"{title}, plain loop", ours, plain, repeats=repeats, target=20, rtol=None))
    with mock.patch.dict(os.environ, SAIDL_CUDA_GRAPH="0"):
        unreplayed = our_epoch(images, labels, device)
    yield compare(f"{title}, not replayed", ours, unreplayed, repeats=repeats, rtol=None)


class ReferenceS4D(ssm.S4D):
    """The same layer in the reference's style: the kernel as a full tensor, the convolution differentiated by autograd, float32."""

    @layers._exactly
    def _convolve(self, u, rate):
        A = self._A().to(torch.complex64)
        C = torch.view_as_complex(self.C)
        K = full_tensor_kernel(A, torch.ones_like(A), C, torch.exp(self.log_dt), u.shape[1])
        u = u.mT.float()
        return (autograd_conv(u, K) + u * self.D.unsqueeze(-1)).mT


def sequence_epoch(device: str, count: int, length: int, options: dict, **changes):
    """An epoch of S4D on colour images shown pixel by pixel, at the paper profile's settings."""
    images, labels = made_up_images(count)
    side = int(length**0.5)
    pixels = torch.from_numpy(images[:, :side, :side].transpose(0, 3, 1, 2).copy())
    part = data.Images(pixels, torch.from_numpy(labels), tuple("0123456789"), "bench")
    settings = experiments.replace(experiments.recipe("paper", "scifar")[4], valid_fraction=0.0, **changes)
    torch.manual_seed(0)
    net = models.make("s4d", d_input=3, num_classes=10, init="lin", **options)
    return training.Fit(net, part, part, losses.make("ce"), settings, 0, None, torch.device(device)).train_epoch


def sequence_rows(device: str, rate: dict, count: int, length: int, options: dict, repeats: int) -> Iterator[dict]:
    ours = sequence_epoch(device, count, length, options)
    with mock.patch.object(ssm, "S4D", ReferenceS4D), mock.patch.dict(os.environ, SAIDL_CUDA_GRAPH="0"):
        theirs = sequence_epoch(device, count, length, options, precision="float32")
    title = f"S4D {options['n_layers']} x {options['d_model']}, {count} sequences of {length}, on the {device}"
    row = compare(f"{title}, reference's style", ours, theirs, repeats=repeats, target=3, rtol=None)
    steps = -(-count // experiments.S4D.batch_size)
    yield row | {"steps_per_s": steps / row["ours_ms"] * 1e3, "of_time": of_time(ours, device)}
    yield bandwidth_row(device, 64, options["d_model"], length)


def bandwidth_row(device: str, B: int, H: int, L: int) -> dict:
    """fft_conv, forward and backward, against copying as many bytes as it must move at least: u and the gradient read, u read again,
    the output and u's gradient written."""
    u = torch.randn(B, H, L, device=device, requires_grad=True)
    K, g = torch.randn(H, L, device=device, requires_grad=True), torch.randn(B, H, L, device=device)
    least = torch.empty(5, B, H, L // 2, device=device)  # read and written: twice its size
    other = torch.empty_like(least)
    both = lambda: torch.autograd.grad(ssm.fft_conv(u, K), (u, K), g)  # noqa: E731
    name = f"fft_conv on the {device}, a copy of what it must move, B {B}, H {H}, L {L}"
    row = compare(name, times(both, 20), times(lambda: other.copy_(least), 20), rtol=None)
    return row | {"gb_per_s": 20 * 2 * least.numel() * 4 / row["ours_ms"] / 1e6}


def of_time(call, device: str) -> dict:
    """Shares of the kernels' time by kind; empty where there is no GPU to ask."""
    if device != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    shares = dict.fromkeys((*KINDS, "pointwise and other"), 0.0)
    for event in seen.key_averages():
        kind = next(
            (k for k, parts in KINDS.items() if any(p in event.key.lower() for p in parts)), "pointwise and other"
        )
        kernel = event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
        shares[kind] += event.self_device_time_total if kernel else 0.0
    total = sum(shares.values()) or 1.0
    return {kind: value / total for kind, value in shares.items()}


def rows(quick: bool = False) -> Iterator[dict]:
    if not torch.cuda.is_available():
        print("no GPU: the rows about training on one are left out")
        return
    rate = matrix_rate("cuda")
    yield rate
    count = 12_800 if quick else 50_000
    yield from image_rows("cuda", rate, count, repeats=3)
    yield from sequence_rows("cuda", rate, count // 10, 1024, experiments.SSM, repeats=3)
