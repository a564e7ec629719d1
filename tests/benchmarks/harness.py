"""Speed as ratios: two ways of computing the same thing, checked to agree, then timed in turn in one process.

A row is a dict: name, ours_ms and baseline_ms (medians), ratio (median over the pairs) with its quartiles low and high, and
what else the benchmark adds. One machine's milliseconds mean little elsewhere; ratios travel better.
"""

import ctypes
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor


def compare(
    name: str,
    ours: Callable,
    baseline: Callable,
    *,
    repeats: int = 9,
    target: float | None = None,
    rtol: float | None = 1e-4,
    **facts,
) -> dict:
    """Time `ours` against `baseline`, each a call without arguments that returns a tensor or a tuple of tensors.

    They must agree to `rtol` of the largest value (None: not compared), else AssertionError; then they run in turn,
    `repeats` times after a warm-up. `target` is the ratio promised, `facts` go into the row.
    """
    if rtol is not None:
        agree(name, ours(), baseline(), rtol)
    ours(), baseline()
    pairs = [(timed(ours), timed(baseline)) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in pairs)
    low, _, high = statistics.quantiles(ratios, n=4) if repeats > 1 else ratios * 3
    times = {
        key: statistics.median(column) * 1e3
        for key, column in zip(("ours_ms", "baseline_ms"), zip(*pairs, strict=True), strict=True)
    }
    row = {"name": name, **times, "ratio": statistics.median(ratios), "low": low, "high": high, "repeats": repeats}
    return row | ({} if target is None else {"target": target}) | facts


def measure(name: str, call: Callable, *, repeats: int = 5, **facts) -> dict:
    """Time one call, without a baseline: for growth with size."""
    call()
    times = sorted(timed(call) * 1e3 for _ in range(repeats))
    return {
        "name": name,
        "ours_ms": statistics.median(times),
        "low_ms": times[0],
        "high_ms": times[-1],
        "repeats": repeats,
        **facts,
    }


def timed(call: Callable) -> float:
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def agree(name: str, ours, theirs, rtol: float) -> None:
    for a, b in zip(*(x if isinstance(x, tuple | list) else (x,) for x in (ours, theirs)), strict=True):
        error, scale = (a.double() - b.double()).abs().max().item(), b.abs().max().item()
        assert error <= rtol * scale, f"{name}: the two differ by {error:.2e} of {scale:.2e}"


def with_gradients(function: Callable[..., Tensor], inputs: Iterable[Tensor], weights: Tensor) -> Callable:
    """A call that runs `function(*inputs)` and the backward pass of sum(weights * output): (output, gradients...)."""
    inputs = [x.detach().requires_grad_() for x in inputs]

    def call():
        y = function(*inputs)
        return (
            y.detach(),
            *(
                torch.view_as_real(g.resolve_conj()) if g.is_complex() else g
                for g in torch.autograd.grad(y, inputs, weights)
            ),
        )

    return call


def peak_memory(calls: list[Callable]) -> list[float]:
    """MiB each call needs beyond what the process held before, in a fresh process; NaN where there is no /proc (not Linux)."""
    if not Path("/proc/self/clear_refs").exists():
        return [float("nan")] * len(calls)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peaks, (calls, torch.get_num_threads()))


def _peaks(calls: list[Callable], threads: int) -> list[float]:
    torch.set_num_threads(threads)
    trim = ctypes.CDLL(
        None
    ).malloc_trim  # gives freed memory back, so that a call cannot hide in what the last one left
    calls[0]()  # libraries load, thread pools start
    peaks = []
    for call in calls:
        trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = resident("VmRSS")
        call()
        peaks.append(resident("VmHWM") - before)
    return peaks


def resident(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def machine() -> dict:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(rows: list[dict], about: dict | None = None) -> str:
    """One line a row, in plain text, below a line that names the machine."""
    about = about or machine()
    where = f"{about['cpu']}, {about['threads']} threads, load {about['load'] or 0:.1f}, torch {about['torch']}"
    lines = [where, f"{'':56s} {'ours ms':>10s} {'baseline ms':>12s} {'ratio':>7s}  quartiles      target"]
    for row in rows:
        line = f"{row['name'][:56]:56s} {row['ours_ms']:10.3f}"
        if "ratio" in row:
            line += f" {row['baseline_ms']:12.3f} {row['ratio']:7.2f}  {row['low']:5.2f} - {row['high']:5.2f}"
            line += (
                f"  {row['target']:6.2f} {'met' if row['ratio'] >= row['target'] else 'MISSED'}"
                if "target" in row
                else ""
            )
        elif "peak_mb" in row:
            line += f"   peak {row['peak_mb']:8.1f} MiB"
        lines.append(line + facts(row))
    return "\n".join(lines)


def facts(row: dict) -> str:
    """What a row says beyond its times, as text."""
    units = {"tflops": "Tflop/s", "images_per_s": "images/s", "steps_per_s": "steps/s", "gb_per_s": "GB/s"}
    told = [f"{row[name]:,.0f} {unit}" for name, unit in units.items() if name in row]
    told += [f"{row['matrix_share']:.1%} of the matrix rate"] if "matrix_share" in row else []
    told += [f"{kind} {share:.0%}" for kind, share in row.get("of_time", {}).items()]
    return "  " + ", ".join(told) if told else ""


def save(rows: list[dict], path) -> None:
    Path(path).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def load(path) -> dict:
    return json.loads(Path(path).read_text())


def difference(old: dict, new: dict) -> str:
    """Two saved runs side by side: how each row's ratio (or, without a baseline, its time) moved."""
    before = {row["name"]: row for row in old["rows"]}
    lines = [f"{'':56s} {'old':>9s} {'new':>9s} {'new/old':>8s}"]
    for row in new["rows"]:
        if (was := before.get(row["name"])) is None:
            lines.append(f"{row['name'][:56]:56s} {'new row':>9s}")
            continue
        key = "ratio" if "ratio" in row and "ratio" in was else "ours_ms"
        a, b = was[key], row[key]
        lines.append(f"{row['name'][:56]:56s} {a:9.3f} {b:9.3f} {b / a:8.2f}  {'ratio' if key == 'ratio' else 'ms'}")
    return "\n".join(lines)
