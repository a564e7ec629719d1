"""Matrices of labels, and images with the labels given to them."""

from collections.abc import Mapping

import numpy as np

from saidl.figures.accuracy import by_cell, cell_title, done
from saidl.figures.drawing import WIDTH, figure, panels
from saidl.names import label


@figure
def matrices(
    named: Mapping[str, np.ndarray], classes=None, columns: int = 3, axes_labels=("label given", "true class")
):
    """Row-stochastic matrices (K, K) as heat maps on one scale, the square root of the share, so that the faint shows;
    a panel a name, and one or two of them with their numbers."""
    from matplotlib.colors import PowerNorm

    rows, columns = -(-len(named) // columns), min(columns, len(named))
    long = max(map(len, classes or [""])) > 3
    height = WIDTH / max(columns, 1) * (0.85 if long else 0.95) + (0.8 / max(rows, 1) if long else 0)
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
    title = f"realised, {100 * noisy.rate:.1f}% of labels wrong"
    return matrices({"nominal": noisy.nominal, title: noisy.realised}, classes, columns=2)


def confusion(table, classes=None, columns: int = 3):
    """The last epoch's confusion matrices on the test set, rows scaled to 1, a panel a run."""
    table = done(table)
    several, seeds = len(by_cell(table)) > 1, table.seed.nunique() > 1
    titles = [
        label(row.loss) + f", {cell_title(row.noise, row.rate)}" * several + f", seed {row.seed}" * seeds
        for row in table.itertuples()
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
