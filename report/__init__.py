"""The report: from recorded results to a PDF.

`build` reads the stores and makes all that the chapters take in - figures (vector PDF), tables (booktabs) and the numbers of the
prose, under report/generated - then latexmk typesets report/main.tex. In the chapters a number is \\val{key}, and `Numbers` looks up
each key found there: a sentence can name any cell, and a key that means nothing stops the build.

    python -m saidl.cli report [--no-latex] [--publish] [--packages] [--store FOLDER ...]
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd

from report import floats
from report.prose import Numbers, used_keys
from saidl import experiments, figures, results

LATEX_PACKAGES = ("latexmk", "texlive-latex-base", "texlive-latex-recommended", "lmodern")  # Debian's names
LIMIT = 5.0  # points by which a box may stick out


def build(stores=None, out="report", latex: bool = True, publish: bool = False) -> Path | None:
    """Make the report.

    Arguments: stores, folders of results; a run that several hold counts as in the last (default: the recorded profiles, then your
        own runs); out, the report's folder in the checkout (one without sources gets a copy of them); latex, whether to typeset;
        publish, whether to leave your own runs out and copy the PDF to saidl-report.pdf.
    Returns: the PDF, or None when not typeset; without LaTeX one line on the terminal says what to install.
    Raises RuntimeError for LaTeX errors, undefined references, boxes that stick out and keys that mean nothing. Damaged result
        files are left out and named, on the terminal and in the report.
    """
    if not (results.project() / "report" / "__init__.py").is_file():
        raise ValueError(f"the report is made in the project's checkout, which {Path.cwd()} is not part of")
    out = results.project() / out
    frame, left_out = load(stores, own=not publish)
    if not (out / "main.tex").exists():
        shutil.copytree(results.project() / "report", out, ignore=all_but_sources, dirs_exist_ok=True)
    generated = out / "generated"
    shutil.rmtree(generated, ignore_errors=True)
    generated.mkdir(parents=True)
    for name, table in floats.TABLES.items():
        (generated / f"{name}.tex").write_text(table(frame))
    for name, draw in floats.FIGURES.items():
        figures.save(draw(frame), generated / f"{name}.pdf")
    numbers, keys = Numbers(frame, left_out), used_keys(out)
    (generated / "numbers.tex").write_text("".join(f"\\setval{{{key}}}{{{numbers[key]}}}\n" for key in keys))
    made = f"{len(floats.FIGURES)} figures, {len(floats.TABLES)} tables and {len(keys)} numbers"
    print(f"{made} from {len(frame)} runs: {generated}")
    if not latex:
        return None
    if not (shutil.which("latexmk") and shutil.which("pdflatex")):
        print(f"no PDF without LaTeX; on Debian or Ubuntu: sudo apt-get install {' '.join(LATEX_PACKAGES)}")
        return None
    pdf = typeset(out)
    if publish:
        shutil.copyfile(pdf, out / "saidl-report.pdf")
    print(f"the report: {pdf}")
    return pdf


def load(stores=None, own: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """The runs of some stores (default: recorded, then `own`; smoke tests are no results) and the damaged files, a line each."""
    if stores is None:
        places = (results.recorded, results.own) if own else (results.recorded,)
        stores = [where(profile) for where in places for profile in experiments.PROFILES]
    elif absent := [str(store) for store in stores if not Path(store).is_dir()]:
        raise FileNotFoundError(f"no folder {', '.join(absent)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = results.load(*stores, quarantine=False)
    left_out = [str(w.message) for w in caught if "left out" in str(w.message)]
    for line in left_out:
        print(line, file=sys.stderr)
    frame = frame[frame.profile != "smoke"]
    frame.attrs["bench"] = None if own else results.recorded("bench.json")
    return frame, left_out


def all_but_sources(folder, names) -> list[str]:
    return [name for name in names if not name.endswith((".tex", ".bib")) and name != "chapters"]


# ------------------------------------------------------------------------------------------------------------ LaTeX


def typeset(out: Path) -> Path:
    """latexmk, then what must not be in its log. Dates are fixed, so equal input gives equal bytes."""
    command = ["latexmk", "-pdf", "-g", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "main.tex"]
    fixed = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "1000"}
    done = subprocess.run(command, cwd=out, env=os.environ | fixed, capture_output=True, text=True, errors="replace")
    log = out / "main.log"
    problems = complaints(log.read_text(errors="replace")) if log.exists() else []
    if done.returncode and not problems:
        problems = [(done.stdout + done.stderr)[-2000:]]
    if problems:
        told = "; ".join(problems)
        hint = f"; it needs Debian's {' '.join(LATEX_PACKAGES)}" if "not found" in told else ""
        raise RuntimeError(f"the report does not typeset: {told}{hint}")
    return out / "main.pdf"


def complaints(log: str) -> list[str]:
    """The lines of a LaTeX log that fail a build: errors, else undefined references and citations and boxes over LIMIT."""
    errors = re.findall(r"^(?:! .*|\S+\.tex:\d+: .*|.*LaTeX Error.*)$", log, re.M)
    if errors:
        return list(dict.fromkeys(errors))
    found = re.findall(r"^.*Warning: (?:Reference|Citation) .* undefined.*$", log, re.M)
    boxes = re.findall(r"^(Overfull \\[hv]box \(([\d.]+)pt too.*)$", log, re.M)
    return list(dict.fromkeys(found + [line for line, width in boxes if float(width) > LIMIT]))
