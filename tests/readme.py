"""The README's results, from what is recorded: `python -m tests.readme` writes them, tests/test_readme.py checks them."""

import json
import re

from saidl import figures, results, tables
from saidl.experiments import NEWER, PAPER_LOSSES
from saidl.losses import resolve

BLOCK = re.compile(r"(<!-- (results|faults|speed):.*?-->\n).*?(<!-- end of \2 -->)", re.DOTALL)
LARGE = 150_000  # parameters: more than the laptop's own networks have, fewer than the S4D authors' example of 4 x 128
SHOWN = [("symmetric", rate) for rate in ("0", "0.2", "0.4", "0.6", "0.8")]
SHOWN += [("asymmetric", "0.2"), ("asymmetric", "0.4"), ("human-worst", "")]
SHORT = {
    "symmetric": "sym. ", "asymmetric": "asym. ", "asymmetric-sequential": "asym. seq. ", "human-worst": "CIFAR-10N worst",
}  # fmt: skip


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def noise_table(frame, profile: str) -> str:
    have, losses = tables.cells(frame, profile), [*PAPER_LOSSES, *map(resolve, NEWER)]
    columns = [column for column in SHOWN if any((loss, *column) in have.index for loss in losses)]
    rows = []
    for loss in losses:
        values = [tables.value(have, (loss, *column))[0] for column in columns]
        if any(v == v for v in values):
            rows.append([tables.label(loss), *(f"{v:.1f}" if v == v else "" for v in values)])
    return markdown(["loss", *(short(*column) for column in columns)], rows)


def short(kind: str, rate: str) -> str:
    return "clean" if rate == "0" else SHORT[kind] + rate


def seeds(counts) -> str:
    """How many seeds stand behind a table's cells, counts by (loss, noise, rate): what most have, in brackets what others have."""
    usual = int(counts.mode().max())
    groups = {}  # (n, columns or none for all that the loss has): losses
    for loss, own in counts.groupby(level=0, sort=False):
        for n, part in own[own != usual].groupby(own):
            columns = () if len(part) == len(own) else tuple(short(*column) for _, *column in part.index)
            groups.setdefault((int(n), columns), []).append(tables.label(loss))
    text = lambda n: "one seed" if n == 1 else f"mean of {n} seeds"  # noqa: E731
    others = [
        f"{', '.join(losses)}{' at ' * bool(columns)}{', '.join(columns)}: {text(n)}"
        for (n, columns), losses in groups.items()
    ]
    return text(usual) + (f" ({'; '.join(others)})" if others else "")


def noise_seeds(frame, profile: str) -> str:
    have = tables.cells(frame, profile).n
    shown = [*PAPER_LOSSES, *map(resolve, NEWER)]
    return seeds(have[[key[0] in shown and key[1:] in SHOWN for key in have.index]])


def published_table(frame, kinds: list[str], task: str = "noise") -> str:
    """Ours at the paper profile and in brackets the published value, for the cells that were run."""
    rows = tables.against_published(frame, "paper", kinds, task).query("n > 0 and published == published")
    columns = sorted({(row.noise, row.rate) for row in rows.itertuples()}, key=lambda c: (kinds.index(c[0]), c[1]))
    cells = {(row.loss, row.noise, row.rate): f"{row.ours:.1f} ({row.published:.1f})" for row in rows.itertuples()}
    return markdown(
        ["loss", *(short(*column) for column in columns)],
        [[tables.label(loss), *(cells.get((loss, *c), "") for c in columns)] for loss in dict.fromkeys(rows.loss)],
    )


def sequence_table(frame) -> str:
    """A row a network; one of 4 layers of 128, whose number of parameters depends on the task's channels, has a row of its own."""
    tasks = {"digits-sequence": "quick"} | dict.fromkeys(
        ("smnist", "pmnist", "scifar", "lra-image", "speech"), "laptop"
    )
    found = {}  # (model, large): {task: accuracy}
    for task, profile in tasks.items():
        for row in tables.sequences(frame, profile, task).itertuples():
            if row.source == "" and row.n and not row.half:
                found.setdefault((row.model, row.parameters > LARGE), {})[task] = f"{row.accuracy:.1f}"
    models = list(dict.fromkeys(model for model, _ in found))
    name = lambda model, large: f"{model}, 4 × 128" if large else model  # noqa: E731
    order = sorted(found, key=lambda key: (models.index(key[0]), key[1]))
    return markdown(["model", *tasks], [[name(*key), *(found[key].get(task, "") for task in tasks)] for key in order])


def guide(frame) -> str:
    """How to read the noise tables, and one comparison out of them."""
    have = tables.cells(frame, "laptop")
    pair = lambda noise: [tables.value(have, (loss, noise, "0.4"))[0] for loss in ("ce", "nce+rce")]  # noqa: E731
    (ce, apl), (ce_asym, apl_asym) = pair("symmetric"), pair("asymmetric")
    theirs = figures.published().query("noise == 'symmetric' and rate == 0.4").set_index("loss").accuracy
    return (
        "Training labels are made wrong, test labels never. *sym. r*: the share r of all training labels is replaced by another class at "
        "random; *asym. r*: the share r of some classes by one other class each; *CIFAR-10N worst*: people's own mistakes. CE is "
        "cross-entropy, FL focal loss, MAE mean absolute error, RCE reverse cross-entropy, GCE and SCE generalised and symmetric "
        "cross-entropy; NCE and NFL are normalised, a + sums two losses, and the other names are newer losses (notebook 03). An empty cell "
        f"was not run.\n\nOn 5,000 images of CIFAR-10 with *sym. 0.4* CE ends at {ce:.1f}% and NCE+RCE at {apl:.1f}% (published, "
        f"on all 50,000 and a network twice as wide: {theirs['ce']:.1f} and {theirs['nce+rce']:.1f}); "
        f"with *asym. 0.4* at {ce_asym:.1f}% and {apl_asym:.1f}% (why so, and what the published size changes: notebook 04)."
    )


def block() -> str:
    stores = [results.recorded(profile) for profile in ("quick", "laptop", "paper")]
    frame = results.load(*stores, quarantine=False)
    return (
        f"{guide(frame)}\n\nDigits (scikit-learn's 8 × 8 images; `quick` profile), "
        "test accuracy in % at the last epoch, by noise and its rate, "
        f"{noise_seeds(frame, 'quick')}:\n\n"
        f"{noise_table(frame, 'quick')}\nCIFAR-10, 5,000 images, 60 epochs, half-width network (`laptop` profile), "
        f"{noise_seeds(frame, 'laptop')}:\n\n"
        f"{noise_table(frame, 'laptop')}\nCIFAR-10 at the published recipe (`paper` profile; two cores take hours for a run, so most cells "
        f"wait for a GPU), {seeds(tables.cells(frame, 'paper').n)}; in brackets the published values; *asym. seq.*: classes move one after "
        "another, as in the published table (notebook 04):\n\n"
        f"{published_table(frame, ['symmetric', 'asymmetric-sequential', 'asymmetric'])}\nMNIST at the published recipe, "
        f"{seeds(tables.cells(frame, 'paper', 'mnist-noise').n)}; in brackets the published values (see notebook 11):\n\n"
        f"{published_table(frame, ['symmetric', 'asymmetric'], 'mnist-noise')}\nSequences, read one step at a time, test accuracy "
        "in %; in brackets the discretisation (notebook 07). "
        "Sizes are far below the papers' (4 × 128: the S4D authors' public example) and epochs few "
        "(sizes, epochs and published numbers: notebook 06):\n\n"
        f"{sequence_table(frame)}\n{sequence_note(frame)}\n"
    )


def sequence_note(frame) -> str:
    """What is unlike between the rows of the sequence table."""
    runs = tables.by_recipe(frame, "laptop", "speech")
    told = {row.model: (row.epochs, row.record["run"]["settings"]["lr"]) for row in runs.itertuples()}
    (one, small), (ten, large) = told["transformer"], told["s4d"]
    seeds = tables.by_recipe(frame, "laptop", "scifar").query("model == 's4d'").seed.nunique()
    sizes = {row.model: row.parameters for row in runs.itertuples()}
    return (
        f"One seed, but for S4D's small networks on scifar and lra-image (means of {seeds}). LSTM and Transformer learn at a rate of "
        f"{small:g}, the others at {large:g}, in a recipe chosen for S4D and S4; on speech the Transformer had {one} epoch, the others "
        f"{ten}. Except on digits, S4 has more parameters than S4D (on speech {sizes['s4'] / sizes['s4d']:.1f} times as many), the other "
        "two about as many."
    )


def faults() -> str:
    """What `python -m tests.test_faults --save` has recorded, in a sentence."""
    told = json.loads(results.recorded("faults.json").read_text())
    played = [figures for name, figures in told.items() if name != "total" and "skipped" not in figures]
    killed, total = told["kills"]["killed"], told["total"]
    return (
        f"Recorded: {total['faults']} faults in {len(played)} scenes, among them {sum(killed.values())} sweeps killed by "
        f"`kill -9` ({', '.join(f'{place} {count}' for place, count in killed.items())});\n{total['results checked']:,} "
        f"results checked afterwards: {total['lost']} lost, {total['changed']} changed, {total['left behind']} files left "
        f"behind, {total['other bits']} sweeps that in the end differed from an undisturbed one in any bit.\n"
    )


SPEED = {
    "bench.json": (
        "loss nce+rce (4096, 1000), one-hot form", "CNN8 epoch of 640 images, plain loop",
        "diagonal kernel, full tensor, L 4096", "S4 kernel, Cauchy form, L 4096", "fft_conv, plain autograd, B 16, L 1024",
        "S4D layer, textbook layer, B 16, L 1024",
    ),
    "peers.json": (
        "loss nce+rce (4096, 1000), APL's", "loss nfl (4096, 1000), APL's", "CNN8 epoch of 640 images, APL's",
        "CNN8 training step, batch 128, APL's",
        "S4D layer, s4's S4D, B 16, L 1024", "S4 kernel, s4's SSMKernelDPLR, L 4096", "diagonal kernel, lrnnx's S4D, L 4096",
    ),
}  # fmt: skip


def speed() -> str:
    """Rows of the recorded benches, by name: what is in no file cannot be claimed."""
    rows, said = [], []
    for file, names in SPEED.items():
        told = json.loads(results.recorded(file).read_text())
        have, machine = {row["name"]: row for row in told["rows"]}, told["machine"]
        for row in (have[name] for name in names if name in have):
            whose = f"{row['repository']} at {row['commit'][:7]}" if "repository" in row else "the textbook's form"
            rows.append([row["name"], f"{row['ratio']:.0f}" if row["ratio"] >= 10 else f"{row['ratio']:.2g}", whose])
        said.append(f"`{file}`: {machine['cpu']}, {machine['cores']} cores, torch on {machine['threads']} of them")
    table = markdown(["row: what, its baseline", "times faster", "whose baseline"], rows)
    names = (
        "In the names, (4096, 1000) is batch and classes, B the batch and L the length of a sequence; the textbook's form is the formula "
        "written down in plain PyTorch, and a repository is named with its commit."
    )
    return f"{table}\n{names} Rows in which ours is the slower one: notebook 09. {'; '.join(said)}.\n"


def updated(text: str) -> str:
    made = {"results": block, "faults": faults, "speed": speed}
    return BLOCK.sub(lambda m: f"{m[1]}\n{made[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    readme = results.project() / "README.md"
    readme.write_text(updated(readme.read_text()))
