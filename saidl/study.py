"""Why is asymmetric noise harder? A transition matrix as a few numbers, families of noise matched in one of them, and which
number predicts what a network reaches.

T[i, j] = P(noisy = j | clean = i), the K classes equally frequent, every image of one class without doubt. Then

    margin_i = T_ii - max_{j != i} T_ij     its sign decides what infinitely many images teach (the Bayes classifier)
    share    = 1 - mean_i T_ii              what a network that memorises every label gets wrong
    I        = mean_i sum_j T_ij log2(T_ij / mean_i T_ij)       bits that the label given tells of the true one
    vote_k   = mean_i P(i wins among k labels drawn from row i)     1 - share at k = 1, the Bayes classifier's for large k

The last is a picture of learning from finitely many images: the network answers with what most of about k alike images say.

    >>> T = mixture(0.4, weight=1.0)                                                                         # a pair flip
    >>> round(smallest_margin(T), 3), round(share(T), 3), round(bayes_accuracy(T), 3)
    (0.2, 0.4, 1.0)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from saidl import data, experiments, noise
from saidl.checks import between, whole
from saidl.noise import checked_matrix

LOSSES = ("ce", "gce", "nce", "nce+rce")
VOTES = (1, 3, 5, 7, 9, 11, 13, 15, 19, 23, 31, 41, 61, 101)  # odd: where two classes compete, 2 votes are worth 1

# ----------------------------------------------------------------------------------------------------- a matrix as numbers


def margin(T) -> np.ndarray:
    """T_ii less the largest other entry of row i, (K,), in [-1, 1]."""
    T = checked_matrix(T)
    return np.diag(T) - np.where(np.eye(len(T)), -np.inf, T).max(1)


def smallest_margin(T) -> float:
    """The least of the margins, in [-1, 1]: below 0 there is a class that even infinitely many images teach wrong."""
    return float(margin(T).min())


def share(T) -> float:
    """The expected share of wrong labels, in [0, 1]."""
    return float(1 - np.diag(checked_matrix(T)).mean())


def information(T) -> float:
    """Mutual information I(clean; noisy) in bits, in [0, log2 K]."""
    T = checked_matrix(T)
    ratio = np.divide(T, T.mean(0), out=np.ones_like(T), where=T > 0)  # p(j | i) / p(j)
    return float((T * np.log2(ratio)).sum(1).mean())


def bayes_accuracy(T) -> float:
    """Clean accuracy of argmax_j p(noisy = j | x), ties broken at random: the share of classes with a positive margin."""
    T = checked_matrix(T)
    top = np.isclose(T, T.max(1, keepdims=True), rtol=0, atol=1e-12)
    return float((np.diag(top) / top.sum(1)).mean())


def vote_accuracy(T, k: int, draws: int = 1000, seed: int = 0) -> float:
    """Accuracy of the most frequent among k labels drawn from an image's row, ties broken at random; by simulation, `draws`
    for each class: right to about half a per cent."""
    T, rng = checked_matrix(T), np.random.default_rng(seed)
    whole("k", k, 1)
    votes = np.stack([rng.multinomial(k, row, size=draws) for row in T])  # (K, draws, K)
    winners = votes == votes.max(2, keepdims=True)
    return float(np.mean([(winners[i, :, i] / winners[i].sum(1)).mean() for i in range(len(T))]))


def closeness(T, distance) -> float:
    """How alike the classes are between which labels move: mean of -distance (K, K) over the moved labels."""
    moved = np.where(np.eye(len(T)), 0, checked_matrix(T))
    return float(-(moved * distance).sum() / moved.sum()) if moved.any() else float("nan")


def class_distance(images: data.Images) -> np.ndarray:
    """Distance between the mean images of two classes (true labels), (K, K), scaled to a mean of 1."""
    x, labels = images.images.flatten(1).double().numpy(), images.labels.numpy()
    means = np.stack([x[labels == c].mean(0) for c in range(len(images.classes))])
    distance = np.linalg.norm(means[:, None] - means[None], axis=2)
    return distance / distance[~np.eye(len(distance), dtype=bool)].mean()


# -------------------------------------------------------------------------------------------------------- noise, matched


def mixture(rate: float, weight: float, num_classes: int = 10) -> np.ndarray:
    """Between symmetric noise (weight 0) and a pair flip (weight 1), the rate held."""
    weight = between("weight", weight, 0, 1)
    symmetric, flip = (noise.transition_matrix(kind, rate, num_classes) for kind in ("symmetric", "pair-flip"))
    return (1 - weight) * symmetric + weight * flip


def match(family: Callable[[float], np.ndarray], measure: Callable, value: float) -> float:
    """The lowest rate at which measure(family(rate)), falling from a clean start, meets `value`, by bisection.

    Raises ValueError when no rate does.
    """
    rates = np.linspace(0, 1, 101)  # a measure may rise again later: the first crossing counts
    high = next((rate for rate in rates if measure(family(rate)) <= value), None)
    if high is None or (high == 0 and not np.isclose(measure(family(0.0)), value)):
        raise ValueError(f"no rate in [0, 1] brings the measure to {value}")
    low = max(high - 0.01, 0.0)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(family(middle)) > value else (low, middle)
    return float(high)


def rearranged(T, distance, alike: bool, tries: int = 3000, seed: int = 0) -> np.ndarray:
    """T under other names of the classes, so that its moves lie between the most alike (or most different) of them: margin,
    share and information stay as they are."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(T)) for _ in range(tries)]
    scores = [closeness(T[np.ix_(order, order)], distance) for order in orders]
    best = orders[int(np.argmax(scores) if alike else np.argmin(scores))]
    return T[np.ix_(best, best)]


@dataclass(frozen=True)
class Case:
    """One setting of the study: a kind of noise.KINDS, or a family of our own with its T."""

    family: str
    rate: float
    T: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.family} {self.rate:.3g}"

    def run(self, profile: str, loss: str, seed: int = 0) -> experiments.Run:
        """This noise at a profile's recipe; of a family that `noise.KINDS` has, the run that any grid would make of it."""
        if self.family in noise.KINDS:
            return experiments.grid(profile, loss=loss, noise=self.family, rate=self.rate, seed=seed)[0]
        base = experiments.grid(profile, loss=loss, noise="symmetric", rate=self.rate, seed=seed)[0]
        return replace(base, noise=self.family, transition=tuple(map(tuple, self.T.tolist())))


def cases(dataset: str, distance: np.ndarray) -> dict[str, Case]:
    """The study's settings by name: the usual kinds over their rates, then what matches asymmetric noise of rate 0.4."""

    def kind(name, rate):
        return Case(name, rate, noise.transition_matrix(name, rate, 10, dataset))

    def matched(weight, measure):
        return round(match(lambda rate: mixture(rate, weight), measure, measure(hard)), 4)

    some = (0.1, 0.2, 0.3, 0.4)
    rates = {
        "symmetric": (0.0, 0.2, 0.4, 0.6, 0.8),
        "asymmetric": some,
        "asymmetric-sequential": some,
        "pair-flip": some[1:],
    }
    out = [kind(name, rate) for name in rates for rate in rates[name]]
    hard = kind("asymmetric", 0.4).T
    for name, weight in (("symmetric", 0.0), ("pair-flip", 1.0)):
        out += [kind(name, matched(weight, measure)) for measure in (smallest_margin, information)]
    between = [(0.5, 0.4), (0.75, 0.4), (0.5, matched(0.5, smallest_margin))]
    out += [Case(f"mixture {weight}", rate, mixture(rate, weight)) for weight, rate in between]
    out += [
        Case(f"asymmetric {how}", 0.4, rearranged(hard, distance, how == "alike")) for how in ("alike", "different")
    ]
    return {case.name: case for case in out}


# ------------------------------------------------------------------------------------------------------ what came of it


def outcomes(plan: Sequence[tuple[Case, experiments.Run]], records, distance=None):
    """A DataFrame row for every case and loss: what T says (share, margins, information, closeness) and what was reached.

    Arguments: plan; records, the table `sweep.run` returns for its runs, in that order.
    Columns besides: bayes, the Bayes classifier's accuracy; accuracy (last epoch); peak (best epoch on the test set: what
    stopping in time could give at most); memorised; losing, receiving, untouched: the accuracy of classes that lose labels,
    that only receive some, and that do neither.
    """
    rows = []
    for (case, run), record in zip(plan, records.record, strict=True):
        history, T = record["history"], case.T
        loses, receives = np.diag(T) < 1, (T - np.diag(np.diag(T))).sum(0) > 0
        groups = {"losing": loses, "receiving": ~loses & receives, "untouched": ~loses & ~receives}
        per_class = np.array(history["class_accuracy"][-1])
        seen = [a for a in history["test_accuracy"] if a is not None and a == a]
        rows.append({
            "case": case.name, "family": case.family, "rate": case.rate, "loss": run.loss, "seed": run.seed,
            "share": share(T), "smallest margin": smallest_margin(T), "mean margin": float(margin(T).mean()),
            "information": information(T), "closeness": np.nan if distance is None else closeness(T, distance),
            "bayes": bayes_accuracy(T), "accuracy": record["test_accuracy"], "peak": max(seen),
            "memorised": history["memorised"][-1],
        } | {name: per_class[of].mean() if of.any() else np.nan for name, of in groups.items()})  # fmt: skip
    return pd.DataFrame(rows)


def vote_table(named: Mapping[str, Case], ks: Sequence[int] = VOTES):
    """vote_k of every case, a row a case, a column a k."""
    return pd.DataFrame({k: {name: vote_accuracy(case.T, k) for name, case in named.items()} for k in ks})


def fit_votes(accuracy, votes, clean: float) -> tuple[int, float]:
    """The k whose clean * vote_k comes closest to the accuracies, and the root mean square of what is left.

    Arguments: accuracy (M,); votes, rows of `vote_table` in the same order; clean, the accuracy without noise.
    """
    left = np.sqrt(((clean * votes.to_numpy() - np.asarray(accuracy)[:, None]) ** 2).mean(0))
    best = int(left.argmin())
    return int(votes.columns[best]), float(left[best])


def rank_correlations(predictors: Mapping[str, Sequence[float]], accuracy, draws: int = 1000, seed: int = 0):
    """Spearman's rho of every predictor with the accuracies (M,), its 95 % bootstrap interval over the settings, and how often
    the predictor was the best of all under the bootstrap; a DataFrame row each. The sign is taken out: |rho|."""
    # settings matched in a predictor differ by rounding alone: a tie, not a rank
    rng, rows = np.random.default_rng(seed), np.column_stack([*predictors.values(), accuracy]).round(9)  # (M, P + 1)
    rhos = lambda rows: pd.DataFrame(rows).corr("spearman").iloc[-1, :-1].abs()  # noqa: E731
    resampled = np.array([rhos(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(draws)])
    resampled = resampled[~np.isnan(resampled).all(1)]  # a draw of one setting alone has no ranks
    low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    wins = resampled >= np.nanmax(resampled, axis=1, keepdims=True) - 1e-12
    best = (wins / wins.sum(1, keepdims=True)).mean(0)
    columns = {"rho": rhos(rows).to_numpy(), "low": low, "high": high, "best": best}
    return pd.DataFrame(columns, index=list(predictors))


def spearman(x, y) -> float:
    """Rank correlation of finite numbers with ties at their mean rank; NaN for a constant."""
    return float(pd.DataFrame(np.column_stack([x, y])).corr("spearman").iloc[0, 1])


def theorem(clean, noisy, sums, rates, num_classes: int = 10):
    """Risk under symmetric noise against the line of the theorem, R_eta = eta C/(K-1) + (1 - eta K/(K-1)) R.

    Arguments: clean (M,), noisy (len(rates), M) and label sums (M,) of M classifiers, as `figures.risks` measures them.
    Returns: a DataFrame row a rate: the line's slope, the measured one (least squares), the largest distance from the line.
    """
    rows = []
    for rate, risk in zip(rates, noisy, strict=True):
        slope = 1 - rate * num_classes / (num_classes - 1)
        line = rate * np.mean(sums) / (num_classes - 1) + slope * np.asarray(clean)
        rows.append((rate, slope, np.polyfit(clean, risk, 1)[0], np.abs(risk - line).max()))
    return pd.DataFrame(rows, columns=["rate", "slope predicted", "slope measured", "largest distance"])


# ----------------------------------------------------------------------------------------------------------- human noise


def families(num_classes: int = 10) -> dict[str, tuple[int, Callable]]:
    """Models of CIFAR-10's human noise: name -> (free parameters, counts (K, K) -> T of greatest likelihood)."""
    eye, K = np.eye(num_classes), num_classes
    uniform, flip = (1 - eye) / (K - 1), np.roll(eye, 1, axis=1)
    there = noise.transition_matrix("asymmetric", 1.0, K, "cifar10")
    back = noise.transition_matrix("asymmetric", 1.0, K, [(b, a) for a, b in noise.CIFAR10_MOVES])
    animal = np.isin(np.arange(K), (2, 3, 4, 5, 6, 7))  # bird to horse; the rest are vehicles
    kin = noise.normalise_rows((animal[:, None] == animal) * (1.0 - eye))
    parts = {
        "symmetric": (uniform,), "pair flip": (flip,), "asymmetric": (there,), "symmetric + pair flip": (uniform, flip),
        "symmetric + asymmetric": (uniform, there), "symmetric + kin": (uniform, kin),
        "symmetric + asymmetric both ways": (uniform, there, back),
        "symmetric + kin + asymmetric both ways": (uniform, kin, there, back),
    }  # fmt: skip
    out = {name: (len(some), lambda n, some=some: mix(n, (eye, *some))) for name, some in parts.items()}
    out["symmetric, a rate for each class"] = (K, lambda n: rows_at(np.diag(noise.normalise_rows(n)), uniform))
    out["every entry"] = (K * (K - 1), lambda n: noise.normalise_rows(n + 0.5))  # half a count more: no entry is zero
    return out


def rows_at(kept, wrong) -> np.ndarray:
    """kept (K,) on the diagonal, the rest of each row spread as in wrong (K, K)."""
    return np.diag(kept) + (1 - kept)[:, None] * wrong


def mix(counts, parts: Sequence[np.ndarray], steps: int = 300) -> np.ndarray:
    """The mixture of row-stochastic matrices of greatest likelihood, by expectation maximisation over its weights."""
    parts, weights = np.stack(parts), np.full(len(parts), 1 / len(parts))
    for _ in range(steps):
        joint = weights[:, None, None] * parts  # (parts, K, K)
        total = joint.sum(0)
        duty = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0) * counts
        weights = duty.sum((1, 2)) / duty.sum()
    return np.tensordot(weights, parts, 1)


def held_out(fit: np.ndarray, test: np.ndarray):
    """How well each family, fitted to one table of counts (K, K), foretells another: bits a label, as a DataFrame."""
    rows, test = [], np.asarray(test)
    for name, (parameters, fitted) in families(len(fit)).items():
        T = fitted(np.asarray(fit, float))
        log = np.log2(T, where=T > 0, out=np.full(T.shape, -np.inf))  # infinitely many bits for what it rules out
        rows.append((name, parameters, -(log[test > 0] * test[test > 0]).sum() / test.sum()))
    return pd.DataFrame(rows, columns=["family", "parameters", "bits"])


def halves(counts, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A table of counts dealt into two at random, label by label."""
    counts, rng = np.asarray(counts), np.random.default_rng(seed)
    one = rng.multivariate_hypergeometric(counts.ravel(), counts.sum() // 2).reshape(counts.shape)
    return one, counts - one
