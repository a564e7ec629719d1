"""What can go wrong while a sweep runs, done to real sweeps: no finished result is ever lost or changed, what failed is
named, and running again finishes the rest to the same bits.

    python -m tests.test_faults --kills 200 --long          # the long form, which prints and can --save the figures

The faults happen in a process of their own, which imports torch once and forks what is to be killed. Default: 12 kills.
SAIDL_LONG=1 makes the tests take the long form.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


# ------------------------------------------------------------------------------------------------- the tests: what was seen


@pytest.fixture(scope="module")
def seen():
    long = ["--kills", "200", "--long"] if os.environ.get("SAIDL_LONG") else []
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # into files: a worker whose sweep was killed may outlive this by minutes, and would hold a pipe open
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        command = [sys.executable, "-m", "tests.test_faults", *long]
        status = subprocess.run(command, cwd=ROOT, env=env, stdout=out, stderr=err, check=False).returncode
        out.seek(0), err.seek(0)
        told, complaints = out.read(), err.read()
    assert status == 0, complaints
    print(told, complaints)
    return json.loads(told.splitlines()[-1])


SCENES = {}


def scene(function):
    SCENES[function.__name__] = function
    return function


def test_every_scene_was_played(seen):
    assert set(seen) == {*SCENES, "total"}
    assert seen["total"]["faults"] >= (200 if os.environ.get("SAIDL_LONG") else 12)


@pytest.mark.parametrize("name", [
    "kills", "two_at_once", "eight_at_once", "eight_and_three_killed", "eight_without_locks", "disk_full",
    "file_system_full", "no_room_for_checkpoints", "read_only", "a_run_that_kills_its_process",
    "killed_with_its_workers_at_work", "interrupted", "interrupted_at_any_line", "interrupted_notebook",
])  # fmt: skip
def test_nothing_is_lost_or_changed(seen, name):
    figures = seen[name]
    if "skipped" in figures:
        pytest.skip(figures["skipped"])
    assert "error" not in figures, figures["error"]
    assert figures["results checked"] > 0
    assert (figures["lost"], figures["changed"], figures["other bits"], figures["left behind"]) == (0, 0, 0, 0)


def test_enough_was_killed_and_in_all_places(seen):
    killed = seen["kills"]["killed"]
    assert sum(killed.values()) == (200 if os.environ.get("SAIDL_LONG") else 12)
    assert all(killed[place] > 0 for place in PLACES)


# --------------------------------------------------------------------------------------------------------------- the harness


def fork(target, *args) -> int:
    """Run target in a child; its exit status is 0, or that of what it raised. Ctrl-C waits until the child is at it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    status = 99
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            target(*args)
        status = 0
    except BaseException as error:
        if not isinstance(error, EXPECTED):
            traceback.print_exc(file=sys.__stderr__)
        status = next((code for code, kind in STATUS.items() if isinstance(error, kind)), 99)
    finally:
        os._exit(status)


EXPECTED = (OSError, RuntimeError, KeyboardInterrupt)
STATUS = {3: OSError, 4: RuntimeError, 5: KeyboardInterrupt}


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Watch:
    """A store, what was in it at the last look, and what is known of an undisturbed sweep."""

    def __init__(self, folder, runs, reference=None):
        self.store, self.runs, self.reference, self.files, self.figures = Path(folder), runs, reference, {}, Counter()

    def look(self):
        """Every result seen so far must be there, whole, and the same."""
        from saidl import results

        files = {path.name: path.read_bytes() for path in self.store.glob("*.json")}
        for name, content in self.files.items():
            self.figures["lost"] += name not in files
            self.figures["changed"] += files.get(name, content) != content
        for name in files:
            assert results.read(self.store / name)["status"] == "done"
        self.figures["results checked"] += len(files)
        self.files = files

    def finish(self):
        """Run again, undisturbed: all must be there, as if nothing had happened, and nothing else."""
        status = wait(fork(sweep, self.runs, self.store))
        assert status == 0, f"the sweep that was to finish ended with {status}"
        self.look()
        self.figures["other bits"] += self.outcomes() != self.reference
        left = [path.name for path in self.store.rglob("*") if path.suffix != ".json" and path.is_file()]
        self.figures["left behind"] += len(left)
        if left:
            print("left behind:", *left, file=sys.stderr)

    def outcomes(self) -> dict:
        found = {}
        for run in self.runs:
            record = json.loads((self.store / f"{run.id}.json").read_text())
            record["history"].pop("seconds")
            found[run.id] = {k: v for k, v in record.items() if k != "seconds"}
        return found

    def report(self, **more) -> dict:
        return {
            name: self.figures[name] for name in ("results checked", "lost", "changed", "other bits", "left behind")
        } | more


def sweep(runs, store, **options):
    from saidl import sweep

    sweep.run(runs, store, progress=False, **options)


def logged(runs, store, log):
    """A sweep that writes down which runs it really makes."""
    from saidl import sweep as module

    real = module.execute

    def execute(run, checkpoint, **given):
        with open(log, "a") as file:
            file.write(f"{run.id}\n")
        return real(run, checkpoint, **given)

    module.execute = execute
    sweep(runs, store)


# ---------------------------------------------------------------------------------------------------------------------- kills

PLACES = ("any moment", "any line", "writing a result", "writing a checkpoint")


def torn(module, name, at, share):
    """The at-th time, write only a share of the content, and die."""
    real, left = getattr(module, name), [at]

    def write(value, file, **options):
        left[0] -= 1
        if left[0]:
            return real(value, file, **options)
        buffer = io.StringIO() if module is json else io.BytesIO()
        real(value, buffer, **options)
        file.write(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, write)


def count_lines(at, sent=signal.SIGKILL, only=()):
    """Send ourselves a signal at the at-th line that sweep, results (or only some of their functions) and checkpoints
    execute; a function that tells how many they were."""
    from saidl import results, sweep, training

    files, parts, lines = {sweep.__file__, results.__file__}, {"save", "resume", "run", "restore"}, [0]

    def line(frame, event, _):
        if event == "line":
            lines[0] += 1
            if lines[0] == at:
                os.kill(os.getpid(), sent)
        return line

    def call(frame, *_):
        code = frame.f_code
        ours = code.co_filename in files and (not only or code.co_name in only)
        return line if ours or (code.co_filename == training.__file__ and code.co_name in parts) else None

    sys.settrace(call)
    return lambda: lines[0]


def doomed(place, runs, store, at, share, clock):
    """A sweep that will be killed, on a machine whose clock is wrong."""
    import torch

    real = time.time
    time.time = lambda: real() + clock
    if place == "any line":
        count_lines(at)
    elif place == "writing a result":
        torn(json, "dump", at, share)
    elif place == "writing a checkpoint":
        torn(torch, "save", at, share)
    sweep(runs, store)


def measured(runs, store, told, only=()):
    lines = count_lines(-1, only=only)
    sweep(runs, store)
    told.write_text(str(lines()))


@scene
def kills(folder, runs, reference, count, rng, long):
    began = time.perf_counter()
    wait(fork(sweep, runs, folder / "timed"))
    seconds = time.perf_counter() - began
    wait(fork(measured, runs, folder / "counted", folder / "lines"))
    lines = int((folder / "lines").read_text())
    killed, rounds, total = Counter(dict.fromkeys(PLACES, 0)), 0, Counter()
    plan = [PLACES[i % len(PLACES)] for i in range(count)]
    rng.shuffle(plan)
    while plan:
        watch = Watch(folder / f"round{rounds}", runs, reference)
        rounds, ended = rounds + 1, False
        while plan and not ended:
            place, clock = plan[-1], rng.choice([0, 0, -3e8, 3e8])
            at = rng.randint(1, lines // 2) if place == "any line" else rng.randint(1, 3)
            child = fork(doomed, place, runs, watch.store, at, rng.random(), clock)
            if place == "any moment":
                time.sleep(rng.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)
            status = wait(child)
            assert status in (0, -signal.SIGKILL), f"a sweep that was to be killed ended with {status}"
            if status:
                killed[plan.pop()] += 1
            ended = not status
            for path in watch.store.glob(".*") if watch.store.exists() else []:
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime + clock))
            watch.look()
        watch.finish()
        total += Counter(watch.report())
    return {name: total[name] for name in watch.report()} | {"faults": count, "killed": dict(killed), "sweeps": rounds}


# ------------------------------------------------------------------------------------------------------------------ together


def together(folder, runs, reference, processes, kills, rng, sweep=logged):
    """Several sweeps of one store at once; some of its records are damaged before, some of the sweeps killed on the way."""
    watch = Watch(folder / "store", runs, reference)
    watch.store.mkdir()
    for run, content in zip(runs, (b"", b"{", b"null"), strict=False):
        (watch.store / f"{run.id}.json").write_bytes(content)
    children = [fork(sweep, runs, watch.store, folder / "log") for _ in range(processes)]
    for child in children[:kills]:
        time.sleep(rng.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
    statuses = [wait(child) for child in children]
    assert set(statuses[kills:]) == {0}, statuses
    assert set(statuses[:kills]) <= {0, -signal.SIGKILL}, statuses
    watch.look()
    assert len(watch.files) == len(runs)  # whoever lives has done all
    made = Counter((folder / "log").read_text().split())
    watch.finish()
    assert sorted(p.name for p in (watch.store / "quarantine").iterdir()) == sorted(f"{r.id}.json" for r in runs[:3])
    twice = sum(made.values()) - len(runs)
    assert twice <= kills or sweep is not logged, made
    return watch.report(faults=3 + kills, processes=processes, killed=kills, **{"made more than once": twice})


@scene
def two_at_once(folder, runs, reference, count, rng, long):
    return together(folder, runs, reference, 2, 0, rng)


@scene
def eight_at_once(folder, runs, reference, count, rng, long):
    return together(folder, runs, reference, 8, 0, rng)


@scene
def eight_and_three_killed(folder, runs, reference, count, rng, long):
    return together(folder, runs, reference, 8, 3, rng)


def without_locks(runs, store, log):
    """As on a file system that has none."""
    import fcntl

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    fcntl.flock = unsupported
    logged(runs, store, log)


@scene
def eight_without_locks(folder, runs, reference, count, rng, long):
    return together(folder, runs, reference, 8, 0, rng, without_locks)


# ------------------------------------------------------------------------------------------------------------------ no space


def after(number, action):
    """Do something when the number-th run is about to be made."""
    from saidl import sweep as module

    real, left = module.execute, [number]

    def execute(run, checkpoint, **given):
        left[0] -= 1
        if not left[0]:
            action()
        return real(run, checkpoint, **given)

    module.execute = execute


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def filled(runs, store, number, action):
    after(number, action)
    sweep(runs, store)


@scene
def disk_full(folder, runs, reference, count, rng, long):
    watch = Watch(folder / "store", runs, reference)
    for done in (2, 3):
        assert wait(fork(filled, runs, watch.store, done, lambda: limit(500))) == 3  # an OSError
        watch.look()
    assert len(watch.files) == 3  # one before the first failure, two before the second
    watch.finish()
    return watch.report(faults=2)


@scene
def no_room_for_checkpoints(folder, runs, reference, count, rng, long):
    """The results are smaller than the checkpoints: a sweep goes on without those."""
    watch = Watch(folder / "store", runs, reference)
    size = max(len(json.dumps(record)) for record in reference.values()) + 2000

    def limited():
        from saidl.training import Fit

        def save(self, path, epoch):
            real(self, path, epoch)
            assert not Path(path).exists()  # or the run fails, and with it the sweep

        real, Fit.save = Fit.save, save
        limit(size)

    assert wait(fork(filled, runs, watch.store, 1, limited)) == 0
    watch.finish()
    return watch.report(faults=len(runs))


@scene
def file_system_full(folder, runs, reference, count, rng, long):
    store = folder / "store"
    store.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(store)], capture_output=True).returncode:
        return {"skipped": "a small file system cannot be mounted here"}

    def fill():
        with contextlib.suppress(OSError), open(store / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    try:
        watch = Watch(store, runs, reference)
        assert wait(fork(filled, runs, store, 3, fill)) == 3
        assert len(list(store.glob("*.json"))) == 2
        watch.look()
        assert wait(fork(sweep, runs, store)) == 3  # at once: there is no room for a probe
        watch.look()
        (store / "filler").unlink()
        watch.finish()
        return watch.report(faults=2)
    finally:
        subprocess.run(["umount", str(store)], check=True)


def as_nobody(action, *args):
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    action(*args)


@scene
def read_only(folder, runs, reference, count, rng, long):
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() == 0 and not path.stat().st_mode & 0o001:
            path.chmod(0o755)
        if path == Path(tempfile.gettempdir()):
            break
    watch, log = Watch(folder / "store", runs, reference), folder / "log"
    assert wait(fork(sweep, runs[:3], watch.store)) == 0
    log.touch()
    log.chmod(0o666)
    watch.store.chmod(0o555)
    assert wait(fork(as_nobody, logged, runs, watch.store, log)) == 3
    watch.look()
    assert len(watch.files) == 3
    assert wait(fork(as_nobody, logged, runs[:3], watch.store, log)) == 0  # all there: nothing is to be written
    assert not log.read_text()  # no work was done and lost
    watch.store.chmod(0o755)
    watch.finish()
    return watch.report(faults=1)


# --------------------------------------------------------------------------------------------- workers, and who asks for them


def deadly(runs, bad, store):
    """A sweep over two workers, where making one run kills its process, as the system does when memory is short."""
    from saidl import sweep as module

    def make(run, store, **given):  # pickled by value, so that the workers, too, have this one
        from saidl import sweep as real

        if run.id == bad:
            real.execute = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        return real.make(run, store, **given)

    module.make = make
    sweep(runs, store, n_jobs=2)


@scene
def a_run_that_kills_its_process(folder, runs, reference, count, rng, long):
    from saidl import results

    watch, some = Watch(folder / "store", runs, reference), runs[:3]
    bad = some[-1].id
    assert wait(fork(deadly, some, bad, watch.store)) == 4  # a RuntimeError, at the end
    path = watch.store / f"{bad}.json"
    record = results.read(path)
    assert record["status"] == "failed"
    assert "its process died" in record["error"]
    path.rename(folder / "failed")
    watch.look()
    assert len(watch.files) == len(some) - 1  # the others are done
    (folder / "failed").rename(path)
    watch.finish()
    return watch.report(faults=2)


@scene
def killed_with_its_workers_at_work(folder, runs, reference, count, rng, long):
    if not long:
        return {"skipped": "in the long form only (SAIDL_LONG=1)"}
    watch = Watch(folder / "store", runs, reference)
    for number in (1, 3):
        child = fork(lambda: sweep(runs, watch.store, n_jobs=2))
        while not watch.store.exists() or len(list(watch.store.glob("*.json"))) < number:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        wait(child)
        watch.look()
    watch.finish()
    return watch.report(faults=2)


def again(runs, store):
    with contextlib.suppress(KeyboardInterrupt):
        sweep(runs, store)
        return
    sweep(runs, store)  # in the same process: a notebook's cell, run again


@scene
def interrupted(folder, runs, reference, count, rng, long):
    watch, faults = Watch(folder / "store", runs, reference), 0
    for _ in range(4):
        child = fork(sweep, runs, watch.store)
        time.sleep(rng.uniform(0, 0.4))
        os.kill(child, signal.SIGINT)
        status = wait(child)
        assert status in (0, 5, -signal.SIGINT), status
        faults += status != 0
        watch.look()
    child = fork(again, runs, folder / "other")
    while not list((folder / "other").glob("*.json")):
        time.sleep(0.001)
    os.kill(child, signal.SIGINT)
    assert wait(child) in (0, 5)  # 5: all was done when it came
    assert len(list((folder / "other").glob("*.json"))) == len(runs)
    watch.finish()
    return watch.report(faults=faults + 1)


@scene
def interrupted_at_any_line(folder, runs, reference, count, rng, long):
    """Of those that record a run, wherever Ctrl-C may hit: each in its turn, or every sixth."""
    only, one, total, faults = {"make", "write", "clear", "lock"}, runs[-1:], Counter(), 0
    wait(fork(measured, one, folder / "counted", folder / "lines", only))

    def stopped(store, at):
        count_lines(at, signal.SIGINT, only)
        sweep(one, store)

    for at in range(1, int((folder / "lines").read_text()) + 1, 1 if long else 6):
        watch = Watch(folder / f"line{at}", one, {r.id: reference[r.id] for r in one})
        status = wait(fork(stopped, watch.store, at))
        assert status == 5, f"a sweep that was to be interrupted ended with {status}"
        faults += 1
        watch.look()
        watch.finish()
        total += Counter(watch.report())
    return {name: total[name] for name in watch.report()} | {"faults": faults}


@scene
def interrupted_notebook(folder, runs, reference, count, rng, long):
    """A notebook's kernel: the cell is stopped, and run again. Its last run would wait to be stopped."""
    from jupyter_client.manager import start_new_kernel

    watch = Watch(folder / "store", runs, reference)
    cell = f"table = sweep.run(runs, {str(watch.store)!r}, n_jobs={2 if long else 1})"
    first = "import time; from saidl import sweep; from tests.test_faults import after, grid; runs = grid()\n"
    first += "real = sweep.execute; after(len(runs), lambda: time.sleep(600))"
    manager, client = start_new_kernel(600, "python3", cwd=str(ROOT), env=os.environ.copy())
    try:
        client.execute_interactive(first, timeout=600)
        message = client.execute(cell)
        while not watch.store.exists() or not list(watch.store.glob("*.json")):
            time.sleep(0.002)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=600)
        while reply["parent_header"]["msg_id"] != message:
            reply = client.get_shell_msg(timeout=600)
        assert reply["content"].get("ename") == "KeyboardInterrupt", reply["content"]
        watch.look()
        cell = f"sweep.execute = real; {cell}"
        reply = {"content": {"status": "aborted"}}
        while reply["content"]["status"] == "aborted":  # what arrives too soon after an interruption is dropped
            reply = client.execute_interactive(cell, timeout=600, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"]
        watch.look()
        assert len(watch.files) == len(runs)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    watch.finish()
    return watch.report(faults=1)


# -------------------------------------------------------------------------------------------------------------------- script


def grid():
    from saidl import experiments, training

    training.SAVE_EVERY = -1  # a checkpoint after every epoch
    images = experiments.grid("smoke", loss=["ce", "nce+rce", "mae"], rate=[0.2, 0.4], augment="crop-flip", epochs=3)
    return images + experiments.grid(
        "smoke", task="digits-sequence", model="lstm", model_options={"d_model": 8}, epochs=2
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=SCENES)
    parser.add_argument("--save", type=Path, help="write the figures into this file")
    args = parser.parse_args()
    import joblib  # noqa: F401  what a sweep imports, once for all that will be forked
    import pandas  # noqa: F401
    import torch._dynamo

    import saidl.sweep  # noqa: F401
    from saidl import data, losses, models, noise  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    data.load("digits")
    runs, rng = grid(), random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="saidl-faults-"))
    report, ours = {}, os.getpid()
    try:
        undisturbed = Watch(folder / "reference", runs)
        assert wait(fork(sweep, runs, undisturbed.store)) == 0
        reference = undisturbed.outcomes()
        for name in args.only or SCENES:
            place = folder / name
            place.mkdir()
            began = time.perf_counter()
            try:
                report[name] = SCENES[name](place, runs, reference, args.kills, rng, args.long)
            except Exception:
                report[name] = {"error": traceback.format_exc()}
            print(
                f"{name:34} {report[name].get('error') or report[name]}  {time.perf_counter() - began:.1f} s",
                file=sys.stderr,
            )
    finally:
        if os.getpid() == ours:  # and not a child gone astray
            shutil.rmtree(folder, ignore_errors=True)
    totals = ("faults", "results checked", "lost", "changed", "other bits", "left behind")
    report["total"] = {name: sum(figures.get(name, 0) for figures in report.values()) for name in totals}
    for name, figures in report.items():
        print(f"{name.replace('_', ' '):34}", ", ".join(f"{k} {v}" for k, v in figures.items()))
    if args.save:
        args.save.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
