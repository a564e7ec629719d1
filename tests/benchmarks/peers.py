"""`python -m tests.benchmarks.peers --repo PATH [--repo PATH ...] [--commit ID ...] [--quick] [--cpu-time] [--save FILE]`

Other people's code beside ours, from checkouts of your own: state-spaces/s4, SforAiDl/lrnnx and HanxunH/Active-Passive-Losses. What a
checkout is shows in its files. They are read where they lie and left as they are; nothing of theirs is installed, copied or needed by
anything else here. Parameters and inputs are copied over, both must compute the same numbers, then both are timed in turn, float32, on
the CPU. A row is the harness's, with `repository` and `commit`, and `differs` where the two are known not to agree.
"""

import argparse
import contextlib
import copy
import importlib
import importlib.util
import io
import json
import logging
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saidl import data, losses, models, noise, ssm, training
from tests.benchmarks import harness
from tests.benchmarks.bench_core import made_up_images, times
from tests.benchmarks.harness import agree, compare, machine, table, with_gradients

B, H, N = 16, 256, 64  # batch, channels, states (32 conjugate pairs)
CPU = torch.device("cpu")


# ------------------------------------------------------------------------------------------------------------------ checkouts


def identify(folder: Path) -> str:
    """Which repository a checkout is of. Raises ValueError for a folder that is none of those known."""
    for name, (files, _) in PEERS.items():
        if all((folder / file).is_file() for file in files):
            return name
    known = "; ".join(f"{name} ({', '.join(files)})" for name, (files, _) in PEERS.items())
    raise ValueError(f"--repo {folder} is no checkout of a known repository; known by their files are {known}")


def commit_of(folder: Path, given: list[str]) -> str:
    """The checkout's commit, "-dirty" behind it if its files were changed; without a .git of its own the next one `given`."""
    if (folder / ".git").exists():
        describe = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    if not given:
        raise ValueError(f"--repo {folder} has no .git: say with --commit which commit it is")
    return given.pop(0)


@contextlib.contextmanager
def modules(**stand_ins: types.ModuleType) -> Iterator[None]:
    """While it lasts, `import name` finds the stand-in ("." written "__"), and no bytecode is written into a checkout."""
    stand_ins = {name.replace("__", "."): module for name, module in stand_ins.items()}
    before, written = {name: sys.modules.get(name) for name in stand_ins}, sys.dont_write_bytecode
    sys.modules.update(stand_ins)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = written
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def load(file: Path, **stand_ins: types.ModuleType) -> types.ModuleType:
    """One file as a module of its own, told to stay on the CPU."""
    spec = importlib.util.spec_from_file_location(f"peer_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    with modules(**stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    if hasattr(module, "device"):
        module.device = CPU
    return module


def stand_in(name: str, **contents) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


# ------------------------------------------------------------------------------------------------------------ numbers and time


def backward(call: Callable[[], Tensor], parameters: list[Tensor], weights: Tensor) -> Callable[[], tuple]:
    """A call that runs `call()` and the backward pass of sum(weights * output): (output, gradients of the parameters...)."""

    def run():
        y = call()
        return y.detach(), *torch.autograd.grad(y, parameters, weights)

    return run


def error(results: tuple, exact: tuple) -> float:
    """The largest difference, each tensor's relative to its largest value."""
    pairs = zip(results, exact, strict=True)
    return max(((a.double() - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def against_exact(name: str, ours, theirs, exact: tuple, rtol: float, alike: Callable = tuple, **options) -> dict:
    """`compare`, where long powers in float32 leave a peer's own numbers too rough to check ours: `exact` is its code in float64.

    `alike` brings a peer's results to our signs and layout. How far each is from `exact` goes into the row.
    """
    exact = alike(exact)
    errors = {"error_ours": error(ours(), exact), "error_theirs": error(alike(theirs()), exact)}
    assert errors["error_ours"] <= rtol, f"{name}: ours is {errors['error_ours']:.2e} from their code in float64"
    assert errors["error_theirs"] <= 0.1, f"{name}: their float32 is {errors['error_theirs']:.2e} from their float64"
    return compare(name, ours, theirs, rtol=None, **options) | errors


def cpu_time(call: Callable) -> float:
    """What `harness.timed` is, by this process's own clock, which stands still while others have the CPU."""
    start = time.process_time()
    call()
    return time.process_time() - start


def assign(target: torch.nn.Module, **values: Tensor) -> None:
    """Copy values into parameters of the same number of elements."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = target.get_parameter(name)
            parameter.copy_(value.reshape(parameter.shape))


def conj(pairs: Tensor) -> Tensor:
    """The complex conjugate of (..., 2) pairs."""
    return pairs * torch.tensor([1, -1], dtype=pairs.dtype)


# ------------------------------------------------------------------------------------------------------------- state-spaces/s4


def s4_rows(folder: Path, repeats: int) -> Iterator[dict]:
    # s4d.py asks src.models.nn for its dropout alone; that package would bring in more, so it gets their dropout.py in its place
    dropout = load(folder / "src/models/nn/dropout.py")
    s4d = load(
        folder / "models/s4/s4d.py", src=stand_in("src"), src__models=stand_in("models"), src__models__nn=dropout
    )
    # s4.py asks Lightning for a decorator that keeps log lines to one process; there is one process
    once = stand_in("utilities", rank_zero_only=lambda function: function)
    lightning = stand_in("pytorch_lightning", utilities=once)
    s4 = load(folder / "models/s4/s4.py", pytorch_lightning=lightning, pytorch_lightning__utilities=once)
    for L in (1024, 4096):
        yield s4d_kernel_row(s4d, L, repeats)
    for L in (1024, 4096):
        kernel = s4.SSMKernelDPLR(d_model=H, d_state=N, l_max=L, backend="naive", verbose=False)
        ours = ssm.S4(H, N)
        copy_system(ours, kernel)
        yield dplr_row(f"S4 kernel, s4's SSMKernelDPLR, L {L}", ours, kernel, list(kernel.parameters()), L, repeats)
    yield s4d_layer_row(s4d, 1024, repeats)
    for mode in ("diag", "dplr"):
        yield fft_conv_row(s4, mode, 1024, repeats)


def s4d_kernel_row(s4d, L: int, repeats: int) -> dict:
    theirs, ours = s4d.S4DKernel(H, N), ssm.S4D(H, N, init="lin")
    names = ("log_dt", "log_A_real", "A_imag", "C")
    assign(ours, **{name: theirs.get_parameter(name) for name in names})
    weights = torch.randn(H, L)
    run = lambda module, call, w: backward(call, [module.get_parameter(name) for name in names], w)  # noqa: E731
    exact = copy.deepcopy(theirs).double()
    return against_exact(
        f"diagonal kernel, s4's S4DKernel, L {L}",
        run(ours, lambda: ours.kernel(L), weights),
        run(theirs, lambda: theirs(L), weights),
        run(exact, lambda: exact(L), weights.double())(),
        rtol=1e-4,
        repeats=repeats,
    )


def s4d_layer_row(s4d, L: int, repeats: int) -> dict:
    """System, GELU, linear to 2H, GLU: each in the layout it is written for, theirs (B, H, L), ours (B, L, H)."""
    theirs, ours = s4d.S4D(H, N), models.SequenceBlock(ssm.S4D(H, N, init="lin"), H)
    pairs = {f"mixer.{name}": f"kernel.{name}" for name in ("log_dt", "log_A_real", "A_imag", "C")}
    pairs |= {"mixer.D": "D", "mix.weight": "output_linear.0.weight", "mix.bias": "output_linear.0.bias"}
    assign(ours, **{a: theirs.get_parameter(b) for a, b in pairs.items()})
    u, w = torch.randn(2, B, L, H)
    call = lambda u: F.glu(ours.mix(F.gelu(ours.mixer(u))), dim=-1)  # noqa: E731

    def run(module, names, call, u, w):
        u = u.clone().requires_grad_()
        return backward(lambda: call(u), [u, *map(module.get_parameter, names)], w)

    exact, swapped = copy.deepcopy(theirs).double(), (u.mT.contiguous(), w.mT.contiguous())
    return against_exact(
        f"S4D layer, s4's S4D, B {B}, L {L}",
        run(ours, pairs, call, u, w),
        run(theirs, pairs.values(), lambda u: theirs(u)[0], *swapped),
        run(exact, pairs.values(), lambda u: exact(u)[0], *(x.double() for x in swapped))(),
        rtol=1e-4,
        alike=lambda r: (r[0].mT, r[1].mT, *r[2:7], r[7].squeeze(-1), r[8]),
        target=3,
        repeats=repeats,
    )


def copy_system(ours: ssm.S4 | ssm.S4D, theirs: torch.nn.Module, C: Tensor | None = None) -> None:
    """From a kernel of s4.py, or what else has its parameters: it keeps the mode of each pair that we leave out, Im A < 0."""
    values = {"log_dt": theirs.inv_dt, "log_A_real": theirs.A_real, "A_imag": theirs.A_imag}
    values |= {"B": conj(theirs.B), "C": conj(theirs.C)} | ({"P": conj(theirs.P)} if isinstance(ours, ssm.S4) else {})
    assign(ours, **values)


def dplr_row(name: str, ours: ssm.S4, kernel, parameters: list[Tensor], L: int, repeats: int) -> dict:
    """`kernel` must not have run yet: its first call puts C (I - Ab^L) in the place of C, `ours` has C."""
    exact, weights = copy.deepcopy(kernel).double(), torch.randn(H, L)
    with torch.no_grad():
        reference = exact(L=L)[0][0]
        kernel(L=L)
        errors = {"error_ours": ours.kernel(L), "error_theirs": kernel(L=L)[0][0]}
    errors = {key: error((K,), (reference,)) for key, K in errors.items()}
    assert errors["error_ours"] <= 1e-3, f"{name}: ours is {errors['error_ours']:.2e} from their code in float64"
    ours_run = backward(lambda: ours.kernel(L), [p for n, p in ours.named_parameters() if n != "D"], weights)
    theirs_run = backward(lambda: kernel(L=L)[0][0], parameters, weights)
    differs = "theirs trains C (I - Ab^L), which belongs to one length, ours C: kernels are compared, not gradients"
    return compare(name, ours_run, theirs_run, rtol=None, repeats=repeats) | errors | {"differs": differs}


def fft_conv_row(s4, mode: str, L: int, repeats: int) -> dict:
    """The bare system without activation, y = K * u + D u, from input to gradients."""
    options = {"init": "diag-lin"} if mode == "diag" else {}
    theirs = s4.FFTConv(H, l_max=L, activation=None, mode=mode, d_state=N, backend="naive", verbose=False, **options)
    ours = ssm.S4D(H, N, init="lin", train_B=True) if mode == "diag" else ssm.S4(H, N)
    copy_system(ours, theirs.kernel)
    assign(ours, D=theirs.D)
    exact = copy.deepcopy(theirs).double()
    u, w = torch.randn(2, B, L, H)
    uT, wT = u.mT.contiguous(), w.mT.contiguous()
    with torch.no_grad():
        reference = exact(uT.double())[0].mT
        errors = {
            "error_ours": error((ours(u),), (reference,)),
            "error_theirs": error((theirs(uT)[0].mT,), (reference,)),
        }
    name = f"{'S4D' if mode == 'diag' else 'S4'} system, s4's FFTConv, B {B}, L {L}"
    assert errors["error_ours"] <= 1e-3, f"{name}: ours is {errors['error_ours']:.2e} from their code in float64"
    u, uT = u.requires_grad_(), uT.requires_grad_()
    ours_run = backward(lambda: ours(u), [u, *ours.parameters()], w)
    theirs_run = backward(lambda: theirs(uT)[0], [uT, *theirs.parameters()], wT)
    agree(name, ours_run()[1], theirs_run()[1].mT, 1e-2)  # the input's gradient needs no change of parameters
    return compare(name, ours_run, theirs_run, rtol=None, repeats=repeats) | errors


# ---------------------------------------------------------------------------------------------------------------------- lrnnx


def lrnnx_rows(folder: Path, repeats: int) -> Iterator[dict]:
    """Its S4D and S4 systems. Its layers apply GELU twice and no GLU (final_act is not used): the whole layer is not compared."""
    if not torch.backends.opt_einsum.is_available():
        raise ModuleNotFoundError("No module named 'opt_einsum'")
    # the package as a whole asks for two extensions compiled for a GPU, scans that its S4 and S4D do not use
    scans = {name: stand_in(name) for name in ("selective_scan_cuda", "simplified_scan_cuda")}
    sys.path.insert(0, str(folder))
    try:
        with modules(**scans):
            theirs = importlib.import_module("lrnnx.models.lti")
    finally:
        sys.path.remove(str(folder))
    for L in (1024, 4096):
        layer, ours = theirs.S4D(H, d_state=N, l_max=L, init="diag-lin", verbose=False), ssm.S4D(H, N, train_B=True)
        copy_system(ours, layer)
        exact, w = copy.deepcopy(layer).double(), torch.randn(H, L)
        names = ("inv_dt", "A_real", "A_imag", "B", "C")
        run = lambda m, w, L=L: backward(lambda: m.layer.kernel(L=L)[0][0], [getattr(m, n) for n in names], w)  # noqa: E731, B023
        our_names = ("log_dt", "log_A_real", "A_imag", "B", "C")
        yield against_exact(
            f"diagonal kernel, lrnnx's S4D, L {L}",
            backward(partial(ours.kernel, L), [getattr(ours, n) for n in our_names], w),
            run(layer, w),
            run(exact, w.double())(),
            rtol=1e-4,
            alike=lambda r: (r[0], r[1][:, 0], *r[2:4], conj(r[4][0]), conj(r[5][0])),
            repeats=repeats,
        )
    for L in (1024, 4096):
        layer, ours = theirs.S4(H, d_state=N, l_max=L, verbose=False), ssm.S4(H, N)
        copy_system(ours, layer)
        parameters = list(layer.layer.kernel.parameters())
        yield dplr_row(f"S4 kernel, lrnnx's S4, L {L}", ours, layer.layer.kernel, parameters, L, repeats)


# ------------------------------------------------------------------------------------------------------ Active-Passive-Losses


# mlconfig builds objects from YAML; all it does in these files is to note classes down
REGISTER = {"mlconfig": stand_in("mlconfig", register=lambda cls: cls)}


def apl_code(folder: Path) -> tuple[types.ModuleType, ...]:
    """Its losses, data sets, networks and trainer."""
    loss, dataset, network = (load(folder / f"{name}.py", **REGISTER) for name in ("loss", "dataset", "models"))
    trainer = load(folder / "trainer.py", util=load(folder / "util.py"))
    trainer.accuracy = accuracy
    return loss, dataset, network, trainer


def apl_rows(folder: Path, repeats: int) -> Iterator[dict]:
    loss, dataset, network, trainer = apl_code(folder)
    yield from loss_rows(loss, repeats)
    yield from noise_rows(dataset, repeats)
    yield step_row(loss, network, trainer, repeats)
    yield epoch_row(loss, dataset, network, trainer, min(repeats, 5))


def loss_rows(loss, repeats: int) -> Iterator[dict]:
    for rows, K in ((128, 10), (4096, 1000)):
        z, y, one = torch.randn(rows, K) * 3, torch.randint(K, (rows,)), torch.tensor(1.0)
        focal, both = {"gamma": 0.5}, {"alpha": 1.0, "beta": 1.0}
        theirs = {
            "nce": loss.NormalizedCrossEntropy(num_classes=K),
            "nfl": loss.NormalizedFocalLoss(num_classes=K, **focal),
            "mae": loss.MeanAbsoluteError(num_classes=K),
            "rce": loss.ReverseCrossEntropy(num_classes=K),
            "nce+rce": loss.NCEandRCE(num_classes=K, **both),
            "nfl+mae": loss.NFLandMAE(num_classes=K, **both, **focal),
        }
        inner = 1 if rows > 1000 else 20  # a single small call is shorter than the clock is sharp
        for name, criterion in theirs.items():
            ours = with_gradients(partial(losses.make(name, K), target=y), [z], one)
            peer = with_gradients(lambda z, f=criterion, y=y: f(z, y), [z], one)
            title, facts = f"loss {name} ({rows}, {K}), APL's", {}
            if "nfl" not in name:
                agree(title, ours(), peer(), 1e-4)
            else:
                agree(title, ours()[0], peer()[0], 1e-5)
                facts["differs"] = "theirs leaves (1 - p)^gamma out of the gradient, as ours does with detached=True"
                facts["gradient_difference"] = error(ours()[1:], tuple(g.double() for g in peer()[1:]))
                detached = with_gradients(partial(losses.make(name, K, detached=True), target=y), [z], one)
                agree(title, detached(), peer(), 1e-4)
                same = f"loss {name}, detached ({rows}, {K}), APL's"
                yield compare(same, times(detached, inner), times(peer, inner), repeats=repeats, rtol=1e-4)
            yield compare(title, times(ours, inner), times(peer, inner), repeats=repeats, rtol=None, **facts)


@contextlib.contextmanager
def instead_of_cifar10(images: np.ndarray, labels: np.ndarray):
    """Their data sets read CIFAR-10's files in torchvision's constructor: made-up images and labels in its place, and no printing."""

    def constructor(self, root, train=True, transform=None, target_transform=None, download=False):
        self.data, self.targets = images, labels.tolist()
        self.transform, self.target_transform = transform, target_transform

    from torchvision import datasets

    with mock.patch.object(datasets.CIFAR10, "__init__", constructor), contextlib.redirect_stdout(io.StringIO()):
        yield


def noise_rows(dataset, repeats: int) -> Iterator[dict]:
    """50,000 labels of ten classes. The draws differ: what is compared is what both fix."""
    labels = np.repeat(np.arange(10), 5000)
    images = np.zeros((len(labels), 0), np.uint8)

    def theirs(asym):
        with instead_of_cifar10(images, labels):
            return np.array(dataset.cifar10Nosiy("", nosiy_rate=0.4, asym=asym).targets)

    per_class = lambda noisy: torch.from_numpy(np.bincount(labels[noisy != labels], minlength=10))  # noqa: E731
    counts = lambda noisy: torch.from_numpy(np.bincount(noisy, minlength=10))  # noqa: E731
    ours = lambda kind: noise.corrupt(labels, kind, 0.4, seed=0).labels  # noqa: E731
    compared = "flips in every class, exactly", "size of every class afterwards, exactly"
    for (kind, asym), count, what in zip(
        (("symmetric", False), ("asymmetric-sequential", True)), (per_class, counts), compared, strict=True
    ):
        yield compare(
            f"{kind} noise, 50,000 labels, APL's",
            lambda kind=kind, count=count: count(ours(kind)),
            lambda asym=asym, count=count: count(theirs(asym)),
            rtol=0,
            repeats=min(repeats, 5),
            compared=what,
        )
    T = noise.transition_matrix("pair-flip", 0.4)
    rng = np.random.default_rng(0)
    realised = lambda noisy: torch.from_numpy(noise.estimate_transition(labels, noisy, 10))  # noqa: E731
    with older_numpy(dataset):
        yield compare(
            "i.i.d. noise from T, 50,000 labels, APL's",
            lambda: realised(
                noise.corrupt(labels, "own", None, matrix=T, exact=False, seed=int(rng.integers(2**31))).labels
            ),
            lambda: realised(dataset.multiclass_noisify(labels, T, random_state=rng.integers(2**31))),
            rtol=0.1,  # of the largest entry, 0.6: more than six standard deviations of a share of 5,000 draws
            repeats=min(repeats, 5),
            compared="the realised transition matrix, to sampling error",
        )


@contextlib.contextmanager
def older_numpy(dataset) -> Iterator[None]:
    """While it lasts, `dataset` may put an array of one entry where a number belongs, as it does with what `where` finds: NumPy 2.4
    refuses that."""
    changed = types.SimpleNamespace(**{name: getattr(np, name) for name in np.__all__})
    changed.where = lambda condition: [found.squeeze() for found in np.where(condition)]
    with mock.patch.object(dataset, "np", changed):
        yield


def our_fit(images: np.ndarray, labels: np.ndarray, **settings) -> training.Fit:
    pictures = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    part = data.Images(pictures, torch.from_numpy(labels), tuple("0123456789"), "bench")
    settings = training.Settings(valid_fraction=0.0, **settings)
    return training.Fit(models.make("cnn8"), part, part, losses.make("nce+rce"), settings, 0, None, CPU)


def their_trainer(loader, trainer):
    config = types.SimpleNamespace(log_frequency=100, grad_bound=5.0)
    return trainer.Trainer(loader, logging.getLogger("peer"), config)


def accuracy(logits: Tensor, target: Tensor, topk: tuple[int, ...]) -> list[Tensor]:
    """In place of their util.accuracy, which takes a `view` that torch has refused since 1.7."""
    hits = logits.topk(max(topk)).indices == target.unsqueeze(1)  # (B, k)
    return [hits[:, :k].any(1).float().mean() for k in topk]


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)


def step_row(loss, network, trainer, repeats: int) -> dict:
    """One step of the 8-layer CNN on 128 images that are in memory, NCE+RCE: float32, from the same parameters."""
    images, labels = made_up_images(128)
    fit, model = our_fit(images, labels, precision="float32"), network.ToyModel()
    start = [p.detach().clone() for p in fit.model.parameters()]
    assign_all(model, start)
    pictures, y = fit.train
    x = ((training.view(fit.settings, pictures) - fit.mean) * fit.std.reciprocal()).contiguous()
    criterion, optimizer, loop = loss.NCEandRCE(1.0, 1.0, 10), sgd(model), their_trainer(None, trainer)

    def moved(model):
        pairs = zip(model.parameters(), start, strict=True)
        return torch.cat([(p.detach() - q).flatten() for p, q in pairs])

    def ours():
        fit.train_epoch()  # 128 images are one batch, shuffled
        return moved(fit.model)

    def theirs():
        loop.train_batch(x, y, model, criterion, optimizer)
        return moved(model)

    def gradients(model, criterion):
        model = copy.deepcopy(model).double().train()
        dL = torch.autograd.grad(criterion(model(x.double()), y), model.parameters())
        return torch.cat([g.flatten() for g in dL])

    name = "CNN8 training step, batch 128, APL's"
    agree(f"{name}, float64", gradients(fit.model, fit.loss), gradients(model.train(), criterion), 1e-6)
    # in float32 batch norm multiplies rounding: one order of the same sums against another
    return compare(name, ours, theirs, rtol=0.1, repeats=repeats, precision="float32")


def assign_all(model: torch.nn.Module, values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def epoch_row(loss, dataset, network, trainer, repeats: int) -> dict:
    """An epoch of 640 images with random crops and flips, their transforms and DataLoader (in this process) against our gather."""
    images, labels = made_up_images(640)
    with instead_of_cifar10(images, labels), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their loader pins memory, also where there is no GPU
        loader = dataset.DatasetGenerator(num_of_workers=0, noise_rate=0.0).getDataLoader()["train_dataset"]
    loader.pin_memory = False
    fit, model = our_fit(images, labels, augment="crop-flip"), network.ToyModel()
    criterion, optimizer, loop = loss.NCEandRCE(1.0, 1.0, 10), sgd(model), their_trainer(loader, trainer)
    row = compare(
        "CNN8 epoch of 640 images, APL's",
        fit.train_epoch,
        lambda: loop.train(0, 1, model, optimizer, criterion),
        rtol=None,
        repeats=repeats,
        differs=f"other draws of crops; ours multiplies in {fit.precision}, theirs in float32",
    )
    return row | {"precision": fit.precision}


# -------------------------------------------------------------------------------------------------------------------- command

PEERS = {
    "state-spaces/s4": (("models/s4/s4d.py", "models/s4/s4.py", "src/models/nn/dropout.py"), s4_rows),
    "SforAiDl/lrnnx": (("lrnnx/models/lti/s4d.py", "lrnnx/models/lti/s4.py"), lrnnx_rows),
    "HanxunH/Active-Passive-Losses": (("loss.py", "dataset.py", "models.py", "trainer.py", "util.py"), apl_rows),
}


def kept(path: Path, names: list[str]) -> tuple[list[dict], dict]:
    """The rows and reasons saved before for other repositories than `names`."""
    before = json.loads(path.read_text()) if path.exists() else {"rows": [], "left_out": {}}
    rows = [row for row in before["rows"] if row["repository"] not in names]
    return rows, {where: reasons for where, reasons in before["left_out"].items() if where.split()[0] not in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, action="append", required=True, metavar="PATH", help="a checkout")
    parser.add_argument(
        "--commit", action="append", default=[], metavar="ID", help="for each --repo without .git, in order"
    )
    parser.add_argument("--quick", action="store_true", help="three repeats")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU time in place of wall time: where others compute, too"
    )
    parser.add_argument(
        "--save", type=Path, default=Path("runs/peers.json"), help="where the rows go; those of other repositories stay"
    )
    args = parser.parse_args()
    try:
        checkouts = [(folder.resolve(), identify(folder), commit_of(folder, args.commit)) for folder in args.repo]
    except ValueError as problem:
        parser.error(str(problem))
    if args.cpu_time:
        harness.timed = cpu_time
    clock = f"CPU time of {torch.get_num_threads()} threads" if args.cpu_time else "wall time"
    rows, left_out, about = *kept(args.save, [name for _, name, _ in checkouts]), machine()
    print(table([]))
    for folder, name, commit in checkouts:
        print(f"{name} {commit}")
        torch.manual_seed(0)
        try:
            for row in PEERS[name][1](folder, 3 if args.quick else 9):
                rows.append(row | {"repository": name, "commit": commit, "clock": clock})
                print(table([row]).splitlines()[-1], flush=True)
        except ImportError as missing:
            left_out[f"{name} {commit}"] = [f"it cannot be imported here: {missing}"]
            print(f"not measured: {missing}")
        args.save.parent.mkdir(parents=True, exist_ok=True)  # after each checkout: the next may take long
        args.save.write_text(json.dumps({"machine": about, "rows": rows, "left_out": left_out}, indent=1) + "\n")
    missed = [row["name"] for row in rows if row["ratio"] < row.get("target", 0)]
    print(f"{len(rows)} rows in {args.save}; below their target: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
