"""Label noise: what was asked is what is made."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import confusion_matrix

from saidl import noise

RATED = [kind for kind in noise.KINDS if kind not in noise.HUMAN and kind != "instance-dependent"]
LABELS = np.repeat(np.arange(10), 400)
IMAGES = np.random.default_rng(0).normal(size=(len(LABELS), 1, 4, 4))


@pytest.mark.parametrize("kind", noise.KINDS)
@given(rate=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_matrices_are_row_stochastic(kind, rate):
    T = noise.transition_matrix(kind, rate)
    assert T.shape == (10, 10)
    assert T.dtype == np.float64
    assert (T >= 0).all()
    np.testing.assert_allclose(T.sum(1), 1)


@pytest.mark.parametrize("kind", RATED)
def test_exact_sampling_flips_exactly_the_nominal_share_of_every_class(kind):
    noisy = noise.corrupt(LABELS, kind, 0.4, seed=1)
    if (
        kind == "asymmetric-sequential"
    ):  # a later move takes its share of labels an earlier one brought: exact only on average
        np.testing.assert_allclose(noisy.realised, noisy.nominal, atol=0.08)
    else:
        np.testing.assert_array_equal(np.diag(noisy.realised), np.diag(noisy.nominal).round(12))
    assert noisy.rate == (noisy.labels != LABELS).mean() == noisy.flipped.mean()
    np.testing.assert_allclose(noisy.realised, confusion_matrix(LABELS, noisy.labels, normalize="true"))


@pytest.mark.parametrize("kind", [*RATED, *noise.HUMAN])
def test_drawn_labels_follow_their_row(kind, tmp_path):
    labels = np.repeat(np.arange(10), 3000)
    noisy = noise.corrupt(labels, kind, 0.3, seed=2, exact=False, root=tmp_path)  # which holds no human labels
    counts = confusion_matrix(labels, noisy.labels)
    for row, p in zip(counts, noisy.nominal, strict=True):
        assert row[p == 0].sum() == 0
        if (p > 0).sum() > 1:
            assert stats.chisquare(row[p > 0], 3000 * p[p > 0]).pvalue > 1e-4


def test_wrong_classes_are_equally_likely_under_symmetric_noise():
    noisy = noise.corrupt(np.zeros(9000, dtype=int), "symmetric", 1.0, seed=0)
    assert stats.chisquare(np.bincount(noisy.labels, minlength=10)[1:]).pvalue > 1e-3
    assert (noisy.labels != 0).all()


def test_inclusive_noise_really_is_a_tenth_weaker():
    labels = np.repeat(np.arange(10), 1000)
    assert noise.corrupt(labels, "symmetric-inclusive", 0.5, seed=0).rate == pytest.approx(0.45)


def test_equal_counts_leave_a_small_class_with_fewer_true_labels():
    """MNIST's class sizes: Ma et al.'s code flips 4,800 labels of each class at 0.8."""
    sizes = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    labels = np.repeat(np.arange(10), sizes)
    noisy = noise.corrupt(labels, "symmetric", 0.8, seed=0, exact="equal-counts")
    np.testing.assert_array_equal(np.bincount(labels[noisy.flipped]), 4800)
    np.testing.assert_allclose(1 - np.diag(noisy.nominal), 4800 / sizes)
    np.testing.assert_allclose(np.diag(noisy.nominal), np.diag(noisy.realised))
    assert noisy.rate == 0.8
    most = noise.corrupt([0] * 9 + [1], "symmetric", 0.8, num_classes=2, seed=0, exact="equal-counts")
    assert most.realised.tolist() == [[5 / 9, 4 / 9], [1, 0]]  # a class cannot lose more than it has


@given(twentieths=st.integers(0, 20), labels=st.lists(st.integers(0, 3), max_size=60))
@settings(max_examples=200, deadline=None)
@example(twentieths=18, labels=[0] * 15)  # 13.5
@example(twentieths=2, labels=[0] * 60)  # inclusive: 4.5
def test_exact_halves_are_rounded_as_the_rate_says(twentieths, labels):
    rate, exactly = twentieths / 20, Fraction(twentieths, 20)
    sizes = np.bincount(np.array(labels, dtype=int), minlength=4)
    expected = {
        ("symmetric", True): [round(exactly * n) for n in sizes.tolist()],
        ("symmetric-inclusive", True): [round(exactly * 3 / 4 * n) for n in sizes.tolist()],
        ("pair-flip", True): [round(exactly * n) for n in sizes.tolist()],
        ("asymmetric", True): [round(exactly * sizes[0].item()), 0, 0, 0],
        ("symmetric", "equal-counts"): np.minimum(round(exactly * len(labels) / 4), sizes),
    }
    for (kind, exact), counts in expected.items():
        noisy = noise.corrupt(labels, kind, rate, num_classes=4, seed=0, dataset=[(0, 2)], exact=exact)
        flipped = np.bincount(np.array(labels, dtype=int)[noisy.flipped], minlength=4)
        np.testing.assert_array_equal(flipped, counts, err_msg=f"{kind} {exact}")


@pytest.mark.parametrize(("rate", "flips"), [(0.15, 68), (0.65, 292)])  # of 500: 67.5 and 292.5, to the even number
def test_exact_halves_of_inclusive_noise_too(rate, flips):
    labels = np.repeat(np.arange(10), 500)
    noisy = noise.corrupt(labels, "symmetric-inclusive", rate, seed=0)
    assert np.bincount(labels[noisy.flipped]).tolist() == [flips] * 10


def test_a_matrix_of_ones_own_is_not_shared():
    T = np.eye(2)
    noise.corrupt([0, 1], "mine", None, num_classes=2, seed=0, matrix=T).nominal[0] = 0.5
    np.testing.assert_array_equal(T, np.eye(2))


def test_sequential_asymmetric_noise_gives_cats_back():
    """Cat -> dog runs first, then dog -> cat takes its share of those too (MATH.md section 2: 24 % and 40 % at 0.4)."""
    labels = np.repeat(np.arange(10), 5000)
    sequential = noise.corrupt(labels, "asymmetric-sequential", 0.4, seed=0)
    clean_drawn = noise.corrupt(labels, "asymmetric", 0.4, seed=0)
    assert 1 - sequential.realised[3, 3] == pytest.approx(0.4 * 0.6, abs=0.02)
    assert 1 - sequential.realised[5, 5] == pytest.approx(0.4, abs=0.02)
    assert sequential.rate == pytest.approx((5 * 0.4 - 0.4**2) / 10, abs=0.003)
    assert clean_drawn.rate == 0.2


@pytest.mark.parametrize(
    ("dataset", "moves"),
    [
        ("cifar10", {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}),  # Patrini et al. 2017
        ("mnist", {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}),  # Patrini et al. 2017
        ("digits", {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}),  # MNIST's
        ("fashion-mnist", {9: 7, 7: 5, 2: 6, 4: 3, 3: 4}),  # Zhang & Sabuncu 2018
    ],
)
def test_asymmetric_moves_are_the_published_ones(dataset, moves):
    expected = np.eye(10)
    for source, target in moves.items():
        expected[source, [source, target]] = 0.7, 0.3
    np.testing.assert_allclose(noise.transition_matrix("asymmetric", 0.3, 10, dataset), expected)


CIFAR100_COARSE = np.array([
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
])  # the data set's coarse label of every fine one  # fmt: skip


def test_cifar100_moves_to_the_next_class_of_the_superclass_circularly():
    expected = 0.7 * np.eye(100)
    for c in range(100):
        (kin,) = np.nonzero(CIFAR100_COARSE[c] == CIFAR100_COARSE)
        expected[c, min(kin[kin > c], default=kin[0])] = 0.3
    np.testing.assert_allclose(noise.transition_matrix("asymmetric", 0.3, 100, "cifar100"), expected)


def test_the_moves_of_published_cifar100_tables_stay_inside_five_consecutive_labels():
    block = 0.7 * np.eye(5) + 0.3 * np.roll(np.eye(5), 1, axis=1)
    T = noise.transition_matrix("asymmetric", 0.3, 100, "cifar100-consecutive")
    np.testing.assert_allclose(T, np.kron(np.eye(20), block))


def test_cifar100_moves_stay_inside_superclasses():
    T = noise.transition_matrix("asymmetric", 0.3, 100, "cifar100")
    assert sorted(c for group in noise.CIFAR100_SUPERCLASSES for c in group) == list(range(100))
    for group in noise.CIFAR100_SUPERCLASSES:
        np.testing.assert_allclose(T[np.ix_(group, group)].sum(1), 1)


def test_own_moves():
    T = noise.transition_matrix("asymmetric", 0.25, 3, [(0, 2)])
    np.testing.assert_allclose(T, [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 1]])


def test_moves_one_after_another_are_a_product_of_matrices():
    pairs = [(0, 1), (1, 2), (2, 0), (4, 3), (3, 4)]  # a cycle, and a pair that exchanges
    steps = [noise.transition_matrix("asymmetric", 0.3, 6, [pair]) for pair in pairs]
    T = noise.transition_matrix("asymmetric-sequential", 0.3, 6, pairs)
    np.testing.assert_allclose(T, np.linalg.multi_dot(steps), rtol=1e-14)
    at_once = sum(step - np.eye(6) for step in steps) + np.eye(6)
    np.testing.assert_allclose(noise.transition_matrix("asymmetric", 0.3, 6, pairs), at_once, rtol=1e-14)


def test_moves_of_ones_own_may_be_a_dict_or_none_but_must_move():
    pairs = noise.transition_matrix("asymmetric", 0.3, 3, [(0, 1), (2, 0)])
    np.testing.assert_array_equal(noise.transition_matrix("asymmetric", 0.3, 3, {0: 1, 2: 0}), pairs)
    for kind in ("asymmetric", "asymmetric-sequential"):
        np.testing.assert_array_equal(noise.transition_matrix(kind, 0.3, 3, []), np.eye(3))
        with pytest.raises(ValueError, match="must each leave another class"):
            noise.transition_matrix(kind, 0.3, 3, [(0, 0)])


def test_a_row_that_float32_sums_short_still_gives_a_class():
    p = np.random.default_rng(0).random((1000, 10), dtype=np.float32)

    class Last:
        def random(self, shape):
            return np.ones(shape)

    assert (p.cumsum(1)[:, -1] < p.sum(1)).any()
    assert noise.draw_rows(p, Last()).max() == 9


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.9])
def test_instance_dependent_noise_counted_out_has_the_nominal_rate(rate):
    images = np.random.default_rng(0).normal(size=(len(LABELS), 1, 4, 4))
    noisy = noise.corrupt(LABELS, "instance-dependent", rate, seed=0, images=images)
    np.testing.assert_allclose(noisy.nominal.diagonal(), noisy.realised.diagonal(), atol=0.01)
    numpys = noise.corrupt(LABELS, "instance-dependent", rate, seed=0, images=images, exact=np.True_)
    np.testing.assert_array_equal(numpys.nominal, noisy.nominal)


def test_instance_dependent_noise_of_nothing_and_of_tensors_with_a_gradient():
    none = noise.corrupt([], "instance-dependent", 0.3, seed=0, images=np.zeros((0, 1, 4, 4)))
    assert len(none.labels) == 0
    images = np.random.default_rng(0).normal(size=(50, 1, 4, 4)).astype(np.float32)
    given = torch.from_numpy(images).requires_grad_()
    one, other = (noise.corrupt(LABELS[:50], "instance-dependent", 0.3, seed=0, images=x) for x in (images, given))
    np.testing.assert_array_equal(one.labels, other.labels)


def test_instance_dependent_noise_depends_on_the_image():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4000, 1, 8, 8))
    noisy = noise.corrupt(LABELS, "instance-dependent", 0.4, seed=0, images=images)
    assert noisy.rate == pytest.approx(0.4, abs=0.001)
    again = noise.corrupt(LABELS, "instance-dependent", 0.4, seed=0, images=np.roll(images, 1, axis=0))
    assert (noisy.labels != again.labels).mean() > 0.2
    same_image = noise.corrupt(LABELS, "instance-dependent", 0.9, seed=0, images=np.tile(images[:1], (4000, 1, 1, 1)))
    flips = confusion_matrix(LABELS, same_image.labels) * (1 - np.eye(10))
    assert (flips.max(1) / flips.sum(1)).mean() > 0.5  # one image, one class: one favourite wrong label
    iid = noise.corrupt(LABELS, "instance-dependent", 0.4, seed=0, images=images, exact=False)
    assert iid.rate == pytest.approx(noise.transition_matrix("instance-dependent", 0.4)[0, 1] * 9, abs=0.03)


@pytest.mark.parametrize("exact", [True, False])
def test_instance_dependent_flips_follow_each_samples_own_probability(exact, monkeypatch):
    monkeypatch.setattr(noise, "truncated_normal", lambda mean, size, rng: np.arange(size) % 2.0)  # never, surely, ...
    noisy = noise.corrupt(LABELS, "instance-dependent", 0.4, seed=0, images=IMAGES, exact=exact)
    assert noisy.flipped[1::2].mean() == (0.8 if exact else 1)
    assert not noisy.flipped[::2].any()


def test_instance_dependent_noise_has_a_projection_for_each_class():
    """One image in all classes: its favourite wrong label is not the same everywhere."""
    images = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    noisy = noise.corrupt(LABELS, "instance-dependent", 0.9, seed=0, images=images)
    flips = confusion_matrix(LABELS, noisy.labels) * (1 - np.eye(10))
    assert len(set(flips.argmax(1))) > 2  # of one projection for all: the best, and for the best itself the second


@pytest.mark.parametrize(("scale", "shift"), [(8, 0), (1, 3)])
def test_instance_dependent_noise_does_not_depend_on_brightness_or_contrast(scale, shift):
    plain, changed = (
        noise.corrupt(LABELS, "instance-dependent", 0.4, seed=0, images=images).labels
        for images in (IMAGES, scale * IMAGES + shift)
    )
    assert (plain == changed).mean() > 0.999


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.95])
def test_truncated_normal_is_scipys(mean):
    law = stats.truncnorm((0 - mean) / 0.1, (1 - mean) / 0.1, mean, 0.1)
    drawn = noise.truncated_normal(mean, 5000, np.random.default_rng(0))
    assert stats.kstest(drawn, law.cdf).pvalue > 1e-3


@given(rate=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_truncated_normal_mean(rate):
    exact = stats.truncnorm((0 - rate) / 0.1, (1 - rate) / 0.1, rate, 0.1).mean() if rate else 0
    assert noise.truncated_normal_mean(rate) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("kind", [*RATED, "instance-dependent"])
def test_seeds(kind):
    before = LABELS.copy()
    one, same, other = (noise.corrupt(LABELS, kind, 0.4, seed=s, images=IMAGES).labels for s in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(LABELS, before)


def test_torch_in_torch_out():
    noisy = noise.corrupt(torch.from_numpy(LABELS), "pair-flip", 0.2, seed=0)
    assert noisy.labels.dtype == torch.int64
    assert noisy.flipped.dtype == torch.bool
    np.testing.assert_array_equal(noisy.labels, noise.corrupt(LABELS, "pair-flip", 0.2, seed=0).labels)


def test_estimate_recovers_the_matrix():
    labels = np.repeat(np.arange(10), 20000)
    T = noise.transition_matrix("asymmetric", 0.35)
    drawn = noise.corrupt(labels, "asymmetric", 0.35, seed=0, exact=False).labels
    np.testing.assert_allclose(noise.estimate_transition(labels, drawn, 10), T, atol=0.02)
    np.testing.assert_array_equal(noise.estimate_transition([0, 0], [0, 1], 3), [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])


# ------------------------------------------------------------------------------------------------------------ human labels


def save(path, table):
    torch.save(table, path / "CIFAR-10_human.pt")


def human_table(n=200):
    rng = np.random.default_rng(0)
    columns = ("clean_label", "aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")
    return {name: rng.integers(10, size=n) for name in columns}


def test_human_labels_are_read_and_matched(tmp_path):
    table = human_table()
    save(tmp_path, table)
    noisy = noise.corrupt(table["clean_label"], "human-worst", None, seed=0, root=tmp_path)
    np.testing.assert_array_equal(noisy.labels, table["worse_label"])
    some = np.array([5, 7, 100])
    part = noise.corrupt(table["clean_label"][some], "human-random2", None, seed=0, root=tmp_path, indices=some)
    np.testing.assert_array_equal(part.labels, table["random_label2"][some])
    with pytest.raises(ValueError, match="not CIFAR-10's training labels"):
        noise.corrupt(table["clean_label"][::-1].copy(), "human-worst", None, seed=0, root=tmp_path)


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("human-aggregate", "aggre_label"),
        ("human-random1", "random_label1"),
        ("human-random2", "random_label2"),
        ("human-random3", "random_label3"),
        ("human-worst", "worse_label"),
    ],
)
def test_every_human_kind_is_its_own_column(tmp_path, kind, column):
    table = human_table()
    save(tmp_path, table)
    clean, labels = noise.human_labels(kind, tmp_path)
    np.testing.assert_array_equal(clean, table["clean_label"])
    np.testing.assert_array_equal(labels, table[column])


@pytest.mark.parametrize("index", [-1, 200])
def test_a_place_outside_cifars_training_order_is_refused(tmp_path, index):
    table = human_table(200)
    save(tmp_path, table)
    last = table["clean_label"][-1:]  # what NumPy finds at -1
    with pytest.raises(ValueError, match="place in CIFAR-10's training order"):
        noise.corrupt(last, "human-worst", None, seed=0, root=tmp_path, indices=[index])


def test_human_counts_match_the_published_rates():
    rates = {kind: 1 - np.trace(counts) / np.sum(counts) for kind, counts in noise.human_counts().items()}
    assert {k: round(v, 4) for k, v in rates.items()} == {
        "human-aggregate": 0.0901,
        "human-random1": 0.1723,
        "human-random2": 0.1812,
        "human-random3": 0.1764,
        "human-worst": 0.4021,
    }  # fmt: skip  (Wei et al. 2022, table 1, where aggregate is printed as 9.03 %)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content",
    [
        Evil(), {"clean_label": Evil()}, {"clean_label": "text"}, [1, 2], {"clean_label": np.zeros(3)},
        {"clean_label": np.zeros((2, 2), int), "worse_label": np.zeros(4, int)},
        {"clean_label": np.array([None])}, {"clean_label": np.dtype("int64")}, {"clean_label": torch.zeros(3)},
    ],
)  # fmt: skip
def test_a_human_file_with_anything_but_integer_arrays_is_refused(tmp_path, content, capsys):
    save(tmp_path, content)
    with pytest.raises(ValueError, match=r"CIFAR-10_human|worse_label|clean_label"):
        noise.human_labels("human-worst", tmp_path)
    assert "executed" not in capsys.readouterr().out


class Pickled:
    """What is pickled as the call, the arguments and the state that it is given."""

    def __init__(self, *told):
        self.told = told

    def __reduce__(self):
        return self.told


def test_what_a_file_says_of_numpys_types_is_not_believed(tmp_path):
    labels = np.arange(10)
    rebuild, arguments, (version, shape, _, fortran, raw) = labels.__reduce__()
    pointers = Pickled(np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63))  # NumPy would follow them
    save(tmp_path, dict.fromkeys(human_table(), Pickled(rebuild, arguments, (version, shape, pointers, fortran, raw))))
    for told in noise.human_labels("human-worst", tmp_path):
        np.testing.assert_array_equal(told, labels)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], "symmetric", 1.5), {}, "rate"),
        (([0, 1], "symmetric", float("nan")), {}, "rate"),
        (([0, 1], "symmetric", None), {}, "rate"),
        (([0, 1], "symmetric", [0.4]), {}, "rate"),
        (([0, 1], "symmetric", 0.1), {"seed": None}, "seed"),
        (([0, 1], "symmetric", 0.1), {"seed": "a"}, "seed"),
        (([0, 1], "asymmetric", 0.1), {"dataset": 5}, "asymmetric noise has moves"),
        (([0, 1], "loud", 0.1), {}, "kind must be one of"),
        (([0, 10], "symmetric", 0.1), {}, r"\[0, 10\)"),
        (([-1, 1], "symmetric", 0.1), {}, r"\[0, 10\)"),
        (([0.0, 1.0], "symmetric", 0.1), {}, "integers"),
        (([[0, 1]], "symmetric", 0.1), {}, "integers"),
        (([0, [1]], "symmetric", 0.1), {}, "labels must be integers"),
        (([0, 1], "mine", None), {"num_classes": 2, "matrix": "T"}, "matrix must be numbers"),
        (([0, 0], "symmetric", 0.1), {"num_classes": 1}, "num_classes"),
        (([0, 1], "asymmetric", 0.1), {"num_classes": 7}, "asymmetric noise has moves"),
        (([0, 1], "asymmetric", 0.1), {"dataset": "imagenet"}, "asymmetric noise has moves"),
        (([0, 1], "asymmetric", 0.1), {"dataset": [(0, 1), (0, 2)]}, "each leave another class"),
        (([0, 1], "asymmetric", 0.1), {"dataset": [1, 2]}, "of class numbers"),
        (([0, 1], "asymmetric", 0.1), {"dataset": [(0.9, 1)]}, "of class numbers"),
        (([0, 1], "asymmetric", 0.1), {"dataset": {"cat": "dog"}}, "of class numbers"),
        (([0, 1], "mine", None), {"num_classes": 2, "matrix": [[0.99, 0], [0, 1]]}, "row-stochastic"),
        (([0, 1], "instance-dependent", 0.1), {}, "needs images"),
        (([0, 1], "instance-dependent", 0.1), {"images": 3}, "needs images"),
        (([0, 1], "instance-dependent", 0.1), {"images": [[0.0], [float("nan")]]}, "images must be finite"),
        (([0, 1], "human-worst", None), {"dataset": "mnist"}, "CIFAR-10's"),
        (([0, 1], "human-worst", None), {"num_classes": 3}, "CIFAR-10's"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        noise.corrupt(*arguments, **{"seed": 0} | options)


def test_missing_human_file_says_what_to_fetch(tmp_path):
    for kind in (FileNotFoundError, ValueError):
        with pytest.raises(kind, match=r"CIFAR-10_human\.pt"):
            noise.corrupt([0], "human-worst", None, seed=0, root=tmp_path)


def test_labels_are_drawn_from_their_rows():
    """Class by class, by searching: the same bits as from an explicit row for every label; the counts follow the rows."""
    rng = np.random.default_rng(0)
    T = rng.dirichlet(np.ones(7), 7)
    clean = rng.integers(7, size=70_000)
    noisy = noise.draw_labels(clean, T, np.random.default_rng(1))
    np.testing.assert_array_equal(noisy, noise.draw_rows(T[clean], np.random.default_rng(1)))
    np.testing.assert_allclose(noise.estimate_transition(clean, noisy, 7), T, atol=0.02)


@pytest.mark.parametrize("kind", ["asymmetric", "pair-flip", "human-worst"])
def test_equal_counts_are_for_symmetric_noise(kind):
    with pytest.raises(ValueError, match="exact must be"):
        noise.corrupt(LABELS, kind, 0.4, seed=0, exact="equal-counts")


def test_rows_of_shares_are_normalised_as_rows_of_counts_are():
    shares = np.array([[0.1, 0.3], [0.0, 0.0]])
    np.testing.assert_allclose(noise.normalise_rows(shares), [[0.25, 0.75], [0.0, 1.0]])


def test_a_matrix_in_single_precision_is_brought_to_its_sum():
    T = np.full((3, 3), 1 / 3, np.float32) * np.float32(1.000005)
    drawn = noise.corrupt(np.zeros(100_000, int), "mine", None, num_classes=3, seed=0, matrix=T)
    np.testing.assert_allclose(drawn.nominal.sum(1), 1, rtol=1e-15)
    always = noise.corrupt(np.zeros(100_000, int), "mine", None, num_classes=2, seed=0, matrix=[[0, 1.000009], [0, 1]])
    assert always.flipped.all()


def test_counting_needs_a_number_of_classes_and_a_kind_that_there_is(tmp_path):
    with pytest.raises(ValueError, match="num_classes"):
        noise.estimate_transition([0], [0], None)
    with pytest.raises(ValueError, match="kind must be one of"):
        noise.human_labels("human-foo", tmp_path)
