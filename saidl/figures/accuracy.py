"""Accuracy from a results table, by noise rate, epoch or class; and how a table is read for a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from saidl.figures.drawing import figure, legend, look, panels
from saidl.names import in_order, label, place
from saidl.noise import KINDS

FIELDS = {
    "test_accuracy": "test accuracy, %", "valid_accuracy": "accuracy on held-out labels, %",
    "train_accuracy": "accuracy on the labels given, %", "memorised": "memorised, %", "resisted": "resisted, %",
}  # fmt: skip


@figure
def accuracy_by_rate(table, published=None):
    """Last-epoch test accuracy against the noise rate: a panel a kind of noise, a line a loss; each starts clean.

    Arguments: table, runs (one profile, one data set); published, rows of `published` to add as hollow markers.
    """
    kinds = sorted(set(table.noise[table.rate > 0]), key=lambda kind: (place(kind, KINDS), kind)) or ["symmetric"]
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
    count = 0
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
        ax.set_xticklabels(texts, rotation=0 if max(map(len, texts), default=0) < 4 else 35)
        ax.grid(axis="x", visible=False)
    axes[-1, 0].set_xlabel("true class")
    legend(fig, axes)
    return fig


@figure
def classes_over_epochs(table, classes: Mapping[int, str], by: str | None = None, window: int = 1):
    """Test accuracy of some classes, {class: its name}, against the epoch: a panel a class, a line a loss; with `by`, a column of the
    table, a row of panels for each of its values. A `window` of several epochs draws the mean of each so many, without marks."""
    parts = list(table.groupby(by)) if by else [("", table)] * (len(table) > 0)
    fig, axes = panels(len(parts), len(classes), height=2.0, sharex="row", sharey=True)
    for row, (value, part) in zip(axes, parts, strict=True):
        for ax, (c, name) in zip(row, classes.items(), strict=True):
            for loss in losses_of(part):
                epochs, values = history(part[part.loss == loss], "class_accuracy")  # (E,), (E, K)
                whole = len(epochs) // window * window
                x, y = (v[:whole].reshape(-1, window).mean(1) for v in (epochs, values[:, c]))
                plain = {"marker": ""} if window > 1 else {}
                ax.plot(x, y, label=label(loss), markevery=0.2, **look(loss) | plain)
            ax.set(title=name, xlabel="epoch", ylim=(-3, 103))
        of_row = value if isinstance(value, str) else f"{value:,} {by}"
        row[0].set_ylabel(f"test accuracy, %\n{of_row}".rstrip())
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
        theirs = ours["mean"] * np.nan
        if published is not None:
            theirs = published[(published.noise == kind) & (published.rate == rate)].set_index("loss").accuracy
            theirs = theirs.reindex(ours.index)
            ax.plot(theirs, places, "D", color="black", markerfacecolor="white", linestyle="none", label="published")
        for y, value, mark in zip(places, ours["mean"], theirs, strict=True):
            start = max(value, mark) + 6 if mark < 35 else 1  # where no marker covers it
            ax.text(start, y, f"{value:.1f}", va="center", fontsize=8)
        absent = [label(name) for name in losses_of(table) if name not in ours.index]
        title = cell_title(kind, rate) + (f"\nmissing: {', '.join(absent)}" if absent else "")
        ax.set(title=title, xlabel="test accuracy, %", xlim=(0, 100), yticks=places)
        ax.set_yticklabels([label(name) for name in ours.index])
        ax.grid(axis="y", visible=False)
    legend(fig, axes, "outside lower center")
    return fig


# -------------------------------------------------------------------------------------------------------- reading a table


def published(dataset: str = "cifar10", source: str = "Ma et al. 2020"):
    """The papers' robust-loss rows of published.csv (accuracy and std in per cent) from the first source so named, as a DataFrame."""
    import pandas as pd

    rows = pd.read_csv(Path(__file__).parents[1] / "published.csv")
    rows = rows[(rows.task == "noise") & (rows.dataset == dataset) & rows.source.str.startswith(source)]
    return rows[(rows.split == "test") & rows.loss.notna()].drop_duplicates(["loss", "noise", "rate"])


def losses_of(table) -> list[str]:
    """The table's losses, see `in_order`."""
    return in_order(table.loss)


def by_cell(table) -> list:
    """((noise, rate), its rows) for every noise setting, kinds in `noise.KINDS`' order, rates rising."""
    groups = table.groupby(["noise", "rate"], dropna=False)
    return sorted(groups, key=lambda group: (place(group[0][0], KINDS), group[0]))


def done(table):
    return table[(table.status == "done") & table.test_accuracy.notna()]


def spread(table, by: str):
    """Mean and standard deviation of the test accuracy in per cent over seeds, a row a value of `by`.

    Raises ValueError where runs differ in more than their seeds: the mean of two experiments is neither's.
    """
    finished = done(table)
    again = finished[finished.duplicated([by, *(name for name in ("seed", "noise_seed") if name in table)])]
    if len(again):
        row = again.iloc[0]
        told = f"{row.loss}, {cell_title(row.noise, row.rate)}, seed {row.seed}"
        raise ValueError(f"runs of {told} differ in more than their seeds: choose some by the table's other columns")
    return 100 * table.groupby(by, sort=False).test_accuracy.agg(["mean", "std"])


def history(table, field: str):
    """The epochs evaluated and a field's mean over runs at each, in per cent, (E,), by class (E, K); empty without runs."""
    rows = [np.array(record["history"][field], float) for record in done(table).record]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("runs of different length have no mean at an epoch: choose some by table.epochs")
    values = 100 * np.mean(rows, axis=0) if rows else np.zeros(0)
    seen = ~np.isnan(values).all(axis=tuple(range(1, values.ndim)))  # of a field by class: any class
    return np.arange(1, len(values) + 1)[seen], values[seen]


def cell_title(kind: str, rate: float) -> str:
    return "clean" if rate == 0 else kind if rate != rate else f"{kind} {rate:g}"


def missing(table, name: str) -> str:
    """Which of a table's noise settings a loss has no result for, as its legend entry says it."""
    have = {cell for cell, _ in by_cell(done(table[table.loss == name]))}
    lacking = [cell_title(*cell) for cell, _ in by_cell(table) if cell not in have]
    text = ", ".join(lacking) if len(lacking) < 3 else f"{len(lacking)} settings"
    return f"\n  (missing: {text})" if lacking else ""
