"""`python -m tests.benchmarks.released --repo PATH [--loss NAME ...] [--seed N ...] [--save FILE]`

Does the code that Ma et al. 2020 released lose classes on MNIST at asymmetric 0.4, as ours does? HanxunH/Active-Passive-Losses at its
released configuration, for one epoch a seed, from a checkout of your own: its draw of the noise, network, loss and step, on MNIST's
images. Ours are only the order of the batches, without its loader's processes, and the count of what the network names afterwards.
A row is saved as it is made, and one that is there is not made again.
"""

import argparse
import contextlib
import io
import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml
from torchvision import datasets

from saidl import data, results
from tests.benchmarks import peers

CONFIGS = ("nce+rce", "nfl+mae", "mae", "ce")
RATE = 0.4


def rows(folder: Path, commit: str, names: list[str], seeds: list[int], file: Path) -> list[dict]:
    """The rows asked for, old and new; every new one is in the file before the next is begun."""
    made = json.loads(file.read_text()) if file.exists() else []
    for name in names:
        for seed in seeds:
            what = {"repository": "HanxunH/Active-Passive-Losses", "commit": commit, "loss": name, "seed": seed}
            if any(row.items() >= what.items() for row in made):
                continue
            made.append(what | one_epoch(folder, name, seed))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(made, indent=1) + "\n")
            print(made[-1], flush=True)
    return made


def one_epoch(folder: Path, name: str, seed: int) -> dict:
    """class_accuracy: the share of each class's test images that the network names rightly after the epoch."""
    code = {file: peers.load(folder / f"{file}.py", **peers.REGISTER) for file in ("loss", "dataset", "models")}
    trainer = peers.load(folder / "trainer.py", util=peers.load(folder / "util.py"))
    trainer.accuracy = peers.accuracy
    config = yaml.safe_load((folder / "configs" / "mnist" / "asym" / f"{name}.yaml").read_text())

    train, test = data.load("mnist")
    images, labels = train.images, noisy(code["dataset"], train.labels.numpy(), seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = code["models"].ToyModel(type=config["dataset"]["dataset_type"])
    criterion, optimizer = (
        built(config[part], where, *given)
        for part, where, given in (("criterion", code["loss"], ()), ("optimizer", torch.optim, (network.parameters(),)))
    )
    order = torch.randperm(len(images)).split(config["dataset"]["train_batch_size"])
    batches = ((standardised(images[index]), labels[index]) for index in order)
    network.train()
    peers.their_trainer(batches, trainer).train(0, 1, network, optimizer, criterion)
    network.eval()
    with torch.inference_mode():
        guess = torch.cat([network(standardised(part)).argmax(1) for part in test.images.split(1000)])
    right = [(guess == test.labels)[test.labels == c].double().mean().item() for c in range(10)]
    return {"rate": RATE, "class_accuracy": right, "test_accuracy": (guess == test.labels).double().mean().item()}


def built(part: dict, where, *given):
    """What a configuration names, made with its settings."""
    settings = {k: v for k, v in part.items() if k != "name"}
    return getattr(where if hasattr(where, part["name"]) else torch.nn, part["name"])(*given, **settings)


def standardised(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255 - 0.1307) / 0.3081  # as their transforms do


def noisy(dataset, labels: np.ndarray, seed: int) -> torch.Tensor:
    """The labels as their data set draws them, whose constructor would download the images."""

    def constructor(self, *args, **options):
        self.targets = torch.from_numpy(labels.copy())

    with (
        mock.patch.object(datasets.MNIST, "__init__", constructor),
        peers.older_numpy(dataset),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        return torch.as_tensor(dataset.MNISTNoisy("", asym=True, nosiy_rate=RATE, seed=seed).targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, metavar="PATH", help="a checkout")
    parser.add_argument("--commit", action="append", default=[], metavar="ID", help="for one without .git")
    parser.add_argument("--loss", nargs="+", default=CONFIGS[:2], choices=CONFIGS)
    parser.add_argument("--seed", nargs="+", type=int, default=range(10))
    parser.add_argument("--save", type=Path, default=results.recorded("released.json"))
    args = parser.parse_args()
    folder = args.repo.resolve()
    commit = peers.commit_of(folder, args.commit)
    made = rows(folder, commit, args.loss, args.seed, args.save)
    print(f"{len(made)} rows in {args.save}")


if __name__ == "__main__":
    main()
