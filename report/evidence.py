"""Facts about code, in numbers: traps in known implementations, and how closely two ways to one result agree.

Each function computes what it says, here and now, and returns a small table (a DataFrame) for a notebook or the report.
The traps are ours to fall into as much as anyone's: every one passes a test of shapes.
"""

import numpy as np
import pandas as pd
import torch

from saidl import figures, losses, noise, ssm, study, tables
from saidl.ssm import numpy_s4

RATES = (0.1, 0.2, 0.3, 0.4)
STEPS = (0.001, 0.01, 0.1)

# -------------------------------------------------------------------------------------------------------------- traps


def moved_back(rates=RATES, per_class: int = 1000) -> pd.DataFrame:
    """Asymmetric CIFAR-10 noise made one move after another on labels already changed: cat > dog first, then a share of
    all that is now called dog, flipped cats among them, goes to cat. Per cent of labels wrong, in one draw each."""
    labels, rows = np.arange(10).repeat(per_class), []
    for rate in rates:
        clean, chain = (noise.corrupt(labels, kind, rate, seed=0) for kind in ("asymmetric", "asymmetric-sequential"))
        formula = (5 * rate - rate**2) / 10
        dogs_and_cats = [1 - chain.realised[c, c] for c in (3, 5)]
        rows.append([rate, *(100 * v for v in (clean.rate, chain.rate, formula, *dogs_and_cats))])
    return pd.DataFrame(rows, columns=["rate", "drawn from clean", "one after another", "formula", "cat", "dog"])


def inclusive(rates=(0.2, 0.4, 0.5, 0.6, 0.8), num_classes: int = 10) -> pd.DataFrame:
    """Symmetric noise that may draw the true class again is weaker than its name, by (K - 1)/K."""
    real = [1 - noise.transition_matrix("symmetric-inclusive", rate, num_classes)[0, 0] for rate in rates]
    return pd.DataFrame({"nominal": rates, "real": real})


def detached_focal(gammas=(0.5, 1.0, 2.0), samples: int = 4096, num_classes: int = 10) -> pd.DataFrame:
    """How far a focal loss's gradient is off when its factor (1 - p)^gamma is detached: |g' - g| / |g| over standard
    normal logits, in per cent. The value of the loss is the same."""
    z = torch.randn(samples, num_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(samples) % num_classes

    def gradient(name, **options):
        leaf = z.clone().requires_grad_()
        return torch.autograd.grad(losses.make(name, num_classes, "sum", **options)(leaf, y), leaf)[0]

    def error(name, gamma):
        right, detached = (gradient(name, gamma=gamma, detached=d) for d in (False, True))
        return 100 * ((detached - right).norm() / right.norm()).item()

    rows = [[gamma, error("fl", gamma), error("nfl", gamma)] for gamma in gammas]
    return pd.DataFrame(rows, columns=["gamma", "FL", "NFL"])


def flipped_bilinear(steps=STEPS, a: float = -0.5, length: int = 1024) -> pd.DataFrame:
    """The bilinear rule with its two signs exchanged, (1 - z/2)/(1 + z/2): a decaying mode grows."""
    rows = []
    for dt in steps:
        right = ssm.discretize(torch.tensor([a]).double(), torch.ones(1).double(), dt, "bilinear")[0].item()
        flipped = (1 - dt * a / 2) / (1 + dt * a / 2)
        rows.append([dt, right, flipped, right**length, flipped**length])
    return pd.DataFrame(rows, columns=["dt", "right", "flipped", "right, after", "flipped, after"])


def operator_order(num_classes: int = 10) -> pd.DataFrame:
    """A normalised RCE written 1 / 4 * (K - 1) where 1 / (4 * (K - 1)) is meant: what its labels sum to."""
    loss = losses.make("nrce", num_classes, "sum")
    right = loss(torch.zeros(num_classes, num_classes), torch.arange(num_classes)).item()
    return pd.DataFrame({"code": ["meant", "written"], "sum": [right, right * (num_classes - 1) ** 2]})


def kin() -> pd.DataFrame:
    """CIFAR-100's asymmetric moves in the superclasses and in runs of five consecutive labels, as published tables have them: how many
    of the hundred stay in their superclass."""
    group = {c: i for i, members in enumerate(noise.CIFAR100_SUPERCLASSES) for c in members}
    names = {"superclasses": "cifar100", "consecutive": "cifar100-consecutive"}
    kept = [sum(group[a] == group[b] for a, b in noise.MOVES[name]) for name in names.values()]
    return pd.DataFrame({"moves": list(names), "kept": kept})


def best_on_test(frame: pd.DataFrame, profile: str, kind: str = "symmetric", rate: str = "0.4") -> pd.DataFrame:
    """Reporting the best epoch on the test set instead of the last, per loss, in per cent: what it adds where a network
    first learns and then memorises. Also the last resort that is allowed: the best epoch on held-out noisy labels."""
    rows = tables.by_recipe(frame, profile)
    rows = rows[(rows.noise == kind) & (rows.rate == rate)]
    peaks = [max(100 * v for v in record["history"]["test_accuracy"] if v is not None) for record in rows.record]
    rows = rows.assign(peak=peaks, held_out=100 * rows.best_accuracy.astype(float))
    means = rows.groupby("loss", sort=False)[["accuracy", "held_out", "peak"]].mean()
    order = tables.layout(tables.cells(frame, profile), profile, kind)[0]
    means = means.reindex([loss for loss in order if loss in means.index])
    return means.assign(gain=means.peak - means.accuracy)


# ------------------------------------------------------------------------------------------------- noise and gradients


def noise_quantities(rates=(0.2, 0.4)) -> pd.DataFrame:
    """Share of wrong labels, the smallest margin of a true class in its row, and I(clean; noisy), at equal rates."""
    kinds = ("symmetric", "symmetric-inclusive", "asymmetric", "asymmetric-sequential", "pair-flip")
    cells = [(kind, rate) for kind in kinds for rate in rates] + [(kind, np.nan) for kind in noise.HUMAN]
    rows = []
    for kind, rate in cells:
        T = noise.transition_matrix(kind, rate)
        rows.append([kind, rate, study.share(T), study.smallest_margin(T), study.information(T)])
    return pd.DataFrame(rows, columns=["kind", "rate", "share", "margin", "information"])


PULLED = ("ce", "mae", "rce", "nce", "nfl", "nce+mae", "nce+rce")


def pulls(names=PULLED, at=(0.001, 0.01, 0.1, 0.5, 0.9, 0.99)) -> pd.DataFrame:
    """-dL/dz_y, how hard a loss pulls the label's logit up, where the label has probability p and the others share the
    rest."""
    pull = {name: figures.loss_gradients(losses.make(name, 10, "none"), at)[3] for name in names}
    return pd.DataFrame(pull, index=at).T


# ------------------------------------------------------------------------------------------------------ state spaces


def discretisations(steps=STEPS, d_state: int = 64, length: int = 1024) -> pd.DataFrame:
    """What each rule makes of S4D-Lin's modes: the largest |Ab|, how many modes grow, and how far the kernel is from
    zoh's (relative, for one random C)."""
    A = ssm.INITS["lin"](d_state)[None]
    C = torch.randn(A.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    B, rows = torch.ones_like(A), []
    for method in ("zoh", "bilinear", "backward-euler", "forward-euler"):
        for dt in steps:
            Ab = ssm.discretize(A, B, dt, method)[0].abs()
            K, exact = (ssm.diagonal_kernel(A, B, C, torch.tensor([dt]).double(), length, m) for m in (method, "zoh"))
            rows.append([method, dt, Ab.max().item(), int((Ab > 1).sum()), ((K - exact).norm() / exact.norm()).item()])
    return pd.DataFrame(rows, columns=["method", "dt", "largest", "growing", "difference"])


def agreement(d_state: int = 64, length: int = 1001, channels: int = 4) -> pd.DataFrame:
    """Two ways to one result, each pair's largest difference relative to the largest value; float64 unless said."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    Lambda, P, Bn, V = ssm.normal_plus_low_rank(d_state)
    p = 2 * (V @ P).real  # each conjugate pair once, so twice the real part
    rebuilt = 2 * (V @ torch.diag(Lambda) @ V.mH).real - torch.outer(p, p)
    dt = torch.logspace(-3, -1, channels, dtype=torch.float64)
    modes, ones = Lambda.expand(channels, -1), torch.ones(channels, len(Lambda), dtype=torch.complex128)
    C = torch.complex(random(*modes.shape), random(*modes.shape))
    K = ssm.diagonal_kernel(modes, ones, C, dt, length)
    u = random(2, channels, length)
    y = ssm.fft_conv(u, K)
    system = [t.numpy() for t in (modes, ones, C, dt)]
    numpy_K, steps = numpy_s4.diagonal_kernel(*system, length)[0], numpy_s4.recurrence(u.numpy(), *system)
    low = [t.expand(channels, -1) for t in (Lambda, P, Bn)]
    dense = ssm.dense_kernel(*ssm.kernels.dplr_to_dense(*low), ssm.kernels.real_row(C), dt, length)
    cauchy = ssm.cauchy_kernel(*low, C, dt, length)
    single = ssm.diagonal_kernel(modes.cfloat(), ones.cfloat(), C.cfloat(), dt.float(), length)
    pairs = [
        ("HiPPO matrix", "its normal part minus the rank-one term", ssm.hippo_legs(d_state)[0], rebuilt),
        ("diagonal kernel, blocks", "the same by powers, one by one (NumPy)", K, torch.from_numpy(numpy_K)),
        ("diagonal kernel, float32", "the same in float64", single.double(), K),
        ("dense kernel, Krylov blocks", "Cauchy sums and Woodbury's identity", dense, cauchy),
        ("convolution by FFT", "from the definition, term by term", y, ssm.direct_conv(u, K)),
        ("convolution by FFT", "the recurrence, step by step (NumPy)", y, torch.from_numpy(steps)),
    ]
    rows = [[one, other, ((a - b).abs().max() / b.abs().max()).item()] for one, other, a, b in pairs]
    return pd.DataFrame(rows, columns=["one way", "the other", "difference"])


def kernel_cost(lengths=(1024, 4096, 16384), N: int = 32) -> pd.DataFrame:
    """Complex numbers a channel's diagonal kernel keeps as intermediate results: the full table, the two small ones."""
    rows = [[L, N * L, N * sum(ssm.kernels.split(L))] for L in lengths]
    return pd.DataFrame(rows, columns=["length", "full table", "two tables"])
