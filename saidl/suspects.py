"""Your own labels: how many are wrong, which ones, and which loss copes with them.

Networks trained on the other folds give every image probabilities p(x) that have not seen its label. Confident learning
(Northcutt et al. 2021; implemented by cleanlab, the extra `clean`) counts C[i, j], the images labelled j that look at least
as much like class i as an image labelled i does on average. Scaled, C is the joint distribution of true and given labels:
T, the noise rate and the suspects follow. With nothing clean at hand, the accuracy of p on the given labels, wrong ones
included, chooses the loss.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saidl import experiments, losses, models, noise, training
from saidl.checks import whole
from saidl.data import Images

FEW = 20  # labels a class: with fewer, a rate of 0.2 has a standard error of 0.09 even if every suspect were right
CANDIDATES = ("ce", "gce", "nce+mae", "nce+rce")


@dataclass(frozen=True)
class Estimate:
    """transition (K, K), rows sum to 1; rate, the share of wrong labels; prior (K,) of the true classes; suspects, the
    positions of the labels held to be wrong, least credible first."""

    transition: np.ndarray
    rate: float
    prior: np.ndarray
    suspects: np.ndarray


@dataclass(frozen=True)
class Classifier:
    """A trained network with all it takes to use it again: (N, C, H, W) images as they were loaded -> (N, K) probabilities."""

    model: nn.Module
    mean: Tensor
    std: Tensor
    told: dict  # network, options, classes, loss

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        model = self.model.eval().cpu()
        return torch.cat([model((x.float() - self.mean) / self.std) for x in images.split(1000)])

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(1)

    def save(self, path) -> None:
        """Weights as safetensors; the network's name, its options, the classes and the loss in the file's metadata."""
        from safetensors.torch import save_file

        tensors = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        save_file(tensors | {"input.mean": self.mean, "input.std": self.std}, path, {"saidl": json.dumps(self.told)})


def load(path) -> Classifier:
    """A `Classifier` from the file that `save` wrote. Raises ValueError for another file, FileNotFoundError for none."""
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, not a classifier of saidl")
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["saidl"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (it is no dict)
        mean, std = tensors.pop("input.mean"), tensors.pop("input.std")
        model = models.make(told["network"], **told["options"])
        model.load_state_dict(tensors)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a classifier of saidl: {error!r}") from error
    model.to(memory_format=torch.channels_last)  # as `fit` has it: the same bits
    return Classifier(model, mean, std, told)


# ---------------------------------------------------------------------------------------------------------------- training


def network(images: Images) -> tuple[str, dict, training.Settings]:
    """The network for images of this size, its options, and the recipe it is trained by."""
    channels, height, width = images.images.shape[1:]
    recipe = {(1, 28, 28): ("paper", "mnist-noise"), (3, 32, 32): ("laptop", "noise")}.get((channels, height, width))
    if recipe is None and (height != width or height > 16 or height % 2):
        raise ValueError(
            f"there is no network for {width} x {height} images with {channels} channels: read grey ones with size=28, "
            "coloured ones with size=32 (or size=8 to 16)"
        )
    _, _, name, options, settings = experiments.recipe(*recipe or ("quick", "noise"))
    options = {"num_classes": len(images.classes)} | options
    if name == "small-cnn":
        options |= {"in_channels": channels, "size": height}
    return name, options, replace(settings, valid_fraction=0.0)


def train(images: Images, loss: str = "ce", *, epochs: int | None = None, seed: int = 0, test: Images | None = None):
    """Train on all the images and labels given -> (Classifier, training.History).

    test: images with true labels, if any; without, the history's test accuracy is that of a few training images on the labels given.
    """
    name, options, settings = network(images)
    settings = replace(settings, epochs=settings.epochs if epochs is None else epochs)
    hyper, penalty = losses.recipe(loss, "mnist" if name == "cnn4" else "cifar10")
    settings = replace(settings, l1=penalty, weight_decay=0.0) if penalty else settings
    if test is None:  # `fit` reports accuracy on something: a few training images, once
        test, settings = images.select(range(min(len(images), 100))), replace(settings, eval_every=settings.epochs)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.make(name, **options)
    history = training.fit(model, images, test, losses.make(loss, len(images.classes), **hyper), settings, seed=seed)
    mean, std = training.statistics((part.float() for part in images.images.split(4096)), 1)
    told = {"network": name, "options": options, "classes": list(images.classes), "loss": loss}
    return Classifier(model, mean, std, told), history


def out_of_sample(
    images: Images, names: str | Sequence[str] = ("ce",), *, folds: int = 3, epochs: int | None = None, seed: int = 0, n_jobs: int = 1
) -> dict[str, np.ndarray]:  # fmt: skip
    """Probabilities (N, K) for every image by networks that were not trained on it, for each loss named.

    Arguments: folds, stratified by the label given (as many as the smallest class has images, if that is less); epochs
        (None: the recipe's); n_jobs, trainings at once, each on one thread.
    Raises ValueError for a class with fewer than two images or an unknown loss, before any training.
    """
    from joblib import Parallel, delayed
    from sklearn.model_selection import StratifiedKFold

    names = [names] if isinstance(names, str) else list(names)
    whole("folds", folds, 2)
    for loss in names:
        losses.resolve(loss)
    counts = class_counts(images)
    if counts.min() < 2:
        rare = [images.classes[c] for c in np.flatnonzero(counts < 2)]
        raise ValueError(f"every class needs at least two images to be judged by others; too few of {', '.join(rare)}")
    network(images)  # an unsuitable size is an error before any training
    division = StratifiedKFold(min(folds, counts.min()), shuffle=True, random_state=seed)
    tasks = [(loss, *part) for part in division.split(images.labels, images.labels) for loss in names]
    found = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(one_fold)(images.select(kept), images.images[held], loss, epochs, seed) for loss, kept, held in tasks
    )
    out = {loss: np.empty((len(images), len(images.classes))) for loss in names}
    for (loss, _, held), p in zip(tasks, tqdm(found, "trainings", len(tasks), leave=False), strict=True):
        out[loss][held] = p
    return out


def one_fold(kept: Images, held: Tensor, loss: str, epochs: int | None, seed: int) -> np.ndarray:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same bits however many train beside it
    try:
        return train(kept, loss, epochs=epochs, seed=seed)[0](held).double().numpy()
    finally:
        torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------------------------------ what they say


def estimate(images: Images, probabilities) -> Estimate:
    """Noise matrix, rate and suspects from out-of-sample probabilities (N, K), by confident learning.

    Warns when a class has so few images that the estimate is worthless. Raises ImportError without cleanlab.
    """
    try:
        from cleanlab.count import compute_confident_joint, estimate_joint
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise ImportError("estimating label noise needs cleanlab: install saidl with its extra, saidl[clean]") from None
    labels, p = images.labels.numpy(), np.asarray(probabilities, np.float64)
    if p.shape != (len(images), len(images.classes)):
        raise ValueError(f"probabilities must be of shape ({len(images)}, {len(images.classes)}), not {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities must lie in [0, 1], and {(~((p >= 0) & (p <= 1))).sum()} of them do not")
    if (least := class_counts(images).min()) < FEW:
        warnings.warn(
            f"the smallest class has {least} images: an estimate of its noise from so few is worthless", stacklevel=2
        )
    confident = compute_confident_joint(labels, p)
    # (K, K), row: true class; cleanlab's rows are the labels given
    joint = estimate_joint(labels, p, confident_joint=confident).T
    found = find_label_issues(
        labels, p, return_indices_ranked_by="self_confidence", confident_joint=confident, n_jobs=1
    )
    return Estimate(noise.normalise_rows(joint), float(1 - np.trace(joint)), joint.sum(1), found)


def recommend(probabilities: Mapping[str, np.ndarray], labels):
    """The losses by accuracy on the given labels of images they were not trained on, best first, as a DataFrame: accuracy,
    how far it lies behind the best one, and the standard error of that difference (both saw the same images).

    Arguments: probabilities, {loss: (N, K)}, one or more; labels (N,). Raises ValueError for others.
    """
    labels = np.asarray(labels)
    shapes = {name: np.shape(p) for name, p in probabilities.items()}
    if not shapes or any(len(shape) != 2 or shape[0] != len(labels) for shape in shapes.values()):
        raise ValueError(
            f"probabilities must be (N, K) of one loss or more, N = {len(labels)} as the labels, not {shapes}"
        )
    hits = {name: np.asarray(p).argmax(1) == labels for name, p in probabilities.items()}
    best = max(hits, key=lambda name: hits[name].mean())
    rows = [
        {"loss": name, "accuracy": hit.mean(), "behind": hits[best].mean() - hit.mean(),
         "standard error": (hits[best].astype(float) - hit).std() / len(labels) ** 0.5}
        for name, hit in hits.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).sort_values("accuracy", ascending=False, kind="stable", ignore_index=True)


def table(images: Images, found: np.ndarray, probabilities):
    """The suspects as a DataFrame: file (or place in the set), label given, the likeliest other label, and p of both."""
    p, given = np.asarray(probabilities)[found], images.labels.numpy()[found]
    other = np.where(np.eye(p.shape[1], dtype=bool)[given], -1, p).argmax(1)
    place = np.arange(len(images)) if images.index is None else images.index.numpy()
    names = [images.files[i] if images.files else int(i) for i in place[found]]
    rows = np.arange(len(found))
    return pd.DataFrame({
        "file": names, "given": np.array(images.classes)[given], "suggested": np.array(images.classes)[other],
        "p_given": p[rows, given], "p_suggested": p[rows, other],
    })  # fmt: skip


def check(images: Images, clean, names: Sequence[str] = ("ce",), **training_options):
    """All of the above on labels whose truth is known, a DataFrame row a loss: accuracy out of sample on the labels given and
    on the true ones, the rate as it is and as estimated, the error of the estimated matrix, precision and recall.

    Arguments: clean (N,), the true labels; training_options, as for `out_of_sample`.
    """
    clean, given, rows = np.asarray(clean), images.labels.numpy(), []
    true = noise.estimate_transition(clean, given, len(images.classes))
    for loss, p in out_of_sample(images, names, **training_options).items():
        found, guess = estimate(images, p), p.argmax(1)
        rows.append({
            "loss": loss, "accuracy on given": (guess == given).mean(), "accuracy on true": (guess == clean).mean(),
            "rate": (given != clean).mean(), "rate estimated": found.rate,
            "matrix error": matrix_error(found.transition, true), **scores(found.suspects, given != clean),
            "transition": found.transition.tolist(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def scores(found, flipped) -> dict[str, float]:
    """Precision and recall of suspects (positions, or a mask (N,)) where the truth is known: flipped (N,) bool."""
    found, flipped = np.asarray(found), np.asarray(flipped)
    found = np.flatnonzero(found) if found.dtype == bool else found.astype(int)  # an empty list is an array of floats
    hits = int(flipped[found].sum())
    return {"precision": hits / max(len(found), 1), "recall": hits / max(int(flipped.sum()), 1)}


def matrix_error(estimated, true) -> float:
    """Mean over the classes of the total variation between the rows of two transition matrices, in [0, 1]."""
    return float(np.abs(np.asarray(estimated) - true).sum(1).mean() / 2)


def class_counts(images: Images) -> np.ndarray:
    labels = noise.checked_labels(images.labels, len(images.classes))
    return np.bincount(labels, minlength=len(images.classes))
