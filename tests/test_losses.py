"""What the papers claim of the losses, and what copies of them get wrong."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from saidl import losses

K = 7
LABEL_SUMS = {
    "mae": K - 1, "rce": losses.LOG_ZERO * (K - 1), "nce": 1, "nfl": 1, "nmae": 1, "nrce": 1, "ngce": 1, "nnce": K - 1, "nnfl": K - 1,
    "nce+mae": K, "nfl+rce": 1 + losses.LOG_ZERO * (K - 1), "nce+nnce": 5 * K, "nfl+nnfl": 5 * K,
}  # fmt: skip


def batch(n=64, k=K, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64) * scale
    return logits.to(dtype), torch.randint(k, (n,), generator=generator)


def one_hot_value(name, z, y):
    """Each loss once more, from the one-hot label and the probabilities as the papers print it, in NumPy float64."""
    z, y = z.numpy(), np.eye(z.shape[1])[y.numpy()]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    k, A = p.shape[1], math.log(1e4)
    ce, fl = -np.log(p), -((1 - p) ** 0.5) * np.log(p)
    at = lambda v: (v * y).sum(1)  # noqa: E731
    room_ce = math.log(1e7) + np.log(np.maximum(p, 1e-7))
    clamped = np.maximum(p, 1e-7)
    room_fl = (1 - 1e-7) ** 0.5 * math.log(1e7) + (1 - clamped) ** 0.5 * np.log(clamped)
    m = 1e5
    eps = (p + m * (p == p.max(1, keepdims=True))) / (m + 1)
    clipped = z * np.minimum(1, 2.5 / np.linalg.norm(z, axis=1, keepdims=True))
    log_clipped = clipped - np.log(np.exp(clipped).sum(1, keepdims=True))
    simple = {
        "ce": at(ce), "fl": at(fl), "mae": np.abs(p - y).sum(1) / 2, "rce": -(p * np.where(y > 0, 0, math.log(1e-4))).sum(1),
        "gce": (1 - at(p) ** 0.7) / 0.7, "nce": at(ce) / ce.sum(1), "nfl": at(fl) / fl.sum(1),
        "nmae": np.abs(p - y).sum(1) / (2 * (k - 1)), "nrce": A * (1 - at(p)) / (A * (1 - p)).sum(1),
        "ngce": (1 - at(p) ** 0.7) / (1 - p**0.7).sum(1), "agce": (1.6**0.6 - (0.6 + at(p)) ** 0.6) / 0.6,
        "aul": ((5.5 - at(p)) ** 3 - 4.5**3) / 3, "ael": np.exp(-at(p) / 2.5), "nnce": 1 - at(room_ce) / room_ce.sum(1),
        "nnfl": 1 - at(room_fl) / room_fl.sum(1), "amse": ((p - 30 * y) ** 2).mean(1), "eps-ce": -np.log(at(eps)),
        "eps-fl": -((1 - at(eps)) ** 0.1) * np.log(at(eps)), "logitclip-ce": -at(log_clipped),
    }  # fmt: skip
    return simple[name]


@pytest.mark.parametrize("name", list(losses.SINGLE))
def test_value_is_the_one_hot_formula(name):
    z, y = batch()
    np.testing.assert_allclose(losses.make(name, K, "none")(z, y), one_hot_value(name, z, y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in losses.names() if "+" in n])
def test_pair_is_the_weighted_sum_of_its_parts(name):
    (active, passive), (hyper, _), (z, y) = name.split("+"), losses.settings(name), batch()
    parts = []
    for part in (active, passive):
        own = {k: v for k, v in hyper.items() if k in losses.accepted(part)}
        parts.append(losses.make(part, K, "none", **own)(z, y))
    expected = hyper["alpha"] * parts[0] + hyper["beta"] * parts[1]
    torch.testing.assert_close(losses.make(name, K, "none")(z, y), expected)


@pytest.mark.parametrize("name", LABEL_SUMS)
def test_sum_over_labels_is_constant(name):
    loss = losses.make(name, K, "none")
    z, _ = batch(200, scale=10)
    total = sum(loss(z, torch.full((200,), k)) for k in range(K))
    torch.testing.assert_close(total, torch.full_like(total, LABEL_SUMS[name]))


@pytest.mark.parametrize("name", ["ce", "fl", "gce", "sce", "agce", "amse", "eps-ce"])
def test_sum_over_labels_is_not_constant_for_the_others(name):
    loss, (z, _) = losses.make(name, K, "none"), batch(200, scale=10)
    total = sum(loss(z, torch.full((200,), k)) for k in range(K))
    assert total.std() > 1e-3


@pytest.mark.parametrize("name", losses.names())
def test_gradient_is_that_of_finite_differences(name):
    z, y = batch(8)
    # at a clamp or where the largest entry changes the derivative does not exist; random logits of this size stay clear of both
    assert torch.autograd.gradcheck(losses.make(name, K, "sum"), (z.requires_grad_(), y), atol=1e-6)


@given(seed=st.integers(0, 10**6), name=st.sampled_from(losses.names()))
@settings(max_examples=60, deadline=None)
def test_a_sample_does_not_feel_its_batch(seed, name):
    z, y = batch(6, seed=seed)
    loss = losses.make(name, K, "none")
    alone = torch.cat([loss(z[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(loss(z, y), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", losses.names())
def test_extreme_logits_keep_value_and_gradient_finite(name, dtype):
    z = torch.tensor(
        [[1e4] + [-1e4] * 9, [-1e4] + [1e4] * 9, [1e4] * 10, [-1e4] * 10, [0.0] * 10, [1e4, -1e4] * 5], dtype=dtype
    )
    z = z.repeat_interleave(2, 0).requires_grad_()
    y = torch.tensor([0, 1] * 6)
    value = losses.make(name, reduction="none")(z, y)
    value.sum().backward()
    assert value.isfinite().all()
    assert z.grad.isfinite().all()
    assert value.dtype == torch.float32


def test_autocast_computes_in_float32():
    z, y = batch(dtype=torch.float32)
    outside = losses.make("nce+rce", K)(z, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.make("nce+rce", K)(z, y), outside)
        assert losses.make("nce", K)(z.bfloat16(), y).dtype == torch.float32


@pytest.mark.parametrize(("name", "low", "high"), [("fl", 0.03, 0.2), ("nfl", 0.03, 0.3)])
def test_detached_focal_factor_keeps_the_value_and_loses_part_of_the_gradient(name, low, high):
    z, y = batch(2000, k=10, scale=1.0)
    gradients = []
    for detached in (False, True):
        x = z.clone().requires_grad_()
        loss = losses.make(name, detached=detached)(x, y)
        gradients.append(torch.autograd.grad(loss, x)[0])
    true, wrong = gradients
    assert low < (wrong - true).norm() / true.norm() < high
    torch.testing.assert_close(losses.make(name)(z, y), losses.make(name, detached=True)(z, y))


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("name", ["nfl", "nnfl", "nfl+nnfl"])
def test_rows_handled_a_few_at_a_time_give_the_same(monkeypatch, name, detached):
    (z, y), results = batch(11), []
    z[0, 0], y[0] = 60.0, 0  # p = 1: at the clamp
    z.requires_grad_()
    for entries in (10**6, 3 * K):
        monkeypatch.setattr(losses, "CACHED", entries)
        value = losses.make(name, K, "none", detached=detached)(z, y)
        (first,) = torch.autograd.grad(value.square().sum(), z, create_graph=True)
        results.append((value, first, torch.autograd.grad(first.square().sum(), z)[0]))
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(large, small)
    if not detached:
        assert torch.autograd.gradcheck(losses.make(name, K, "sum"), (z[1:], y[1:]), atol=1e-6)


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("sure", [0.0, 8.0, 16.0])
def test_rows_handled_a_few_at_a_time_are_right_in_single_precision(monkeypatch, sure, gamma, detached):
    """Also where p is so near 1 that 1 - exp(log p) has hardly a digit left: the shares, and the gradient as it reaches the logits."""
    monkeypatch.setattr(losses, "CACHED", 3 * K)
    z, y = batch(40)
    z[::2, 1] += sure
    y[::4] = 1
    log_p, got = z.log_softmax(1).float(), []
    for dtype in (torch.float32, torch.float64):
        x = log_p.to(dtype).requires_grad_()
        value = losses.focal_share(x, y, gamma, detached)
        slope = torch.autograd.grad(value.sum(), x)[0].double()
        got.append((value.double(), slope - log_p.double().exp() * slope.sum(1, keepdim=True)))
    (single, single_slope), (double, double_slope) = got
    torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-15)
    largest = double_slope.abs().amax(1, keepdim=True)
    torch.testing.assert_close(single_slope / largest, double_slope / largest, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", losses.names())
def test_confident_mistakes_are_learnt_from_in_float32_as_in_float64(name):
    """However small the gradient of the label's own logit, its first digits are there."""
    z = torch.zeros(6, K)
    z[:, 3] = torch.tensor([2.0, 8.0, 14.0, 16.0, 20.0, 25.0])
    got = []
    for dtype in (torch.float32, torch.float64):
        x = z.detach().to(dtype).requires_grad_()
        losses.make(name, K, "sum")(x, torch.zeros(6, dtype=torch.int64)).backward()
        got.append(x.grad[:, 0].double())
    torch.testing.assert_close(*got, rtol=1e-4, atol=0)


@pytest.mark.parametrize("low", [-1e4, -1e9, -1e38])
def test_classes_that_are_ruled_out_keep_the_slope_of_the_label(monkeypatch, low):
    """As by a mask on the logits, the label's among them: its share is another one's rival, and both are huge."""
    monkeypatch.setattr(losses, "CACHED", 3 * K)
    z, _ = batch(40)
    z[:, 1:3] = torch.tensor([low, 1.5 * low])
    y, got = torch.ones(40, dtype=torch.int64), []
    for dtype in (torch.float32, torch.float64):
        x = z.to(dtype).requires_grad_()
        losses.make("nfl", K, "sum", gamma=2.0)(x, y).backward()
        got.append(x.grad[:, 1].double())
    torch.testing.assert_close(*got, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["nfl", "nnfl"])
def test_extreme_logits_also_a_few_rows_at_a_time(monkeypatch, name, dtype):
    monkeypatch.setattr(losses, "CACHED", 20)
    test_extreme_logits_keep_value_and_gradient_finite(name, dtype)


@pytest.mark.parametrize("entries", [losses.CACHED, 20])
def test_a_sure_negative_loss_is_zero_or_one_however_many_classes(monkeypatch, entries):
    monkeypatch.setattr(losses, "CACHED", entries)
    z = torch.tensor([[1e4] + [0.0] * 999] * 2)
    for name in ("nnce", "nnfl"):
        assert losses.make(name, 1000, "none")(z, torch.tensor([0, 1])).tolist() == [0, 1]


LIMITS = {
    "gce": {"q": (1e-9, 1)}, "ngce": {"q": (1e-9, 1)}, "nfl": {"gamma": (0, 100)}, "nnfl": {"gamma": (0, 100)},
    "agce": {"a": (1e-9, 100), "q": (1e-3, 10)}, "aul": {"a": (1.001, 100), "q": (1e-3, 10)}, "ael": {"a": (1e-9, 1e6)},
    "amse": {"a": (1e-9, 1e6)}, "eps-fl": {"m": (1e-6, 1e12), "gamma": (0, 100), "floor": (0, 0.1)}, "logitclip-ce": {"tau": (1e-9, 1e9)},
    "nce+rce": {"alpha": (0, 1e6), "beta": (0, 1e6)},
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_float32_holds_up_to_a_settings_limits_and_no_further_is_taken(name):
    z = torch.tensor([[0.0] * 10, [1e4] + [-1e4] * 9, [-1e4] + [1e4] * 9, [20.0] + [0.0] * 9]).repeat_interleave(2, 0)
    for values in product(*LIMITS[name].values()):
        x = z.clone().requires_grad_()
        loss = losses.make(name, 10, "none", **dict(zip(LIMITS[name], values, strict=True)))(
            x, torch.tensor([0, 1] * 4)
        )
        loss.sum().backward()
        assert loss.isfinite().all()
        assert x.grad.isfinite().all()
    for setting, (low, high) in LIMITS[name].items():
        for beyond in (low - 1e-9, high * 1.1):
            with pytest.raises(ValueError, match=f"{setting} must be a number in"):
                losses.make(name, **{setting: beyond})


def test_cross_entropy_is_torchs():
    z, y = batch()
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(losses.make("ce", K, reduction)(z, y), F.cross_entropy(z, y, reduction=reduction))


def test_limits():
    z, y = batch()
    torch.testing.assert_close(losses.make("fl", K, gamma=0.0)(z, y), losses.make("ce", K)(z, y))
    torch.testing.assert_close(losses.make("gce", K, q=1.0)(z, y), losses.make("mae", K)(z, y))
    torch.testing.assert_close(losses.make("gce", K, q=1e-9)(z, y), losses.make("ce", K)(z, y))
    torch.testing.assert_close(losses.make("logitclip-ce", K, tau=1e9)(z, y), losses.make("ce", K)(z, y))
    torch.testing.assert_close(losses.make("rce", K)(z, y), losses.LOG_ZERO * losses.make("mae", K)(z, y))
    torch.testing.assert_close(losses.make("sce", K, alpha=1.0, beta=0.0)(z, y), losses.make("ce", K)(z, y))


def test_epsilon_softmax_may_be_bounded_from_below_as_its_authors_do():
    z, y = (20 * batch()[0]).double().requires_grad_(), batch()[1]
    q = z.softmax(1).clone()
    q[torch.arange(len(q)), q.argmax(1)] += 1e5
    theirs = F.nll_loss((q / (1e5 + 1)).clamp(min=1e-8).log(), y)
    ours = losses.make("eps-ce", K, floor=1e-8)(z, y)
    torch.testing.assert_close(ours, theirs)
    (g,), (expected,) = torch.autograd.grad(ours, z), torch.autograd.grad(theirs, z)
    torch.testing.assert_close(g, expected)
    assert (g == 0).all(1).any()
    assert not (torch.autograd.grad(losses.make("eps-ce", K)(z, y), z)[0] == 0).all(1).any()


def test_symmetric_noise_moves_the_risk_as_the_theorem_says():
    """R_eta = eta C/(K-1) + (1 - eta K/(K-1)) R, exactly, when every label is spread over its row of T."""
    eta, (z, y) = 0.3, batch(100)
    for name in ("mae", "nce", "nfl", "nce+rce"):
        loss = losses.make(name, K, "none")
        every = torch.stack([loss(z, torch.full((100,), k)) for k in range(K)], 1)  # (N, K)
        clean = loss(z, y)
        risk = (1 - eta) * clean + eta / (K - 1) * (every.sum(1) - clean)
        torch.testing.assert_close(
            risk, eta * LABEL_SUMS.get(name, every[0].sum()) / (K - 1) + (1 - eta * K / (K - 1)) * clean
        )


def test_the_number_of_classes_may_be_numpys():
    z, y = batch()
    assert losses.make("nce+rce", np.int64(K))(z, y) == losses.make("nce+rce", K)(z, y)


def test_settings_follow_the_data_set():
    assert losses.settings("nce+mae", "mnist")[0] == {"alpha": 1.0, "beta": 10.0}
    assert losses.settings("nce+rce", "cifar100")[0] == {"alpha": 10.0, "beta": 0.1}
    assert losses.settings("eps-ce+mae", noise="asymmetric")[0] == {"alpha": 0.02, "beta": 10.0, "m": 1e3}
    assert losses.settings("eps-fl+mae", noise="instance-dependent")[0] == {"alpha": 0.045, "beta": 20.0, "m": 1e5}
    assert losses.settings("anl-fl", "mnist") == ({"alpha": 1.0, "beta": 1.0}, losses.ANL)
    assert losses.settings("ngce+mae", "cifar100") == (losses.settings("ngce+mae")[0], f"{losses.NOTES}, for CIFAR-10")
    assert losses.make("anl-ce").alpha == 5.0
    assert losses.make("nce+agce").passive.a == 6.0
    assert losses.make("eps-fl").gamma == losses.make("eps-fl+mae").active.gamma == 0.1
    assert losses.make("nce+aul").passive.a == 6.3
    penalties = [losses.recipe("anl-ce", data)[1] for data in ("cifar10", "mnist", "cifar100")]
    assert penalties == [5e-5, 1e-6, 5e-7]  # Ye et al. 2023
    assert [losses.recipe("jal-ce", data)[1] for data in ("cifar10", "cifar100")] == [5e-5, 5e-6]  # Wang et al. 2025


def test_settings_are_the_callers_own():
    losses.settings("nce+rce", "mnist")[0].clear()
    assert losses.settings("nce+rce", "mnist")[0] == {"alpha": 1.0, "beta": 10.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.make("nonsense"), "loss must be one of"),
        (lambda: losses.make("nce+nonsense"), "loss must be one of"),
        (lambda: losses.make("ce", q=1), "has no setting"),
        (lambda: losses.make("gce", q=0.0), "q must be"),
        (lambda: losses.make("aul", a=1.0), "a must be"),
        (lambda: losses.make("fl", gamma=float("nan")), "gamma must be"),
        (lambda: losses.make("fl", gamma=True), "gamma must be"),
        (lambda: losses.make("ce", num_classes=1), "num_classes"),
        (lambda: losses.make("ce", reduction="max"), "reduction"),
        (lambda: losses.make("ce")(torch.zeros(2, 9), torch.zeros(2, dtype=torch.long)), "logits must be"),
        (lambda: losses.make("ce")(np.zeros((2, 10)), torch.zeros(2, dtype=torch.long)), "a torch tensor, not ndarray"),
        (lambda: losses.make("ce")(torch.zeros(10), torch.zeros(2, dtype=torch.long)), "logits must be"),
        (lambda: losses.make("ce")(torch.zeros(2, 10), torch.zeros(2)), "target must be int64"),
        (lambda: losses.make("ce")(torch.zeros(2, 10), np.zeros(2, np.int64)), "a torch tensor, not ndarray"),
        (lambda: losses.make("ce")(torch.zeros(2, 10), torch.zeros(3, dtype=torch.long)), "target must be int64"),
        (lambda: losses.make("ce")(torch.zeros(2, 10), torch.tensor([0, 10])), "found 10"),
        (lambda: losses.make("ce")(torch.zeros(2, 10), torch.tensor([0, -100])), "found -100"),
        (lambda: losses.make("logitclip-ce+mae"), "cannot be part of a pair"),
        (lambda: losses.make("mae+logitclip-ce"), "cannot be part of a pair"),
        (lambda: losses.ActivePassive(losses.make("nce", 10), losses.make("rce", 9)), "same num_classes, not 10 and 9"),
        (lambda: losses.make("fl", detached="no"), "detached must be True or False"),
        (lambda: losses.ActivePassive("nce", losses.make("rce")), "active must be a loss of this module, not 'nce'"),
        (lambda: losses.ActivePassive(losses.make("nce"), torch.nn.MSELoss()), "passive must be a loss of this module"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_ensemble_at_once_is_one_after_another():
    torch.manual_seed(0)
    z, y = torch.randn(3, 40, 1700), torch.arange(40)  # more entries than a loss takes in one piece
    loss = losses.make("nfl", 1700)
    at_once = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(z, y)
    for one, found in zip(z, at_once, strict=True):
        torch.testing.assert_close(torch.func.grad(loss)(one, y), found)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # torch's own
@pytest.mark.parametrize("name", ["nfl", "nnfl"])
@pytest.mark.parametrize("batch", [4, 9000])  # a few rows, and so many that they are taken in parts
def test_forward_derivatives_are_differences(name, batch):
    torch.manual_seed(0)
    z, along = torch.randn(2, batch, 10, dtype=torch.float64)
    loss, y = losses.make(name), torch.arange(batch) % 10
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(loss(forward_ad.make_dual(z, along), y)).tangent
    difference = (loss(z + 1e-6 * along, y) - loss(z - 1e-6 * along, y)) / 2e-6
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-9)
