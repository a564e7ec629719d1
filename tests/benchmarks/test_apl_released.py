"""The authors' code on MNIST and CIFAR-10, as far as it goes without their checkout."""

import textwrap

import numpy as np

from tests.benchmarks import apl_released, peers


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
    drawn = apl_released.noisy(peers.load(tmp_path / "dataset.py"), labels, 0.4, seed=3)
    assert drawn.tolist() == [label + 3 for label in range(10)]
    assert labels.tolist() == list(range(10))


def test_the_released_draw_on_cifar10_follows_the_seed(tmp_path):
    code = """
        import numpy as np
        from torchvision import datasets

        class cifar10Nosiy(datasets.CIFAR10):
            def __init__(self, root, nosiy_rate, asym):
                super().__init__(root)
                for i in np.random.choice(len(self.targets), int(nosiy_rate * len(self.targets)), replace=False):
                    self.targets[i] = 0
    """
    (tmp_path / "dataset.py").write_text(textwrap.dedent(code))
    labels = np.arange(1, 11)
    draw = lambda seed: apl_released.noisy(peers.load(tmp_path / "dataset.py"), labels, 0.4, seed, "cifar10").tolist()  # noqa: E731
    assert draw(3) == draw(3) != draw(4)
    assert sum(a != b for a, b in zip(draw(3), labels, strict=True)) == 4


def test_a_row_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(apl_released, "train", lambda folder, **cell: made.append(cell) or {"test_accuracy": [0.9]})
    cell = {"loss": "mae", "rate": 0.4, "epochs": 1}
    ask = lambda seeds: apl_released.rows(tmp_path, "abc", [cell | {"seed": s} for s in seeds], tmp_path / "rows.json")  # noqa: E731
    assert [row["seed"] for row in ask([0, 1])] == [0, 1]
    assert [row["seed"] for row in ask([1, 2])] == [0, 1, 2]
    assert [one["seed"] for one in made] == [0, 1, 2]
