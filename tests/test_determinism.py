"""The same run gives the same bits: again, in another process, order and number of jobs, and after it was interrupted."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saidl import experiments, results, sweep, training

ROOT = Path(__file__).parents[1]
IMAGES = experiments.grid("smoke", loss=["ce", "anl-ce"], rate=0.4, augment="crop-flip", epochs=3)
SEQUENCES = [
    run
    for layer in ("s4d", "lstm")
    for run in experiments.grid("smoke", task="digits-sequence", model=layer, model_options={"dropout": 0.2}, epochs=3)
]
RUNS = IMAGES + SEQUENCES


def outcome(path) -> dict:
    """A record without what the clock says."""
    record = results.read(path)
    record.pop("seconds")
    record["history"].pop("seconds")
    return record


def outcomes(store) -> dict:
    return {run.id: outcome(Path(store) / f"{run.id}.json") for run in RUNS}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    store = tmp_path_factory.mktemp("first")
    sweep.run(RUNS, store, progress=False)
    return outcomes(store)


def test_again_with_other_random_numbers_about(first, tmp_path):
    state = torch.manual_seed(123).get_state()
    random.seed(5)
    sweep.run(RUNS[::-1], tmp_path, progress=False)
    assert outcomes(tmp_path) == first
    assert torch.equal(torch.get_rng_state(), state)  # and the caller's are left alone


def test_in_other_processes_in_another_order_with_two_jobs(first, tmp_path):
    code = "import sys; from saidl import sweep; from tests.test_determinism import RUNS; sweep.run(RUNS[::-1], sys.argv[1], n_jobs=2)"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, tmp_path], env=env, cwd=ROOT, check=True, capture_output=True)
    assert outcomes(tmp_path) == first


class Stop(KeyboardInterrupt):
    pass


def interrupt(monkeypatch, run, store, epoch: int) -> Path:
    """Stop a run at the start of an epoch, with a checkpoint of the one before; returns the checkpoint."""

    def set_lr(self, now):
        if now == epoch:
            raise Stop
        real(self, now)

    real = training.Fit.set_lr
    with monkeypatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY", -1)
        patch.setattr(training.Fit, "set_lr", set_lr)
        with pytest.raises(Stop):
            sweep.run([run], store, progress=False)
    assert not list(store.glob("*.json"))
    return store / f".{run.id}.pt"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.model} {run.loss}")
def test_a_run_resumed_twice_from_its_checkpoint(first, tmp_path, monkeypatch, run):
    for epoch in (1, 2):
        assert interrupt(monkeypatch, run, tmp_path, epoch).exists()
    started = []
    real = training.Fit.resume
    monkeypatch.setattr(training.Fit, "resume", lambda self, path: started.append(real(self, path)) or started[-1])
    sweep.run([run], tmp_path, progress=False)
    assert started == [2]
    assert outcome(tmp_path / f"{run.id}.json") == first[run.id]
    assert [p.name for p in tmp_path.iterdir()] == [f"{run.id}.json"]


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def flip(content: bytes) -> bytes:
    """One bit of the largest array, in the middle of the file."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def without(*keys):
    def change(path):
        state = torch.load(path, weights_only=True)
        torch.save({k: v for k, v in state.items() if k not in keys}, path)

    return change


def half_model(path):
    """Loads in part: a tensor of the network is missing, the others are not those it starts with."""
    state = torch.load(path, weights_only=True)
    state["model"].pop(list(state["model"])[-1])
    torch.save(state, path)


def evil(path):
    state = torch.load(path, weights_only=True)
    torch.save(state | {"epoch": Evil()}, path)


BAD = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a bit flipped": lambda path: path.write_bytes(flip(path.read_bytes())),
    "no pickle": lambda path: path.write_bytes(os.urandom(1000)),
    "malicious": evil,
    "a malicious pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "no epoch": without("epoch"),
    "no generator": without("generator"),
    "half a model": half_model,
}


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
def test_a_bad_checkpoint_means_starting_over_to_the_same_bits(first, tmp_path, monkeypatch, damage, capsys):
    run = IMAGES[0]
    damage(interrupt(monkeypatch, run, tmp_path, 2))
    sweep.run([run], tmp_path, progress=False)
    said = capsys.readouterr().out
    assert "cannot be continued" in said
    assert "unpickled" not in said.splitlines()
    assert outcome(tmp_path / f"{run.id}.json") == first[run.id]


@pytest.mark.parametrize("change", [{"loss": "anl-ce"}, {"rate": 0.2}, {"seed": 1}, {"lr": 0.01}], ids=str)
def test_another_runs_checkpoint_is_not_continued(first, tmp_path, monkeypatch, change, capsys):
    run = IMAGES[0]
    (other,) = experiments.grid("smoke", **{"loss": "ce", "rate": 0.4, "augment": "crop-flip", "epochs": 3} | change)
    interrupt(monkeypatch, other, tmp_path, 2).rename(tmp_path / f".{run.id}.pt")
    sweep.run([run], tmp_path, progress=False)
    assert "another run's" in capsys.readouterr().out
    assert outcome(tmp_path / f"{run.id}.json") == first[run.id]


def test_seconds_count_the_epochs_before_the_interruption(tmp_path, monkeypatch):
    run = IMAGES[0]
    path = interrupt(monkeypatch, run, tmp_path, 2)
    state = torch.load(path, weights_only=True)
    state["history"]["seconds"] = [1000.0, 2000.0]
    torch.save(state, path)
    sweep.run([run], tmp_path, progress=False)
    assert json.loads((tmp_path / f"{run.id}.json").read_text())["seconds"] > 3000
