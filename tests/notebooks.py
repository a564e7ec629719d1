"""Execute notebooks: `python -m tests.notebooks [--inplace] [--recorded] NOTEBOOK ...`.

Each runs top to bottom in a fresh kernel, in its own folder, at the profile in SAIDL_PROFILE. With --inplace the outputs are kept in the
file, less what changes without meaning (execution times, progress bars, widget state, random names, addresses). With --recorded they
find the project's recorded runs where their own would be, so that they show those.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from saidl import results


def execute(path: Path, inplace: bool) -> str | None:
    """Run one notebook; returns the error's text, or None."""
    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # silences debugpy's warning about frozen modules
    where = {"metadata": {"path": str(path.parent)}}
    quiet = ["--log-level=ERROR"]  # each kernel would warn that it is reached over TCP, which stays on this machine
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where, extra_arguments=quiet)
    try:
        client.execute()
    except CellExecutionError as error:
        return str(error)
    if inplace:
        clean(notebook)
        nbformat.write(notebook, path)
    return None


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
    for path in args.notebooks:
        start = time.perf_counter()
        error = execute(path.resolve(), args.inplace)
        failures += error is not None
        print(f"{path.name:36} {time.perf_counter() - start:6.1f} s  {'FAILED' if error else 'ok'}", flush=True)
        if error:
            print(error)
    print(f"{len(args.notebooks) - failures} passed, {failures} failed in {time.perf_counter() - began:.0f} s")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
