"""The command line: `saidl data | run | sweep | report`. Imports wait until a command needs them, so that `--help` is quick."""

import argparse
import contextlib
import os
import signal
import sys
from functools import cache

PROFILES = ("smoke", "quick", "laptop", "paper")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Expected errors (bad input, no file, no network) are one line, not a traceback."""
    args = parser().parse_args(argv)
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(
            signal.SIGTERM, interrupted
        )  # `timeout`, Slurm and systemd send it; unheard, the workers would go on
    try:
        status = args.command(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"saidl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("saidl: stopped; no finished run is lost, and the same command goes on", file=sys.stderr)
        return 130


def interrupted(*_):
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="saidl", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="load a data set (downloading it if need be) and describe it")
    data.add_argument("name", help="digits, mnist, fashion-mnist, cifar10, cifar100, spoken-digits, or an image folder")
    data.add_argument("--root", help="folder of official files (default: SAIDL_DATA, ./data, ../data, ~/.cache/saidl)")
    data.set_defaults(command=show_data)

    one = commands.add_parser("run", help="train one configuration and print its result")
    choices(one, several=False)
    one.set_defaults(command=run)

    what = "run or continue a grid; without a choice, the profile's whole queue, with --task alone that task's part"
    sweep = commands.add_parser("sweep", help=what)
    choices(sweep, several=True)
    sweep.add_argument("--jobs", type=int, help="runs at once (default: one a core, on a GPU two; -1: one a core)")
    sweep.add_argument("--dry-run", action="store_true", help="list what would run, with an estimate of the time")
    sweep.add_argument("--backend", help="a joblib backend: dask or ray (default: processes on this machine)")
    sweep.add_argument("--address", help="the cluster's scheduler, tcp://host:port")
    sweep.set_defaults(command=run_sweep)

    what = "make figures, tables and the PDF from the recorded results"
    report = commands.add_parser("report", help=what, description=what)
    report.add_argument("--no-latex", action="store_true", help="stop after figures, tables and numbers")
    report.add_argument("--store", action="append", help="a folder of results (default: the recorded, then your own)")
    report.add_argument("--publish", action="store_true", help="recorded runs alone, the PDF to saidl-report.pdf too")
    report.add_argument("--packages", action="store_true", help="print the Debian packages that typesetting needs")
    report.set_defaults(command=make_report)
    return top


def choices(command: argparse.ArgumentParser, several: bool) -> None:
    many = {"nargs": "+"} if several else {}
    command.add_argument("--profile", choices=PROFILES, help="size of the runs (default: SAIDL_PROFILE, else quick)")
    tasks = "mnist-noise, cifar100-noise, digits-sequence, scifar, lra-image, smnist, pmnist, speech"
    command.add_argument("--task", help=f"noise (default), {tasks}")
    command.add_argument("--loss", **many, help="ce, nce+rce, ...")
    command.add_argument("--noise", **many, help="symmetric, asymmetric, human-worst, ...")
    command.add_argument("--rate", type=float, **many, help="in [0, 1]; 0 unless named")
    command.add_argument("--model", **many, help="the recipe's unless named: s4d, s4, lstm, gru, transformer, ...")
    command.add_argument("--seed", type=int, **many)
    command.add_argument("--epochs", type=int, help="instead of the recipe's")
    command.add_argument("--store", help="folder of results (default: runs/<profile>)")


def chosen(args) -> list:
    from saidl import experiments

    names = ("task", "loss", "noise", "rate", "model", "seed", "epochs")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if given.keys() <= {"task"}:
        queued = [run for run in experiments.queue(args.profile) if args.task in (None, run.task)]
        if queued:
            return queued
    if "rate" not in given and not {*experiments.listed(given.get("noise", []))} <= {*experiments.HUMAN}:
        raise ValueError("--noise needs a --rate, but for people's labels")
    return experiments.grid(args.profile, **given)


def show_data(args) -> int:
    from saidl import data

    for name, part in data.load(args.name, root=args.root)._asdict().items():
        shape = "x".join(map(str, part.images.shape[1:]))
        print(f"{name:5}  {len(part):6} samples  {shape}  {len(part.classes)} classes  sha256 {part.fingerprint[:16]}")
    return 0


def run(args) -> int:
    from saidl import experiments, results, sweep

    args.loss = args.loss or "ce"
    (wanted,) = chosen(args)
    table = sweep.run([wanted], args.store or results.own(experiments.current_profile(args.profile)))
    print(described(table.iloc[0]))
    return 0


def run_sweep(args) -> int:
    from saidl import experiments, results, sweep

    runs, store = chosen(args), args.store or results.own(experiments.current_profile(args.profile))
    jobs = sweep.cores(experiments.current_profile(args.profile)) if args.jobs is None else args.jobs
    if args.dry_run:
        own = results.load(store, quarantine=False)
        known = results.load(*map(results.recorded, PROFILES), store, quarantine=False)
        print(estimate(runs, own, known, jobs))
        return 0
    for _, row in sweep.run(runs, store, n_jobs=jobs, backend=args.backend, address=args.address).iterrows():
        print(described(row))
    return 0


def described(row) -> str:
    return f"{row.id}  {named(row)}  test {row.test_accuracy:6.2%}  {row.seconds:7.1f} s"


def estimate(runs, own, known, jobs: int) -> str:
    """One line a run, and the hours that are left judging by your runs and the recorded ones."""
    from saidl import sweep

    done = set(own[own.status == "done"].id)
    timing, lines, left = timings(known), [], []
    names = [named(run) for run in runs]
    for run, name in zip(runs, names, strict=True):
        seconds = None if run.id in done else expected(run, timing)
        left += [] if run.id in done else [seconds]
        state = "done" if run.id in done else "not timed yet" if seconds is None else f"about {seconds:.0f} s"
        lines.append(f"{run.id}  {name}  {state}" + (f"  ({told_apart(run)})" if names.count(name) > 1 else ""))
    workers, unknown = jobs if jobs > 0 else sweep.cores(), left.count(None)
    hours = sum(filter(None, left)) / workers / 3600
    rest = f", and {unknown} of a kind not timed yet" if unknown else ""
    where = "on a machine like the one that was timed, " if left else ""
    total = f"{len(runs)} runs, {len(left)} to do: {where}about {hours:.1f} hours with {workers} at once{rest}"
    return "\n".join([*lines, total])


def named(run) -> str:
    rate = "" if run.rate is None or run.rate != run.rate else f"{run.rate:g}"
    return f"{run.task:15} {run.model:11} {run.loss:12} {run.noise:22} {rate:4} seed {run.seed}"


def told_apart(run) -> str:
    """What runs of one name can differ in: the options of network and loss, how the noise was drawn, settings unlike the recipe's."""
    from saidl import experiments

    usual = vars(experiments.recipe(run.profile, run.task)[-1])
    changed = [(name, value) for name, value in vars(run.settings).items() if value != usual[name]]
    told = [*run.model_options, *run.loss_options, *([("exact", run.exact)] if run.rate else []), *changed]
    return ", ".join(f"{name} {value}" for name, value in told) or "the recipe"


FULL_SIZES = {
    "digits": 1297, "mnist": 60000, "fashion-mnist": 60000, "cifar10": 50000, "cifar100": 50000, "spoken-digits": 2700,
}  # fmt: skip


def timings(table) -> dict:
    """Median seconds per epoch, training sample and parameter: {(model, data set): seconds}."""
    runs = table[table.status == "done"]
    work = runs.epochs * runs.parameters * [record["data"]["train"] for record in runs.record]
    return (runs.seconds / work).astype(float).groupby([runs.model, runs.dataset]).median().to_dict()


def expected(run, timing: dict) -> float | None:
    """Seconds for a run: work grows about as epochs, samples and parameters do. None for a network nobody timed on these data."""
    seconds = timing.get((run.model, run.dataset))
    if seconds is None:
        return None
    size = run.train_size or FULL_SIZES.get(run.dataset, 5000)
    return seconds * run.settings.epochs * size * parameters(run.model, run.model_options, run.task)


@cache
def parameters(model: str, options: tuple, task: str) -> int:
    from saidl import experiments, sweep

    channels = experiments.CHANNELS.get(task, 1)
    return sum(p.numel() for p in sweep.network(model, options, channels, 10).parameters())


def make_report(args) -> int:
    """The report's code lies beside its chapters in the checkout and is no part of the package."""
    from saidl import results

    checkout = results.project()
    if not (checkout / "report" / "__init__.py").is_file():
        raise ValueError(f"the report is made in the project's checkout, which {checkout} is not part of")
    sys.path.insert(0, str(checkout))
    import report

    if args.packages:
        print(*report.LATEX_PACKAGES)
    else:
        report.build(args.store, latex=not args.no_latex, publish=args.publish)
    return 0


if __name__ == "__main__":
    sys.exit(main())
