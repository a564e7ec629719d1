"""Sweeps: skip, record, name, go on. The faults that need processes to die are in test_faults.py."""

import itertools
import json
import os
import time
import wave
from dataclasses import replace

import joblib
import pytest
import torch

from saidl import data, experiments, losses, noise, results, sweep, training

RUNS = experiments.grid("smoke", loss=["ce", "nce+rce"], rate=[0.2, 0.4], seed=[0, 1])
TOLD = {name: {"told": 0} for name in results.WHOLE} | {"test_accuracy": 0.5, "parameters": 7}  # of a run of no work


@pytest.fixture
def made(monkeypatch):
    """Runs of no work whose outcome is a function of the run; a list of what was made, in order."""
    ids = []

    def execute(run, checkpoint=None, **_):
        ids.append(run.id)
        return TOLD | {"test_accuracy": int(run.id, 16) / 16**16, "history": {"seconds": [0.0]}}

    monkeypatch.setattr(sweep, "execute", execute)
    return ids


def test_a_sweep_makes_what_is_missing_and_returns_all_in_order(tmp_path, made):
    first = sweep.run(RUNS[:3], tmp_path, progress=False)
    assert made == first.id.tolist() == [r.id for r in RUNS[:3]]
    table = sweep.run([*reversed(RUNS), RUNS[0]], str(tmp_path), progress=False)
    assert table.id.tolist() == [r.id for r in [*reversed(RUNS), RUNS[0]]]
    assert sorted(made) == sorted(r.id for r in RUNS)  # none twice
    assert table.test_accuracy.tolist() == [int(r.id, 16) / 16**16 for r in [*reversed(RUNS), RUNS[0]]]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{r.id}.json" for r in RUNS)


def broken(monkeypatch, bad, outcome):
    real = sweep.execute

    def execute(run, checkpoint=None, **_):
        return outcome() if run in bad else real(run, checkpoint)

    monkeypatch.setattr(sweep, "execute", execute)


def diverge():
    raise ZeroDivisionError("the loss is inf after epoch 3")


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (diverge, "ZeroDivisionError: the loss is inf after epoch 3"),
        (lambda: {"test_accuracy": float("nan")}, "its test accuracy is nan"),
        (lambda: {"test_accuracy": None}, "TypeError: "),
        (lambda: {}, "KeyError: 'test_accuracy'"),
    ],
)
def test_a_run_that_fails_is_named_and_the_others_are_done(tmp_path, made, monkeypatch, outcome, error):
    bad = RUNS[2]
    with monkeypatch.context() as patch:
        broken(patch, [bad], outcome)
        with pytest.raises(RuntimeError, match="1 of 8 runs failed") as caught:
            sweep.run(RUNS, tmp_path, progress=False)
    assert bad.id in str(caught.value)
    assert error in str(caught.value)
    record = results.read(tmp_path / f"{bad.id}.json")
    assert record["status"] == "failed"
    assert error in record["error"]
    assert "Traceback" in record["traceback"]
    assert len(made) == 7
    assert sweep.run(RUNS, tmp_path, progress=False).status.eq("done").all()
    assert sorted(made) == sorted(r.id for r in RUNS)  # the failed one alone was tried again


@pytest.mark.parametrize("content", [b"", b"{", b"null", bytes(100), b'{"schema": 1}'])
def test_a_damaged_record_is_set_aside_and_its_run_made_again(tmp_path, made, content):
    before = sweep.run(RUNS, tmp_path, progress=False)
    path = tmp_path / f"{RUNS[1].id}.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"set aside, to be run again: {path.name}"):
        after = sweep.run(RUNS, tmp_path, progress=False)
    assert made[len(RUNS) :] == [RUNS[1].id]
    assert after.test_accuracy.tolist() == before.test_accuracy.tolist()
    assert (tmp_path / "quarantine" / path.name).read_bytes() == content


RUN = RUNS[0]
UNFIT = {
    "a loss": (replace(RUN, loss="cee"), "loss must be one of"),
    "a model": (replace(RUN, model="cnn9"), "model must be one of"),
    "a noise": (replace(RUN, noise="loud"), "noise must be one of"),
    "a NaN rate": (replace(RUN, rate=float("nan")), "rate must be a number in"),
    "no rate": (replace(RUN, rate=None), "rate must be a number in"),
    "a rate in words": (
        replace(RUN, noise="mine", rate="mine", transition=((1.0, 0.0), (0.0, 1.0))),
        "rate must be a number in",
    ),
    "a rate above one": (replace(RUN, rate=1.1), "rate must be a number in"),
    "a NaN option": (replace(RUN, loss_options=(("alpha", float("nan")),)), "cannot be recorded"),
    "an option that is no JSON": (replace(RUN, model_options=(("channels", {8, 16}),)), "cannot be recorded"),
    "half of the images": (replace(RUN, train_size=0.5), "train_size must be a whole number"),
    "moves of another data set": (
        replace(RUN, dataset="adding", noise="asymmetric", rate=0.2),
        "asymmetric noise must be one of",
    ),
    "people's labels of digits": (replace(RUN, noise="human-worst", rate=None), "human-worst noise is CIFAR-10's"),
    "a T that is none": (
        replace(RUN, noise="mine", transition=((1.0, 0.5), (0.0, 1.0))),
        "matrix must be row-stochastic",
    ),
    "another draw": (replace(RUN, exact="foo"), "exact must be"),
    "a seed that torch has not": (replace(RUN, seed=2**63), "seed must be a number in"),
    "a network for sequences": (
        replace(RUN, model="lstm", model_options=(("d_model", 4), ("n_layers", 1))),
        "shows images",
    ),
    "a loss's option": (replace(RUN, loss_options=(("q", 0.5),)), "'ce' has no setting"),
    "a network's option": (replace(RUN, model_options=(("depth", 3),)), "cannot be built with .*depth"),
    "channels below zero": (replace(RUN, model_options=(("channels", (8, -1)),)), "channels must be a whole number"),
    "half a channel": (replace(RUN, model_options=(("channels", (8.5, 4)),)), "channels must be a whole number"),
    "a negative seed": (replace(RUN, seed=-1), "seed must be a whole number"),
    "a folder": (replace(RUN, dataset="/my/images"), "dataset must be one of digits"),
    "no run": ({"loss": "ce"}, "runs must be experiments.Run"),
}


@pytest.mark.parametrize(("run", "message"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_run_or_recorded_is_an_error_before_any_work(tmp_path, made, run, message):
    with pytest.raises(ValueError, match=message):
        sweep.run([RUN, run], tmp_path / "store", progress=False)
    assert not made
    assert not (tmp_path / "store").exists()


def test_a_sweep_looks_for_its_data_where_the_caller_does_now(tmp_path, monkeypatch):
    """joblib's processes outlive a sweep: the next one may have been told another data folder."""
    folder = tmp_path / "data" / "spoken-digits" / "recordings"
    folder.mkdir(parents=True)
    for digit, number, speaker in itertools.product(range(2), range(3, 8), "ab"):
        with wave.open(str(folder / f"{digit}_{speaker}_{number}.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(range(64)))
    options = {"d_model": 4, "n_layers": 1, "d_state": 4}
    runs = experiments.grid("smoke", task="speech", seed=[0, 1], model_options=options)
    runs = [
        replace(run, train_size=None, settings=replace(run.settings, batch_size=4, half_rate=False)) for run in runs
    ]
    monkeypatch.setenv("SAIDL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match=r"2 of 2 runs failed(.|\n)*MissingData"):
        sweep.run(runs, tmp_path / "store", n_jobs=2, progress=False)
    monkeypatch.setenv("SAIDL_DATA", str(tmp_path / "data"))
    assert sweep.run(runs, tmp_path / "store", n_jobs=2, progress=False).status.eq("done").all()


@pytest.mark.parametrize(
    ("runs", "store", "message"),
    [(RUN, "store", "runs must be a list"), (None, "store", "runs must be a list"), ([RUN], None, "store must be")],
)
def test_one_run_or_no_store_is_an_error(made, runs, store, message):
    with pytest.raises(ValueError, match=message):
        sweep.run(runs, store)
    assert not made


@pytest.mark.parametrize("name", ["cnn8", "resnet34", "lstm"])
def test_a_network_has_as_many_outputs_as_there_are_classes_and_odd_options_are_named(name):
    options = {"d_model": 4, "n_layers": 1} if name == "lstm" else {}
    *_, bias = sweep.network(name, options, 1, 3).parameters()
    assert bias.shape == (3,)
    *_, bias = sweep.network(name, options | {"num_classes": 5}, 1, 3).parameters()
    assert bias.shape == (5,)
    with pytest.raises(ValueError, match=f"model {name} cannot be built with .*'depth'"):
        sweep.network(name, options | {"depth": 3}, 1, 3)


def test_data_of_three_classes_need_no_options(monkeypatch):
    three = data.Split(*(replace(part.select(part.labels < 3), classes=tuple("012")) for part in data.load("digits")))
    monkeypatch.setattr(data, "load", lambda *_, **__: three)
    assert len(sweep.execute(RUN)["confusion"]) == 3


@pytest.fixture
def fitted(monkeypatch):
    """What `execute` gives to `training.fit`, which trains nothing and returns a history made up."""
    given = {}

    def fit(model, train, test, loss, settings, **options):
        given.update(options, model=model, train=train, test=test, loss=loss, settings=settings)
        return training.History(valid_accuracy=[0.1, 0.3, 0.2], test_accuracy=[0.9, 0.7, 0.5])

    monkeypatch.setattr(training, "fit", fit)
    return given


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_run_is_trained_on_the_labels_its_noise_seed_makes_and_tested_on_true_ones(kind, exact, fitted):
    run = replace(RUN, noise=kind, exact=exact, rate=0.3, noise_seed=5, seed=3)
    train, test = data.load("digits", train_size=run.train_size)
    sweep.execute(run)
    noisy = noise.corrupt(train.labels, kind, 0.3, seed=5, exact=exact, dataset="digits").labels
    assert torch.equal(fitted["train"].labels, noisy)
    assert torch.equal(fitted["clean_labels"], train.labels)
    for part, whole in (("train", train), ("test", test)):
        assert torch.equal(fitted[part].images, whole.images)
    assert torch.equal(fitted["test"].labels, test.labels)


def test_a_run_is_trained_with_its_own_seed_settings_and_loss_options(fitted):
    run = replace(RUN, loss="fl", loss_options=(("gamma", 2.0),), seed=3, noise_seed=5)
    sweep.execute(run)
    assert fitted["seed"] == 3
    assert fitted["settings"] == run.settings
    z, y = torch.randn(20, 10), torch.arange(20) % 10
    torch.testing.assert_close(fitted["loss"](z, y), losses.make("fl", gamma=2.0)(z, y))


def test_the_first_weights_are_of_the_runs_seed_alone(fitted):
    def weights(seed, callers):
        torch.manual_seed(callers)
        sweep.execute(replace(RUN, seed=seed))
        return torch.cat([p.flatten() for p in fitted["model"].parameters()])

    assert torch.equal(weights(3, callers=0), weights(3, callers=1))
    assert not torch.equal(weights(3, callers=0), weights(4, callers=0))


@pytest.mark.parametrize(("view", "channels"), [("sequence", 3), ("sequence-gray", 1)])
def test_a_network_for_sequences_has_an_input_for_every_channel_shown(view, channels, fitted, monkeypatch):
    colour = data.Split(*(replace(part, images=part.images.expand(-1, 3, -1, -1)) for part in data.load("digits")))
    monkeypatch.setattr(data, "load", lambda *_, **__: colour)
    sweep.execute(*experiments.grid("smoke", task="digits-sequence", view=view))
    assert fitted["model"].d_input == channels


def test_a_record_tells_the_last_epochs_accuracy_and_that_of_the_best_on_validation(fitted):
    told = sweep.execute(RUN)
    assert {name: told[name] for name in ("test_accuracy", "best_epoch", "best_accuracy")} == {
        "test_accuracy": 0.5, "best_epoch": 1, "best_accuracy": 0.7,
    }  # fmt: skip


def test_the_recipes_runs_can_be_recorded():
    for profile in experiments.PROFILES:
        sweep.check_runs(experiments.noise_grid(profile))
    sweep.check_runs(experiments.grid("quick", task="digits-sequence", model=["s4d", "lstm"]))


def test_a_store_that_cannot_be_written_is_an_error_before_any_work(tmp_path, made, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/store"):
        with pytest.raises(OSError, match=r"the store .* cannot be written"):
            sweep.run(RUNS, tmp_path / place, progress=False)
    assert not made
    sweep.run(RUNS, tmp_path / "store", progress=False)
    monkeypatch.setattr(sweep, "check_writable", lambda store: pytest.fail("nothing is to be written"))
    assert len(sweep.run(RUNS, tmp_path / "store", progress=False)) == len(RUNS)  # a complete one is only read


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "slurm"}, "Invalid backend: slurm"),
        ({"address": "tcp://127.0.0.1:8786"}, "address is for the backends dask and ray"),
        ({"backend": "loky", "address": "x"}, "address is for the backends dask and ray"),
        ({"n_jobs": 0}, "n_jobs must be a whole number of at least 1, not 0"),
        ({"n_jobs": 1.5}, "n_jobs must be"),
    ],
)
def test_an_engine_that_cannot_be_is_an_error_before_any_work(tmp_path, made, options, message):
    with pytest.raises(ValueError, match=message):
        sweep.run(RUNS, tmp_path, progress=False, **options)
    assert not made


def test_a_missing_scheduler_is_named_before_any_work(tmp_path, made, monkeypatch):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(OSError, match=r"127.0.0.1:1\b"),
    ):
        sweep.run(RUNS, tmp_path, progress=False, backend="dask", address="tcp://127.0.0.1:1")
    assert not made


def test_the_callers_joblib_backend_is_used_and_a_process_does_one_run_at_a_time(tmp_path, monkeypatch):
    busy, most, threads = [], [0], set()

    def execute(run, checkpoint=None, **_):
        busy.append(run)
        most[0] = max(most[0], len(busy))
        threads.add(torch.get_num_threads())
        time.sleep(0.01)
        busy.remove(run)
        return TOLD

    monkeypatch.setattr(sweep, "execute", execute)
    before = torch.get_num_threads()
    with joblib.parallel_config("threading", n_jobs=4):
        sweep.run(RUNS, tmp_path, progress=False)
    assert most == [1]  # torch's random state is the process's: two runs side by side would share it
    assert threads == {1}
    assert torch.get_num_threads() == before


def test_a_run_that_another_sweep_is_at_is_left_to_it_and_waited_for(tmp_path, made):
    from threading import Thread

    path = tmp_path / f"{RUNS[0].id}.json"
    theirs = TOLD | {"schema": 1, "id": RUNS[0].id, "run": RUNS[0].to_dict(), "status": "done", "test_accuracy": 0.125}
    with results.lock(path):
        ours = Thread(target=sweep.run, args=(RUNS, tmp_path), kwargs={"progress": False})
        ours.start()
        while len(made) < len(RUNS) - 1:
            time.sleep(0.01)
        assert ours.is_alive()
        results.write(theirs, tmp_path)
    ours.join(10)
    assert not ours.is_alive()
    assert RUNS[0].id not in made
    assert json.loads(path.read_text())["test_accuracy"] == 0.125


def test_a_failure_of_the_other_sweep_stands_but_its_death_does_not(tmp_path, made):
    path = tmp_path / f"{RUN.id}.json"
    assert sweep.make(RUN, str(tmp_path), wait=True) == (RUN.id, True)  # it died and left no record: the run is ours
    assert made == [RUN.id]
    path.unlink()
    results.write(sweep.failure(RUN, "ValueError: theirs"), tmp_path)
    sweep.make(RUN, str(tmp_path), wait=True)
    assert made == [RUN.id]
    assert results.read(path)["error"] == "ValueError: theirs"
    sweep.make(RUN, str(tmp_path))  # not waited for: an old failure, tried again
    assert made == [RUN.id, RUN.id]
    assert results.done(path)


@pytest.mark.parametrize("again", [
    lambda store: sweep.run(RUNS, store, progress=False),
    lambda store: sweep.make(RUN, str(store)),  # a sweep that meant to make it, and got the lock when the other died
    lambda store: sweep.make(RUN, str(store), wait=True),
], ids=["the next sweep", "one beside it", "one that waits for it"])  # fmt: skip
def test_what_a_dead_process_left_is_cleared_away_when_its_run_is_done(tmp_path, made, again):
    sweep.run(RUNS, tmp_path, progress=False)
    for name in ("lock", "pt", "12345678.part"):
        (tmp_path / f".{RUN.id}.{name}").write_text("left")
    again(tmp_path)
    assert len(made) == len(RUNS)
    assert sorted(os.listdir(tmp_path)) == sorted(f"{r.id}.json" for r in RUNS)


def test_a_single_run_shows_its_epochs(tmp_path, capsys):
    sweep.run([RUN], tmp_path / "shown")
    assert f"{RUN.loss} {RUN.model}" in capsys.readouterr().err
    sweep.run([RUN], tmp_path / "silent", progress=False)
    assert not capsys.readouterr().err


def test_a_record_says_how_exact_it_is_and_which_code_made_it(tmp_path):
    told = results.read(tmp_path / f"{sweep.run([RUN], tmp_path, progress=False).id[0]}.json")
    assert told["precision"] == "float32"  # digits' recipe
    assert told["threads"] == 1
    auto = replace(RUN.settings, precision="auto")
    assert sweep.described(replace(RUN, settings=auto))["precision"] in ("float32", "bfloat16")
    assert len(told["versions"]["code"]) == 8
