"""The store: a folder with one JSON file a run, `<id>.json`.

A record holds the run, its history, the last epoch's and the best-on-validation accuracy, the confusion matrix, the noise that was really
made, the data's fingerprint, versions, device and seconds. It is written to a temporary name, flushed to disk and renamed, so a file that
is there is whole; a damaged one is set aside under `quarantine/` with a warning.
"""

import contextlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

SCHEMA = 1
ID = re.compile(r"[0-9a-f]{16}")


def project() -> Path:
    """The checkout's folder, seen from anywhere in it (a notebook's folder, say); outside a checkout, the current folder."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "saidl").is_dir() and (p / "pyproject.toml").is_file()), here)


def own(profile: str) -> Path:
    """Where your own runs of a profile go: runs/<profile>, or SAIDL_STORE/<profile>."""
    return Path(os.environ.get("SAIDL_STORE") or project() / "runs") / profile


def recorded(profile: str) -> Path:
    """Where the project's recorded runs of a profile are: report/results/<profile>."""
    return project() / "report" / "results" / profile


def write(record: dict, store) -> Path:
    """Put a record into the store, whole or not at all. Raises OSError when the store cannot be written, ValueError for a foreign id."""
    if not ID.fullmatch(str(record.get("id"))):
        raise ValueError(f"a record's id must be 16 hexadecimal digits, not {record.get('id')!r}")
    path = Path(store) / f"{record['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            json.dump(without_nan(record), file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return path


def read(path) -> dict:
    """One record. Raises ValueError when the file is not a whole record of this schema under its own name."""
    path = Path(path)
    try:
        record = json.loads(path.read_text())
        if record["schema"] != SCHEMA or record["id"] != path.stem or record["status"] not in ("done", "failed"):
            raise ValueError("it is not a record of this store")
        if record["status"] == "done" and not 0 <= record["test_accuracy"] <= 1:
            raise ValueError(f"its accuracy is {record['test_accuracy']}")
        from saidl.experiments import Run

        if Run.from_dict(record["run"]).id != record["id"]:
            raise ValueError("its id is not its run's")
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} is damaged or foreign: {error}") from error
    return record


def records(*stores, quarantine: bool = True) -> Iterator[dict]:
    """Every whole record of the stores, sorted by file; damaged files are set aside (or left, for a folder that is not ours to change)."""
    for store in stores:
        for path in sorted(Path(store).glob("*.json")):
            try:
                yield read(path)
            except FileNotFoundError:  # another process has just set it aside
                continue
            except ValueError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                if quarantine:
                    set_aside(path)


def set_aside(path: Path) -> None:
    folder = path.parent / "quarantine"
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        path.replace(folder / path.name)


def load(*stores, quarantine: bool = True):
    """All records of one or more stores as a DataFrame, a row a run; a run in several stores counts once, as in the last of them.

    Columns: the run's fields, `epochs`, `status`, `error`, `test_accuracy` (last epoch) and `best_accuracy` (test accuracy at the epoch
    best on validation) in [0, 1], `noise_rate` (share of labels really wrong), `memorised`, `resisted`, `parameters`, `seconds`, `device`,
    and `record`, the whole record.
    """
    import pandas as pd

    found = {record["id"]: record for record in records(*stores, quarantine=quarantine)}
    return pd.DataFrame([row(record) for record in found.values()], columns=COLUMNS)


RUN_FIELDS = ("profile", "task", "dataset", "train_size", "model", "loss", "noise", "rate", "exact", "noise_seed", "seed")
OUTCOMES = ("test_accuracy", "best_accuracy", "parameters", "seconds", "device")
COLUMNS = ["id", "status", "error", *RUN_FIELDS, "model_options", "loss_options", "epochs", *OUTCOMES, "noise_rate", "memorised", "resisted", "record"]


def row(record: dict) -> dict:
    run, history = record["run"], record.get("history", {})
    last = {name: (history.get(name) or [math.nan])[-1] for name in ("memorised", "resisted")}
    return (
        {name: run[name] for name in RUN_FIELDS}
        | {name: dict(map(tuple, run[name])) for name in ("model_options", "loss_options")}
        | {name: record.get(name, math.nan) for name in OUTCOMES}
        | {name: math.nan if value is None else value for name, value in last.items()}
        | {"id": record["id"], "status": record["status"], "error": record.get("error"), "epochs": run["settings"]["epochs"]}
        | {"noise_rate": record.get("noise", {}).get("rate", math.nan), "record": record}
    )


def without_nan(value):
    """JSON has no NaN: an epoch that was not evaluated is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    return [without_nan(v) for v in value] if isinstance(value, list | tuple) else value
