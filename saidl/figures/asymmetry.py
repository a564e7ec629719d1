"""Why asymmetric noise is harder, and how far each family of noise is from people's: `study`'s results as pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

from saidl.figures.accuracy import FIELDS, by_cell, cell_title, done, history, losses_of, spread
from saidl.figures.drawing import RATE_COLOURS, WIDTH, figure, legend, look, panels
from saidl.names import label


@figure
def matched(outcomes, groups: Mapping[str, Sequence[str]]):
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
        error = np.array([rows.rho - rows.low, rows.high - rows.rho]).clip(0)
        ax.errorbar(
            rows.rho.to_numpy(), at, xerr=error, label=label(loss), **look(loss) | {"linestyle": "none"}, capsize=2
        )
    ax.set(xlabel=r"Spearman's $|\rho|$ with the test accuracy, 95% bootstrap interval", xlim=(0, 1.02))
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
