"""The stopwatch: it must refuse to compare what differs, and say which of two is faster."""

import time

import pytest
import torch

from tests.benchmarks import harness


def slow(value=1.0):
    time.sleep(0.004)
    return torch.full((3,), value)


def quick():
    return torch.ones(3)


def test_ratio_is_how_much_faster_ours_is():
    row = harness.compare("sleep", quick, slow, repeats=5, target=2, size=3)
    assert row["ratio"] > 2
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["baseline_ms"] >= 4 > row["ours_ms"]
    assert (row["size"], row["repeats"]) == (3, 5)
    assert harness.compare("sleep", slow, quick, repeats=2)["ratio"] < 0.5


def test_what_differs_is_not_compared():
    with pytest.raises(AssertionError, match=r"sleep: the two differ by 1.00e-02"):
        harness.compare("sleep", quick, lambda: slow(1.01), repeats=1)
    assert harness.compare("sleep", quick, lambda: slow(1.01), repeats=1, rtol=None)["ratio"] > 1


def test_gradients_are_computed_and_compared():
    x, w = torch.randn(4), torch.randn(4)
    y, dx = harness.with_gradients(lambda x: x.square(), [x], w)()
    torch.testing.assert_close((y, dx), (x.square(), 2 * x * w))
    wrong = harness.with_gradients(lambda x: x.detach() ** 2 + 0 * x, [x], w)
    with pytest.raises(AssertionError, match="differ"):
        harness.compare("square", wrong, harness.with_gradients(lambda x: x.square(), [x], w), repeats=1)


def test_table_save_and_difference(tmp_path):
    rows = [harness.compare("a", quick, slow, repeats=2, target=1e9), harness.measure("b", quick, repeats=2)]
    text = harness.table(rows)
    assert "MISSED" in text
    assert harness.machine()["cpu"] in text
    harness.save(rows, tmp_path / "old.json")
    rows[0]["ratio"] *= 2
    harness.save([*rows, rows[1] | {"name": "c"}], tmp_path / "new.json")
    lines = harness.difference(*(harness.load(tmp_path / name) for name in ("old.json", "new.json"))).splitlines()
    assert lines[1].split()[-2:] == ["2.00", "ratio"]
    assert lines[3].endswith("new row")
