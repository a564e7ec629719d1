"""Estimating the noise of labels whose noise is known; bad input of every sort."""

import builtins
import csv
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_score, recall_score

from saidl import data, experiments, losses, models, noise, suspects, training

pytest.importorskip("cleanlab")


def sure(clean, K, seed=0, strength=6.0):
    """Out-of-sample probabilities of a good, uncertain network."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(len(clean), K))
    z[np.arange(len(clean)), clean] += strength
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


def labelled(clean, noisy, K):
    images = torch.zeros(len(clean), 1, 8, 8, dtype=torch.uint8)
    return data.Images(images, torch.as_tensor(noisy), tuple(map(str, range(K))), "made up")


@pytest.mark.parametrize(
    ("kind", "rate", "near"), [("symmetric", 0.3, 0.02), ("pair-flip", 0.3, 0.02), ("asymmetric", 0.4, 0.04)]
)
def test_estimate_finds_known_noise(kind, rate, near):
    """Classes that only lose labels are underestimated a little even by a perfect network: their own mean p is the threshold."""
    clean = np.arange(4000) % 10
    noisy = noise.corrupt(clean, kind, rate, seed=0)
    found = suspects.estimate(labelled(clean, noisy.labels, 10), sure(clean, 10, strength=12))
    assert found.rate == pytest.approx(noisy.rate, abs=near)
    assert suspects.matrix_error(found.transition, noisy.realised) < near + 0.01  # not its transpose
    np.testing.assert_allclose(found.transition.sum(1), 1)
    np.testing.assert_allclose(found.prior, 0.1, atol=0.02)
    score = suspects.scores(found.suspects, noisy.flipped)
    assert min(score.values()) > 0.85


def test_suspects_come_least_credible_first():
    clean = np.arange(400) % 4
    given, p = noise.corrupt(clean, "symmetric", 0.3, num_classes=4, seed=0).labels, sure(clean, 4)
    found = suspects.estimate(labelled(clean, given, 4), p).suspects
    credible = [p[i, given[i]] for i in found]
    assert len(found) > 50
    assert credible == sorted(credible)


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    flipped, said = rng.random(200) < 0.3, rng.random(200) < 0.4
    score = suspects.scores(np.flatnonzero(said), flipped)
    assert suspects.scores(said, flipped) == score
    assert score["precision"] == pytest.approx(precision_score(flipped, said))
    assert score["recall"] == pytest.approx(recall_score(flipped, said))
    assert suspects.scores(np.zeros(0, int), flipped) == suspects.scores([], flipped) == {"precision": 0, "recall": 0}


def test_matrix_error_is_total_variation():
    assert suspects.matrix_error(np.eye(3), np.eye(3)) == 0
    assert suspects.matrix_error(np.roll(np.eye(3), 1, 0), np.eye(3)) == 1
    assert suspects.matrix_error([[0.5, 0.5], [0, 1]], np.eye(2)) == 0.25


def test_few_images_are_warned_of_and_fewer_refused():
    clean = np.arange(10) % 2
    with pytest.warns(UserWarning, match="5 images.*worthless"):
        suspects.estimate(labelled(clean, clean, 2), sure(clean, 2))
    with pytest.raises(ValueError, match=r"at least two images.*too few of 1"):
        suspects.out_of_sample(labelled(clean, np.array([0] * 9 + [1]), 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = np.arange(100) % 2
        suspects.estimate(labelled(clean, clean, 2), sure(clean, 2))


def test_probabilities_must_fit_the_labels():
    clean = np.arange(60) % 2
    with pytest.raises(ValueError, match=r"probabilities must be of shape \(60, 2\), not \(60, 3\)"):
        suspects.estimate(labelled(clean, clean, 2), sure(clean, 3))
    for bad in (np.where(np.arange(60)[:, None] == 7, np.nan, sure(clean, 2)), sure(clean, 2) * np.array([1, 2])):
        with pytest.raises(ValueError, match=r"probabilities must lie in \[0, 1\], and \d+ of them do not"):
            suspects.estimate(labelled(clean, clean, 2), bad)
    for bad in ({}, {"ce": sure(clean, 2)[1:]}, {"ce": sure(clean, 2), "mae": clean}):
        with pytest.raises(ValueError, match="of one loss or more, N = 60"):
            suspects.recommend(bad, clean)


def test_without_cleanlab_the_extra_is_named(monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *a, **k: (
            (_ for _ in ()).throw(ImportError()) if name.startswith("cleanlab") else real(name, *a, **k)
        ),
    )
    with pytest.raises(ImportError, match=r"saidl\[clean\]"):
        suspects.estimate(labelled([0, 1], [0, 1], 2), np.eye(2))


def test_recommend_puts_the_most_accurate_first():
    labels = np.arange(400) % 4
    table = suspects.recommend(
        {"poor": sure(labels, 4, strength=0.5), "good": sure(labels, 4), "chance": sure(labels, 4, strength=0)}, labels
    )
    assert table.loss.tolist() == ["good", "poor", "chance"]
    hits = {name: sure(labels, 4, strength=s).argmax(1) == labels for name, s in (("good", 6.0), ("poor", 0.5))}
    difference = hits["good"].astype(float) - hits["poor"]
    assert table.behind[1] == pytest.approx(difference.mean())
    assert table["standard error"][1] == pytest.approx(difference.std() / 20)


# ------------------------------------------------------------------------------------------------- training and exporting


@pytest.fixture(scope="module")
def few():
    train = data.load("digits", train_size=100).train
    return train.with_labels(noise.corrupt(train.labels, "symmetric", 0.2, seed=0).labels)


def untrained(monkeypatch):
    """Training replaced by nothing: (images trained on, images judged, seed) of every fold. Images are told apart by their brightness,
    a classifier's p(0) is the brightness of what it is shown."""
    folds = []

    def train(images, loss, *, epochs, seed):
        def judge(shown):
            folds.append((bright(images.images), bright(shown), seed))
            p = shown[:, 0, 0, 0] / 255
            return torch.stack([p, 1 - p], 1)

        return judge, None

    monkeypatch.setattr(suspects, "train", train)
    return folds


def bright(images):
    return images[:, 0, 0, 0].tolist()


def distinct():
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 1, 8, 8)
    return replace(labelled(np.arange(60), np.arange(60) % 2, 2), images=images)


def test_out_of_sample_judges_every_image_by_others(monkeypatch):
    folds = untrained(monkeypatch)
    p = suspects.out_of_sample(distinct(), folds=3)["ce"]
    for known, judged, _ in folds:
        assert sorted(known + judged) == list(range(60))  # what was trained on is not judged
    assert sorted(i for _, judged, _ in folds for i in judged) == list(range(60))
    np.testing.assert_allclose(p[:, 0], np.arange(60) / 255)  # each in its place


def test_the_seed_divides_the_folds_and_trains_on_them(monkeypatch):
    folds = untrained(monkeypatch)
    for seed in (1, 1, 2):
        suspects.out_of_sample(distinct(), folds=3, seed=seed)
    assert folds[:3] == folds[3:6]
    assert [judged for _, judged, _ in folds[:3]] != [judged for _, judged, _ in folds[6:]]
    assert [seed for *_, seed in folds] == [1] * 6 + [2] * 3


def test_out_of_sample_depends_on_the_labels_and_not_on_what_trains_beside_it(few):
    one = suspects.out_of_sample(few, ("ce",), folds=2, epochs=1)["ce"]
    assert one.shape == (100, 10)
    np.testing.assert_allclose(one.sum(1), 1, atol=1e-5)
    two = suspects.out_of_sample(few, ("mae", "ce"), folds=2, epochs=1)
    np.testing.assert_array_equal(one, two["ce"])  # whatever trains beside it
    changed = few.with_labels(torch.where(torch.arange(100) == 7, (few.labels + 1) % 10, few.labels))
    assert (suspects.out_of_sample(changed, ("ce",), folds=2, epochs=1)["ce"] != one).any()


def test_check_is_its_parts(few):
    clean = data.load("digits", train_size=100).train.labels
    with pytest.warns(UserWarning, match="worthless"):
        table = suspects.check(few, clean, ("ce",), folds=2, epochs=5)
    p = suspects.out_of_sample(few, ("ce",), folds=2, epochs=5)["ce"]
    row, flipped = table.iloc[0], (few.labels != clean).numpy()
    assert row["rate"] == flipped.mean() == pytest.approx(0.2)
    assert row["accuracy on true"] == (p.argmax(1) == clean.numpy()).mean()
    assert row["accuracy on given"] == (p.argmax(1) == few.labels.numpy()).mean() != row["accuracy on true"]
    with pytest.warns(UserWarning, match="worthless"):
        found = suspects.estimate(few, p)
    assert row["rate estimated"] == found.rate
    true = [[((clean == i) & (few.labels == j)).sum() / (clean == i).sum() for j in range(10)] for i in range(10)]
    assert row["matrix error"] == pytest.approx(np.abs(found.transition - np.array(true)).sum() / 2 / 10)
    assert {name: row[name] for name in ("precision", "recall")} == suspects.scores(found.suspects, flipped)


def test_a_loss_may_be_named_alone_and_a_wrong_one_costs_nothing(few, monkeypatch):
    alone = suspects.out_of_sample(few, "ce", folds=2, epochs=1)
    np.testing.assert_array_equal(alone["ce"], suspects.out_of_sample(few, ["ce"], folds=2, epochs=1)["ce"])
    monkeypatch.setattr(suspects, "train", lambda *args, **options: pytest.fail("it trained"))
    with pytest.raises(ValueError, match="nce\\+rse"):
        suspects.out_of_sample(few, ("ce", "nce+rse"), folds=2)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="epochs must be a whole number of at least 1"):
        suspects.train(few, epochs=0)


@pytest.mark.parametrize(("shape", "task"), [((1, 28, 28), "mnist-noise"), ((3, 32, 32), "noise")])
@pytest.mark.parametrize("loss", ["nce+rce", "anl-ce"])
def test_losses_are_trained_as_the_experiments_do(shape, task, loss, monkeypatch):
    (run,) = experiments.grid("paper" if task == "mnist-noise" else "laptop", task=task, loss=loss)
    told = {}
    monkeypatch.setattr(training, "fit", lambda model, *rest, seed: told.update(loss=rest[2], settings=rest[3]))
    suspects.train(
        data.Images(torch.zeros(20, *shape, dtype=torch.uint8), torch.arange(20) % 10, tuple("0123456789"), "made up"),
        loss,
    )
    assert repr(told["loss"]) == repr(losses.make(loss, **dict(run.loss_options)))
    assert (told["settings"].l1, told["settings"].weight_decay) == (run.settings.l1, run.settings.weight_decay)


def test_exported_weights_are_the_classifier(few, tmp_path):
    made, history = suspects.train(few, "nce+rce", epochs=2)
    assert len(history.loss) == 2
    made.save(tmp_path / "weights.safetensors")
    back = suspects.load(tmp_path / "weights.safetensors")
    assert torch.equal(back(few.images), made(few.images))
    assert back.told == made.told
    assert back.told["classes"] == list(few.classes)
    torch.testing.assert_close(made(few.images), made.logits(few.images).softmax(1))
    from safetensors.torch import save_file

    told = json.dumps(made.told)
    for name, metadata in {"other": None, "weightless": {"saidl": told}, "list": {"saidl": "[1]"}}.items():
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors", metadata)
    (tmp_path / "words.safetensors").write_text("words")
    for name in ("other", "weightless", "list", "words"):
        with pytest.raises(ValueError, match="does not hold a classifier"):
            suspects.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(FileNotFoundError):
        suspects.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        suspects.load(tmp_path)


def test_accuracy_reported_is_the_classifiers(few):
    test = data.load("digits").test
    made, history = suspects.train(few, "ce", epochs=3, test=test)
    assert history.test_accuracy[-1] == pytest.approx(
        (made(test.images).argmax(1) == test.labels).double().mean().item()
    )


@pytest.mark.parametrize(
    ("shape", "name"),
    [((1, 8, 8), "small-cnn"), ((3, 16, 16), "small-cnn"), ((1, 28, 28), "cnn4"), ((3, 32, 32), "cnn8")],
)
def test_a_network_for_every_usual_size(shape, name):
    images = data.Images(torch.zeros(6, *shape, dtype=torch.uint8), torch.arange(6) % 3, ("a", "b", "c"), "made up")
    chosen, options, settings = suspects.network(images)
    assert chosen == name
    assert settings.valid_fraction == 0
    assert models.make(chosen, **options)(images.images.float()).shape == (6, 3)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 32, 32), (3, 8, 10), (1, 9, 9)])
def test_other_sizes_are_refused_with_advice(shape):
    images = data.Images(torch.zeros(4, *shape, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"), "made up")
    with pytest.raises(ValueError, match="size="):
        suspects.out_of_sample(images)


def test_table_names_files_and_the_likeliest_other_label(few):
    images = data.Images(
        few.images, few.labels, few.classes, "x", torch.arange(100), tuple(f"{i}.png" for i in range(100))
    )
    p = sure(few.labels.numpy(), 10)
    p[5] = np.eye(10)[(few.labels[5] + 3) % 10]
    table = suspects.table(images.select([3, 5, 9]), np.array([1, 0]), p[[3, 5, 9]])
    assert table.file.tolist() == ["5.png", "3.png"]
    assert table.given[0] == str(few.labels[5].item())
    assert table.suggested[0] == str((few.labels[5].item() + 3) % 10)
    assert (table.p_given[0], table.p_suggested[0]) == (0, 1)
    assert table.suggested[1] != table.given[1]


# ------------------------------------------------------------------------------------------------------ folders and lists


@pytest.fixture
def folder(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((8, 8), 40 * i + (name == "bee"), np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def write(path, rows, header=("file", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_folder_and_list_agree(folder):
    a = data.from_classes(folder)
    b = data.from_csv(write(folder / "labels.csv", [(f"{c}/{i}.png", c) for c in ("ant", "bee") for i in range(3)]))
    assert a.fingerprint == b.fingerprint
    assert a.classes == b.classes == ("ant", "bee")
    assert a.files == b.files == ("ant/0.png", "ant/1.png", "ant/2.png", "bee/0.png", "bee/1.png", "bee/2.png")
    assert a.images[:, 0, 0, 0].tolist() == [0, 40, 80, 1, 41, 81]
    part = a.select([4])
    assert part.files[part.index[0]] == "bee/1.png"


def test_size_makes_mixed_images_one(folder):
    Image.fromarray(np.full((20, 10, 3), 200, np.uint8)).save(folder / "bee" / "3.png")
    with pytest.raises(ValueError, match=r"3.png has size.*one size"):
        data.from_classes(folder)
    images = data.from_classes(folder, size=12)
    assert images.images.shape == (7, 3, 12, 12)
    assert (images.images[-1] == 200).all()


def test_bad_folders_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.from_classes(tmp_path / "nowhere")
    (folder / "bee" / "9.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"cannot read .*9.png"):
        data.from_classes(folder)
    with pytest.raises(ValueError, match="at least two class folders"):
        data.from_classes(folder / "ant")
    (folder / "cat").mkdir()
    with pytest.raises(ValueError, match=r"cat is empty"):
        data.from_classes(folder)


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([("ant/0.png", "ant")], ("file", "class"), "columns file and label; label missing"),
        ([("ant/0.png", "ant"), ("ant/1.png", "")], ("file", "label"), "lacks a file or a label in line 3"),
        ([("ant/0.png", "ant"), ("ant/1.png",), ("", "bee")], ("file", "label"), "in line 3, 4"),
        ([("ant/0.png", "ant"), ("ant/1.png", "ant")], ("file", "label"), "at least two classes"),
        ([("ant/0.png", "ant"), ("bee/7.png", "bee")], ("file", "label"), "cannot read .*7.png"),
        ([], ("file", "label"), "at least two classes"),
        ([], (), "file and label missing"),
    ],
)
def test_bad_lists_are_named(folder, rows, header, said):
    with pytest.raises(ValueError, match=said):
        data.from_csv(write(folder / "labels.csv", rows, header))


def test_folds_and_labels_are_looked_at_first(few):
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2"):
        suspects.out_of_sample(few, folds=1)
    with pytest.raises(ValueError, match=r"labels must lie in"):
        suspects.out_of_sample(replace(few, labels=few.labels + len(few.classes)))
