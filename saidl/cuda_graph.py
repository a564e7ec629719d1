"""A training step recorded once as a CUDA graph and replayed whole: one launch in place of one a kernel.

A small network's step waits for the launching of its kernels, not for their work. A recording repeats the kernels on
the same memory, so whatever changes from step to step must lie in tensors that stay where they are: the batch, the weights, the
optimiser's state, the learning rate. That they do is not assumed: a recording is used once it has repeated a step from the same state
and ended where the step itself did. One that ends elsewhere, or cannot be made, is dropped with a warning, and training goes on step by
step. Only a loss of `saidl.losses` is replayed: another may hold numbers of its own that change. (torch.cuda.make_graphed_callables
records a module's passes, not the optimiser, clipping and cropping around them.)
"""

import contextlib
import functools
import gc
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # steps before the recording: libraries choose their kernels, the optimiser makes its state
# of a step's own change: kernels that add in no fixed order differ by far less, a step gone wrong by more
TOLERANCE = 0.1


def wanted(device: torch.device) -> bool:
    """On a GPU, unless SAIDL_CUDA_GRAPH is 0."""
    return device.type == "cuda" and os.environ.get("SAIDL_CUDA_GRAPH") != "0"


class Replayed:
    """`step`, replayed where it can be.

    Arguments: step, of tensors on the device, which must not wait for it; changes () -> lists of the tensors that a step changes, each
        list compared as one (a bias before a batch norm moves by rounding errors alone).
    Calling it: the same number of tensors each time. Those of the first call's shapes are replayed; others, as an epoch's last batch,
        are not.
    """

    def __init__(self, step: Callable[..., None], changes: Callable[[], list[list[Tensor]]]):
        self.step, self.changes = step, changes
        self.batch, self.replay, self.seen = None, None, 0

    def __call__(self, *batch: Tensor) -> None:
        if self.batch is None:
            self.batch = tuple(map(torch.zeros_like, batch))
        fits = all(x.shape == own.shape for x, own in zip(batch, self.batch, strict=True))
        self.seen += fits
        if fits and self.replay:
            self.repeat(batch)
        elif fits and self.seen == WARM + 1:
            self.begin(batch)
        else:
            with side_stream() if self.seen <= WARM else contextlib.nullcontext():
                self.step(*batch)

    def repeat(self, batch: tuple[Tensor, ...]) -> None:
        for own, x in zip(self.batch, batch, strict=True):
            own.copy_(x)
        self.replay()

    def begin(self, batch: tuple[Tensor, ...]) -> None:
        """Do a step; record one, of an empty batch, so that nothing of this one can be baked in; do the same step by replay."""
        device = batch[0].device
        same_numbers = lambda: torch.random.fork_rng([device] if device.type == "cuda" else [])  # noqa: E731
        before, after = self.copies(), None
        try:
            # a step that waits is found out here, before a recording breaks on it
            with side_stream(), same_numbers(), no_waiting():
                self.step(*batch)
            after = self.copies()
            self.put(before)
            with same_numbers():
                self.replay = capture(lambda: self.step(*self.batch))
            self.put(before)
            self.repeat(batch)
            if all(map(agree, before, after, self.changes())):
                return
            why = "it ends elsewhere than the step itself"
        except RuntimeError as error:
            why = str(error)
        self.replay = None
        self.put(after or before)
        if after is None:
            self.step(*batch)
        warnings.warn(f"the training step is not replayed: {why}", stacklevel=4)

    def copies(self) -> list[list[Tensor]]:
        return [[x.detach().clone() for x in group] for group in self.changes()]

    @torch.no_grad()
    def put(self, values: list[list[Tensor]]) -> None:
        for group, kept in zip(self.changes(), values, strict=True):
            for x, value in zip(group, kept, strict=True):
                x.copy_(value)


def agree(before: list[Tensor], after: list[Tensor], now: list[Tensor]) -> bool:
    """Whether `now` is where `after` is, measured against the way from `before`."""
    apart = lambda a, b: sum((x.double() - y.double()).square().sum().item() for x, y in zip(a, b, strict=True))  # noqa: E731
    return apart(now, after) <= TOLERANCE**2 * apart(before, after)


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """Record what `step` would do, without doing it; returns what does it."""
    gc.collect()  # an older recording must not be freed in the middle of this one
    graph, generator = torch.cuda.CUDAGraph(), torch.cuda.default_generators[torch.cuda.current_device()]
    # back to this stream whatever happens: `graph` returns only from a success
    with torch.cuda.stream(torch.cuda.current_stream()):
        try:
            # the stream of the steps before: torch's own stays on the device that was first recorded on
            with torch.cuda.graph(graph, stream=beside(torch.cuda.current_device()), capture_error_mode="thread_local"):
                step()
        except RuntimeError:
            generator.graphsafe_set_state(generator.clone_state())  # the old one may hold itself for recording still
            raise
    return graph.replay


@functools.cache
def beside(device: int) -> "torch.cuda.Stream":
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def side_stream():
    """Steps before a recording run beside the default stream, as torch asks: it must not be waited for while recording."""
    stream = beside(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream().wait_stream(stream)


@contextlib.contextmanager
def no_waiting():
    """What would wait for the GPU raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
