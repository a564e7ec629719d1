"""Nothing unpickles what it should not, nothing leaves its folder, and whatever is typed or found ends in a result or in a
ValueError or OSError that says what is wrong. SAIDL_LONG=1 tries thirty times as many inputs."""

import ast
import copy
import io
import json
import os
import pickle
import random
import tarfile
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saidl import cli, data, experiments, losses, noise, results, ssm

ROOT = Path(__file__).parents[1]
TIMES = 30 if os.environ.get("SAIDL_LONG") else 1
TRIED, ENDED = Counter(), Counter()
NAN, INF = float("nan"), float("inf")
WORDS = [
    "",
    " ",
    "ce",
    "CE",
    "nce+rce",
    "nce+",
    "+",
    "rce+rce+rce",
    "sce+mae",
    "mean",
    "zoh",
    "symmetric",
    "digits",
    "\0",
    "naïve",
    "../x",
    "%s{}",
    "-1",
    "0.4",
    "9" * 400,
]
ODD = [None, 0, 1, 2, -1, 0.5, -0.0, 1e-300, 1e308, NAN, INF, -INF, 10**18, "0.4", True]


def attempt(what: str, call):
    """The call's result, or None if it ended in an error that says something."""
    TRIED[what] += 1
    try:
        result = call()
    except (ValueError, OSError) as raised:
        error = raised
    else:
        ENDED[what, "result"] += 1
        return result
    assert str(error).strip(), f"{what}: {error!r} says nothing"
    ENDED[what, "error"] += 1
    return None


def cases(what: str, count: int):
    """A random number generator a case, each with a seed of its own so that a failure can be tried alone."""
    for seed in range(count * TIMES):
        yield random.Random(f"{what} {seed}")
    assert ENDED[what, "error"] > 0, f"{what}: no input was refused"
    assert ENDED[what, "result"] > 0, f"{what}: no input was taken"


@pytest.fixture(scope="module", autouse=True)
def told():
    yield
    print(
        "\ninputs tried: " + ", ".join(f"{what} {count}" for what, count in TRIED.items()) + f"; in all {TRIED.total()}"
    )


# ---------------------------------------------------------------------------------------------------------------------- fuzz


def mostly(rng, good, odd=ODD, share=0.8):
    return rng.choice(good) if rng.random() < share else rng.choice(odd)


def tensor(rng, *shape):
    """Mostly of the shape asked for, floating and tame."""
    if rng.random() < 0.1:
        shape = [rng.choice([0, 1, 2, 5]) for _ in range(rng.randint(0, 4))]
    dtype = mostly(
        rng, [torch.float32, torch.float64], [torch.complex64, torch.int64, torch.bool, torch.bfloat16], 0.85
    )
    x = torch.randn(shape, generator=torch.Generator().manual_seed(rng.randrange(10**6)), dtype=torch.float64)
    scale = mostly(rng, [1.0, 0.1], [0.0, 1e30, -1e300, NAN, INF], 0.9)
    return (x * scale).to(dtype)


def test_losses():
    names = [*losses.names(), *losses.ALIASES]
    for rng in cases("losses", 600):
        name = mostly(rng, names, [*WORDS, *ODD, "+".join(rng.choices(names, k=2))])
        keys = ["alpha", "beta", "gamma", "q", "a", "m", "tau", "detached", "epsilon", "floor"]
        hyper = {rng.choice(keys): mostly(rng, [0.5, 1.0, 2.0]) for _ in range(rng.choice([0, 0, 1, 2]))}
        classes, reduction = mostly(rng, [2, 3, 10]), mostly(rng, ["mean", "sum", "none"], [*WORDS, None])
        loss = attempt("losses", partial(losses.make, name, classes, reduction, **hyper))
        if loss is None or classes > 100:
            continue
        logits = tensor(rng, 4, classes)
        target = torch.tensor([mostly(rng, range(classes), [-1, classes, 10**9], 0.97) for _ in range(4)])
        target = target.to(mostly(rng, [torch.int64], [torch.int32, torch.float32], 0.95))
        value = attempt("losses called", partial(loss, logits, target))
        if value is not None and logits.isfinite().all() and logits.abs().max() < 1e5:
            assert value.isfinite().all(), (name, hyper, logits)


def test_noise():
    for rng in cases("noise", 600):
        kind, rate = mostly(rng, noise.KINDS, [*WORDS, None]), mostly(rng, [0.0, 0.2, 0.5, 1.0])
        classes = mostly(rng, [10, 10, 2, 7], [None, 0, 1, -1, 2.5, NAN, "10"])
        dataset = rng.choice([None, None, "cifar10", "mnist", "nowhere", ((0, 1),), ((0, 99),), ((0, 1), (0, 2))])
        T = attempt("noise", partial(noise.transition_matrix, kind, rate, classes, dataset))
        if T is not None:
            np.testing.assert_allclose(T.sum(1), 1)
            assert (T >= 0).all()
        labels = [mostly(rng, range(2), [-1, 99, 0.5, None, "3", NAN], 0.99) for _ in range(rng.choice([0, 1, 30]))]
        images = rng.choice([None, np.zeros((len(labels), 2, 2), np.uint8), np.ones((3, 3))])
        options = {"num_classes": classes, "dataset": dataset, "images": images, "exact": rng.random() < 0.5}
        seed = mostly(rng, [0, 1], [-1, 2**70])
        draw = partial(noise.corrupt, labels, kind, rate, seed=seed, root=ROOT / "tests", **options)
        noisy = attempt("noise drawn", draw)
        if noisy is not None and labels:
            assert noisy.rate == (np.asarray(labels) != noisy.labels).mean()


def state_spaces(rng):
    """Calls with random systems, mostly in order."""
    N, H = rng.choice([1, 2, 4]), rng.choice([1, 3])
    length, method = (
        mostly(rng, [1, 2, 7, 64], [0, -1, 2.5, None, "8"], 0.95),
        mostly(rng, ssm.METHODS, [*WORDS, None], 0.9),
    )
    options = {"alpha": mostly(rng, [0.5, 1.0], ODD, 0.9)}
    if method == "async" or rng.random() < 0.1:
        options["gaps"] = rng.choice([torch.tensor(1.0), torch.ones(3), torch.tensor([-1.0, NAN])])
    step = torch.rand(H, generator=torch.Generator().manual_seed(rng.randrange(1000))) + 1e-3
    dt = step if rng.random() < 0.9 else tensor(rng, H)
    A, B, C = (tensor(rng, H, N) for _ in range(3))
    dense, u, kernel = tensor(rng, H, N, N), tensor(rng, 2, H, 8), tensor(rng, H, 8)
    as_complex = [x.to(torch.complex64) if rng.random() < 0.95 else x for x in (A, B, C)]
    size = mostly(rng, [1, 2, 8], [0, -1])
    return (
        lambda: ssm.discretize(A, B, dt[:, None] if dt.ndim else dt, method, **options),
        lambda: ssm.discretize(dense, B, dt, method, **options),
        lambda: ssm.diagonal_kernel(*as_complex, dt, length, method, **options),
        lambda: ssm.dense_kernel(dense, B, C, dt, length, method, **options),
        lambda: ssm.fft_conv(u, kernel),
        lambda: ssm.hippo_legs(size),
    )


def test_state_spaces():
    for rng in cases("state spaces", 500):
        for call in state_spaces(rng):
            attempt("state spaces", call)


(RUN,) = experiments.grid("smoke", loss="nce+rce", rate=0.4)
RECORD = {
    "schema": 1, "id": RUN.id, "run": RUN.to_dict(), "status": "done", "test_accuracy": 0.5, "best_accuracy": 0.5,
    "history": {"loss": [1.0, 0.5], "memorised": [None, 0.25], "resisted": [0.5, 0.25]}, "noise": {"rate": 0.4},
    "data": {"name": "digits", "fingerprint": {"train": "ab"}}, "confusion": [[1, 0], [0, 1]], "parameters": 10, "seconds": 1.0,
    "versions": {"saidl": "0.1"},
}  # fmt: skip


def mutated(rng, value):
    """The record with one of its nodes replaced, removed or repeated."""
    value = copy.deepcopy(value)
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.6:
            node = node[key]
            continue
        action = rng.choice(["replace", "replace", "remove", "add"])
        if action == "replace":
            node[key] = rng.choice([*ODD, "", "x", [], {}, [[]], {"a": 1}, [1, "2"], list(range(5))])
        elif action == "remove":
            del node[key]
        elif isinstance(node, dict):
            node[rng.choice(WORDS)] = rng.choice(ODD)
        else:
            node.append(rng.choice(ODD))
        return value


def test_records(tmp_path):
    path = tmp_path / f"{RUN.id}.json"
    for rng in cases("records", 800):
        content = json.dumps(mutated(rng, RECORD) if rng.random() < 0.7 else RECORD).encode()
        for _ in range(rng.choice([0, 0, 1, 3])):  # and the file's bytes
            at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
            content = rng.choice(
                [content[:at], content[:at] + rng.randbytes(3) + content[at:], content[:at] + content[end:]]
            )
        path.write_bytes(content)
        record = attempt("records", lambda: results.read(path))
        if record is not None:
            assert len(results.load(tmp_path)) == 1  # what can be read can be shown
            assert experiments.Run.from_dict(record["run"]) == RUN


def test_command_line(tmp_path, capsys, monkeypatch):
    def no_network(maker, name, *where):
        raise ConnectionError(f"could not download {name}")

    monkeypatch.setattr(data, "download", no_network)
    monkeypatch.setenv("SAIDL_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    words = [word for word in WORDS if "\0" not in word]  # no shell passes it on
    values = {
        "--profile": ["smoke", "quick"], "--task": ["noise", "digits-sequence"], "--loss": ["ce", "nce+rce"], "--seed": ["0", "1"],
        "--noise": ["symmetric", "asymmetric"], "--rate": ["0.4", "0"], "--model": ["small-cnn"], "--epochs": ["1"], "--jobs": ["1", "-1"],
    }  # fmt: skip
    for rng in cases("command line", 120):
        command = mostly(rng, ["sweep", "data", "run"], words, 0.95)
        argv = [command]
        if command == "data":
            argv += [mostly(rng, ["digits", "mnist", "cifar10", "spoken-digits", str(tmp_path), "file"], words)]
        else:
            for option in rng.sample(sorted(values), k=rng.randint(0, 4)):
                argv += [option, mostly(rng, values[option], [*words, "nan", "inf", "1e99"])]
            argv += (
                ["--dry-run", "--store", "store"] if command == "sweep" else ["--store", "file"]
            )  # nothing is to be trained
        said = attempt("command line", lambda argv=argv: main(argv, capsys))
        assert said is None or "Traceback" not in said


def main(argv, capsys) -> str:
    try:
        status = cli.main(argv)
    except SystemExit as end:  # argparse's
        status = end.code
    out, err = capsys.readouterr()
    assert status in (0, 1, 2), (argv, status)
    if status:
        raise ValueError(err)
    return out


@settings(max_examples=100 * TIMES, deadline=None)
@given(st.text(), st.integers(), st.floats(), st.text(max_size=8))
def test_names_and_numbers_of_any_kind(name, whole, number, word):
    for call in (
        lambda: losses.make(name, whole),
        lambda: losses.make("nce+mae", alpha=number, beta=number),
        lambda: noise.transition_matrix("symmetric", number, min(whole, 50)),
        lambda: noise.transition_matrix(name, 0.5),
        lambda: experiments.grid("smoke", loss=[word, "ce"], rate=number, seed=0),
        lambda: experiments.grid(name or "x"),
        lambda: experiments.grid("smoke", lr=number, epochs=whole),
        lambda: results.own(name),
        lambda: results.write({"id": name}, "nowhere"),
    ):
        attempt("names and numbers", call)
    own = attempt("names and numbers", lambda: results.own(name))
    assert own is None or own.parent == results.own("x").parent


# -------------------------------------------------------------------------------------------------------------------- safety


class Calls:
    """Unpickles to the result of a call, as a malicious file's pickle would."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickles(mark: Path) -> dict[str, bytes]:
    """Files that would run something, by hand and by protocol; `mark` is there if one did."""
    touch = f"open({str(mark)!r}, 'w').close()"
    labels = {"clean_label": np.arange(10), "worse_label": np.arange(10)}
    made = {
        f"protocol {p}, {f.__name__}": pickle.dumps(labels | {"x": Calls(f, argument)}, p)
        for p in range(2, 6)
        for f, argument in ((eval, touch), (exec, touch), (os.system, f"touch {mark}"), (os.mkdir, str(mark)))
    }
    made["global opcode"] = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    made["instance opcode"] = b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n."
    made["stack global"] = (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"
        + bytes([len(f"touch {mark}")])
        + f"touch {mark}".encode()
        + b"\x85R."
    )
    made["nested names"] = b"\x80\x04\x8c\x05numpy\x8c\x19ndarray.__class__.__base__\x93."
    made["by way of numpy"] = pickle.dumps(Calls(np.fromfile, str(mark)))
    made["objects in an array"] = pickle.dumps({"clean_label": np.array([Calls(eval, touch)], dtype=object)})
    made["memory it has not"] = b"\x80\x04\x8e" + (2**62).to_bytes(8, "little")
    return made


def saved(content: bytes) -> bytes:
    """A file as torch saves it, whole but for its pickle, which is this one."""
    made, file = io.BytesIO(), io.BytesIO()
    torch.save({}, made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("/data.pkl") else old.read(name))
    return file.getvalue()


def test_a_malicious_file_of_human_labels_runs_nothing(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "CIFAR-10_human.pt"
    for name, content in pickles(mark).items():
        for file in (content, saved(content)):
            path.write_bytes(file)
            with pytest.raises(ValueError, match=r"CIFAR-10_human\.pt"):
                noise.human_labels("human-worst", tmp_path)
            assert not mark.exists(), name
            TRIED["malicious files"] += 1
    good = pickle.dumps({"clean_label": np.arange(10), "worse_label": np.arange(10)[::-1].copy()}, 2)
    path.write_bytes(saved(good))
    clean, worse = noise.human_labels("human-worst", tmp_path)
    np.testing.assert_array_equal(clean, worse[::-1])
    for seed in range(200 * TIMES):  # the good file or, within a file that is whole, its pickle, damaged
        rng = random.Random(seed)
        content = bytearray(good if seed % 2 else saved(good))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(saved(content) if seed % 2 else content)
        attempt("damaged human labels", lambda: noise.human_labels("human-worst", tmp_path))


def test_an_archive_that_is_not_the_official_one_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    archive, root = tmp_path / CIFAR10.filename, tmp_path / "root" / "data"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../escaped", "../../escaped", str(tmp_path / "escaped"), "cifar-10-batches-py/data_batch_1"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    monkeypatch.setattr(CIFAR10, "url", archive.as_uri())
    with pytest.raises(ConnectionError, match="could not download cifar10"):
        data.load("cifar10", root=root)
    assert not list(tmp_path.rglob("escaped"))
    assert not list(tmp_path.rglob("*batches*"))  # nor is anything half-made left


def test_the_package_unpickles_nothing_openly():
    """Every load in the sources is torch's safe one or of JSON."""
    found = Counter()
    for path in (*(ROOT / "saidl").rglob("*.py"), *(ROOT / "report").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
                if name.endswith(
                    ("pickle.load", "pickle.loads", "joblib.load", "np.load", "pd.read_pickle", "torch.load")
                ):
                    found[name] += 1
                    assert keywords.get("weights_only") == "True", f"{path.name}: {ast.unparse(node)}"
                assert name not in ("eval", "exec", "os.system", "os.popen"), f"{path.name}: {ast.unparse(node)}"
    assert found["torch.load"] > 0


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_do_not_reach_for_a_shell(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for line in source.splitlines():
            assert not line.lstrip().startswith(("!", "%%", "%sx", "%system", "%pip", "%conda")), line
        for node in ast.walk(ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))):
            name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else [name]
            for word in names:
                assert word not in ("eval", "exec", "subprocess", "os.system", "os.popen", "pty", "get_ipython"), source
