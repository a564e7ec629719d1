"""Comparing with other people's checkouts, as far as it goes without one: what is recognised, and that nothing stays behind."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.benchmarks import peers
from tests.benchmarks.bench_core import made_up_images


def make(folder, files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_checkout_is_known_by_its_files(tmp_path, name):
    *most, last = peers.PEERS[name][0]
    make(tmp_path, most)
    with pytest.raises(ValueError, match=r"no checkout of a known repository; .*state-spaces/s4 \(models/s4/s4d.py"):
        peers.identify(tmp_path)
    make(tmp_path, [last])
    assert peers.identify(tmp_path) == name


def test_a_row_needs_a_commit(tmp_path):
    with pytest.raises(ValueError, match="say with --commit"):
        peers.commit_of(tmp_path, [])
    given = ["first", "second"]
    assert [peers.commit_of(tmp_path, given), peers.commit_of(tmp_path, given)] == ["first", "second"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_the_checkouts_and_says_if_files_were_changed(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    make(tmp_path, ["loss.py"])
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert peers.commit_of(tmp_path, ["another"]) == head
    (tmp_path / "loss.py").write_text("changed = True")
    assert peers.commit_of(tmp_path, []) == f"{head}-dirty"


def test_loading_leaves_nothing_behind(tmp_path):
    text = "import mlconfig\nimport a.b\n@mlconfig.register\ndef answer():\n    return a.b.six * 7\ndevice = 'cuda'\n"
    (tmp_path / "file.py").write_text(text)
    b = peers.stand_in("b", six=6)
    mlconfig = peers.stand_in("mlconfig", register=lambda f: f)
    module = peers.load(tmp_path / "file.py", mlconfig=mlconfig, a=peers.stand_in("a", b=b), a__b=b)
    assert (module.answer(), module.device) == (42, peers.CPU)
    assert not {"mlconfig", "a", "a.b"} & set(sys.modules)
    assert [path.name for path in tmp_path.iterdir()] == ["file.py"]


def test_ours_must_be_what_their_code_gives_in_float64():
    import torch

    x = torch.rand(5)
    row = peers.against_exact("same", lambda: (x,), lambda: (x * 1.001,), (x.double(),), 1e-6, repeats=1)
    assert row["error_ours"] == 0
    assert row["error_theirs"] == pytest.approx(1e-3, rel=1e-3)
    with pytest.raises(AssertionError, match=r"same: ours is 1.00e-03 from their code in float64"):
        peers.against_exact("same", lambda: (x * 1.001,), lambda: (x,), (x.double(),), 1e-6, repeats=1)


def test_what_others_were_timed_at_stays(tmp_path):
    rows = [{"repository": name, "name": str(i)} for i, name in enumerate(("a/b", "c/d", "a/b"))]
    file = tmp_path / "peers.json"
    file.write_text(json.dumps({"rows": rows, "left_out": {"a/b 123": ["no"], "c/d 456": ["never"]}}))
    assert peers.kept(file, ["a/b"]) == (rows[1:2], {"c/d 456": ["never"]})
    assert peers.kept(tmp_path / "none.json", ["a/b"]) == ([], {})


def test_code_for_older_numpy_runs_while_it_is_helped_and_draws_the_same(tmp_path):
    (tmp_path / "file.py").write_text(
        "import numpy as np\n\ndef put(x):\n    x[1] = np.where(x == 7)[0]\n    return x\n"
    )
    module = peers.load(tmp_path / "file.py")
    with peers.older_numpy(module):
        assert module.put(np.array([0, 0, 0, 7])).tolist() == [0, 3, 0, 7]
    assert module.np is np


def test_ours_in_their_epoch_trains_and_knows_its_precision():
    fit = peers.our_fit(*made_up_images(20), precision="float32")
    assert fit.precision == "float32"
    assert fit.train_epoch()["loss"] > 0
