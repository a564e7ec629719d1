"""Every plot, for notebooks and report alike: one style, one colour a name, one function a picture.

A function takes a results table (`results.load`, `sweep.run`) or plain arrays and returns a matplotlib Figure, closed
for pyplot: as a cell's last value it is shown once. What is missing or NaN is not drawn, and its legend entry says so.
Accuracies are drawn in per cent; with several seeds a point is their mean and its bar one standard deviation (n - 1).

    >>> label("nce+rce"), label("nce+nnce"), label("eps-ce+mae"), label("s4d")
    ('NCE+RCE', 'ANL-CE', 'ε-CE+MAE', 'S4D')
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from saidl.noise import KINDS

WIDTH = 6.3  # inches: the report's text width
STYLE = {
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # text stays text
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "image.cmap": "Blues",
    "image.interpolation": "nearest",
}

# Okabe & Ito's colour-blind palette for the eight losses of the grid, Tol's muted one for the rest.
COLOURS = {
    "ce": "#000000", "fl": "#7F7F7F", "nce": "#56B4E9", "nfl": "#0072B2",
    "nce+mae": "#E69F00", "nce+rce": "#D55E00", "nfl+mae": "#009E73", "nfl+rce": "#CC79A7",
    "mae": "#999933", "rce": "#882255", "gce": "#332288", "sce": "#AA4499", "ngce": "#88CCEE", "nmae": "#DDCC77",
    "agce": "#117733", "aul": "#44AA99", "ael": "#CC6677", "amse": "#332288", "nnce": "#AA4499", "nnfl": "#882255",
    "nce+agce": "#117733", "nce+aul": "#44AA99", "nce+ael": "#CC6677", "nce+nnce": "#332288", "nfl+nnfl": "#6699CC",
    "nce+amse": "#AA4499", "nfl+amse": "#882255", "ngce+mae": "#661100", "ngce+rce": "#6699CC",
    "eps-ce+mae": "#999933", "eps-fl+mae": "#DDCC77", "logitclip-ce": "#661100",
    "s4d": "#0072B2", "s4": "#D55E00", "lstm": "#009E73", "gru": "#E69F00", "transformer": "#CC79A7",
    "numpy-s4": "#000000",
}  # fmt: skip
MARKERS = {
    "ce": "o", "fl": "s", "nce": "v", "nfl": "^", "nce+mae": "D", "nce+rce": "*", "nfl+mae": "P", "nfl+rce": "X",
    "mae": "<", "rce": ">", "gce": "h", "sce": "d", "ngce": "p", "nce+agce": "<", "nce+aul": ">", "nce+ael": "8",
    "nce+nnce": "p", "nfl+nnfl": "H", "nce+amse": "h", "nfl+amse": "8", "eps-ce+mae": "d", "eps-fl+mae": ">",
    "s4d": "o", "s4": "s", "lstm": "^", "gru": "v", "transformer": "D", "numpy-s4": "P",
}  # fmt: skip
LINES = dict.fromkeys(("ce", "fl", "logitclip-ce"), "--")  # not robust
LINES |= dict.fromkeys(("nce", "nfl", "ngce", "nmae", "nrce"), ":")  # normalised alone
LINES |= dict.fromkeys(("mae", "rce", "amse", "nnce", "nnfl"), "-.")  # passive alone; all else solid
LABELS = {
    "nce+nnce": "ANL-CE", "nfl+nnfl": "ANL-FL", "nce+amse": "JAL-CE", "nfl+amse": "JAL-FL",
    "logitclip-ce": "LogitClip-CE", "transformer": "Transformer", "numpy-s4": "NumPy S4",
}  # fmt: skip


def style():
    """The one style, as a context: `with figures.style(): ...`."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def figure(draw):
    """Draw in the one style and close it, so that a notebook shows it once and many plots hold no memory."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        import matplotlib.pyplot as plt

        with style():
            fig = draw(*args, **kwargs)
        plt.close(fig)
        return fig

    return drawn


def save(fig, path) -> Path:
    """Write a figure, its type by the suffix; a PDF bears no date, so that equal figures are equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        fig.savefig(path, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return path


def label(name: str) -> str:
    return LABELS.get(name, name.upper().replace("EPS-", "ε-"))


def look(name: str) -> dict:
    """Colour, marker and line of a loss or model, the same in every figure; an unknown name is a grey cross."""
    marker = MARKERS.get(name, "x")
    size = 7.0 if marker == "*" else 4.5
    return {
        "color": COLOURS.get(name, "#555555"), "marker": marker, "markersize": size, "linestyle": LINES.get(name, "-"),
    }  # fmt: skip


def panels(rows: int, columns: int, height: float = 2.6, width: float = WIDTH, **options):
    """A Figure and its axes, always an array (rows, columns)."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, **options)


def legend(fig, axes, loc: str = "outside right upper", **options) -> None:
    """One legend for all panels, a name once, in the order drawn."""
    entries = {}
    for ax in np.ravel(axes):
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    if entries:
        fig.legend(entries.values(), entries.keys(), loc=loc, **options)


# ----------------------------------------------------------------------------------------------- accuracy, from a table


@figure
def accuracy_by_rate(table, published=None):
    """Last-epoch test accuracy against the noise rate: a panel a kind of noise, a line a loss; each starts clean.

    Arguments: table, runs (one profile, one data set); published, rows of `published` to add as hollow markers.
    """
    kinds = sorted(set(table.noise[table.rate > 0]), key=lambda kind: place(kind, KINDS)) or ["symmetric"]
    fig, axes = panels(1, len(kinds), height=3.1, sharey=True)
    for ax, kind in zip(axes[0], kinds, strict=True):
        part = table[(table.noise == kind) | (table.rate == 0)]
        rates = sorted(part.rate.unique())
        for name in losses_of(table):
            measured = spread(part[part.loss == name], "rate").reindex(rates)
            if measured["mean"].notna().any():
                bar = measured["std"] if measured["std"].notna().any() else None
                ax.errorbar(rates, measured["mean"], bar, label=label(name) + missing(table, name), **look(name))
            if published is not None:
                theirs = published[(published.noise == kind) & (published.loss == name)].sort_values("rate")
                ax.plot(theirs.rate, theirs.accuracy, **look(name) | {"linestyle": "none", "markerfacecolor": "none"})
        ax.set(xlabel=f"{kind} noise rate", xticks=rates)
    if published is not None:
        hollow = {"color": "black", "marker": "o", "linestyle": "none", "markerfacecolor": "none"}
        axes[0, 0].errorbar([], [], label="hollow: published", **hollow)
    axes[0, 0].set_ylabel("test accuracy, %")
    legend(fig, axes)
    return fig


@figure
def over_epochs(table, fields: Sequence[str] = ("test_accuracy",)):
    """What the history holds against the epoch, a line a loss: a panel a noise setting, or with several fields a row a
    setting and a column a field ("test_accuracy", "train_accuracy", "valid_accuracy", "memorised", "resisted").
    """
    cells = by_cell(table)
    shape = (len(cells), len(fields)) if len(fields) > 1 else (1, len(cells))
    fig, axes = panels(*shape, height=2.3 if shape[0] > 1 else 2.9, sharex=True, sharey=len(fields) == 1)
    for ax, ((cell, part), field) in zip(axes.flat, ((c, f) for c in cells for f in fields), strict=True):
        for name in losses_of(table):
            epochs, values = history(part[part.loss == name], field)
            ax.plot(epochs, values, label=label(name), markevery=0.15, **look(name))
        ax.set(title=cell_title(*cell), ylabel=FIELDS.get(field, field), xlabel="epoch")
        if len(fields) == 1:
            ax.label_outer()
        else:
            ax.set_ylim(-3, 103)
    legend(fig, axes)
    return fig


def memorisation(table):
    """The share of flipped training labels the network reproduces (memorised) and of those where it says the true class
    all the same (resisted), epoch by epoch, beside its test accuracy; a row a noise setting."""
    return over_epochs(table, ("memorised", "resisted", "test_accuracy"))


@figure
def class_accuracy(table, classes: Sequence[str] | None = None, flipped: Sequence[int] = ()):
    """Last-epoch test accuracy by class: a marker a loss, a panel a noise setting; `flipped` classes are shaded."""
    cells = by_cell(table)
    fig, axes = panels(len(cells), 1, height=2.5, sharex=True)
    names = losses_of(table)
    for ax, (cell, part) in zip(axes[:, 0], cells, strict=True):
        for i, name in enumerate(names):
            rows = [record["history"]["class_accuracy"][-1] for record in done(part[part.loss == name]).record]
            if rows:
                values = 100 * np.mean(np.array(rows, float), axis=0)  # (K,)
                x = np.arange(len(values)) + 0.6 * ((i + 0.5) / len(names) - 0.5)
                ax.plot(x, values, label=label(name) + missing(table, name), **look(name) | {"linestyle": "none"})
                count = len(values)
        for c in flipped:
            ax.axvspan(c - 0.45, c + 0.45, color="#000000", alpha=0.07, linewidth=0)
        texts = classes or [str(c) for c in range(count)]
        ax.set(title=cell_title(*cell), ylabel="test accuracy, %", xticks=range(len(texts)), ylim=(None, 102))
        ax.set_xticklabels(texts, rotation=0 if max(map(len, texts)) < 4 else 35)
        ax.grid(axis="x", visible=False)
    legend(fig, axes)
    return fig


@figure
def bars(table, published=None):
    """Last-epoch test accuracy of every loss as a bar with its number, a panel a noise setting, best on top.

    Arguments: table, runs; published, rows of `published` to set beside ours as hollow markers.
    """
    cells = by_cell(table)
    fig, axes = panels(1, len(cells), height=0.8 + 0.24 * table.loss.nunique())
    for ax, ((kind, rate), part) in zip(axes[0], cells, strict=True):
        ours = spread(part, "loss").sort_values("mean").dropna(subset="mean")
        places = np.arange(len(ours))
        colours = [look(name)["color"] for name in ours.index]
        ax.barh(places, ours["mean"], xerr=ours["std"].fillna(0), color=colours, alpha=0.45, height=0.7)
        for place, value in zip(places, ours["mean"], strict=True):
            ax.text(1, place, f"{value:.1f}", va="center", fontsize=8)
        if published is not None:
            theirs = published[(published.noise == kind) & (published.rate == rate)].set_index("loss").accuracy
            theirs = theirs.reindex(ours.index)
            ax.plot(theirs, places, "D", color="black", markerfacecolor="white", linestyle="none", label="published")
        absent = [label(name) for name in losses_of(table) if name not in ours.index]
        title = cell_title(kind, rate) + (f"\nmissing: {', '.join(absent)}" if absent else "")
        ax.set(title=title, xlabel="test accuracy, %", xlim=(0, 100), yticks=places)
        ax.set_yticklabels([label(name) for name in ours.index])
        ax.grid(axis="y", visible=False)
    legend(fig, axes, "outside lower center")
    return fig


# -------------------------------------------------------------------------------------------------- matrices and images


@figure
def matrices(
    named: Mapping[str, np.ndarray], classes=None, columns: int = 3, axes_labels=("label given", "true class")
):
    """Row-stochastic matrices (K, K) as heat maps on one scale, the square root of the share, so that the faint shows;
    a panel a name, and one or two of them with their numbers."""
    from matplotlib.colors import PowerNorm

    rows, columns = -(-len(named) // columns), min(columns, len(named))
    long = max(map(len, classes or [""])) > 3
    height = WIDTH / columns * (0.85 if long else 0.95) + (0.6 / rows if long else 0)
    fig, axes = panels(rows, columns, height=height, sharex=True, sharey=True)
    for ax in axes.flat[len(named) :]:
        ax.set_axis_off()
    for ax, (name, matrix) in zip(axes.flat, named.items(), strict=False):
        matrix = np.asarray(matrix, float)  # (K, K)
        picture = ax.imshow(matrix, norm=PowerNorm(0.5, 0, 1))
        if len(named) <= 2 and len(matrix) <= 10:
            for i, j in zip(*np.nonzero(matrix >= 0.005), strict=True):
                text, colour = f"{matrix[i, j]:.2f}".lstrip("0"), "white" if matrix[i, j] > 0.3 else "black"
                ax.text(j, i, text.replace("1.00", "1"), ha="center", va="center", fontsize=6, color=colour)
        ticks = range(len(matrix)) if len(matrix) <= 10 else []
        ax.set(title=name, xticks=ticks, yticks=ticks)
        ax.grid(False)
        if classes and len(classes) == len(matrix) <= 10:
            ax.set_xticklabels(classes, rotation=90 if long else 0, fontsize=7)
            ax.set_yticklabels(classes, fontsize=7)
    fig.supxlabel(axes_labels[0], fontsize=9)
    fig.supylabel(axes_labels[1], fontsize=9)
    fig.colorbar(picture, ax=axes, shrink=0.6, aspect=25, label="share of the row")
    return fig


def transition(noisy, classes=None):
    """The nominal transition matrix of a `noise.Noisy` beside the one its draw realised."""
    title = f"realised, {100 * noisy.rate:.1f} % of labels wrong"
    return matrices({"nominal": noisy.nominal, title: noisy.realised}, classes, columns=2)


def confusion(table, classes=None, columns: int = 3):
    """The last epoch's confusion matrices on the test set, rows scaled to 1, a panel a run."""
    titles = [
        label(row.loss) + (f", seed {row.seed}" if table.seed.nunique() > 1 else "") for row in table.itertuples()
    ]
    counts = [np.array(record["confusion"], float) for record in table.record]
    shares = [count / np.maximum(count.sum(1, keepdims=True), 1) for count in counts]
    return matrices(dict(zip(titles, shares, strict=True)), classes, columns, ("predicted class", "true class"))


@figure
def image_grid(images, given, true=None, classes=None, columns: int = 10):
    """Images with the label given to each; where it is wrong, a red frame and "true > given".

    Arguments: images (N, C, H, W) uint8 or float in [0, 1]; given, true (N,) labels; classes, their names.
    """
    given, true = np.asarray(given), np.asarray(given if true is None else true)
    names = [str(c) for c in range(max(given.max(), true.max()) + 1)] if classes is None else classes
    rows, columns, long = -(-len(given) // columns), min(columns, len(given)), max(map(len, names)) > 3
    fig, axes = panels(rows, columns, height=WIDTH / columns * (1.4 if long else 1.3))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    for ax, image, g, t in zip(axes.flat, np.asarray(images), given, true, strict=False):
        ax.imshow(image.transpose(1, 2, 0), cmap="gray")
        wrong = g != t
        text = f"{names[t]}{chr(10) if long else ' '}\u2192 {names[g]}" if wrong else names[g]
        ax.set_title(text, fontsize=6 if long else 8, color="#B00000" if wrong else "black", pad=2)
        ax.spines[:].set(visible=bool(wrong), color="#B00000", linewidth=2)
    return fig


# ---------------------------------------------------------------------------------------------------- losses themselves


@figure
def loss_curves(names: Sequence[str], num_classes: int = 10, dataset: str = "cifar10", **hyper):
    """L, -dL/dp_y and -dL/dz_y against p_y, the other classes sharing the rest; gradients by autograd from the loss.
    The thin upright is 1/K, where an untrained network starts.

    Arguments: names of losses, in a data set's published settings; hyper overrides them.
    """
    from saidl import losses

    fig, axes = panels(1, 3, height=2.8)
    for name in names:
        loss = losses.make(name, num_classes, "none", **losses.settings(name, dataset)[0] | hyper)
        p, value, slope, pull = loss_gradients(loss)
        for ax, y in zip(axes[0], (value, slope, pull), strict=True):
            ax.plot(p, np.where(y > 0, y, np.nan), label=label(name), markevery=0.15, **look(name))
    titles = ("loss $L$", "$-\\partial L/\\partial p_y$", "$-\\partial L/\\partial z_y$")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set(title=title, xlabel="$p_y$")
    for ax, least in zip(axes[0, 1:], (1e-2, 1e-3), strict=True):
        ax.set(xscale="log", yscale="log", ylim=(least, None))
        ax.axvline(1 / num_classes, color="#000000", linewidth=0.6, alpha=0.5)
    legend(fig, axes, "outside lower center", ncols=min(len(names), 6))
    return fig


def loss_gradients(loss, points: int = 199):
    """p_y in (0, 1), L, -dL/dp_y and -dL/dz_y (each (points,)) along logits z = log p with the rest shared evenly."""
    import torch

    count = loss.num_classes
    p = torch.linspace(-7, 7, points, dtype=torch.float64).sigmoid().requires_grad_()
    z = torch.cat([p[:, None], ((1 - p) / (count - 1))[:, None].expand(-1, count - 1)], 1).log()  # (points, K)
    value = loss(z, torch.zeros(points, dtype=torch.int64))
    slope, pull = torch.autograd.grad(value.sum(), (p, z))
    return tuple(t.detach().numpy() for t in (p, value, -slope, -pull[:, 0]))


@figure
def label_sums(names: Sequence[str], num_classes: int = 10, samples: int = 200, seed: int = 0):
    """sum_k L(z, k) of random logits from uncertain to sure, against the largest p: flat for a symmetric loss."""
    import torch

    from saidl import losses

    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1.3, samples, dtype=torch.float64)[:, None]
    z = scale * torch.randn(samples, num_classes, generator=generator, dtype=torch.float64)  # (samples, K)
    top, order = z.softmax(1).amax(1).sort()
    every = torch.arange(num_classes).repeat(samples)
    fig, axes = panels(1, 1, height=2.8)
    for name in names:
        loss = losses.make(name, num_classes, "none")
        total = loss(z.repeat_interleave(num_classes, 0), every).view(samples, num_classes).sum(1)[order]
        axes[0, 0].plot(top, total, **look(name) | {"linestyle": "none"}, alpha=0.6, label=label(name))
    axes[0, 0].set(xlabel="largest probability", ylabel="$\\Sigma_k\\,L(z, k)$", yscale="log")
    legend(fig, axes)
    return fig


@figure
def risk_bound(logits: Sequence, labels, names: Sequence[str], rates=(0.0, 0.2, 0.4, 0.6, 0.8), seed: int = 0):
    """Risk under symmetric noise against the clean risk of the same classifiers, a panel a loss, a colour a rate.

    Points: measured on labels made wrong. Lines: the theorem, R_eta = eta C / (K - 1) + (1 - eta K / (K - 1)) R, where
    the label sum is a constant C; elsewhere there is no such line, and dashes join the points.

    Arguments: logits, one array (N, K) a classifier; labels (N,), the true ones; names of losses.
    """
    fig, axes = panels(1, len(names), height=3.1)
    for ax, name in zip(axes[0], names, strict=True):
        clean, noisy, sums = risks(logits, labels, name, rates, seed)
        order, count = clean.argsort(), np.shape(logits[0])[1]
        span, constant = np.array([0, 1.05 * clean.max()]), np.ptp(sums) < 1e-6 * sums.max()
        for rate, measured, shade, marker in zip(rates, noisy, RATE_COLOURS, "osD^v*", strict=False):
            ax.plot(clean, measured, marker, color=shade, linestyle="none", label=f"η = {rate:g}")
            if constant:
                line = rate * sums[0] / (count - 1) + (1 - rate * count / (count - 1)) * span
                ax.plot(span, line, color=shade, linewidth=1)
            else:
                ax.plot(clean[order], measured[order], "--", color=shade, linewidth=0.8)
        low, high = sums.min(), sums.max()
        total = f"$C$ = {low:.3g}" if constant else f"label sum {low:.0f} to {high:.0f}"
        ax.set(title=f"{label(name)}, {total}", xlabel="clean risk $R$")
    axes[0, 0].set_ylabel("risk under noise $R_\\eta$")
    legend(fig, axes)
    return fig


def risks(logits: Sequence, labels, name: str, rates: Sequence[float], seed: int = 0, draws: int = 20):
    """What the theorem relates, for M classifiers: a loss's clean risk (M,), its risk under symmetric noise averaged
    over some draws of it (len(rates), M), and its mean label sum (M,). Arguments as for `risk_bound`."""
    import torch

    from saidl import losses, noise

    stack = [torch.as_tensor(z, dtype=torch.float64) for z in logits]
    labels, count = torch.as_tensor(labels), stack[0].shape[1]
    loss = losses.make(name, count)

    def noisy_risk(rate: float) -> list[float]:
        given = torch.cat(
            [noise.corrupt(labels, "symmetric", rate, num_classes=count, seed=seed + i).labels for i in range(draws)]
        )
        return [loss(z.repeat(draws, 1), given).item() for z in stack]

    clean = [loss(z, labels).item() for z in stack]
    sums = [sum(loss(z, torch.full_like(labels, k)).item() for k in range(count)) for z in stack]
    return np.array(clean), np.array([noisy_risk(rate) for rate in rates]), np.array(sums)


# -------------------------------------------------------------------------------------------------------------- helpers

RATE_COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
FIELDS = {
    "test_accuracy": "test accuracy, %", "valid_accuracy": "accuracy on held-out labels, %",
    "train_accuracy": "accuracy on the labels given, %", "memorised": "memorised, %", "resisted": "resisted, %",
}  # fmt: skip


def published(dataset: str = "cifar10", source: str = "Ma et al. 2020"):
    """The papers' robust-loss rows of published.csv (accuracy and std in per cent) from one source, as a DataFrame."""
    import pandas as pd

    rows = pd.read_csv(Path(__file__).with_name("published.csv"))
    rows = rows[(rows.task == "noise") & (rows.dataset == dataset) & rows.source.str.startswith(source)]
    return rows[(rows.split == "test") & rows.loss.notna()]


def losses_of(table) -> list[str]:
    """The table's losses in one order for all figures: the palette's, then the alphabet."""
    return sorted(set(table.loss), key=lambda name: (place(name, tuple(COLOURS)), name))


def by_cell(table) -> list:
    """((noise, rate), its rows) for every noise setting, kinds in `noise.KINDS`' order, rates rising."""
    groups = table.groupby(["noise", "rate"], dropna=False)
    return sorted(groups, key=lambda group: (place(group[0][0], KINDS), group[0]))


def place(name: str, order: tuple) -> int:
    return order.index(name) if name in order else len(order)


def done(table):
    return table[(table.status == "done") & table.test_accuracy.notna()]


def spread(table, by: str):
    """Mean and standard deviation of the test accuracy in per cent over seeds, a row a value of `by`."""
    return 100 * table.groupby(by, sort=False).test_accuracy.agg(["mean", "std"])


def history(table, field: str):
    """The epochs evaluated and a field's mean over runs at each, in per cent; empty without runs."""
    rows = [np.array(record["history"][field], float) for record in done(table).record]
    values = 100 * np.mean(rows, axis=0) if rows else np.zeros(0)
    seen = ~np.isnan(values)
    return np.arange(1, len(values) + 1)[seen], values[seen]


def cell_title(kind: str, rate: float) -> str:
    return "clean" if rate == 0 else kind if rate != rate else f"{kind} {rate:g}"


def missing(table, name: str) -> str:
    """Which of a table's noise settings a loss has no result for, as its legend entry says it."""
    have = {cell for cell, _ in by_cell(done(table[table.loss == name]))}
    lacking = [cell_title(*cell) for cell, _ in by_cell(table) if cell not in have]
    text = ", ".join(lacking) if len(lacking) < 3 else f"{len(lacking)} settings"
    return f"\n  (missing: {text})" if lacking else ""


# --------------------------------------------------------------------------------------------------------- state spaces

METHOD_COLOURS = {
    "zoh": "#0072B2", "bilinear": "#D55E00", "forward-euler": "#000000", "backward-euler": "#009E73",
    "gbt": "#E69F00", "dirac": "#CC79A7", "async": "#56B4E9",
}  # fmt: skip


@figure
def curves(
    named: Mapping[str, Mapping],
    columns: int = 3,
    height: float = 1.9,
    truth: bool = True,
    dots=(),
    sharey=True,
    **axis,
):
    """A panel a title, a line a label, {title: {label: (x, y)}}; with `truth` the first line of each is broad and grey:
    what the others are to match. `dots` are labels drawn as points; axis, settings of every panel (xlabel, yscale ..).
    """
    columns = min(columns, len(named))
    rows = -(-len(named) // columns)
    fig, axes = panels(rows, columns, height=height, sharex=True, sharey=sharey)
    for ax in axes.flat[len(named) :]:
        ax.set_axis_off()
    labels = list(dict.fromkeys(name for lines in named.values() for name in list(lines)[truth:]))
    colours = {name: method_colour(name, RATE_COLOURS[1 + i % 5]) for i, name in enumerate(labels)}
    for i, (ax, (title, lines)) in enumerate(zip(axes.flat, named.items(), strict=False)):
        for j, (name, (x, y)) in enumerate(lines.items()):
            if truth and j == 0:
                ax.plot(x, y, color="0.72", linewidth=3.2, label=name)
            else:
                mark = {"linestyle": "--" if ", " in name else "-"}  # a variant of the name before the comma
                mark = {"marker": "o", "linestyle": "none", "markersize": 3} if name in dots else mark
                ax.plot(x, y, color=colours[name], label=name, **mark)
        ax.set(title=title, **axis)
        if i + columns < len(named):
            ax.set_xlabel("")
        if i % columns:
            ax.set_ylabel("")
    legend(fig, axes, "outside lower center", ncols=4)
    return fig


@figure
def learning(parts: Mapping, by=("epoch", "minutes"), columns: int = 3):
    """Accuracy while sequence models learn: a column a task, a row an abscissa. A line with markers is the test accuracy where
    it was taken, the pale line beside it that on the training data, of every epoch.

    Arguments: parts, {title: runs with a `name` each, as `tables.named` gives them}, runs of one name being averaged; by,
        "epoch" or "minutes", the latter of training and evaluation on one thread of whatever machine recorded the run.
    """
    columns = min(columns, len(parts))
    blocks = -(-len(parts) // columns)
    fig, axes = panels(blocks * len(by), columns, height=2.1, sharey="row")
    for ax in axes.flat:
        ax.set_axis_off()
    styles = {}  # one for each name, the same in all panels: a colour a model, a dash its further names
    for table in parts.values():
        for model, name in zip(table.model, table.name, strict=True):
            nth = sum(other == model for other, _ in styles)
            further = {"linestyle": ("-", "--", ":", "-.")[nth % 4], "markerfacecolor": "none"} if nth else {}
            styles.setdefault((model, name), look(model) | further)
    for n, (title, table) in enumerate(parts.items()):
        rows = range(n // columns * len(by), (n // columns + 1) * len(by))
        for ax, against in zip(axes[rows, n % columns], by, strict=True):
            ax.set_axis_on()
            learnt(ax, done(table), against, styles)
            ax.set(xlabel=against, xlim=(0, None), title="" if ax is not axes[rows[0], n % columns] else title)
            ax.xaxis.get_major_locator().set_params(integer=True)
        if n % columns == 0:
            for ax in axes[rows, 0]:
                ax.set_ylabel("accuracy, %")
    legend(fig, axes, "outside lower center", ncols=3)
    return fig


def learnt(ax, runs, against: str, styles: Mapping[tuple[str, str], Mapping]) -> None:
    """One panel of `learning`."""
    for (model, name), rows in runs.groupby(["model", "name"], sort=False):
        seconds = np.mean([record["history"]["seconds"] for record in rows.record], axis=0)
        x = np.arange(1, len(seconds) + 1) if against == "epoch" else seconds.cumsum() / 60
        for field, more in {"train_accuracy": {"marker": "", "alpha": 0.35}, "test_accuracy": {"label": name}}.items():
            epochs, accuracy = history(rows, field)
            ax.plot(x[epochs - 1], accuracy, **styles[model, name] | more)


@figure
def spectrum(named: Mapping[str, np.ndarray]):
    """Eigenvalues in the complex plane (left), and their frequencies in rising order (right), a colour a name."""
    fig, axes = panels(1, 2, height=2.7)
    for (name, values), colour, mark in zip(named.items(), RATE_COLOURS, "xo^sDv", strict=False):
        values = np.asarray(values)
        point = {"color": colour, "marker": mark, "markersize": 3.5, "markerfacecolor": "none", "linestyle": "none"}
        axes[0, 0].plot(values.real, values.imag, label=name, **point)
        if np.abs(values.imag).max() > 0:
            axes[0, 1].plot(np.sort(values.imag), **point)
    axes[0, 0].set_xscale("symlog", linthresh=0.1, linscale=0.4)
    axes[0, 0].set(yscale="symlog", xlabel="Re $\\lambda$", ylabel="Im $\\lambda$")
    axes[0, 1].set(yscale="log", xlabel="mode, by frequency", ylabel="Im $\\lambda$")
    legend(fig, axes, "outside lower center", ncols=4)
    return fig


@figure
def stability(rules: Mapping[str, Mapping], modes=(), reach: float = 4.0, points: int = 240):
    """|Ab(z)| over the complex plane z = dt a, a panel a rule: blue decays, red grows, black is the line |Ab| = 1.

    Arguments: rules, a title and the arguments of `ssm.discretize` (method, alpha, gaps); modes, eigenvalues times dt to
        mark; reach, the plane's extent.
    """
    import torch

    from saidl import ssm

    columns = min(3, len(rules))
    fig, axes = panels(-(-len(rules) // columns), columns, height=2.1, sharex=True, sharey=True)
    for ax in axes.flat[len(rules) :]:
        ax.set_axis_off()
    side = torch.linspace(-reach, reach, points, dtype=torch.float64)  # an even number of points: none on a pole
    z = torch.complex(*torch.meshgrid(side, side, indexing="xy"))
    for ax, (title, rule) in zip(axes.flat, rules.items(), strict=False):
        Ab = ssm.discretize(z.flatten(), torch.ones(z.numel()), 1.0, **rule)[0].reshape(points, points)
        size = Ab.abs().clamp_min(1e-3).log10().numpy()
        picture = ax.imshow(size, cmap="RdBu_r", vmin=-1, vmax=1, extent=[-reach, reach] * 2, origin="lower")
        ax.contour(side, side, size, levels=[0], colors="black", linewidths=1.2)
        ax.axvline(0, color="black", linewidth=0.6, linestyle=":")
        seen = np.asarray([mode for mode in modes if abs(mode.imag) < reach and abs(mode.real) < reach])
        if len(seen):
            ax.plot(seen.real, seen.imag, ".", color="black", markersize=3)
        ax.set(title=title)
        ax.grid(False)
    fig.supxlabel("Re $z$", fontsize=9)
    fig.supylabel("Im $z$", fontsize=9)
    bar = fig.colorbar(picture, ax=axes, shrink=0.7, aspect=25, label="$|\\bar A(z)|$", ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["≤ 0.1", "1", "≥ 10"])
    return fig


@figure
def by_method(table):
    """Test accuracy of state-space runs by discretisation: a point a seed, a bar the mean with its standard deviation."""
    part = done(table)
    names = [rule_name(options) for options in part.model_options]
    accuracy = 100 * part.test_accuracy.groupby(names, sort=False).agg(["mean", "std"])
    fig, axes = panels(1, 1, height=0.7 + 0.3 * len(accuracy))
    ax, places = axes[0, 0], np.arange(len(accuracy))[::-1]
    ax.barh(places, accuracy["mean"], xerr=accuracy["std"].fillna(0), height=0.65, alpha=0.45,
            color=[method_colour(name, "#555555") for name in accuracy.index])  # fmt: skip
    for name, place in zip(accuracy.index, places, strict=True):
        seeds = 100 * part.test_accuracy[[n == name for n in names]]
        ax.plot(seeds, np.full(len(seeds), place), "|", color="black", markersize=9)
    low = max(0, 100 * part.test_accuracy.min() - 5)
    ax.set(yticks=places, yticklabels=accuracy.index, xlim=(low, 100), xlabel="test accuracy, %")
    ax.grid(axis="y", visible=False)
    return fig


def rule_name(options: Mapping) -> str:
    """A discretisation as model options say it: "zoh" where they do not, gbt with its alpha."""
    method = options.get("method", "zoh")
    return f"gbt {options.get('alpha', 0.5):g}" if method == "gbt" else method


def method_colour(name: str, otherwise: str) -> str:
    """A discretisation's colour wherever its name stands, also within a longer label ("gbt 0.75")."""
    return METHOD_COLOURS.get(name.split(" ")[0].rstrip(","), otherwise)


# --------------------------------------------------------------------------------------- asymmetric noise, and one's own

FAMILY_COLOURS = {
    "symmetric": "#0072B2", "pair-flip": "#E69F00", "asymmetric": "#D55E00", "asymmetric-sequential": "#CC79A7",
}  # fmt: skip


@figure
def matched(outcomes, groups: Mapping[str, Sequence[str]], votes: Mapping[str, Mapping[str, float]] | None = None):
    """Accuracy of settings that agree in one number: a panel a group, a row a case, a marker a loss. The grey bar ends at
    1 - share, where a network that memorises every label ends; the line is the Bayes classifier's accuracy.

    Arguments: outcomes, as `study.outcomes` returns them; groups, {what is equal: names of cases}.
    """
    fig, axes = panels(len(groups), 1, height=0.55 + 0.27 * max(map(len, groups.values())), sharex=True)
    for ax, (title, names) in zip(axes[:, 0], groups.items(), strict=True):
        for i, name in enumerate(names):
            rows = outcomes[outcomes.case == name]
            ax.barh(i, 100 * (1 - rows["share"].iloc[0]), color="0.9", height=0.62, label="1 - share of wrong labels")
            best = 100 * rows.bayes.iloc[0]
            ax.plot([best, best], [i - 0.4, i + 0.4], color="black", linewidth=2, label="Bayes classifier")
            for loss in losses_of(rows):
                values = 100 * rows[rows.loss == loss].accuracy
                ax.plot(values.mean(), i, **look(loss) | {"linestyle": "none"}, label=label(loss))
        ax.set(title=title, yticks=range(len(names)), xlim=(0, 102))
        ax.set_yticklabels(names)
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("test accuracy, %")
    legend(fig, axes)
    return fig


@figure
def continuum(outcomes, paths: Mapping[str, Mapping[float, str]]):
    """From symmetric noise to a pair flip: accuracy against the weight of the flip, a panel a path, a line a loss.

    Arguments: outcomes; paths, {title: {weight: name of the case}}.
    """
    fig, axes = panels(1, len(paths), height=2.6, sharey=True)
    for ax, (title, path) in zip(axes[0], paths.items(), strict=True):
        rows = outcomes.set_index("case")
        first = rows[~rows.index.duplicated()].reindex(list(path.values()))
        ax.plot(list(path), 100 * first.bayes, color="0.45", linewidth=2.5, label="Bayes classifier")
        ax.plot(list(path), 100 * (1 - first["share"]), color="0.85", linewidth=4, label="1 - share of wrong labels")
        for loss in losses_of(outcomes):
            values = outcomes[outcomes.loss == loss].groupby("case").accuracy.mean().reindex(list(path.values()))
            ax.plot(list(path), 100 * values, **look(loss), label=label(loss))
        ax.set(title=title, xlabel="weight of the pair flip", xticks=list(path), ylim=(0, 103))
    axes[0, 0].set_ylabel("test accuracy, %")
    legend(fig, axes)
    return fig


@figure
def class_groups(outcomes, family: str = "asymmetric"):
    """Accuracy of the classes that lose labels, that only receive some, and that do neither, against the rate."""
    groups = {"losing": "lose labels", "receiving": "only receive labels", "untouched": "neither"}
    rows = outcomes[outcomes.family == family]
    fig, axes = panels(1, len(groups), height=2.6, sharey=True)
    for ax, group in zip(axes[0], groups, strict=True):
        for loss in losses_of(rows):
            values = 100 * rows[rows.loss == loss].groupby("rate")[group].mean()
            ax.plot(values.index, values, **look(loss), label=label(loss))
        ax.axhline(100, color="0.45", linewidth=2.5, label="Bayes classifier", zorder=1)
        ax.set(title=groups[group], xlabel=f"{family} noise rate", xticks=values.index)
    axes[0, 0].set_ylabel("accuracy of the classes that .., %")
    legend(fig, axes)
    return fig


@figure
def dynamics(table, named: Mapping[str, str], losses: Sequence[str], fields=("memorised", "test_accuracy")):
    """What happens when: a column a loss, a row a field of the history, a line a noise setting.

    Arguments: table, runs; named, {run's `noise` and `rate` as `cell_title` writes them: the legend's text}.
    """
    fig, axes = panels(len(fields), len(losses), height=2.0, sharex=True, sharey="row")
    cells = {cell_title(*cell): rows for cell, rows in by_cell(table)}
    for i, j in np.ndindex(axes.shape):
        for k, (cell, text) in enumerate(named.items()):
            epochs, values = history(cells[cell][cells[cell].loss == losses[j]], fields[i])
            axes[i, j].plot(epochs, values, color=RATE_COLOURS[1 + k % 5], label=text)
        axes[0, j].set_title(label(losses[j]))
        axes[-1, j].set_xlabel("epoch")
        axes[i, 0].set_ylabel(FIELDS[fields[i]])
    legend(fig, axes, "outside lower center", ncols=len(named))
    return fig


@figure
def foretold(tables: Mapping[str, object]):
    """Accuracy against what a vote of k foretells, a panel a table; filled where k was fitted, hollow where it was not.

    Arguments: tables, {title: DataFrame with the columns loss, foretold, accuracy, fitted}.
    """
    fig, axes = panels(1, len(tables), height=3.1, sharey=True)
    for ax, (title, rows) in zip(axes[0], tables.items(), strict=True):
        ax.plot([0, 100], [0, 100], color="0.7", linewidth=1)
        for loss in losses_of(rows):
            for fitted, fill in ((True, {}), (False, {"markerfacecolor": "none"})):
                part = rows[(rows.loss == loss) & (rows.fitted == fitted)]
                text = {"label": label(loss)} if fitted else {}
                ax.plot(100 * part.foretold, 100 * part.accuracy, **look(loss) | {"linestyle": "none"} | fill, **text)
        ax.set(title=title, xlabel="foretold by a vote, %", xlim=(0, 102), ylim=(0, 102))
    ax.plot([], [], "o", color="black", markerfacecolor="none", label="hollow: not fitted")
    axes[0, 0].set_ylabel("test accuracy, %")
    legend(fig, axes)
    return fig


@figure
def rank_intervals(tables: Mapping[str, object]):
    """|rho| of each predictor with accuracy and its bootstrap interval, a marker a loss, a row a predictor.

    Arguments: tables, {loss: `study.rank_correlations`}.
    """
    fig, axes = panels(1, 1, height=0.6 + 0.5 * len(next(iter(tables.values()))))
    ax, names = axes[0, 0], list(next(iter(tables.values())).index)
    for i, (loss, rows) in enumerate(tables.items()):
        at = np.arange(len(rows)) + 0.7 * ((i + 0.5) / len(tables) - 0.5)
        error = [(rows.rho - rows.low).clip(lower=0), (rows.high - rows.rho).clip(lower=0)]
        ax.errorbar(rows.rho, at, xerr=error, label=label(loss), **look(loss) | {"linestyle": "none"}, capsize=2)
    ax.set(xlabel=r"Spearman's $|\rho|$ with the test accuracy, 95 % bootstrap interval", xlim=(0, 1.02))
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    legend(fig, axes)
    return fig


@figure
def past_the_bound(table, num_classes: int = 10):
    """Accuracy under symmetric noise up to a rate of 1: a line a loss, the bound 1 - 1/K and chance marked."""
    rows = done(table[table.noise == "symmetric"])
    fig, axes = panels(1, 1, height=2.8, width=0.75 * WIDTH)
    ax = axes[0, 0]
    for loss in losses_of(rows):
        values = spread(rows[rows.loss == loss].sort_values("rate"), "rate")["mean"]
        ax.plot(values.index, values, **look(loss), label=label(loss))
    ax.axvline(1 - 1 / num_classes, color="black", linewidth=1, linestyle=":", label="the bound, 1 - 1/K")
    ax.axhline(100 / num_classes, color="0.7", linewidth=1, label="chance")
    ax.set(xlabel="symmetric noise rate", ylabel="test accuracy, %", ylim=(-2, 102))
    legend(fig, axes)
    return fig


@figure
def likelihoods(tables: Mapping[str, object]):
    """How far each family of noise is from human labels: bits a label beyond the model with every entry free.

    Arguments: tables, {name of a label set: `study.held_out`}. A family that forbids a move people make is not drawn.
    """
    fig, axes = panels(1, 1, height=2.9)
    ax = axes[0, 0]
    for i, (name, rows) in enumerate(tables.items()):
        rows = rows[np.isfinite(rows.bits)].iloc[::-1]
        ax.plot(rows.bits - rows.bits.min(), range(len(rows)), "osD^v"[i], color=RATE_COLOURS[i], label=name)
    ax.set(xlabel="bits a label beyond the best family, on labels not fitted", xlim=(-0.005, None))
    ax.set_yticks(range(len(rows)), [f"{row.family} ({row.parameters})" for row in rows.itertuples()])
    legend(fig, axes)
    return fig


# ------------------------------------------------------------------------------------------------ sequences, by network


@figure
def by_model(table, seconds: Mapping[str, float] | None = None):
    """Test accuracy of sequence models against the epoch and, where an epoch's seconds are given, against seconds."""
    part = done(table)
    fig, axes = panels(1, 2 if seconds else 1, height=2.8, sharey=True)
    for name, runs in part.groupby("model", sort=False):
        epochs, values = history(runs, "test_accuracy")
        text = f"{label(name)}, {runs.parameters.mean():,.0f}"
        axes[0, 0].plot(epochs, values, label=text, markevery=0.15, **look(name))
        if seconds:
            axes[0, 1].plot(seconds[name] * epochs, values, label=text, markevery=0.15, **look(name))
    axes[0, 0].set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 102))
    if seconds:
        axes[0, 1].set(xlabel="seconds of training")
    legend(fig, axes, title="parameters")
    return fig


@figure
def growth(rows):
    """Time and, where it was taken, memory of a training step against the length of the sequence, axes logarithmic.

    Arguments: rows, as from `scaling.against_length`.
    """
    titles = {"ms": "ms a training step", "mb": "MiB kept for the backward pass"}
    titles = {column: title for column, title in titles.items() if column in rows}
    fig, axes = panels(1, len(titles), height=2.9)
    lengths = np.array(sorted(rows.length.unique()), float)
    for ax, (column, title) in zip(axes[0], titles.items(), strict=True):
        for name, part in rows.groupby("name", sort=False):
            ax.plot(part.length, part[column], label=label(name), **look(name))
        guide = 0.5 * rows[column].min() * lengths / lengths[0]
        ax.plot(lengths, guide, color="0.6", linestyle=":", linewidth=1, label="$\\propto L$")
        ax.set(xscale="log", yscale="log", xlabel="length of the sequence", title=title)
        ax.set_xticks(lengths, [f"{length:.0f}" for length in lengths])
        ax.minorticks_off()
    legend(fig, axes)
    return fig
