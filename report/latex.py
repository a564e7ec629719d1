"""Tables as booktabs LaTeX, and how their cells are written."""

import pandas as pd

from saidl.names import label
from saidl.tables import MISSING, listed, spread

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "^": r"\textasciicircum{}",
    "ε": r"$\epsilon$", "ϵ": r"$\epsilon$", "η": r"$\eta$", "–": "--", "×": r"$\times$", "−": "$-$", "≥": r"$\ge$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "τ": r"$\tau$",
    "±": r"{\scriptsize$\pm$}", "→": r"$\to$", "~": r"$\sim$",
}  # fmt: skip
CITED = {  # how a source of published.csv begins -> its key in refs.bib
    "Ma et al. 2020": "ma2020", "Wang et al. 2024": "wang2024", "Wang et al. 2025": "wang2025", "Wei et al. 2022": "wei2022",
    "S4 paper": "gu2022s4", "LSSL paper": "gu2021", "LRU paper": "orvieto2023", "DFouT": "solozabal2025", "LRA table": "solozabal2025",
}  # fmt: skip


class Tex(str):
    """A piece of LaTeX, put into a table as it is."""


def tex(text) -> str:
    """Plain text as LaTeX; `Tex` is left alone."""
    return text if isinstance(text, Tex) else "".join(ESCAPES.get(c, c) for c in str(text).replace("--", "-{}-"))


def signed(difference: float) -> str:
    # + 0.0: no minus before a zero
    return MISSING if difference != difference else f"{round(difference, 2) + 0.0:+.2f}".replace("-", "−")


def short(value: float) -> Tex:
    """Three digits, of thousands all four, in powers of ten where that is shorter."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return Tex(f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}")
    digits, power = f"{value:.1e}".split("e")
    return Tex(rf"${digits}\times10^{{{int(power)}}}$")


def cited(source: str) -> str:
    """A source of published.csv as a citation, or by its first words where the bibliography has no entry."""
    key = next((key for start, key in CITED.items() if source.startswith(start)), None)
    return Tex(rf"\citet{{{key}}}") if key else source.split(",")[0]


def tabular(header, rows, align: str | None = None) -> str:
    """A booktabs tabular: cells of plain text or `Tex`; a row None is a thin gap."""
    align = align or "l" + "r" * (len(header) - 1)
    body = [" & ".join(map(tex, row)) + r" \\" if row is not None else r"\addlinespace" for row in rows]
    top = [rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}", r"\toprule", " & ".join(map(tex, header)) + r" \\", r"\midrule"]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comparison_rows(table: pd.DataFrame) -> tuple[list, list]:
    """`against_published` as header and rows: under each loss ours, the published number, the difference. A loss without any
    run of ours is one line, which says so."""
    columns, rows = list(dict.fromkeys(zip(table.noise, table.rate, strict=True))), []
    for loss, part in table.groupby("loss", sort=False):
        counts = listed(part.n[part.n > 0].astype(int))
        source = next((cited(s) for s in part.source if isinstance(s, str)), "")
        theirs = [spread(*pair) for pair in zip(part.published, part.published_std, strict=True)]
        if counts:
            rows.append([label(loss), f"ours (n = {counts})", *map(spread, part.ours, part["std"])])
            apart = [
                Tex(rf"\textbf{{{tex(signed(d))}}}") if b else signed(d)
                for d, b in zip(part.difference, part.beyond, strict=True)
            ]
            rows += [["", source, *theirs], ["", "difference", *apart]] if source else []
        else:
            rows.append([label(loss), Tex(f"{source}; ours not run") if source else "ours not run", *theirs])
        rows.append(None)
    heads = [Tex(rf"$\eta={rate}$") if rate else kind.removeprefix("human-") for kind, rate in columns]
    return ["loss", "", *heads], rows[:-1]
