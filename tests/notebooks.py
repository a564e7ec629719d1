"""Execute notebooks: `python -m tests.notebooks [--inplace] [--recorded] NOTEBOOK ...`.

Each runs top to bottom in a fresh kernel, in its own folder, at the profile in SAIDL_PROFILE: two at a time, as the one's sweep fills the
processors while the other draws, and each on one thread, as the threads of two would wait for one another. Those with a cell tagged
"timed", which shows how long something takes, come last, one by one, on all threads. With --inplace the outputs are kept in the file, less
what changes without meaning (execution times, progress bars, widget state, random names, addresses). With --recorded they find the
project's recorded runs where their own would be, so that they show those.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from saidl import results


def executed(paths: list[Path], inplace: bool) -> Iterator[tuple[Path, str | None, float]]:
    """What `execute` says of each, as they end."""
    timed = [path for path in paths if is_timed(path)]
    untimed = [path for path in paths if path not in timed]
    for together, jobs, env in ((untimed, 2, {"OMP_NUM_THREADS": "1"}), (timed, 1, {})):
        with ProcessPoolExecutor(jobs) as pool:
            try:
                for done in as_completed([pool.submit(execute, path, inplace, env) for path in together]):
                    yield done.result()
            except BaseException:  # ctrl-C: what has not begun need not
                pool.shutdown(cancel_futures=True)
                raise


def is_timed(path: Path) -> bool:
    return any("timed" in cell.metadata.get("tags", ()) for cell in nbformat.read(path, as_version=4).cells)


def execute(path: Path, inplace: bool, env: dict[str, str]) -> tuple[Path, str | None, float]:
    """Run one notebook; returns its path, the error's text or None, and the seconds it took."""
    began = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # silences debugpy's warning about frozen modules
    where = {"metadata": {"path": str(path.parent)}}
    quiet = ["--log-level=ERROR"]  # each kernel would warn that it is reached over TCP, which stays on this machine
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where, extra_arguments=quiet)
    try:
        client.execute(env=os.environ | env)
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:  # the last: a kernel that dies
        return path, str(error), time.perf_counter() - began
    if inplace:
        clean(notebook)
        nbformat.write(notebook, path)
    return path, None, time.perf_counter() - began


def clean(notebook) -> None:
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and not is_widget(o)]
            for i, output in enumerate(cell.outputs):
                for kind, text in output.get("data", {}).items():
                    if kind == "text/html":  # pandas names a styled table anew each time
                        output.data[kind] = re.sub(r"\bT_[0-9a-f]{5}(?=[_\W])", f"T_{cell.id}_{i}", text)
                    elif kind == "text/plain":
                        output.data[kind] = re.sub(r" at 0x[0-9a-f]+", "", text)


def is_widget(output) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inplace", action="store_true")
    parser.add_argument("--recorded", action="store_true")
    parser.add_argument("notebooks", nargs="*", type=Path)
    args = parser.parse_args()
    if args.recorded:
        store = tempfile.TemporaryDirectory()
        shutil.copytree(results.recorded("quick").parent, store.name, dirs_exist_ok=True)
        os.environ["SAIDL_STORE"] = store.name
    failures, began = 0, time.perf_counter()
    for path, error, seconds in executed([path.resolve() for path in args.notebooks], args.inplace):
        failures += error is not None
        print(f"{path.name:36} {seconds:6.1f} s  {'FAILED' if error else 'ok'}", flush=True)
        if error:
            print(error)
    print(f"{len(args.notebooks) - failures} passed, {failures} failed in {time.perf_counter() - began:.0f} s")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
