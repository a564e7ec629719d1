"""Data sets as tensors: one uint8 tensor of images, one int64 tensor of labels, ready to sit on the device.

    >>> split = load("digits")
    >>> split.train.images.shape, len(split.test)
    (torch.Size([1297, 1, 8, 8]), 500)

No DataLoader and no workers: a whole data set fits in memory, batches are index lookups, and augmentation happens where the data is.
"""

import contextlib
import csv
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from saidl.checks import MissingData, NoNetwork, form, whole

TORCHVISION = {  # name: its class there, the folder it keeps the files in
    "mnist": ("MNIST", "MNIST"), "fashion-mnist": ("FashionMNIST", "FashionMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python"),
}  # fmt: skip
# torchvision checks CIFAR's files, but of the MNISTs' only the archives they come in; this is their content, train and test
FINGERPRINTS = {
    "mnist": (
        "f0293062da5c8346533217c2579141bea07eff0159fd6bb8bc2bb9ed0f494936",
        "92038261067ebc8dff6d38d3a3b0868469686c03a912998e209cadf7b071bd4b",
    ),
    "fashion-mnist": (
        "42c0df653f48bce07bec3265d943ce0421198f2130ca976edfdc17fd747c9e4e",
        "3b2fd42ef98fa5690a35dfd222c3de7860b07a93134ea1faf8afbd21ea44eade",
    ),
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES = ("digits", *TORCHVISION, "spoken-digits", "delayed-recall", "adding")


@dataclass(frozen=True, eq=False)
class Images:
    """images (N, C, H, W) uint8 (sounds: int16, made-up sequences: float32, as (N, C, 1, L)); labels (N,) int64; classes, their names;
    index (N,), each sample's place in the full set; files, the full set's file names where it comes from files. Raises ValueError for
    images that are no tensor, or labels of another type or shape."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    index: Tensor | None = None
    files: tuple[str, ...] | None = None

    def __post_init__(self):
        for name, x in {"images": self.images, "labels": self.labels}.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"{name} must be a tensor, not {form(x)}")
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64 of shape (N,), not {form(self.labels)}")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over shapes, pixels and labels: which data a result was made from."""
        digest = hashlib.sha256(f"{tuple(self.images.shape)} {self.images.dtype}".encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def select(self, index) -> "Images":
        """The images and labels at `index` (positions (M,) or a mask (N,)), in that order."""
        index, place = torch.as_tensor(index), torch.arange(len(self)) if self.index is None else self.index
        index = index if index.numel() else index.long()  # an empty list makes a tensor of floats
        return replace(self, images=self.images[index], labels=self.labels[index], index=place[index])

    def __repr__(self) -> str:
        return f"Images({self.name}, images {form(self.images)}, {len(self.classes)} classes)"

    def with_labels(self, labels) -> "Images":
        """The same images with other labels, int64 (N,). Raises ValueError for another type or shape."""
        try:
            labels = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"labels must be int64 of shape ({len(self)},), not {form(labels)}") from None
        if labels.shape != self.labels.shape or labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64 of shape ({len(self)},), not {form(labels)}")
        return replace(self, labels=labels)


class Split(NamedTuple):
    """The two halves of a data set."""

    train: Images
    test: Images


def load(name: str, root=None, train_size: int | None = None, seed: int = 0) -> Split:
    """Load a data set by name, or a folder of your own.

    Arguments: name, one of NAMES or a path to a folder with train/<class>/* and test/<class>/* images of one size (classes and files
        in the order of their names); root, the folder that holds or gets the official files, CIFAR's also as the archive (default:
        SAIDL_DATA, else ./data, ../data, ~/.cache/saidl, whichever has them); train_size, keep so many training samples, equally many of
        each class (None: all), drawn with seed. The test set is always whole.
    Raises ValueError for an unknown name, a wrong size or unreadable files; one that is also a FileNotFoundError for a missing folder, a
    ConnectionError when a download fails, which leaves nothing half-written behind.
    """
    if not isinstance(name, str | os.PathLike) or not str(name):
        raise ValueError(f"name must be one of {', '.join(NAMES)} or an image folder, not {name!r}")
    if name == "digits":
        split = digits()
    elif name in TORCHVISION:
        split = from_torchvision(name, root)
    elif name == "spoken-digits":
        split = spoken_digits(root)
    elif name in ("delayed-recall", "adding"):
        split = synthetic(name)
    elif Path(name).expanduser().is_dir():
        split = from_folder(Path(name).expanduser())
    elif os.sep in str(name) or str(name).startswith((".", "~")):
        raise MissingData(f"no folder {name!r}")
    else:
        raise ValueError(f"name must be one of {', '.join(NAMES)} or an image folder, not {name!r}")
    return split if train_size is None else Split(subset(split.train, train_size, seed), split.test)


def subset(images: Images, size: int, seed: int) -> Images:
    """`size` samples, equally many of each class up to one, drawn without replacement, in their original order."""
    if whole("train_size", size, 1) > len(images):
        raise ValueError(f"train_size must be at most {len(images)}, as many as there are, not {size!r}")
    rng, labels = np.random.default_rng(whole("seed", seed)), images.labels.numpy()
    order = rng.permutation(len(images))
    rank = np.empty(len(images), dtype=np.int64)  # a sample's place among its class in that order
    for c in range(len(images.classes)):
        members = order[labels[order] == c]
        rank[members] = np.arange(len(members))
    keep = np.sort(order[np.argsort(rank[order], kind="stable")][:size])
    return images.select(keep)


def as_sequence(images, grayscale: bool = True) -> Tensor:
    """Images as pixel sequences, row by row: (N, C, H, W) -> float32 (N, L = H W, d).

    Arguments: images, an `Images` or its tensor; uint8 is scaled to [0, 1], int16 to [-1, 1]; grayscale makes one channel of three
        (ITU-R 601 luma, the LRA Image task), else d = C (sequential CIFAR in colour): two different tasks.
    Raises ValueError for another shape or type.
    """
    x = images.images if isinstance(images, Images) else images
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), a torch tensor, not {form(x)}")
    scale = {torch.uint8: 1 / 255, torch.int16: 1 / 32768}.get(x.dtype, 1.0 if x.is_floating_point() else None)
    if scale is None:
        raise ValueError(f"images must be uint8, int16 or floating, not {x.dtype}")
    x = x.float() * scale
    if grayscale and x.shape[1] == 3:
        # filled on the device: a list would be sent there, and a GPU would wait for it
        luma = torch.stack([x.new_full((), share) for share in (0.299, 0.587, 0.114)])
        x = torch.einsum("nchw,c->nhw", x, luma)[:, None]
    return rearrange(x, "n c h w -> n (h w) c")


def permutation(length: int, seed: int = 0) -> Tensor:
    """The fixed shuffle of permuted MNIST: one order for every sample, (length,)."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(length))


# ------------------------------------------------------------------------------------------------------------------ batches


def batches(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
    """Index batches of one shuffled epoch; the last one may be smaller, but never a single sample (batch norm needs two)."""
    parts = list(torch.randperm(count, generator=generator).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


PAD = 4  # pixels of zeros on every side (Ma et al. 2020's crop)


def padded(images: Tensor) -> Tensor:
    """Zero-padded and channels-last in memory, once per run: what `crop_flip` cuts from. (N, C, H, W) -> (N, H + 2 PAD, W + 2 PAD, C)"""
    return torch.nn.functional.pad(images, (PAD,) * 4).permute(0, 2, 3, 1).contiguous()


def draw_crops(batch: int, generator: torch.Generator) -> Tensor:
    """Where to cut each image of a batch, and whether to mirror it: (3, B) int64, rows top and left in [0, 2 PAD], flip 0 or 1."""
    corner = torch.randint(2 * PAD + 1, (2, batch), generator=generator)
    return torch.cat([corner, torch.rand(1, batch, generator=generator).lt(0.5).long()])


def crop_flip(canvas: Tensor, index: Tensor, crops: Tensor) -> Tensor:
    """The images canvas[index] cut and mirrored as `draw_crops` says, in one lookup: -> (B, C, H, W), channels-last in memory."""
    height, width = canvas.shape[1] - 2 * PAD, canvas.shape[2] - 2 * PAD
    top, left, flip = crops[..., None]  # (B, 1) each
    rows = top + torch.arange(height, device=canvas.device)  # (B, H)
    columns = torch.arange(width, device=canvas.device)
    columns = left + torch.where(flip == 1, columns.flip(0), columns)  # (B, W)
    return canvas[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------------------------ sources


def digits() -> Split:
    """Scikit-learn's 8 x 8 digits (Alpaydin & Kaynak 1998), embedded: 1,297 to train, 500 to test, 50 or so a class, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
    train, test = train_test_split(np.arange(len(pixels)), test_size=500, stratify=bunch.target, random_state=0)
    full = make_images(pixels, bunch.target, tuple("0123456789"), "digits")
    return Split(full.select(train), full.select(test))


def from_torchvision(name: str, root) -> Split:
    import torchvision

    maker, place = TORCHVISION[name]
    maker, folder = getattr(torchvision.datasets, maker), find(place, root)
    if folder is None:
        archive = find(getattr(maker, "filename", place), root)  # CIFAR's is one file, which may be there already
        home = archive.parent if archive else root or os.environ.get("SAIDL_DATA") or "~/.cache/saidl"
        folder = Path(home).expanduser() / place
        download(maker, name, folder, archive)
    files = f"{name}: the files in the data folder's {place}"
    try:
        parts = [maker(folder.parent, train=train) for train in (True, False)]
    # torchvision raises RuntimeError, ValueError, EOFError or UnpicklingError, depending on what is broken
    except Exception as error:
        raise ValueError(
            f"{files} are incomplete or damaged ({error}); unpack archives there, remove what is broken"
        ) from error
    split = Split(*(make_images(channels_first(p.data), np.asarray(p.targets), tuple(p.classes), name) for p in parts))
    if name in FINGERPRINTS and (split.train.fingerprint, split.test.fingerprint) != FINGERPRINTS[name]:
        raise ValueError(f"{files} are not the official ones; remove them")
    return split


def download(maker, name: str, target: Path, archive: Path | None = None) -> None:
    """Fetch into a temporary folder beside the target and move it in whole, so that a broken download leaves nothing behind.
    A whole archive that is there already is unpacked in its stead."""
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]  # innermost first
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as part:
            try:
                if archive:
                    shutil.copy(archive, part)
                maker(part, train=True, download=True)
            except Exception as error:  # URLError, RuntimeError ("not found or corrupted"), OSError
                hint = "without network, put the official files, unpacked, into a folder named by SAIDL_DATA or root"
                raise NoNetwork(f"could not download {name} ({error}); {hint}") from None
            if not target.exists():
                shutil.move(Path(part) / target.name, target)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def find(entry: str, root=None) -> Path | None:
    """Where a file or folder of the data folder is: root or SAIDL_DATA when given, else ./data, ../data or ~/.cache/saidl.

    Raises ValueError for a root that is no path or is a file.
    """
    chosen = root or os.environ.get("SAIDL_DATA")
    if chosen and not (isinstance(chosen, str | os.PathLike) and not Path(chosen).expanduser().is_file()):
        raise ValueError(f"{'root' if root else 'SAIDL_DATA'} must be a folder, not {chosen!r}")
    places = [Path(place).expanduser() for place in ([chosen] if chosen else ["data", "../data", "~/.cache/saidl"])]
    return next((place / entry for place in places if (place / entry).exists()), None)


def from_folder(folder: Path) -> Split:
    """train/<class>/* and test/<class>/*, every image of one size, classes and files ordered by name; grey when all are."""
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise MissingData(f"{folder} must hold the folders train and test; {part} is missing")
    (train, classes), (test, others) = (class_files(folder / part) for part in ("train", "test"))
    if classes != others:
        raise ValueError(f"train and test must have the same classes, not {list(classes)} and {list(others)}")
    both = read_images(train + test, classes, folder.name)
    first, rest = both.select(range(len(train))), both.select(range(len(train), len(both)))
    rest = replace(rest, index=torch.arange(len(rest)))
    return Split(with_files(first, train, folder), with_files(rest, test, folder))


def from_classes(folder, size: int | None = None) -> Images:
    """A folder of class folders, <class>/*, without a division into train and test; `files` are the names below it.

    Arguments: size, scale every image to size x size pixels (None: all must have one size already).
    Raises ValueError for fewer than two class folders, an empty one or an image that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingData(f"no folder {str(folder)!r}")
    files, classes = class_files(folder)
    return with_files(read_images(files, classes, folder.name, size), files, folder)


def from_csv(path, size: int | None = None) -> Images:
    """Images listed in a CSV with the columns `file` (relative to the CSV) and `label`, in its order; classes ordered by name.

    Arguments: size as in `from_classes`.
    Raises ValueError for missing columns, empty cells (with their lines), fewer than two classes or an image that cannot be read.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"file", "label"} - set(reader.fieldnames or ())
            rows = [] if missing else [
                (reader.line_num, (row["file"] or "").strip(), (row["label"] or "").strip()) for row in reader
            ]  # fmt: skip
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a CSV in UTF-8: {error}") from error
    if missing:
        raise ValueError(f"{path} must have the columns file and label; {' and '.join(sorted(missing))} missing")
    if empty := [line for line, name, label in rows if not (name and label)]:
        lines = ", ".join(map(str, empty[:10])) + " ..." * (len(empty) > 10)
        raise ValueError(f"{path} lacks a file or a label in line {lines}")
    classes = tuple(sorted({label for _, _, label in rows}))
    if len(classes) < 2:
        raise ValueError(f"{path} must name at least two classes, found {list(classes) or 'none'}")
    files = [(path.parent / name, classes.index(label)) for _, name, label in rows]
    return with_files(read_images(files, classes, path.stem, size), files, path.parent)


def class_files(folder: Path) -> tuple[list[tuple[Path, int]], tuple[str, ...]]:
    """Every image file below a folder of class folders with its label, and the classes, both in the order of their names."""
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        raise ValueError(f"{folder} must hold at least two class folders, found {list(classes) or 'none'}")
    files = []
    for c, name in enumerate(classes):
        found = sorted(p for p in (folder / name).iterdir() if p.is_file() and not p.name.startswith("."))
        if not found:
            raise ValueError(f"the class folder {folder / name} is empty")
        files += [(path, c) for path in found]
    return files, classes


def with_files(images: Images, files: list[tuple[Path, int]], folder: Path) -> Images:
    return replace(images, files=tuple(os.path.relpath(path, folder).replace(os.sep, "/") for path, _ in files))


def read_images(files: list[tuple[Path, int]], classes: tuple[str, ...], name: str, size: int | None = None) -> Images:
    """Image files with their labels -> Images; grey when all are, else RGB. Raises ValueError naming the file that cannot be read, has no
    eight or sixteen bits a channel or, when no size is asked for, has another one than the first."""
    from PIL import Image

    if size is not None:
        whole("size", size, 1)
    arrays = []
    for path, _ in files:
        try:
            with Image.open(path) as image:
                if image.mode.startswith("I;16"):  # convert would cut off all that is above 255
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                if image.mode in ("I", "F"):
                    raise ValueError(f"its pixels have 32 bits (mode {image.mode}), whose range is unknown")
                image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
                arrays.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR) if size else image))
        # Pillow raises OSError, SyntaxError, DecompressionBombError ..., depending on what is broken
        except Exception as error:
            raise ValueError(f"cannot read {path} as an image: {error}") from error
        if arrays[-1].shape[:2] != arrays[0].shape[:2]:
            one, other = (array.shape[1::-1] for array in (arrays[-1], arrays[0]))
            raise ValueError(f"{path} has size {one}, the first image {other}: all must have one size")
    if any(a.ndim == 3 for a in arrays):
        arrays = [a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for a in arrays]
    return make_images(channels_first(np.stack(arrays)), np.array([label for _, label in files]), classes, name)


def channels_first(pixels) -> np.ndarray:
    """(N, H, W) or (N, H, W, C) -> (N, C, H, W)."""
    pixels = np.asarray(pixels)
    return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)


def spoken_digits(root, length: int = 8192) -> Split:
    """The Free Spoken Digit Dataset's waveforms (8 kHz, int16), cut or zero-padded to `length` samples: images (N, 1, 1, length); test =
    recordings 0-4 of each speaker and digit."""
    import wave

    folder = find("spoken-digits/recordings", root)
    if folder is None:
        raise MissingData("the data folder lacks spoken-digits/recordings/*.wav (Free Spoken Digit Dataset)")
    sounds, labels, held_out, classes = [], [], [], tuple("0123456789")
    for path in sorted(folder.glob("*.wav")):
        try:
            digit, _, number = path.stem.split("_")
            labels.append(classes.index(digit))
            held_out.append(int(number) < 5)
            with wave.open(str(path)) as sound:
                if (form := (sound.getnchannels(), sound.getsampwidth())) != (1, 2):
                    raise ValueError(f"it has {form[0]} channels of {form[1]} bytes, not one of two")
                samples = np.frombuffer(sound.readframes(length), dtype="<i2")
        except (wave.Error, EOFError, ValueError) as error:
            raise ValueError(f"cannot read {path.name} as <digit>_<speaker>_<number>.wav: {error}") from error
        sounds.append(np.pad(samples, (0, length - len(samples))))
    if not sounds:
        raise ValueError(f"{folder} holds no .wav files")
    full = make_images(np.stack(sounds)[:, None, None], np.array(labels), classes, "spoken-digits")
    held_out = torch.tensor(held_out)
    return Split(full.select(~held_out), full.select(held_out))


def synthetic(name: str, length: int = 1024, train: int = 4096, test: int = 1024, seed: int = 0) -> Split:
    """Made-up long-range tasks, images (N, d, 1, length) float32; a model that sees only the end of the sequence
    can do no better than chance, of "adding", whose second half tells one number of the two, than three in four.

    "delayed-recall" (delayed copy of one symbol): a one-hot symbol out of 8 at step 0, then noise; the label is the symbol, to be read
    from the model's last state (chance 1/8). "adding" (Hochreiter & Schmidhuber 1997, as a decision): uniform numbers and two markers,
    one in each half; is the sum of the two marked numbers above 1? (chance 1/2)
    """
    rng, count = np.random.default_rng(seed), train + test
    if name not in ("delayed-recall", "adding"):
        raise ValueError(f"name must be delayed-recall or adding, not {name!r}")
    for argument, value, least in (("length", length, 4), ("train", train, 1), ("test", test, 1)):
        whole(argument, value, least)
    if name == "delayed-recall":
        labels, classes = rng.integers(8, size=count), tuple("abcdefgh")
        x = rng.normal(0, 0.1, (count, 8, 1, length)).astype(np.float32)
        x[:, :, 0, 0] = np.eye(8)[labels]
    else:
        values, marks = rng.random((count, length)), np.zeros((count, length))
        first, second = rng.integers(length // 2, size=count), rng.integers(length // 2, length, size=count)
        rows, classes = np.arange(count), ("at most 1", "above 1")
        marks[rows, first] = marks[rows, second] = 1
        labels = (values[rows, first] + values[rows, second] > 1).astype(np.int64)
        x = np.stack([values, marks], 1)[:, :, None].astype(np.float32)
    full = make_images(x, labels, classes, name)
    return Split(full.select(np.arange(train)), full.select(np.arange(train, count)))


def make_images(pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], name: str) -> Images:
    images, labels = torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels.astype(np.int64))
    return Images(images, labels, classes, name, torch.arange(len(labels)))
