"""The losses themselves: their curves and gradients, their label sums, and the theorem about their risk."""

from collections.abc import Sequence

import numpy as np
import torch

from saidl import losses, noise
from saidl.figures.drawing import RATE_COLOURS, figure, legend, look, panels
from saidl.names import label


@figure
def loss_curves(names: Sequence[str], num_classes: int = 10, dataset: str = "cifar10", **hyper):
    """L, -dL/dp_y and -dL/dz_y against p_y, the other classes sharing the rest; gradients by autograd from the loss.
    The thin upright is 1/K, where an untrained network starts.

    Arguments: names of losses, in a data set's published settings; hyper overrides them.
    """
    fig, axes = panels(1, 3, height=2.8)
    for name in names:
        loss = losses.make(name, num_classes, "none", **losses.settings(name, dataset)[0] | hyper)
        p, value, slope, pull = loss_gradients(loss)
        for ax, y in zip(axes[0], (value, slope, pull), strict=True):
            ax.plot(p, np.where(y > 0, y, np.nan), label=label(name), markevery=0.15, **look(name))
    titles = ("loss $L$", "$-\\partial L/\\partial p_y$", "$-\\partial L/\\partial z_y$")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set(title=title, xlabel="$p_y$")
    for ax, least in zip(axes[0, 1:], (1e-2, 1e-3), strict=True):
        ax.set(xscale="log", yscale="log", ylim=(least, None))
        ax.axvline(1 / num_classes, color="#000000", linewidth=0.6, alpha=0.5)
    legend(fig, axes, "outside lower center", ncols=min(len(names), 6))
    return fig


def loss_gradients(loss, at: Sequence[float] | None = None):
    """p_y, L, -dL/dp_y and -dL/dz_y, each (points,), along logits z = log p with the rest shared evenly.

    Arguments: loss, with reduction "none"; at, values of p_y (None: 199 that cover (0, 1)).
    """
    count = loss.num_classes
    p = torch.linspace(-7, 7, 199, dtype=torch.float64).sigmoid()
    p = (p if at is None else torch.tensor(at, dtype=torch.float64)).requires_grad_()
    z = torch.cat([p[:, None], ((1 - p) / (count - 1))[:, None].expand(-1, count - 1)], 1).log()  # (points, K)
    value = loss(z, torch.zeros(len(p), dtype=torch.int64))
    slope, pull = torch.autograd.grad(value.sum(), (p, z))
    return tuple(t.detach().numpy() for t in (p, value, -slope, -pull[:, 0]))


def pull(name: str, at: float, num_classes: int = 10) -> float:
    """-dL/dz_y of a loss by name at p_y = `at`: how hard a sample pulls its label's logit up, by `loss_gradients`."""
    return loss_gradients(losses.make(name, num_classes, "none"), [at])[3].item()


@figure
def label_sums(names: Sequence[str], num_classes: int = 10, samples: int = 200, seed: int = 0):
    """sum_k L(z, k) of random logits from uncertain to sure, against the largest p: flat for a symmetric loss."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1.3, samples, dtype=torch.float64)[:, None]
    z = scale * torch.randn(samples, num_classes, generator=generator, dtype=torch.float64)  # (samples, K)
    top, order = z.softmax(1).amax(1).sort()
    every = torch.arange(num_classes).repeat(samples)
    fig, axes = panels(1, 1, height=2.8)
    for name in names:
        loss = losses.make(name, num_classes, "none")
        total = loss(z.repeat_interleave(num_classes, 0), every).view(samples, num_classes).sum(1)[order]
        axes[0, 0].plot(top, total, **look(name) | {"linestyle": "none"}, alpha=0.6, label=label(name))
    axes[0, 0].set(xlabel="largest probability", ylabel="$\\Sigma_k\\,L(z, k)$", yscale="log")
    legend(fig, axes)
    return fig


@figure
def risk_bound(logits: Sequence, labels, names: Sequence[str], rates=(0.0, 0.2, 0.4, 0.6, 0.8), seed: int = 0):
    """Risk under symmetric noise against the clean risk of the same classifiers, a panel a loss, a colour a rate.

    Points: measured on labels made wrong. Lines: the theorem, R_eta = eta C / (K - 1) + (1 - eta K / (K - 1)) R, where
    the label sum is a constant C; elsewhere there is no such line, and dashes join the points.

    Arguments: logits, one array (N, K) a classifier; labels (N,), the true ones; names of losses.
    """
    fig, axes = panels(1, len(names), height=3.1)
    for ax, name in zip(axes[0], names, strict=True):
        clean, noisy, sums = risks(logits, labels, name, rates, seed)
        order, count = clean.argsort(), np.shape(logits[0])[1]
        span, constant = np.array([0, 1.05 * clean.max()]), np.ptp(sums) < 1e-6 * sums.max()
        for rate, measured, shade, marker in zip(rates, noisy, RATE_COLOURS, "osD^v*", strict=False):
            ax.plot(clean, measured, marker, color=shade, linestyle="none", label=f"η = {rate:g}")
            if constant:
                line = rate * sums[0] / (count - 1) + (1 - rate * count / (count - 1)) * span
                ax.plot(span, line, color=shade, linewidth=1)
            else:
                ax.plot(clean[order], measured[order], "--", color=shade, linewidth=0.8)
        low, high = sums.min(), sums.max()
        total = f"$C$ = {low:.3g}" if constant else f"label sum {low:.0f} to {high:.0f}"
        ax.set(title=f"{label(name)}, {total}", xlabel="clean risk $R$")
    axes[0, 0].set_ylabel("risk under noise $R_\\eta$")
    legend(fig, axes)
    return fig


def risks(logits: Sequence, labels, name: str, rates: Sequence[float], seed: int = 0, draws: int = 20):
    """What the theorem relates, for M classifiers: a loss's clean risk (M,), its risk under symmetric noise averaged
    over some draws of it (len(rates), M), and its mean label sum (M,). Arguments as for `risk_bound`."""
    stack = [torch.as_tensor(z, dtype=torch.float64) for z in logits]
    labels, count = torch.as_tensor(labels), stack[0].shape[1]
    loss = losses.make(name, count)

    def noisy_risk(rate: float) -> list[float]:
        seeds = range(seed, seed + draws)
        given = [noise.corrupt(labels, "symmetric", rate, num_classes=count, seed=s).labels for s in seeds]
        given = torch.cat(given)
        return [loss(z.repeat(draws, 1), given).item() for z in stack]

    clean = [loss(z, labels).item() for z in stack]
    sums = [sum(loss(z, torch.full_like(labels, k)).item() for k in range(count)) for z in stack]
    return np.array(clean), np.array([noisy_risk(rate) for rate in rates]), np.array(sums)
