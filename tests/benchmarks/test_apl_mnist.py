"""The authors' code on MNIST, as far as it goes without their checkout."""

import textwrap

import numpy as np

from tests.benchmarks import apl_mnist, peers


def test_the_released_draw_is_of_the_true_labels_and_needs_no_images(tmp_path):
    code = """
        import numpy as np
        from torchvision import datasets

        class MNISTNoisy(datasets.MNIST):
            def __init__(self, root, nosiy_rate, asym, seed):
                super().__init__(root, download=True)
                self.targets = self.targets.numpy() + seed
    """
    (tmp_path / "dataset.py").write_text(textwrap.dedent(code))
    labels = np.arange(10)
    drawn = apl_mnist.noisy(peers.load(tmp_path / "dataset.py"), labels, 0.4, seed=3)
    assert drawn.tolist() == [label + 3 for label in range(10)]
    assert labels.tolist() == list(range(10))


def test_a_row_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(apl_mnist, "train", lambda folder, **cell: made.append(cell) or {"test_accuracy": [0.9]})
    cell = {"loss": "mae", "rate": 0.4, "epochs": 1}
    ask = lambda seeds: apl_mnist.rows(tmp_path, "abc", [cell | {"seed": s} for s in seeds], tmp_path / "rows.json")  # noqa: E731
    assert [row["seed"] for row in ask([0, 1])] == [0, 1]
    assert [row["seed"] for row in ask([1, 2])] == [0, 1, 2]
    assert [one["seed"] for one in made] == [0, 1, 2]
