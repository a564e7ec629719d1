"""State spaces and the networks made of them: kernels, spectra, stability, learning, growth with length."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from saidl import ssm
from saidl.figures.accuracy import done, history
from saidl.figures.drawing import RATE_COLOURS, figure, legend, look, panels
from saidl.names import label, rule_name

METHOD_COLOURS = {
    "zoh": "#0072B2", "bilinear": "#D55E00", "forward-euler": "#000000", "backward-euler": "#009E73",
    "gbt": "#E69F00", "dirac": "#CC79A7", "async": "#56B4E9",
}  # fmt: skip
# of a model's other discretisations and sizes, the usual two first
FURTHER = [
    {"color": colour, "marker": marker, "linestyle": "--"}
    for colour, marker in zip(("#56B4E9", "#000000", "#882255", "#999933", "#661100", "#332288"), "vPX<p*", strict=True)
]

VARIANTS = dict(zip(("bilinear", "zoh, 4 × 128"), FURTHER, strict=False))  # S4D's, the same in every figure


@figure
def curves(
    named: Mapping[str, Mapping], columns: int = 3, height: float = 1.9, truth: bool = True, dots=(), sharey=True,
    **axis,
):  # fmt: skip
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
        "epoch" or "minutes", the latter as `minutes` counts them: a run's fastest epoch times the epochs.
    """
    columns = min(columns, len(parts))
    blocks = -(-len(parts) // columns)
    fig, axes = panels(blocks * len(by), columns, height=2.1, sharey="row")
    for ax in axes.flat:
        ax.set_axis_off()
    styles = {}  # one for each name, the same in all panels: a model's first name has its colour
    others = iter(FURTHER[len(VARIANTS) :] * 3)
    for table in parts.values():
        for model, name in zip(table.model, table.name, strict=True):
            if (model, name) not in styles:
                first = all(other != model for other, _ in styles)
                variant = name.partition(" (")[2].rstrip(")")
                styles[model, name] = look(model) | ({} if first else VARIANTS.get(variant) or next(others))
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
        for field, more in {"train_accuracy": {"marker": "", "alpha": 0.35}, "test_accuracy": {"label": name}}.items():
            epochs, accuracy = history(rows, field)
            x = epochs if against == "epoch" else np.mean([minutes(record, 1) for record in rows.record]) * epochs
            ax.plot(x, accuracy, **styles[model, name] | more)


def minutes(record: Mapping, epochs: int | None = None) -> float:
    """How long a run trains on one thread of the machine that recorded it: its fastest epoch, times the epochs (None: all). Others
    were busy beside it by turns, so that the sum over its epochs would tell more of them than of the run."""
    seconds = record["history"]["seconds"]
    return min(seconds) * (len(seconds) if epochs is None else epochs) / 60


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
    """Test accuracy of state-space runs by discretisation: a stroke a seed, a point the mean with its standard deviation."""
    part = done(table)
    names = [rule_name(row.model, row.model_options) for row in part.itertuples()]
    accuracy = 100 * part.test_accuracy.groupby(names, sort=False).agg(["mean", "std"])
    fig, axes = panels(1, 1, height=0.7 + 0.3 * len(accuracy))
    ax, places = axes[0, 0], np.arange(len(accuracy))[::-1]
    for name, place in zip(accuracy.index, places, strict=True):
        seeds = 100 * part.test_accuracy[[n == name for n in names]]
        ax.plot(seeds, np.full(len(seeds), place), "|", color="black", markersize=9)
        mean, std = accuracy.loc[name].fillna(0)
        ax.errorbar(mean, place, xerr=std, fmt="o", color=method_colour(name, "#555555"), capsize=3)
    ax.set(yticks=places, yticklabels=accuracy.index, ylim=(-0.6, len(places) - 0.4), xlabel="test accuracy, %")
    ax.grid(axis="y", visible=False)
    return fig


def method_colour(name: str, otherwise: str) -> str:
    """A discretisation's colour wherever its name stands, also within a longer label ("gbt 0.75")."""
    return METHOD_COLOURS.get(name.split(" ")[0].rstrip(","), otherwise)


@figure
def by_model(table, seconds: Mapping[str, float]):
    """Test accuracy of sequence models against the epoch and against seconds, of which an epoch takes so many of each model."""
    part = done(table)
    fig, axes = panels(1, 2, height=2.8, sharey=True)
    for name, runs in part.groupby("model", sort=False):
        epochs, values = history(runs, "test_accuracy")
        text = f"{label(name)}, {runs.parameters.mean():,.0f}"
        for ax, x in zip(axes[0], (epochs, seconds[name] * epochs), strict=True):
            ax.plot(x, values, label=text, markevery=0.15, **look(name))
    axes[0, 0].set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 102))
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


@figure
def by_length(rows: Sequence[Mapping]):
    """Time of kernels and of networks, forward and backward, and the kernels' memory, against length.

    Arguments: rows, of a saved bench (`tables.benchmarks`); those with a kind and a length are drawn.
    """
    timed = [row for row in rows if "length" in row and "kind" in row]
    fig, axes = panels(1, 3, height=2.6)
    shown = (
        ("-kernel", "ours_ms", "kernel, ms"),
        ("-kernel", "peak_mb", "kernel, peak MiB"),
        ("-network", "ours_ms", "network, ms"),
    )
    for ax, (suffix, field, text) in zip(axes[0], shown, strict=True):
        for kind in dict.fromkeys(row["kind"] for row in timed if row["kind"].endswith(suffix)):
            points = sorted((row["length"], row[field]) for row in timed if row["kind"] == kind and row.get(field))
            name = kind.removesuffix(suffix)
            style = {"color": "black", "linestyle": "--", "marker": "x"} if name == "full" else look(name)
            ax.plot(*np.array(points).T, **style, label="full table" if name == "full" else label(name))
        ax.set(xscale="log", yscale="log", xlabel="length", title=text)
    legend(fig, axes, "outside lower center", ncols=6)
    return fig
