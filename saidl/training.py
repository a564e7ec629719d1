"""One fit loop for images and sequences.

The data set sits on the device as one tensor; a batch is an index lookup, augmentation is a gather. An epoch's random choices are
drawn and sent before it, its losses and hits are summed on the device and read after it: in between nothing waits for the device, and a
GPU repeats the step as one recording (`cuda_graph`). Randomness comes from the seed passed in, so the same call on the same
CPU with the same number of threads gives the same bits, also when it was interrupted and resumed from its checkpoint.
"""

import contextlib
import copy
import hashlib
import math
import os
import re
import secrets
import time
import types
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saidl import cuda_graph, data, models
from saidl.checks import between, flag, form, one_of, whole
from saidl.data import Images
from saidl.losses import RobustLoss, at_least_single

VIEWS = ("image", "sequence", "sequence-gray", "sequence-permuted")
SAVE_EVERY = 20  # seconds between checkpoints


@dataclass(frozen=True)
class Settings:
    """How to train. The defaults are Ma et al. 2020's for CIFAR-10."""

    epochs: int = 120
    batch_size: int = 128
    optimizer: str = "sgd"  # or "adamw"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    l1: float = 0.0  # penalty on the sum of |weights|; ANL and JAL use it in place of weight decay, their codes on biases and norms too
    lr_min: float = 0.0  # where the cosine ends
    warmup: int = 0  # epochs of linear warm-up
    clip: float = 5.0  # gradient norm; 0: off
    augment: str = "none"  # or "crop-flip"
    view: str = "image"  # one of VIEWS: what the network is shown
    valid_fraction: float = 0.1  # held out of the (noisy) training data for model selection; 0 as in the papers
    eval_every: int = 1  # epochs between evaluations on the test set (the last epoch always is)
    precision: str = "auto"  # "float32", "bfloat16", or bfloat16 where the hardware multiplies it
    compile: bool = False
    half_rate: bool = False  # after training, test on every second step of the sequences too (state-space layers)

    def __post_init__(self):
        own = {}  # equal settings are alike to the type, as their JSON is hashed
        for name, least in {"epochs": 1, "batch_size": 2, "eval_every": 1, "warmup": 0}.items():
            own[name] = whole(name, getattr(self, name), least)
        for name in ("lr", "weight_decay", "l1", "lr_min", "clip"):
            own[name] = between(name, getattr(self, name), 0, math.inf, below=True)
        for name in ("momentum", "valid_fraction"):
            own[name] = between(name, getattr(self, name), 0, 1, below=True)
        own["clip"] = own["clip"] or 0  # as it stands in the recorded runs
        for name, value in own.items():
            object.__setattr__(self, name, value)
        for name in ("nesterov", "compile", "half_rate"):
            flag(name, getattr(self, name))
        one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        one_of("augment", self.augment, ("none", "crop-flip"))
        one_of("view", self.view, VIEWS)
        one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        if self.augment == "crop-flip" and self.view != "image":
            raise ValueError("crop-flip augmentation is for images, not sequences")
        if self.warmup > self.epochs:
            raise ValueError(f"warmup must be at most epochs = {self.epochs}, not {self.warmup}")
        if self.half_rate and self.view == "image":
            raise ValueError("half_rate is for sequences, not images")


@dataclass
class History:
    """What `fit` saw, a list entry an epoch (shares in [0, 1]; NaN where an epoch was not evaluated), and the last epoch's confusion
    matrix.

    `memorised` and `resisted` are taken over the training samples whose label was flipped: the share predicted as the wrong label given,
    and the share predicted as the true class all the same. They need `clean_labels`.
    """

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)  # on the labels given, during training
    memorised: list[float] = field(default_factory=list)
    resisted: list[float] = field(default_factory=list)
    valid_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    class_accuracy: list[list[float]] = field(default_factory=list)  # (epochs, K) on the test set
    seconds: list[float] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)  # (K, K), row: true class, column: predicted
    half_rate: list[float] = field(default_factory=list)  # test accuracy at half the sampling rate: one value or none

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the highest validation accuracy (the first of equals), or None without a validation split."""
        seen = [(v, -e) for e, v in enumerate(self.valid_accuracy) if v == v]
        return -max(seen)[1] if seen else None


def fit(
    model: nn.Module, train: Images, test: Images, loss: nn.Module, settings: Settings, *, seed: int,
    clean_labels=None, device: str | torch.device | None = None, checkpoint: str | Path | None = None,
    progress: bool | str = False,
) -> History:  # fmt: skip
    """Train `model` in place and say how it went; it comes back to the device that it was on.

    Arguments: train, with the labels to learn from; test, with the true ones; loss, a module of `saidl.losses` or any (logits, labels) ->
        scalar; seed in [0, 2^63), of shuffling, augmentation, dropout and the validation split; clean_labels (N,), the true training
        labels, for memorisation; device (default: a GPU if there is one); checkpoint, a file written after an epoch at most every 20
        seconds and continued from if it is of the same experiment, with its weights, not the model's (yours to remove, once the result is
        safe); progress, True or a label for the bar.
    Returns: History. The network has seen images standardised by the training set's statistics: `logits` shows it others alike. Images are
        laid out channels last where the network takes them so, which is faster; its weights stay in that layout.
    Raises ValueError, before any training, for an empty set or labels outside its classes, for sets or a network that do not fit one
        another, a `reduction` other than "mean", a loss with weights of its own, a GPU or a checkpoint's folder that is not there; and for
        a loss that is no scalar or stopped being finite.
    """
    check_arguments(model, train, test, loss, settings, checkpoint)
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device).cpu()
    except (RuntimeError, TypeError, AssertionError, ImportError) as error:  # by torch's build; no GPU is one of them
        raise ValueError(f"device must be one of torch's that is here, not {str(device)!r}: {error}") from error
    seed = whole("seed", seed)
    between("seed", seed, 0, 2**63 - 1)  # torch's range
    if clean_labels is not None:
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # what is no array is named below
            clean_labels = torch.as_tensor(clean_labels)
    check_data(train, test, clean_labels)
    on_gpu, home = device.type == "cuda", next((p.device for p in model.parameters()), device)
    with (
        torch.cuda.device(device) if on_gpu else contextlib.nullcontext(),
        torch.random.fork_rng([device] if on_gpu else []),
    ):
        torch.manual_seed(seed)
        one = Fit(model, train, test, loss, settings, seed, clean_labels, device)
        try:
            return one.run(checkpoint, progress)
        finally:
            model.to(home)  # where the caller's own tensors are
            one.advance = None  # it holds `one`: the data and the recording would stay until Python looks for cycles


class Fit:
    """One training run: everything that lives from one epoch to the next."""

    def __init__(self, model, train, test, loss, settings, seed, clean_labels, device):
        self.settings, self.device, self.loss, self.seed = settings, device, loss, seed
        self.given = train, test, clean_labels
        self.generator = torch.Generator().manual_seed(seed)
        self.precision = chosen_precision(settings, device)
        self.recorded = cuda_graph.wanted(device) and not settings.compile and isinstance(loss, RobustLoss)
        self.history, self.num_classes = History(), len(train.classes)
        self.take_network(model)
        self.take_data(train, test, clean_labels)
        self.optimizer = self.make_optimizer()
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        if self.recorded:  # a number would be part of the recording
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)
        self.advance = cuda_graph.Replayed(self.step, self.changes) if self.recorded else self.step

    def take_network(self, model: nn.Module) -> None:
        """The network on the device, laid out channels last where it takes images so."""
        fits = self.settings.view == "image" and all(p.ndim < 5 for p in model.parameters())  # torch lays out no others
        self.layout = torch.channels_last if fits else torch.contiguous_format
        self.model = self.forward = model.to(self.device, memory_format=self.layout)
        self.parameters = list(self.model.parameters())
        # what the L1 penalty is on: as decay, not on a state-space model's A, B and dt
        decaying = models.parameter_groups(self.model, self.settings.lr, 0.0)[0]["params"]
        self.weights = [p for p in decaying if p.ndim > 1] if self.settings.l1 else []

    def take_data(self, train: Images, test: Images, clean_labels: Tensor | None) -> None:
        """The sets on the device, some of the training set held out; the statistics are of all of it."""
        settings, device = self.settings, self.device
        held_out = round(settings.valid_fraction * len(train))
        if held_out == len(train):
            raise ValueError(
                f"valid_fraction {settings.valid_fraction} leaves none of {len(train)} samples to train on"
            )
        order = torch.randperm(len(train), generator=self.generator)
        valid, kept = order[:held_out].sort().values, order[held_out:].sort().values
        shown, channel = map(partial(view, settings), train.images.split(4096)), 1 if settings.view == "image" else 2
        self.mean, self.std = (t.to(device) for t in statistics(shown, channel))
        self.train, self.valid, self.test = (
            (part.images.to(device), part.labels.to(device)) for part in (train.select(kept), train.select(valid), test)
        )
        self.clean = None if clean_labels is None else clean_labels[kept].to(device)
        self.canvas = data.padded(self.train[0]) if settings.augment == "crop-flip" else None
        self.order = None
        if settings.view == "sequence-permuted":
            one, other = (tuple(part.images.shape[2:]) for part in (train, test))
            if one != other:
                raise ValueError(f"train and test must have one size to be permuted alike, not {one} and {other}")
            self.order = data.permutation(train.images[0, 0].numel()).to(device)
        wide = torch.float32 if device.type == "mps" else torch.float64  # all that there is
        self.sums = torch.zeros(4, device=device, dtype=wide)  # loss, hits, memorised, resisted

    def make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups = models.parameter_groups(self.model, settings.lr, settings.weight_decay)
        fused = all(p.is_floating_point() for p in self.parameters)  # there is no kernel for complex ones
        if settings.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused)
        # on a CPU the fused kernel rounds in another way than the records were made; SGD's does not
        return torch.optim.AdamW(groups, capturable=self.recorded, fused=fused and self.recorded)

    @torch.no_grad()  # not inference mode: weights laid out anew in it could not be trained
    def try_out(self) -> None:
        """Two samples through the untrained network: what it cannot take is better known before the first epoch than after the last."""
        self.model.eval()
        few = self.test[0][:2]
        if self.layout == torch.channels_last:
            try:
                self.predict(few)
            except RuntimeError:  # x.view(len(x), -1), say: it gets its images as they are stored, at a slower pace
                self.layout = torch.contiguous_format
                self.model.to(memory_format=self.layout)
        for every in (1, 2) if self.settings.half_rate else (1,):
            try:
                logits = self.predict(few, every)
            except (RuntimeError, TypeError) as error:  # of a size, or a `rate` it has no argument for
                what = f"images of shape {tuple(few.shape[1:])}" + " at half the sampling rate" * (every == 2)
                raise ValueError(f"the network does not take {what}: {error}") from error
            if not isinstance(logits, Tensor) or logits.shape != (len(few), self.num_classes):
                told = f"{self.num_classes} classes, ({len(few)}, {self.num_classes}) in all, not {form(logits)}"
                raise ValueError(f"the network must have an output for each of {told}")

    # ---------------------------------------------------------------------------------------------------------- the loop

    def run(self, checkpoint, progress) -> History:
        self.try_out()
        if self.settings.compile:
            self.forward = torch.compile(self.model)
        saved = time.monotonic()
        start = self.resume(checkpoint)
        nan = math.nan
        skipped = {"valid_accuracy": nan, "test_accuracy": nan, "class_accuracy": [nan] * self.num_classes}
        bar = tqdm(range(start, self.settings.epochs), initial=start, total=self.settings.epochs, disable=not progress, leave=False,
                   desc=progress if isinstance(progress, str) else None)  # fmt: skip
        for epoch in bar:
            began = time.perf_counter()
            self.set_lr(epoch)
            row = self.train_epoch()
            if not math.isfinite(row["loss"]):
                raise ValueError(f"the loss is {row['loss']} after epoch {epoch + 1}: training diverged")
            last = epoch + 1 == self.settings.epochs
            due = last or (epoch + 1) % self.settings.eval_every == 0
            row |= self.evaluate_epoch(last) if due else skipped
            row["seconds"] = time.perf_counter() - began
            for name, value in row.items():
                getattr(self.history, name).append(value)
            bar.set_postfix(loss=f"{row['loss']:.3f}", test=f"{row['test_accuracy']:.1%}")
            if checkpoint and not last and time.monotonic() - saved > SAVE_EVERY:
                self.save(checkpoint, epoch + 1)
                saved = time.monotonic()
        return self.history

    def set_lr(self, epoch: int) -> None:
        """Cosine to lr_min, stepped per epoch as the papers do; a linear warm-up before it."""
        s = self.settings
        if epoch < s.warmup:
            share, floor = (epoch + 1) / (s.warmup + 1), 0.0
        else:
            share = (1 + math.cos(math.pi * (epoch - s.warmup) / (s.epochs - s.warmup))) / 2
            floor = s.lr_min / s.lr if s.lr else 0.0
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            lr = peak * (floor + (1 - floor) * share)
            group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr

    def train_epoch(self) -> dict:
        self.forward.train()
        self.sums.zero_()
        for batch in self.drawn():
            self.advance(*batch)
        labels = self.train[1]
        flips = (labels != self.clean).sum().item() if self.clean is not None else 0
        total, hits, memorised, resisted = self.sums.tolist()
        return {
            "loss": total / len(labels), "train_accuracy": hits / len(labels),
            "memorised": memorised / flips if flips else math.nan, "resisted": resisted / flips if flips else math.nan,
        }  # fmt: skip

    def drawn(self) -> Iterator[tuple[Tensor, ...]]:
        """An epoch's batches as `step` takes them, drawn and sent to the device at once."""
        batches = data.batches(len(self.train[1]), self.settings.batch_size, self.generator)
        sizes = [len(index) for index in batches]
        drawn = [torch.cat(batches)]
        if self.settings.augment == "crop-flip":
            drawn.append(torch.cat([data.draw_crops(size, self.generator) for size in sizes], 1))
        return zip(*(x.to(self.device).split(sizes, -1) for x in drawn), strict=True)

    def step(self, index: Tensor, crops: Tensor | None = None) -> None:
        """One batch: index (B,) into the training set, crops (3, B) if it is augmented. Nothing here waits for the device."""
        images, labels = self.train
        given = labels[index]
        logits = self.predict(images[index] if crops is None else data.crop_flip(self.canvas, index, crops))
        value = self.loss(at_least_single(logits), given)  # a loss of one's own stands outside autocast
        if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
            raise ValueError(f"the loss must be a scalar tensor with a gradient, not {form(value)}")
        penalised = value + self.settings.l1 * sum(p.abs().sum() for p in self.weights) if self.weights else value
        self.optimizer.zero_grad(set_to_none=True)
        penalised.backward()
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        self.optimizer.step()
        with torch.no_grad():
            guess = logits.argmax(1)
            self.sums[0] += value.detach() * len(index)
            self.sums[1] += (guess == given).sum()
            if self.clean is not None:
                flipped = given != self.clean[index]
                self.sums[2] += (flipped & (guess == given)).sum()
                self.sums[3] += (flipped & (guess == self.clean[index])).sum()

    def changes(self) -> list[list[Tensor]]:
        """What a step changes, by kind: weights; what else the network holds; the optimiser's state; the sums."""
        weights, kinds = [group["params"] for group in self.optimizer.param_groups], {}
        for x in self.model.buffers():
            kinds.setdefault(x.is_floating_point(), []).append(x)
        for of in self.optimizer.state.values():
            for name, x in of.items():
                kinds.setdefault(name, []).extend([x] if isinstance(x, Tensor) else [])
        return [*weights, *kinds.values(), [self.sums]]

    def evaluate_epoch(self, last: bool) -> dict:
        images, labels = self.test
        guess, classes = self.guesses(images), self.num_classes
        table = torch.bincount(labels * classes + guess, minlength=classes * classes).view(classes, classes)  # (K, K)
        if last:
            self.history.confusion = table.tolist()
            if self.settings.half_rate:
                self.history.half_rate = [self.accuracy(images, labels, every=2)]
        return {
            "valid_accuracy": self.accuracy(*self.valid) if len(self.valid[1]) else math.nan,
            "test_accuracy": table.trace().item() / len(labels),
            "class_accuracy": (table.diagonal() / table.sum(1)).tolist(),  # NaN for a class without test images
        }

    def accuracy(self, images: Tensor, labels: Tensor, every: int = 1) -> float:
        return (self.guesses(images, every) == labels).sum().item() / len(labels)

    @torch.inference_mode()
    def guesses(self, images: Tensor, every: int = 1) -> Tensor:
        self.forward.eval()
        return torch.cat([self.predict(part, every).argmax(1) for part in images.split(at_once(self.settings))])

    # ---------------------------------------------------------------------------------------------------------- the input

    def predict(self, images: Tensor, every: int = 1) -> Tensor:
        """Raw images (B, C, H, W) -> logits (B, K), standardised with the training set's statistics per channel.

        every: of a sequence, show each `every`th step, and tell the network that its steps are that much longer.
        """
        x = (view(self.settings, images) - self.mean) * self.std.reciprocal()
        x = x if self.order is None else x[:, self.order]
        x = x.contiguous(memory_format=self.layout) if self.settings.view == "image" else x
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.forward(x) if every == 1 else self.forward(x[:, ::every], rate=float(every))

    # ----------------------------------------------------------------------------------------------------- checkpoints

    def save(self, path, epoch: int) -> None:
        """Write a checkpoint, whole or not at all; one that cannot be written (a full disk) is no reason to stop."""
        state = {"of": self.identity, "epoch": epoch, "history": asdict(self.history)} | self.state()
        part = Path(path).with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
            print(f"no checkpoint of epoch {epoch}: {error}")
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def resume(self, path) -> int:
        """Continue from a checkpoint; a missing, damaged or foreign one means starting over."""
        if not path:
            return 0
        identity = self.identity  # the network's attributes may change as it trains
        if not Path(path).exists():
            return 0
        fresh = copy.deepcopy(self.state())
        try:
            if damaged := zipfile.ZipFile(path).testzip():  # torch does not check the sums
                raise ValueError(f"{damaged} is damaged")
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["of"] != identity:
                raise ValueError("it is another run's")
            epoch, history = state["epoch"], History(**state["history"])
            self.restore(state)
        except Exception as error:
            self.restore(fresh)
            print(f"{Path(path).name} cannot be continued ({error}); starting over")
            return 0
        self.history = history
        return epoch

    def state(self) -> dict:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"generator": self.generator.get_state(), "rng": torch.get_rng_state()}
        return state | ({"cuda_rng": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)

    @cached_property
    def identity(self) -> dict:
        """What a checkpoint must share with the run that continues it. (What only a class's code says, of a network or a loss, it cannot
        know.)"""
        replayed = isinstance(self.advance, cuda_graph.Replayed)  # its optimiser's state is of another kind
        train, test, clean = self.given
        return {
            "model": described(self.model),
            "settings": asdict(self.settings),
            "seed": self.seed,
            "loss": described(self.loss) + (repr(self.loss.state_dict()) if isinstance(self.loss, nn.Module) else ""),
            "data": [train.fingerprint, test.fingerprint],
            "clean": None if clean is None else hashlib.sha256(clean.cpu().numpy().tobytes()).hexdigest(),
            "device": self.device.type + " replayed" * replayed,
            "precision": self.precision,  # "auto" in the settings is the machine's choice
        }


@torch.inference_mode()
def logits(model: nn.Module, images: Images, train: Images, settings: Settings) -> Tensor:
    """What a network that `fit` has trained says of images: shown as `settings` say and standardised as by `fit`, in float32.

    Arguments: model, on any device; images; train and settings, those of the training.
    Returns: logits (N, K) on the CPU. The network is left in evaluation mode.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    shown, channel = partial(view, settings), 1 if settings.view == "image" else 2
    mean, std = statistics(map(shown, train.images.split(4096)), channel)
    order = data.permutation(train.images[0, 0].numel()) if settings.view == "sequence-permuted" else slice(None)
    parts = (((shown(x) - mean) / std)[:, order] for x in images.images.split(at_once(settings)))
    model.eval()
    return torch.cat([model(x.to(device)).cpu() for x in parts])


# ------------------------------------------------------------------------------------------------------------------- helpers


def view(settings: Settings, images: Tensor) -> Tensor:
    """What a network is shown, not yet standardised: (B, C, H, W), or (B, L, d) for sequences."""
    return images.float() if settings.view == "image" else data.as_sequence(images, settings.view == "sequence-gray")


def at_once(settings: Settings) -> int:
    """How many samples are shown to a network that does not train: of sequences, whose memory grows with their length, no more than a few
    training batches."""
    return 1000 if settings.view == "image" else 4 * settings.batch_size


def statistics(parts: Iterable[Tensor], channel: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over all parts, shaped to broadcast against them; summed in float64."""
    count, total, square = 0, 0.0, 0.0
    for part in parts:
        rows = part.double().movedim(channel, 0).flatten(1)  # (C, everything else)
        count, total, square = count + rows.shape[1], total + rows.sum(1), square + rows.square().sum(1)
    mean = total / count
    std = (square / count - mean**2).clamp_min(0).sqrt().clamp_min(1e-8)
    shape = [1] * part.ndim
    shape[channel] = -1
    return mean.float().view(shape), std.float().view(shape)


def described(x) -> str:
    """A network or a loss with every attribute that it holds, as their repr need not show them, of a function what it does; without
    the addresses, which are others in another process."""
    if isinstance(x, types.FunctionType):
        kept = [described(cell.cell_contents) for cell in x.__closure__ or ()]
        own = [coded(x.__code__), x.__defaults__, x.__kwdefaults__, kept]
    elif isinstance(x, partial):
        own = [described(x.func), x.args, x.keywords]
    else:
        parts = x.modules() if isinstance(x, nn.Module) else [x] if hasattr(x, "__dict__") else []
        own = [{k: v for k, v in vars(m).items() if not k.startswith("_") and k != "training"} for m in parts]
    return re.sub(r" at 0x[0-9a-f]+", "", f"{x!r} {own}")


def coded(code: types.CodeType) -> tuple:
    """A function's instructions, constants and names, without the file it stands in."""
    constants = [coded(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return code.co_code.hex(), constants, code.co_names


def chosen_precision(settings: Settings, device: torch.device) -> str:
    """What "auto" comes to on a device: "bfloat16" or "float32"."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 (on CPUs: AMX tiles, or AVX-512's bf16 dot products); elsewhere bf16 is emulated and slower
    than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in asked)


def check_arguments(model, train, test, loss, settings, checkpoint) -> None:
    kinds = {"model": nn.Module, "train": Images, "test": Images, "settings": Settings}
    for (name, kind), value in zip(kinds.items(), (model, train, test, settings), strict=True):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be of type {kind.__name__}, not {form(value)}")
    if not callable(loss):
        raise ValueError(f"loss must be a module of saidl.losses or any (logits, labels) -> scalar, not {loss!r}")
    if (reduction := getattr(loss, "reduction", "mean")) != "mean":
        raise ValueError(f"the loss's reduction must be 'mean', not {reduction!r}")
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ValueError("the loss must have no weights of its own: they would not be trained; put them into the model")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("model must have weights to train; all are frozen, or there are none")
    if checkpoint and not isinstance(checkpoint, str | os.PathLike):
        raise ValueError(f"checkpoint must be a file's name, not {checkpoint!r}")
    if checkpoint and (Path(checkpoint).is_dir() or not Path(checkpoint).parent.is_dir()):
        raise ValueError(f"checkpoint must be a file in a folder that exists, not {str(checkpoint)!r}")


def check_data(train: Images, test: Images, clean_labels: Tensor | None) -> None:
    parts = {"train": train, "test": test}
    if clean_labels is not None:
        fits = isinstance(clean_labels, Tensor) and clean_labels.shape == train.labels.shape
        if not fits or clean_labels.dtype != torch.int64:
            raise ValueError(f"clean_labels must be int64 of shape ({len(train)},), not {form(clean_labels)}")
        parts["clean"] = train.with_labels(clean_labels)
    for name, part in parts.items():
        if not len(part):
            raise ValueError(f"{name} is empty")
        if len(part.images) != len(part):
            raise ValueError(f"{name} must have a label an image, not {len(part.images)} images and {len(part)} labels")
        low, high = (int(v) for v in part.labels.aminmax())
        if low < 0 or high >= len(part.classes):
            raise ValueError(f"{name} labels must lie in [0, {len(part.classes)}), found {low} to {high}")
    if train.images.shape[1] != test.images.shape[1] or len(train.classes) != len(test.classes):
        told = (f"{part.images.shape[1]} channels and {len(part.classes)} classes" for part in (train, test))
        raise ValueError(f"train and test must have the same channels and classes, not {' against '.join(told)}")
