"""Run a grid: skip what is there, record what failed, lose nothing.

Runs are spread by joblib: over processes on this machine, or over the backend that the caller names or has registered
(Dask, Ray). Each run computes on one CPU thread, so that its bits do not depend on how many run beside it. Any number
of sweeps may share a store, from several machines too: a run's lock (`results.lock`) keeps them apart, and tells what
a process that was killed was doing.
"""

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tqdm.auto import tqdm

from saidl import data, losses, models, noise, results, training
from saidl.checks import between, one_of, whole
from saidl.experiments import Run, check_shown, checked_noise

# A process does one run at a time: torch's thread count and random state are the process's, not a thread's.
ONE_RUN = threading.Lock()


def run(
    runs: Sequence[Run], store, n_jobs: int | None = None, progress: bool = True,
    backend: str | None = None, address: str | None = None,
):  # fmt: skip
    """Make every run that the store does not hold yet, and return all of them.

    Arguments: runs; store, a folder (on a cluster: one that every worker sees); n_jobs, processes at once (-1: one a
        core; None: one, or what the caller's joblib.parallel_config says; a cluster uses all it has); backend, "dask",
        "ray" or one of joblib's; address, the scheduler of the former two ("tcp://host:8786"; None: a cluster on this
        machine). Dask's workers suit best with --nthreads 1. To give each run a GPU of its own, set up the engine: dask-cuda's
        workers, or joblib.parallel_config around this call, naming Dask's `resources` or Ray's `ray_remote_args`.
    Returns: DataFrame as `results.load`, one row a run in the order given.
    Raises ValueError for runs, a number of jobs or a backend that cannot be and OSError for a store that cannot be written, before any
    work; RuntimeError at the end when runs failed, naming them: their errors are recorded, the others are done, and
    calling again tries the failed ones once more.
    """
    if isinstance(runs, Run) or not isinstance(runs, Iterable):
        raise ValueError(f"runs must be a list of experiments.Run, not {runs!r}")
    if not isinstance(store, str | os.PathLike):
        raise ValueError(f"store must be a folder, not {store!r}")
    if n_jobs not in (None, -1):
        whole("n_jobs", n_jobs, 1)
    runs, store = list(runs), Path(store).expanduser().absolute()
    check_runs(runs)
    todo = [r for r in {r.id: r for r in runs}.values() if not present(r, store)]
    if todo:
        check_writable(store)
        title, alone = f"{todo[0].profile} runs", len(todo) == 1
        bar = tqdm(total=len(todo), desc=title, disable=not progress or alone)
        with engine(backend, address), bar:
            # left to the sweep that is at them, then waited for
            others = spread(todo, store, n_jobs, bar, epochs=progress and alone)
            spread(others, store, n_jobs, bar, wait=True)
    with contextlib.suppress(OSError):  # a store that can only be read keeps what the dead have left in it
        for r in runs:
            results.orphaned(store / f"{r.id}.json")
    table = results.load(store).set_index("id").reindex([r.id for r in runs]).reset_index()
    errors = table.error.where(table.status.notna(), "no record of it; do all workers see this folder?")
    lines = [f"{r.id} ({r.loss}, {r.noise} {r.rate}): {error}"
             for r, error, status in zip(runs, errors, table.status, strict=True) if status != "done"]  # fmt: skip
    if lines:
        raise RuntimeError(f"{len(lines)} of {len(runs)} runs failed:\n  " + "\n  ".join(lines))
    return table


def present(run: Run, store: Path) -> bool:
    path = store / f"{run.id}.json"
    try:
        return results.read(path)["status"] == "done"
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError as error:
        warnings.warn(f"set aside, to be run again: {error}", stacklevel=3)
        results.set_aside(path)
        return False


def spread(
    todo: list[Run], store: Path, n_jobs: int | None, bar, wait: bool = False, epochs: bool = False
) -> list[Run]:
    """Make the runs, `epochs` with a bar over those of each; returns the runs that another process is at.

    When a worker dies, the runs it was doing are made again one by one, each in a process of its own: so the one that
    kills its process is known and recorded, and the others get done.
    """
    busy, seen = [], set()
    while todo:
        try:
            with contextlib.closing(parallel(todo, store, n_jobs, wait, epochs)) as tasks:
                for id, ours in tasks:
                    seen.add(id)
                    busy += [] if ours else [r for r in todo if r.id == id]
                    bar.update(ours)
            return busy
        except OSError:
            raise
        except Exception:  # the engine's: a run's own errors are in its record
            dead = died([r for r in todo if r.id not in seen], store)
            if not dead:
                raise
        for r in dead:
            busy += [] if alone(r, store) else [r]
            bar.update()
        todo = [r for r in todo if r.id not in seen and r not in dead]
    return busy


def died(runs: list[Run], store: Path, patience: float = 2.0) -> list[Run]:
    """The runs at which a process died. An engine may know of a death before the system has let go of all its locks."""
    until = time.monotonic() + patience
    while not (dead := [r for r in runs if results.orphaned(store / f"{r.id}.json")]) and time.monotonic() < until:
        time.sleep(0.05)
    return dead


def alone(run: Run, store: Path) -> bool:
    """Make one run in a process of its own, and record it if that dies too; returns whether it is dealt with."""
    try:
        return all(ours for _, ours in parallel([run], store, n_jobs=2))  # two, as one job would be this very process
    except OSError:
        raise
    except Exception as error:
        path, what = store / f"{run.id}.json", f"{type(error).__name__}: {' '.join(str(error).split())}"
        record = failure(run, f"its process died, also with no other beside it; out of memory? ({what})")
        with results.lock(path, wait=True):
            results.write(record, store)
            results.clear(path)
        return True


def parallel(
    runs: list[Run], store: Path, n_jobs: int | None, wait: bool = False, epochs: bool = False
) -> Iterator[tuple[str, bool]]:
    """`make` for every run, on joblib's backend, in the order they are done.

    Where that is Dask or Ray, they are asked themselves: through joblib (1.6) a task whose workers died is waited for in
    vain, and a cluster of one worker gets nothing to do.
    """
    from joblib.parallel import Parallel, delayed, get_active_backend

    engine, _ = get_active_backend()
    given = {"store": str(store), "wait": wait, "epochs": epochs}
    if hasattr(engine, "client"):
        from distributed import as_completed

        tasks = engine.client.map(make, runs, **given, pure=False, **engine.submit_kwargs)
        for task in as_completed(tasks, loop=engine.client.loop):
            yield task.result()
    elif hasattr(engine, "ray_remote_args"):
        import ray

        remote = ray.remote(make).options(**engine.ray_remote_args or {})
        left = [remote.remote(r, **given) for r in runs]
        try:
            while left:
                (task, *_), left = ray.wait(left)
                yield ray.get(task)
        finally:
            for task in left:
                ray.cancel(task)
    else:
        pool = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
        here = {k: v for k, v in os.environ.items() if k.startswith("SAIDL_")}, Path.cwd()
        yield from pool(delayed(as_here)(*here, make, r, **given) for r in runs)


def as_here(environment: dict[str, str], folder: Path, task, *args, **given):
    """task(*args, **given), finding the data where the caller would: joblib's processes live on from one sweep to the next, with the
    environment and the folder of when they began."""
    for name in [name for name in os.environ if name.startswith("SAIDL_")]:
        del os.environ[name]
    os.environ.update(environment)
    with contextlib.suppress(OSError):  # another machine, on a backend that is none of ours
        os.chdir(folder)
    return task(*args, **given)


def make(run: Run, store: str, wait: bool = False, epochs: bool = False) -> tuple[str, bool]:
    """Do one run and record it, or its error; this is what a worker executes.

    Returns: its id, and whether it is dealt with: not when another process is at it and we do not wait. After waiting,
    what that process has recorded stands, be it a failure.
    """
    path = Path(store) / f"{run.id}.json"
    with ONE_RUN, results.lock(path, wait) as ours:
        if ours:
            if not (results.done(path) or (wait and path.exists())):
                results.write(attempt(run, path.with_name(f".{run.id}.pt"), epochs), store)
            results.clear(path)  # also when another has done the run, and died before it came to this
    return run.id, ours


def attempt(run: Run, checkpoint: Path, epochs: bool = False) -> dict:
    """One run -> its record, done or failed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        record = (
            described(run)
            | {"status": "done"}
            | execute(run, checkpoint, progress=epochs and f"{run.loss} {run.model}")
        )
        if not 0 <= record["test_accuracy"] <= 1:
            raise ValueError(f"its test accuracy is {record['test_accuracy']}")
    except Exception as error:
        record = failure(run, f"{type(error).__name__}: {error}") | {"traceback": traceback.format_exc()}
    finally:
        torch.set_num_threads(threads)
    trained = sum(record.get("history", {}).get("seconds", []))  # by every process that had a part in it
    return record | {"seconds": max(time.perf_counter() - began, trained)}


def described(run: Run) -> dict:
    return {
        "schema": results.SCHEMA, "id": run.id, "run": run.to_dict(), "versions": versions(), "device": device_name(),
        "precision": training.chosen_precision(run.settings, torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "threads": torch.get_num_threads(),  # another number sums in another order
    }  # fmt: skip


def failure(run: Run, error: str) -> dict:
    return described(run) | {"status": "failed", "error": error}


def execute(run: Run, checkpoint=None, progress: bool | str = False) -> dict:
    """Data, noise, network, training: what a record holds beyond its run."""
    train, test = data.load(run.dataset, train_size=run.train_size)
    noisy = noise.corrupt(  # which looks only at what a kind of noise needs
        train.labels, run.noise, run.rate, num_classes=len(train.classes), seed=run.noise_seed, exact=run.exact,
        dataset=run.dataset, images=train.images, indices=train.index, matrix=run.transition,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        channels = 1 if run.settings.view == "sequence-gray" else train.images.shape[1]
        model = network(run.model, run.model_options, channels, len(train.classes))
    loss = losses.make(run.loss, len(train.classes), **dict(run.loss_options))
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


# ------------------------------------------------------------------------------------------------------------ helpers


@contextlib.contextmanager
def engine(backend: str | None, address: str | None) -> Iterator[None]:
    """joblib set to a backend by name; Dask and Ray are connected first."""
    from joblib import parallel_config

    if address and backend not in ("dask", "ray"):
        raise ValueError(f"address is for the backends dask and ray, not {backend!r}")
    with contextlib.ExitStack() as stack:
        options = {}
        if backend == "dask":
            from distributed import Client

            options = {"client": stack.enter_context(Client(address))}
        elif backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            register_ray()
            if not ray.is_initialized():
                ray.init(address=address)
                stack.callback(ray.shutdown)
        if backend:
            stack.enter_context(parallel_config(backend, n_jobs=-1, **options))
        yield


def check_runs(runs: list[Run]) -> None:
    """Raises ValueError for what cannot be run, or not be told from its record: an unknown name, a NaN rate, options that cannot be."""
    for run in runs:
        if not isinstance(run, Run):
            raise ValueError(f"runs must be experiments.Run, as experiments.grid makes them, not {run!r}")
        one_of("dataset", run.dataset, data.NAMES)  # a folder's content would not be part of the id
        for name in ("seed", "noise_seed"):
            between(name, whole(name, getattr(run, name)), 0, 2**63 - 1)
        if run.train_size is not None:
            whole("train_size", run.train_size, 1)
        losses.resolve(run.loss)
        if run.transition is None:
            checked_noise(run.noise, run.rate, run.dataset)
            noise.check_exact(run.exact, run.noise)
        else:
            noise.checked_matrix(run.transition)
        if run.rate is not None:
            between("rate", run.rate, 0, 1)
        check_shown(run.model, run.settings.view, run.task)
        try:
            same = Run.from_dict(json.loads(json.dumps(run.to_dict(), allow_nan=False))).id == run.id
        except (TypeError, ValueError) as error:
            raise ValueError(f"{run} cannot be recorded: {error}") from error
        if not same:
            raise ValueError(f"{run} would not be read back as it is")
        losses.make(run.loss, **dict(run.loss_options))
    with torch.random.fork_rng(devices=[]):
        for name, options in {(run.model, run.model_options) for run in runs}:
            network(name, options, 1, 10)


def network(name: str, options, channels: int, classes: int):
    """A run's network for data of so many classes and, if they are sequences, channels, unless its options say otherwise."""
    known = {"num_classes": classes} | ({"d_input": channels} if name in models.LAYERS else {})
    return models.make(name, **known | dict(options))


def cores(profile: str = "quick") -> int:
    """How many runs at once suit a profile here: one a core; on a GPU two, of which one trains while the other loads or evaluates;
    one in all for smoke, shorter than a process's start."""
    if profile == "smoke":
        return 1
    if torch.cuda.is_available():
        return 2
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_writable(store: Path) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store) as probe:
            probe.write(bytes(1 << 16))
            probe.flush()
    except OSError as error:
        raise type(error)(error.errno, f"the store {store} cannot be written: {error.strerror}") from None


@cache
def versions() -> dict:
    """Of what a result was made with; "code" is a hash of this package's own modules."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    found = {"code": hashlib.sha256(code).hexdigest()[:8], "python": platform.python_version()}
    for name in ("saidl", "torch", "torchvision", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    bf16 = "with" if training.multiplies_bfloat16(torch.device("cpu")) else "without"
    return f"{platform.machine()} CPU {bf16} bf16 arithmetic"
