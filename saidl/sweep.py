"""Run a grid: skip what is there, record what failed, lose nothing.

Runs are spread by joblib: over processes on this machine, or over whatever backend the caller has registered (Dask, Ray). Each run computes
on one CPU thread, so that its bits do not depend on how many run beside it.
"""

import contextlib
import os
import platform
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tqdm.auto import tqdm

from saidl import results
from saidl.experiments import Run


def run(runs: Sequence[Run], store, n_jobs: int = 1, progress: bool = True):
    """Make every run that the store does not hold yet, and return all of them.

    Arguments: runs; store, a folder; n_jobs, processes at once (-1: one a core); a joblib backend registered by the caller is used as it is.
    Returns: DataFrame as `results.load`, one row a run in the order given.
    Raises OSError for a store that cannot be written, before any work; RuntimeError at the end when runs failed, naming them: their
    errors are recorded, the others are done, and calling again tries the failed ones once more.
    """
    from joblib import Parallel, delayed

    store = Path(store)
    check_writable(store)
    runs = list(runs)
    todo = [r for r in runs if not present(r, store)]
    if todo:
        tasks = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)(delayed(make)(r, str(store)) for r in todo)
        for _ in tqdm(tasks, total=len(todo), desc=f"{todo[0].profile} runs", disable=not progress or len(todo) < 2):
            pass
    table = results.load(store).set_index("id").reindex([r.id for r in runs]).reset_index()
    failed = table[table.status != "done"]
    if len(failed):
        lines = "; ".join(f"{r.id} ({r.loss}, {r.noise} {r.rate}): {r.error}" for r in failed.itertuples())
        raise RuntimeError(f"{len(failed)} of {len(runs)} runs failed: {lines}")
    return table


def present(run: Run, store: Path) -> bool:
    path = store / f"{run.id}.json"
    if not path.exists():
        return False
    try:
        return results.read(path)["status"] == "done"
    except ValueError:
        results.set_aside(path)
        return False


def make(run: Run, store: str) -> str:
    """Do one run and record it, or its error; returns the id. This is what a worker executes."""
    import torch

    if present(run, Path(store)):  # another process was faster
        return run.id
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    told = {"versions": versions(), "device": device_name()}
    base = {"schema": results.SCHEMA, "id": run.id, "run": run.to_dict()} | told
    checkpoint = Path(store) / "checkpoints" / f"{run.id}.{os.getpid()}.pt"
    adopt(checkpoint, run)
    began = time.perf_counter()
    try:
        record = base | {"status": "done"} | execute(run, checkpoint)
    except Exception as error:
        record = base | {"status": "failed", "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    finally:
        torch.set_num_threads(threads)
    record["seconds"] = time.perf_counter() - began
    results.write(record, store)
    with contextlib.suppress(OSError):
        checkpoint.unlink(missing_ok=True)
        checkpoint.parent.rmdir()
    return run.id


def execute(run: Run, checkpoint=None, progress: bool | str = False) -> dict:
    """Data, noise, network, training: what a record holds beyond its run."""
    import torch

    from saidl import data, losses, models, noise, training

    train, test = data.load(run.dataset, train_size=run.train_size)
    human = {"indices": train.index} if run.noise in noise.HUMAN else {}
    noisy = noise.corrupt(
        train.labels, run.noise, run.rate, num_classes=len(train.classes), seed=run.noise_seed, exact=run.exact, images=train.images,
        dataset=run.dataset if run.noise.startswith("asymmetric") else None, matrix=run.transition, **human,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        options = dict(run.model_options)
        if run.model in models.LAYERS:
            options = {"d_input": sequence_channels(train, run.settings.view), "num_classes": len(train.classes)} | options
        model = models.make(run.model, **options)
    loss = losses.make(run.loss, len(train.classes), **dict(run.loss_options))
    if checkpoint:
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
    history = training.fit(
        model, train.with_labels(noisy.labels), test, loss, run.settings, seed=run.seed,
        clean_labels=train.labels if noisy.rate else None, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    best = history.best_epoch
    record = asdict(history)
    return {
        "history": {k: v for k, v in record.items() if k != "confusion"},
        "confusion": record["confusion"],
        "test_accuracy": history.test_accuracy[-1],
        "best_epoch": best,
        "best_accuracy": None if best is None else history.test_accuracy[best],
        "noise": {"rate": noisy.rate, "nominal": noisy.nominal.tolist(), "realised": noisy.realised.tolist()},
        "data": {"name": train.name, "train": len(train), "test": len(test), "classes": list(train.classes),
                 "fingerprint": {"train": train.fingerprint, "test": test.fingerprint}},
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- helpers


def sequence_channels(train, view: str) -> int:
    return 1 if view == "sequence-gray" else train.images.shape[1]


def adopt(checkpoint: Path, run: Run) -> None:
    """Take over the newest checkpoint a killed process left for this run."""
    if not checkpoint.parent.is_dir():
        return
    left = [p for p in checkpoint.parent.glob(f"{run.id}.*.pt") if not alive(int(p.name.split(".")[1]))]
    for path in sorted(left, key=lambda p: p.stat().st_mtime):
        with contextlib.suppress(OSError):
            path.replace(checkpoint)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def cores(profile: str = "quick") -> int:
    """How many runs at once suit a profile here: one a core; one in all for smoke, whose runs are shorter than a process takes to start."""
    return 1 if profile == "smoke" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_writable(store: Path) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        probe = store / f".probe.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise type(error)(error.errno, f"the store {store} cannot be written: {error.strerror}") from None


def versions() -> dict:
    found = {"python": platform.python_version()}
    for name in ("saidl", "torch", "torchvision", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def device_name() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    from saidl.training import multiplies_bfloat16

    units = "with bf16 matrix units" if multiplies_bfloat16(torch.device("cpu")) else "without bf16 matrix units"
    return f"{platform.machine()} CPU {units}"
