"""The facts that the report computes, against closed forms."""

import pytest

from report import evidence
from saidl import experiments, results, tables

from .test_noise import CIFAR100_COARSE
from .test_tables import record


def test_sequential_noise_follows_its_formula():
    table = evidence.moved_back(per_class=5000)
    for row in table.itertuples(index=False):
        rate, clean, chained, formula, cat, dog = row
        assert clean == pytest.approx(50 * rate, abs=0.02)
        assert chained == pytest.approx(formula, abs=0.15)
        assert cat == pytest.approx(100 * rate * (1 - rate), abs=1.0)
        assert dog == pytest.approx(100 * rate, abs=0.5)


def test_a_detached_factor_matters_more_the_larger_gamma_and_not_at_zero():
    table = evidence.detached_focal(gammas=(0.0, 0.5, 1.0), samples=256)
    assert table.loc[0, ["FL", "NFL"]].abs().max() < 1e-10
    assert (table.loc[1, ["FL", "NFL"]] > 5).all()
    assert (table.loc[2, ["FL", "NFL"]] > table.loc[1, ["FL", "NFL"]]).all()


def test_closed_forms():
    for nominal, real in evidence.inclusive().itertuples(index=False):
        assert real == pytest.approx(0.9 * nominal)
    for _, right, flipped, *_ in evidence.flipped_bilinear().itertuples(index=False):
        assert right * flipped == pytest.approx(1)
        assert right < 1
    stays = [CIFAR100_COARSE[c] == CIFAR100_COARSE[c - c % 5 + (c + 1) % 5] for c in range(100)]
    assert evidence.kin().kept.tolist() == [100, sum(stays)]
    assert evidence.operator_order()["sum"].tolist() == pytest.approx([1, 81])
    pulls = evidence.pulls()
    assert pulls.loc["ce", 0.1] == pytest.approx(0.9)
    assert pulls.loc["mae", 0.5] == pytest.approx(0.25)
    assert pulls.loc["ce", 0.1] / pulls.loc["nce", 0.1] == pytest.approx(23.02585, rel=1e-5)  # K log K


def test_margin_of_symmetric_noise_is_the_theorems_factor():
    table = evidence.noise_quantities(rates=(0.3,)).set_index("kind")
    assert table.margin["symmetric"] == pytest.approx(1 - 0.3 * 10 / 9)
    assert table.margin["pair-flip"] == pytest.approx(1 - 2 * 0.3)
    assert table.share["asymmetric"] == pytest.approx(0.15)


def test_discretisation_facts():
    table = evidence.discretisations(steps=(0.01,), length=64).set_index("method")
    assert (table.loc[["zoh", "bilinear", "backward-euler"], "largest"] < 1).all()
    assert table.loc["forward-euler", "growing"] > 0
    assert table.loc["zoh", "difference"] == 0


def test_two_ways_agree():
    table = evidence.agreement(d_state=16, length=65, channels=2)
    assert (table.difference[table["one way"] != "diagonal kernel, float32"] < 1e-11).all()
    assert (table.difference < 1e-4).all()


def test_the_best_epoch_on_test_is_the_largest(tmp_path):
    (run,) = experiments.grid("quick", loss="ce", noise="symmetric", rate=0.4)
    made = record(run, 0.7)
    made["history"]["test_accuracy"] = [0.5, None, 0.9, *[0.7] * (run.settings.epochs - 3)]
    results.write(made | {"best_accuracy": 0.8}, tmp_path)
    row = evidence.best_on_test(results.load(tmp_path), "quick").loc["ce"]
    assert row[["accuracy", "held_out", "peak", "gain"]].tolist() == pytest.approx([70, 80, 90, 20])
    assert evidence.best_on_test(results.load(tmp_path), "laptop").empty
    assert tables.by_recipe(results.load(tmp_path), "paper").empty
