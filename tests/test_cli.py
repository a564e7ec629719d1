"""The command line, called as a user would."""

import subprocess
import sys
import time

import pytest

from saidl import cli, experiments, results

from .test_tables import record


def test_help_imports_nothing_heavy():
    heavy = "[m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules]"
    code = f"import sys; from saidl import cli; cli.parser().format_help(); print({heavy})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_run_records_and_prints(tmp_path, capsys):
    arguments = [
        "run",
        "--profile",
        "smoke",
        "--loss",
        "nce+rce",
        "--rate",
        "0.4",
        "--epochs",
        "1",
        "--store",
        str(tmp_path),
    ]
    assert cli.main(arguments) == 0
    table = results.load(tmp_path)
    assert len(table) == 1
    printed = capsys.readouterr().out
    assert table.id[0] in printed
    assert f"{table.test_accuracy[0]:.2%}" in printed
    assert cli.main(arguments) == 0  # the second time it is there
    assert len(results.load(tmp_path)) == 1


def test_dry_run_lists_the_queue_and_runs_nothing(tmp_path, capsys):
    grid = ["--profile", "quick", "--loss", "ce", "mae", "--rate", "0.2", "0.4"]
    assert cli.main(["sweep", *grid, "--dry-run", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("symmetric") == 4
    assert "4 runs, 4 to do" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("profile", "task"), [("paper", "mnist-noise"), ("laptop", "scifar"), ("quick", "noise")])
def test_a_task_alone_is_its_part_of_the_queue(profile, task, tmp_path, capsys):
    assert cli.main(["sweep", "--profile", profile, "--task", task, "--dry-run", "--store", str(tmp_path)]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert listed == [run.id for run in experiments.queue(profile) if run.task == task] != []


@pytest.mark.parametrize("profile", ["laptop", "paper"])
def test_no_two_runs_of_a_queue_look_alike(profile, tmp_path, capsys):
    assert cli.main(["sweep", "--profile", profile, "--dry-run", "--store", str(tmp_path)]) == 0
    described = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert len(set(described)) == len(described) == len(experiments.queue(profile))


@pytest.mark.parametrize(("jobs", "hours"), [(1, "40.0"), (2, "20.0"), (5, "8.0")])
def test_time_grows_with_epochs_and_shrinks_with_workers(jobs, hours, tmp_path):
    half, runs = experiments.grid("quick", epochs=20), experiments.grid("quick", loss=["ce", "mae"])
    done = record(*half, 0.9, seconds=36000, parameters=cli.parameters("small-cnn", (), "noise"))
    done["data"]["train"] = cli.FULL_SIZES["digits"]
    results.write(done, tmp_path)
    timed = results.load(tmp_path)
    *lines, total = cli.estimate([*half, *runs], timed, timed, jobs).splitlines()
    assert [line.split(" seed 0  ")[1] for line in lines] == [
        "done  (epochs 20)", "about 72000 s  (the recipe)", "about 72000 s",
    ]  # fmt: skip
    assert f"2 to do: on a machine like the one that was timed, about {hours} hours with {jobs} at once" in total


def test_data_describes_a_set(capsys):
    assert cli.main(["data", "digits"]) == 0
    assert "1297 samples  1x8x8  10 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "nonsense"], "name must be one of"),
        (["run", "--profile", "smoke", "--loss", "nonsense"], "loss must be one of"),
        (["run", "--profile", "smoke", "--rate", "nan"], "rate must be a number in"),
        (["run", "--profile", "smoke", "--noise", "asymmetric"], "--noise needs a --rate"),
        (["sweep", "--profile", "smoke", "--noise", "symmetric", "human-worst"], "--noise needs a --rate"),
        (["sweep", "--profile", "smoke", "--task", "chess"], "task must be one of"),
        (["sweep", "--profile", "quick", "--model", "s4d", "--dry-run"], "for noise, which shows images, not 's4d'"),
        (
            ["run", "--task", "digits-sequence", "--model", "cnn8"],
            "for digits-sequence, which shows sequences, not 'cnn8'",
        ),
    ],
)
def test_errors_are_one_line(arguments, message, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_terminated_it_stops_and_so_do_its_workers(tmp_path):
    """As `timeout`, Slurm and systemd stop a job: nothing is at a run any more, and the same command goes on."""
    command = [sys.executable, "-m", "saidl", "sweep", "--profile", "smoke", "--loss", "ce", "--noise", "symmetric", "--rate", "0.2", "0.4",
               "--epochs", "100000", "--jobs", "2", "--store", str(tmp_path)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sweep:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob(".*.lock"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        sweep.terminate()
        assert sweep.wait(30) == 130
        assert "stopped" in sweep.stderr.read()
    locks = list(tmp_path.glob(".*.lock"))
    assert len(locks) == 2
    until = time.monotonic() + 10
    while not all(results.orphaned(tmp_path / f"{lock.name[1:-5]}.json") for lock in locks if lock.exists()):
        assert time.monotonic() < until, "a worker still holds its run"
        time.sleep(0.1)


def test_the_package_itself_is_the_command():
    told = subprocess.run([sys.executable, "-m", "saidl", "--help"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("usage: saidl")


def test_human_noise_is_printed_without_a_rate():
    import pandas as pd

    row = pd.Series({"id": "0" * 16, "task": "noise", "model": "cnn8", "loss": "ce", "noise": "human-worst", "rate": float("nan"),
                     "seed": 0, "test_accuracy": 0.5, "seconds": 1.0})  # fmt: skip
    assert "human-worst " in cli.described(row)
    assert "nan" not in cli.described(row)
