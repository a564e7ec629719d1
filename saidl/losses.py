"""Losses for learning with wrong labels.

Notation: logits z in R^K, p = softmax(z), y the possibly wrong label. A loss L is *symmetric* when sum_k L(z, k) is the same constant
for every z; its minimiser is then unchanged by symmetric label noise of rate below 1 - 1/K (Ghosh et al. 2017). Dividing any loss by
its sum over the labels makes that constant 1: a *normalised* loss (Ma et al. 2020). An *active* loss asks for a larger p_y alone, a
*passive* one also for some smaller p_k; their weighted sum, an active-passive loss, is robust and still learns.

    >>> import torch
    >>> loss = make("nce+rce", num_classes=10)
    >>> round(loss(torch.zeros(4, 10), torch.arange(4)).item(), 4)          # 1/K + A (1 - 1/K)
    8.3893

Every loss takes logits (B, K) and integer labels (B,), works from log p in float32 or better (also under autocast), and looks at one
sample at a time. `reduction` is "mean", "sum" or "none".
"""

import inspect
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saidl.autodiff import transformed
from saidl.checks import between, flag, form, one_of, whole

LOG_ZERO = -math.log(1e-4)  # A: RCE's -log 0 (Ma et al.'s code; the paper speaks of A = -4, which only rescales beta)
NEVER = -(2**62)  # nll_loss would skip labels of -100
CACHED = 2**18  # entries handled at once where a loss goes over rows: they and their intermediate results stay in cache
TINY = 1e-12  # keeps (1 - p)^gamma differentiable at p = 1


class RobustLoss(nn.Module):
    """What all losses share: the checks, float32, the reduction. A loss itself is one `per_sample(log_p, target)`.

    Arguments: num_classes K >= 2; reduction "mean" | "sum" | "none".
    Calling it: logits (B, K) of a floating type, target (B,) int64 in [0, K) -> scalar, or (B,) for "none".
    Raises ValueError for wrong shapes or types, and on the CPU for labels out of range (on a GPU that check would wait for the device;
    `training.fit` makes it once).
    """

    def __init__(self, num_classes: int = 10, reduction: str = "mean"):
        super().__init__()
        whole("num_classes", num_classes, 2)
        one_of("reduction", reduction, ("mean", "sum", "none"))
        self.num_classes, self.reduction = num_classes, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        check_batch(logits, target, self.num_classes)
        # from here on nothing multiplies matrices, so autocast leaves float32 alone
        try:
            values = self.per_sample(self.log_probabilities(at_least_single(logits)), target)  # (B,)
        except (IndexError, RuntimeError):
            check_range(target, self.num_classes)  # the usual reason; asking beforehand would cost every step
            raise
        return values if self.reduction == "none" else getattr(values, self.reduction)()

    def log_probabilities(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(1)  # (B, K)

    def per_sample(self, log_p: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{k}={v}" for k, v in settings.items())


def at_least_single(logits: Tensor) -> Tensor:
    """Half precision as float32, the rest as it is."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check_batch(logits: Tensor, target: Tensor, num_classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.shape[1:] != (num_classes,) or not logits.is_floating_point():
        raise ValueError(f"logits must be floating, of shape (B, {num_classes}), a torch tensor, not {form(logits)}")
    if not isinstance(target, Tensor) or target.shape != logits.shape[:1] or target.dtype != torch.int64:
        raise ValueError(f"target must be int64 of shape ({len(logits)},), a torch tensor, not {form(target)}")


def check_range(target: Tensor, num_classes: int) -> None:
    low, high = (int(v) for v in target.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f"target must lie in [0, {num_classes}), found {low if low < 0 else high}") from None


def pick(values: Tensor, target: Tensor) -> Tensor:
    """values (B, K), target (B,) -> values at the label (B,): torch's nll_loss is a gather and its gradient in one kernel each."""
    return -F.nll_loss(values, target, reduction="none", ignore_index=NEVER)


def one_minus_power(log_p: Tensor, q: float) -> Tensor:
    """1 - p^q with all its digits, q however small, and a derivative with all of its own. expm1 is as good in value, but torch takes its
    derivative from the result: 0 where p^q is below rounding, and a confident mistake would not be learnt from."""
    x = q * log_p
    return torch.where(x > -1, -torch.expm1(x), 1 - x.exp())


def focal(log_p: Tensor, gamma: float, detached: bool) -> Tensor:
    """-(1 - p)^gamma log p for every entry. `detached` leaves the factor out of the gradient, as much published code does: the value
    is the same, the gradient is not the formula's (tests/test_losses.py measures by how much)."""
    source = log_p.detach() if detached else log_p
    return -(-torch.expm1(source)).clamp_min(TINY).pow(gamma) * log_p


def focal_share(log_p: Tensor, target: Tensor, gamma: float, detached: bool, ceiling: float = 0.0) -> Tensor:
    """v_y / sum_k v_k of v = focal - ceiling, at most 0 where there is a ceiling, (B,)."""
    if log_p.numel() > CACHED // 4 and not transformed():
        return _FocalShare.apply(log_p, target, gamma, detached, ceiling)
    return focal_share_in_steps(log_p, target, gamma, detached, ceiling)


def focal_share_in_steps(log_p: Tensor, target: Tensor, gamma: float, detached: bool, ceiling: float) -> Tensor:
    values = focal(log_p, gamma, detached)  # (B, K)
    values = (values - ceiling).clamp_max(0) if ceiling else values
    return pick(values, target) / values.sum(1)


class _FocalShare(torch.autograd.Function):
    """The same with its derivative in one go, on a CPU a few rows at a time that stay in cache: operation after operation on
    the whole of (B, K), half the time went into memory for some twenty intermediate results."""

    @staticmethod
    def forward(ctx, log_p, target, gamma, detached, ceiling):
        rows = max(1, CACHED // log_p.shape[1]) if log_p.device.type == "cpu" else len(log_p)
        # 1 - exp(l) loses digits where p is near 1, and expm1 is ten times dearer. It is for the label alone: where another class is that
        # likely, its v is nothing beside the sum, and 1 - p need only stay above its rounding
        y, least = target.unsqueeze(1), torch.finfo(log_p.dtype).eps / 2
        log_py = log_p.gather(1, y)
        q_y = torch.expm1(log_py).neg_().clamp_min_(TINY)
        slope, total = torch.empty_like(log_p), torch.empty_like(log_py)
        for l, label, q_label, s, total_ in zip(*(x.split(rows) for x in (log_p, y, q_y, slope, total)), strict=True):
            p = torch.exp(l)
            q = (1 - p).clamp_min_(least).scatter_(1, label, q_label)
            v = torch.pow(q, gamma, out=s) * l
            if not detached:
                s.addcdiv_(p.mul_(v), q, value=-gamma)  # dv/dl = q^gamma - gamma q^(gamma - 1) p l
            if ceiling:
                s.mul_(v.add_(ceiling).clamp_min_(0) > 0)
            torch.sum(v, 1, keepdim=True, out=total_)
        v_y = q_y.pow(gamma) * log_py
        share = ((v_y + ceiling).clamp_min_(0) if ceiling else v_y) / total
        ctx.settings = gamma, detached, ceiling
        ctx.save_for_backward(log_p, target, share, slope, total)
        return share.squeeze(1)

    @staticmethod
    def backward(ctx, grad):
        log_p, target, share, slope, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants second derivatives
            share = focal_share_in_steps(log_p, target, *ctx.settings)
            return *torch.autograd.grad(share, log_p, grad, create_graph=True), None, None, None, None
        grad, y = grad.unsqueeze(1) / total, target.unsqueeze(1)
        return (slope * (-grad * share)).scatter_add_(1, y, grad * slope.gather(1, y)), None, None, None, None


# ------------------------------------------------------------------------------------------------------------- plain losses
# The settings' ranges keep float32 from an overflow or 0 / 0.


class CrossEntropy(RobustLoss):
    """-log p_y. Unbounded, not robust."""

    def per_sample(self, log_p, target):
        return F.nll_loss(log_p, target, reduction="none", ignore_index=NEVER)


class Focal(RobustLoss):
    """-(1 - p_y)^gamma log p_y, gamma in [0, 100] (Lin et al. 2017). `detached`: see `focal`."""

    def __init__(self, num_classes=10, reduction="mean", gamma: float = 0.5, detached: bool = False):
        super().__init__(num_classes, reduction)
        flag("detached", detached)
        self.gamma, self.detached = between("gamma", gamma, 0, 100), detached

    def per_sample(self, log_p, target):
        return focal(pick(log_p, target), self.gamma, self.detached)


class MeanAbsoluteError(RobustLoss):
    """1 - p_y, in [0, 1], label sum K - 1. Half of the L1 distance between p and the one-hot label, as in Ma et al.'s code; papers
    that take the whole distance (Ghosh et al. 2017) have twice this value, so their beta is half of ours."""

    def per_sample(self, log_p, target):
        return 1 - pick(log_p, target).exp()


class ReverseCrossEntropy(RobustLoss):
    """-sum_k p_k log q_k for the one-hot q with log 0 put as -A: A (1 - p_y), A = -log 1e-4 = 9.21 (Wang et al. 2019).
    The same function as MAE up to A: beside an active loss the scale is what counts."""

    def per_sample(self, log_p, target):
        return LOG_ZERO * (1 - pick(log_p, target).exp())


class GeneralizedCrossEntropy(RobustLoss):
    """(1 - p_y^q) / q, q in [1e-9, 1]: CE as q -> 0, MAE at q = 1 (Zhang & Sabuncu 2018)."""

    def __init__(self, num_classes=10, reduction="mean", q: float = 0.7):
        super().__init__(num_classes, reduction)
        self.q = between("q", q, 1e-9, 1)

    def per_sample(self, log_p, target):
        return one_minus_power(pick(log_p, target), self.q) / self.q


class AsymmetricGeneralizedCrossEntropy(RobustLoss):
    """AGCE, ((a + 1)^q - (a + p_y)^q) / q, a in [1e-9, 100], q in [1e-3, 10] (Zhou et al. 2021)."""

    def __init__(self, num_classes=10, reduction="mean", a: float = 0.6, q: float = 0.6):
        super().__init__(num_classes, reduction)
        self.a, self.q = between("a", a, 1e-9, 100), between("q", q, 1e-3, 10)

    def per_sample(self, log_p, target):
        return ((self.a + 1) ** self.q - (self.a + pick(log_p, target).exp()) ** self.q) / self.q


class AsymmetricUnhinged(RobustLoss):
    """AUL, ((a - p_y)^q - (a - 1)^q) / q, a in [1.001, 100], q in [1e-3, 10] (Zhou et al. 2021)."""

    def __init__(self, num_classes=10, reduction="mean", a: float = 5.5, q: float = 3.0):
        super().__init__(num_classes, reduction)
        self.a, self.q = between("a", a, 1.001, 100), between("q", q, 1e-3, 10)

    def per_sample(self, log_p, target):
        return ((self.a - pick(log_p, target).exp()) ** self.q - (self.a - 1) ** self.q) / self.q


class AsymmetricExponential(RobustLoss):
    """AEL, exp(-p_y / a), a in [1e-9, 1e6] (Zhou et al. 2021)."""

    def __init__(self, num_classes=10, reduction="mean", a: float = 2.5):
        super().__init__(num_classes, reduction)
        self.a = between("a", a, 1e-9, 1e6)

    def per_sample(self, log_p, target):
        return torch.exp(-pick(log_p, target).exp() / self.a)


class AsymmetricMeanSquaredError(RobustLoss):
    """AMSE, mean_k (p_k - a 1[k = y])^2, a in [1e-9, 1e6] (Wang et al. 2025, Joint Asymmetric Loss). At a = 1 the Brier score, minimal
    at the noisy labels' shares; at the commonest label alone once a times that label's lead in share is at least 1."""

    def __init__(self, num_classes=10, reduction="mean", a: float = 30.0):
        super().__init__(num_classes, reduction)
        self.a = between("a", a, 1e-9, 1e6)

    def per_sample(self, log_p, target):
        return (log_p.mul(2).exp().sum(1) - 2 * self.a * pick(log_p, target).exp() + self.a**2) / self.num_classes


# ------------------------------------------------------------------------------------------------------- normalised losses


class NormalizedCrossEntropy(RobustLoss):
    """NCE, log p_y / sum_k log p_k, in [0, 1], label sum 1 (Ma et al. 2020). Active."""

    def per_sample(self, log_p, target):
        return pick(log_p, target) / log_p.sum(1)


class NormalizedFocal(Focal):
    """NFL, fl(y) / sum_k fl(k), in [0, 1], label sum 1 (Ma et al. 2020). Active. gamma, detached: see `Focal`."""

    def per_sample(self, log_p, target):
        return focal_share(log_p, target, self.gamma, self.detached)


class NormalizedMeanAbsoluteError(RobustLoss):
    """NMAE and NRCE, (1 - p_y) / (K - 1), in [0, 1/(K-1)], label sum 1 (Ma et al. 2020: two names, one function)."""

    def per_sample(self, log_p, target):
        return (1 - pick(log_p, target).exp()) / (self.num_classes - 1)


NormalizedReverseCrossEntropy = NormalizedMeanAbsoluteError


class NormalizedGeneralizedCrossEntropy(GeneralizedCrossEntropy):
    """NGCE, (1 - p_y^q) / (K - sum_k p_k^q), in [0, 1], label sum 1, q in [1e-9, 1] (Ma et al. 2020)."""

    def per_sample(self, log_p, target):
        values = one_minus_power(log_p, self.q)  # (B, K)
        return pick(values, target) / values.sum(1)


class NormalizedNegativeCrossEntropy(RobustLoss):
    """NNCE, 1 - (A' + log p_y) / sum_k (A' + log p_k), p clamped at 1e-7, A' = -log 1e-7; in [0, 1], label sum K - 1 (Ye et al.
    2023). Passive."""

    ceiling = -math.log(1e-7)

    def per_sample(self, log_p, target):
        room = (log_p + self.ceiling).clamp_min(0)  # (B, K)
        return 1 - pick(room, target) / room.sum(1)


class NormalizedNegativeFocal(Focal):
    """NNFL, the same with focal terms: 1 - (A'' - fl(y)) / sum_k (A'' - fl(k)), A'' = (1 - 1e-7)^gamma A' (Ye et al. 2023). Passive.
    gamma, detached: see `Focal`."""

    def per_sample(self, log_p, target):
        ceiling = (1 - 1e-7) ** self.gamma * -math.log(1e-7)
        # what lies below 1e-7 ends as 0 in `focal_share`; here it only stays finite
        return 1 - focal_share(log_p.clamp_min(-100), target, self.gamma, self.detached, ceiling)


# ------------------------------------------------------------------------------------------- losses that change the softmax


class EpsilonSoftmaxLoss(RobustLoss):
    """CE (gamma = 0) or focal loss on eps-softmax: p with m added to its largest entry, divided by m + 1, m in [1e-6, 1e12], gamma in [0,
    100] (Wang et al. 2024). floor, in [0, 0.1]: the least that eps-softmax may be. The authors' code has 1e-8, so that with m = 1e5 a
    label below p_y = 1e-3 has no gradient; the formula, and so the default, has none."""

    def __init__(self, num_classes=10, reduction="mean", m: float = 1e5, gamma: float = 0.0, floor: float = 0.0):
        super().__init__(num_classes, reduction)
        self.m, self.gamma = between("m", m, 1e-6, 1e12), between("gamma", gamma, 0, 100)
        self.floor = between("floor", floor, 0, 0.1)

    def per_sample(self, log_p, target):
        log_py = pick(log_p, target)
        top = torch.log1p(torch.expm1(log_py) / (self.m + 1))  # log((p + m) / (m + 1)), kept exact near 0
        log_q = torch.where(log_p.argmax(1) == target, top, log_py - math.log1p(self.m))
        log_q = log_q.clamp_min(math.log(self.floor)) if self.floor else log_q
        return focal(log_q, self.gamma, False) if self.gamma else -log_q


class LogitClipCrossEntropy(CrossEntropy):
    """CE on z min(1, tau / |z|_2), tau in [1e-9, 1e9] (Wei et al. 2023). The public codes scale to tau but compare with 1/tau, so they
    rescale nearly every sample; this is the formula."""

    def __init__(self, num_classes=10, reduction="mean", tau: float = 2.5):
        super().__init__(num_classes, reduction)
        self.tau = between("tau", tau, 1e-9, 1e9)

    def log_probabilities(self, logits):
        norm = torch.linalg.vector_norm(logits, dim=1, keepdim=True)
        return (logits * (self.tau / norm.clamp_min(self.tau))).log_softmax(1)


# ---------------------------------------------------------------------------------------------------------- active + passive


class ActivePassive(RobustLoss):
    """alpha * active + beta * passive (Ma et al. 2020); log p is computed once for both.

    Arguments: two losses of this module for the same number of classes that work on the plain softmax; alpha, beta in [0, 1e6].
    """

    def __init__(
        self, active: RobustLoss, passive: RobustLoss, alpha: float = 1.0, beta: float = 1.0, reduction: str = "mean"
    ):
        for name, part in (("active", active), ("passive", passive)):
            if not isinstance(part, RobustLoss):
                raise ValueError(f"{name} must be a loss of this module, not {part!r}")
        super().__init__(active.num_classes, reduction)
        if active.num_classes != passive.num_classes:
            told = f"{active.num_classes} and {passive.num_classes}"
            raise ValueError(f"active and passive must have the same num_classes, not {told}")
        if any(isinstance(part, LogitClipCrossEntropy) for part in (active, passive)):
            raise ValueError("a loss on clipped logits cannot be part of a pair, which shares its probabilities")
        self.active, self.passive = active, passive
        self.alpha, self.beta = between("alpha", alpha, 0, 1e6), between("beta", beta, 0, 1e6)

    def per_sample(self, log_p, target):
        return self.alpha * self.active.per_sample(log_p, target) + self.beta * self.passive.per_sample(log_p, target)


# ------------------------------------------------------------------------------------------------------------------ registry

SINGLE = {
    "ce": CrossEntropy,
    "fl": Focal,
    "mae": MeanAbsoluteError,
    "rce": ReverseCrossEntropy,
    "gce": GeneralizedCrossEntropy,
    "nce": NormalizedCrossEntropy,
    "nfl": NormalizedFocal,
    "nmae": NormalizedMeanAbsoluteError,
    "nrce": NormalizedReverseCrossEntropy,
    "ngce": NormalizedGeneralizedCrossEntropy,
    "agce": AsymmetricGeneralizedCrossEntropy,
    "aul": AsymmetricUnhinged,
    "ael": AsymmetricExponential,
    "nnce": NormalizedNegativeCrossEntropy,
    "nnfl": NormalizedNegativeFocal,
    "amse": AsymmetricMeanSquaredError,
    "eps-ce": EpsilonSoftmaxLoss,
    "eps-fl": EpsilonSoftmaxLoss,
    "logitclip-ce": LogitClipCrossEntropy,
}
DEFAULTS = {"eps-fl": {"gamma": 0.1}}  # where a name means more than its class's defaults (Wang et al. 2024)

APL = "Ma et al. 2020, released configs"
NOTES = "Ma et al. 2020, notes beside their results"
ALF = "Zhou et al. 2021, released configs"
ANL = "Ye et al. 2023, released configs"
EPS = "Wang et al. 2024, appendix D"
JAL = "Wang et al. 2025, released configs"

# Weights and hyperparameters on CIFAR-10 with their source; a pair that is not here gets 1, 1.
PAIRS = {
    "sce": ({"alpha": 0.1, "beta": 1.0}, APL),  # ce + rce
    **{f"{a}+{p}": ({"alpha": 1.0, "beta": 1.0}, APL) for a in ("nce", "nfl") for p in ("mae", "rce")},
    **{f"ngce+{p}": ({"alpha": 1.0, "beta": 1.0}, NOTES) for p in ("mae", "rce")},  # q 0.7; their configs have 0.1
    "nce+agce": ({"alpha": 1.0, "beta": 4.0, "a": 6.0, "q": 1.5}, ALF),
    "nce+aul": ({"alpha": 1.0, "beta": 4.0, "a": 6.3, "q": 1.5}, ALF),
    "nce+ael": ({"alpha": 1.0, "beta": 4.0, "a": 5.0}, ALF),
    "nce+nnce": ({"alpha": 5.0, "beta": 5.0}, ANL),
    "nfl+nnfl": ({"alpha": 5.0, "beta": 5.0}, ANL),
    "nce+amse": ({"alpha": 1.0, "beta": 1.0, "a": 30.0}, JAL),
    "nfl+amse": ({"alpha": 1.0, "beta": 1.0, "a": 30.0}, JAL),
    # their beta is 5, on an MAE of 2 - 2 p_y
    "eps-ce+mae": ({"alpha": 0.01, "beta": 10.0, "m": 1e5}, EPS),
    "eps-fl+mae": ({"alpha": 0.01, "beta": 10.0, "m": 1e5}, EPS),
}
EPS_BY_NOISE = {  # where not as above, by how the name of a kind of noise begins
    "asymmetric": {"alpha": 0.02, "m": 1e3}, "pair": {"alpha": 0.02, "m": 1e3}, "instance": {"alpha": 0.045, "beta": 20.0},
}  # fmt: skip
ALIASES = {"anl-ce": "nce+nnce", "anl-fl": "nfl+nnfl", "jal-ce": "nce+amse", "jal-fl": "nfl+amse"}

# What changes on other data sets: {(name, dataset): (settings, source)}.
ELSEWHERE = (
    {(f"{a}+{p}", "mnist"): ({"alpha": 1.0, "beta": 10.0}, APL) for a in ("nce", "nfl") for p in ("mae", "rce")}
    | {(f"{a}+mae", "cifar100"): ({"alpha": 10.0, "beta": 1.0}, APL) for a in ("nce", "nfl")}
    | {(f"{a}+rce", "cifar100"): ({"alpha": 10.0, "beta": 0.1}, APL) for a in ("nce", "nfl")}
    | {
        ("sce", "mnist"): ({"alpha": 0.01, "beta": 1.0}, APL),
        ("sce", "cifar100"): ({"alpha": 6.0, "beta": 0.1}, APL),
        ("nce+nnce", "mnist"): ({"alpha": 1.0, "beta": 1.0}, ANL),
        ("nce+nnce", "cifar100"): ({"alpha": 10.0, "beta": 1.0}, ANL),
        ("nfl+nnfl", "mnist"): ({"alpha": 1.0, "beta": 1.0}, ANL),
        ("nfl+nnfl", "cifar100"): ({"alpha": 10.0, "beta": 1.0}, ANL),
        ("nce+agce", "mnist"): ({"alpha": 0.0, "beta": 1.0, "a": 4.0, "q": 0.2}, ALF),
        ("nce+agce", "cifar100"): ({"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0}, ALF),
        ("nce+aul", "mnist"): ({"alpha": 0.0, "beta": 1.0, "a": 3.0, "q": 0.1}, ALF),
        ("nce+aul", "cifar100"): ({"alpha": 10.0, "beta": 0.015, "a": 6.0, "q": 3.0}, ALF),
        ("nce+ael", "mnist"): ({"alpha": 0.0, "beta": 1.0, "a": 3.5}, ALF),
        ("nce+ael", "cifar100"): ({"alpha": 10.0, "beta": 0.1, "a": 1.5}, ALF),
    }
    | {(f"{a}+amse", "cifar100"): ({"alpha": 5.0, "beta": 1.0, "a": 20.0}, JAL) for a in ("nce", "nfl")}
)
# L1 penalties on the weights, in place of weight decay, that the papers train these with: an optimiser setting (experiments.py uses it).
L1 = {(name, "cifar10"): 5e-5 for name in ("nce+nnce", "nfl+nnfl", "nce+amse", "nfl+amse")}
L1 |= {
    (name, data): weight for name in ("nce+nnce", "nfl+nnfl") for data, weight in (("mnist", 1e-6), ("cifar100", 5e-7))
}
L1 |= {(name, "cifar100"): 5e-6 for name in ("nce+amse", "nfl+amse")}


def names() -> list[str]:
    """Single losses, then the published combinations. `make` also takes ALIASES of theirs and any other "active+passive" of two singles."""
    return [*SINGLE, *PAIRS]


def settings(name: str, dataset: str = "cifar10", noise: str = "symmetric") -> tuple[dict, str]:
    """The published hyperparameters of a loss on a data set ("cifar10", "mnist", "cifar100") and their source. Where none are known to us,
    CIFAR-10's, and the source says so.

    `noise` matters for eps-softmax only, whose authors tune it per noise type (on CIFAR-100 by its rate, too, which is not here).

    >>> settings("nce+rce", "mnist")[0]
    {'alpha': 1.0, 'beta': 10.0}
    """
    name = resolve(name)
    if found := ELSEWHERE.get((name, dataset)):
        return dict(found[0]), found[1]
    if name not in PAIRS:
        return dict(DEFAULTS.get(name, {})), "class defaults"
    values, source = PAIRS[name]
    if name in ("eps-ce+mae", "eps-fl+mae"):
        values = values | next((own for kind, own in EPS_BY_NOISE.items() if noise.startswith(kind)), {})
    return dict(values), source if dataset == "cifar10" else f"{source}, for CIFAR-10"


def recipe(name: str, dataset: str = "cifar10", noise: str = "symmetric") -> tuple[dict, float]:
    """What a loss is trained with on a data set: the hyperparameters of `settings`, and the weight of the L1 penalty that stands in for
    weight decay (0: none)."""
    name = resolve(name)
    return settings(name, dataset, noise)[0], L1.get((name, dataset), L1.get((name, "cifar10"), 0.0))


def make(name: str, num_classes: int = 10, reduction: str = "mean", **hyper) -> RobustLoss:
    """Build a loss by name.

    Arguments: name, one of `names()`, an alias ("anl-ce", "jal-fl", ...) or any "active+passive" of single names; num_classes K;
        reduction; hyper overrides the CIFAR-10 defaults (alpha, beta, gamma, q, a, m, tau, detached; in a pair a value goes to the
        parts that have it).
    Raises ValueError for an unknown name, an unknown hyperparameter or a value out of the range in its class's docstring.
    """
    name = resolve(name)
    hyper, parts = settings(name)[0] | hyper, ["ce", "rce"] if name == "sce" else name.split("+")
    weights = ["alpha", "beta"] if len(parts) == 2 else []
    allowed = [*weights, *sorted(set().union(*map(accepted, parts)))]
    if unknown := sorted(set(hyper) - set(allowed)):
        raise ValueError(f"loss {name!r} has no setting {unknown}; it has {allowed or 'none'}")
    if not weights:
        return SINGLE[name](num_classes, reduction, **hyper)
    weights = {k: hyper[k] for k in weights if k in hyper}
    own = [DEFAULTS.get(part, {}) | {k: v for k, v in hyper.items() if k in accepted(part)} for part in parts]
    made = (SINGLE[part](num_classes, **options) for part, options in zip(parts, own, strict=True))
    return ActivePassive(*made, **weights, reduction=reduction)


def resolve(name: str) -> str:
    name = ALIASES.get(str(name).lower(), str(name).lower())
    parts = name.split("+")
    if name == "sce" or (len(parts) <= 2 and all(part in SINGLE for part in parts)):
        return name
    known = ", ".join([*names(), *ALIASES])
    raise ValueError(f"loss must be one of {known} or a pair 'active+passive' of single ones, not {name!r}")


def accepted(name: str) -> set[str]:
    return set(inspect.signature(SINGLE[name].__init__).parameters) - {"self", "num_classes", "reduction"}
