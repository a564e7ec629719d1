"""Grids: every combination once, stable ids, clear errors."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from saidl import experiments, losses
from saidl.experiments import Run, grid
from saidl.training import Settings


def test_the_quick_grid_is_the_issues():
    runs = experiments.noise_grid("quick")
    assert len(runs) == 8 * (5 + 4)
    assert len({r.id for r in runs}) == len(runs)
    assert {r.loss for r in runs} == set(experiments.PAPER_LOSSES)


def test_one_clean_run_stands_for_every_kind():
    assert len(grid("quick", loss=["ce", "mae"], noise=["symmetric", "asymmetric"], rate=[0, 0.2])) == 2 * 3


def test_ids_do_not_depend_on_order_or_on_fields_left_at_their_default():
    run = grid("paper", loss="nce+agce", rate=0.4)[0]
    back = Run.from_dict({**asdict(run), "model_options": [list(p) for p in run.model_options]})
    assert back == run
    assert back.id == run.id
    assert replace(run, seed=1).id != run.id != replace(run, settings=replace(run.settings, lr=0.02)).id
    assert replace(run, settings=replace(run.settings, momentum=Settings().momentum)).id == run.id


def test_equal_runs_have_equal_ids_however_their_numbers_were_written():
    def ids(**options):
        return [run.id for run in experiments.grid(**options)]

    assert ids(profile="smoke", lr=1) == ids(profile="smoke", lr=1.0) == ids(profile="smoke", lr=np.float64(1))
    assert ids(profile="smoke", epochs=3, seed=np.arange(2)) == ids(profile="smoke", epochs=np.int64(3), seed=[0, 1])
    smoke = {"profile": "smoke", "loss": "nce+rce"}
    assert ids(**smoke, loss_options={"alpha": 1, "beta": np.float32(1)}) == ids(**smoke)
    wide = {"profile": "smoke", "model_options": {"channels": (8, 16)}}
    assert ids(**wide | {"model_options": {"channels": [np.int64(8), 16]}}) == ids(**wide)
    (run,) = experiments.grid("smoke", rate=1.0)
    assert (
        replace(run, rate=1, settings=replace(run.settings, lr=1)).id
        == replace(run, settings=replace(run.settings, lr=1.0)).id
    )
    sequence = {"profile": "laptop", "task": "scifar"}
    still = {"model_options": {"dropout": 0}}
    assert ids(**sequence, **still) == ids(**sequence, model_options={"dropout": 0.0}) != ids(**sequence)
    assert ids(**sequence) == ids(**sequence, clip=0.0) == ids(**sequence, clip=0)


def test_without_noise_it_does_not_matter_how_it_is_drawn():
    assert len({grid("quick", exact=exact)[0].id for exact in (None, True, False, "equal-counts")}) == 1


def test_the_recipes_options_are_its_own_networks():
    (own,), (other,) = (grid("laptop", model=model, model_options={"hidden": 8}) for model in ("cnn8", "resnet34"))
    assert dict(own.model_options) == {"channels": (32, 64, 96), "hidden": 8}
    assert dict(other.model_options) == {"hidden": 8}
    (layer,) = grid("laptop", task="scifar", model="lstm")
    assert dict(layer.model_options) == experiments.MEDIUM


def test_noise_and_training_never_share_a_seed():
    for run in grid("quick", seed=range(5)):
        assert run.noise_seed != run.seed


@pytest.mark.parametrize(
    ("task", "published"),
    [
        ("noise", {"epochs": 120, "lr": 0.01, "lr_min": 0.0, "weight_decay": 1e-4, "nesterov": False, "augment": "crop-flip"}),
        ("mnist-noise", {"epochs": 50, "lr": 0.01, "lr_min": 1e-3, "weight_decay": 1e-2, "nesterov": True, "augment": "none"}),
        ("cifar100-noise", {"epochs": 200, "lr": 0.1, "weight_decay": 1e-5, "nesterov": False, "augment": "crop-flip"}),
    ],
)  # fmt: skip
def test_the_paper_profile_has_the_released_recipes(task, published):
    """Ma et al. 2020: their released configurations, all with batches of 128, momentum 0.9 and gradients clipped at 5."""
    (run,) = grid("paper", task=task, loss="nce+rce", rate=0.4)
    told = {"batch_size": 128, "momentum": 0.9, "clip": 5.0, "valid_fraction": 0.0, "warmup": 0} | published
    assert {name: getattr(run.settings, name) for name in told} == told


def test_baselines_learn_at_their_own_rate_on_real_tasks():
    rates = {
        p: {m: grid(p, task="scifar", model=m)[0].settings.lr for m in ("lstm", "s4d")} for p in ("laptop", "paper")
    }
    assert rates == {"laptop": {"lstm": 0.002, "s4d": 0.01}, "paper": {"lstm": 0.002, "s4d": 0.01}}


def test_regularisers_follow_the_loss():
    anl, apl = grid("paper", loss=["anl-ce", "nce+rce"], rate=0.4)
    assert (anl.settings.l1, anl.settings.weight_decay) == (5e-5, 0.0)
    assert (apl.settings.l1, apl.settings.weight_decay) == (0.0, 1e-4)
    eps = grid("paper", loss="eps-ce+mae", noise=["symmetric", "asymmetric"], rate=0.4)
    assert [dict(r.loss_options)["m"] for r in eps] == [1e5, 1e3]
    assert dict(grid("paper", task="mnist-noise", loss="nce+rce")[0].loss_options)["beta"] == 10


def test_a_losss_settings_stand_on_top_of_the_published_ones():
    (run,) = grid("quick", loss="nce+agce", rate=0.4, loss_options={"beta": 2.0, "a": 5.0})
    assert dict(run.loss_options) == {"alpha": 1.0, "beta": 2.0, "a": 5.0, "q": 1.5}
    published = losses.settings("nce+agce")[0]
    assert grid("quick", loss="nce+agce", loss_options=published) == grid("quick", loss="nce+agce")


def test_paper_profile_is_the_papers_recipe():
    (run,) = grid("paper", loss="ce", rate=0.4)
    s = run.settings
    assert (s.epochs, s.batch_size, s.lr, s.momentum, s.weight_decay, s.clip, s.augment) == (
        120,
        128,
        0.01,
        0.9,
        1e-4,
        5.0,
        "crop-flip",
    )
    assert (run.dataset, run.train_size, run.model, s.valid_fraction) == ("cifar10", None, "cnn8", 0.0)


@pytest.mark.parametrize("profile", experiments.PROFILES)
def test_queues_hold_no_run_twice_and_only_known_losses(profile):
    runs = experiments.queue(profile)
    assert len({r.id for r in runs}) == len(runs)
    assert all(losses.resolve(r.loss) == r.loss and r.profile == profile for r in runs)
    if profile == "paper":
        assert [r.loss for r in runs[:9]] == ["ce"] * 9
        assert {r.noise for r in runs} >= {"symmetric", "asymmetric", "asymmetric-sequential", "human-worst"}


def test_more_images_change_the_number_of_images_alone():
    size = experiments.recipe("laptop", "noise")[1]
    known = {run.id for run in experiments.noise_grid("laptop")}
    for run in experiments.more_images():
        assert run.train_size > size
        assert run.id not in known
        assert replace(run, train_size=size).id in known


def test_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("SAIDL_PROFILE", "smoke")
    assert grid()[0].profile == "smoke"
    monkeypatch.setenv("SAIDL_PROFILE", "huge")
    with pytest.raises(ValueError, match="profile must be one of"):
        grid()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "nonsense"}, "loss must be one of"),
        ({"noise": "loud"}, "noise must be one of"),
        ({"model": "cnn9"}, "model must be one of"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"rate": 1.2}, "rate must be a number in"),
        ({"rate": float("nan")}, "rate must be a number in"),
        ({"model_options": "x"}, "model_options must be"),
        ({"rate": True}, "rate must be a number in"),
        ({"model": "lstm"}, "model must be one of .* for noise, which shows images"),
        ({"model": "cnn8", "view": "sequence"}, "model must be one of .* for noise, which shows sequences"),
        ({"task": "chess"}, "task must be one of"),
        ({"task": "mnist-noise"}, "profile must be paper for task 'mnist-noise', not 'quick'"),
        ({"task": ["noise"]}, "task must be a name"),
        ({"loss_options": {"q": 0.5}}, "'ce' has no setting"),
        ({"loss_options": 5}, "loss_options must be a dict"),
        ({"loss_options": {1: 2}}, "loss_options must be a dict"),
        ({"noise": "human-worst"}, "CIFAR-10's"),
        ({"learning_rate": 1}, "setting must be one of epochs, .*not 'learning_rate'"),
        ({"epochs": 0}, "epochs must be"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid("quick", **arguments)


def test_only_the_papers_size_on_pictures_gets_all_of_them_at_laptop():
    (small,) = experiments.grid("laptop", task="scifar", model_options={"d_model": 128})
    (large,) = experiments.grid("laptop", task="scifar", model_options=experiments.SSM)
    (speech,) = experiments.grid("laptop", task="speech", model_options=experiments.SSM)
    assert (small.train_size, small.settings.epochs) == (2500, 6)
    assert (large.train_size, large.settings.epochs) == (None, 2)
    assert speech.settings.epochs == 10


def test_mnist_noise_is_drawn_as_its_authors_do_unless_told_otherwise():
    cell = {"task": "mnist-noise", "rate": 0.4}
    for noise, exact in (("symmetric", "equal-counts"), ("asymmetric", True)):
        assert [run.exact for run in experiments.grid("paper", noise=noise, **cell)] == [exact]
    assert [run.exact for run in experiments.grid("paper", noise="symmetric", exact=False, **cell)] == [False]
    with pytest.raises(ValueError, match="exact must be"):
        experiments.grid("paper", noise="asymmetric", exact="equal-counts", **cell)
