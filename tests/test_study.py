"""The study of asymmetric noise against oracles: SciPy, scikit-learn, closed forms."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score

from saidl import data, experiments, figures, noise, study, sweep


def random_matrix(seed, K=5):
    return np.random.default_rng(seed).dirichlet(np.ones(K), size=K)


# ------------------------------------------------------------------------------------------------------ a matrix as numbers


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_information_is_scikit_learns(seed):
    counts = np.random.default_rng(seed).multinomial(1000, np.ones(5) / 5, size=5) * (random_matrix(seed) > 0.1)
    counts[:, 0] += 1000 - counts.sum(1)  # equally frequent classes
    clean, noisy = (part.repeat(counts.ravel()) for part in np.indices(counts.shape).reshape(2, -1))
    assert study.information(counts / 1000) == pytest.approx(mutual_info_score(clean, noisy) / np.log(2), abs=1e-9)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.9, 1.0])
def test_closed_forms(rate):
    symmetric, flip = (noise.transition_matrix(kind, rate) for kind in ("symmetric", "pair-flip"))
    np.testing.assert_allclose(study.margin(symmetric), 1 - rate - rate / 9, atol=1e-12)
    np.testing.assert_allclose(study.margin(flip), 1 - 2 * rate, atol=1e-12)
    entropy = stats.entropy([rate, 1 - rate], base=2)
    assert study.information(flip) == pytest.approx(np.log2(10) - entropy)
    assert study.information(symmetric) == pytest.approx(np.log2(10) - entropy - rate * np.log2(9))
    assert study.share(symmetric) == pytest.approx(rate)
    T = noise.transition_matrix("asymmetric", rate)
    assert study.share(T) == pytest.approx(rate / 2)
    assert study.smallest_margin(T) == pytest.approx(1 - 2 * rate)


def test_bayes_accuracy_counts_classes_with_a_positive_margin():
    flip = lambda rate: study.bayes_accuracy(noise.transition_matrix("pair-flip", rate))  # noqa: E731
    assert [flip(rate) for rate in (0.4, 0.5, 0.6)] == [1, 0.5, 0]
    assert study.bayes_accuracy(noise.transition_matrix("asymmetric", 0.6)) == 0.5
    assert study.bayes_accuracy(noise.transition_matrix("symmetric", 0.9)) == pytest.approx(0.1)
    T = random_matrix(0)
    assert study.bayes_accuracy(T) == np.mean(study.margin(T) > 0)


@pytest.mark.parametrize("k", [1, 3, 4, 9])
def test_vote_is_the_binomial_tail_for_two_classes(k):
    T = np.array([[0.7, 0.3], [0.2, 0.8]])
    exact = [stats.binom.sf(k / 2, k, p) + stats.binom.pmf(k / 2, k, p) / 2 for p in (0.7, 0.8)]
    assert study.vote_accuracy(T, k, draws=20_000) == pytest.approx(np.mean(exact), abs=0.01)


def test_votes_run_from_the_memoriser_to_the_bayes_classifier():
    T = noise.transition_matrix("asymmetric", 0.4)
    curve = [study.vote_accuracy(T, k) for k in (1, 3, 9, 31, 301)]
    assert curve == sorted(curve)
    assert curve[0] == pytest.approx(1 - study.share(T), abs=0.02)
    assert curve[-1] == pytest.approx(study.bayes_accuracy(T), abs=0.02)


@pytest.mark.parametrize("T", [[[0.5, 0.6], [0, 1]], [[1.2, -0.2], [0, 1]], np.ones((2, 3)) / 3])
def test_what_is_no_transition_matrix_is_refused(T):
    for measure in (study.margin, study.share, study.information, study.bayes_accuracy):
        with pytest.raises(ValueError, match="matrix must"):
            measure(T)
    with pytest.raises(ValueError, match="k must be"):
        study.vote_accuracy(np.eye(2), 0)


def test_class_distance_is_between_mean_images_in_units_of_its_average():
    pixels = torch.tensor([[0, 0], [2, 0], [4, 0], [0, 3], [0, 5]], dtype=torch.uint8).view(5, 1, 1, 2)
    images = data.Images(pixels, torch.tensor([0, 1, 1, 2, 2]), tuple("abc"), "made up")
    # means (0, 0), (3, 0), (0, 4): 3, 4 and 5 apart, 4 on average
    np.testing.assert_allclose(study.class_distance(images), [[0, 0.75, 1], [0.75, 0, 1.25], [1, 1.25, 0]])


# -------------------------------------------------------------------------------------------------------- noise, matched


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("measure", [study.smallest_margin, study.information])
def test_match_meets_the_value_at_the_first_rate(weight, measure):
    value = measure(noise.transition_matrix("asymmetric", 0.4))
    rate = study.match(lambda r: study.mixture(r, weight), measure, value)
    assert measure(study.mixture(rate, weight)) == pytest.approx(value, abs=1e-6)
    assert all(measure(study.mixture(r, weight)) > value for r in np.linspace(0, rate - 1e-6, 50))


def test_match_says_when_nothing_does():
    with pytest.raises(ValueError, match="no rate"):
        study.match(lambda r: study.mixture(r, 0), study.information, -1.0)
    with pytest.raises(ValueError, match="no rate"):
        study.match(lambda r: study.mixture(r, 0), study.information, 5.0)


def test_mixture_ends_are_the_kinds():
    np.testing.assert_allclose(study.mixture(0.3, 0), noise.transition_matrix("symmetric", 0.3))
    np.testing.assert_allclose(study.mixture(0.3, 1), noise.transition_matrix("pair-flip", 0.3))
    with pytest.raises(ValueError, match="weight must be a number in"):
        study.mixture(0.3, 1.5)


def test_rearranged_changes_who_is_confused_and_nothing_else():
    T, distance = noise.transition_matrix("asymmetric", 0.4), study.class_distance(data.load("digits").train)
    alike, different = (study.rearranged(T, distance, how, tries=300) for how in (True, False))
    assert study.closeness(alike, distance) > study.closeness(T, distance) > study.closeness(different, distance)
    for other in (alike, different):
        np.testing.assert_allclose(np.sort(other.ravel()), np.sort(T.ravel()))
        np.testing.assert_allclose(np.sort(study.margin(other)), np.sort(study.margin(T)))
        assert study.information(other) == pytest.approx(study.information(T))
    moved = ~np.eye(10, dtype=bool) & (T > 0)
    assert study.closeness(T, distance) == pytest.approx(-distance[moved].mean())


def test_cases_are_matched_and_their_runs_distinct():
    distance = study.class_distance(data.load("digits").train)
    cases = study.cases("digits", distance)
    hard = cases["asymmetric 0.4"].T
    assert {
        round(study.smallest_margin(cases[name].T), 3)
        for name in ("symmetric 0.72", "pair-flip 0.4", "mixture 0.5 0.514")
    } == {0.2}
    same = [case.T for case in cases.values() if abs(study.information(case.T) - study.information(hard)) < 1e-3]
    assert len(same) == 5  # itself, twice rearranged, a symmetric and a pair-flip one
    ids = {case.run("smoke", "ce").id for case in cases.values()}
    assert len(ids) == len(cases)
    (usual,) = experiments.grid("quick", loss="ce", noise="asymmetric", rate=0.4)
    assert cases["asymmetric 0.4"].run("quick", "ce") == usual


# --------------------------------------------------------------------------------------- a matrix of one's own in a run


def test_a_run_carries_its_matrix_through_the_store(tmp_path):
    (base,) = experiments.grid("smoke", loss="ce", noise="symmetric", rate=0.5)
    run = replace(base, noise="mine", transition=tuple(map(tuple, study.mixture(0.5, 0.5).tolist())))
    assert run.id != base.id
    assert "transition" not in base.to_dict()
    assert experiments.Run.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    table = sweep.run([run], tmp_path)
    np.testing.assert_allclose(table.record[0]["noise"]["nominal"], study.mixture(0.5, 0.5))
    assert table.noise_rate[0] == pytest.approx(0.5)


def test_corrupt_by_a_matrix_is_the_kind_with_that_matrix():
    labels = np.arange(1000) % 10
    T = noise.transition_matrix("asymmetric", 0.3, dataset="digits")
    mine = noise.corrupt(labels, "anything", 2.0, seed=3, matrix=T)
    np.testing.assert_array_equal(
        mine.labels, noise.corrupt(labels, "asymmetric", 0.3, seed=3, dataset="digits").labels
    )
    for matrix, said in ((np.ones((10, 10)), "row-stochastic"), (np.eye(3), "shape")):
        with pytest.raises(ValueError, match=said):
            noise.corrupt(labels, "anything", 0.3, seed=3, matrix=matrix)


# ------------------------------------------------------------------------------------------------------- what came of it


def test_outcomes_groups_classes_by_what_happens_to_their_labels():
    T = noise.transition_matrix("asymmetric", 0.4)  # truck > automobile, bird > airplane, cat <> dog, deer > horse
    per_class = np.where(
        np.isin(np.arange(10), (9, 2, 3, 5, 4)), 0.5, np.where(np.isin(np.arange(10), (1, 0, 7)), 0.8, 1)
    )
    history = {"class_accuracy": [per_class.tolist()], "test_accuracy": [0.9, None, 0.7], "memorised": [0.25]}
    case = study.Case("asymmetric", 0.4, T)
    records = SimpleNamespace(record=[{"history": history, "test_accuracy": 0.7}])
    row = study.outcomes([(case, case.run("laptop", "ce"))], records).iloc[0]
    assert (row.losing, row.receiving, row.untouched) == pytest.approx((0.5, 0.8, 1))
    assert (row.peak, row.accuracy, row.memorised) == (0.9, 0.7, 0.25)
    assert (row["share"], row["smallest margin"]) == pytest.approx((0.2, 0.2))
    assert (row["mean margin"], row["bayes"]) == pytest.approx((0.6, 1))  # half the classes have 0.2, half 1


def test_fit_votes_finds_the_votes_it_was_made_with():
    cases = study.cases("digits", study.class_distance(data.load("digits").train))
    votes = study.vote_table(cases, (1, 3, 7, 15))
    k, left = study.fit_votes(0.95 * votes[7], votes, 0.95)
    assert (k, left) == (7, pytest.approx(0))


@given(st.lists(st.integers(0, 6), min_size=5, max_size=30), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_spearman_is_scipys(x, seed):
    y = np.random.default_rng(seed).integers(0, 9, len(x))
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert study.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    else:
        assert np.isnan(study.spearman(x, y))


def test_rank_correlations_know_the_predictor_from_the_noise():
    rng = np.random.default_rng(0)
    y = rng.random(30)
    table = study.rank_correlations(
        {"it": -(y**3), "near": y + rng.normal(0, 0.2, 30), "not": rng.random(30)}, y, draws=300
    )
    assert table.rho["it"] == table.low["it"] == 1
    assert table.low["near"] < table.rho["near"] < table.high["near"]
    assert table.best["it"] > 0.95
    assert table.best.sum() == pytest.approx(1)
    assert table.rho["not"] < 0.5


def test_rank_correlations_interval_holds_95_per_cent_of_the_bootstrap():
    rng = np.random.default_rng(1)  # another than the function's: its own draws
    y = rng.random(30)
    x = y + rng.normal(0, 0.5, 30)
    table = study.rank_correlations({"x": x}, y)
    draws = rng.integers(30, size=(1000, 30))
    low, high = np.percentile([stats.spearmanr(x[of], y[of]).statistic for of in draws], [2.5, 97.5])
    assert (table.low["x"], table.high["x"]) == pytest.approx((low, high), abs=0.03)


def test_theorem_holds_for_symmetric_losses_and_not_for_cross_entropy():
    logits = [
        scale * torch.randn(500, 10, generator=torch.Generator().manual_seed(i))
        for i, scale in enumerate((0.5, 1, 2, 4))
    ]
    labels, rates = logits[-1].argmax(1), (0.2, 0.5, 0.9)
    table = study.theorem(*figures.risks(logits, labels, "mae", rates), rates)
    np.testing.assert_allclose(table["slope predicted"], [1 - rate / 0.9 for rate in rates])
    np.testing.assert_allclose(table["slope measured"], table["slope predicted"], atol=0.05)
    assert table["largest distance"].max() < 0.02
    ce = study.theorem(*figures.risks(logits, labels, "ce", rates), rates)
    assert ce["largest distance"].max() > 0.5


# ----------------------------------------------------------------------------------------------------------- human noise


def test_mix_recovers_the_weights_it_was_made_with():
    parts = (np.eye(4), np.full((4, 4), 0.25), np.roll(np.eye(4), 1, axis=1))
    T = 0.6 * parts[0] + 0.3 * parts[1] + 0.1 * parts[2]
    np.testing.assert_allclose(study.mix(1000 * T, parts, steps=2000), T, atol=1e-4)


def test_families_are_transition_matrices_of_greatest_likelihood():
    counts = np.array(noise.human_counts()["human-worst"], float)

    def fit(T):
        return -(counts * np.log2(np.maximum(T, 1e-12))).sum()

    fitted = {name: (parameters, make(counts)) for name, (parameters, make) in study.families().items()}
    for _, T in fitted.values():
        noise.checked_matrix(T, 10)
    assert fit(fitted["every entry"][1]) == pytest.approx(fit(noise.normalise_rows(counts)), rel=1e-6)
    rate = 1 - counts.trace() / counts.sum()
    np.testing.assert_allclose(fitted["symmetric"][1], noise.transition_matrix("symmetric", rate), atol=1e-6)
    nested = [
        "symmetric",
        "symmetric + asymmetric",
        "symmetric + asymmetric both ways",
        "symmetric + kin + asymmetric both ways",
        "every entry",
    ]
    bits = [fit(fitted[name][1]) for name in nested]
    assert bits == sorted(bits, reverse=True)
    assert [fitted[name][0] for name in nested] == [1, 2, 3, 4, 90]


def test_kin_noise_stays_among_animals_and_among_vehicles():
    counts = np.zeros((10, 10))
    for kin in ([2, 3, 4, 5, 6, 7], [0, 1, 8, 9]):  # bird to horse; aeroplane, car, ship, truck
        counts[np.ix_(kin, kin)] = 300 / (len(kin) - 1)
    np.fill_diagonal(counts, 700)
    np.testing.assert_allclose(study.families()["symmetric + kin"][1](counts), counts / 1000, atol=1e-6)


def test_held_out_prefers_the_truth_and_forbids_what_a_family_cannot_do():
    rng = np.random.default_rng(0)
    draw = lambda T: np.stack([rng.multinomial(5000, row) for row in T])  # noqa: E731
    T = noise.transition_matrix("symmetric", 0.3)
    table = study.held_out(draw(T).tolist(), draw(T).tolist()).set_index("family").bits
    assert table["symmetric"] <= table.min() + 1e-3
    assert table["symmetric"] == pytest.approx(stats.entropy(T[0], base=2), abs=0.02)
    assert np.isinf(table["pair flip"])


def test_halves_deal_out_every_label():
    counts = np.array(noise.human_counts()["human-random1"])
    one, two = study.halves(counts, seed=1)
    np.testing.assert_array_equal(one + two, counts)
    assert one.sum() == counts.sum() // 2
    assert min(one.min(), two.min()) >= 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: study.vote_accuracy(random_matrix(0), 5, seed=seed),
        lambda seed: study.rearranged(random_matrix(0), random_matrix(1), True, tries=2, seed=seed).tolist(),
        lambda seed: study.rank_correlations({"x": [1, 3, 2, 5, 4, 6]}, range(6), draws=50, seed=seed).low["x"],
        lambda seed: study.halves(np.full((5, 5), 100), seed=seed)[0].tolist(),
    ],
    ids=["vote_accuracy", "rearranged", "rank_correlations", "halves"],
)
def test_what_is_drawn_depends_on_the_seed(draw):
    assert draw(0) == draw(0) != draw(1)


def test_settings_that_agree_but_for_rounding_are_tied():
    accuracy = np.array([1.0, 2.0, 3.0, 4.0])
    exact, rounded = np.array([0.2, 0.2, 0.5, 0.5]), np.array([0.2, 0.2 - 1e-14, 0.5, 0.5 - 1e-14])
    table = study.rank_correlations({"exact": exact, "rounded": rounded}, accuracy, draws=50)
    assert table.rho["exact"] == table.rho["rounded"] < 1
