"""Tables against the numbers they are made from."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from report import floats, latex, settings
from report.prose import NOT_RUN, Numbers
from saidl import experiments, losses, results, tables
from saidl.training import Settings


def record(run, accuracy, **more):
    """A finished run's record, without the training."""
    epochs = run.settings.epochs
    history = {name: [accuracy] * epochs for name in ("train_accuracy", "valid_accuracy", "test_accuracy")}
    history |= {name: [0.25] * epochs for name in ("loss", "memorised", "resisted", "seconds")}
    history["class_accuracy"] = [[accuracy] * 10] * epochs
    data = {"name": run.dataset, "train": 100, "test": 50, "classes": list("0123456789")}
    told = {"data": data | {"fingerprint": {"train": "ab" * 32, "test": "cd" * 32}}, "noise": {"rate": run.rate}}
    outcome = {
        "test_accuracy": accuracy,
        "best_accuracy": accuracy,
        "best_epoch": 0,
        "parameters": 1234,
        "seconds": 1.0,
    }
    told |= {"history": history, "confusion": np.eye(10, dtype=int).tolist(), "device": "a CPU", "versions": {}}
    return {"schema": results.SCHEMA, "id": run.id, "run": run.to_dict(), "status": "done", **told, **outcome, **more}


def store(folder, **accuracies):
    """A store of quick runs at symmetric noise: store(path, ce=[0.7, 0.8]) is seeds 0 and 1 of cross-entropy at 0.4."""
    for loss, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            (run,) = experiments.grid("quick", loss=loss, noise="symmetric", rate=0.4, seed=seed)
            results.write(record(run, accuracy), folder)
    return folder


def test_a_cell_is_the_mean_and_sample_deviation_over_seeds(tmp_path):
    values = [0.71, 0.735, 0.78]
    frame = results.load(store(tmp_path, ce=values, mae=[0.9]))
    mean, std, n = tables.value(tables.cells(frame, "quick"), ("ce", "symmetric", "0.4"))
    assert (mean, std, n) == (pytest.approx(100 * np.mean(values)), pytest.approx(100 * np.std(values, ddof=1)), 3)
    mean, std, n = tables.value(tables.cells(frame, "quick"), ("mae", "symmetric", "0.4"))
    assert (mean, n) == (pytest.approx(90), 1)
    assert math.isnan(std)
    assert tables.value(tables.cells(frame, "quick"), ("fl", "symmetric", "0.4"))[2] == 0


def test_sequence_runs_are_clean_by_the_recipe_and_of_the_largest_profile_that_has_any(tmp_path):
    def write(profile, accuracy, **changes):
        (run,) = experiments.grid(profile, task="smnist", **changes)
        results.write(record(run, accuracy), tmp_path)

    write("laptop", 0.3)
    write("laptop", 0.5, loss="mae")
    write("laptop", 0.6, noise="symmetric", rate=0.4)
    write("paper", 0.4, epochs=3)  # not the recipe
    frame = results.load(tmp_path)
    assert tables.sequence_runs(frame, "smnist").accuracy.tolist() == [pytest.approx(30)]
    assert tables.sequence_runs(frame, "smnist", "paper").empty
    assert tables.sequence_runs(frame, "scifar").empty
    write("paper", 0.7)
    assert tables.sequence_runs(results.load(tmp_path), "smnist").accuracy.tolist() == [pytest.approx(70)]


def test_rules_are_compared_on_the_same_number_of_samples(tmp_path):
    for method, size, accuracy in (("zoh", 500, 0.3), ("bilinear", 500, 0.4), ("zoh", 900, 0.9)):
        (run,) = experiments.grid("laptop", task="scifar", model="s4d", model_options={"method": method})
        results.write(record(replace(run, train_size=size), accuracy), tmp_path)
    table = tables.methods(results.load(tmp_path)).set_index("method")
    assert table.accuracy.to_dict() == {"bilinear": pytest.approx(40), "zoh": pytest.approx(30)}
    assert table.n.tolist() == [1, 1]


def test_only_runs_that_follow_the_recipe_count(tmp_path):
    store(tmp_path, ce=[0.7])
    (other,) = experiments.grid("quick", loss="ce", noise="symmetric", rate=0.4, seed=1, epochs=3)
    results.write(record(other, 0.1), tmp_path)
    frame = results.load(tmp_path)
    assert len(frame) == 2
    assert tables.value(tables.cells(frame, "quick"), ("ce", "symmetric", "0.4"))[2] == 1


def test_runs_that_differ_in_one_field_can_be_asked_for(tmp_path):
    (run,) = experiments.grid("laptop", loss="ce", noise="asymmetric", rate=0.4, seed=1)
    for other in (run, replace(run, train_size=20_000), replace(run, train_size=20_000, noise_seed=9)):
        results.write(record(other, 0.5), tmp_path)
    (first,) = experiments.grid("laptop", loss="ce", noise="asymmetric", rate=0.4)
    results.write(record(first, 0.6), tmp_path)
    frame = results.load(tmp_path)
    assert tables.by_recipe(frame, "laptop").seed.tolist() == [0, 1]
    found = tables.by_recipe(frame, "laptop", but=["train_size"])
    assert list(zip(found.seed, found.train_size, strict=True)).count((1, 20_000)) == 1
    assert len(found) == 3


def test_a_deleted_or_damaged_result_empties_its_cell(tmp_path):
    store(tmp_path, ce=[0.7], mae=[0.9])
    table = floats.accuracies(results.load(tmp_path), "quick")
    assert table.loc["CE", "0.4"] == "70.0"
    paths = {results.read(path)["run"]["loss"]: path for path in tmp_path.glob("*.json")}
    paths["ce"].unlink()
    paths["mae"].write_text(paths["mae"].read_text()[:200])
    with pytest.warns(UserWarning, match=paths["mae"].name):
        frame = results.load(tmp_path, quarantine=False)
    table = floats.accuracies(frame, "quick")
    assert table.loc["CE", "0.4"] == tables.MISSING
    assert "70.0" not in table.to_numpy()


def test_columns_of_several_kinds_of_noise_are_told_apart(tmp_path):
    store(tmp_path, ce=[0.7])
    table = floats.accuracies(results.load(tmp_path), "quick", ("symmetric", "asymmetric"))
    assert table.columns.is_unique
    assert table.loc["CE", "symmetric 0.4"] == "70.0"
    assert table.loc["CE", "asymmetric 0.4"] == tables.MISSING


def test_published_asymmetric_numbers_stand_beside_runs_under_the_same_noise(tmp_path):
    for kind, accuracy in (("asymmetric", 0.80), ("asymmetric-sequential", 0.79)):
        (run,) = experiments.grid("paper", loss="nce+rce", noise=kind, rate=0.4)
        results.write(record(run, accuracy), tmp_path)
    frame = results.load(tmp_path)
    sources = {}
    for kind in ("asymmetric", "asymmetric-sequential"):
        table = tables.against_published(frame, "paper", kind)
        row = table[(table.loss == "nce+rce") & (table.rate == "0.4")].iloc[0]
        assert row.difference == pytest.approx(row.ours - row.published)
        sources[kind] = row.source
        known = tables.published()
        assert set(known[(known.source == row.source) & (known.dataset == "cifar10")].noise) <= {kind, "symmetric"}
    assert sources["asymmetric"] != sources["asymmetric-sequential"]


def test_a_difference_is_ours_minus_theirs_and_nothing_without_ours(tmp_path):
    (run,) = experiments.grid("paper", loss="ce", noise="symmetric", rate=0.2)
    results.write(record(run, 0.75), tmp_path)
    table = tables.against_published(results.load(tmp_path), "paper", "symmetric").set_index(["loss", "rate"])
    published = table.published["ce", "0.2"]
    assert table.difference["ce", "0.2"] == pytest.approx(75 - published)
    assert math.isnan(table.difference["ce", "0.4"])
    assert not math.isnan(table.published["ce", "0.4"])
    header, rows = latex.comparison_rows(table.reset_index())
    assert all(row is None or len(row) == len(header) for row in rows)
    assert [row[1] for row in rows if row and row[0] == "CE"] == ["ours (n = 1)"]


@pytest.mark.parametrize(
    ("profile", "points", "marked"), [("paper", 1.5, False), ("paper", 1.7, True), ("laptop", 9, False)]
)
def test_far_is_two_of_their_deviations_and_a_point_where_the_recipe_is_theirs(profile, points, marked, tmp_path):
    known = tables.published()
    ce = known[
        (known.dataset == "cifar10") & (known.loss == "ce") & (known.noise == "symmetric") & (known.rate == "0.2")
    ]
    assert 2 * ce["std"].iloc[0] + 1 == pytest.approx(1.56)
    (run,) = experiments.grid(profile, loss="ce", noise="symmetric", rate=0.2)
    results.write(record(run, (ce.accuracy.iloc[0] - points) / 100), tmp_path)
    table = tables.against_published(results.load(tmp_path), profile, "symmetric")
    assert table[table.beyond].rate.tolist() == ["0.2"] * marked
    rows = latex.comparison_rows(table)[1]
    assert sum(isinstance(cell, latex.Tex) and "textbf" in cell for row in rows if row for cell in row) == marked


def test_the_two_stored_versions_of_mnist(tmp_path):
    cells = {("nfl+mae", 0.8): 0.70, ("nfl+mae", 0.6): 0.984, ("nce+rce", 0.8): 0.75, ("ce", 0.8): 0.5}
    for (loss, rate), accuracy in cells.items():
        (run,) = experiments.grid("paper", task="mnist-noise", loss=loss, noise="symmetric", rate=rate)
        results.write(record(run, accuracy), tmp_path)
    table = tables.editions(results.load(tmp_path)).set_index(["loss", "rate"])
    unchanged = table.loc[("ce", "0.8")]
    assert not unchanged.apart
    assert unchanged.earlier == unchanged.later
    table = table.drop(("ce", "0.8"))
    assert table.nearer.to_dict() == {
        ("nfl+mae", "0.8"): "later",
        ("nfl+mae", "0.6"): "earlier",
        ("nce+rce", "0.8"): "later",
    }
    assert table.apart.to_dict() == {("nfl+mae", "0.8"): True, ("nfl+mae", "0.6"): True, ("nce+rce", "0.8"): False}
    theirs = tables.published().query(
        "dataset == 'mnist' and noise == 'symmetric' and rate == '0.8' and loss == 'nfl+mae'"
    )
    assert sorted(theirs.accuracy) == sorted(table.loc[("nfl+mae", "0.8"), ["earlier", "later"]])


def test_other_weights_stand_in_the_table_of_versions_alone(tmp_path):
    (run,) = experiments.grid("paper", task="mnist-noise", loss="nfl+mae", noise="symmetric", rate=0.8)
    other = replace(run, loss_options=(("alpha", 1.0), ("beta", 1.0)))
    for one, accuracy in ((run, 0.75), (other, 0.53)):
        results.write(record(one, accuracy), tmp_path)
    frame = results.load(tmp_path)
    table = tables.editions(frame).set_index("weights")
    assert table.nearer.to_dict() == {"α 1, β 10": "later", "α 1, β 1": "earlier"}
    assert table.recipe.to_dict() == {"α 1, β 10": True, "α 1, β 1": False}
    assert tables.value(tables.cells(frame, "paper", "mnist-noise"), ("nfl+mae", "symmetric", "0.8"))[::2] == (75.0, 1)


def test_what_differs_from_the_recipe_is_told(tmp_path):
    cell = {"task": "mnist-noise", "loss": "ce", "noise": "symmetric", "rate": 0.8}
    runs = [
        *experiments.grid("paper", **cell),
        *experiments.grid("paper", **cell, exact=True),
        *experiments.grid("paper", **cell, exact=True, nesterov=False, weight_decay=1e-3),
    ]
    assert [run.exact for run in runs] == ["equal-counts", True, True]
    for one, accuracy in zip(runs, (0.44, 0.46, 0.23), strict=True):
        results.write(record(one, accuracy), tmp_path)
    frame = results.load(tmp_path)
    table = tables.editions(frame).set_index("changed")
    assert table.ours.to_dict() == pytest.approx(
        {"": 44, "equal shares": 46, "equal shares, nesterov no, weight decay 0.001": 23}
    )
    assert table.recipe.tolist() == [True, False, False]
    assert tables.value(tables.cells(frame, "paper", "mnist-noise"), ("ce", "symmetric", "0.8"))[::2] == (44.0, 1)
    numbers = Numbers(frame)
    assert numbers["mnist/symmetric/0.8/ce/none"] == "44.0\\,\\%"
    assert numbers["mnist/symmetric/0.8/ce/scripts"] == "23.0\\,\\%"


def test_runs_at_the_scripts_settings_are_counted_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "recorded", lambda name: tmp_path / name)
    cell = {"task": "mnist-noise", "loss": "mae", "noise": "asymmetric", "rate": 0.4, "epochs": 3, "lr_min": 0.01}
    plain = {"nesterov": False, "seed": [0, 123]}
    runs = experiments.grid("paper", **cell, **plain, weight_decay=1e-3) + experiments.grid("paper", **cell, **plain)
    for run, last in zip(runs + experiments.grid("paper", **cell, seed=515), (0.9, 0.0, 0.0, 0.0, 0.0), strict=True):
        made = record(run, 0.9)
        made["history"]["class_accuracy"] = [[0.0] * 10, [0.9] * 10, [0.9] * 9 + [last]]
        results.write(made, tmp_path / "authors-seeds")
    numbers = Numbers(results.load(tmp_path))
    assert numbers["scripts/mae"] == "2 of 2"
    assert numbers["scripts/mae/3"] == "1 of 2"
    assert numbers["scripts/mae/3/0.01"] == "2 of 2"
    assert numbers["scripts/rce"] == NOT_RUN
    assert re.search(r"^MAE & -- & -- & -- & -- & -- & 2 of 2 & 4\.56 & 3\.15", floats.mnist_lost(None), re.M)


def test_seeds_that_lose_a_class_in_the_first_epoch_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "recorded", lambda name: tmp_path / name)
    cell = {"task": "mnist-noise", "loss": "nfl+mae", "noise": "asymmetric", "rate": 0.4, "epochs": 1}
    runs = experiments.grid("paper", **cell, seed=(0, 1, 2))
    runs += [
        replace(runs[0], loss_options=(("alpha", alpha), ("beta", beta))) for alpha, beta in ((1.0, 1.0), (2.0, 10.0))
    ]
    runs += experiments.grid("paper", **cell, precision="float32")
    runs += experiments.grid("paper", **cell | {"loss": "ce"}, seed=(0, 1))
    runs.append(experiments.grid("paper", **cell | {"epochs": 3})[0])  # in place of the one epoch
    for run, worst in zip(runs, (0.9, 0.9, 0.019, 0.9, 0.9, 0.0, 0.9, 0.0, 0.0), strict=True):
        made = record(run, 0.9)
        made["history"]["class_accuracy"] = [[0.9] * 10 for _ in range(run.settings.epochs)]
        made["history"]["class_accuracy"][0][7] = worst
        results.write(made, tmp_path / "first-epoch")
    numbers = Numbers(results.load(tmp_path))
    assert numbers["early/nfl+mae/10"] == "2 of 3"
    assert numbers["early/nfl+mae/10/1/auto/3"] == "0 of 1"  # it came back
    assert numbers["early/nfl+mae/1/1/auto/3"] == NOT_RUN
    assert numbers["early/nfl+mae/1"] == numbers["early/nfl+mae/10/2"] == "0 of 1"
    assert numbers["early/nfl+mae/10/1/float32"] == "1 of 1"
    assert numbers["early/ce"] == "1 of 2"
    assert numbers["early/nfl+mae/10/1/released code"] == NOT_RUN
    theirs = [
        {"loss": "nfl+mae", "seed": 0, "rate": 0.4, "class_accuracy": [[1.0, 0.0]]},
        {"loss": "nfl+mae", "seed": 1, "rate": 0.4, "class_accuracy": [[1.0, 0.9], [0.0, 0.9]], "epochs": 2},
        {"loss": "nfl+mae", "seed": 1, "rate": 0.4, "class_accuracy": [[0.0, 0.0]]},
        {"loss": "mae", "seed": 0, "rate": 0.4, "class_accuracy": [[0.0, 0.0]]},
        {
            "loss": "mae",
            "seed": 0,
            "rate": 0.2,
            "class_accuracy": [[0.0, 0.0]],
            "epochs": 50,
            "test_accuracy": [0.1, 0.2],
        },
    ]
    theirs = [{"epochs": 1, "test_accuracy": [0.9]} | row for row in theirs]
    (tmp_path / "apl-mnist.json").write_text(json.dumps(theirs))
    numbers = Numbers(results.load(tmp_path))
    assert numbers["early/nfl+mae/10/1/released code"] == "1 of 2"
    assert numbers["early/nfl+mae/10/1/released code/2"] == "1 of 1"
    told = r"^NFL\+MAE & 2 of 3 & 0 of 1 & 0 of 1 & 1 of 2 & -- & -- & 1\.63 & 0\.19"
    assert re.search(told, floats.mnist_lost(None), re.M)
    assert tables.released_epochs().lost.tolist() == [[1], [0, 1], []]
    assert numbers["released/mae/0.2"] == "20.0\\,\\%"
    assert numbers["released/mae/0.2/2"] == "10.0 to 20.0\\,\\%"
    assert numbers["released/mae/0.4"] == NOT_RUN


def test_classes_that_are_lost_and_classes_that_are_named():
    told = {
        "history": {"class_accuracy": [[0.0, 0.5, 0.019], [0.9, 0.02, 0.0]]},
        "confusion": [[5, 1, 0], [4, 0, 0], [9, 0, 0]],
    }
    assert tables.lost_classes(told, 0) == [0, 2]
    assert tables.lost_classes(told) == [2]
    assert tables.came_back(told) == {0: 2}
    assert tables.classes_named(told) == 2


def test_runs_of_one_model_in_two_sizes_have_two_names(tmp_path):
    runs = experiments.grid("laptop", task="smnist", model_options=[{}, experiments.SSM, {"method": "bilinear"}])
    for run, size in zip(runs, (5000, 200000, 5000), strict=True):
        results.write(record(run, 0.9, parameters=size), tmp_path)
    assert [run.settings.epochs for run in runs] == [1, 2, 1]
    rows = tables.by_recipe(results.load(tmp_path), "laptop", "smnist")
    assert tables.named(rows).name.tolist() == ["S4D (zoh)", "S4D (zoh, 4 × 128)", "S4D (bilinear)"]
    assert tables.named(rows[rows.parameters == 5000]).name.tolist() == ["S4D (zoh)", "S4D (bilinear)"]
    for run in experiments.matched("laptop", "smnist"):  # whose networks have other options
        results.write(record(run, 0.9), tmp_path)
    names = tables.named(tables.by_recipe(results.load(tmp_path), "laptop", "smnist")).name.tolist()
    assert [name for name in names if not name.startswith("S4D")] == ["LSTM", "S4 (bilinear)", "Transformer"]


def test_discretisations_are_compared_over_seeds_whenever_they_were_recorded(tmp_path):
    options = [{"method": "zoh"}, {"method": "bilinear"}]
    for seed, accuracy in ((0, 0.5), (1, 0.6)):
        for run in experiments.grid("quick", task="digits-sequence", model_options=options, seed=seed):
            made = record(run, accuracy)
            if seed == 0:
                del made["run"]["settings"]["half_rate"]  # as a record older than the field
            results.write(made, tmp_path)
    table = tables.methods(results.load(tmp_path)).set_index("method")
    assert table.n.to_dict() == {"zoh": 2, "bilinear": 2}
    assert table.accuracy.to_numpy() == pytest.approx(55)
    assert table["std"].to_numpy() == pytest.approx(100 * np.std([0.5, 0.6], ddof=1))


def test_sequences_compare_like_splits(tmp_path):
    (run,) = experiments.grid("paper", task="lra-image", model="s4d")
    made = record(run, 0.8)
    made["history"]["valid_accuracy"] = [None, 0.5, 0.85, 0.84] + [0.84] * 96
    results.write(made, tmp_path)
    table = tables.sequences(results.load(tmp_path), "paper", "lra-image")
    assert set(table.split) == {"test", "validation"}
    for row in table[(table.model == "S4D (zoh)") & (table.source != "")].itertuples():
        ours = {"test": 80.0, "validation": 85.0}[row.split]
        assert row.difference == pytest.approx(ours - row.accuracy)


def test_settings_tables_leave_nothing_out():
    recipes = settings.recipes(list(experiments.RECIPES))
    assert {name.replace("_", " ") for name in Settings.__dataclass_fields__} <= set(recipes.index)
    assert list(settings.loss_settings().loss) == [tables.label(name) for name in losses.names()]
    for cell in settings.loss_settings().set_index("loss").loc["NCE+AGCE"].to_numpy()[:1]:
        assert cell == "α 1, β 4, a 6, q 1.5"


def test_every_published_method_that_we_have_is_known_to_the_losses():
    known = tables.published()
    assert all(losses.resolve(loss) == loss for loss in known.loss.dropna().unique())
    assert set(known.noise.dropna()) <= {*experiments.KINDS, "asymmetric-consecutive"}
    ours = experiments.grid("paper", task="cifar100-noise", noise=["asymmetric", "asymmetric-sequential"], rate=0.4)
    assert not {run.noise for run in ours} & set(
        known[known.dataset == "cifar100"].noise
    )  # made by other moves than ours


def test_latex_of_awkward_text():
    text = latex.tabular(["a_b", latex.Tex("$x$")], [["50 % & more", "–"], None, ["ε-CE", tables.spread(1.0, 0.25)]])
    assert r"a\_b & $x$ \\" in text
    assert r"50 \% \& more & -- \\" in text
    assert r"\addlinespace" in text
    assert r"$\epsilon$-CE & 1.00 {\scriptsize$\pm$} 0.25 \\" in text
    assert latex.short(0) == "0"
    assert [latex.short(v) for v in (9.876, 99.96, 247.6, 1906.2)] == ["9.88", "100", "248", "1906"]
    assert latex.short(1.74e22) == r"$1.7\times10^{22}$"
    assert latex.signed(-1.5) == "−1.50"


def test_networks_that_differ_in_an_option_are_not_averaged(tmp_path):
    options = [
        {"init": "lin"},
        {"init": "legs"},
        {"init": "lin", "method": "bilinear"},
        {"init": "legs", "method": "bilinear"},
    ]
    runs = experiments.grid("laptop", task="scifar", model_options=options)
    for run, accuracy in zip(runs, (0.37, 0.29, 0.38, 0.30), strict=True):
        results.write(record(run, accuracy), tmp_path)
    frame = results.load(tmp_path)
    table = tables.sequences(frame, "laptop", "scifar")
    ours = table[(table.model == "S4D (zoh)") & (table.source == "")]
    assert sorted(ours.accuracy) == pytest.approx([29, 37])
    assert ours.n.tolist() == [1, 1]
    assert [("init legs" in what, "init lin" in what) for what in ours.what].count((True, False)) == 1
    assert tables.named(tables.by_recipe(frame, "laptop", "scifar")).name.nunique() == 4
    pairs = [sorted(part.accuracy) for _, part in tables.methods(frame).groupby("options")]
    np.testing.assert_allclose(sorted(pairs), [[29, 30], [37, 38]])


def test_only_cells_that_the_queue_asks_for_are_missed(tmp_path):
    runs = experiments.noise_grid("quick")
    for run in runs[1:]:
        results.write(record(run, 0.9), tmp_path)
    (besides,) = experiments.grid("quick", loss="mae", noise="symmetric", rate=0.4)  # of a loss with a row of its own
    results.write(record(besides, 0.9), tmp_path)
    numbers = Numbers(results.load(tmp_path))
    assert numbers["absent/quick/symmetric/asymmetric"] == f"1 of its {len(runs)} cells have not been run."
    results.write(record(runs[0], 0.9), tmp_path)
    numbers = Numbers(results.load(tmp_path))
    assert numbers["absent/quick/symmetric/asymmetric"].startswith("Every cell that the profile asks for has been run")
    assert numbers["cells/quick/run"] == numbers["cells/quick/asked"] == str(len(runs))


def test_a_caption_counts_its_own_kind_of_noise(tmp_path):
    one = experiments.grid("paper", noise="asymmetric", rate=0.4)
    three = experiments.grid("paper", noise="asymmetric-sequential", rate=0.4, seed=(0, 1, 2))
    for run in one + three:
        results.write(record(run, 0.9), tmp_path)
    numbers = Numbers(results.load(tmp_path))
    assert numbers["about/paper/asymmetric"].endswith(" 1 seed a cell.")
    assert numbers["about/paper/asymmetric-sequential"].endswith(" 3 seeds a cell.")


def test_people_s_labels_were_published_under_another_protocol(tmp_path):
    (run,) = experiments.grid("paper", noise="human-worst")
    results.write(record(run, 0.5), tmp_path)
    table = tables.against_published(results.load(tmp_path), "paper", ["human-worst"])
    assert table.difference.abs().max() > 20
    assert not table.beyond.any()


def test_a_difference_of_nothing_has_no_minus():
    assert [latex.signed(value) for value in (-0.001, 0.0, -0.006)] == ["+0.00", "+0.00", "−0.01"]
