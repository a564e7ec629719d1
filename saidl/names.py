"""What losses, models and discretisations are called in figures, tables and report; the palette, whose order the losses stand in."""

from collections.abc import Mapping

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
LABELS = {
    "nce+nnce": "ANL-CE", "nfl+nnfl": "ANL-FL", "nce+amse": "JAL-CE", "nfl+amse": "JAL-FL",
    "logitclip-ce": "LogitClip-CE", "transformer": "Transformer",
}  # fmt: skip
DEFAULT_METHOD = {"s4d": "zoh", "s4": "bilinear"}


def label(name: str) -> str:
    """A loss's name as it is written: "nce+rce" is NCE+RCE."""
    return LABELS.get(name, name.upper().replace("EPS-", "ε-"))


def in_order(losses) -> list[str]:
    """Losses, each once, in one order for all figures and tables: the palette's, then the alphabet."""
    return sorted(set(losses), key=lambda name: (place(name, tuple(COLOURS)), name))


def place(name: str, order: tuple) -> int:
    return order.index(name) if name in order else len(order)


def rule_name(model: str, options: Mapping) -> str:
    """A run's discretisation, its layer's own where the options name none, gbt with its alpha; "" for other models."""
    method = options.get("method", DEFAULT_METHOD.get(model, ""))
    return f"gbt {options.get('alpha', 0.5):g}" if method == "gbt" else method
