"""S4D and S4: convolution, steps and a plain recurrence agree; length, rate, precision and the future."""

import copy
import inspect
import io
import math
import pickle

import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from torch.nn.utils import prune

from saidl import ssm
from saidl.ssm import hippo, kernels

LAYERS = [ssm.S4D, ssm.S4]
EVEN = ssm.METHODS[:-1]  # those for evenly spaced input


def make(cls, method="zoh", H=3, N=6, **options):
    torch.manual_seed(0)
    # forward Euler is stable only for small steps
    small = {"dt_min": 1e-4, "dt_max": 1e-3} if method == "forward-euler" else {}
    return cls(H, N, method=method, **small, **options).double()


def stepped(layer, u, rate=1.0):
    state, ys = layer.initial_state(len(u), rate), []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state)
        ys.append(y_t)
    return torch.stack(ys, 1)


def recurrence(layer, u, method, alpha=0.5):
    """x_k = Ab x_{k-1} + Bb u_k, y_k = C x_k + D u_k, a channel and a step at a time, from the parameters alone."""
    A = torch.complex(-torch.exp(layer.log_A_real), layer.A_imag)
    pair = lambda p: torch.view_as_complex(p)  # noqa: E731
    P = pair(layer.P) if isinstance(layer, ssm.S4) else torch.zeros_like(A)
    B = torch.ones_like(A) if layer.B is None else pair(layer.B)
    A, B = kernels.dplr_to_dense(A, P, B)
    y = torch.empty_like(u)
    for h in range(u.shape[-1]):
        Ab, Bb = ssm.discretize(A[h], B[h], torch.exp(layer.log_dt[h]), method, alpha=alpha)
        x = torch.zeros(len(u), len(Bb), dtype=u.dtype)
        for t in range(u.shape[1]):
            x = x @ Ab.T + u[:, t, h, None] * Bb
            y[:, t, h] = x @ kernels.real_row(pair(layer.C))[h] + layer.D[h] * u[:, t, h]
    return y


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("method", EVEN)
@pytest.mark.parametrize("length", [1, 2, 37, 64])
@torch.no_grad()
def test_convolution_is_step_is_recurrence(cls, method, length):
    layer = make(cls, method, alpha=0.7)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    y = layer(u)
    assert y.shape == u.shape
    torch.testing.assert_close(stepped(layer, u), y, rtol=1e-9, atol=1e-10)
    # torch.matrix_exp is good to 1e-13, and 64 steps add up
    torch.testing.assert_close(recurrence(layer, u, method, 0.7), y, rtol=1e-8, atol=1e-9)
    bare = ssm.direct_conv(u.mT, layer.kernel(length)).mT + layer.D * u
    torch.testing.assert_close(bare, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("method", ["zoh", "bilinear", "backward-euler", "gbt", "dirac", "async"])
@torch.no_grad()
def test_single_precision_agrees_too(cls, method):
    torch.manual_seed(0)
    layer = cls(16, 64, method=method)
    u = torch.randn(2, 301, 16)
    gaps = (
        {"gaps": torch.ones(301)} if method == "async" else {}
    )  # every event costs an exponential: of a matrix, for S4
    y, exact = layer(u, **gaps), layer.double()(u.double(), **{k: v.double() for k, v in gaps.items()})
    layer.float()
    # S4D discretises in float64 and S4 powers a rounded Ab by squaring
    assert (y - exact).abs().max() < (1e-6 if cls is ssm.S4D else 1e-5) * exact.abs().max()
    assert (stepped(layer, u) - exact).abs().max() < 5e-6 * exact.abs().max()  # Ab^l from a rounded Ab, step after step


@torch.no_grad()
def test_a_kernel_in_single_precision_is_rounded_once():
    """Its rates are discretised in float64: an error in dt A would grow with the lag."""
    torch.manual_seed(0)
    layer = ssm.S4D(16, 64)
    K = layer.kernel(4096)
    exact = layer.double().kernel(4096)
    assert (K - exact).norm() < 4e-7 * exact.norm()


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_double_input_steps_through_a_single_precision_layer(cls):
    layer, u = cls(3, 4), torch.randn(2, 9, 3, dtype=torch.float64)
    assert stepped(layer, u).dtype == torch.float64
    torch.testing.assert_close(stepped(layer, u), layer(u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("method", EVEN)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients(cls, method, bidirectional):
    layer = make(cls, method, H=2, N=4, bidirectional=bidirectional)
    names = [n for n, _ in layer.named_parameters()]
    u = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    call = lambda u, *p: torch.func.functional_call(layer, dict(zip(names, p, strict=True)), u)  # noqa: E731
    torch.autograd.gradcheck(call, (u, *(p.detach().clone().requires_grad_() for p in layer.parameters())))


@pytest.mark.parametrize("cls", LAYERS)
def test_gradients_through_steps(cls):
    layer = make(cls)
    u = torch.randn(2, 9, 3, dtype=torch.float64)
    grads = [
        torch.autograd.grad(f(u).square().sum(), tuple(layer.parameters()))
        for f in (layer, lambda u: stepped(layer, u))
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_steps_cannot_see_the_future(cls):
    """State after t inputs is a function of them alone, to the last bit; and so is the direct convolution."""
    layer, u = make(cls, conv="direct"), torch.randn(2, 30, 3, dtype=torch.float64)
    later = torch.cat([u[:, :20], 1e9 * torch.randn(2, 10, 3, dtype=torch.float64)], 1)
    assert torch.equal(stepped(layer, u)[:, :20], stepped(layer, later)[:, :20])
    assert torch.equal(layer(u)[:, :20], layer(later)[:, :20])
    assert not torch.equal(layer(u)[:, 20:], layer(later)[:, 20:])


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_fft_convolution_sees_the_future_only_as_rounding(cls):
    layer, u = make(cls), torch.randn(2, 300, 3, dtype=torch.float64)
    later = torch.cat([u[:, :200], u[:, 200:] + torch.randn(2, 100, 3, dtype=torch.float64)], 1)
    y = layer(u)
    assert (y - layer(later))[:, :200].abs().max() < 1e-14 * y.abs().max()
    torch.testing.assert_close(layer(u[:, :200]), y[:, :200], rtol=0, atol=1e-13)  # a prefix is a prefix


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_bidirectional_is_two_causal_layers(cls):
    both = make(cls, bidirectional=True)
    u = torch.randn(2, 21, 3, dtype=torch.float64)
    ahead, behind = (make(cls) for _ in range(2))
    state = {k: v for k, v in both.state_dict().items() if k not in ("C", "D")}
    behind.load_state_dict(state | {"C": both.C[0], "D": both.D})
    ahead.load_state_dict(state | {"C": both.C[1], "D": torch.zeros_like(both.D)})
    shifted = torch.cat([torch.zeros_like(u[:, :1]), u.flip(1)[:, :-1]], 1)  # the future starts one step on
    torch.testing.assert_close(both(u), behind(u) + ahead(shifted).flip(1))
    assert both.kernel(21).shape == (2, 3, 21)
    with pytest.raises(ValueError, match="bidirectional"):
        both.initial_state(2)
    with pytest.raises(ValueError, match="bidirectional"):
        both.step(u[:, 0], behind.initial_state(2))


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_rate_resamples(cls):
    """Input held for two half steps gives, under zoh, every whole step's output again."""
    layer = make(cls, "zoh")
    u = torch.randn(2, 15, 3, dtype=torch.float64)
    fine = layer(u.repeat_interleave(2, 1), rate=0.5)
    torch.testing.assert_close(fine[:, 1::2], layer(u), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(stepped(layer, u.repeat_interleave(2, 1), 0.5), fine, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        layer.kernel(15, 2.0), layer.kernel(30).unflatten(-1, (15, 2)).sum(-1), rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_async_with_even_gaps_is_zoh_and_a_pause_is_silence(cls):
    events, even = make(cls, "async"), make(cls, "zoh")
    u = torch.randn(2, 12, 3, dtype=torch.float64)
    gaps = torch.ones(12, dtype=torch.float64)
    torch.testing.assert_close(events(u, gaps=gaps), even(u), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(events.kernel(12), even.kernel(12))
    # leaving out the silent inputs and counting the time instead changes nothing
    u[:, 3:6] = 0
    kept = [0, 1, 2, *range(6, 12)]
    gaps = gaps[: len(kept)].clone()
    gaps[3] = 4
    torch.testing.assert_close(events(u[:, kept], gaps=gaps), even(u)[:, kept], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cls", LAYERS)
@torch.no_grad()
def test_async_at_half_the_rate_is_a_layer_of_half_the_step(cls):
    events, halved = make(cls, "async"), make(cls, "async")
    halved.log_dt += math.log(0.5)
    u, gaps = torch.randn(2, 5, 3, dtype=torch.float64), [1, 2.5, 0, 1, 4]
    torch.testing.assert_close(events(u, rate=0.5, gaps=gaps), halved(u, gaps=gaps))
    torch.testing.assert_close(events.kernel(5, rate=0.5), halved.kernel(5))


@pytest.mark.parametrize("cls", LAYERS)
def test_state_dict_knows_no_length(cls):
    layer = cls(4, 8)
    before = {k: v.shape for k, v in layer.state_dict().items()}
    for length in (1, 17, 64):
        layer(torch.randn(1, length, 4)).sum().backward()
    assert {k: v.shape for k, v in layer.state_dict().items()} == before
    assert all(v.dtype == torch.float32 for v in layer.state_dict().values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("cls", LAYERS)
def test_saved_copied_and_pickled(cls, tmp_path):
    layer, other = cls(4, 8), cls(4, 8)
    u = torch.randn(1, 9, 4)
    save_model(layer, tmp_path / "layer.safetensors")
    load_model(other, tmp_path / "layer.safetensors")
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(u), layer(u))
    buffer = io.BytesIO()
    torch.save(layer.initial_state(2), buffer)  # a state can wait on disk
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False).Ab, layer.initial_state(2).Ab)


MODES = torch.complex(-torch.rand(3, 5) - 0.1, torch.randn(3, 5))  # for 5 channels of 6 states


def test_modes_given_transposed_are_saved(tmp_path):
    for init in (MODES.T, MODES.mH):
        layer, other = ssm.S4D(5, 6, init=init, train_B=True), ssm.S4D(5, 6, train_B=True)
        torch.testing.assert_close(layer._A().detach(), init.resolve_conj(), check_dtype=False)
        save_file(layer.state_dict(), tmp_path / "layer.safetensors")  # refuses what is not contiguous
        load_model(other, tmp_path / "layer.safetensors")
        assert torch.equal(other.kernel(9), layer.kernel(9))


@pytest.mark.parametrize("cls", LAYERS)
def test_layers_that_differ_in_an_option_differ_in_repr(cls):
    """A checkpoint is compared by it."""
    base = {"d_model": 5, "d_state": 6}
    changes = {
        "d_model": [4], "d_state": [8], "method": ["dirac", "gbt"], "alpha": [0.3, 0.30000000000000004], "train_B": [True],
        "bidirectional": [True], "dt_min": [2e-3], "dt_max": [0.2], "conv": ["direct"],
        "init": ["lin", "inv", "real", MODES.T, MODES.T + 1e-6, MODES[:, 0]],
    }  # fmt: skip
    changes = {name: changes[name] for name in inspect.signature(cls).parameters}  # all there are
    reprs = [repr(cls(**base | {name: value})) for name, values in changes.items() for value in values]
    assert len({repr(cls(**base)), *reprs}) == len(reprs) + 1
    again = [repr(cls(**base | {name: value})) for name, values in changes.items() for value in values]
    assert again == reprs


def test_repr_shows_the_options_and_nothing_of_the_process():
    init = torch.tensor([-1 + 2j, -1 + 3j])
    options = "method='zoh', alpha=0.5, bidirectional=False, dt_min=0.001, dt_max=0.1, conv='fft'"
    assert repr(ssm.S4D(3, 4, init=init)) == f"S4D(3, 4, {options}, init='(2,) 69080be7', train_B=False)"


def changes(layer, other):
    """Ways in which parameters and what is made of them change."""
    yield lambda: layer.load_state_dict(other.state_dict())
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in (torch.optim.SGD(layer.parameters(), 0.01), torch.optim.AdamW(layer.parameters(), 0.01)):
        yield optimizer.step
    yield lambda: layer.C.data.mul_(2)  # leaves the parameter's version as it was
    yield lambda: setattr(layer, "D", torch.nn.Parameter(layer.D.detach() + 1))
    yield lambda: setattr(layer, "B", torch.nn.Parameter(torch.randn_like(layer.C)))  # S4D's was None
    yield lambda: prune.random_unstructured(layer, "C", 0.5)
    yield lambda: layer.C_mask.mul_(2)  # a buffer, and C is no parameter now
    yield lambda: (prune.remove(layer, "C"), layer.C.data.mul_(2))
    yield lambda: layer.double()
    yield lambda: layer.to(torch.float32)
    yield lambda: setattr(layer, "method", "backward-euler")


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_kept_kernel_is_never_stale(cls, mode):
    layer, other, u = cls(3, 8), cls(3, 8), torch.randn(2, 20, 3)

    def check(u, rate=1.0):
        expected = layer(u, rate).detach()
        for _ in range(2):
            with mode():
                assert torch.equal(layer(u, rate), expected)
        return expected

    last = check(u)
    for change in changes(layer, other):
        change()
        value = check(u.to(layer.D.dtype))
        if layer.D.dtype == last.dtype:
            assert not torch.equal(value, last)
        last = value
    check(u[:, :7]), check(u, 0.5)
    rate = torch.tensor(0.5)
    check(u, rate), check(u, rate.mul_(2))
    assert copy.deepcopy(layer)(u).equal(layer(u))


@pytest.mark.parametrize("cls", LAYERS)
def test_a_kernel_is_kept_between_calls_without_gradients(cls, monkeypatch):
    layer, u, made = cls(3, 8), torch.randn(2, 20, 3), []
    monkeypatch.setattr(layer, "kernel", lambda *args, real=layer.kernel: made.append(args) or real(*args))
    for _ in range(3):
        with torch.no_grad():
            layer(u)
    assert len(made) == 1
    layer(u).sum().backward()
    assert len(made) == 2


@pytest.mark.parametrize("cls", LAYERS)
def test_autocast_leaves_the_layer_exact(cls):
    layer, u = cls(4, 8), torch.randn(2, 33, 4)
    y, steps = layer(u), stepped(layer, u)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(u), y)
        assert torch.equal(stepped(layer, u), steps)
        half = layer(u.bfloat16())
    assert half.dtype == stepped(layer, u.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), y, rtol=0.05, atol=0.05 * y.abs().max().item())
    half.float().sum().backward()
    assert layer.bfloat16()(u.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("cls", LAYERS)
def test_gradients_made_within_autocast_are_those_made_outside(cls):
    layer, u = cls(4, 8), torch.randn(2, 64, 4)
    y = layer(u).square().sum()
    exact = torch.autograd.grad(y, list(layer.parameters()), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        within = torch.autograd.grad(y, list(layer.parameters()))
    tolerance = (
        1e-4 if cls is ssm.S4D else 1e-2
    )  # S4's discretisation is torch's operations, whose gradients autocast rounds
    for a, b in zip(exact, within, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * a.abs().max().item())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.export's own
@pytest.mark.parametrize("cls", LAYERS)
def test_an_exported_layer_is_the_layer_and_leaves_it_as_it_was(cls):
    layer, u = cls(4, 8).eval(), torch.randn(2, 20, 4)
    with torch.no_grad():
        expected = layer(u)
        exported = torch.export.export(layer, (u,), strict=False).module()
        torch.testing.assert_close(exported(u), expected)
        assert torch.equal(layer(u), expected)


@pytest.mark.parametrize("cls", LAYERS)
def test_initial_values(cls):
    torch.manual_seed(0)
    layer = cls(512, 64, dt_min=1e-3, dt_max=1e-1)
    dt = layer.log_dt.exp()
    assert dt.min() >= 1e-3
    assert dt.max() <= 1e-1
    middle = layer.log_dt.mean().item()  # of a uniform law: (log dt_min + log dt_max) / 2
    assert middle == pytest.approx(math.log(1e-2), abs=4 * math.log(100) / math.sqrt(12 * 512))
    torch.testing.assert_close(
        torch.complex(-layer.log_A_real.exp(), layer.A_imag)[0], ssm.INITS["legs"](64).to(torch.complex64)
    )
    assert layer.C.square().sum(-1).mean().item() == pytest.approx(1, abs=0.05)
    slow = {name for name, _ in layer.named_parameters()} & set(layer.slow_parameters)
    assert slow == {"log_dt", "log_A_real", "A_imag"} | ({"P", "B"} if cls is ssm.S4 else set())


def test_s4_starts_from_hippos_low_rank_term_and_input():
    layer, (_, P, B, _) = make(ssm.S4), hippo.normal_plus_low_rank(6)
    for parameter, expected in ((layer.P, P), (layer.B, B)):
        initial = torch.view_as_complex(parameter.detach())  # rounded to single precision
        torch.testing.assert_close(initial, expected.expand(3, 3), rtol=1e-6, atol=1e-6)


def test_s4d_by_hand_and_with_trained_B():
    A = torch.complex(-torch.rand(3, 2) - 0.1, torch.randn(3, 2))
    layer = ssm.S4D(3, 4, init=A, train_B=True)
    torch.testing.assert_close(layer._A().detach(), A, check_dtype=False)
    assert layer.B.shape == (3, 2, 2)
    bare = ssm.S4D(3, 4, init=A)
    bare.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "B"})
    torch.testing.assert_close(layer.kernel(9), bare.kernel(9))
    with torch.no_grad():
        layer.B.mul_(2)
    torch.testing.assert_close(layer.kernel(9), 2 * bare.kernel(9))


@pytest.mark.parametrize("cls", LAYERS)
def test_parameters_are_of_the_default_type(cls):
    torch.set_default_dtype(torch.float64)
    try:
        layer = cls(3, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert torch.equal(layer.A_imag[0], ssm.INITS["legs"](4).imag)  # and nothing was rounded on the way


def test_parameter_count_of_the_reference_example():
    """Per layer of state-spaces/s4's example at H = 128, N = 64: D (H), C (H, N/2, 2), log_dt (H), A (H, N/2) twice."""
    assert sum(p.numel() for p in ssm.S4D(128, 64).parameters()) == 128 + 128 * 64 + 128 + 2 * 128 * 32


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 0}, "d_model"),
        ({"d_model": 2.5}, "d_model must be .* 2.5"),
        ({"d_state": 7}, "d_state must be (even|a whole number).*7"),
        ({"d_state": 0}, "d_state must be (even|a whole number)"),
        ({"d_state": 4.0}, "d_state must be .* 4.0"),
        ({"method": "tustin"}, "method must be one of"),
        ({"alpha": 2.0}, "alpha"),
        ({"dt_min": 0.0}, "dt_min"),
        ({"dt_min": 0.2}, "dt_min and dt_max"),
        ({"dt_max": math.inf}, "dt_max"),
        ({"dt_min": "small"}, "dt_min must be a number.*'small'"),
        ({"dt_max": None}, "dt_max must be a number.*None"),
        ({"conv": "slow"}, "conv must be one of fft, direct"),
        ({"bidirectional": "no"}, "bidirectional must be True or False, not 'no'"),
    ],
)
def test_bad_options(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"d_model": 4, "d_state": 8} | options)


def test_bad_train_B():
    with pytest.raises(ValueError, match="train_B must be True or False, not 1"):
        ssm.S4D(4, 8, train_B=1)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("hippo", "init must be one of legs.*'hippo'"),
        (torch.complex(torch.tensor([-1.0, 0.0]), torch.ones(2)), "init must have Re A < 0"),
        (None, "init must be one of legs.*None"),
        (torch.complex(torch.tensor([-1.0, torch.nan]), torch.ones(2)), "init must be complex, finite"),
        (torch.complex(-torch.ones(2), torch.full((2,), torch.inf)), "init must be complex, finite"),
        (-torch.ones(3, dtype=torch.cfloat), "init must be complex"),
        (-torch.ones(2), "init must be complex"),
    ],
)
def test_bad_init(init, message):
    with pytest.raises(ValueError, match=message):
        ssm.S4D(4, 4, init=init)


def test_init_by_hand_needs_an_even_d_state_too_and_may_be_an_array():
    modes = torch.complex(-torch.ones(3), torch.randn(3))
    assert torch.equal(ssm.S4D(4, 6, init=modes.numpy()).A_imag[0], modes.imag)
    for d_state in (0, 1, 7):
        with pytest.raises(ValueError, match=f"d_state must be (even|a whole number).*{d_state}"):
            ssm.S4D(4, d_state, init=modes[: d_state // 2])


@pytest.mark.parametrize("cls", LAYERS)
def test_bad_calls(cls):
    layer, u = cls(4, 8), torch.randn(2, 5, 4)
    for bad in (u[:, :0], u[..., :3], u[0], u.mT, u.long(), u > 0, u.cfloat(), u.numpy(), None):
        with pytest.raises(ValueError, match=r"u must be \(B, L, 4\)"):
            layer(bad)
    state = layer.initial_state(2)
    for bad in (u, u[:, 0, :3], u[:1, 0], u[0, 0], u[:, 0].long(), u[:, 0] > 0, u[:, 0].cfloat(), [0.0] * 4):
        with pytest.raises(ValueError, match=r"u_t must be \(2, 4\), floating point, got"):
            layer.step(bad, state)
    for bad in (None, u[:, 0], tuple(state)):
        with pytest.raises(ValueError, match="state must be one of"):
            layer.step(u[:, 0], bad)
    for other in (cls(4, 16), cls(3, 8), (ssm.S4 if cls is ssm.S4D else ssm.S4D)(4, 8)):
        with pytest.raises(ValueError, match=r"state must be this layer's, its x \(B, 4, "):
            layer.step(u[:, 0], other.initial_state(2))
    for batch in (-1, 2.0):
        with pytest.raises(ValueError, match=f"batch must be .*{batch}"):
            layer.initial_state(batch)
    for rate in (0.0, -1.0, math.nan, math.inf, "fast", None, torch.ones(2)):
        for call in (lambda r: layer(u, r), lambda r: layer.kernel(5, r), lambda r: layer.initial_state(2, r)):
            with pytest.raises(ValueError, match="rate must be positive"):
                call(rate)
    with pytest.raises(ValueError, match="length"):
        layer.kernel(0)
    with pytest.raises(ValueError, match="'async' and by no other"):
        layer(u, gaps=torch.ones(5))
    events = cls(4, 8, method="async")
    with pytest.raises(ValueError, match="gaps"):
        events(u)
    for gaps in (torch.ones(4), -torch.ones(5), torch.full((5,), math.nan), torch.full((5,), math.inf), [], 1.0, "x"):
        with pytest.raises(ValueError, match="gaps must be"):
            events(u, gaps=gaps)
    for gap in (-1.0, math.nan, math.inf, torch.ones(2)):
        with pytest.raises(ValueError, match="gap must be"):
            events.step(u[:, 0], events.initial_state(2), gap)
    assert torch.equal(events(u, gaps=[0, 1, 1, 2, 1]), events(u, gaps=torch.tensor([0.0, 1, 1, 2, 1])))


@pytest.mark.filterwarnings("ignore:There is a performance drop", "ignore:`torch.jit.script`")  # torch.func's own
@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_transforms_of_torch_func_are_what_they_stand_for(cls, bidirectional):
    """An ensemble at once by vmap, gradients of each sample, and a forward derivative."""
    torch.manual_seed(0)
    layers = [make(cls, H=3, N=4, bidirectional=bidirectional) for _ in range(2)]
    layer, x = layers[0], torch.randn(2, 7, 3, dtype=torch.float64)
    call = lambda p, x: torch.func.functional_call(layer, p, (x,))  # noqa: E731
    stacked, _ = torch.func.stack_module_state(layers)
    one_by_one = torch.stack([one(x) for one in layers])
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(torch.func.vmap(lambda p: call(p, x))(stacked), one_by_one)
    p = {name: value.detach() for name, value in layer.named_parameters()}
    of_one = torch.func.grad(lambda p, x: call(p, x[None]).square().sum())
    each = torch.func.vmap(of_one, in_dims=(None, 0))(p, x)
    for i in range(2):
        usual = torch.autograd.grad(layer(x[i : i + 1]).square().sum(), tuple(layer.parameters()))
        torch.testing.assert_close([each[name][i] for name in p], list(usual))
    along = {name: torch.randn_like(value) for name, value in p.items()}
    _, slope = torch.func.jvp(lambda p: call(p, x), (p,), (along,))
    ahead, behind = (call({n: v + h * along[n] for n, v in p.items()}, x) for h in (1e-6, -1e-6))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-7)
