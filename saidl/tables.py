"""Tables for notebooks and report alike: what was recorded, beside what was published.

A cell is (loss, noise, rate) of one profile and task: the last epoch's clean test accuracy in per cent, mean and
standard deviation (n - 1) over its seeds. Only runs that follow the profile's recipe to the last setting count. A cell
that was not run is NaN and prints as MISSING.

    >>> spread(85.984, 0.213), spread(85.984), spread(NAN)
    ('85.98 ± 0.21', '85.98', '–')
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

from saidl import experiments, losses, results, training
from saidl.names import DEFAULT_METHOD, in_order, label, rule_name
from saidl.noise import HUMAN

MISSING, NAN = "–", float("nan")
PUBLISHED_AS = {  # our model -> the names it goes by in published.csv
    "s4d": ("S4D", "S4D-Lin", "S4D-LegS", "S4D, LRU-authors' reproduction"),
    "s4": ("S4", "S4-LegS (v2+)", "S4-LegS", "S4 (original, LegS)"),
    "lstm": ("LSTM",),
    "transformer": ("Transformer",),
}


# ------------------------------------------------------------------------------------------------------------ cells


@cache
def published() -> pd.DataFrame:
    """The papers' numbers, a row each, with source, protocol and, for noise, how they were verified; accuracies in per cent. `noise` is one
    of `noise.KINDS`, or "asymmetric-consecutive": asymmetric with the moves of `noise.MOVES["cifar100-consecutive"]`."""
    table = pd.read_csv(Path(__file__).with_name("published.csv"))
    return table.assign(rate=table.rate.map(rate_text))


queue = cache(experiments.queue)


def asked(profile: str, task: str = "noise") -> list[tuple[str, str, str]]:
    """The cells, (loss, noise, rate as text), that a profile's queue asks for, in its order."""
    return [(run.loss, run.noise, rate_text(run.rate)) for run in queue(profile) if run.task == task]


def rate_text(rate) -> str:
    """0.4 -> "0.4"; human noise has no rate: ""."""
    return "" if rate is None or rate != rate else f"{rate:g}"


def follows_recipe(row, but: Sequence[str] = ()) -> bool:
    """Whether a row of `results.load` is what `experiments.grid` makes of its profile, task, loss, noise and seed; some fields of
    a run may differ."""
    options = {"model": row.model, "model_options": row.model_options} if row.task in experiments.SEQUENCES else {}
    rate = None if row.rate != row.rate else row.rate
    asked = {"task": row.task, "loss": row.loss, "noise": row.noise, "rate": rate, "seed": int(row.seed)}
    try:
        (run,) = experiments.grid(row.profile, **asked, **options)
    except ValueError:
        return False
    own = experiments.Run.from_dict(row.record["run"])
    return replace(run, **{name: getattr(own, name) for name in but}).id == row.id


def by_recipe(frame: pd.DataFrame, profile: str, task: str = "noise", but: Sequence[str] = ()) -> pd.DataFrame:
    """Finished runs of a profile and task that follow its recipe, but for some fields of a run ("train_size"); `rate` as text and
    `accuracy` in per cent, the lowest seed first."""
    rows = frame[(frame.profile == profile) & (frame.task == task) & (frame.status == "done")]
    rows = rows.loc[[row.Index for row in rows.itertuples() if follows_recipe(row, but)]].sort_values(
        "seed", kind="stable"
    )
    return rows.assign(rate=rows.rate.map(rate_text), accuracy=100 * rows.test_accuracy.astype(float))


def sequence_runs(frame: pd.DataFrame, task: str, profile: str | None = None) -> pd.DataFrame:
    """`by_recipe` of a sequence task on clean labels with cross-entropy, at a profile; None: at the largest that has any (smoke tests
    are no results)."""
    for name in [profile] if profile else experiments.PROFILES[:0:-1]:
        rows = by_recipe(frame, name, task)
        rows = rows[(rows.loss == "ce") & (rows.rate == "0")]
        if len(rows):
            break
    return rows


def cells(frame: pd.DataFrame, profile: str, task: str = "noise") -> pd.DataFrame:
    """Indexed by (loss, noise, rate as text): mean, std, n."""
    groups = by_recipe(frame, profile, task).groupby(["loss", "noise", "rate"]).accuracy
    return groups.agg(mean="mean", std="std", n="count")


def value(have: pd.DataFrame, key: tuple) -> tuple[float, float, int]:
    """mean, std, n of a cell; NaN, NaN, 0 where nothing was run."""
    return tuple(have.loc[key]) if key in have.index else (NAN, NAN, 0)


def layout(have: pd.DataFrame, profile: str, noise, task: str = "noise") -> tuple[list[str], list[tuple[str, str]]]:
    """A table's losses and (noise, rate) columns: those the profile's queue asks for and what was run besides at round rates
    (those of `study`, which match one noise to another, are not round)."""
    kinds = [noise] if isinstance(noise, str) else list(noise)
    besides = [key for key in have.index if abs(20 * float(key[2] or 0) % 1) < 1e-9]
    triples = dict.fromkeys(key for key in (*asked(profile, task), *besides) if key[1] in kinds)
    columns = sorted({key[1:] for key in triples}, key=lambda column: (kinds.index(column[0]), float(column[1] or 0)))
    return in_order(key[0] for key in triples), columns


# ----------------------------------------------------------------------------------------------------------- tables


def against_published(frame: pd.DataFrame, profile: str, noise, task: str = "noise") -> pd.DataFrame:
    """Ours beside the published number for the same noise, a row a cell.

    Columns: loss, noise, rate, ours, std, n, published, published_std, source, difference (ours - published), beyond (at the
    paper profile, where the recipes are the same: is the difference larger than two published standard deviations plus one
    point?). A loss is compared with the first source of published.csv that has it under this very kind of noise.
    """
    key, have = ["loss", "noise", "rate"], cells(frame, profile, task)
    names, columns = layout(have, profile, noise, task)
    known = published()[(published().task == "noise") & (published().dataset == experiments.recipe(profile, task)[0])]
    known = known[known.noise.isin([kind for kind, _ in columns])]
    known = known[known.source == known.groupby(["loss", "noise"]).source.transform("first")]
    theirs = known.rename(columns={"accuracy": "published", "std": "published_std"}).set_index(key)
    table = pd.DataFrame([(loss, *column) for loss in names for column in columns], columns=key)
    table = table.join(have.rename(columns={"mean": "ours"}), on=key)
    table = table.join(theirs[["published", "published_std", "source"]], on=key)
    table["n"] = table.n.fillna(0)
    difference = table.ours - table.published
    return table.assign(
        difference=difference,
        beyond=(difference.abs() > 2 * table.published_std.astype(float) + 1)
        & (profile == "paper")
        & ~table.noise.isin(HUMAN),  # published of another network, at its best epoch on the test set
    )


EDITIONS = {"later": "Ma et al. 2020 (authors' stored", "earlier": "Ma et al. 2020 (authors' earlier"}


def editions(frame: pd.DataFrame) -> pd.DataFrame:
    """MNIST: our runs, by the recipe and with what differs from it, beside the two tables that the authors stored a week apart;
    a row for each loss, noise, rate and variant that we ran and both tables have.

    Columns: loss, noise, rate (as published), weights (alpha and beta as text), changed (what is unlike the recipe, as text: settings,
    or noise drawn as the same share of every class), recipe (is it followed?), ours, std, n, later, later_std, earlier, earlier_std,
    apart (do the tables differ by more than two of their deviations plus one point?), nearer ("later" or "earlier").
    """
    rows = frame[(frame.profile == "paper") & (frame.task == "mnist-noise") & (frame.status == "done")]
    recipe = vars(experiments.recipe("paper", "mnist-noise")[-1])
    changed = []
    for row in rows.itertuples():
        told = vars(settings_of(row.record))
        texts = [f"{name.replace('_', ' ')} {shown_as(v)}" for name, v in told.items() if v != recipe[name]]
        shares = row.noise == "symmetric" and row.rate > 0 and row.record["run"]["exact"] is True
        changed.append(", ".join(["equal shares"] * shares + texts))
    rows = rows.assign(
        rate=rows.rate.map(rate_text), weights=rows.loss_options.map(as_text), ours=100 * rows.test_accuracy.astype(float),
        changed=changed, recipe=[follows_recipe(row) and not text for row, text in zip(rows.itertuples(), changed, strict=True)],
    )  # fmt: skip
    variant = ["loss", "noise", "rate", "weights", "changed", "recipe"]
    table = rows.groupby(variant, sort=False).ours.agg(ours="mean", std="std", n="size").reset_index()
    for name, source in EDITIONS.items():
        part = published()[published().source.str.startswith(source) & (published().dataset == "mnist")]
        part = part.rename(columns={"accuracy": name, "std": f"{name}_std"})
        part = part[["loss", "noise", "rate", name, f"{name}_std"]]
        table = table.merge(part, on=["loss", "noise", "rate"], how="left")
    table["earlier"] = table.earlier.fillna(table.later)  # the rows that did not change
    table["earlier_std"] = table.earlier_std.fillna(table.later_std)
    apart = (table.later - table.earlier).abs() > 2 * table[["later_std", "earlier_std"]].max(axis=1) + 1
    closer = (table.ours - table.later).abs() <= (table.ours - table.earlier).abs()
    return table.assign(apart=apart, nearer=closer.map({True: "later", False: "earlier"})).sort_values(
        ["noise", "rate", "loss", "recipe", "changed", "weights"],
        ascending=[False, False, True, False, True, False],
        ignore_index=True,
    )


def sequences(frame: pd.DataFrame, profile: str, task: str) -> pd.DataFrame:
    """Sequence models on a task, each followed by the published numbers of its kind (ours have source "").

    Columns: model, what (ours: parameters, epochs, sequences trained on), split, accuracy, std, n, difference, source; of ours also
    parameters and half (tested at half the sampling rate?).
    """
    rows = sequence_runs(frame, task, profile)
    rows = rows.assign(method=[rule_name(row.model, row.model_options) for row in rows.itertuples()])
    asked = [(run.model, rule_name(run.model, dict(run.model_options))) for run in queue(profile) if run.task == task]
    out = []
    for model, method in dict.fromkeys([*asked, *zip(rows.model, rows.method, strict=True)]):
        ours, largest = our_sizes(rows[(rows.model == model) & (rows.method == method)])
        theirs = published_beside(model, task, largest) if method == DEFAULT_METHOD.get(model, "") else []
        name = label(model) + (f" ({method})" if method else "")
        out += [SEQUENCE_ROW | {"model": name} | row for row in (*ours, *theirs)]
    return pd.DataFrame(out, columns=list(SEQUENCE_ROW))


SEQUENCE_ROW = {  # the columns of `sequences`, and what they hold where nothing is said
    "model": "", "what": "", "split": "test", "accuracy": NAN, "std": NAN, "n": 0, "difference": NAN, "source": "",
    "parameters": NAN, "half": False,
}  # fmt: skip


def our_sizes(runs: pd.DataFrame) -> tuple[list[dict], dict[str, float]]:
    """A row a size and set of options of one model, smallest first, and the last row's accuracies by split."""
    if runs.empty:
        return [{"what": "not run"}], {}
    out, key = [], ["parameters", runs.model_options.map(str), "apart"]
    for (size, _, apart), same in runs.assign(apart=unlike(runs)).groupby(key):
        epochs, shown = listed(same.epochs), listed(map(trained_on, same.record))
        what = f"{size:,} parameters{apart}, {epochs} epoch{'s' * (epochs != '1')} of {shown}"
        out.append({"what": what, "parameters": size, **mean_std(same.accuracy)})
        if (half := 100 * same.half_rate.dropna().astype(float)).size:
            out.append(out[-1] | {"what": f"{what}; tested at half the sampling rate", "half": True, **mean_std(half)})
    return out, {"test": same.accuracy.mean(), "validation": same.record.map(best_valid).mean()}


def mean_std(values: pd.Series) -> dict:
    return {"accuracy": values.mean(), "std": values.std(), "n": len(values)}


def published_beside(model: str, task: str, ours: dict[str, float]) -> list[dict]:
    """The published rows of a model's kind on a task, each with ours less theirs on the same split."""
    known = published()[(published().task == task) & published().method.isin(PUBLISHED_AS.get(model, ()))]
    return [
        {
            "what": row.protocol if isinstance(row.protocol, str) else row.method, "split": row.split, "source": row.source,
            "accuracy": row.accuracy, "std": row.std, "difference": ours.get(row.split, NAN) - row.accuracy,
        }
        for row in known.itertuples()
    ]  # fmt: skip


def methods(frame: pd.DataFrame) -> pd.DataFrame:
    """Discretisations side by side: runs of state-space models on clean labels that share everything but the rule and the seed.

    Columns: profile, task, model, what, options (of the network, without the rule), method, accuracy, std, n; only groups of two
    rules or more.
    """
    rows = frame[(frame.status == "done") & frame.model.isin(DEFAULT_METHOD) & (frame.loss == "ce") & (frame.rate == 0)]
    rest = [{k: v for k, v in options.items() if k not in ("method", "alpha")} for options in rows.model_options]
    rows = rows.assign(
        accuracy=100 * rows.test_accuracy.astype(float),
        model=rows.model.map(label),
        what=[f"{o['n_layers']} x {o['d_model']}, {e} epochs" for o, e in zip(rest, rows.epochs, strict=True)],
        method=[rule_name(row.model, row.model_options) for row in rows.itertuples()],
        options=list(map(str, rest)),
        settings=list(map(settings_of, rows.record)),
    )
    key = ["profile", "task", "train_size", "model", "what", "options", "settings"]
    table = (
        rows.groupby([*key, "method"], sort=False, dropna=False)
        .accuracy.agg(accuracy="mean", std="std", n="size")
        .reset_index()
    )
    several = table.groupby(key, sort=False, dropna=False).method.transform("size") > 1
    table = table[several].drop(columns=["settings", "train_size"])
    return table.sort_values(
        ["profile", "task", "what", "options", "accuracy"], ascending=[True] * 4 + [False], ignore_index=True
    )


def unlike(rows: pd.DataFrame) -> list[str]:
    """Of each sequence run, the network's options that not all runs have alike, as text: ", init legs". Its size, rule and dropout
    are told elsewhere."""
    sized = {"n_layers", "d_model", "method", "alpha", "heads", "dropout"}
    texts = [{k: f", {k} {v}" for k, v in options.items() if k not in sized} for options in rows.model_options]
    return ["".join(text for k, text in own.items() if any(o.get(k) != text for o in texts)) for own in texts]


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Sequence runs with a `name` each: model and discretisation, and layers × width where it is not the model's smallest. The usual
    discretisation and the smaller size come first."""
    rows = rows.assign(
        method=[rule_name(row.model, row.model_options) for row in rows.itertuples()],
        size=[tuple(dict(options).get(name) for name in ("n_layers", "d_model")) for options in rows.model_options],
    )
    rows["unusual"] = [row.method != DEFAULT_METHOD.get(row.model, "") for row in rows.itertuples()]
    smallest = rows.groupby(["model", "method"])["size"].transform("min")
    rows["apart"] = ""
    for _, part in rows.groupby("model"):
        rows.loc[part.index, "apart"] = unlike(part)
    names = []
    for row, least in zip(rows.itertuples(), smallest, strict=True):
        own = [row.method, "{} × {}".format(*row.size) if row.size > least else "", row.apart.removeprefix(", ")]
        names.append(label(row.model) + (f" ({', '.join(filter(None, own))})" if any(own) else ""))
    return rows.assign(name=names).sort_values(["model", "unusual", "parameters"], kind="stable")


def lost_classes(record: dict, epoch: int = -1) -> list[int]:
    """The classes that an epoch's network (0: the first, -1: the last) has lost on the test set."""
    return lost(record["history"]["class_accuracy"][epoch])


def lost(class_accuracy: list[float]) -> list[int]:
    """The classes c of which less than 2 % are named rightly, from the share of each, (K,)."""
    return [c for c, share in enumerate(class_accuracy) if share < 0.02]


def came_back(record: dict) -> dict[int, int]:
    """Of the classes that the first epoch has lost those that a later one names again: {class: the first such epoch, counted from 1}."""
    epochs = range(1, len(record["history"]["class_accuracy"]))
    again = {c: [e + 1 for e in epochs if c not in lost_classes(record, e)] for c in lost_classes(record, 0)}
    return {c: since[0] for c, since in again.items() if since}


def whole_run(frame: pd.DataFrame, loss: str) -> dict | None:
    """The record of a loss's run of the whole paper recipe on CIFAR-10, asymmetric-sequential 0.4, seed 0; None where there is none."""
    (run,) = experiments.grid("paper", loss=loss, noise="asymmetric-sequential", rate=0.4)
    done = frame[(frame.id == run.id) & (frame.status == "done")]
    return done.record.iloc[0] if len(done) else None


def first_epochs(frame: pd.DataFrame) -> pd.DataFrame:
    """The classes that the first epochs lose, a row a finished run: loss, alpha and beta (NaN if it has none), precision, decay (of the
    weights), nesterov (or plain momentum), seed, epochs, and the classes lost after the first of them (`lost`) and after the last
    (`later`). Of runs that differ in epochs alone, the longest."""
    rows = frame[frame.status == "done"].sort_values("epochs", kind="stable")
    weights = {name: [options.get(name, NAN) for options in rows.loss_options] for name in ("alpha", "beta")}
    settings = list(map(settings_of, rows.record))
    out = rows[["loss", "seed", "epochs"]].assign(
        **weights, precision=[s.precision for s in settings], decay=[s.weight_decay for s in settings],
        nesterov=[s.nesterov for s in settings],
        lost=[lost_classes(record, 0) for record in rows.record], later=[lost_classes(record) for record in rows.record],
    )  # fmt: skip
    return out.drop_duplicates(["loss", "alpha", "beta", "precision", "decay", "nesterov", "seed"], keep="last")


def released_epochs() -> pd.DataFrame:
    """The same of the code that Ma et al. 2020 released, at its own weights, its `precision` "released code"; no rows where it is not
    recorded."""
    made = sorted((row for row in released() if row["rate"] == 0.4), key=lambda row: row["epochs"])
    weights = [losses.settings(row["loss"], "mnist")[0] for row in made]
    columns = {
        **{name: [row[name] for row in made] for name in ("loss", "seed", "epochs")},
        **{name: [own.get(name, NAN) for own in weights] for name in ("alpha", "beta")},
        "precision": "released code",
        **{name: [lost(row["class_accuracy"][at]) for row in made] for name, at in (("lost", 0), ("later", -1))},
    }
    return pd.DataFrame(columns).drop_duplicates(["loss", "seed"], keep="last")


def released(data: str = "mnist") -> list[dict]:
    """What the code that Ma et al. 2020 released does on MNIST or CIFAR-10 under asymmetric noise (report/results/apl-<data>.json, which
    `python -m tests.benchmarks.apl_released` makes), a row a run: loss, rate, seed, epochs, and after each epoch test_accuracy (share)
    and class_accuracy (K shares)."""
    path = results.recorded(f"apl-{data}.json")
    return json.loads(path.read_text()) if path.exists() else []


def classes_named(record: dict) -> int:
    """How many classes the last epoch's network ever predicts on the test set."""
    return sum(any(column) for column in zip(*record["confusion"], strict=True))


def settings_of(record: dict) -> training.Settings:
    """A run's settings, with the fields that older records lack."""
    return experiments.Run.from_dict(record["run"]).settings


def trained_on(record: dict) -> int:
    """How many samples a run trained on: the training set's, less those held out for validation."""
    count = record["data"]["train"]
    return count - round(settings_of(record).valid_fraction * count)


def best_valid(record: dict) -> float:
    return max((100 * v for v in record["history"]["valid_accuracy"] if v is not None), default=NAN)


# ------------------------------------------------------------------------------------------------------------- words


def spread(mean: float, std: float = NAN, digits: int = 2) -> str:
    """mean ± std; the mean alone without a std, MISSING without a mean."""
    if mean != mean:
        return MISSING
    return f"{mean:.{digits}f}" if std != std else f"{mean:.{digits}f} ± {std:.{digits}f}"


def shown_as(setting) -> str:
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, tuple):
        return ", ".join(map(str, setting))
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "tau": "τ"}


def as_text(values: dict) -> str:
    return ", ".join(GREEK.get(k, k) + ("" if v is True else f" {v:g}") for k, v in values.items())


def listed(values) -> str:
    return ", ".join(f"{v:,}" for v in sorted(set(values)))


# ----------------------------------------------------------------------------------------------------------- benches

BENCH_COLUMNS = [
    "name", "ours_ms", "baseline_ms", "ratio", "low", "high", "target", "gflops", "gb_per_s", "peak_mb", "length", "kind",
]  # fmt: skip


def benchmarks(path=None) -> dict:
    """A saved bench, by default your own (runs/bench.json) or else the recorded one: its machine and rows, none without the file.
    Raises ValueError for a damaged one."""
    places = [results.project() / "runs", results.project() / "report" / "results"]
    path = Path(path or next((p / "bench.json" for p in places if (p / "bench.json").exists()), "bench.json"))
    try:
        saved = json.loads(path.read_text())
        return {"machine": saved["machine"], "rows": saved["rows"]}
    except FileNotFoundError:
        return {"machine": {}, "rows": []}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
