"""`python -m tests.benchmarks.apl_released --repo PATH [--data NAME] [--loss NAME ...] [--rate RATE] [--seed N ...] [--epochs N]`

Where our runs are far from the published ones: is the code that Ma et al. 2020 released, too? HanxunH/Active-Passive-Losses at its
released configuration, from a checkout of your own: its draw of asymmetric noise, network, loss and step on MNIST's images, or
CIFAR-10's. Ours are only the order of the batches, without its loader's processes, on CIFAR-10 the crops, and the count of what the
network names rightly after every epoch. A row is saved as it is made, and one that is there is not made again. By default the first
three epochs on MNIST at rate 0.4, ten seeds.
"""

import argparse
import contextlib
import io
import json
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml
from torchvision import datasets
from tqdm import tqdm

from saidl import results
from saidl.data import crop_flip, draw_crops, load, padded
from tests.benchmarks import peers

# our name of a loss: its configuration's
NAMED = {"nce+rce": "nce+rce", "nfl+mae": "nfl+mae", "mae": "mae", "ce": "ce", "fl": "focal"}


def rows(folder: Path, commit: str, cells: list[dict], file: Path) -> list[dict]:
    """The rows of the cells {loss, rate, seed, epochs} (with data, if it is not MNIST), old and new; every new one is in the file before
    the next is begun."""
    made = json.loads(file.read_text()) if file.exists() else []
    for cell in cells:
        what = {"repository": "HanxunH/Active-Passive-Losses", "commit": commit} | cell
        if any(row.items() >= what.items() for row in made):
            continue
        made.append(what | train(folder, **cell))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made) + "\n")
        print(f"{cell}: {made[-1]['test_accuracy'][-1]:.2%}", flush=True)
    return made


def train(folder: Path, loss: str, rate: float, seed: int, epochs: int, data: str = "mnist") -> dict:
    """After each epoch the share of all test images (test_accuracy) and of each class's (class_accuracy) that the network names rightly."""
    losses, dataset, networks, trainer = peers.apl_code(folder)
    config = yaml.safe_load((folder / "configs" / data / "asym" / f"{NAMED[loss]}.yaml").read_text())

    split = load(data)
    images, labels = split.train.images, noisy(dataset, split.train.labels.numpy(), rate, seed, data)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = networks.ToyModel(type=config["dataset"]["dataset_type"])
    criterion = built(config["criterion"], losses)
    optimizer = built(config["optimizer"], torch.optim, network.parameters())
    # "$epochs" in it stands for the number of all epochs
    schedule = {k: config["epochs"] if v == "$epochs" else v for k, v in config["scheduler"].items()}
    schedule = built(schedule, torch.optim.lr_scheduler, optimizer)
    shown = cropped(images) if data == "cifar10" else images.__getitem__
    out = {"test_accuracy": [], "class_accuracy": []}
    for _ in tqdm(range(epochs), desc=f"{loss} {rate} seed {seed}", disable=epochs == 1):
        order = torch.randperm(len(images)).split(config["dataset"]["train_batch_size"])
        batches = ((standardised(shown(index), data), labels[index]) for index in order)
        peers.their_trainer(batches, trainer).train(0, 1, network, optimizer, criterion)
        schedule.step()
        right = named_rightly(network, split.test.images, split.test.labels, data)
        out["test_accuracy"].append(right.double().mean().item())
        out["class_accuracy"].append([right[split.test.labels == c].double().mean().item() for c in range(10)])
    return out


def named_rightly(network, images: torch.Tensor, labels: torch.Tensor, data: str) -> torch.Tensor:
    network.eval()
    with torch.inference_mode():
        guess = torch.cat([network(standardised(part, data)).argmax(1) for part in images.split(1000)])
    return guess == labels


def cropped(images: torch.Tensor):
    """What shows a batch of them, index (B,) -> (B, C, H, W), cut and mirrored at random as their transforms do."""
    canvas = padded(images)
    return lambda index: crop_flip(canvas, index, draw_crops(len(index), torch.default_generator)).contiguous()


def built(part: dict, where, *given):
    """What a configuration names, made with its settings."""
    settings = {k: v for k, v in part.items() if k != "name"}
    return getattr(where if hasattr(where, part["name"]) else torch.nn, part["name"])(*given, **settings)


STATISTICS = {  # mean and standard deviation of their transforms
    "mnist": ([0.1307], [0.3081]),
    "cifar10": ([0.49139968, 0.48215827, 0.44653124], [0.24703233, 0.24348505, 0.26158768]),
}


def standardised(images: torch.Tensor, data: str) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in STATISTICS[data])
    return (images.float() / 255 - mean) / std


def noisy(dataset, labels: np.ndarray, rate: float, seed: int, data: str = "mnist") -> torch.Tensor:
    """The labels as their data set draws them, whose constructor would download the images."""

    def constructor(self, *args, **options):
        self.targets = torch.from_numpy(labels.copy()) if data == "mnist" else labels.tolist()

    with (
        mock.patch.object(getattr(datasets, data.upper()), "__init__", constructor),
        peers.older_numpy(dataset),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        if data == "mnist":
            return torch.as_tensor(dataset.MNISTNoisy("", asym=True, nosiy_rate=rate, seed=seed).targets)
        np.random.seed(seed)  # noqa: NPY002 (theirs draws from it)
        return torch.as_tensor(dataset.cifar10Nosiy("", asym=True, nosiy_rate=rate).targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, metavar="PATH", help="a checkout")
    parser.add_argument("--commit", action="append", default=[], metavar="ID", help="for one without .git")
    parser.add_argument("--data", default="mnist", choices=STATISTICS)
    parser.add_argument("--loss", nargs="+", default=["nce+rce", "nfl+mae"], choices=NAMED)
    parser.add_argument("--rate", type=float, default=0.4)
    parser.add_argument("--seed", nargs="+", type=int, default=range(10))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save", type=Path, metavar="FILE")
    args = parser.parse_args()
    folder, cells = args.repo.resolve(), product(args.loss, [args.rate], args.seed, [args.epochs])
    cells = [dict(zip(("loss", "rate", "seed", "epochs"), cell, strict=True)) for cell in cells]
    if args.data != "mnist":  # a row of MNIST does not name its data
        cells = [cell | {"data": args.data} for cell in cells]
    file = args.save or results.recorded(f"apl-{args.data}.json")
    made = rows(folder, peers.commit_of(folder, args.commit), cells, file)
    print(f"{len(made)} rows in {file}")


if __name__ == "__main__":
    main()
