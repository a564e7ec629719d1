from saidl import results
from tests import readme


def test_readme_shows_what_was_recorded():
    text = (results.project() / "README.md").read_text()
    assert [m[2] for m in readme.BLOCK.finditer(text)] == ["results", "faults", "speed"]
    assert readme.updated(text) == text, "run `make readme`"
