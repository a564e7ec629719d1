"""What is run: a `Run` says everything that decides a result; `grid` makes many of them from a profile's recipe.

    >>> runs = grid("smoke", loss=["ce", "nce+rce"], noise=["symmetric"], rate=[0.0, 0.4])
    >>> len(runs), runs[0].loss, runs[0].settings.epochs
    (4, 'ce', 2)

This is the only module that knows a recipe. A profile is one code path at one of four sizes; a task is a data set and the way it is shown.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from itertools import product

from saidl import losses, models
from saidl.checks import between, one_of, whole
from saidl.noise import HUMAN, KINDS, MOVES, check_exact
from saidl.training import Settings

PROFILES = ("smoke", "quick", "laptop", "paper")
PAPER_LOSSES = ("ce", "fl", "nce", "nfl", "nce+mae", "nce+rce", "nfl+mae", "nfl+rce")
FRACTIONS = ("dropout", "alpha", "dt_min", "dt_max")  # the options of networks that are no whole numbers
Options = tuple[tuple[str, object], ...]  # keyword arguments in a hashable, ordered form


@dataclass(frozen=True)
class Run:
    """One training run. Equal runs have equal ids; nothing that does not change the result (time, folder, machine) is part of it."""

    profile: str
    task: str
    dataset: str
    train_size: int | None
    model: str
    loss: str
    noise: str = "symmetric"
    rate: float | None = 0.0  # None for human noise, which has its own
    exact: bool | str = True  # how the noise is drawn, see `noise.corrupt`
    noise_seed: int = 0
    seed: int = 0
    model_options: Options = ()
    loss_options: Options = ()
    settings: Settings = field(default_factory=Settings)
    transition: tuple[tuple[float, ...], ...] | None = None  # a T of your own, of which noise and rate are the name

    def __post_init__(self):
        """Numbers as JSON gives them back, a fraction as a float: 1, 1.0 and NumPy's 1 are equal, and so must be what is hashed."""
        loss = {k: as_fraction(v) for k, v in as_options(self.loss_options)}
        model = {k: as_fraction(v) if k in FRACTIONS else v for k, v in as_options(self.model_options)}
        own = {"rate": as_fraction(self.rate), "loss_options": as_options(loss), "model_options": as_options(model)}
        own |= {name: plain(getattr(self, name)) for name in ("train_size", "exact", "noise_seed", "seed")}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def id(self) -> str:
        """Hash of all that differs from the defaults, so that a field added later leaves the ids of recorded runs alone."""
        return hashlib.sha256(json.dumps(beyond_defaults(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict) -> "Run":
        """The inverse of `to_dict`, from JSON."""
        rows = values.get("transition")
        own = {"transition": None if rows is None else tuple(map(tuple, rows))}
        return cls(**values | own | {"settings": Settings(**values["settings"])})

    def to_dict(self) -> dict:
        """`dataclasses.asdict`, without a transition matrix where there is none: records older than the field look alike."""
        return {k: v for k, v in asdict(self).items() if k != "transition" or v is not None}


def beyond_defaults(value) -> dict:
    defaults = {f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(value)}
    told = {name: getattr(value, name) for name, default in defaults.items() if getattr(value, name) != default}
    return told | {name: beyond_defaults(v) for name, v in told.items() if is_dataclass(v)}


def as_options(values) -> Options:
    pairs = values.items() if isinstance(values, dict) else values
    return tuple((k, plain(v)) for k, v in sorted(pairs))


def plain(value):
    """NumPy's numbers as Python's, lists as tuples."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def as_fraction(value):
    value = plain(value)
    return float(value) if type(value) is int else value


# ------------------------------------------------------------------------------------------------------------------ recipes

DIGITS = Settings(epochs=40, batch_size=64, lr=0.02, precision="float32")  # the layers are too small for bf16 to pay
CIFAR = Settings(augment="crop-flip")  # Ma et al. 2020
MNIST = Settings(epochs=50, nesterov=True, weight_decay=1e-2, lr_min=1e-3, valid_fraction=0.0)  # their released configs
CIFAR100 = Settings(epochs=200, lr=0.1, weight_decay=1e-5, augment="crop-flip", valid_fraction=0.0)
# state-spaces/s4's example
S4D = Settings(epochs=100, batch_size=64, optimizer="adamw", lr=0.01, weight_decay=0.01, clip=0)
# S4's 0.01 is usual for S4 alone; these are commonly trained well below it
BASELINES, BASELINE_LR = ("lstm", "gru", "transformer"), 0.002
# a network of the papers' size at laptop, on all images: an epoch takes up to half an hour on one core, so two of them
WHOLE_TASKS = ("scifar", "lra-image", "smnist", "pmnist")
WHOLE = {"epochs": 2, "batch_size": 64, "eval_every": 1}
REAL_TASKS = (*WHOLE_TASKS, "speech")
# attention over 8,192 steps takes one core twenty-five minutes an epoch, several times what ten of S4D's take; a second head, twice that
ATTENTION = ("laptop", "speech", "transformer")

# (profile, task): data set, training size, model, its options, settings. "noise" is the default task.
RECIPES = {
    ("smoke", "noise"): ("digits", 300, "small-cnn", {"channels": (8, 16)}, replace(DIGITS, epochs=2)),
    ("quick", "noise"): ("digits", None, "small-cnn", {}, DIGITS),
    # 5,000 images and 60 epochs, not more images and fewer epochs: cross-entropy must have time to memorise (notebook 03 shows the curve)
    ("laptop", "noise"): ("cifar10", 5000, "cnn8", {"channels": (32, 64, 96)}, replace(CIFAR, epochs=60, eval_every=5)),
    ("paper", "noise"): ("cifar10", None, "cnn8", {}, replace(CIFAR, valid_fraction=0.0)),
    ("paper", "mnist-noise"): ("mnist", None, "cnn4", {}, MNIST),
    ("paper", "cifar100-noise"): ("cifar100", None, "resnet34", {"num_classes": 100}, CIFAR100),
}
SEQUENCES = {  # task: data set, view
    "digits-sequence": ("digits", "sequence"),
    "smnist": ("mnist", "sequence"),
    "pmnist": ("mnist", "sequence-permuted"),
    "scifar": ("cifar10", "sequence"),
    "lra-image": ("cifar10", "sequence-gray"),
    "speech": ("spoken-digits", "sequence"),
    "delayed-recall": ("delayed-recall", "sequence"),
    "adding": ("adding", "sequence"),
}
CHANNELS = {"scifar": 3, "delayed-recall": 8, "adding": 2}  # of a sequence; of the other tasks 1
SMALL = {"d_model": 16, "n_layers": 2, "dropout": 0.0}
MEDIUM = {"d_model": 32, "n_layers": 2, "dropout": 0.1}
QUICK_NET = {"d_model": 64, "n_layers": 3, "dropout": 0.1}
SSM = {"d_model": 128, "n_layers": 4, "dropout": 0.1}
# What two cores manage, and what a test in seconds needs; the paper profile has all data and the papers' sizes.
SEQUENCE_RECIPES = {
    ("laptop", "scifar"): (2500, MEDIUM, {"epochs": 6, "eval_every": 6, "batch_size": 25}),
    ("laptop", "lra-image"): (2500, MEDIUM, {"epochs": 6, "eval_every": 6, "batch_size": 25}),
    ("laptop", "smnist"): (None, SMALL, {"epochs": 1}),
    ("laptop", "pmnist"): (None, SMALL, {"epochs": 1}),
    ("laptop", "speech"): (None, SMALL, {"epochs": 10, "eval_every": 5, "batch_size": 25}),
    "laptop": (2000, MEDIUM, {"epochs": 5}),
    "smoke": (300, SMALL, {"epochs": 1, "batch_size": 50, "precision": "float32"}),
    "quick": (None, QUICK_NET, {"epochs": 25, "batch_size": 50, "precision": "float32"}),
    "paper": (None, SSM, {}),
}


def recipe(profile: str, task: str) -> tuple[str, int | None, str, dict, Settings]:
    """Data set, training size, model, its options and settings of a task at a profile."""
    if not isinstance(task, str):
        raise ValueError(f"task must be a name, not {task!r}")
    if (profile, task) in RECIPES:
        return RECIPES[profile, task]
    if elsewhere := [p for p, t in RECIPES if t == task]:
        raise ValueError(f"profile must be {' or '.join(elsewhere)} for task {task!r}, not {profile!r}")
    one_of("task", task, [*(t for p, t in RECIPES if p == profile), *SEQUENCES])
    dataset, view = SEQUENCES[task]
    size, options, changes = SEQUENCE_RECIPES.get((profile, task)) or SEQUENCE_RECIPES[profile]
    size = None if task in ("delayed-recall", "adding") and profile != "smoke" else size
    return dataset, size, "s4d", options, replace(S4D, view=view, **changes)


def current_profile(profile: str | None = None) -> str:
    """The profile asked for, else SAIDL_PROFILE, else "quick". Raises ValueError for an unknown one."""
    profile = profile or os.environ.get("SAIDL_PROFILE") or "quick"
    one_of("profile", profile, PROFILES)
    return profile


def grid(
    profile: str | None = None, *, task: str = "noise", loss="ce", noise="symmetric", rate=0.0, seed=0,
    model=None, model_options=None, loss_options: dict | None = None, exact: bool | str | None = None, **settings,
) -> list[Run]:  # fmt: skip
    """Every combination of the losses, models, model_options, noises, rates and seeds, each one value or a list, in a profile's recipe.

    Arguments: profile (default: SAIDL_PROFILE or "quick"); task, "noise", "mnist-noise", "cifar100-noise" or one of SEQUENCES; loss names;
        noise kinds; rates in [0, 1] (one clean run stands for all kinds at rate 0; human kinds have no rate); seeds, used for the noise
        draw and for training alike, as in the papers; model, names of `models.make`; model_options, a dict or a list of dicts, on top of
        the recipe's if it is the recipe's network or both are for sequences (the papers' size at laptop: two epochs on all images, see
        WHOLE); loss_options, the loss's settings on top of the published ones, as `losses.make` takes them; exact, how the noise is
        drawn, see `noise.corrupt` (None: as in the recipe); settings, fields of `training.Settings`.
    Returns: runs without duplicates, in the order given: losses vary slowest, seeds fastest.
    Raises ValueError for any unknown name or value, or a model that is not for what the task shows (but model_options are looked at by
        `sweep.run`, before it runs anything).
    """
    profile = current_profile(profile)
    if not isinstance(loss_options, dict | None) or not all(isinstance(name, str) for name in loss_options or ()):
        raise ValueError(f"loss_options must be a dict of settings by name, not {loss_options!r}")
    recipe(profile, task)  # an unknown task is an error though there be nothing to combine
    choices = map(listed, (loss, model or None, model_options or {}, noise, rate, seed))
    return distinct([one(profile, task, *choice, exact, loss_options or {}, settings) for choice in product(*choices)])


def one(profile, task, loss, net, extra, kind, rate, seed, exact, own_hyper, changes) -> Run:
    """A run of a profile's recipe for a task; the rest as for `grid`, one value each."""
    dataset, size, usual, options, base = recipe(profile, task)
    net, seed = net or usual, whole("seed", seed)
    kind, rate = checked_noise(kind, rate, dataset)
    loss = losses.resolve(loss)
    hyper, penalty = losses.recipe(loss, LOSS_FAMILY.get(dataset, dataset), kind)
    hyper |= own_hyper
    losses.make(loss, **hyper)  # an unknown setting is an error now
    options = network_options(net, usual, options, extra)
    large = profile == "laptop" and task in WHOLE_TASKS and options.items() >= SSM.items()
    settings = changed(base, departures(profile, task, net, penalty, large) | changes)
    check_shown(net, settings.view, task)
    # the noise is drawn with a seed of its own, far from training's, so that the two never share random numbers
    return Run(
        profile, task, dataset, None if large else size, net, loss, kind, rate, draw(task, kind, rate, exact),
        noise_seed=1000 + seed, seed=seed, model_options=as_options(options), loss_options=as_options(hyper), settings=settings,
    )  # fmt: skip


LOSS_FAMILY = {"fashion-mnist": "mnist"}  # whose published weights a data set takes


def network_options(net: str, usual: str, options: dict, extra: dict) -> dict:
    """`extra`, on top of the recipe's options where these are of the same network or both are for sequences."""
    if not isinstance(extra, dict):
        raise ValueError(f"model_options must be a dict or a list of dicts, not {extra!r}")
    shared = net == usual or (net in models.LAYERS and usual in models.LAYERS)
    return options | extra if shared else extra


def departures(profile: str, task: str, net: str, penalty: float, large: bool) -> dict:
    """Where a run's settings leave its task's recipe; of two reasons the later counts."""
    reasons = (
        (penalty, {"l1": penalty, "weight_decay": 0.0}),
        (net in BASELINES, {"lr": BASELINE_LR}),
        (task == "speech" and net in ("s4d", "s4"), {"half_rate": True}),
        ((profile, task, net) == ATTENTION, {"epochs": 1, "eval_every": 1}),
        (large, WHOLE),
    )
    return {name: value for applies, settings in reasons if applies for name, value in settings.items()}


def draw(task: str, kind: str, rate: float | None, exact) -> bool | str:
    """How the noise is drawn, see `noise.corrupt`: on MNIST, symmetric, as Ma et al.'s code does (CIFAR's classes are equal anyway)."""
    if exact is None:
        exact = "equal-counts" if task == "mnist-noise" and kind == "symmetric" else True
    check_exact(exact, kind)
    return True if rate == 0 else exact


def check_shown(model: str, view: str, task: str) -> None:
    shown, fit = ("images", tuple(models.IMAGE_MODELS)) if view == "image" else ("sequences", models.LAYERS)
    if model not in fit:
        raise ValueError(f"model must be one of {', '.join(fit)} for {task}, which shows {shown}, not {model!r}")


def checked_noise(kind: str, rate, dataset: str) -> tuple[str, float | None]:
    """Kind and rate as a run has them: human noise without a rate, and no noise as symmetric noise of rate 0."""
    one_of("noise", kind, KINDS)
    if kind not in HUMAN:
        rate = between("rate", rate, 0, 1)
        if rate and kind.startswith("asymmetric"):
            one_of(f"the dataset of {kind} noise", dataset, MOVES)
        return kind if rate else "symmetric", rate
    if dataset != "cifar10":
        raise ValueError(f"{kind} noise is CIFAR-10's, not {dataset}'s")
    return kind, None


def changed(base: Settings, changes: dict) -> Settings:
    for name in changes:
        one_of("setting", name, [f.name for f in fields(Settings)])
    return replace(base, **changes)


def listed(value) -> list:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | dict) else [value]


CORE = ("ce", "nce+rce", "nfl+mae", "nfl+rce", "nce+mae", "fl", "gce", "sce", "nce", "nfl", "mae")
NEWER = ("nce+agce", "anl-ce", "eps-ce+mae", "jal-ce")
SYMMETRIC, ASYMMETRIC = (0.0, 0.2, 0.4, 0.6, 0.8), (0.1, 0.2, 0.3, 0.4)


def noise_grid(profile: str | None = None, seed=0) -> list[Run]:
    """The mission's grid: clean, symmetric 0.2-0.8 and asymmetric 0.1-0.4, of one seed or several."""
    kinds = (("symmetric", SYMMETRIC), ("asymmetric", ASYMMETRIC))
    return distinct(*(grid(profile, loss=PAPER_LOSSES, noise=kind, rate=rates, seed=seed) for kind, rates in kinds))


def queue(profile: str | None = None) -> list[Run]:
    """All that a profile has to run, what matters most first."""
    profile = current_profile(profile)
    if profile in ("smoke", "quick"):
        return distinct(noise_grid(profile), grid(profile, task="digits-sequence"), matched(profile, "digits-sequence"))
    if profile == "laptop":
        first = ("ce", "nce+rce", "nce", "fl", "nce+mae", "nfl+rce")
        hard = (("symmetric", 0.4), ("symmetric", 0.8), ("asymmetric", 0.4))
        return distinct(
            *(grid(profile, loss=first, noise=kind, rate=rate) for kind, rate in hard),
            *sequence_queue(profile),
            *(grid(profile, loss=NEWER, noise=kind, rate=rate) for kind, rate in hard),
            grid(profile, loss=("ce", "nce+rce"), noise="human-worst"),
            *(noise_grid(profile, seed) for seed in (0, 1)),
            more_images(),
        )
    return distinct(
        *(
            grid(profile, loss=loss, noise=kind, rate=rates, seed=seed)
            for seeds in ((0,), (1, 2))
            for loss in CORE
            for kind, rates in (("symmetric", SYMMETRIC), ("asymmetric-sequential", ASYMMETRIC))
            for seed in seeds
        ),
        *sequence_queue(profile),
        grid(profile, loss=NEWER, noise="symmetric", rate=SYMMETRIC, seed=(0, 1, 2)),
        grid(profile, loss=NEWER, noise="asymmetric-sequential", rate=ASYMMETRIC, seed=(0, 1, 2)),
        grid(profile, loss=(*CORE, *NEWER), noise="asymmetric", rate=ASYMMETRIC, seed=(0, 1, 2)),
        grid(profile, loss=(*CORE, *NEWER), noise=HUMAN, seed=(0, 1, 2)),
        *mnist_queue(profile),
    )


def more_images(size: int = 20_000) -> list[Run]:
    """Asymmetric 0.4 at laptop's recipe but for the number of CIFAR-10's images: does the order of the losses hang on it?"""
    runs = grid("laptop", loss=("ce", "nce+rce"), noise="asymmetric", rate=0.4)
    return [replace(run, train_size=size) for run in runs]


def mnist_queue(profile: str) -> list[list[Run]]:
    """The published tables' cells, most telling first, then what differs from their recipe by one thing."""
    first = ("ce", "mae", "nce+rce", "nfl+mae")
    some = (("symmetric", SYMMETRIC[1:]), ("asymmetric", (0.2, 0.4)))
    rest = (("asymmetric", (0.1, 0.3)), ("symmetric", SYMMETRIC[:1]))
    out = [
        grid(profile, task="mnist-noise", loss=names, noise=kind, rate=rates)
        for cells in (some, rest)
        for names in (first, [name for name in (*CORE, "rce") if name not in (*first, "nfl")])
        for kind, rates in cells
    ]
    # where the first epoch may lose a class for good, one seed says little
    out.append(grid(profile, task="mnist-noise", loss=first, noise="asymmetric", rate=ASYMMETRIC[-1], seed=(0, 1, 2)))
    hardest = {"task": "mnist-noise", "noise": "symmetric", "rate": SYMMETRIC[-1]}
    # what the draw does where a class is small: the same share of every class instead of as many labels
    out.append(grid(profile, loss=first, exact=True, **hardest))
    # and what the pairs do at the weights of the authors' earlier scripts, which pass none
    equal = {"loss": first[2:], "loss_options": {"alpha": 1.0, "beta": 1.0}}
    out.append(grid(profile, **hardest, **equal))
    # focal loss is published far above ours under asymmetric noise alone: would another gamma do that?
    focal = grid(profile, task="mnist-noise", loss="fl", noise="asymmetric", rate=(0.2, 0.4))
    out += [[replace(run, loss_options=(("gamma", gamma),)) for run in focal] for gamma in (2.0, 5.0)]
    # with those scripts' momentum and seeds, too: the earlier of the two tables that they stored (notebook 11)
    seeded = {"task": "mnist-noise", "noise": "asymmetric", "rate": ASYMMETRIC[-1], "seed": (0, 123, 515)}
    out += [grid(profile, **cells, **equal, nesterov=False) for cells in (seeded, hardest)]
    return out


def sequence_queue(profile: str) -> list[list[Run]]:
    """S4D under two discretisations, S4, LSTM and Transformer of equal size on the real sequence tasks; at laptop also more seeds of the
    two discretisations on CIFAR-10, and S4D at the papers' size on all images for two epochs."""
    out = []
    for task in REAL_TASKS:
        s4d = [{"init": "lin", "method": method} for method in ("zoh", "bilinear")]
        seeds = (0, 1, 2) if profile == "laptop" and task in ("scifar", "lra-image") else 0
        out.append(grid(profile, task=task, model="s4d", model_options=s4d, seed=seeds))
        out.append(grid(profile, task=task, model="s4"))
        out += [matched(profile, task, [layer]) for layer in ("lstm", "transformer")]
        if profile == "laptop" and task in WHOLE_TASKS:
            out.append(grid(profile, task=task, model="s4d", model_options=SSM | s4d[0]))
    return out


def matched(profile: str, task: str, layers=("s4", "lstm", "transformer"), seed=0) -> list[Run]:
    """Sequence layers in a task's recipe, each as wide as brings it nearest to S4D's number of parameters."""
    options, channels, runs = recipe(profile, task)[3], CHANNELS.get(task, 1), []
    for layer in layers:
        own = {"d_model": models.matched_width(layer, options, d_input=channels)}
        own |= {"heads": 1 if (profile, task, layer) == ATTENTION else 2} if layer == "transformer" else {}
        runs += grid(profile, task=task, model=layer, model_options=own, seed=seed)
    return runs


def distinct(*grids: list[Run]) -> list[Run]:
    return list({run.id: run for runs in grids for run in runs}.values())
