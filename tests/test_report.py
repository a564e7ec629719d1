"""The report: every float and number it takes in, what stops it, and that no result is typed by hand."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import report
from report import floats
from report.latex import CITED
from report.prose import NOT_RUN, Numbers, used_keys
from saidl import cli, experiments, figures, results

from .test_tables import record, store

SOURCES = Path(__file__).parents[1] / "report"
CHAPTERS = sorted((SOURCES / "chapters").glob("*.tex"))

# Digits that may stand in the prose: in formulas, in commands that refer or measure, in code, and in these names.
FORMULAS = r"\$[^$]*\$|\\\[.*?\\\]|\\begin\{(equation|tabular|tabbing)\}.*?\\end\{\1\}"
COMMANDS = r"\\(val|ref|eqref|label|cite[pt]?|citealp|citet|input|tab|pic|code|renewcommand|hspace|begin|end)\*?(\[[^]]*\])?\{[^{}]*\}"
NAMES = r"\bS4D?\b|\bCIFAR-10N?\b|\bCIFAR-100\b|\bResNet-34\b|\bSHA-256\b|\bL1\b|\bAlgorithm [12]\b|\b[Nn]otebook~\d+\b|[\d.]+\\linewidth"


def typed_numbers(text: str) -> list[str]:
    """Numbers that stand in LaTeX prose outside the allowed forms, each with what is around it; a per cent sign in a formula
    makes it a result."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    found = re.findall(r"\$[^$]*\d[^$]*\\%[^$]*\$|\$[^$]*\d[^$]*\$\s*(?:\\,)?\\%", text)
    for allowed in (FORMULAS, COMMANDS, NAMES):
        text = re.sub(allowed, " ", text, flags=re.S)
    return found + [m[0].strip() for m in re.finditer(r".{0,30}\d[\d.,]*.{0,20}", text)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_number_is_typed(path):
    assert typed_numbers(path.read_text()) == []


def test_the_abstract_types_no_number():
    assert (
        typed_numbers((SOURCES / "main.tex").read_text().split(r"\begin{abstract}")[1].split(r"\end{abstract}")[0])
        == []
    )


@pytest.mark.parametrize(
    "text",
    ["CE reaches 71.2 there", r"by 3 points", r"$71.2\%$ of", r"$71.2$\,\% of", r"ends at 45\,\%", r"\emph{12} runs"],
)
def test_the_scan_finds_a_typed_number(text):
    assert typed_numbers(text)


@pytest.mark.parametrize(
    "text", [r"at $\eta=0.4$", r"\val{acc/quick/symmetric/0.4/ce}", r"S4D on CIFAR-10 \citep{ma2020}", "% 12"]
)
def test_the_scan_lets_formulas_and_names_pass(text):
    assert not typed_numbers(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The report from a store of three runs, not typeset; a fourth file is damaged."""
    folder = tmp_path_factory.mktemp("report")
    store(folder / "runs", ce=[0.7, 0.8], mae=[0.9])
    (folder / "runs" / "0123456789abcdef.json").write_text("{")
    assert report.build([folder / "runs"], out=folder / "report", latex=False) is None
    return folder / "report"


def test_a_build_makes_everything_the_chapters_take_in(built):
    text = "".join(path.read_text() for path in built.glob("chapters/*.tex"))
    tables = re.findall(r"\\tab(?:\[[^]]*\])?\{([^}]+)\}", text)
    pictures = re.findall(r"\\pic\{([^}]+)\}", text)
    assert sorted(tables) == sorted(floats.TABLES)
    assert sorted(pictures) == sorted(floats.FIGURES)
    for name in tables:
        assert (built / "generated" / f"{name}.tex").stat().st_size
    for name in pictures:
        assert (built / "generated" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    numbers = (built / "generated" / "numbers.tex").read_text()
    assert set(re.findall(r"setval\{([^}]+)\}", numbers)) == set(used_keys(built))


def test_numbers_come_from_the_runs(built):
    numbers = (built / "generated" / "numbers.tex").read_text()
    assert r"\setval{acc/quick/symmetric/0.4/ce}{75.0 {\scriptsize$\pm$} 7.1\,\%}" in numbers
    assert rf"\setval{{acc/quick/symmetric/0.4/nce+rce}}{{{NOT_RUN}}}" in numbers
    # the seed that both losses have
    assert r"\setval{order/quick/symmetric/0.4}{MAE (90.0); CE (70.0)}" in numbers
    assert "0123456789abcdef.json" in re.search(r"setval\{left-out\}\{(.*)\}", numbers)[1]
    quick = (built / "generated" / "quick.tex").read_text()
    assert re.search(r"^CE &.* 75\.0 ", quick, re.M)


@pytest.mark.parametrize(
    "key",
    [
        "acc/quick/symmetric/0.4/nosuch",
        "nosuch/key",
        "acc/huge/symmetric/0.4/ce",
        "seq/quick/digits-sequence/cnn",
        "pub/cifar10/symmetric/0.33/ce",
        "mnist/symmetric/0.8/nosuch/none",
        "mnist/symmetric/0.8/nce+rce/none",
        "early/nosuch",
        "released/nosuch/0.2",
        "order/quick/loud/0.4",
        "far/paper/loud",
    ],
)
def test_a_key_that_means_nothing_stops_the_build(key, tmp_path):
    numbers = Numbers(results.load(tmp_path))
    with pytest.raises(RuntimeError, match=re.escape(key)):
        numbers[key]


def test_runs_on_another_processor_are_counted():
    here, there = (
        {path.name: json.loads(path.read_text())["test_accuracy"] for path in results.recorded(name).glob("*.json")}
        for name in ("quick", "other-cpu")
    )
    apart = [abs(there[name] - here[name]) for name in there]
    numbers = Numbers(results.load(results.recorded("quick"), quarantine=False))
    assert numbers["other-cpu/runs"] == str(len(there))
    assert numbers["other-cpu/equal"] == str(sum(a == 0 for a in apart))
    assert numbers["other-cpu/point"] == str(sum(a > 0.01 for a in apart))
    assert f"{100 * max(apart):.1f}" in numbers["other-cpu/farthest"]


def test_late_epochs_and_detached_factors_are_found():
    frame = results.load(results.recorded("paper"), quarantine=False)
    (run,) = experiments.grid("paper", task="mnist-noise", loss="fl", rate=0.8)
    told = [
        100 * v for v in results.read(results.recorded("paper") / f"{run.id}.json")["history"]["test_accuracy"][-8:]
    ]
    numbers = Numbers(frame)
    assert numbers["late/paper:mnist-noise/symmetric/0.8/fl/8"] == rf"{min(told):.1f} to {max(told):.1f}\,\%"
    detached = replace(run, loss_options=(*run.loss_options, ("detached", True)))
    accuracy = results.read(results.recorded("paper") / f"{detached.id}.json")["test_accuracy"]
    assert numbers["mnist/symmetric/0.8/fl/none/detached"] == rf"{100 * accuracy:.1f}\,\%"
    assert numbers["mnist/symmetric/0.8/fl/none"] == rf"{told[-1]:.1f}\,\%"


def test_classes_controls_and_more_images_are_found(tmp_path):
    (run,) = experiments.grid("laptop", loss="ce", noise="asymmetric", rate=0.4)
    told = record(run, 0.5)
    told["history"]["class_accuracy"] = [[0.1 * c for c in range(10)]] * 59 + [[0.0] * 2 + [0.5] * 8]
    results.write(told, tmp_path)
    big = record(replace(run, train_size=experiments.more_images()[0].train_size), 0.75)
    big["history"]["class_accuracy"] = told["history"]["class_accuracy"]
    results.write(big, tmp_path)
    ratio = round(10 * math.log(10))  # at p = 1/K NCE is cross-entropy divided by K log K, which is stationary there
    for lr, accuracy in ((0.02, 0.9), (0.02 / ratio, 0.8), (0.002, 0.7)):
        (slow,) = experiments.grid("quick", loss="ce", rate=0.4, lr=lr)
        results.write(record(slow, accuracy), tmp_path)
    for by_class in (  # of a long run, then of a short one
        [[0.5] * 10, [0.5] * 10, [0.5, 0.0] + [0.5] * 8],
        [[0.5] * 9 + [0.0], [0.0] + [0.5] * 9],
    ):
        (run,) = experiments.grid("paper", loss="nce+rce", noise="asymmetric", rate=0.4, epochs=len(by_class))
        first = record(run, 0.5)
        first["history"]["class_accuracy"] = by_class
        results.write(first, tmp_path)
    (run,) = experiments.grid("paper", loss="nce+rce", noise="asymmetric", rate=0.4, epochs=1, lr=0.1)  # not the recipe
    results.write(record(run, 0.5), tmp_path)
    numbers = Numbers(results.load(tmp_path))
    lost = [numbers[f"first/asymmetric/nce+rce/{epoch}"] for epoch in (1, 2, 3)]
    assert lost == ["truck", "airplane", "automobile"]
    assert numbers["first/asymmetric/nce+rce/4"] == NOT_RUN
    assert numbers["class/laptop/asymmetric/0.4/ce/3/5"].startswith("30")
    assert numbers["class/laptop/asymmetric/0.4/ce/1"].startswith("0")
    assert numbers["acc/laptop/asymmetric/0.4/ce"].startswith("50.0")
    assert numbers["more/asymmetric/0.4/ce"].startswith("75.0")
    assert numbers["more/asymmetric/0.4/ce/lost"] == "0, 1"
    assert numbers["control/ce/0.4"].startswith("80.0")
    assert numbers["control/ce/0.4/memorised"].startswith("25.0")
    assert numbers["ratio/ce/nce"] == str(ratio)
    for key in ("more/symmetric/0.4/ce", "control/nce/0.4", "class/laptop/asymmetric/0.4/mae/1"):
        assert numbers[key] == NOT_RUN


def test_gaps_memory_minutes_and_classes_never_named_are_found(tmp_path):
    (ce,), (mae,) = (experiments.grid("quick", loss=loss, rate=0.4) for loss in ("ce", "mae"))
    told = record(ce, 0.7)
    told["history"]["memorised"][-1], told["history"]["resisted"][-1] = 0.6, 0.1
    told["confusion"] = [[5, 0, 0], [2, 3, 0], [0, 5, 0]]  # the last class is never named, though it is there
    told["data"]["classes"] = ["a", "b", "c"]
    results.write(told, tmp_path)
    results.write(record(mae, 0.5), tmp_path)
    (s4d,) = experiments.grid("laptop", task="smnist")
    slow = record(s4d, 0.5)
    slow["history"]["seconds"] = [60.0, 90.0, 300.0]  # others were busy beside the later ones
    results.write(slow, tmp_path)
    numbers = Numbers(results.load(tmp_path))
    assert numbers["gap/quick/symmetric/0.4/ce/0.4/mae"] == "20.0"
    assert numbers["mem/quick/symmetric/0.4/ce"] == "60.0\\,\\%"
    assert numbers["never/quick/symmetric/0.4/ce"] == "c"
    assert numbers["minutes/laptop/smnist/s4d/zoh"] == "3"


def test_a_whole_run_tells_which_classes_came_back(tmp_path):
    (run,) = experiments.grid("paper", loss="nce+rce", noise="asymmetric-sequential", rate=0.4)
    whole = record(run, 0.5)
    whole["history"]["test_accuracy"] = [0.3, 0.4, 0.5]
    whole["history"]["class_accuracy"] = [[0.6, 0.0, 0.0], [0.6, 0.3, 0.0], [0.6, 0.4, 0.01]]
    whole["data"]["classes"] = ["a", "b", "c"]
    results.write(whole, tmp_path)
    numbers = Numbers(results.load(tmp_path))
    told = [numbers[f"whole/nce+rce/{key}"] for key in ("epochs", "back", "lost", "accuracy")]
    assert told == ["3", "b by epoch 2", "c", "50.0\\,\\%"]
    assert numbers["whole/ce/accuracy"] == NOT_RUN


def test_own_runs_take_the_place_of_recorded_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("SAIDL_STORE", str(tmp_path / "own"))
    monkeypatch.setattr(results, "recorded", lambda profile: tmp_path / "recorded" / profile)
    store(tmp_path / "recorded" / "quick", ce=[0.5], mae=[0.6])
    store(tmp_path / "own" / "quick", ce=[0.7])
    (smoke,) = experiments.grid("smoke", loss="ce")
    results.write(record(smoke, 0.1), tmp_path / "own" / "smoke")
    frame, left_out = report.load()
    assert frame.set_index("loss").test_accuracy.to_dict() == {"ce": 0.7, "mae": 0.6}
    assert left_out == []


def test_without_latex_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(floats, "FIGURES", {})
    monkeypatch.setattr(floats, "TABLES", {})
    assert report.build([tmp_path], out=tmp_path / "report") is None
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "apt-get install" in last
    assert all(package in last for package in report.LATEX_PACKAGES)


def test_a_folder_that_is_no_checkout_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "report/generated").mkdir(parents=True)
    (tmp_path / "report/main.tex").write_text("mine")
    (tmp_path / "report/generated/mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="checkout"):
        report.build(latex=False)
    assert (tmp_path / "report/generated/mine.txt").exists()


def test_a_store_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report.build([tmp_path / "nowhere"], tmp_path / "out", latex=False)


def test_complaints_about_a_log():
    box = "Overfull \\hbox ({}pt too wide) in paragraph at lines 3--4"
    log = "\n".join([
        "LaTeX Warning: Reference `tab:x' on page 3 undefined on input line 7.",
        "Package natbib Warning: Citation `y' on page 1 undefined on input line 5.",
        box.format("4.9"), box.format("5.2"), "Underfull \\hbox (badness 10000) in paragraph",
    ])  # fmt: skip
    found = report.complaints(log)
    assert len(found) == 3
    assert not any("4.9" in line or "Underfull" in line for line in found)
    assert report.complaints("./chapters/a.tex:3: Undefined control sequence.\n" + log) == [
        "./chapters/a.tex:3: Undefined control sequence."
    ]


@pytest.mark.skipif(not shutil.which("latexmk"), reason="needs LaTeX")
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("Text.", None),
        (r"See \ref{nowhere}.", "nowhere"),
        (r"\includegraphics{nothere}", "nothere"),
        (r"\noindent\hbox to 40em{\hrulefill}", "Overfull"),
    ],
)
def test_typesetting_fails_on_what_must_not_pass(body, complaint, tmp_path):
    head = r"\documentclass{article}\usepackage{graphicx}\setlength{\textwidth}{20em}\begin{document}"
    (tmp_path / "main.tex").write_text(head + body + r"\end{document}")
    if complaint is None:
        assert report.typeset(tmp_path).read_bytes().startswith(b"%PDF")
    else:
        with pytest.raises(RuntimeError, match=complaint):
            report.typeset(tmp_path)


def test_equal_figures_are_equal_files(tmp_path):
    frame = results.load(tmp_path)
    once, again = (
        figures.save(floats.FIGURES["hippo"](frame), tmp_path / name).read_bytes() for name in ("a.pdf", "b.pdf")
    )
    assert once == again


def test_every_citation_is_in_the_bibliography_and_every_entry_is_cited():
    entries = set(re.findall(r"^@\w+\{(\w+),", (SOURCES / "refs.bib").read_text(), re.M))
    cited = {
        key
        for path in CHAPTERS
        for group in re.findall(r"\\cite\w*\{([^}]+)\}", path.read_text())
        for key in group.split(",")
    }
    assert cited | set(CITED.values()) == entries


def test_packages_and_errors_on_the_command_line(tmp_path, monkeypatch, capsys):
    assert cli.main(["report", "--packages"]) == 0
    assert capsys.readouterr().out.split() == list(report.LATEX_PACKAGES)
    monkeypatch.setattr(report, "build", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("it does not typeset")))
    assert cli.main(["report"]) == 1
    assert "it does not typeset" in capsys.readouterr().err
    told = []
    monkeypatch.setattr(report, "build", lambda stores, **options: told.append((stores, options)))
    assert cli.main(["report", "--publish", "--no-latex", "--store", "here"]) == 0
    assert told == [(["here"], {"publish": True, "latex": False})]


def test_the_command_finds_the_checkouts_report_and_says_so_elsewhere(tmp_path):
    def command(folder):
        words = [sys.executable, "-m", "saidl", "report", "--packages"]
        return subprocess.run(words, cwd=folder, env=path, capture_output=True, text=True)

    (tmp_path / "saidl").symlink_to(SOURCES.parent / "saidl")  # the package alone
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    for folder in (SOURCES.parent / "notebooks", SOURCES):  # the latter's files must not stand for Python's own
        assert command(folder).stdout.split() == list(report.LATEX_PACKAGES)
    (tmp_path / "report").mkdir()
    elsewhere = command(tmp_path)
    assert (elsewhere.returncode, elsewhere.stdout) == (1, "")
    assert re.fullmatch(
        r"saidl: the report is made in the project's checkout, which .* is not part of\n", elsewhere.stderr
    )
