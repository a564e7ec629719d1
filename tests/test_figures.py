"""Each figure draws what it is given, no more and no less; its formulas agree with the closed form."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from saidl import data, figures, losses, noise

RATES = (0.0, 0.2, 0.4)


def record(rng, epochs=6, classes=10):
    history = {name: rng.random(epochs).tolist() for name in ("test_accuracy", "memorised", "resisted")}
    history["test_accuracy"][1] = None  # an epoch that was not evaluated
    history["class_accuracy"] = rng.random((epochs, classes)).tolist()
    return {"history": history, "confusion": rng.integers(1, 50, (classes, classes)).tolist()}


def make_table(names=("nce+rce", "ce", "nfl"), seeds=(0,)):
    rng = np.random.default_rng(0)
    cells = [("symmetric", rate) for rate in RATES] + [("asymmetric", 0.4), ("asymmetric", 0.2)]
    rows = [
        {"loss": n, "noise": k, "rate": r, "seed": s, "test_accuracy": rng.random(), "record": record(rng)}
        for n in names for k, r in cells for s in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(status="done")


@pytest.fixture
def table():
    return make_table()


def lines(ax):
    """What an axis shows, by legend entry."""
    handles, texts = ax.get_legend_handles_labels()
    return {text.split("\n")[0]: h[0] if hasattr(h, "lines") else h for h, text in zip(handles, texts, strict=True)}


def entries(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_accuracy_by_rate_draws_every_number(table):
    axes = figures.accuracy_by_rate(table).axes
    assert [ax.get_xlabel() for ax in axes] == ["symmetric noise rate", "asymmetric noise rate"]
    for ax, rates, kind in zip(axes, (RATES, (0.0, 0.2, 0.4)), ("symmetric", "asymmetric"), strict=True):
        assert list(lines(ax)) == ["CE", "NFL", "NCE+RCE"]  # the palette's order, not the table's
        for name in ("ce", "nfl", "nce+rce"):
            part = table[(table.loss == name) & ((table.noise == kind) | (table.rate == 0))].sort_values("rate")
            x, y = lines(ax)[figures.label(name)].get_data(orig=False)
            np.testing.assert_allclose(x, rates)
            np.testing.assert_allclose(y, 100 * part.test_accuracy)


def test_missing_cells_are_absent_and_said_so(table):
    table.loc[(table.loss == "nfl") & (table.rate == 0.4) & (table.noise == "symmetric"), "test_accuracy"] = np.nan
    gone = table[~((table.loss == "ce") & (table.noise == "asymmetric"))]
    gone = gone[~((gone.loss == "nce+rce") & (gone.rate > 0))]
    fig = figures.accuracy_by_rate(gone)
    left, right = fig.axes
    assert np.isnan(lines(left)["NFL"].get_ydata(orig=False)).tolist() == [False, False, True]
    assert np.isnan(lines(right)["CE"].get_ydata(orig=False)).tolist() == [False, True, True]
    assert entries(fig) == [
        "CE\n  (missing: asymmetric 0.2, asymmetric 0.4)",
        "NFL\n  (missing: symmetric 0.4)",
        "NCE+RCE\n  (missing: 4 settings)",
    ]


def test_seeds_become_mean_and_deviation():
    table = make_table(("ce",), seeds=(0, 1, 2))
    ax = figures.accuracy_by_rate(table).axes[0]
    bars = ax.containers[0][2][0].get_segments()  # (rates, 2, 2)
    for rate, low, high in zip(RATES, *np.transpose([b[:, 1] for b in bars]), strict=True):
        values = 100 * table.test_accuracy[(table.noise == "symmetric") & (table.rate == rate)]
        np.testing.assert_allclose([low, high], [values.mean() - values.std(), values.mean() + values.std()])


def test_published_points_are_hollow_and_in_place(table):
    theirs = figures.published("cifar10")
    ax = figures.accuracy_by_rate(table, theirs).axes[0]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    for name, line in zip(("ce", "nfl", "nce+rce"), hollow, strict=True):
        rows = theirs[(theirs.noise == "symmetric") & (theirs.loss == name)].sort_values("rate")
        assert line.get_color() == figures.COLOURS[name]
        np.testing.assert_allclose(line.get_data(), (rows.rate, rows.accuracy))


def test_over_epochs_skips_what_was_not_evaluated(table):
    fig = figures.over_epochs(table[table.noise == "symmetric"])
    assert [ax.get_title() for ax in fig.axes] == ["clean", "symmetric 0.2", "symmetric 0.4"]
    history = table.record[(table.loss == "nfl") & (table.rate == 0.2) & (table.noise == "symmetric")].iloc[0][
        "history"
    ]
    x, y = lines(fig.axes[1])["NFL"].get_data()
    assert x.tolist() == [1, 3, 4, 5, 6]
    np.testing.assert_allclose(y, [100 * v for v in history["test_accuracy"] if v is not None])


def test_learning_draws_accuracy_against_epochs_and_minutes():
    rng = np.random.default_rng(1)
    rows = [{"name": name, "model": "s4d", "test_accuracy": 0.5, "status": "done", "record": record(rng)}
            for name in ("S4D (zoh)", "S4D (bilinear)", "S4D (zoh)")]  # fmt: skip
    for row in rows:
        row["record"]["history"] |= {name: rng.random(6).tolist() for name in ("train_accuracy", "seconds")}
    histories = [row["record"]["history"] for row in rows]
    epochs, minutes = figures.learning({"a task": pd.DataFrame(rows)}).axes
    x, y = lines(epochs)["S4D (zoh)"].get_data()
    assert x.tolist() == [1, 3, 4, 5, 6]
    assert y[1] == pytest.approx(50 * (histories[0]["test_accuracy"][2] + histories[2]["test_accuracy"][2]))
    x, y = lines(minutes)["S4D (bilinear)"].get_data()
    assert x[-1] == pytest.approx(6 * min(histories[1]["seconds"]) / 60)
    assert x[-1] == pytest.approx(figures.minutes(rows[1]["record"]))
    x, y = lines(minutes)["S4D (zoh)"].get_data()
    assert x[0] == pytest.approx((min(histories[0]["seconds"]) + min(histories[2]["seconds"])) / 120)
    pale = [line for line in minutes.lines if line.get_alpha()]
    np.testing.assert_allclose(pale[1].get_ydata(), 100 * np.array(histories[1]["train_accuracy"]))
    assert lines(minutes)["S4D (zoh)"].get_linestyle() != lines(minutes)["S4D (bilinear)"].get_linestyle()


def test_memorisation_has_a_row_a_setting(table):
    fig = figures.memorisation(table[table.noise == "asymmetric"])
    assert [ax.get_title() for ax in fig.axes] == ["asymmetric 0.2"] * 3 + ["asymmetric 0.4"] * 3
    row = table[(table.loss == "ce") & (table.noise == "asymmetric") & (table.rate == 0.4)].iloc[0]
    for ax, field in zip(fig.axes[3:], ("memorised", "resisted"), strict=False):
        np.testing.assert_allclose(lines(ax)["CE"].get_ydata(), 100 * np.array(row.record["history"][field]))


def test_class_accuracy_is_the_last_epochs(table):
    part = table[(table.noise == "asymmetric") & (table.rate == 0.4)]
    fig = figures.class_accuracy(part, flipped=(2, 3))
    for row in part.itertuples():
        x, y = lines(fig.axes[0])[figures.label(row.loss)].get_data()
        np.testing.assert_allclose(y, 100 * np.array(row.record["history"]["class_accuracy"][-1]))
        np.testing.assert_array_equal(np.round(x), range(10))
    assert len(fig.axes[0].patches) == 2


def test_classes_are_followed_over_the_epochs_that_were_evaluated(table):
    part = table[(table.noise == "asymmetric") & (table.rate == 0.4)].copy()
    part.record = [record | {"history": dict(record["history"])} for record in part.record]
    for record in part.record:
        by_class = [list(row) for row in record["history"]["class_accuracy"]]
        by_class[2] = [None] * 10  # an epoch that was not evaluated
        record["history"]["class_accuracy"] = by_class
    fig = figures.classes_over_epochs(part.assign(images=[5000, 5000, 20000]), {3: "cat"}, by="images")
    assert [list(lines(ax)) for ax in fig.axes] == [["CE", "NCE+RCE"], ["NFL"]]
    assert fig.axes[1].get_ylabel().endswith("20,000 images")
    (ax,) = figures.classes_over_epochs(part, {3: "cat"}, window=2).axes
    for row in part.itertuples():
        line, by_class = lines(ax)[figures.label(row.loss)], row.record["history"]["class_accuracy"]
        assert line.get_xdata().tolist() == [1.5, 4.5]  # of the epochs 1, 2, 4, 5 and 6, the last alone
        np.testing.assert_allclose(line.get_ydata(), [50 * (by_class[i][3] + by_class[i + 1][3]) for i in (0, 3)])
        assert line.get_marker() == ""
    fig = figures.classes_over_epochs(part, {3: "cat", 7: "horse"})
    assert [ax.get_title() for ax in fig.axes] == ["cat", "horse"]
    for c, ax in zip((3, 7), fig.axes, strict=True):
        for row in part.itertuples():
            x, y = lines(ax)[figures.label(row.loss)].get_data()
            assert x.tolist() == [1, 2, 4, 5, 6]
            np.testing.assert_allclose(
                y, [100 * v[c] for v in row.record["history"]["class_accuracy"] if v[c] is not None]
            )


def test_bars_are_sorted_and_name_what_is_missing(table):
    part = table[(table.noise == "symmetric") & (table.rate == 0.4)].copy()
    part.loc[part.loss == "nfl", "test_accuracy"] = np.nan
    ax = figures.bars(part, figures.published()).axes[0]
    best = part.dropna(subset="test_accuracy").sort_values("test_accuracy")
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 100 * best.test_accuracy)
    assert [text.get_text() for text in ax.get_yticklabels()] == [figures.label(name) for name in best.loss]
    assert "missing: NFL" in ax.get_title()


def test_matrices_show_their_entries():
    noisy = noise.corrupt(np.repeat(np.arange(10), 20), "asymmetric", 0.4, seed=0)
    nominal, realised = figures.transition(noisy).axes[:2]
    np.testing.assert_array_equal(nominal.images[0].get_array(), noisy.nominal)
    np.testing.assert_array_equal(realised.images[0].get_array(), noisy.realised)
    assert "20.0%" in realised.get_title()
    assert sum(text.get_text() == ".40" for text in nominal.texts) == 5


def test_confusion_rows_are_shares(table):
    fig = figures.confusion(table[(table.noise == "asymmetric") & (table.rate == 0.4)])
    for ax, counts in zip(fig.axes, table[(table.noise == "asymmetric") & (table.rate == 0.4)].record, strict=False):
        shown = np.asarray(ax.images[0].get_array())
        np.testing.assert_allclose(shown.sum(1), 1)
        np.testing.assert_allclose(shown * np.sum(counts["confusion"], 1, keepdims=True), counts["confusion"])


def test_confusion_has_a_panel_a_finished_run(table):
    runs = table[(table.noise == "symmetric") & (table.rate < 0.5)]
    failed = runs.iloc[:1].assign(status="failed", record=[{}])
    titles = [
        ax.get_title() for ax in figures.confusion(pd.concat([runs, failed])).axes if ax.images and ax.get_title()
    ]
    assert len(titles) == len(set(titles)) == len(runs)


@pytest.mark.parametrize(
    "draw",
    [
        figures.bars,
        figures.over_epochs,
        figures.memorisation,
        figures.class_accuracy,
        figures.confusion,
        partial(figures.classes_over_epochs, classes={0: "zero"}),
    ],
)
def test_nothing_to_show_is_said(table, draw):
    with pytest.raises(ValueError, match="no run to show"):
        draw(table[:0])


def test_runs_of_different_length_are_not_averaged(table):
    short = table.iloc[:1].assign(record=[{"history": {"test_accuracy": [0.5]}}])
    with pytest.raises(ValueError, match="different length"):
        figures.history(pd.concat([table[:1], short]), "test_accuracy")


def test_image_grid_marks_exactly_the_wrong_labels():
    train = data.load("digits", train_size=30).train
    noisy = noise.corrupt(train.labels, "symmetric", 0.4, seed=0)
    fig = figures.image_grid(train.images, noisy.labels, train.labels)
    assert ["→" in ax.get_title() for ax in fig.axes] == noisy.flipped.tolist()
    assert [ax.spines["left"].get_visible() for ax in fig.axes] == noisy.flipped.tolist()
    np.testing.assert_array_equal(fig.axes[7].images[0].get_array(), train.images[7, 0])


@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("ce", lambda p: (-np.log(p), 1 / p, 1 - p)),
        ("mae", lambda p: (1 - p, np.ones_like(p), p * (1 - p))),
        ("rce", lambda p: losses.LOG_ZERO * np.array([1 - p, np.ones_like(p), p * (1 - p)])),
    ],
)
def test_loss_curves_are_the_closed_form(name, closed):
    fig = figures.loss_curves([name])
    for ax, expected in zip(fig.axes, closed(fig.axes[0].lines[0].get_xdata()), strict=True):
        np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=1e-9)


@pytest.mark.parametrize("draw", [figures.accuracy_by_rate, figures.bars])
def test_two_experiments_are_not_averaged_as_seeds(draw, table):
    draw(pd.concat([table, table.assign(seed=1)]))
    twice = pd.concat([table, table[table.loss == "nfl"].assign(epochs=5)])
    with pytest.raises(ValueError, match=r"runs of nfl, .*, seed 0 differ in more than their seeds"):
        draw(twice)


def test_pull_is_the_closed_form():
    for p in (0.01, 0.5, 0.9):
        assert figures.pull("ce", p) == pytest.approx(1 - p)
        assert figures.pull("mae", p, 3) == pytest.approx(p * (1 - p))


def test_label_sums_are_flat_for_symmetric_losses_only():
    drawn = lines(figures.label_sums(["nce", "mae", "ce"]).axes[0])
    np.testing.assert_allclose(drawn["NCE"].get_ydata(), 1, rtol=1e-12)
    np.testing.assert_allclose(drawn["MAE"].get_ydata(), 9, rtol=1e-12)
    assert np.ptp(drawn["CE"].get_ydata()) > 1


def test_risk_bound_measures_what_the_theorem_says():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(40)
    logits = [s * (torch.eye(10)[labels] + torch.randn(400, 10, generator=generator)) for s in (0.5, 2, 5)]
    rates = (0.0, 0.4, 0.8)
    clean, noisy, sums = figures.risks(logits, labels, "nce", rates)
    np.testing.assert_allclose(sums, 1)
    for rate, measured in zip(rates, noisy, strict=True):
        np.testing.assert_allclose(measured, rate / 9 + (1 - rate * 10 / 9) * clean, atol=0.002)
    nce, ce = figures.risk_bound(logits, labels, ["nce", "ce"], rates).axes
    points = [line for line in nce.lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose([line.get_data() for line in points], [(clean, row) for row in noisy])
    theory = [line for line in nce.lines if line.get_linestyle() == "-"]
    for line, rate in zip(theory, rates, strict=True):
        x, y = line.get_data()
        np.testing.assert_allclose(y, rate / 9 + (1 - rate * 10 / 9) * x)
    assert not [line for line in ce.lines if line.get_linestyle() == "-"]


def test_a_name_looks_the_same_everywhere_and_figures_save(table, tmp_path):
    assert set(losses.names()) - set(figures.COLOURS) <= {"nrce", "eps-ce", "eps-fl"}
    fig = figures.bars(table[(table.noise == "asymmetric")])
    assert isinstance(fig, Figure)
    first, second = (figures.save(fig, tmp_path / name).read_bytes() for name in ("a.pdf", "b.pdf"))
    assert first == second
    assert b"/Type3" not in first  # text is kept as text (fonttype 42)


def test_published_rows_are_one_a_cell():
    for dataset in ("mnist", "cifar10", "cifar100"):
        rows = figures.published(dataset)
        assert len(rows)
        assert not rows.duplicated(["loss", "noise", "rate"]).any()


# ------------------------------------------------------------------------------------- asymmetric noise, sequence models

OUTCOMES = pd.DataFrame(
    [("spread", "ce", 0.5), ("spread", "gce", 0.9), ("aimed", "ce", 0.4), ("aimed", "gce", 0.6)],
    columns=["case", "loss", "accuracy"],
).assign(share=[0.4, 0.4, 0.3, 0.3], bayes=[1.0, 1.0, 0.95, 0.95])


def test_continuum_goes_from_case_to_case():
    (ax,) = figures.continuum(OUTCOMES, {"rate held": {0: "spread", 1: "aimed"}}).axes
    shown = {text: line.get_xydata().tolist() for text, line in lines(ax).items()}
    assert shown == {
        "CE": [[0, 50], [1, 40]],
        "GCE": [[0, 90], [1, 60]],
        "Bayes classifier": [[0, 100], [1, 95]],
        "1 - share of wrong labels": [[0, 60], [1, 70]],
    }


def test_class_groups_have_a_panel_each():
    groups = {"losing": [0.3, 0.5], "receiving": [0.6, 0.8], "untouched": [0.9, 1.0]}
    rows = pd.DataFrame(groups | {"rate": [0.4, 0.2]}).assign(loss="ce", family="asymmetric")
    other = rows.assign(family="pair-flip", losing=0.0)
    axes = figures.class_groups(pd.concat([rows, other])).axes
    assert [lines(ax)["CE"].get_ydata().round(6).tolist() for ax in axes] == [[50, 30], [80, 60], [100, 90]]
    assert lines(axes[0])["CE"].get_xdata().tolist() == [0.2, 0.4]


def test_dynamics_follow_a_field_of_each_setting(table):
    fig = figures.dynamics(table, {"symmetric 0.2": "spread", "asymmetric 0.4": "aimed"}, ["ce", "nfl"])
    axes = np.array(fig.axes).reshape(2, 2)  # fields down, losses across
    for j, loss in enumerate(("ce", "nfl")):
        run = table[(table.loss == loss) & (table.noise == "asymmetric")].iloc[0]
        told = run.record["history"]
        assert lines(axes[0, j])["aimed"].get_ydata() == pytest.approx([100 * v for v in told["memorised"]])
        assert lines(axes[1, j])["aimed"].get_xdata().tolist() == [1, 3, 4, 5, 6]  # the second was not evaluated


def test_foretold_is_across_and_reached_is_up():
    rows = pd.DataFrame({"loss": "ce", "foretold": [0.5, 0.8], "accuracy": [0.6, 0.7], "fitted": [True, False]})
    (ax,) = figures.foretold({"digits": rows}).axes
    drawn = {line.get_markerfacecolor(): line.get_xydata().tolist() for line in ax.lines[1:3]}
    assert drawn.pop("none") == [[80, 70]]
    assert list(drawn.values()) == [[[50, 60]]]


def test_rank_intervals_reach_from_low_to_high():
    rows = pd.DataFrame({"rho": [0.7], "low": [0.2], "high": [0.8]}, index=["share"])
    (ax,) = figures.rank_intervals({"ce": rows}).axes
    (bar,) = ax.containers[0].lines[2][0].get_segments()
    assert bar[:, 0] == pytest.approx([0.2, 0.8])


def test_past_the_bound_marks_where_it_is(table):
    (ax,) = figures.past_the_bound(table, num_classes=4).axes
    assert set(lines(ax)["the bound, 1 - 1/K"].get_xdata()) == {0.75}
    assert set(lines(ax)["chance"].get_ydata()) == {25}
    ce = table[(table.loss == "ce") & (table.noise == "symmetric")].sort_values("rate")
    assert lines(ax)["CE"].get_ydata() == pytest.approx(100 * ce.test_accuracy.to_numpy())


def test_likelihoods_are_bits_beyond_the_best_and_leave_out_the_impossible():
    rows = pd.DataFrame({"family": ["free", "kin", "pair-flip"], "parameters": [90, 2, 1], "bits": [1.5, 1.75, np.inf]})
    (ax,) = figures.likelihoods({"worst": rows}).axes
    assert lines(ax)["worst"].get_xydata().tolist() == [[0.25, 0], [0, 1]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["kin (2)", "free (90)"]


def test_models_are_drawn_against_epochs_and_against_their_own_seconds():
    told = {"history": {"test_accuracy": [0.1, 0.2, 0.4]}}
    row = {"parameters": 10, "seed": 0, "status": "done", "test_accuracy": 0.4, "record": told}
    runs = pd.DataFrame([row | {"model": model} for model in ("s4d", "lstm")])
    epochs, seconds = figures.by_model(runs, {"s4d": 2.0, "lstm": 5.0}).axes
    assert lines(epochs)["LSTM, 10"].get_xdata().tolist() == [1, 2, 3]
    assert lines(seconds)["LSTM, 10"].get_xdata().tolist() == [5, 10, 15]
    assert lines(seconds)["S4D, 10"].get_xydata().tolist() == [[2, 10], [4, 20], [6, 40]]
