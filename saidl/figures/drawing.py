"""The one style: a colour, marker and line for each name, panels, the legend of all panels."""

import functools
from pathlib import Path

import numpy as np

from saidl.names import COLOURS

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

# of a noise rate, or anything else without a colour of its own
RATE_COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
MARKERS = {
    "ce": "o", "fl": "s", "nce": "v", "nfl": "^", "nce+mae": "D", "nce+rce": "*", "nfl+mae": "P", "nfl+rce": "X",
    "mae": "<", "rce": ">", "gce": "h", "sce": "d", "ngce": "p", "nce+agce": "<", "nce+aul": ">", "nce+ael": "8",
    "nce+nnce": "p", "nfl+nnfl": "H", "nce+amse": "h", "nfl+amse": "8", "eps-ce+mae": "d", "eps-fl+mae": ">",
    "s4d": "o", "s4": "s", "lstm": "^", "gru": "v", "transformer": "D",
}  # fmt: skip
LINES = dict.fromkeys(("ce", "fl", "logitclip-ce"), "--")  # not robust
LINES |= dict.fromkeys(("nce", "nfl", "ngce", "nmae", "nrce"), ":")  # normalised alone
LINES |= dict.fromkeys(("mae", "rce", "amse", "nnce", "nnfl"), "-.")  # passive alone; all else solid


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

    if not rows * columns:
        raise ValueError("there is no run to show")
    return plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, **options)


def legend(fig, axes, loc: str = "outside right upper", **options) -> None:
    """One legend for all panels, a name once, in the order drawn."""
    entries = {}
    for ax in np.ravel(axes):
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    if entries:
        fig.legend(entries.values(), entries.keys(), loc=loc, **options)
