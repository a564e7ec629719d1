"""The store: a folder with one JSON file a run, `<id>.json`.

A record holds the run, its history, the last epoch's and the best-on-validation accuracy, the confusion matrix, the
noise that was really made, the data's fingerprint, versions, device and seconds. It is written to a temporary name,
flushed to disk and renamed, so a file that is there is whole; a damaged one is set aside under `quarantine/` with a
warning. A finished result is never written over.

What is on its way is hidden beside it: `.<id>.lock` while a process is at the run, `.<id>.pt` its checkpoint,
`.<id>.*.part` half-written files. The system drops a lock when its process dies, so a lock file that nobody holds says
that a process died there, or was interrupted.
"""

import contextlib
import json
import math
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path

SCHEMA = 1
ID = re.compile(r"[0-9a-f]{16}")
WHOLE = ("history", "confusion", "noise", "data", "parameters")  # what a finished run's record tells


def project() -> Path:
    """The checkout's folder, seen from anywhere in it (a notebook's folder, say); elsewhere, the current folder."""
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "saidl").is_dir() and (p / "pyproject.toml").is_file()), here)


def own(profile: str) -> Path:
    """Where your own runs of a profile go: runs/<profile>, or SAIDL_STORE/<profile>."""
    return Path(os.environ.get("SAIDL_STORE") or project() / "runs") / plain(profile)


def recorded(profile: str) -> Path:
    """Where the project's recorded runs of a profile are: report/results/<profile>."""
    return project() / "report" / "results" / plain(profile)


def plain(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", str(name)):
        raise ValueError(f"a profile's name must be a plain word, not {name!r}")
    return name


def write(record: dict, store) -> Path:
    """Put a record into the store, whole or not at all; a finished result that is there already stays as it is.

    Raises OSError when the store cannot be written, ValueError for a foreign id or what could not be read again.
    """
    if not ID.fullmatch(str(record.get("id"))):
        raise ValueError(f"a record's id must be 16 hexadecimal digits, not {record.get('id')!r}")
    path = Path(store).expanduser() / f"{record['id']}.json"
    # JSON has no NaN: an epoch that was not evaluated is null
    try:
        text = json.dumps(record)
    except TypeError as error:
        raise ValueError(f"a record must be what JSON can hold: {error}") from error
    record = checked(json.loads(text, parse_constant=lambda _: None), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    try:
        with part.open("w") as file:
            json.dump(record, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        if not done(path):
            part.replace(path)
    except FileNotFoundError:  # where there are no locks, another process may have cleared it away: after it was done
        if not done(path):
            raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def read(path) -> dict:
    """One record. Raises ValueError when the file is not a whole record of this schema under its own name."""
    path = Path(path)
    try:
        return checked(json.loads(path.read_text()), path)
    except IsADirectoryError as error:
        raise ValueError(f"{path.name} is a folder") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged or foreign: {error}") from error


def checked(record: dict, path: Path) -> dict:
    from saidl.experiments import Run

    try:
        if record["schema"] != SCHEMA or record["id"] != path.stem or record["status"] not in ("done", "failed"):
            raise ValueError("it is not a record of this store")
        if record["status"] == "done":
            if not 0 <= record["test_accuracy"] <= 1:
                raise ValueError(f"its accuracy is {record['test_accuracy']}")
            if absent := [name for name in WHOLE if not record.get(name)]:
                raise ValueError(f"it lacks {', '.join(absent)}")
        if Run.from_dict(record["run"]).id != record["id"]:
            raise ValueError("its id is not its run's")
        row(record)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"it is not a record of this store: {error!r}") from error
    return record


def done(path: Path) -> bool:
    """Whether a whole, finished record is there."""
    try:
        return read(path)["status"] == "done"
    except (ValueError, FileNotFoundError):
        return False


@contextlib.contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a record's lock, so that one process at a time works on it; yields whether it is ours (always, if we wait).

    The system frees it when the process dies. Where a file system has no locks everybody gets in: work may then be done
    twice, to the same bits, and is still written whole.
    """
    name = lock_file(path)
    while True:
        handle = os.open(name, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            same = os.path.samestat(os.fstat(handle), os.stat(name))
        except BlockingIOError:
            os.close(handle)
            yield False
            return
        except FileNotFoundError:
            same = False
        except (ImportError, OSError):
            same = True
        except BaseException:
            os.close(handle)
            raise
        if same:
            break
        os.close(handle)  # who held it before us has removed the file: take the new one
    try:
        yield True
        with contextlib.suppress(OSError):  # only after a good end: what else is left of a run is found by its lock
            name.unlink()
    finally:
        os.close(handle)


def lock_file(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")


def orphaned(path: Path) -> bool:
    """Whether a process died or was interrupted at this run: its lock file is there and nobody holds it. True once, as the
    file is removed here; if the run was finished all the same, its checkpoint and half-written files go, too."""
    if not lock_file(path).exists():
        return False
    with lock(path) as ours:
        if ours and done(path):
            clear(path)
        return ours


def clear(path: Path) -> None:
    """Remove the checkpoint and the half-written files of a run; for the holder of its lock."""
    for left in path.parent.glob(f".{path.stem}.*"):
        if left.suffix in (".pt", ".part"):
            left.unlink(missing_ok=True)


def records(*stores, quarantine: bool = True) -> Iterator[dict]:
    """Every whole record of the stores, sorted by file; damaged ones are set aside (or left, for a folder that is not
    ours to change). Files that are not named after a run are nobody's business here."""
    for store in stores:
        for path in sorted(path for path in Path(store).expanduser().glob("*.json") if ID.fullmatch(path.stem)):
            try:
                yield read(path)
            except FileNotFoundError:  # another process has just set it aside
                continue
            except ValueError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
                if quarantine:
                    set_aside(path)


def set_aside(path: Path) -> None:
    """Move a damaged file into quarantine/, unless another process is at it or has just replaced it by a whole one."""
    with contextlib.suppress(OSError), lock(path) as ours:
        try:
            read(path)
        except ValueError:
            if ours:
                folder = path.parent / "quarantine"
                folder.mkdir(exist_ok=True)
                name = path.name if not (folder / path.name).exists() else f"{path.stem}.{secrets.token_hex(4)}.json"
                path.replace(folder / name)


def load(*stores, quarantine: bool = True):
    """All records of one or more stores as a DataFrame, a row a run; a run in several counts once, as in the last one that has it done.

    Columns: the run's fields, `epochs`, `status`, `error`, `test_accuracy` (last epoch) and `best_accuracy` (on the
    test set at the epoch best on validation) in [0, 1], `noise_rate` (share of labels really wrong), `memorised`,
    `resisted`, `half_rate` (test accuracy at half the sampling rate), `parameters`, `seconds`, `device`, and `record`, the
    whole record. Human noise has rate NaN.
    """
    import pandas as pd

    found = {}
    for record in records(*stores, quarantine=quarantine):
        if record["status"] == "done" or found.get(record["id"], record)["status"] != "done":
            found[record["id"]] = record
    table = pd.DataFrame([row(record) for record in found.values()], columns=COLUMNS)
    # None, where there is none, as NaN
    return table.astype({"rate": float, "train_size": "Int64", "best_accuracy": float})


def known(*profiles: str):
    """`load` of some profiles: the project's recorded runs and your own, which count where both have a run."""
    return load(*map(recorded, profiles), *map(own, profiles), quarantine=False)


RUN_FIELDS = (
    "profile", "task", "dataset", "train_size", "model", "loss", "noise", "rate", "exact", "noise_seed", "seed",
)  # fmt: skip
OPTIONS = ("model_options", "loss_options")
OUTCOMES = ("test_accuracy", "best_accuracy", "parameters", "seconds")
SHARES = ("memorised", "resisted", "half_rate")
COLUMNS = [
    "id", "status", "error", *RUN_FIELDS, *OPTIONS, "epochs", *OUTCOMES, "device", "noise_rate", *SHARES, "record",
]  # fmt: skip


def row(record: dict) -> dict:
    run, history = record["run"], record.get("history", {})
    return (
        {name: record.get(name) for name in ("id", "status", "error", "device")}
        | {name: run[name] for name in RUN_FIELDS}
        | {name: dict(map(tuple, run[name])) for name in OPTIONS}
        | {name: number(record.get(name)) for name in OUTCOMES}
        | {name: number((history.get(name) or [None])[-1]) for name in SHARES}
        | {
            "train_size": size(run["train_size"]),
            "rate": number(run["rate"]),
            "epochs": run["settings"]["epochs"],
            "noise_rate": number(record.get("noise", {}).get("rate")),
        }
        | {"record": record}
    )


def size(value):
    if value is not None and not (type(value) is int and 0 < value < 2**63):
        raise TypeError(f"{value!r} is no number of samples")
    return value


def number(value):
    if not isinstance(value, int | float | None):
        raise TypeError(f"{value!r} is no number")
    return math.nan if value is None else value
