"""The fit loop against loops written out by hand and torch's own schedulers."""

import math
import re
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from saidl import data, losses, models, noise, training
from saidl.training import Settings

DIGITS = data.load("digits", train_size=200)
PLAIN = Settings(epochs=3, batch_size=32, lr=0.05, precision="float32", valid_fraction=0.0)


def small(seed=0):
    torch.manual_seed(seed)
    return models.make("small-cnn", channels=(4, 8))


def fit(settings=PLAIN, model=None, train=DIGITS.train, loss="ce", **options):
    model = model or small()
    return model, training.fit(
        model, train, DIGITS.test, losses.make(loss), settings, **({"seed": 0, "device": "cpu"} | options)
    )


def prepared(settings, model=None, train=DIGITS.train, seed=0):
    """A run before its first epoch."""
    given = model or small(), train, DIGITS.test, losses.make("ce")
    return training.Fit(*given, settings, seed, None, torch.device("cpu"))


def standardised(images):
    train = DIGITS.train.images.double()
    return ((images - train.mean()) / train.std(unbiased=False)).float()


@pytest.mark.parametrize("changes", [{}, {"augment": "crop-flip"}, {"clip": 0.1}, {"nesterov": True}], ids=str)
def test_fit_is_the_plain_loop(changes):
    """The same batches through an ordinary loop with torch's optimiser, scheduler and clipping give the same weights; augmented images
    are cut one by one from the zero-padded ones."""
    settings = replace(PLAIN, **changes)
    ours, history = fit(settings, seed=3)
    reference, generator = small(), torch.Generator().manual_seed(3)
    torch.randperm(200, generator=generator)  # the validation split's draw, empty here
    images, y = DIGITS.train.images.double(), DIGITS.train.labels
    wide = nn.functional.pad(images, (4, 4, 4, 4))
    reference.to(memory_format=torch.channels_last)
    how = {"momentum": 0.9, "weight_decay": 1e-4, "nesterov": settings.nesterov}
    optimizer = torch.optim.SGD(reference.parameters(), 0.05, **how)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    total = []

    def cut(i, top, left, flip):
        part = wide[i, :, top : top + 8, left : left + 8]
        return part.flip(-1) if flip else part

    for _ in range(3):
        total.append(0.0)
        epoch = data.batches(200, 32, generator)
        crops = [data.draw_crops(len(index), generator).T.tolist() for index in epoch if settings.augment != "none"]
        for index, crop in zip_longest(epoch, crops):
            x = torch.stack([cut(i, *c) for i, c in zip(index, crop, strict=True)]) if crop else images[index]
            x = standardised(x).contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(reference(x), y[index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(reference.parameters(), settings.clip)
            optimizer.step()
            total[-1] += loss.item() * len(index) / 200
        schedule.step()
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history.loss, total, rtol=1e-4)


class ComplexLinear(nn.Module):
    """A network of one's own, with complex weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 64, dtype=torch.complex64))

    def forward(self, x):
        return (x.flatten(1).to(torch.complex64) @ self.weight.T).real


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_complex_weights_learn_as_their_real_parts_do(optimizer):
    """Read by its real part alone, a complex network that starts at 0 is the linear one."""
    settings = replace(PLAIN, optimizer=optimizer, lr=0.01)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    nn.init.zeros_(linear[1].weight)
    _, expected = fit(settings, linear)
    _, history = fit(settings, ComplexLinear())
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-4)


def test_gradients_are_laid_out_as_their_values_are():
    """They come channels first out of nn.Flatten; the weights' gradients are the same bits."""
    net, last, seen = small().to(memory_format=torch.channels_last), torch.channels_last, []
    place = next(i for i, part in enumerate(net) if isinstance(part, models.Flatten))
    images = DIGITS.train.images[:8].float().contiguous(memory_format=last)

    def watch(_, given, out):
        given[0].register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=last)))

    def gradients():
        net.zero_grad()
        look = net[place].register_forward_hook(watch)
        net(images).square().sum().backward()
        look.remove()
        return [p.grad for p in net.parameters()]

    ours, printed = gradients(), repr(net)
    net[place] = nn.Flatten()
    plain = gradients()
    assert seen == [True, False]
    assert printed == repr(net)  # to which a checkpoint is compared
    for a, b in zip(ours, plain, strict=True):
        assert torch.equal(a, b)


def test_history_agrees_with_the_trained_network():
    model, history = fit()
    guess = model.eval()(standardised(DIGITS.test.images)).argmax(1)
    confusion = np.zeros((10, 10), dtype=int)
    np.add.at(confusion, (DIGITS.test.labels, guess), 1)
    np.testing.assert_array_equal(history.confusion, confusion)
    assert history.test_accuracy[-1] == pytest.approx(np.trace(confusion) / 500)
    np.testing.assert_allclose(history.class_accuracy[-1], np.diag(confusion) / confusion.sum(1))


def test_validation_accuracy_is_of_the_images_held_out():
    off_by_one = DIGITS.train.with_labels((DIGITS.train.labels + 1) % 10)  # of the test set it gets few right
    run = prepared(replace(PLAIN, valid_fraction=0.25), train=off_by_one)
    history = run.run(checkpoint=None, progress=False)
    images, labels = run.valid
    guess = run.model.eval()(standardised(images)).argmax(1)
    assert history.valid_accuracy[-1] == (guess == labels).sum() / 50 > 0.3 > history.test_accuracy[-1]


def test_shares_of_the_training_set_are_recounted_by_hand():
    """A network that no longer changes says the same before, during and after the epoch."""
    clean = DIGITS.train.labels
    train = DIGITS.train.with_labels(noise.corrupt(clean, "symmetric", 0.4, seed=0).labels)
    net, _ = fit(replace(PLAIN, epochs=1, lr=0.01), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), train)
    _, history = fit(replace(PLAIN, epochs=1, lr=0.0), net, train, clean_labels=clean)
    guess = net(standardised(train.images)).argmax(1)
    rows = list(zip(guess.tolist(), train.labels.tolist(), clean.tolist(), strict=True))
    flipped = [(guess, given, true) for guess, given, true in rows if given != true]
    assert history.train_accuracy == [sum(guess == given for guess, given, _ in rows) / 200]
    assert history.memorised == [sum(guess == given for guess, given, _ in flipped) / 80]
    assert history.resisted == [sum(guess == true for guess, _, true in flipped) / 80]


def test_memorised_and_resisted_count_flipped_samples_only():
    noisy = noise.corrupt(DIGITS.train.labels, "symmetric", 0.4, seed=0)
    train = DIGITS.train.with_labels(noisy.labels)
    _, history = fit(
        Settings(epochs=30, batch_size=32, lr=0.05, precision="float32"), train=train, clean_labels=DIGITS.train.labels
    )
    assert history.memorised[-1] > 0.5 > history.memorised[0]  # cross-entropy learns wrong labels by heart
    assert all(0 <= m + r <= 1 for m, r in zip(history.memorised, history.resisted, strict=True))
    _, clean = fit(clean_labels=DIGITS.train.labels)
    assert all(math.isnan(m) for m in clean.memorised)


@pytest.mark.parametrize(("warmup", "lr_min"), [(0, 0.0), (0, 0.01), (2, 0.0)])
def test_learning_rate_is_torchs_cosine(warmup, lr_min):
    run = prepared(Settings(epochs=9, lr=0.1, warmup=warmup, lr_min=lr_min, precision="float32"))
    ours = []
    for epoch in range(9):
        run.set_lr(epoch)
        ours.append(run.optimizer.param_groups[0]["lr"])
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9 - warmup, eta_min=lr_min)
    expected = []
    for _ in range(9 - warmup):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(ours[warmup:], expected)


def test_warm_up_climbs_to_the_peak_in_equal_steps():
    run = prepared(Settings(epochs=5, lr=0.4, warmup=3, lr_min=0.1, precision="float32"))
    rates = []
    for epoch in range(5):
        run.set_lr(epoch)
        rates.append(run.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.25])  # the last is the cosine's middle


def test_a_state_space_models_system_learns_slowly_and_does_not_decay():
    settings = Settings(epochs=4, optimizer="adamw", lr=0.01, weight_decay=0.05, view="sequence", precision="float32")
    net = models.make("s4d", d_input=1, num_classes=10, d_model=4, n_layers=1)
    names = {p: name.split(".")[-1] for name, p in net.named_parameters()}
    run = prepared(settings, net)
    groups = rest, slow = run.optimizer.param_groups
    assert {names[p] for p in slow["params"]} == {"log_dt", "log_A_real", "A_imag"}
    assert len(rest["params"]) + len(slow["params"]) == len(names)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    rates = []
    for epoch in range(4):
        run.set_lr(epoch)
        rates.append([group["lr"] for group in groups])
    cosine = [1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4]  # of 0, 45, 90 and 135 degrees, from 1 to 0
    np.testing.assert_allclose(rates, [[0.01 * share, 0.001 * share] for share in cosine])


def test_validation_split_is_held_out_and_seeded():
    def split(seed):
        run = prepared(Settings(valid_fraction=0.25, precision="float32"), seed=seed)
        return {part.numpy().tobytes() for part in run.train[0]}, {part.numpy().tobytes() for part in run.valid[0]}

    train, valid = split(0)
    assert not train & valid
    assert len(train) == 150
    assert len(valid) == 50
    assert split(0) == (train, valid) != split(1)


def test_best_epoch_is_chosen_on_validation():
    history = training.History(
        valid_accuracy=[0.2, float("nan"), 0.7, 0.7], test_accuracy=[0.9, float("nan"), 0.5, 0.6]
    )
    assert history.best_epoch == 2
    assert training.History(valid_accuracy=[float("nan")]).best_epoch is None


def test_epochs_that_are_not_evaluated_train_alike():
    every, some = (fit(replace(PLAIN, epochs=5, valid_fraction=0.2, eval_every=n))[1] for n in (1, 3))
    assert some.loss == every.loss
    for name in ("test_accuracy", "valid_accuracy", "class_accuracy"):
        one, two = (np.array(getattr(history, name)) for history in (every, some))
        np.testing.assert_array_equal(two[[2, 4]], one[[2, 4]])  # every third epoch and the last
        assert np.isnan(two[[0, 1, 3]]).all()


def test_l1_penalty_is_on_the_weights_not_the_biases():
    """One plain gradient step with and without it differs by lr * l1 * sign(w) on the weights alone."""
    one_step = {
        "epochs": 1,
        "batch_size": 200,
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "clip": 0.0,
        "precision": "float32",
        "valid_fraction": 0.0,
    }
    with_l1, without = (fit(Settings(**one_step, l1=l1))[0] for l1 in (0.01, 0.0))
    for start, a, b in zip(small().parameters(), with_l1.parameters(), without.parameters(), strict=True):
        expected = 0.1 * 0.01 * start.sign() if start.ndim > 1 else torch.zeros_like(start)
        torch.testing.assert_close(b - a, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor's flags are read as Linux lists them")
def test_bfloat16_is_used_where_the_processor_lists_it():
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text() + "\nflags :", re.M)[1].split())
    listed = bool(flags & {"amx_bf16", "avx512_bf16"})
    assert training.multiplies_bfloat16(torch.device("cpu")) == listed


def test_bfloat16_learns_as_float32_does():
    settings = {"epochs": 8, "batch_size": 32, "lr": 0.05}
    _, exact = fit(Settings(**settings, precision="float32"))
    _, half = fit(Settings(**settings, precision="bfloat16"))
    assert half.test_accuracy[-1] == pytest.approx(exact.test_accuracy[-1], abs=0.06)
    assert half.loss != exact.loss


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_compute_in_the_precision_told(precision):
    net, seen = small(), []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda _, given, out: seen.append(str(out.dtype)))
    fit(replace(PLAIN, epochs=1, precision=precision), net)
    assert set(seen) == {f"torch.{precision}"}


def test_the_seed_draws_dropouts_masks():
    def masks(seed):
        seen, drop = [], nn.Dropout(0.5)
        drop.register_forward_hook(lambda _, given, out: seen.append(out == 0) if drop.training else None)
        fit(replace(PLAIN, epochs=1), nn.Sequential(nn.Flatten(), drop, nn.Linear(64, 10)), seed=seed)
        return torch.cat(seen)

    assert torch.equal(masks(1), masks(1))
    assert not torch.equal(masks(1), masks(2))


def test_statistics_are_numpys():
    images = torch.randint(256, (50, 3, 5, 4), dtype=torch.uint8)
    mean, std = training.statistics((p.float() for p in images.split(7)), 1)
    np.testing.assert_allclose(mean.flatten(), images.numpy().mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.flatten(), images.numpy().std((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("view", ["sequence", "sequence-gray", "sequence-permuted"])
def test_sequence_views_show_every_pixel(view):
    images = torch.randint(256, (20, 3, 4, 4), dtype=torch.uint8)
    part = data.Images(images, torch.arange(20) % 2, ("a", "b"), "made up", torch.arange(20))
    settings = Settings(view=view, precision="float32")
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            seen.append(x)
            return self.weight.expand(len(x), 2)

    run = training.Fit(Spy(), part, part, losses.make("ce", 2), settings, 0, None, torch.device("cpu"))
    run.predict(images)
    (x,) = seen
    assert x.shape == (20, 16, 1 if view == "sequence-gray" else 3)
    row_by_row = data.as_sequence(images, grayscale=view == "sequence-gray")
    if view == "sequence-permuted":
        assert not torch.equal(run.order, torch.arange(16))
        row_by_row = row_by_row[:, run.order]
    kept = run.train[0]  # statistics come from the whole training set, held-out part included
    assert len(kept) == 18
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(x.shape[2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.corrcoef(torch.stack([x.flatten(), row_by_row.flatten()]))[0, 1], torch.tensor(1.0), atol=0.05, rtol=0
    )


def test_half_rate_is_every_second_step_of_the_trained_network():
    settings = Settings(
        epochs=2, batch_size=20, optimizer="adamw", view="sequence", precision="float32", half_rate=True
    )
    torch.manual_seed(0)
    model, history = fit(settings, models.make("s4d", d_input=1, num_classes=10, d_model=8, n_layers=1, dropout=0.0))
    mean, std = training.statistics([data.as_sequence(DIGITS.train.images)], 2)
    x = (data.as_sequence(DIGITS.test.images) - mean) / std  # (B, 64, 1)
    with torch.no_grad():
        told, untold = (model.eval()(x[:, ::2], rate=rate).argmax(1) == DIGITS.test.labels for rate in (2.0, 1.0))
    assert history.half_rate == [pytest.approx(told.double().mean().item())]
    assert not torch.equal(told, untold)


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = small()
    torch.set_rng_state(before)
    fit(model=model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"epochs": "3"}, "epochs must be a whole number of at least 1"),
        ({"batch_size": 32.5}, "batch_size must be a whole number of at least 2"),
        ({"lr_min": -1.0}, "lr_min must be a number in"),
        ({"momentum": float("nan")}, "momentum must be"),
        ({"momentum": 1.5}, r"momentum must be a number in \[0, 1\)"),
        ({"clip": None}, "clip must be"),
        ({"lr": float("nan")}, "lr must be"),
        ({"lr": float("inf")}, r"lr must be a number in \[0, inf\)"),
        ({"optimizer": "adamx"}, "optimizer must be one of"),
        ({"view": "film"}, "view must be one of"),
        ({"valid_fraction": 1.0}, "valid_fraction"),
        ({"augment": "crop-flip", "view": "sequence"}, "for images"),
        ({"half_rate": True}, "for sequences"),
        ({"nesterov": "no"}, "nesterov must be True or False, not 'no'"),
        ({"compile": 1}, "compile must be True or False, not 1"),
        ({"epochs": 3, "warmup": 4}, "warmup must be at most epochs = 3, not 4"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


class MeanOverSteps(nn.Linear):
    """A network for sequences that knows of no sampling rate."""

    def forward(self, x):
        return super().forward(x.mean(1))


class Pair(nn.Linear):
    """A network that returns more than logits."""

    def forward(self, x):
        return super().forward(x.mean((2, 3))), x


HALF_RATE = {"view": "sequence", "half_rate": True}


@pytest.mark.parametrize(
    ("model", "train", "test", "settings", "message"),
    [
        (models.make("small-cnn", channels=(4, 8), num_classes=20), {}, {}, {}, "an output for each of 10 classes"),
        (models.SequenceClassifier(1, 10, d_model=4, n_layers=1, layer="lstm"), {}, {}, HALF_RATE, "no sampling rate"),
        (Pair(1, 10), {}, {}, {}, "an output for each of 10 classes, .* not tuple"),
        (models.make("cnn8"), {}, {}, {}, r"does not take images of shape \(1, 8, 8\): .*expected input"),
        (MeanOverSteps(1, 10), {}, {}, HALF_RATE, "does not take images .* at half the sampling rate: .*rate"),
        (None, {}, {"images": DIGITS.test.images.expand(-1, 3, -1, -1)}, {}, "same channels and classes"),
        (None, {}, {"classes": tuple("abcdefghijkl")}, {}, "same channels and classes"),
        (models.SequenceClassifier(1, 10, d_model=4, n_layers=1), {}, {"images": DIGITS.test.images.repeat(1, 1, 1, 2)},
         {"view": "sequence-permuted"}, "one size to be permuted alike"),
        (None, vars(DIGITS.train.select([])), {}, {}, "train is empty"),
        (None, {}, vars(DIGITS.test.select([])), {}, "test is empty"),
        (None, {"images": DIGITS.train.images[:-7]}, {}, {}, "train must have a label an image"),
        (None, {}, {"images": DIGITS.test.images[:-7]}, {}, "test must have a label an image"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_before_training(model, train, test, settings, message, monkeypatch):
    monkeypatch.setattr(training.Fit, "train_epoch", lambda self: pytest.fail("it trained"))
    train, test = replace(DIGITS.train, **train), replace(DIGITS.test, **test)
    with pytest.raises(ValueError, match=message):
        training.fit(model or small(), train, test, losses.make("ce"), replace(PLAIN, **settings), seed=0)


class Margin(nn.Module):
    """A loss with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z, y):
        return nn.functional.cross_entropy(self.scale * z, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model must be of type Module, not NoneType"),
        ({"model": nn.Flatten()}, "model must have weights to train"),
        ({"train": DIGITS}, "train must be of type Images, not Split"),
        ({"test": None}, "test must be of type Images"),
        ({"loss": "ce"}, "loss must be a module of saidl.losses or any"),
        ({"loss": Margin()}, "no weights of its own"),
        ({"loss": losses.make("ce", reduction="none")}, "reduction must be 'mean'"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, "reduction must be 'mean'"),
        ({"loss": lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")}, "scalar tensor with a gradient"),
        ({"loss": lambda z, y: 1.0}, "scalar tensor with a gradient, not float"),
        ({"loss": lambda z, y: z.detach().mean()}, "scalar tensor with a gradient"),
        ({"settings": {"epochs": 3}}, "settings must be of type Settings, not dict"),
        ({"device": "toaster"}, "device must be one of torch's that is here, not 'toaster'"),
        ({"checkpoint": "no/such/folder/c.pt"}, "checkpoint must be a file in a folder that exists"),
        ({"checkpoint": "."}, "checkpoint must be a file"),
        ({"clean_labels": "abc"}, "clean_labels must be int64 of shape .*, not str"),
        ({"clean_labels": [0, 1]}, "clean_labels must be int64 of shape"),
        ({"seed": 2**70}, "seed must be a number in"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    given = {"model": small(), "train": DIGITS.train, "test": DIGITS.test, "loss": losses.make("ce"), "settings": PLAIN}
    with pytest.raises(ValueError, match=message):
        training.fit(**given | {"seed": 0} | changes)


@pytest.mark.parametrize("view", training.VIEWS)
def test_logits_are_those_that_fit_evaluates(view):
    net = small() if view == "image" else models.SequenceClassifier(1, 10, d_model=4, n_layers=1)
    settings = replace(PLAIN, view=view, valid_fraction=0.2)
    _, history = fit(settings, net)
    z = training.logits(net, DIGITS.test, DIGITS.train, settings)
    assert z.shape == (500, 10)
    assert (z.argmax(1) == DIGITS.test.labels).double().mean().item() == pytest.approx(history.test_accuracy[-1])


def test_logits_of_sequences_are_asked_for_in_parts():
    """Their memory grows with the length: what `fit` could evaluate fits here, too."""
    net, sizes = models.SequenceClassifier(1, 10, d_model=4, n_layers=1), []
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    training.logits(net, DIGITS.test, DIGITS.train, replace(PLAIN, view="sequence", batch_size=16))
    assert sum(sizes) == len(DIGITS.test)
    assert max(sizes) <= 4 * 16


def test_a_class_without_test_images_has_no_accuracy():
    some = DIGITS.test.select(DIGITS.test.labels != 3)
    rows = training.fit(small(), DIGITS.train, some, losses.make("ce"), PLAIN, seed=0).class_accuracy
    assert [[math.isnan(a) for a in row] for row in rows] == [[c == 3 for c in range(10)]] * 3


def test_true_labels_may_be_an_array():
    noisy = noise.corrupt(DIGITS.train.labels, "symmetric", 0.4, seed=0)
    train = DIGITS.train.with_labels(noisy.labels)
    as_tensor, as_array = (
        fit(train=train, clean_labels=x)[1] for x in (DIGITS.train.labels, DIGITS.train.labels.numpy())
    )
    assert as_tensor.memorised == as_array.memorised


def test_a_loss_of_ones_own_sees_single_precision():
    seen = []

    def own(z, y):
        seen.append(z.dtype)
        return nn.functional.cross_entropy(z, y)

    training.fit(small(), *DIGITS, own, replace(PLAIN, precision="bfloat16", epochs=1), seed=0)
    assert set(seen) == {torch.float32}


def test_another_networks_checkpoint_is_not_continued(tmp_path, monkeypatch, capsys):
    """Two discretisations have the same weights by name and shape."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    settings = replace(PLAIN, view="sequence")
    options = {"d_model": 4, "n_layers": 1, "d_state": 4}

    def run(method, epochs=3, **keywords):
        torch.manual_seed(0)
        net = models.SequenceClassifier(1, 10, layer="s4d", method=method, **options)
        return fit(replace(settings, epochs=epochs), net, **keywords)[1].loss

    alone = run("bilinear")
    run("zoh", checkpoint=tmp_path / "c.pt")
    assert (tmp_path / "c.pt").exists()
    assert run("bilinear", checkpoint=tmp_path / "c.pt") == alone
    assert "starting over" in capsys.readouterr().out


def test_a_checkpoint_of_other_data_is_not_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    clean, path = DIGITS.train.labels, tmp_path / "c.pt"
    fit(checkpoint=path, clean_labels=clean)
    left = path.read_bytes()
    for test, labels, continued in (
        (DIGITS.test, clean, True), (DIGITS.test, None, False), (DIGITS.test, clean.flip(0), False),
        (DIGITS.test.select(range(100)), clean, False),
    ):  # fmt: skip
        path.write_bytes(left)
        training.fit(
            small(1), DIGITS.train, test, losses.make("ce"), PLAIN, seed=0, clean_labels=labels, checkpoint=path
        )
        assert ("starting over" in capsys.readouterr().out) != continued


def test_a_checkpoint_is_not_continued_in_another_precision(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    settings = replace(PLAIN, precision="auto")
    for can, continued in ((False, True), (False, True), (True, False)):
        monkeypatch.setattr(training, "multiplies_bfloat16", lambda device, can=can: can)
        fit(settings, checkpoint=tmp_path / "c.pt")
        assert ("it is another run's" in capsys.readouterr().out) != continued


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="one of torch's that is here, not 'cuda"):
        fit(device="cuda")


def test_bad_labels_and_divergence_are_named():
    wrong = data.Images(DIGITS.train.images, DIGITS.train.labels + 5, DIGITS.train.classes, "digits")
    with pytest.raises(ValueError, match=r"train labels must lie in \[0, 10\), found 5 to 14"):
        fit(train=wrong)
    for labels in (torch.zeros(3, dtype=torch.int64), DIGITS.train.labels.float()):
        with pytest.raises(ValueError, match="clean_labels must be int64 of shape"):
            fit(clean_labels=labels)
    with pytest.raises(ValueError, match=r"clean labels must lie in \[0, 10\), found 100 to 109"):
        fit(clean_labels=DIGITS.train.labels + 100)
    with pytest.raises(ValueError, match="leaves none"):
        fit(replace(PLAIN, valid_fraction=0.999))
    with pytest.raises(ValueError, match="reduction must be 'mean'"):
        training.fit(small(), *DIGITS, losses.make("ce", reduction="sum"), PLAIN, seed=0)
    with pytest.raises(ValueError, match="training diverged"):
        training.fit(small(), DIGITS.train, DIGITS.test, lambda z, y: z.sum() * float("nan"), PLAIN, seed=0)


def test_the_l1_penalty_leaves_a_state_space_models_system_alone():
    split = data.load("digits", train_size=100)
    torch.manual_seed(0)
    net = models.make("s4d", d_input=1, num_classes=10, d_model=4, n_layers=1)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    settings = Settings(epochs=2, batch_size=50, view="sequence", optimizer="adamw", weight_decay=0.0, l1=1e-3, clip=0)
    training.fit(net, *split, lambda z, y: 0 * z.sum(), settings, seed=0)
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not [name for name in moved if any(part in name for part in ("log_dt", "log_A_real", "A_imag"))]


def test_a_checkpoint_is_of_the_loss_with_all_its_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    split = data.load("digits", train_size=100)

    def losses_of(loss, checkpoint=None):
        torch.manual_seed(0)
        net = models.make("small-cnn", channels=(4, 8))
        settings = Settings(epochs=2, batch_size=50, precision="float32")
        return training.fit(net, *split, loss, settings, seed=0, checkpoint=checkpoint).loss

    other, checkpoint = torch.nn.CrossEntropyLoss(label_smoothing=0.3), tmp_path / "run.pt"
    losses_of(torch.nn.CrossEntropyLoss(), checkpoint)
    assert losses_of(other, checkpoint) == losses_of(other)
    assert "it is another run's" in capsys.readouterr().out


class Powered:
    def __init__(self, q):
        self.q = q

    def __call__(self, z, y):
        return (1 - z.softmax(1).gather(1, y[:, None]) ** self.q).mean() / self.q


def powered(q):
    return lambda z, y: Powered(q)(z, y)


def powered_of(z, y, q):
    return Powered(q)(z, y)


@pytest.mark.parametrize(
    "make", [Powered, powered, lambda q: partial(powered_of, q=q)], ids=["object", "closure", "partial"]
)
def test_a_checkpoint_is_of_a_loss_of_ones_own_with_its_settings(make, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    split, settings = data.load("digits", train_size=100), Settings(epochs=2, batch_size=50, precision="float32")

    def losses_of(q, checkpoint=None):
        torch.manual_seed(0)
        net = models.make("small-cnn", channels=(4, 8))
        return training.fit(net, *split, make(q), settings, seed=0, checkpoint=checkpoint).loss

    first = losses_of(0.7, tmp_path / "run.pt")
    kept = (tmp_path / "run.pt").read_bytes()
    assert losses_of(0.7, tmp_path / "run.pt") == first  # continued: it makes the same loss anew
    assert "another" not in capsys.readouterr().out
    (tmp_path / "run.pt").write_bytes(kept)
    assert losses_of(0.1, tmp_path / "run.pt") == losses_of(0.1)
    assert "it is another run's" in capsys.readouterr().out


def test_numpys_seed_is_pythons():
    split, settings = data.load("digits", train_size=100), Settings(epochs=1, batch_size=50, precision="float32")

    def losses_of(seed):
        torch.manual_seed(0)
        return training.fit(
            models.make("small-cnn", channels=(4, 8)), *split, losses.make("ce"), settings, seed=seed
        ).loss

    assert losses_of(np.int64(3)) == losses_of(3)


class Scaled(nn.Module):
    """What `scale` is, repr does not show; and it counts, as some networks do."""

    def __init__(self, scale, squash=torch.relu):
        super().__init__()
        self.scale, self.squash, self.seen, self.linear = scale, squash, 0, nn.Linear(64, 10)

    def forward(self, x):
        self.seen += self.training
        return self.scale * self.squash(self.linear(x.view(len(x), -1)))


def my_loss():
    return lambda z, y: nn.functional.cross_entropy(z, y)


@pytest.mark.parametrize(("scale", "continued"), [(1.0, True), (0.01, False)])
def test_a_checkpoint_is_of_the_network_with_all_its_settings(scale, continued, tmp_path, monkeypatch, capsys):
    """The functions that network and loss hold are others in another process, at other addresses."""
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    split, settings = data.load("digits", train_size=100), replace(PLAIN, epochs=2)
    for factor in (1.0, scale):
        torch.manual_seed(0)
        net = Scaled(factor, squash=lambda x: x + 0)
        training.fit(net, *split, my_loss(), settings, seed=0, checkpoint=tmp_path / "c.pt")
    assert ("it is another run's" in capsys.readouterr().out) != continued


def test_a_network_may_need_its_images_as_they_are_stored():
    """`view` does not flatten images of several channels that are laid out channels last."""
    images = torch.randint(256, (60, 3, 4, 4), dtype=torch.uint8)
    part = data.Images(images, torch.arange(60) % 3, ("a", "b", "c"), "made up")

    class Flat(nn.Module):
        def __init__(self, flatten):
            super().__init__()
            self.conv, self.linear, self.flatten = nn.Conv2d(3, 4, 3), nn.Linear(16, 3), flatten

        def forward(self, x):
            return self.linear(self.flatten(self.conv(x)))

    class Volume(Flat):
        def __init__(self):
            super().__init__(lambda x: x.view(len(x), 16))
            self.conv = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3))

    histories = []
    for flatten in (lambda x: x.view(len(x), -1), lambda x: x.reshape(len(x), -1)):
        torch.manual_seed(0)
        histories.append(training.fit(Flat(flatten), part, part, losses.make("ce", 3), PLAIN, seed=0).loss)
    np.testing.assert_allclose(*histories, rtol=1e-5)
    assert len(training.fit(Volume(), part, part, losses.make("ce", 3), PLAIN, seed=0).loss) == PLAIN.epochs


def test_seed_and_reduction_are_looked_at_first():
    split = data.load("digits", train_size=100)
    with pytest.raises(ValueError, match="seed must be a whole number"):
        training.fit(models.make("small-cnn"), *split, torch.nn.CrossEntropyLoss(), Settings(epochs=1), seed=1.5)
    with pytest.raises(ValueError, match="reduction must be 'mean'"):
        training.fit(
            models.make("small-cnn"), *split, torch.nn.CrossEntropyLoss(reduction="none"), Settings(epochs=1), seed=0
        )
