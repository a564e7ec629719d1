"""Label noise: transition matrices, corrupted labels, and the human labels of CIFAR-10N.

T is row-stochastic, T[i, j] = P(noisy = j | clean = i). Three ways to sample it: exact=True flips round(rate n_c) labels of every class
c, exact="equal-counts" as many labels of every class, however small it is, and exact=False draws each label from its row of T.
`corrupt` takes a seed of its own, apart from training's.

    >>> noisy = corrupt([0] * 50 + [1] * 50, "symmetric", 0.2, num_classes=2, seed=0)
    >>> noisy.realised.tolist(), noisy.rate
    ([[0.8, 0.2], [0.2, 0.8]], 0.2)
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np

from saidl.checks import MissingData, between, form, one_of, whole

HUMAN = ("human-aggregate", "human-random1", "human-random2", "human-random3", "human-worst")
KINDS = (
    "symmetric",  # 1 - rate on the diagonal, the rest spread over the K - 1 other classes
    "symmetric-inclusive",  # spread over all K classes, the true one included: a nominal 0.5 is really 0.45 (DivideMix and others)
    "asymmetric",  # only between look-alike classes, drawn from the clean labels
    "asymmetric-sequential",  # the same moves one after another on labels already changed, as in Ma et al.'s code: half-undoes cat <-> dog
    "pair-flip",  # i -> i + 1 mod K
    "instance-dependent",  # Xia et al. 2020: the image decides how likely and where to
    *HUMAN,  # CIFAR-10N (Wei et al. 2022)
)
SPREAD = 0.1  # standard deviation of a sample's flip probability around the rate (Xia et al. 2020)

# Asymmetric moves in the order the reference code makes them; the classes of each data set by index.
# CIFAR-10: truck>automobile bird>airplane cat>dog dog>cat deer>horse; it and MNIST: Patrini et al. 2017
CIFAR10_MOVES = ((9, 1), (2, 0), (3, 5), (5, 3), (4, 7))
MNIST_MOVES = ((7, 1), (2, 7), (5, 6), (6, 5), (3, 8))
# boot>sneaker sneaker>sandal pullover>shirt coat<>dress (Zhang & Sabuncu 2018)
FASHION_MOVES = ((9, 7), (7, 5), (2, 6), (4, 3), (3, 4))
# CIFAR-100's fine labels by superclass (alphabetical indices); a label moves to the next one of its superclass, cyclically.
CIFAR100_SUPERCLASSES = (
    (4, 30, 55, 72, 95), (1, 32, 67, 73, 91), (54, 62, 70, 82, 92), (9, 10, 16, 28, 61), (0, 51, 53, 57, 83),
    (22, 39, 40, 86, 87), (5, 20, 25, 84, 94), (6, 7, 14, 18, 24), (3, 42, 43, 88, 97), (12, 17, 37, 68, 76),
    (23, 33, 49, 60, 71), (15, 19, 21, 31, 38), (34, 63, 64, 66, 75), (26, 45, 77, 79, 99), (2, 11, 35, 46, 98),
    (27, 29, 44, 78, 93), (36, 50, 65, 74, 80), (47, 52, 56, 59, 96), (8, 13, 48, 58, 90), (41, 69, 81, 85, 89),
)  # fmt: skip
MOVES = {
    "cifar10": CIFAR10_MOVES,
    "mnist": MNIST_MOVES,
    "digits": MNIST_MOVES,
    "fashion-mnist": FASHION_MOVES,
    "cifar100": tuple((group[i], group[(i + 1) % 5]) for group in CIFAR100_SUPERCLASSES for i in range(5)),
    # what the published CIFAR-100 tables were made with (Ma et al.'s code and those after it; exact=False): the superclasses are not
    # runs of five in alphabetical order, as that code takes them to be
    "cifar100-consecutive": tuple((c, c - c % 5 + (c + 1) % 5) for c in range(100)),
}


@dataclass(frozen=True, eq=False)
class Noisy:
    """Corrupted labels: labels (N,) and flipped (N,) bool, of the same kind (NumPy or torch) as the input; nominal and realised
    transition matrices (K, K) float64; rate, the share of labels that were really changed."""

    labels: np.ndarray = field(repr=False)
    flipped: np.ndarray = field(repr=False)
    nominal: np.ndarray
    realised: np.ndarray
    rate: float


def transition_matrix(kind: str, rate: float | None, num_classes: int = 10, dataset=None) -> np.ndarray:
    """The nominal T of a kind of noise.

    Arguments: kind, one of KINDS; rate in [0, 1], the share of labels that leave their class (for asymmetric kinds: of each class that
        moves at all; human kinds have their own and ignore it); num_classes K; dataset, for asymmetric kinds: a name in MOVES
        (CIFAR-10's for ten classes when None) or your own ((from, to), ...).
    Returns: (K, K) float64, rows sum to 1. For instance-dependent noise T averaged over all images, every wrong class alike; its rate is
        the mean of a normal law cut to [0, 1], as `corrupt` draws with exact=False (with exact=True it flips the rate asked for, and its
        nominal T is symmetric noise's).
    Raises ValueError for an unknown kind, a rate outside [0, 1], or a data set without moves.
    """
    one_of("kind", kind, KINDS)
    whole("num_classes", num_classes, 2)
    if kind in HUMAN:
        if num_classes != 10:
            raise ValueError(f"{kind} noise is CIFAR-10's: num_classes must be 10, not {num_classes}")
        if dataset not in (None, "cifar10"):
            raise ValueError(f"{kind} noise is CIFAR-10's: dataset must be cifar10 or None, not {dataset!r}")
        return normalise_rows(np.array(human_counts()[kind]))
    rate, eye = between("rate", rate, 0, 1), np.eye(num_classes)
    if kind in ("symmetric", "instance-dependent"):
        off = (truncated_normal_mean(rate) if kind == "instance-dependent" else rate) / (num_classes - 1)
        return np.where(eye, 1 - (num_classes - 1) * off, off)
    if kind == "symmetric-inclusive":
        return eye * (1 - rate) + rate / num_classes
    if kind == "pair-flip":
        return eye * (1 - rate) + np.roll(eye, 1, axis=1) * rate
    T = eye
    for source, target in moves(dataset, num_classes):
        if kind == "asymmetric":
            T[source, source], T[source, target] = 1 - rate, rate
        else:  # a label moved by one step may be moved on, or back, by a later one
            T[:, target] += rate * T[:, source]
            T[:, source] *= 1 - rate
    return T


def corrupt(
    labels, kind: str, rate: float | None, *, num_classes: int = 10, seed: int, dataset=None, exact: bool | str = True, images=None,
    indices=None, root=None, matrix=None,
) -> Noisy:  # fmt: skip
    """Make some labels wrong.

    Arguments:
        labels: (N,) integers in [0, K), NumPy, torch or a list
        kind, rate, num_classes, dataset: as in `transition_matrix`
        seed: of the draw, >= 0
        exact: True, flip exactly round((1 - T_cc) n_c) labels in every class c; False, draw each label from its row of T;
            "equal-counts", for symmetric noise, flip round(rate N / K) labels in every class (or all it has), as Ma et al.'s
            code does: a small class then keeps a smaller share of its true labels (MNIST at 0.8: 29 % of the ones, 11 % of the
            fives). The human kinds are the published labels themselves if True, and drawn from their T if False
        images: (N, ...), for instance-dependent noise
        indices: (N,), for published human labels: positions in CIFAR-10's training order, when labels are not all of it in order
        root: the folder of CIFAR-10_human.pt (default: where `saidl.data` looks)
        matrix: (K, K), a T of your own: kind and rate are then only its name
    Returns: Noisy. The input is left as it was.
    Raises ValueError for labels that are not integers in [0, K), a seed that is no whole number, a matrix that is not row-stochastic,
        equal counts of anything but symmetric noise, and all that `transition_matrix` raises; one that is also a FileNotFoundError
        without the human labels' file.
    """
    if matrix is None:
        nominal = transition_matrix(kind, rate, num_classes, dataset)
    else:
        kind, nominal = "own", checked_matrix(matrix, num_classes)
    clean = checked_labels(labels, num_classes)
    check_exact(exact, kind)
    if exact == "equal-counts":
        nominal = equal_counts(clean, rate, num_classes)
    if exact and kind == "instance-dependent":
        nominal = transition_matrix("symmetric", rate, num_classes)  # counted out, not drawn from a law that is cut off
    rng = np.random.default_rng(whole("seed", seed))
    if exact and kind in HUMAN:
        noisy = human_for(clean, kind, indices, root)
    elif kind == "instance-dependent":
        noisy = instance_dependent(clean, between("rate", rate, 0, 1), num_classes, images, exact, rng)
    elif not exact:
        noisy = draw_labels(clean, nominal, rng)
    elif kind == "asymmetric-sequential":
        noisy = clean.copy()
        for source, target in moves(dataset, num_classes):
            noisy[choose(noisy == source, rate * (noisy == source).sum(), rng)] = target
    else:
        noisy, wrong = clean.copy(), nominal * (1 - np.eye(num_classes))
        counts = wrong.sum(1) * np.bincount(clean, minlength=num_classes)  # (K,)
        for c in range(num_classes):
            flips = choose(clean == c, counts[c], rng)
            if len(flips):
                noisy[flips] = rng.choice(num_classes, size=len(flips), p=wrong[c] / wrong[c].sum())
    flipped = noisy != clean
    realised, share = estimate_transition(clean, noisy, num_classes), float(flipped.mean()) if len(clean) else 0.0
    if hasattr(labels, "detach"):
        import torch

        noisy, flipped = torch.from_numpy(noisy).to(labels.device), torch.from_numpy(flipped).to(labels.device)
    return Noisy(noisy, flipped, nominal, realised, share)


def estimate_transition(clean, noisy, num_classes: int) -> np.ndarray:
    """T counted from pairs of labels (N,), (N,) -> (K, K), rows sum to 1; a class without samples gets the identity's row."""
    whole("num_classes", num_classes, 1)
    clean, noisy = checked_labels(clean, num_classes, "clean"), checked_labels(noisy, num_classes, "noisy")
    if clean.shape != noisy.shape:
        raise ValueError(f"clean and noisy must have one length, not {len(clean)} and {len(noisy)}")
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (clean, noisy), 1)
    return normalise_rows(counts)


def human_labels(kind: str, root=None) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10N's clean and human labels in torchvision's training order, ((50000,), (50000,)) int64 (Wei et al. 2022).

    Raises ValueError when CIFAR-10_human.pt holds anything but a dict of integer arrays; when there is no such file, one that is also a
    FileNotFoundError, with what to fetch.
    """
    from saidl.data import find

    one_of("kind", kind, HUMAN)
    path = find("CIFAR-10_human.pt", root)
    if path is None:
        raise MissingData(
            f"{kind} noise needs CIFAR-10_human.pt (CIFAR-10N, CC BY-NC 4.0, github.com/UCSC-REAL/cifar-10-100n) in the data folder; "
            "set SAIDL_DATA or pass root"
        )
    table = read_arrays(path)
    columns = {"human-aggregate": "aggre_label", "human-worst": "worse_label"}
    column = columns.get(kind, "random_label" + kind[-1])
    try:
        return tuple(checked_labels(table[name], 10, name) for name in ("clean_label", column))
    except KeyError as missing:
        raise ValueError(f"{path.name} has no array {missing}") from None


# ------------------------------------------------------------------------------------------------------------------- helpers


def moves(dataset, num_classes: int) -> tuple[tuple[int, int], ...]:
    if dataset is None and num_classes == 10:
        dataset = "cifar10"
    if isinstance(dataset, Iterable) and not isinstance(dataset, str):
        try:
            pairs = dataset.items() if isinstance(dataset, dict) else dataset
            pairs = tuple((whole("from", a), whole("to", b)) for a, b in pairs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"dataset must be a name or ((from, to), ...) of class numbers, not {dataset!r}"
            ) from error
    elif dataset in MOVES:
        pairs = MOVES[dataset]
    else:
        known = f"{', '.join(MOVES)}, or takes your own ((from, to), ...)"
        raise ValueError(f"asymmetric noise has moves for {known}; dataset is {dataset!r}")
    left = {a for a, b in pairs if a != b}
    if any(not 0 <= c < num_classes for pair in pairs for c in pair) or len(left) < len(pairs):
        raise ValueError(
            f"dataset: the moves {pairs} must each leave another class and stay below num_classes={num_classes}"
        )
    return pairs


def equal_counts(clean: np.ndarray, rate: float, num_classes: int) -> np.ndarray:
    """T when rate N / K labels leave every class: a small class loses a larger share of its own, at most all."""
    sizes = np.bincount(clean, minlength=num_classes)
    own = np.minimum(rate * len(clean) / num_classes / np.maximum(sizes, 1), 1)
    return np.stack([transition_matrix("symmetric", r, num_classes)[c] for c, r in enumerate(own)])


def choose(members: np.ndarray, count: float, rng) -> np.ndarray:
    """Exactly round(count) of the True positions, without replacement."""
    return rng.choice(np.flatnonzero(members), size=rounded(count), replace=False)


def rounded(count: float) -> int:
    """To the nearest, halves to even: halves of the true product, which in floating point is a little more or less."""
    return round(round(float(count), 6))


def draw_labels(clean: np.ndarray, T: np.ndarray, rng) -> np.ndarray:
    """A draw for each label (N,) from its row of T."""
    at, noisy = rng.random(len(clean)), np.empty_like(clean)
    for c in np.unique(clean):  # class by class: a row of T for every label would be (N, K)
        of_class = clean == c
        noisy[of_class] = np.searchsorted(T[c].cumsum(), at[of_class] * T[c].sum())
    return np.minimum(noisy, len(T) - 1)


def draw_rows(p: np.ndarray, rng) -> np.ndarray:
    """One draw from each row of p (N, K)."""
    drawn = (p.cumsum(1) < rng.random((len(p), 1)) * p.sum(1, keepdims=True)).sum(1)
    return np.minimum(drawn, p.shape[1] - 1)  # in float32 a row's sum may be larger than the last of its partial sums


def instance_dependent(clean, rate, num_classes, images, exact, rng) -> np.ndarray:
    """Xia et al. 2020, algorithm 2: each sample's own flip probability q_n ~ N(rate, 0.1^2) cut to [0, 1]; a random projection per class
    scores the wrong classes of an image."""
    if np.ndim(images) == 0 or len(images) != len(clean):
        raise ValueError(f"instance-dependent noise needs images, one for each of the {len(clean)} labels")
    if not len(clean):
        return clean
    images = images.detach().cpu().float() if hasattr(images, "detach") else images
    x = np.asarray(images, dtype=np.float32).reshape(len(clean), -1)
    if not np.isfinite(x).all():
        raise ValueError("images must be finite")
    x = (x - x.mean()) / max(x.std(), 1e-6)
    q = truncated_normal(rate, len(clean), rng)
    noisy = clean.copy()
    for c in range(num_classes):
        of_class = np.flatnonzero(clean == c)
        scores = x[of_class] @ rng.standard_normal((x.shape[1], num_classes)).astype(np.float32)  # (n_c, K)
        scores[:, c] = -np.inf
        wrong = np.exp(scores - scores.max(1, keepdims=True))
        weight = q[of_class] / max(q[of_class].sum(), 1e-12)
        count = min(rounded(rate * len(of_class)), np.count_nonzero(weight))
        if exact and count:
            flips = rng.choice(len(of_class), size=count, replace=False, p=weight)
        else:
            flips = rng.random(len(of_class)) < (0 if exact else q[of_class])
        noisy[of_class[flips]] = draw_rows(wrong[flips], rng)
    return noisy


def truncated_normal(mean: float, size: int, rng) -> np.ndarray:
    """N(mean, SPREAD^2) restricted to [0, 1], by rejection; mean lies in [0, 1], so at least two draws in five are kept."""
    out = np.full(size, -1.0)
    while (bad := (out < 0) | (out > 1)).any():
        out[bad] = rng.normal(mean, SPREAD, bad.sum())
    return out if mean else np.zeros(size)  # a rate of zero means no noise, not the upper half of a normal


def truncated_normal_mean(mean: float) -> float:
    law = NormalDist(mean, SPREAD)
    return mean + SPREAD**2 * (law.pdf(0) - law.pdf(1)) / (law.cdf(1) - law.cdf(0)) if mean else 0.0


def human_for(clean, kind, indices, root) -> np.ndarray:
    true, noisy = human_labels(kind, root)
    indices = np.arange(len(clean)) if indices is None else np.asarray(indices)
    if (
        indices.dtype.kind not in "iu"
        or len(indices) != len(clean)
        or (len(indices) and (indices.min() < 0 or indices.max() >= len(true)))
    ):
        raise ValueError(f"indices must give each of the {len(clean)} labels its place in CIFAR-10's training order")
    if not np.array_equal(true[indices], clean):
        raise ValueError(f"{kind} noise: the labels are not CIFAR-10's training labels at these indices")
    return noisy[indices]


def check_exact(exact, kind: str) -> None:
    if not (isinstance(exact, bool | np.bool_) or (exact == "equal-counts" and kind == "symmetric")):
        told = f"{exact!r} for {kind} noise"
        raise ValueError(f'exact must be True, False, or "equal-counts" for symmetric noise, not {told}')


def checked_matrix(matrix, num_classes: int | None = None) -> np.ndarray:
    try:
        matrix = np.array(matrix, dtype=np.float64)  # a copy: it is handed out as Noisy.nominal
    except (TypeError, ValueError) as error:
        raise ValueError(f"matrix must be numbers of shape (K, K), not {matrix!r}") from error
    K = len(matrix) if num_classes is None else num_classes
    if matrix.shape != (K, K):
        raise ValueError(f"matrix must have shape ({K}, {K}), not {matrix.shape}")
    if not (matrix >= 0).all() or not np.allclose(matrix.sum(1), 1):
        told = f"its least entry is {matrix.min()}, its rows sum to {matrix.sum(1)}"
        raise ValueError(f"matrix must be row-stochastic; {told}")
    sums = matrix.sum(1, keepdims=True)
    return np.where(
        np.isclose(sums, 1, rtol=0, atol=1e-12), matrix, matrix / sums
    )  # float32, say, sums to one only nearly


def checked_labels(labels, num_classes: int, name: str = "labels") -> np.ndarray:
    try:
        array = labels.detach().cpu().numpy() if hasattr(labels, "detach") else np.asarray(labels)
    except (ValueError, TypeError) as error:  # rows of different lengths; a type that NumPy has not
        raise ValueError(f"{name} must be integers of shape (N,), not {form(labels)}") from error
    array = array.astype(np.int64) if array.size == 0 else array
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape (N,), not {array.dtype} {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= num_classes):
        raise ValueError(f"{name} must lie in [0, {num_classes}), found {array.min()} to {array.max()}")
    return array.astype(np.int64)


def normalise_rows(counts: np.ndarray) -> np.ndarray:
    """Each row over its sum, whatever that is; a row of zeros becomes the identity's."""
    counts = counts.astype(np.float64)
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.eye(len(counts)), where=totals > 0)


@cache
def human_counts() -> dict:
    """How often CIFAR-10N's people gave class j to an image of class i, counted from the published file: {kind: (10, 10)}."""
    return json.loads(Path(__file__).with_name("cifar10n_counts.json").read_text())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """A dict of integer arrays out of what torch saved; its safe loader builds stand-ins for them and nothing else."""
    import torch

    names = ("ndarray", "dtype", "core.multiarray._reconstruct", "_core.multiarray._reconstruct")
    try:
        with torch.serialization.safe_globals([(Stored, f"numpy.{name}") for name in names]):
            table = torch.load(path, weights_only=True)
        return {str(name): stored.array() for name, stored in table.items()}
    except Exception as error:
        raise ValueError(f"{path.name} is damaged or holds more than a dict of integer arrays: {error}") from error


class Stored:
    """What a pickle says of an array or of its type. NumPy's own objects would believe it, and a damaged or malicious one breaks NumPy."""

    def __init__(self, *said):
        self.said = said

    def __setstate__(self, state):
        self.state = state

    def array(self) -> np.ndarray:
        _, shape, of, fortran, raw = self.state
        kind = f"{of.state[1]}{of.said[0]}"
        if not re.fullmatch(r"[<>|=][iu][1248]", kind):
            raise ValueError(f"an array of {kind!r}")
        return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")
