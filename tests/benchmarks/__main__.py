"""`python -m tests.benchmarks [--quick] [--only NAME ...] [--save FILE]` or `--compare OLD NEW`."""

import argparse
import importlib
from pathlib import Path

from tests.benchmarks import harness

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))


def ceilings() -> list[dict]:
    """What this machine can do at best: a large matrix product and a large copy, to hold the rest against."""
    import torch

    out = []
    for dtype in (torch.float32, torch.bfloat16):
        a, n = torch.randn(2048, 2048).to(dtype), 2048
        row = harness.measure(f"matrix product 2048, {str(dtype)[6:]}", lambda a=a: a @ a)
        out.append(row | {"gflops": 2 * n**3 / row["ours_ms"] / 1e6})
    source = torch.empty(2**26)
    target = torch.empty_like(source)
    row = harness.measure("copy of 256 MiB", lambda: target.copy_(source))
    return [*out, row | {"gb_per_s": 2 * source.numel() * 4 / row["ours_ms"] / 1e6}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--save", default="runs/bench.json", help="where the rows go")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"))
    args = parser.parse_args()
    if args.compare:
        print(harness.difference(*map(harness.load, args.compare)))
        return
    rows = ceilings()
    print(harness.table(rows))
    for name in args.only:
        for row in importlib.import_module(f"tests.benchmarks.{name}").rows(args.quick):
            rows.append(row)
            print(harness.table([row]).splitlines()[-1], flush=True)
    Path(args.save).parent.mkdir(parents=True, exist_ok=True)
    harness.save(rows, args.save)
    missed = [row["name"] for row in rows if row.get("ratio", 1) < row.get("target", 0)]
    print(f"{len(rows)} rows in {args.save}; below their target: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
