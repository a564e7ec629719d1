"""The store: whole records or none, finished ones for ever, one process at a run."""

import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace

import pytest

from saidl import results
from saidl.experiments import grid

(RUN,) = grid("smoke", loss="nce+rce", rate=0.4)


def record(run=RUN, **changes):
    history = {"loss": [1.0], "memorised": [None], "resisted": [0.25], "seconds": [0.1]}
    whole = {
        "schema": results.SCHEMA, "id": run.id, "run": run.to_dict(), "status": "done", "history": history,
        "test_accuracy": 0.5, "best_accuracy": None, "noise": {"rate": 0.4}, "parameters": 7, "seconds": 0.2, "device": "a CPU",
        "confusion": [[1]], "data": {"name": "digits"}, "versions": {"saidl": "0.1"},
    }  # fmt: skip
    return whole | changes


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = results.write(record(), tmp_path)
    assert results.read(path) == json.loads(json.dumps(record()))  # tuples are lists there
    assert [p.name for p in tmp_path.iterdir()] == [f"{RUN.id}.json"]
    row = results.load(tmp_path).iloc[0]
    assert (row.id, row.loss, row.rate, row.test_accuracy, row.resisted) == (RUN.id, "nce+rce", 0.4, 0.5, 0.25)
    assert row.memorised != row.memorised
    assert row.loss_options == dict(RUN.loss_options)


def test_a_finished_record_is_never_written_over(tmp_path):
    failed = record(status="failed", error="ValueError: no")
    path = results.write(failed, tmp_path)
    assert results.read(path)["status"] == "failed"
    results.write(record(), tmp_path)  # a failed one is
    before = path.read_bytes()
    for later in (failed, record(test_accuracy=0.9)):
        results.write(later, tmp_path)
        assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    results.write(record(test_accuracy=0.75), tmp_path)  # so is a damaged one
    assert results.read(path)["test_accuracy"] == 0.75


whole = json.dumps(record()).encode()
DAMAGED = {
    "empty": b"",
    "truncated": whole[: len(whole) // 2],
    "one byte short": whole[:-1],
    "zeros": bytes(500),
    "not text": os.urandom(300),
    "not an object": b"[]",
    "deep": b"[" * 100_000,
    "another schema": json.dumps(record(schema=2)).encode(),
    "another id": json.dumps(record(id="0" * 16)).encode(),
    "another run": json.dumps(record() | {"run": replace(RUN, seed=5).to_dict()}).encode(),
    "an unknown field": json.dumps(record() | {"run": RUN.to_dict() | {"colour": 1}}).encode(),
    "no such accuracy": json.dumps(record(test_accuracy=1.5)).encode(),
    "no accuracy": json.dumps(record(test_accuracy=None)).encode(),
    "no history": json.dumps(record(history={})).encode(),
    "no noise": json.dumps({name: told for name, told in record().items() if name != "noise"}).encode(),
    "not a number": json.dumps(record(test_accuracy=float("nan"))).encode(),
    "no status": json.dumps(record(status="fine")).encode(),
    "a history of another kind": json.dumps(record(history=[1, 2])).encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_file_is_named_and_set_aside(tmp_path, content):
    path = tmp_path / f"{RUN.id}.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{RUN.id}.json is damaged or foreign: ."):
        results.read(path)
    assert not results.done(path)
    with pytest.warns(UserWarning, match=RUN.id):
        assert len(results.load(tmp_path, quarantine=False)) == 0
    assert path.read_bytes() == content
    with pytest.warns(UserWarning, match=RUN.id):
        assert len(results.load(tmp_path)) == 0
    assert not path.exists()
    assert (tmp_path / "quarantine" / path.name).read_bytes() == content
    other = tmp_path / "0123456789abcdef.json"
    other.write_bytes(content)
    with pytest.warns(UserWarning, match=other.stem):
        results.load(tmp_path)
    assert sorted(p.name for p in (tmp_path / "quarantine").iterdir()) == sorted([path.name, other.name])


@pytest.mark.parametrize("size", [0.5, "a", 2**70, -1])
def test_a_run_of_no_number_of_images_leaves_the_rest_readable(tmp_path, size):
    odd = replace(RUN, train_size=size)
    results.write(record(), tmp_path)
    with pytest.raises(ValueError, match="number of samples"):
        results.write(record(id=odd.id) | {"run": odd.to_dict()}, tmp_path)
    (tmp_path / f"{odd.id}.json").write_text(json.dumps(record(id=odd.id) | {"run": odd.to_dict()}))
    with pytest.warns(UserWarning, match=f"left out: {odd.id}"):
        assert results.load(tmp_path).id.tolist() == [RUN.id]


def test_files_and_folders_that_are_not_ours_leave_the_rest_readable(tmp_path):
    results.write(record(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "package.json").write_text('{"name": "mine"}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert results.load(tmp_path).id.tolist() == [RUN.id]
    assert (tmp_path / "package.json").exists()
    (tmp_path / "0000000000000000.json").mkdir()
    with pytest.warns(UserWarning, match="is a folder"):
        assert results.load(tmp_path, quarantine=False).id.tolist() == [RUN.id]


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    for bad in (
        record(test_accuracy=None),
        record(test_accuracy=2),
        record() | {"run": {}},
        record(id="../../etc/x"),
        record(id=RUN.id + "\n"),
    ):
        with pytest.raises(ValueError, match=r"id|accuracy|record"):
            results.write(bad, tmp_path / "store")
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "/etc", "", ".hidden", "a\0b"])
def test_a_store_cannot_be_left_by_a_name(name):
    for place in (results.own, results.recorded):
        with pytest.raises(ValueError, match="plain word"):
            place(name)


def test_a_good_file_put_in_a_damaged_ones_place_is_not_set_aside(tmp_path):
    path = results.write(record(), tmp_path)
    results.set_aside(path)  # who calls it has read a damaged one there a moment ago
    assert results.done(path)
    path.write_text("damaged")
    with results.lock(path):  # nor is anything, while another process is at the run
        results.set_aside(path)
        assert path.exists()
    results.set_aside(path)
    assert not path.exists()


def test_one_process_at_a_run_and_its_death_frees_and_tells(tmp_path):
    path = tmp_path / f"{RUN.id}.json"
    code = "import pathlib, sys, time; from saidl import results\nwith results.lock(pathlib.Path(sys.argv[1])): print(); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-uc", code, str(path)], stdout=subprocess.PIPE)
    child.stdout.readline()
    with results.lock(path) as ours:
        assert not ours
    assert not results.orphaned(path)
    child.kill()
    child.communicate()
    (tmp_path / f".{RUN.id}.pt").write_text("checkpoint")
    (tmp_path / f".{RUN.id}.0123abcd.part").write_text("half")
    assert results.orphaned(path)
    assert not results.orphaned(path)  # said once
    with results.lock(path) as ours:
        assert ours
        results.clear(path)
        assert [p.name for p in tmp_path.iterdir()] == [f".{RUN.id}.lock"]
    assert not list(tmp_path.iterdir())


def test_locks_taken_and_removed_by_many_at_once_let_in_one_at_a_time(tmp_path):
    path, total = tmp_path / f"{RUN.id}.json", [0]

    def count():
        for _ in range(50):
            with results.lock(path, wait=True) as ours:
                before = total[0]
                threading.Event().wait(1e-5)  # a chance for another thread to come in between
                total[0] = before + ours

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [400]


def test_where_the_file_system_has_no_locks_everybody_is_let_in(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    path = tmp_path / f"{RUN.id}.json"
    with results.lock(path) as first, results.lock(path) as second:
        assert first
        assert second


def test_a_run_in_several_stores_counts_once_as_in_the_last(tmp_path):
    other = replace(RUN, seed=3)
    results.write(record(test_accuracy=0.1), tmp_path / "a")
    results.write(record(other, test_accuracy=0.2), tmp_path / "a")
    results.write(record(test_accuracy=0.3), tmp_path / "b")
    table = results.load(tmp_path / "a", tmp_path / "b", tmp_path / "not there").set_index("id")
    assert table.test_accuracy.to_dict() == {RUN.id: 0.3, other.id: 0.2}
    assert len(results.load(tmp_path / "not there")) == 0


def test_a_failed_run_of_ones_own_hides_no_result_that_is_recorded(tmp_path):
    results.write(record(test_accuracy=0.7), tmp_path / "recorded")
    failed = record(status="failed", error="out of memory")
    results.write(failed, tmp_path / "own")
    for stores in (("recorded", "own"), ("own", "recorded")):
        table = results.load(*(tmp_path / name for name in stores))
        assert table.status.tolist() == ["done"]
        assert table.test_accuracy.tolist() == [0.7]
    assert results.load(tmp_path / "own").error.tolist() == ["out of memory"]


def test_damage_upon_damage_is_all_kept(tmp_path):
    path = tmp_path / f"{RUN.id}.json"
    for content in (b"first", b"second"):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=RUN.id):
            results.load(tmp_path)
    assert {p.read_bytes() for p in (tmp_path / "quarantine").iterdir()} == {b"first", b"second"}


def test_what_is_known_is_recorded_or_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SAIDL_STORE", str(tmp_path / "own"))
    monkeypatch.setattr(results, "project", lambda: tmp_path)
    other = replace(RUN, seed=3)
    results.write(record(test_accuracy=0.1), results.recorded("smoke"))
    results.write(record(other, test_accuracy=0.2), results.recorded("smoke"))
    results.write(record(test_accuracy=0.3), results.own("smoke"))
    assert results.known("smoke", "quick").set_index("id").test_accuracy.to_dict() == {RUN.id: 0.3, other.id: 0.2}
    assert results.known("quick").empty


def test_the_shares_of_a_row_are_the_last_epochs(tmp_path):
    history = {"loss": [1.0, 0.5], "memorised": [0.1, 0.7], "resisted": [0.8, 0.2], "seconds": [0.1, 0.1]}
    results.write(record(history=history), tmp_path)
    row = results.load(tmp_path).iloc[0]
    assert (row.memorised, row.resisted) == (0.7, 0.2)


def test_what_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a record must be what JSON can hold"):
        results.write(record() | {"more": {1, 2}}, tmp_path)
