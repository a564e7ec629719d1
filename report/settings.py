"""What was run, with which settings, on what: tables of recipes, of the losses' hyperparameters and of the recorded runs."""

from dataclasses import fields

import pandas as pd

from saidl import experiments, losses
from saidl.names import label
from saidl.tables import as_text, listed, shown_as


def recipes(tasks: list[tuple[str, str]]) -> pd.DataFrame:
    """Every setting of some (profile, task): a row a setting, a column a recipe."""
    columns = {}
    for profile, task in tasks:
        dataset, size, model, options, settings = experiments.recipe(profile, task)
        shown = {"data": dataset, "training samples": "all" if size is None else f"{size:,}", "network": model}
        shown |= options | {f.name: getattr(settings, f.name) for f in fields(settings)}
        columns[f"{profile}: {task}"] = {name.replace("_", " "): shown_as(v) for name, v in shown.items()}
    rows = dict.fromkeys(name for column in columns.values() for name in column)
    return pd.DataFrame(columns).reindex(list(rows)).fillna("")


def loss_settings() -> pd.DataFrame:
    """Every loss: hyperparameters on CIFAR-10 (class defaults where no paper tunes them), elsewhere, their source."""
    rows = []
    for name in losses.names():
        values, source = losses.settings(name)
        if name in losses.SINGLE:
            loss = losses.make(name)
            values = {k: getattr(loss, k) for k in sorted(losses.accepted(name) - {"detached", "floor"})}
        elsewhere = [f"{data}: {as_text(v)}" for (n, data), (v, _) in losses.ELSEWHERE.items() if n == name]
        aimed = losses.settings(name, noise="asymmetric")[0].items() - losses.settings(name)[0].items()
        elsewhere += [f"asymmetric noise, pair flips: {as_text(dict(sorted(aimed)))}"] if aimed else []
        penalty = as_text({data: v for (n, data), v in losses.L1.items() if n == name})
        source = "" if source == "class defaults" else source.removesuffix(", released configs")
        rows.append((label(name), as_text(values), "; ".join(elsewhere), penalty, source))
    return pd.DataFrame(rows, columns=["loss", "CIFAR-10", "elsewhere", "L1 penalty", "source"])


def provenance(frame: pd.DataFrame) -> pd.DataFrame:
    """What results were made from, a row a profile and task: runs, seeds, epochs, sizes, fingerprints, device, time."""
    rows = []
    for (profile, task), runs in frame[frame.status == "done"].groupby(["profile", "task"]):
        data = [record["data"] for record in runs.record]
        sizes = [listed(d[part] for d in data) for part in ("train", "test")]
        prints = sorted({" ".join(d["fingerprint"][part][:8] for part in ("train", "test")) for d in data})
        made = "; ".join(sorted(set(runs.device))), f"{runs.seconds.sum() / 3600:.1f}"
        counts = len(runs), listed(runs.seed), listed(runs.epochs), *sizes
        rows.append((profile, task, *counts, "; ".join(prints), *made))
    names = ["profile", "task", "runs", "seeds", "epochs", "train", "test", "data", "device", "hours"]
    return pd.DataFrame(rows, columns=names)
