"""Sequence classifiers: published sizes, parts that agree with torch's own, causality, optimiser groups."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from saidl import models, ssm


def count(net):
    return sum(p.numel() for p in net.parameters())


def classifier(layer="s4d", **options):
    torch.manual_seed(0)
    small = {"d_state": 4} if layer in ("s4", "s4d") else {}
    return models.SequenceClassifier(3, 5, 8, 2, layer, **small | options)


@pytest.mark.parametrize(
    ("preset", "channels", "published"),
    [("s4d-4x128", 3, 201_482), ("s4d-4x128", 1, 201_226), ("s4d-lra-small", 1, 266_762)],
)
def test_published_sizes(preset, channels, published):
    assert count(models.SequenceClassifier(channels, 10, **models.PRESETS[preset])) == published


def test_large_published_size():
    large = models.PRESETS["s4d-lra-small"] | {"d_model": 512, "n_layers": 6}
    assert count(models.SequenceClassifier(1, 10, **large)) == 3_956_746


@pytest.mark.parametrize("layer", models.LAYERS)
@pytest.mark.parametrize("bidirectional", [None, False, True])
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_every_layer_trains_at_any_length(layer, bidirectional, norm):
    net = classifier(layer, bidirectional=bidirectional, norm=norm)
    for length in (1, 7):
        net.zero_grad()
        logits = net(torch.randn(4, length, 3))
        assert logits.shape == (4, 5)
        logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("layer", ["s4d", "s4"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_hessian_products_are_differences_of_gradients(layer, bidirectional):
    net = classifier(layer, bidirectional=bidirectional, dropout=0.0).double()
    u, labels = torch.randn(4, 9, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 4])
    parameters = list(net.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def gradient(**options):
        return torch.autograd.grad(nn.functional.cross_entropy(net(u), labels), parameters, **options)

    along = sum((g * v).sum() for g, v in zip(gradient(create_graph=True), direction, strict=True))
    product = torch.autograd.grad(along, parameters)
    ends = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, v in zip(parameters, direction, strict=True):
                p.add_(v, alpha=step)
        ends.append(gradient())
    for name, hv, ahead, behind in zip(dict(net.named_parameters()), product, *ends, strict=True):
        torch.testing.assert_close(
            hv, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("layer", models.LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_blocks_look_ahead_only_if_told(layer, bidirectional):
    options = {"conv": "direct"} if layer in ("s4", "s4d") else {}
    net = classifier(layer, bidirectional=bidirectional, **options).eval()
    u = torch.randn(2, 12, 8)
    later = torch.cat([u[:, :7], torch.randn(2, 5, 8)], 1)
    for block in net.blocks:
        same = torch.equal(block(u)[:, :7], block(later)[:, :7])
        assert same != bidirectional


@pytest.mark.parametrize("layer", models.LAYERS)
def test_one_sample_does_not_see_another(layer):
    net = classifier(layer).eval()
    u = torch.randn(3, 9, 3)
    torch.testing.assert_close(net(u)[:1], net(u[:1]))


def test_pooling():
    net = classifier(pooling="last", bidirectional=False).eval()
    u = torch.randn(2, 9, 3)
    kept = []
    net.blocks[-1].register_forward_hook(lambda _, __, y: kept.append(y))
    torch.testing.assert_close(net(u), net.decoder(kept[0][:, -1]))
    net.pooling = "mean"
    torch.testing.assert_close(net(u), net.decoder(kept[0].mean(1)))


def test_block_is_the_references_formula():
    block = models.SequenceBlock(ssm.S4D(6, 4), 6, dropout=0.0)
    x = torch.randn(2, 9, 6)
    z = block.mix(nn.functional.gelu(block.mixer(x)))
    expected = nn.functional.layer_norm(x + z[..., :6] * torch.sigmoid(z[..., 6:]), (6,))
    torch.testing.assert_close(block(x), expected)
    block.prenorm = True
    z = block.mix(nn.functional.gelu(block.mixer(nn.functional.layer_norm(x, (6,)))))
    torch.testing.assert_close(block(x), x + z[..., :6] * torch.sigmoid(z[..., 6:]))


def with_masks(block, x):
    """What a block in training gives, and the two masks of dropout that it drew for it."""
    torch.manual_seed(1)
    y = block(x)
    torch.manual_seed(1)
    return y, block.dropout(torch.ones_like(x)), block.dropout(torch.ones_like(x))


def test_a_block_drops_after_the_activation_and_after_the_gate():
    block, x = models.SequenceBlock(ssm.S4D(6, 4), 6, dropout=0.5, prenorm=True), torch.randn(2, 9, 6)
    y, first, second = with_masks(block, x)
    z = block.mix(first * nn.functional.gelu(block.mixer(block.norm(x))))
    torch.testing.assert_close(y, x + second * z[..., :6] * torch.sigmoid(z[..., 6:]))


@pytest.mark.parametrize("prenorm", [False, True])
def test_a_transformer_block_drops_after_attention_and_after_the_mlp(prenorm):
    block, x = models.TransformerBlock(models.Attention(8, True), 8, dropout=0.5, prenorm=prenorm), torch.randn(2, 9, 8)
    y, first, second = with_masks(block, x)
    one, two = block.norms
    if prenorm:
        h = x + first * block.mixer(one(x))
        expected = h + second * block.mlp(two(h))
    else:
        h = one(x + first * block.mixer(x))
        expected = two(h + second * block.mlp(h))
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("prenorm", [False, True])
def test_transformer_block_is_torchs(prenorm):
    """The weights of nn.TransformerEncoderLayer in ours give its output, with and without the causal mask."""
    theirs = nn.TransformerEncoderLayer(8, 4, 32, 0.0, nn.functional.gelu, batch_first=True, norm_first=prenorm)
    x = torch.randn(2, 9, 8)
    for bidirectional in (False, True):
        ours = models.TransformerBlock(models.Attention(8, bidirectional, heads=4), 8, 0.0, prenorm)
        pairs = [
            (ours.mixer.qkv.weight, theirs.self_attn.in_proj_weight),
            (ours.mixer.qkv.bias, theirs.self_attn.in_proj_bias),
            (ours.mixer.out, theirs.self_attn.out_proj),
            (ours.mlp[0], theirs.linear1),
            (ours.mlp[2], theirs.linear2),
            (ours.norms[0], theirs.norm1),
            (ours.norms[1], theirs.norm2),
        ]
        for a, b in pairs:
            a.load_state_dict(b.state_dict()) if isinstance(a, nn.Module) else a.data.copy_(b.data)
        mask = None if bidirectional else nn.Transformer.generate_square_subsequent_mask(9)
        torch.testing.assert_close(ours(x), theirs(x, src_mask=mask, is_causal=not bidirectional))


@pytest.mark.parametrize("layer", models.LAYERS)
@torch.no_grad()
def test_only_a_transformer_looks_ahead_and_norms_first_by_default(layer):
    attends = layer == "transformer"
    told = classifier(layer, bidirectional=attends, prenorm=attends, final_norm=attends).eval()
    u = torch.randn(2, 9, 3)
    assert torch.equal(classifier(layer).eval()(u), told(u))


@torch.no_grad()
def test_a_transformer_knows_the_order_of_its_input_by_positions_alone(monkeypatch):
    net, u = classifier("transformer", bidirectional=True).eval(), torch.randn(2, 9, 3)
    assert (net(u) - net(u.flip(1))).abs().max() > 1e-3
    monkeypatch.setattr(models, "positions", torch.zeros_like)
    torch.testing.assert_close(net(u), net(u.flip(1)))


def test_positions_are_vaswanis():
    table = models.positions(torch.zeros(1, 5, 7))
    for t in range(5):
        for i in range(7):
            angle = t / 10000 ** (2 * (i // 2) / 7)
            assert table[t, i].item() == pytest.approx(math.cos(angle) if i % 2 else math.sin(angle), abs=1e-6)


def test_tied_dropout():
    drop = models.TiedDropout(0.25)
    x = torch.randn(50, 6, 40)
    y = drop(x)
    kept = y[:, 0] != 0
    torch.testing.assert_close(y, x * kept.unsqueeze(1) / 0.75)  # whole channels, the rest scaled up
    assert kept.float().mean().item() == pytest.approx(0.75, abs=4 * math.sqrt(0.25 * 0.75 / 2000))
    assert torch.equal(drop.eval()(x), x)


def test_batch_norm_is_over_batch_and_length():
    x = 3 * torch.randn(4, 9, 6) + 1
    y = models.BatchNorm(6)(x)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(6), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.square().mean((0, 1)), torch.ones(6), rtol=0, atol=1e-4)


@torch.no_grad()
def test_rate_reaches_every_layer():
    net = classifier("s4d").eval()
    u = torch.randn(2, 20, 3)
    mixers = [block.mixer for block in net.blocks]
    slow = copy.deepcopy(net)
    for m in [block.mixer for block in slow.blocks]:
        m.log_dt += math.log(0.5)
    torch.testing.assert_close(net(u, rate=0.5), slow(u))
    assert not torch.allclose(net(u, rate=0.5), net(u))
    assert len(mixers) == 2
    with pytest.raises(ValueError, match="lstm has no sampling rate"):
        classifier("lstm")(u, rate=0.5)


@pytest.mark.parametrize("layer", models.LAYERS)
def test_parameter_groups_hold_every_parameter_once(layer):
    net = copy.deepcopy(classifier(layer))  # what is slow survives a copy
    groups = models.parameter_groups(net, 0.01, 0.05)
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    names = {id(p): n for n, p in net.named_parameters()}
    slow = {names[id(p)].split(".")[-1] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    matrices = {"log_dt", "log_A_real", "A_imag"}
    assert slow == {"s4d": matrices, "s4": matrices | {"P", "B"}}.get(layer, set())
    assert groups[0]["lr"] == 0.01
    assert groups[0]["weight_decay"] == 0.05
    assert all(g["lr"] == 1e-3 for g in groups[1:])
    assert all(g["lr"] == 1e-4 for g in models.parameter_groups(net, 1e-4, 0.0))
    torch.optim.AdamW(groups).step()


def test_parameter_groups_of_a_shared_layer_and_of_an_image_network():
    layer = ssm.S4D(4, 4, train_B=True)
    fast, slow = models.parameter_groups(nn.Sequential(layer, layer), 0.01, 0.0)
    assert {id(p) for p in slow["params"]} == {id(p) for p in (layer.log_dt, layer.log_A_real, layer.A_imag, layer.B)}
    assert {id(p) for p in fast["params"]} == {id(layer.C), id(layer.D)}
    assert len(models.parameter_groups(models.make("small-cnn"), 0.01, 0.0)) == 1


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * x


@pytest.mark.parametrize("cls", [ssm.S4D, ssm.S4])
def test_parameter_groups_find_what_pruning_and_parametrizations_train(cls):
    def change(layer, name, i):
        prune.random_unstructured(layer, name, 0.5) if i % 2 else parametrize.register_parametrization(
            layer, name, Scaled()
        )

    for turn in (0, 1):
        layer = cls(4, 4)
        plain = dict(layer.named_parameters())
        for i, name in enumerate(plain):
            change(layer, name, i + turn)
        fast, slow = models.parameter_groups(layer, 0.01, 0.1)
        assert {id(p) for p in slow["params"]} == {id(p) for name, p in plain.items() if name in cls.slow_parameters}
        # fast are the rest of the layer's own, and the parametrizations'
        assert len(fast["params"]) == 2 + sum(isinstance(m, Scaled) for m in layer.modules())
        layer(torch.randn(2, 5, 4)).sum().backward()
        torch.optim.AdamW([fast, slow]).step()


@pytest.mark.parametrize("layer", ["s4", "lstm", "gru", "transformer"])
def test_matched_width(layer):
    options = {"d_model": 32, "n_layers": 2, "dropout": 0.0, "d_state": 8}
    torch.manual_seed(0)
    width = models.matched_width(layer, options, d_input=3)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))  # counting draws nothing
    budget = count(models.SequenceClassifier(3, 10, **options))
    own = {"d_state": 8} if layer == "s4" else {}
    sizes = [count(models.SequenceClassifier(3, 10, w, 2, layer, **own)) for w in (width - 4, width, width + 4) if w]
    gaps = [abs(size - budget) for size in sizes]
    assert min(gaps) == gaps[-2]


def test_a_preset_has_a_matched_width():
    preset = models.PRESETS["s4d-4x128"]
    bare = {name: value for name, value in preset.items() if name != "layer"}
    assert models.matched_width("lstm", preset) == models.matched_width("lstm", bare)


@pytest.mark.parametrize("layer", models.LAYERS)
def test_autocast(layer):
    net, u = classifier(layer, dropout=0.0), torch.randn(2, 9, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(u)
    logits.float().square().sum().backward()
    torch.testing.assert_close(logits.float(), net(u), rtol=0.1, atol=0.1)
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("layer", ["s4d", "s4"])
def test_a_memory_task_is_learnt(layer):
    """Which of two symbols came first, 60 steps ago: chance without memory."""
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (256,))
    u = 0.1 * torch.randn(256, 60, 1)
    u[:, 0, 0] += 2.0 * labels - 1
    net = models.SequenceClassifier(1, 2, 16, 1, layer, pooling="last", d_state=16, dropout=0.0)
    optimiser = torch.optim.AdamW(models.parameter_groups(net, 0.01, 0.0))
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(u), labels).backward()
        optimiser.step()
    fresh = 0.1 * torch.randn(256, 60, 1)
    fresh[:, 0, 0] += 2.0 * labels - 1
    assert (net.eval()(fresh).argmax(1) == labels).float().mean() > 0.97


@pytest.mark.parametrize("layer", models.LAYERS)
def test_networks_that_differ_in_an_option_differ_in_repr(layer):
    """A checkpoint is compared by it."""
    base = {"d_input": 3, "num_classes": 5, "d_model": 8, "n_layers": 2, "layer": layer, "bidirectional": False}
    base |= {"prenorm": False, "final_norm": False}
    changes = {
        "d_input": 2, "num_classes": 4, "d_model": 4, "n_layers": 1, "layer": {"s4": "s4d"}.get(layer, "s4"), "dropout": 0.2,
        "norm": "batch", "prenorm": True, "final_norm": True, "bidirectional": True, "pooling": "last",
    }  # fmt: skip
    assert {*changes, "layer_options"} == set(inspect.signature(models.SequenceClassifier).parameters)
    changes |= {"s4d": {"alpha": 0.3, "init": "lin"}, "s4": {"alpha": 0.3}, "transformer": {"heads": 2}}.get(layer, {})
    reprs = {repr(models.SequenceClassifier(**base | {name: value})) for name, value in changes.items()}
    assert len({repr(models.SequenceClassifier(**base)), *reprs}) == len(changes) + 1


def test_make_knows_layers():
    assert models.make("lstm", d_input=3, num_classes=5, d_model=8, n_layers=1).layer == "lstm"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "mamba"}, "layer must be one of s4d.*'mamba'"),
        ({"norm": "group"}, "norm must be one of"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\)"),
        ({"n_layers": 0}, "n_layers must be a whole number of at least 1"),
        ({"d_input": 0}, "d_input must be a whole number of at least 1"),
        ({"d_model": 2.5}, "d_model must be a whole number of at least 1"),
        ({"layer": "transformer", "heads": 3}, "heads must divide"),
        ({"layer": "transformer", "heads": 2.0}, "heads must be a whole number"),
        ({"layer": "lstm", "d_model": 7, "bidirectional": True}, "d_model must be even"),
        ({"method": "tustin"}, "method must be one of"),
        ({"method": "async"}, "method must not be 'async'"),
        ({"prenorm": "no"}, "prenorm must be True or False"),
        ({"final_norm": 1}, "final_norm must be True or False"),
        ({"layer": "lstm", "bidirectional": "no"}, "bidirectional must be True or False"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.SequenceClassifier(**{"d_input": 3, "num_classes": 5, "d_model": 8, "n_layers": 1} | options)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("layer", ["s4d", "s4"])
def test_stepping_is_forward_on_what_was_seen(layer, norm, pooling):
    for prenorm, rate in ((False, 1.0), (True, 0.5)):
        net = classifier(layer, norm=norm, pooling=pooling, prenorm=prenorm).double()
        x = torch.randn(2, 7, 3, dtype=torch.float64)
        net(x)  # moves batch norm's averages
        net.eval()
        state = net.initial_state(2, rate)
        for t in range(7):
            logits, state = net.step(x[:, t], state)
            torch.testing.assert_close(logits, net(x[:, : t + 1], rate))
    with pytest.raises(ValueError, match=r"x_t must be \(2, 3\)"):
        net.step(x[:, 0, :2], state)


def test_only_a_causal_state_space_model_steps():
    with pytest.raises(ValueError, match="layer must be s4d or s4"):
        classifier("lstm").initial_state(2)
    with pytest.raises(ValueError, match="needs the future"):
        classifier("s4d", bidirectional=True).initial_state(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"norm": "x"}, "norm must be one of"), ({"dropout": math.nan}, "dropout"), ({"d_model": 0}, "d_model")],
)
@pytest.mark.parametrize("block", [models.SequenceBlock, models.TransformerBlock])
def test_bad_options_of_a_block(block, options, message):
    with pytest.raises(ValueError, match=message):
        block(**{"mixer": ssm.S4D(8), "d_model": 8} | options)


def test_parameter_groups_of_no_network():
    with pytest.raises(ValueError, match="model must be a torch module"):
        models.parameter_groups([nn.Parameter(torch.zeros(2))], 0.1, 0.1)


def test_a_state_of_another_network():
    net, deeper = (models.SequenceClassifier(3, 10, d_model=4, n_layers=n) for n in (1, 2))
    for state in (None, deeper.initial_state(2)):
        with pytest.raises(ValueError, match="state must be this network's"):
            net.step(torch.zeros(2, 3), state)
    with pytest.raises(ValueError, match=r"x_t must be .*floating"):
        net.step(torch.zeros(2, 3, dtype=torch.int64), net.initial_state(2))
    with pytest.raises(ValueError, match="rate must be"):
        net(torch.zeros(2, 5, 3), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf, "0.1"])
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_bad_rates_of_parameter_groups(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be a number"):
        models.parameter_groups(nn.Linear(2, 2), **{"lr": 0.1, "weight_decay": 0.1} | {name: bad})


@pytest.mark.parametrize(
    "u", [torch.randn(2, 9), torch.randn(2, 9, 4), torch.randn(2, 0, 3), torch.ones(2, 9, 3).long(), None]
)
def test_bad_input(u):
    with pytest.raises(ValueError, match=r"input must be \(B, L, 3\)"):
        classifier()(u)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_the_network_compiles_around_its_state_space_layers():
    """Dynamo takes the blocks' pointwise chain and linear layers and never sees a complex tensor."""
    net, u = classifier("s4d", dropout=0.0), torch.randn(2, 9, 3)
    expected = net(u).square().sum()
    nodes = []

    def backend(graph, inputs):
        assert not any(x.is_complex() for x in inputs if isinstance(x, torch.Tensor))
        nodes.extend(node.name for node in graph.graph.nodes)
        return graph.forward

    try:
        loss = torch.compile(net, backend=backend)(u).square().sum()
    except RuntimeError as error:
        if "not supported on Python" not in str(error):
            raise
        pytest.skip(str(error))
    torch.testing.assert_close(loss, expected)
    parameters = tuple(net.parameters())
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))
    assert {"linear", "glu"} <= set(nodes)
    assert not any("fft" in name for name in nodes)
