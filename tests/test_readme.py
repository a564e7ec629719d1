import pandas as pd

from saidl import results
from tests import readme


def test_readme_shows_what_was_recorded():
    text = (results.project() / "README.md").read_text()
    assert [m[2] for m in readme.BLOCK.finditer(text)] == ["results", "faults", "speed"]
    assert readme.updated(text) == text, "run `make readme`"


def test_readme_tells_how_many_seeds():
    two, one = ("symmetric", "0.4"), ("asymmetric", "0.4")
    counts = {("ce", *two): 2, ("ce", *one): 2, ("mae", *two): 2, ("mae", *one): 2, ("fl", *two): 2, ("fl", *one): 1}
    told = lambda counts: readme.seeds(pd.Series(counts))  # noqa: E731
    assert told(dict.fromkeys(counts, 1)) == "one seed"
    assert told(counts) == "mean of 2 seeds (FL at asym. 0.4: one seed)"
    newer = {("jal-ce", *two): 1, ("jal-ce", *one): 1, ("anl-ce", *two): 1}
    assert told(counts | newer) == "mean of 2 seeds (FL at asym. 0.4: one seed; JAL-CE, ANL-CE: one seed)"
