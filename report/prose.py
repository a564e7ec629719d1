"""The numbers of the report's prose: in the chapters a number is \\val{key}, and `Numbers` looks the key up in the recorded results."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from report import evidence, floats
from report.latex import short, tex
from report.settings import recipes
from saidl import data, experiments, figures, losses, models, results, tables
from saidl.checks import one_of
from saidl.names import label, rule_name
from saidl.noise import KINDS
from saidl.tables import spread

NOT_RUN = r"\notrun{}"
CHANGES = {  # what was changed in MNIST's recipe, as `tables.editions` puts it
    "none": "",
    "shares": "equal shares",
    "float32": "precision float32",
    "scripts": "equal shares, nesterov no, weight decay 0.001",  # the decay and momentum of the authors' first scripts
    "step": "nesterov no, weight decay 0.001",  # the same under asymmetric noise
    "plain": "nesterov no",  # their momentum alone
}


def used_keys(out: Path) -> list[str]:
    text = "".join(path.read_text() for path in (out / "main.tex", *sorted((out / "chapters").glob("*.tex"))))
    return sorted(set(re.findall(r"\\val\{([^#}]+)\}", re.sub(r"(?<!\\)%.*", "", text))))


def span(values: list[float]) -> str:
    """From the lowest to the highest, in per cent."""
    if not values:
        return NOT_RUN
    return percent(values[0]) if len(values) == 1 else f"{min(values):.1f} to {percent(max(values))}"


class Numbers:
    """What \\val{key} stands for, as LaTeX; a missing run is NOT_RUN. The key's first part names the method, the rest its arguments;
    a profile may carry a task, as in "paper:mnist-noise".

    >>> from saidl import results
    >>> Numbers(results.load())["pub/cifar10/symmetric/0.4/ce"]
    '60.28\\\\,\\\\%'
    """

    def __init__(self, frame: pd.DataFrame, left_out: list[str] = ()):
        self.frame, self.left_out, self.known = frame, left_out, {}

    def __getitem__(self, key: str) -> str:
        kind, *parts = key.split("/")
        try:
            return getattr(self, "the_" + kind.replace("-", "_"))(*parts)
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            raise RuntimeError(f"\\val{{{key}}} means nothing: {error}") from error

    def rows(self, profile: str) -> pd.DataFrame:
        if profile not in self.known:
            self.known[profile] = tables.by_recipe(self.frame, *parted(profile))
        return self.known[profile]

    def cell(self, profile: str, noise: str, rate: str, loss: str) -> pd.DataFrame:
        """The runs of a cell, perhaps none. A name that the experiments do not know is a ValueError."""
        name, task = parted(profile)
        (run,) = experiments.grid(name, task=task, loss=loss, noise=noise, rate=float(rate))
        rows = self.rows(profile)
        return rows[(rows.loss == run.loss) & (rows.noise == noise) & (rows.rate == rate)]

    def the_acc(self, profile, noise, rate, loss):
        runs = self.cell(profile, noise, rate, loss)
        return percent(runs.accuracy.mean(), std=runs.accuracy.std())

    def the_gap(self, profile, noise, rate, loss, other_rate, other):
        one, two = self.cell(profile, noise, rate, loss), self.cell(profile, noise, other_rate, other)
        return number(one.accuracy.mean() - two.accuracy.mean(), 1)

    def the_mem(self, profile, noise, rate, loss):
        """The share of flipped labels that the network reproduces in the last epoch."""
        return percent(100 * self.cell(profile, noise, rate, loss).memorised.mean())

    def the_late(self, profile, noise, rate, loss, epochs):
        """Lowest and highest test accuracy in the last epochs of a cell's first run."""
        runs = self.cell(profile, noise, rate, loss)
        return span(
            [100 * v for v in runs.record.iloc[0]["history"]["test_accuracy"][-int(epochs) :]] if len(runs) else []
        )

    def the_classes(self, profile, noise, rate, loss):
        """How many classes the network ever predicts on the test set."""
        runs = self.cell(profile, noise, rate, loss)
        counts = [tables.classes_named(record) for record in runs.record]
        return f"{sum(counts) / len(counts):.3g}" if counts else NOT_RUN

    def the_never(self, profile, noise, rate, loss):
        """The names of the classes that the network of a cell's first run never predicts on the test set."""
        runs = self.cell(profile, noise, rate, loss)
        if runs.empty:
            return NOT_RUN
        record = runs.record.iloc[0]
        columns = zip(record["data"]["classes"], zip(*record["confusion"], strict=True), strict=True)
        return ", ".join(name for name, column in columns if not any(column)) or "none"

    def the_lost(self, profile, noise, rate, loss):
        """Accuracy over the classes that lose labels."""
        return percent(floats.losing(self.cell(profile, noise, rate, loss))[0])

    def the_class(self, profile, noise, rate, loss, name, epoch="0"):
        """Test accuracy of one class, named as in its data set, in an epoch (0: the last), mean over a cell's runs."""
        runs = self.cell(profile, noise, rate, loss)
        of_class = [
            record["history"]["class_accuracy"][int(epoch) - 1][record["data"]["classes"].index(name)]
            for record in runs.record
        ]
        return percent(100 * sum(of_class) / len(of_class), 0) if of_class else NOT_RUN

    def the_control(self, loss, rate, what="accuracy"):
        """Cross-entropy at a learning rate as much smaller than the recipe's as NCE's pull is, or NCE at one as much larger, on the digits
        under symmetric noise: "accuracy", or what it has "memorised"."""
        usual, ratio = experiments.recipe("quick", "noise")[-1], int(self.the_ratio("ce", "nce"))
        other = replace(usual, lr={"ce": usual.lr / ratio, "nce": usual.lr * ratio}[loss])
        rows = tables.by_recipe(self.frame, "quick", but=["settings"])
        rows = rows[(rows.loss == loss) & (rows.noise == "symmetric") & (rows.rate == rate)]
        rows = rows.loc[[row.Index for row in rows.itertuples() if tables.settings_of(row.record) == other]]
        if rows.empty:
            return NOT_RUN
        column = {"accuracy": "test_accuracy", "memorised": "memorised"}[what]
        return percent(100 * rows[column].astype(float).mean())

    def the_first(self, noise, loss, epoch, code="ours"):
        """The classes lost after an epoch of the paper profile's recipe on CIFAR-10 at rate 0.4, in the shortest run that has so many; code
        "released": of the authors', run by us."""
        at = int(epoch) - 1
        if code == "released":
            rows = [row for row in tables.released("cifar10") if (row["loss"], row["rate"]) == (loss, 0.4)]
            lost = [tables.lost(row["class_accuracy"][at]) for row in rows]
        else:
            rows = tables.by_recipe(self.frame, "paper", but=["settings"])
            rows = rows[(rows.loss == loss) & (rows.noise == noise) & (rows.rate == "0.4") & (rows.epochs > at)]
            usual = experiments.recipe("paper", "noise")[-1]
            cut = {"epochs": usual.epochs, "lr_min": usual.lr_min}  # a run that was to be cut short keeps its rate up
            own = {row.Index: replace(tables.settings_of(row.record), **cut) for row in rows.itertuples()}
            rows = rows.loc[[index for index, settings in own.items() if settings == usual]]
            lost = [tables.lost_classes(record, at) for record in rows.sort_values("epochs").record]
        return ", ".join(data.CIFAR10_CLASSES[c] for c in lost[0]) or "none" if lost else NOT_RUN

    def the_whole(self, loss, what):
        """`tables.whole_run` of a loss: its "epochs", the test "accuracy" after the last, the classes lost after the "first", those "back"
        since, with the epoch, or "lost" after the last."""
        one_of("what", what, ("epochs", "accuracy", "first", "back", "lost"))
        record = tables.whole_run(self.frame, losses.resolve(loss))
        if record is None:
            return NOT_RUN
        names = record["data"]["classes"]
        back = [f"{names[c]} by epoch {epoch}" for c, epoch in tables.came_back(record).items()]
        lost, first = ([names[c] for c in tables.lost_classes(record, at)] for at in (-1, 0))
        return {
            "first": ", ".join(first) or "none",
            "epochs": str(len(record["history"]["test_accuracy"])),
            "accuracy": percent(100 * record["test_accuracy"]),
            "lost": ", ".join(lost) or "none",
            "back": ", ".join(back) or "none",
        }[what]

    def the_more(self, noise, rate, loss, what="accuracy"):
        """A cell of the laptop profile on as many images as `experiments.more_images` takes: "accuracy", "images" or classes "lost"."""
        size = experiments.more_images()[0].train_size
        rows = tables.by_recipe(self.frame, "laptop", but=["train_size"])
        rows = rows[(rows.train_size == size) & (rows.loss == loss) & (rows.noise == noise) & (rows.rate == rate)]
        if what == "images":
            return f"{size:,}"
        if what == "accuracy":
            return percent(rows.accuracy.mean(), std=rows.accuracy.std())
        if rows.empty:
            return NOT_RUN
        record = rows.record.iloc[0]
        return ", ".join(record["data"]["classes"][c] for c in tables.lost_classes(record)) or "none"

    def the_order(self, profile, noise, rate):
        """The losses of a cell with their accuracies over the seeds that most of them have, best first; those within a point of the
        first of them stand together."""
        one_of("noise", noise, KINDS)
        rows = self.rows(profile)
        rows = rows[(rows.noise == noise) & (rows.rate == rate)]
        having = rows.groupby("seed").loss.transform("nunique")
        means = rows[having == having.max()].groupby("loss").accuracy.mean()
        groups = []
        for loss, mean in means.sort_values(ascending=False).items():
            if not groups or groups[-1][0][1] - mean > 1 + 1e-9:
                groups.append([])
            groups[-1].append((tex(label(loss)), mean))
        ranked = []
        for group in groups:
            ends = dict.fromkeys(f"{group[i][1]:.1f}" for i in (0, -1))
            ranked.append(f"{', '.join(name for name, _ in group)} ({' to '.join(ends)})")
        return "; ".join(ranked) or NOT_RUN

    def the_seq(self, profile, task, model, method="", which="smallest"):
        """A sequence model's accuracy: of its "smallest" or "largest" size run, or tested at "half" the sampling rate."""
        name = label(model) + (f" ({method})" if method else "")
        rows = tables.sequences(self.frame, profile, task).set_index("model").loc[[name]]
        rows = rows[(rows.source == "") & (rows.half == (which == "half"))]
        if rows.empty:
            return NOT_RUN
        row = rows.iloc[{"smallest": 0, "largest": -1, "half": 0}[which]]
        return percent(row.accuracy, std=row["std"])

    def the_minutes(self, profile, task, model, method=""):
        """How long a sequence model's run trained, as `figures.minutes` has it."""
        rows = tables.sequence_runs(self.frame, task, profile)
        chosen = [r.model == model and rule_name(model, r.model_options) == method for r in rows.itertuples()]
        return number(rows.record[chosen].map(figures.minutes).astype(float).mean())

    def the_mnist(self, noise, rate, loss, change, beta="", alpha="1"):
        """MNIST at the published recipe, but for a change of CHANGES and a pair's weights (of focal loss, beta is "detached", its factor
        not being part of the gradient, or "gamma 5")."""
        (known,) = experiments.grid("paper", task="mnist-noise", loss=loss, noise=noise, rate=float(rate))
        if ("beta" in dict(known.loss_options)) != beta[:1].isdigit():
            raise ValueError(f"{loss} is to be named with the weights of a pair, and with them alone")
        weights = f"α {alpha}, β {beta}" if beta[:1].isdigit() else beta.replace("gamma", "γ")
        table = tables.editions(self.frame).set_index(["noise", "rate", "loss", "changed", "weights"])
        ours, std = (
            table[name].get((noise, rate, loss, CHANGES[change], weights), tables.NAN) for name in ("ours", "std")
        )
        return percent(ours, std=std)

    def the_early(self, loss, beta=None, alpha="1", precision="auto", epoch="1"):
        """In how many seeds a class is lost after the first epoch, or the last of so many, on MNIST at asymmetric 0.4 (the store
        "first-epoch"; with precision "released code" the authors')."""
        losses.resolve(loss)
        ours = tables.first_epochs(results.load(results.recorded("first-epoch"), quarantine=False))
        runs = pd.concat([ours, tables.released_epochs()])
        runs = runs[(runs.loss == loss) & (runs.precision == precision)]
        runs = runs if beta is None else runs[(runs.alpha == float(alpha)) & (runs.beta == float(beta))]
        return floats.seeds_losing(runs, int(epoch)) or NOT_RUN

    def the_scripts(self, loss, epoch="1", decay="0.001", beta="1"):
        """The same with the seeds and the momentum of the authors' first scripts (the store "authors-seeds"); their decay and a pair's
        weights unless others are named."""
        runs = tables.first_epochs(results.load(results.recorded("authors-seeds"), quarantine=False))
        runs = runs[(runs.loss == losses.resolve(loss)) & (runs.decay == float(decay)) & ~runs.nesterov.astype(bool)]
        return floats.seeds_losing(runs[runs.beta.isin([float(beta), tables.NAN])], int(epoch)) or NOT_RUN

    def the_released(self, loss, rate, late="1"):
        """Where the authors' released code ends on MNIST under asymmetric noise, after all epochs of its configuration; or the lowest and
        highest test accuracy of its `late` last epochs."""
        one_of("loss", loss, losses.names())
        epochs = experiments.recipe("paper", "mnist-noise")[-1].epochs
        cell = {"loss": loss, "rate": float(rate), "epochs": epochs}
        ends = [row["test_accuracy"][-int(late) :] for row in tables.released() if row.items() >= cell.items()]
        return span([100 * v for end in ends[:1] for v in end])

    def the_editions(self, which):
        """Of the recipe's cells on MNIST that tell the authors' two stored tables "apart": how many, or how many nearer to one."""
        table = tables.editions(self.frame)
        table = table[table.recipe & table.apart]
        return str(len(table) if which == "apart" else (table.nearer == which).sum())

    def the_earlier(self, noise, rate, loss):
        """The authors' earlier stored value for MNIST."""
        table = tables.published()
        table = table[table.source.str.startswith(tables.EDITIONS["earlier"]) & (table.loss == loss)]
        return percent(table[(table.noise == noise) & (table.rate == rate)].accuracy.iloc[0], 2)

    def the_far(self, profile, *kinds):
        """The cells further from the published number than two of its deviations and a point, with the differences."""
        name, task = parted(profile)
        for kind in kinds:
            one_of("noise", kind, KINDS)
        table = tables.against_published(self.frame, name, kinds, task)
        far = [
            f"{tex(label(row.loss))} at {row.noise} ${row.rate}$ (${row.difference:+.1f}$)"
            for row in table[table.beyond].itertuples()
        ]
        return ", ".join(far) or ("none" if table.n.any() else NOT_RUN)

    def the_about(self, profile, *kinds):
        """Profile, data and its copy, sizes, epochs, seeds of a table's runs (those of some kinds of noise, perhaps): what a caption owes
        its reader."""
        name, task = parted(profile)
        dataset, size, model, _, settings = experiments.recipe(name, task)
        rows = self.rows(profile)
        rows = rows[rows.noise.isin(all_of(kinds))] if kinds else rows
        size, epochs = "all" if size is None else f"{size:,}", f"{settings.epochs}"
        if len(rows):
            size = " or ".join(f"{n:,}" for n in sorted({record["data"]["train"] for record in rows.record}))
            epochs = " or ".join(map(str, sorted(set(rows.epochs))))
        cells = rows.assign(options=rows.model_options.map(str)).groupby(["loss", "noise", "rate", "model", "options"])
        seeds = sorted(set(cells.seed.nunique()))
        prints = sorted({record["data"]["fingerprint"]["train"][:8] for record in rows.record})
        copy = f" (copy {', '.join(prints)})" if prints else ""
        seeds = " or ".join(map(str, seeds)) + f" seed{'s' * (seeds[-1] > 1)} a cell" if seeds else "no run recorded"
        network = "" if task in experiments.SEQUENCES else f" {tex(model)},"
        return f"Profile \\emph{{{name}}}: {dataset}{copy}, {size} training samples,{network} {epochs} epochs, {seeds}."

    def the_absent(self, profile, *kinds):
        """How many of the cells that a table is asked to have are empty."""
        name, task = parted(profile)
        key = ["loss", "noise", "rate"]
        n = tables.against_published(self.frame, name, all_of(kinds), task).set_index(key).n
        n = n[n.index.isin(tables.asked(name, task))]
        empty = (n == 0).sum()
        if empty:
            return f"{empty} of its {len(n)} cells have not been run."
        return "Every cell that the profile asks for has been run; a dash is one that it does not ask for."

    def the_cells(self, profile, what):
        """How many cells (loss, noise, rate) a profile's queue has: those "asked" for, or those of them that were "run"."""
        name, task = parted(profile)
        asked, have = set(tables.asked(name, task)), tables.cells(self.frame, name, task).index
        return {"asked": f"{len(asked):,}", "run": f"{len(asked.intersection(have)):,}"}[what]

    def the_pub(self, dataset, noise, rate, loss):
        table = tables.published()
        rows = table[(table.dataset == dataset) & (table.noise == noise) & (table.rate == rate) & (table.loss == loss)]
        return percent(rows.accuracy.iloc[0], 2)

    def the_set(self, profile, task, row):
        return tex(recipes([(profile, task)]).loc[row].iloc[0])

    def the_baseline_lr(self):
        return f"{experiments.BASELINE_LR:g}"

    def the_size(self, what):
        if what in models.IMAGE_MODELS:
            return f"{sum(p.numel() for p in models.make(what).parameters()):,}"
        return f"{len(data.load(what).train):,}"

    def the_ratio(self, a, b):
        """How much harder loss a pulls than b at an untrained network, p = 1/K."""
        pulls = evidence.pulls([a, b], [0.1])
        return f"{pulls.loc[a, 0.1] / pulls.loc[b, 0.1]:.0f}"

    def the_ev(self, name, row=None, column=None):
        """A cell of a table of `evidence`."""
        if name == "A":
            return f"{losses.LOG_ZERO:.2f}"
        make, form = EVIDENCE[name]
        table = make()
        return form(table[column][table.iloc[:, 0].map(str) == row].iloc[0])

    def the_other_cpu(self, what):
        """The quick profile's runs on another kind of processor (the store "other-cpu") against the recorded ones: how many, how many
        "equal", how many beyond a "point", the run that is "farthest"."""
        other = results.load(results.recorded("other-cpu"), quarantine=False)
        both = self.frame[self.frame.status == "done"].merge(
            other[["id", "test_accuracy"]], on="id", suffixes=("", "_other")
        )
        gap = 100 * (both.test_accuracy_other.astype(float) - both.test_accuracy.astype(float))
        if both.empty:
            return NOT_RUN
        if what == "farthest":
            row = both.loc[gap.abs().idxmax()]
            noisy = row.task == "noise"
            run = f"{label(row.loss)}, {row.noise} {row.rate:g}" if noisy else f"{label(row.model)} {row.task}"
            return f"{tex(run)} (${gap[row.name]:+.1f}$)"
        counts = {"runs": len(both), "equal": (gap.abs() < 1e-4).sum(), "point": (gap.abs() > 1).sum()}
        return str(counts[what])

    def the_runs(self, which):
        """How many are recorded: "all", "failed", "other" than by a recipe, or in a store of its own, "first-epoch" or "other-cpu"."""
        if which in ("first-epoch", "other-cpu"):
            return f"{len(results.load(results.recorded(which), quarantine=False)):,}"
        done = self.frame[self.frame.status == "done"]
        counts = {"all": len(done), "failed": len(self.frame) - len(done)}
        if which == "other":
            return str(sum(not tables.follows_recipe(row) for row in done.itertuples()))
        return f"{counts[which]:,}"

    def the_queued(self, profile):
        return f"{len(tables.queue(profile)):,}"

    def the_missing(self, profile):
        done = set(self.frame.id[self.frame.status == "done"])
        return f"{sum(run.id not in done for run in tables.queue(profile)):,}"

    def the_left_out(self):
        names = [match[1] for match in (re.search(r"([\w-]+)\.json", line) for line in self.left_out) if match]
        return ", ".join(rf"\code{{{tex(name)}.json}}" for name in names) or "none"

    def the_bench(self, what):
        machine = floats.saved_bench(self.frame)["machine"]
        return tex(machine[what]) if machine else "no benchmark recorded"


def all_of(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Kinds of noise as a key names them: "human" is all of CIFAR-10N's."""
    return experiments.HUMAN if kinds == ("human",) else kinds


def parted(profile: str) -> tuple[str, str]:
    """Profile and task of "paper:mnist-noise"; the task is "noise" where none is named."""
    name, _, task = profile.partition(":")
    return name, task or "noise"


def number(value: float, digits: int = 0) -> str:
    return NOT_RUN if value != value else f"{value:.{digits}f}"  # the mean of no runs is NaN


def percent(value: float, digits: int = 1, std: float = tables.NAN) -> str:
    return NOT_RUN if value != value else tex(spread(value, std, digits)) + r"\,\%"


EVIDENCE = {
    "moved-back": (evidence.moved_back, percent),
    "detached-focal": (evidence.detached_focal, percent),
    "inclusive": (evidence.inclusive, lambda rate: percent(100 * rate, 0)),
    "flipped-bilinear": (evidence.flipped_bilinear, short),
    "operator-order": (evidence.operator_order, number),
    "kin": (evidence.kin, number),
}
