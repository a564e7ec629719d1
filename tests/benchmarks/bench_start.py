"""What starting costs: importing all that notebooks import, against importing torch alone, and `saidl --help`; fresh processes."""

import subprocess
import sys
from collections.abc import Iterator

from saidl import results
from tests.benchmarks.harness import compare, measure

PROMISED = 1000.0  # ms for the command's help
NOTEBOOKS = "data experiments figures losses models noise results scaling ssm study suspects sweep tables training"


def python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=results.project())


def rows(quick: bool = False) -> Iterator[dict]:
    repeats = 3 if quick else 9
    everything = f"from saidl import {NOTEBOOKS.replace(' ', ', ')}\nssm.S4D, ssm.numpy_s4"
    yield compare(
        "import of every module, import torch",
        lambda: python("-c", everything),
        lambda: python("-c", "import torch"),
        repeats=repeats,
        target=1 / 2.5,
        rtol=None,
    )
    row = measure("saidl --help", lambda: python("-m", "saidl.cli", "--help"), repeats=repeats)
    ratios = {key: PROMISED / row[ms] for key, ms in (("ratio", "ours_ms"), ("low", "high_ms"), ("high", "low_ms"))}
    yield row | {"name": "saidl --help, a second", "baseline_ms": PROMISED, "target": 1.0} | ratios
