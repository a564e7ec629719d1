"""What a sweep adds to its runs: trivial runs, timed whole, in this process, over worker processes and on Dask's workers."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

from saidl import experiments, results, sweep

PROMISED = 50.0  # ms a run
TOLD = {name: {"told": 0} for name in results.WHOLE} | {"test_accuracy": 0.5, "parameters": 7}


def trivial(run, store, **given):  # pickled by value from below, so that workers have it, too
    from saidl import sweep

    sweep.execute = lambda *_, **__: TOLD
    return sweep.make(run, store, **given)


def overhead(count: int, **options) -> tuple[float, float]:
    """Milliseconds a run: of making `count` trivial runs with workers already there, and of finding them all made."""
    runs = experiments.grid("smoke", seed=range(count + 4))
    seconds = []
    with tempfile.TemporaryDirectory() as store, contextlib.ExitStack() as stack:
        if options.get("n_jobs") != 1 and options:  # workers
            patched = mock.patch.object(sweep, "make", lambda *args, real=trivial, **given: real(*args, **given))
            stack.enter_context(patched)
        else:
            stack.enter_context(mock.patch.object(sweep, "execute", return_value=TOLD))
        for some in (runs[:4], runs, runs):
            began = time.perf_counter()
            sweep.run(some, store, progress=False, **options)
            seconds.append(time.perf_counter() - began)
    return seconds[1] * 1e3 / count, seconds[2] * 1e3 / count


def row(name: str, ms: float, count: int) -> dict:
    """Held against what was promised: the ratio says how many times over."""
    ratio = PROMISED / ms
    return {
        "name": f"sweep of {count} trivial runs, {name}, each", "ours_ms": ms, "baseline_ms": PROMISED, "ratio": ratio,
        "low": ratio, "high": ratio, "repeats": count, "target": 1.0, "runs_per_s": 1e3 / ms,
    }  # fmt: skip


def rows(quick: bool) -> Iterator[dict]:
    count = 100 if quick else 1000
    made, found = overhead(count)
    yield row("in this process", made, count)
    yield row("all made before", found, count)
    for jobs in (2,) if quick else (1, 2, 4):
        yield row(f"n_jobs={jobs}", overhead(count, n_jobs=jobs)[0], count)
    if quick:
        return
    with contextlib.suppress(ImportError):
        from distributed import Client, LocalCluster

        for workers in (1, 2):
            with (
                LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
            ):
                client.wait_for_workers(workers)
                ms = overhead(count, backend="dask", address=cluster.scheduler_address)[0]
                yield row(f"Dask, {workers} worker{'s' * (workers > 1)}", ms, count)
