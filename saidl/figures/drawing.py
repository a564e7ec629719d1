"""The one style: a colour, marker and line for each name, panels, the legend of all panels."""

import functools
from pathlib import Path

import numpy as np

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
}  # fmt: skip
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
LABELS = {
    "nce+nnce": "ANL-CE", "nfl+nnfl": "ANL-FL", "nce+amse": "JAL-CE", "nfl+amse": "JAL-FL",
    "logitclip-ce": "LogitClip-CE", "transformer": "Transformer",
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
    """A loss's name as it is written: "nce+rce" is NCE+RCE."""
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
