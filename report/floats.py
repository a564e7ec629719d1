"""The report's tables and figures, by file name: what stands in its floats. Captions are in the chapters.

TABLES[name](frame) -> a booktabs tabular; FIGURES[name](frame) -> a matplotlib figure. `frame` is `results.load`'s. What has
not been recorded is a dash, a missing line, or a note in the figure's place.
"""

import re
import warnings
from functools import partial

import numpy as np
import pandas as pd

from report import evidence, settings
from report.latex import Tex, cited, comparison_rows, short, signed, tabular, tex
from saidl import data, experiments, figures, losses, noise, results, ssm, study, tables
from saidl.names import in_order, label
from saidl.tables import MISSING, spread

SEQUENCE_TASKS = experiments.REAL_TASKS
NOTHING = r"\emph{Nothing has been recorded for this table yet.}"


# ------------------------------------------------------------------------------------------- tables of recorded runs


def provenance(frame) -> str:
    table = settings.provenance(frame)
    return table_of(table.columns, table.astype(str).to_numpy(), "llrllllp{21mm}p{40mm}r")


def grid(frame, profile: str) -> str:
    """All of a profile's accuracies: a row a loss, symmetric and asymmetric rates side by side."""
    kinds = {"symmetric": "sym.", "asymmetric": "asym."}
    table = accuracies(frame, profile, tuple(kinds))
    columns = tables.layout(tables.cells(frame, profile), profile, tuple(kinds))[1]
    often = (table != MISSING).to_numpy().mean(0) > 0.5
    # the widest of all tables: a rate that few losses were run at, for a study, would make it unreadable
    asked = {cell[1:] for cell in tables.asked(profile)}
    kept = [i for i, column in enumerate(columns) if column in asked or often[i]]
    rows = [[name, *row] for name, row in zip(table.index, table.to_numpy()[:, kept], strict=True)]
    return table_of(["loss", *(f"{kinds[columns[i][0]]} {columns[i][1]}" for i in kept)], rows)


def human(frame, profile: str) -> str:
    """A row a loss, a column one of CIFAR-10N's label sets."""
    table = accuracies(frame, profile, noise.HUMAN).reset_index()
    return table_of(["loss", *(kind.removeprefix("human-") for kind in table.columns[1:])], table.to_numpy())


def accuracies(frame: pd.DataFrame, profile: str, noise="symmetric", task: str = "noise") -> pd.DataFrame:
    """Ours for reading, "mean ± std": a row a loss, a column a rate (or human noise); noise: one kind or several."""
    have = tables.cells(frame, profile, task)
    names, columns = tables.layout(have, profile, noise, task)
    table = [[spread(*tables.value(have, (loss, *column))[:2], digits=1) for column in columns] for loss in names]
    several = len({kind for kind, _ in columns}) > 1
    heads = [f"{kind} {rate}".strip() if several else rate or kind for kind, rate in columns]
    return pd.DataFrame(table, index=[label(loss) for loss in names], columns=heads)


def comparison(frame, profile: str, kind, task: str = "noise") -> str:
    header, rows = comparison_rows(tables.against_published(frame, profile, kind, task))
    return table_of(header, rows, "ll" + "r" * (len(header) - 2))


def editions(frame) -> str:
    """MNIST: the recipe and what we changed in it, beside the two tables that the authors stored, where either makes a difference."""
    table, rows = tables.editions(frame), []
    several = table.groupby(["loss", "noise", "rate"]).ours.transform("size") > 1
    for row in table[table.apart | several].itertuples():
        theirs = spread(row.later, row.later_std), spread(row.earlier, row.earlier_std)
        cell = f"{label(row.loss)}, {row.noise} {row.rate}"
        ours = spread(row.ours, row.std) + (f" (n = {row.n})" if row.n > 1 else "")
        rows.append(
            [cell, row.weights, row.changed or ("the recipe" if row.recipe else "the loss alone"), ours, *theirs]
        )
    return table_of(["cell", "weights", "changes", "ours", "later", "earlier"], rows, "lllrrr")


def mnist_lost(frame) -> str:
    """MNIST at asymmetric 0.4: in how many seeds a class is lost early, by whose code and at which settings, beside the deviations of the
    authors' two stored tables."""
    ours, scripts = (
        tables.first_epochs(results.load(results.recorded(name), quarantine=False))
        for name in ("first-epoch", "authors-seeds")
    )
    usual, equal = experiments.recipe("paper", "mnist-noise")[-1], [1.0, tables.NAN]  # NaN: a loss without weights
    ours = ours[(ours.precision == usual.precision) & ours.alpha.isin(equal)]
    beta = losses.settings("nce+rce", "mnist")[0]["beta"]
    recipe, released = ours[ours.beta.isin([beta, tables.NAN])], tables.released_epochs()
    scripts = scripts[(scripts.decay == usual.weight_decay) & ~scripts.nesterov.astype(bool) & scripts.beta.isin(equal)]
    columns = {
        ("recipe", 1): recipe, ("recipe", 3): recipe, ("β = 1", 1): ours[ours.beta == 1],
        ("released code", 1): released, ("released code", 3): released, ("scripts", 3): scripts,
    }  # fmt: skip
    known = tables.published()
    known = known[(known.dataset == "mnist") & (known.noise == "asymmetric") & (known.rate == "0.4")]
    later, earlier = (known[known.source.str.startswith(s)].set_index("loss")["std"] for s in tables.EDITIONS.values())
    rows = []
    for loss in in_order(name for runs in (ours, scripts) for name in runs.loss):
        counts = [seeds_losing(runs[runs.loss == loss], at) or MISSING for (_, at), runs in columns.items()]
        unchanged = later.get(loss, tables.NAN)
        rows.append([label(loss), *counts, spread(earlier.get(loss, unchanged)), spread(unchanged)])
    heads = [*((name, f"epoch {at}") for name, at in columns), ("earlier", "table"), ("later", "table")]
    return table_of(["loss", *map(stacked, heads)], rows)


def seeds_losing(runs: pd.DataFrame, epoch: int) -> str:
    """In how many of `first_epochs`' runs a class is lost after the first epoch, or the last of so many: "2 of 3"; "" without a run."""
    gone = runs.lost if epoch == 1 else runs.later[runs.epochs == epoch]
    return f"{gone.map(bool).sum()} of {len(gone)}" if len(gone) else ""


def sequence(frame, task: str, profiles=("paper", "laptop")) -> str:
    """Our models at each profile, then the published values of their kind; the difference is that of the first profile run."""
    ours = {profile: tables.sequences(frame, profile, task) for profile in profiles}
    leading = next((table for table in ours.values() if table.n.any()), ours[profiles[0]])
    rows = []
    for model in dict.fromkeys(name for table in ours.values() for name in table.model):
        block = []
        for profile, table in ours.items():
            for row in table[(table.model == model) & (table.source == "")].itertuples():
                whose = f"ours, {profile}" + (f" (n = {row.n})" if row.n else "")
                block.append([row.what, row.split, spread(row.accuracy, row.std), "", whose])
        for row in leading[(leading.model == model) & (leading.source != "")].itertuples():
            numbers = spread(row.accuracy, row.std), signed(row.difference)
            block.append([row.what, row.split, *numbers, cited(row.source)])
        rows += [[model if i == 0 else "", *cells] for i, cells in enumerate(block)] + [None]
    return table_of(["model", "size", "split", "accuracy", "difference", "source"], rows[:-1], "lllrrl")


def flipped(frame, rate: str = "0.4") -> str:
    """Under asymmetric noise: accuracy over the classes that lose labels, and over the others."""
    rows, header = [], ["loss", "quick: losing labels", "other classes", "laptop: losing labels", "other classes"]
    parts = [tables.by_recipe(frame, profile) for profile in ("quick", "laptop")]
    parts = [part[(part.noise == "asymmetric") & (part.rate == rate)] for part in parts]
    for loss in in_order(loss for part in parts for loss in part.loss):
        rows.append([label(loss), *(spread(v, digits=1) for part in parts for v in losing(part[part.loss == loss]))])
    return table_of(header, rows)


def losing(runs) -> tuple[float, float]:
    """Mean last-epoch accuracy over the classes that asymmetric noise takes labels from, and over the others."""
    if runs.empty:
        return tables.NAN, tables.NAN
    classes = 100 * np.array([r["history"]["class_accuracy"][-1] for r in runs.record], float).mean(0)  # (K,)
    sources = sorted({source for source, _ in noise.MOVES[runs.dataset.iloc[0]]})
    return classes[sources].mean(), np.delete(classes, sources).mean()


def best_on_test(frame) -> str:
    parts = [evidence.best_on_test(frame, profile) for profile in ("quick", "laptop")]
    rows = []
    for name in in_order(name for part in parts for name in part.index):
        values = [part[column].get(name, tables.NAN) for part in parts for column in part.columns]
        rows.append([label(name), *(spread(value, digits=1) for value in values)])
    columns = ["held out", "on test", "gain"]
    return table_of(["loss", "quick: last", *columns, "laptop: last", *columns], rows)


def rules_trained(frame) -> str:
    """State-space models that differ in the discretisation alone."""
    rows = []
    for where, part in tables.methods(frame).groupby(["profile", "task", "model", "what", "options"], sort=False):
        for i, row in enumerate(part.itertuples()):
            named = [f"{where[2]}, {where[1]} ({where[0]})", where[3]] if i == 0 else ["", ""]
            rows.append([*named, row.method, spread(row.accuracy, row.std, 1), row.n])
        rows.append(None)
    return table_of(["model and task", "size", "rule", "accuracy", "seeds"], rows[:-1], "lllrr")


def predictors(frame, profile: str = "quick", fewest: int = 8) -> str:
    """How well each number of a transition matrix ranks the settings of the study by what a loss reached under them."""
    dataset = experiments.recipe(profile, "noise")[0]
    records = frame[frame.status == "done"].set_index("id").record.to_dict()
    cases = study.cases(dataset, study.class_distance(data.load(dataset).train))
    rows = []
    for loss in figures.losses_of(frame[(frame.profile == profile) & (frame.task == "noise")]):
        plan = [(case, case.run(profile, loss)) for case in cases.values()]
        plan = [(case, run) for case, run in plan if run.id in records and study.share(case.T) > 0]
        if len(plan) >= fewest:
            seen = study.outcomes(plan, pd.DataFrame({"record": [records[run.id] for _, run in plan]}))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a resample may hold one setting alone, which has no ranks
                rhos = study.rank_correlations({name: seen[name] for name in PREDICTORS}, seen.accuracy)
            cells = [f"{row.rho:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rhos.itertuples()]
            rows.append([label(loss), len(plan), *cells])
    return table_of(["loss", "settings", *PREDICTORS], rows)


PREDICTORS = ("share", "smallest margin", "mean margin", "information")


def bench(frame) -> str:
    """Everything of the bench that has a baseline, but the losses and the trials of what is not part of the package."""
    rows = []
    for row in saved_bench(frame)["rows"]:
        if "ratio" in row and not row["name"].startswith(("loss ", "tried: ")):
            sizes = [f"{short(row[key])} MiB" for key in ("ours_mb", "baseline_mb") if key in row]
            times = [short(row[key]) for key in ("ours_ms", "baseline_ms")]
            ratios = [short(row[key]) for key in ("ratio", "low", "high")]
            rows.append([row["name"], *(sizes or times), *ratios, f"{row['target']:.3g}" if "target" in row else ""])
    return table_of(["what, against what", "ours", "baseline", "ratio", "low", "high", "aim"], rows, "lrrrrrr")


def bench_losses(frame) -> str:
    """Ratios of the losses, a row a loss; "loss nce (128, 10), one-hot form" names a row of the bench."""
    pattern = re.compile(r"loss (\S+) (\(.*\)), (.*)")
    matches = [(pattern.match(row["name"]), row) for row in saved_bench(frame)["rows"]]
    named = {match.groups(): row["ratio"] for match, row in matches if match}
    columns = list(dict.fromkeys((shape, baseline) for _, shape, baseline in named))
    rows = [
        [label(n), *(digits(2)(named.get((n, *c), tables.NAN)) for c in columns)]
        for n in dict.fromkeys(key[0] for key in named)
    ]
    return table_of(["loss", *map(stacked, columns)], rows)


def saved_bench(frame) -> dict:
    """The bench a report is made with: frame.attrs["bench"] where it is set."""
    return tables.benchmarks(None if frame is None else frame.attrs.get("bench"))


# -------------------------------------------------------------------------------------- tables of computed quantities


def computed(make, header, forms, align=None):
    """A table function for what needs no runs: each column of make() put into words by its form."""

    def table(frame) -> str:
        rows = [[form(v) for form, v in zip(forms, row, strict=True)] for row in make().itertuples(index=False)]
        return table_of(header, rows, align)

    return table


def digits(count: int):
    return lambda value: "" if value != value else f"{value:.{count}f}"


def pulls() -> pd.DataFrame:
    table = evidence.pulls()
    return table.set_axis([label(name) for name in table.index]).reset_index()


def discretisations() -> pd.DataFrame:
    """`evidence.discretisations` where a kernel that grows has no distance."""
    table = evidence.discretisations()
    return table.assign(difference=table.difference.map("{:.3f}".format).where(table.growing == 0, "grows"))


def recipes(frame, tasks: list) -> str:
    table = settings.recipes(tasks).reset_index()
    return table_of(["", *table.columns[1:]], table.to_numpy())


def loss_settings(frame) -> str:
    table = settings.loss_settings()
    return table_of(table.columns, table.to_numpy(), "lp{36mm}p{62mm}p{30mm}l")


def stacked(lines) -> Tex:
    """A head of several lines, for a column of numbers."""
    return Tex(r"\shortstack[r]{" + r"\\".join(map(tex, lines)) + "}")


def table_of(header, rows, align=None) -> str:
    return tabular(list(header), list(rows), align) if len(rows) else NOTHING


ETA, STEP = Tex(r"$\eta$"), Tex(r"$\Delta$")
SEQUENCE_RECIPES = [("quick", "digits-sequence"), *(("laptop", task) for task in SEQUENCE_TASKS), ("paper", "scifar")]
TABLES = {
    "provenance": provenance, "flipped": flipped, "rules-trained": rules_trained, "predictors": predictors,
    "best-on-test": best_on_test, "bench": bench, "bench-losses": bench_losses,
    "quick": partial(grid, profile="quick"), "laptop": partial(grid, profile="laptop"),
    "laptop-human": partial(human, profile="laptop"),
    "paper-symmetric": partial(comparison, profile="paper", kind="symmetric"),
    "paper-sequential": partial(comparison, profile="paper", kind="asymmetric-sequential"),
    "paper-asymmetric": partial(comparison, profile="paper", kind="asymmetric"),
    "paper-human": partial(comparison, profile="paper", kind=noise.HUMAN),
    "mnist-symmetric": partial(comparison, profile="paper", kind="symmetric", task="mnist-noise"),
    "mnist-asymmetric": partial(comparison, profile="paper", kind="asymmetric", task="mnist-noise"),
    "mnist-editions": editions, "mnist-lost": mnist_lost,
    "laptop-symmetric": partial(comparison, profile="laptop", kind="symmetric"),
    "laptop-asymmetric": partial(comparison, profile="laptop", kind="asymmetric"),
    "digits-sequence": partial(sequence, task="digits-sequence", profiles=("quick",)),
    **{task: partial(sequence, task=task) for task in SEQUENCE_TASKS},
    "pulls": computed(pulls, ["loss", *(Tex(rf"$p_y={p}$") for p in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99))],
                      [str] + [digits(4)] * 6),
    "quantities": computed(evidence.noise_quantities, ["kind", ETA, "wrong labels", "smallest margin", "information, bits"],
                           [str, digits(1), digits(3), digits(2), digits(2)]),
    "moved-back": computed(evidence.moved_back, [ETA, "drawn from clean", "one after another", "formula", "cats", "dogs"],
                           [str] + [digits(1)] * 5),
    "detached-focal": computed(evidence.detached_focal, [Tex(r"$\gamma$"), "FL", "NFL"], [str, digits(1), digits(1)]),
    "inclusive": computed(evidence.inclusive, ["nominal", "real"], [str, digits(2)]),
    "flipped-bilinear": computed(evidence.flipped_bilinear, [STEP, "right", "exchanged", "right, all steps", "exchanged, all steps"],
                                 [str, digits(4), digits(4), short, short]),
    "discretisations": computed(discretisations, ["rule", STEP, Tex(r"largest $|\bar A|$"), "modes that grow", "distance"],
                                [str, str, digits(4), str, str]),
    "agreement": computed(evidence.agreement, ["one way", "the other", "difference"], [str, str, short], "llr"),
    "cost": computed(evidence.kernel_cost, ["length", "full table", "two tables"], ["{:,}".format] * 3),
    "recipes-noise": partial(recipes, tasks=list(experiments.RECIPES)),
    "recipes-sequences": partial(recipes, tasks=SEQUENCE_RECIPES),
    "loss-settings": loss_settings,
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- figures


@figures.figure
def note(text: str):
    """Stands where a figure has nothing to show."""
    fig, axes = figures.panels(1, 1, height=1.0)
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", style="italic", color="#555555")
    axes[0, 0].set_axis_off()
    return fig


def matrices(frame):
    kinds = ("symmetric", "asymmetric", "pair-flip", "human-aggregate", "human-worst")
    return figures.matrices({kind: noise.transition_matrix(kind, 0.4) for kind in kinds})


def risk(frame):
    """Classifiers that know more and more: the label's logit lifted above Gaussian noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(10).repeat(100)
    noise_part, lift = rng.standard_normal((1000, 10)), np.eye(10)[labels]
    return figures.risk_bound([noise_part + a * lift for a in (0, 1, 2, 4, 6)], labels, ("ce", "mae", "nce"))


def by_rate(frame, profile: str):
    """The eight losses of the grid at the rates that the profile's queue asks for."""
    rows = tables.by_recipe(frame, profile)
    cells = {cell[1:] for cell in tables.asked(profile)}
    asked = np.array([cell in cells for cell in zip(rows.noise, rows.rate, strict=True)], bool)
    rows = rows[asked & rows.loss.isin(experiments.PAPER_LOSSES) & rows.noise.isin(("symmetric", "asymmetric"))]
    if rows.empty:
        return note(f"no run of the {profile} profile has been recorded yet")
    return figures.accuracy_by_rate(rows.assign(rate=rows.rate.astype(float)))


def memorisation(frame):
    rows = tables.by_recipe(frame, "laptop")
    rows = rows[(rows.noise == "symmetric") & (rows.rate == "0.4")].assign(rate=0.4)
    return figures.memorisation(rows) if len(rows) else note("no run of the laptop profile has been recorded yet")


def classes_by_epoch(frame):
    """The classes that asymmetric noise takes labels from, on as many images as the laptop profile has and on more."""
    asked = experiments.more_images()
    rows = tables.by_recipe(frame, "laptop", but=["train_size"])
    rows = rows[(rows.noise == "asymmetric") & (rows.rate == "0.4") & rows.loss.isin([run.loss for run in asked])]
    if rows.empty:
        return note("no run of the laptop profile has been recorded yet")
    classes = rows.record.iloc[0]["data"]["classes"]
    sources = {c: classes[c] for c in sorted({source for source, _ in noise.MOVES["cifar10"]})}
    return figures.classes_over_epochs(rows.assign(images=rows.train_size.astype(int)), sources, by="images")


@figures.figure
def rules(frame):
    """Discretisation rules: error of the response to a cosine against the step, and |Ab| against the frequency."""
    fig, axes = figures.panels(1, 2, height=2.6)
    methods = ("zoh", "bilinear", "backward-euler", "forward-euler")
    a, w, T = -0.5 + 4j, 2.0, 10.0
    steps = np.logspace(-3, 0, 16)
    frequencies = np.linspace(0, 60, 200)
    modes = -0.5 + 1j * frequencies
    for method, marker in zip(methods, "os^D", strict=True):
        errors = []
        for dt in steps:
            t = dt * np.arange(1, round(T / dt) + 1)
            exact = sum((np.exp(1j * s * t) - np.exp(a * t)) / (1j * s - a) for s in (w, -w)) / 2  # x' = a x + cos(w t)
            Ab, Bb = (v.item() for v in ssm.discretize(np.array([a]), np.array([1 + 0j]), dt, method))
            x, states = 0, []
            for u in np.cos(w * t):
                x = Ab * x + Bb * u
                states.append(x)
            errors.append(min(np.abs((np.array(states) - exact).real).max() / np.abs(exact.real).max(), 1e3))
        look = {"color": figures.METHOD_COLOURS[method], "marker": marker, "label": method}
        axes[0, 0].plot(steps, errors, **look, markevery=3)
        growth = np.abs(ssm.discretize(modes, np.ones_like(modes), 0.1, method)[0])
        axes[0, 1].plot(frequencies, growth, **look, markevery=0.15)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="step $\\Delta$", ylabel="error of the response", ylim=(None, 20))
    axes[0, 1].axhline(1, color="black", linewidth=0.6)
    axes[0, 1].set(xlabel="frequency of the mode", ylabel="$|\\bar a|$", ylim=(0, 2))
    figures.legend(fig, axes, "outside lower center", ncols=4)
    return fig


@figures.figure
def hippo(frame):
    """HiPPO-LegS with its growing window: x' = (A x + B u) / t by the bilinear rule, then the past from the last state."""
    steps, fine = 1000, np.linspace(0, 1, 400)
    t = np.arange(1, steps + 1) / steps
    u = np.sin(2 * np.pi * 2 * t) + 0.5 * np.sin(2 * np.pi * 5.3 * t + 1) * t + (t > 0.6)
    fig, axes = figures.panels(1, 3, height=2.0, sharey=True)
    for ax, N in zip(axes[0], (4, 16, 64), strict=True):
        A, B = (m.numpy() for m in ssm.hippo_legs(N))
        x = np.zeros(N)
        for k, value in enumerate(u, 1):
            x = np.linalg.solve(np.eye(N) - A / (2 * k), (np.eye(N) + A / (2 * k)) @ x + B * value / k)
        past = np.polynomial.legendre.legval(2 * fine - 1, x * B)
        ax.plot(t, u, color="#999999", label="the signal")
        ax.plot(fine, past, color="#0072B2", linewidth=1, label="read from the state")
        ax.set(title=f"N = {N}", xlabel="time")
    figures.legend(fig, axes, "outside lower center", ncols=2)
    return fig


def sequences(frame):
    """Accuracy against epoch and minutes for every sequence task, at the largest profile that has it."""
    parts = {task: tables.sequence_runs(frame, task) for task in ("digits-sequence", *SEQUENCE_TASKS)}
    found = {f"{task} ({rows.profile.iloc[0]})": tables.named(rows) for task, rows in parts.items() if len(rows)}
    if not found:
        return note("no sequence model has been recorded yet")
    return figures.learning(found)


def growth(frame):
    rows = saved_bench(frame)["rows"]
    known = any("length" in row for row in rows)
    return figures.by_length(rows) if known else note("no benchmark has been recorded yet")


FIGURES = {
    "matrices": matrices, "risk": risk, "losses": lambda frame: figures.loss_curves(evidence.PULLED),
    "quick-by-rate": partial(by_rate, profile="quick"), "laptop-by-rate": partial(by_rate, profile="laptop"),
    "memorisation": memorisation, "classes-by-epoch": classes_by_epoch, "rules": rules, "hippo": hippo,
    "sequences": sequences, "growth": growth,
}  # fmt: skip
