"""Losses and the training step against the forms most code has: the one-hot label, and PIL transforms behind a DataLoader."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saidl import data, losses, models, training
from tests.benchmarks.harness import compare, measure, peak_memory, with_gradients

A = losses.LOG_ZERO


def one_hot(name: str, z: Tensor, y: Tensor) -> Tensor:
    """The loss as the widely copied codes have it: softmax, one-hot labels, sums over classes; mean over the batch."""
    K = z.shape[1]
    log_p, hot = F.log_softmax(z, dim=1), F.one_hot(y, K).float()
    p = log_p.exp()
    focal = lambda: -((1 - p).clamp_min(1e-12) ** 0.5) * log_p  # noqa: E731
    values = {
        "ce": lambda: -(hot * log_p).sum(1),
        "fl": lambda: (hot * focal()).sum(1),
        "mae": lambda: 1 - (hot * p).sum(1),
        "rce": lambda: -(p * torch.log(hot.clamp(1e-4, 1.0))).sum(1),
        "gce": lambda: (1 - (hot * p).sum(1) ** 0.7) / 0.7,
        "nce": lambda: -(hot * log_p).sum(1) / -log_p.sum(1),
        "nfl": lambda: (hot * focal()).sum(1) / focal().sum(1),
        "nce+rce": lambda: one_hot("nce", z, y) + one_hot("rce", z, y),
        "nce+mae": lambda: one_hot("nce", z, y) + one_hot("mae", z, y),
    }
    return values[name]().mean()


def loss_rows(repeats: int) -> Iterator[dict]:
    for B, K in ((128, 10), (128, 100), (4096, 1000)):
        z, y = torch.randn(B, K) * 3, torch.randint(K, (B,))
        torch_ce = with_gradients(lambda z, y=y: F.cross_entropy(z, y), [z], torch.tensor(1.0))
        inner = 1 if B > 1000 else 20  # a single small call is shorter than the clock is sharp
        for name in ("ce", "fl", "mae", "rce", "gce", "nce", "nfl", "nce+rce", "nce+mae"):
            ours = with_gradients(partial(losses.make(name, K), target=y), [z], torch.tensor(1.0))
            theirs = with_gradients(lambda z, name=name, y=y: one_hot(name, z, y), [z], torch.tensor(1.0))
            target = 1.3 if B > 1000 and name in ("nce", "mae", "rce") else 1.0
            yield compare(
                f"loss {name} ({B}, {K}), one-hot form",
                times(ours, inner),
                times(theirs, inner),
                repeats=repeats,
                target=target,
            )
            yield compare(
                f"loss {name} ({B}, {K}), F.cross_entropy",
                times(ours, inner),
                times(torch_ce, inner),
                repeats=repeats,
                rtol=None,
            )


def times(call, count: int):
    def repeated():
        for _ in range(count):
            out = call()
        return out

    return repeated


def plain_epoch(images: np.ndarray, labels: np.ndarray, device: str = "cpu", workers: int = 0):
    """One epoch of the 8-layer CNN as the papers' codes run it: PIL transforms, DataLoader, float32, contiguous."""
    from PIL import Image
    from torchvision import transforms

    change = transforms.Compose([
        transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ])  # fmt: skip

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(labels)

        def __getitem__(self, i):
            return change(Image.fromarray(images[i])), int(labels[i])

    several = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
    pinned = {"pin_memory": device == "cuda"}
    loader = torch.utils.data.DataLoader(Pictures(), batch_size=128, shuffle=True, **several, **pinned)
    model = models.make("cnn8").to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def epoch():
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(device)), y.to(device)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

    return epoch


def our_epoch(images: np.ndarray, labels: np.ndarray, device: str = "cpu"):
    part = data.Images(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels), tuple("0123456789"), "bench"
    )
    settings = training.Settings(augment="crop-flip", valid_fraction=0.0)
    return training.Fit(
        models.make("cnn8"), part, part, losses.make("ce"), settings, 0, None, torch.device(device)
    ).train_epoch


def made_up_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=count)


def augmentation_row(repeats: int) -> dict:
    """Crop and flip of one batch: one gather, against torchvision's transforms on each PIL image (different draws, so not compared)."""
    from PIL import Image
    from torchvision import transforms

    images, _ = made_up_images(512)
    canvas = data.padded(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    change = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    generator, index = torch.Generator().manual_seed(0), torch.arange(128)
    ours = lambda: data.crop_flip(canvas, index, data.draw_crops(128, generator)).float()  # noqa: E731
    theirs = lambda: torch.stack([change(Image.fromarray(images[i])) for i in range(128)])  # noqa: E731
    return compare("crop and flip of 128 images, PIL transforms", ours, theirs, repeats=repeats, rtol=None)


def laptop_run() -> None:
    """A laptop run's steps and evaluation, shortened: memory does not grow with epochs."""
    images, labels = made_up_images(5000)
    part = data.Images(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels), tuple("0123456789"), "bench"
    )
    settings = training.Settings(epochs=1, augment="crop-flip")
    training.fit(
        models.make("cnn8", channels=(32, 64, 96)), part, part, losses.make("ce"), settings, seed=0, device="cpu"
    )


def rows(quick: bool = False) -> Iterator[dict]:
    torch.manual_seed(0)
    repeats = 5 if quick else 15
    yield from loss_rows(repeats)
    yield augmentation_row(repeats)
    images, labels = made_up_images(256 if quick else 640)
    bf16 = training.multiplies_bfloat16(torch.device("cpu"))
    row = compare(
        f"CNN8 epoch of {len(labels)} images, plain loop", our_epoch(images, labels), plain_epoch(images, labels),
        repeats=3 if quick else 5, rtol=None, **({"target": 3} if bf16 else {}),
    )  # fmt: skip
    yield row | {"images_per_s": len(labels) / row["ours_ms"] * 1e3, "bf16_matrix_units": bf16}
    (peak,) = peak_memory([laptop_run])
    yield measure(
        "laptop run, one epoch; peak memory beyond the libraries", laptop_run, repeats=1, peak_mb=peak, limit_mb=2048
    )
