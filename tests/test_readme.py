from saidl import results
from tests import readme


def test_readme_shows_what_was_recorded():
    text = (results.project() / "README.md").read_text()
    assert readme.BLOCK.search(text)
    assert readme.updated(text) == text, "run `make readme`"
