"""Sweeps on a cluster: Dask's scheduler and workers as processes of their own, talking over TCP on this machine; Ray where it is
installed. Workers die on the way; the results are those of a sweep in this process, bit for bit."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest

from saidl import cli, experiments, results, sweep

ROOT = Path(__file__).parents[1]
ONCE, ALWAYS = 98, 99  # the seeds of runs that kill their process
DEADLY = f"""
import os, pathlib, signal

def dask_setup(worker):
    from saidl import sweep
    real, mark = sweep.execute, pathlib.Path(os.environ["SAIDL_TEST_MARK"])

    def execute(run, checkpoint=None, **given):
        if run.seed == {ALWAYS} or (run.seed == {ONCE} and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(run, checkpoint, **given)

    sweep.execute = execute
"""


def grid(*seeds):
    return experiments.grid("smoke", loss=["ce", "nce+rce"], rate=0.4, seed=seeds)


def outcomes(runs, store) -> dict:
    found = {}
    for run in runs:
        record = results.read(Path(store) / f"{run.id}.json")
        record["history"].pop("seconds")
        found[run.id] = {k: v for k, v in record.items() if k != "seconds"}
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    store, runs = tmp_path_factory.mktemp("here"), grid(0, 1, ONCE)
    sweep.run(runs, store, progress=False)
    return outcomes(runs, store)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The scheduler's address; two workers, the second with two threads, that load DEADLY."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "deadly.py").write_text(DEADLY)
    env = os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SAIDL_TEST_MARK": str(folder / "mark"),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "DASK_TEMPORARY_DIRECTORY": str(folder),
    }  # fmt: skip

    def start(name, program, *arguments):
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{program}",
            "--scheduler-file",
            folder / "scheduler.json",
        ]
        with open(folder / f"{name}.log", "w") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard", *arguments],
                env=env,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    started = [start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        for threads in "12":
            options = [
                "--host",
                "127.0.0.1",
                "--nthreads",
                threads,
                "--resources",
                "GPU=1",
                "--preload",
                folder / "deadly.py",
            ]
            started.append(start(f"worker{threads}", "worker", *options))
        from distributed import Client

        while not (folder / "scheduler.json").exists():
            assert started[0].poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        with Client(scheduler_file=folder / "scheduler.json", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=300)
            yield client.scheduler.address
    finally:
        for process in started:  # at once, with its children: asked to end, a nanny may take minutes over it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_on_the_cluster_the_bits_are_the_same(cluster, tmp_path, expected):
    runs = grid(0, 1)
    table = sweep.run(runs, tmp_path, progress=False, backend="dask", address=cluster)
    assert table.id.tolist() == [r.id for r in runs]
    assert outcomes(runs, tmp_path) == {r.id: expected[r.id] for r in runs}


def test_a_run_that_kills_its_worker_is_named_one_that_does_so_once_is_done(cluster, tmp_path, expected):
    fatal = experiments.grid("smoke", loss="mae", rate=0.4, seed=ALWAYS)
    runs = [*grid(0), *fatal, *grid(1, ONCE)]
    with pytest.raises(RuntimeError, match="1 of 7 runs failed") as caught:
        sweep.run(runs, tmp_path, progress=False, backend="dask", address=cluster)
    assert f"{fatal[0].id} (mae, symmetric 0.4): its process died" in str(caught.value)
    others = [r for r in runs if r not in fatal]
    assert outcomes(others, tmp_path) == {r.id: expected[r.id] for r in others}
    assert sorted(os.listdir(tmp_path)) == sorted(f"{r.id}.json" for r in runs)


def test_the_command_line_and_the_engines_resources(cluster, tmp_path, expected, capsys):
    choice = ["--profile", "smoke", "--loss", "ce", "nce+rce", "--rate", "0.4", "--seed", "0"]
    assert cli.main(["sweep", *choice, "--backend", "dask", "--address", cluster, "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(r.id in said for r in grid(0))
    from distributed import Client

    with (
        Client(cluster, set_as_default=False) as client,
        joblib.parallel_config("dask", client=client, resources={"GPU": 1}),
    ):
        sweep.run(grid(1), tmp_path, progress=False)
    assert outcomes(grid(0, 1), tmp_path) == {r.id: expected[r.id] for r in grid(0, 1)}


def test_on_ray(tmp_path, expected, monkeypatch):
    """A cluster on this machine; one run kills its worker the first time, one always. Then one run a GPU: Ray is told of two."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    fatal = experiments.grid("smoke", loss="mae", rate=0.4, seed=ALWAYS)
    runs, mark = [*grid(0), *fatal, *grid(1, ONCE)], tmp_path / "mark"

    def make(run, store, **given):  # pickled by value, so that the workers, too, have this one
        from saidl import sweep

        if run.seed == 99 or (run.seed == 98 and not mark.exists()):
            mark.touch()
            sweep.execute = lambda *_, **__: os.kill(os.getpid(), 9)
        (tmp_path / run.id).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return sweep.make(run, store, **given)

    monkeypatch.setattr(sweep, "make", make)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False)
    try:
        with pytest.raises(RuntimeError, match="1 of 7 runs failed") as caught:
            sweep.run(runs, tmp_path / "store", progress=False, backend="ray")
        with joblib.parallel_config("ray", ray_remote_args={"num_gpus": 1}):
            sweep.run(grid(0, 2), tmp_path / "store", progress=False)
    finally:
        ray.shutdown()
    assert {(tmp_path / r.id).read_text() for r in grid(2)} <= {"0", "1"}  # each was given one
    assert f"{fatal[0].id} (mae, symmetric 0.4): its process died" in str(caught.value)
    others = [r for r in runs if r not in fatal]
    assert outcomes(others, tmp_path / "store") == {r.id: expected[r.id] for r in others}
