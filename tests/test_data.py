"""Data: the right pixels in the right order, and clear errors."""

import hashlib
import pickle
import re
import shutil
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saidl import data


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    split, bunch = data.load("digits"), load_digits()
    for part in split:
        np.testing.assert_allclose(part.images[:, 0].float() / 255 * 16, bunch.images[part.index], atol=0.04)
        np.testing.assert_array_equal(part.labels, bunch.target[part.index])
    assert not set(split.train.index.tolist()) & set(split.test.index.tolist())
    assert split.train.fingerprint == data.load("digits").train.fingerprint != split.test.fingerprint


def test_the_digits_of_the_test_set_are_as_frequent_as_in_all():
    split = data.load("digits")
    of_all = np.bincount(torch.cat([split.train.labels, split.test.labels]))
    np.testing.assert_allclose(np.bincount(split.test.labels), of_all * 500 / 1797, atol=1)


def test_subset_is_balanced_ordered_and_seeded():
    small = data.load("digits", train_size=205, seed=1).train
    counts = np.bincount(small.labels, minlength=10)
    assert len(small) == 205
    assert counts.max() - counts.min() <= 1
    ordered = replace(data.load("digits").train, index=torch.arange(1297))
    assert (data.subset(ordered, 205, seed=1).index.diff() > 0).all()
    assert torch.equal(small.index, data.load("digits", train_size=205, seed=1).train.index)
    assert not torch.equal(small.index, data.load("digits", train_size=205, seed=2).train.index)
    assert torch.equal(small.index, data.load("digits", train_size=np.int64(205), seed=1).train.index)
    assert len(data.load("digits", train_size=1297).train) == 1297


def test_as_sequence_reads_row_by_row():
    x = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    colour = data.as_sequence(x, grayscale=False)
    assert colour.shape == (2, 4, 3)
    torch.testing.assert_close(colour[0, 1] * 255, torch.tensor([1.0, 5.0, 9.0]))
    grey = data.as_sequence(x)
    assert grey.shape == (2, 4, 1)
    torch.testing.assert_close(grey[..., 0], colour @ torch.tensor([0.299, 0.587, 0.114]))
    assert data.as_sequence(torch.full((1, 1, 1, 5), -32768, dtype=torch.int16)).min() == -1


def test_grey_is_pillows():
    rgb = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    ours = data.as_sequence(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0, :, 0] * 255
    np.testing.assert_allclose(ours.view(4, 4), np.asarray(Image.fromarray(rgb).convert("L")), atol=1)


def test_crop_flip_is_pad_slice_and_mirror():
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    index = torch.tensor([5, 0, 3, 3])
    crops = data.draw_crops(4, torch.Generator().manual_seed(0))
    cut = data.crop_flip(data.padded(images), index, crops)
    assert cut.is_contiguous(memory_format=torch.channels_last)
    whole = torch.nn.functional.pad(images, (4,) * 4)
    for image, i, (top, left, flip) in zip(cut, index, crops.T, strict=True):
        window = whole[i, :, top : top + 8, left : left + 8]
        assert torch.equal(image, window.flip(-1) if flip else window)
    assert not torch.equal(crops[:, 2], crops[:, 3])  # the same image twice, cut differently
    assert 0 < crops[2].sum() < 4


def test_crops_are_drawn_equally():
    from scipy import stats

    top, left, flip = data.draw_crops(8100, torch.Generator().manual_seed(0))
    counts = torch.bincount((top * 9 + left) * 2 + flip)
    assert len(counts) == 9 * 9 * 2
    assert stats.chisquare(counts).pvalue > 1e-4


def test_another_seed_is_another_order_of_the_pixels():
    one, same, other = (data.permutation(100, seed) for seed in (0, 0, 1))
    assert sorted(one.tolist()) == list(range(100))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_batches_visit_everything_once_and_never_one_alone():
    parts = data.batches(129, 64, torch.Generator().manual_seed(0))
    assert [len(p) for p in parts] == [64, 65]
    assert sorted(torch.cat(parts).tolist()) == list(range(129))


@pytest.mark.parametrize("name", ["delayed-recall", "adding"])
def test_synthetic_tasks_hold_their_answer_where_they_say(name):
    split = data.synthetic(name, length=64, train=200, test=100)
    x, y = split.train.images[:, :, 0], split.train.labels
    if name == "delayed-recall":
        torch.testing.assert_close(x[:, :, 0].argmax(1), y)
        later = x[:, :, 1:].flatten(1)
    else:
        torch.testing.assert_close(((x[:, 0] * x[:, 1]).sum(1) > 1).long(), y)
        assert (x[:, 1, :32].sum(1) == 1).all()
        later = x[:, :, 32:].flatten(1)  # without the first half, and so without the first number
    centroid = torch.stack([later[y == c].mean(0) for c in range(len(split.train.classes))])
    held = (
        split.test.images[:, :, 0, 1:].flatten(1)
        if name == "delayed-recall"
        else split.test.images[:, :, 0, 32:].flatten(1)
    )
    hits = (torch.cdist(held, centroid).argmin(1) == split.test.labels).float().mean()
    assert hits < (0.35 if name == "delayed-recall" else 0.75)


@pytest.mark.parametrize("name", ["delayed-recall", "adding"])
def test_another_seed_makes_up_other_sequences(name):
    one, same, other = (data.synthetic(name, length=8, train=50, test=50, seed=seed) for seed in (0, 0, 1))
    for i in range(2):
        assert one[i].fingerprint == same[i].fingerprint
        assert not torch.equal(one[i].images, other[i].images)
        assert not torch.equal(one[i].labels, other[i].labels)


# ------------------------------------------------------------------------------------------------------- official files


def fake_cifar(root, monkeypatch, damage=None):
    """A CIFAR-10 folder of 50 images whose checksums torchvision is told to expect."""
    import torchvision

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng, listed = np.random.default_rng(0), {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
        entry = {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}
        content = pickle.dumps({"label_names": list("abcdefghij")} if name == "batches.meta" else entry)
        listed[name] = hashlib.md5(content).hexdigest()
        (folder / name).write_bytes(content[: len(content) // 2] if name == damage else content)
    maker = torchvision.datasets.CIFAR10
    monkeypatch.setattr(maker, "train_list", [[f"data_batch_{i}", listed[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(maker, "test_list", [["test_batch", listed["test_batch"]]])
    monkeypatch.setattr(
        maker, "meta", {"filename": "batches.meta", "key": "label_names", "md5": listed["batches.meta"]}
    )


def test_local_official_files_are_used_without_network(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda self: pytest.fail("no download expected"))
    monkeypatch.setenv("SAIDL_DATA", str(tmp_path))
    split = data.load("cifar10")
    assert split.train.images.shape == (50, 3, 32, 32)
    raw = pickle.loads((tmp_path / "cifar-10-batches-py/test_batch").read_bytes())
    np.testing.assert_array_equal(split.test.images.flatten(1), raw["data"])


def test_truncated_official_file_is_named(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch, damage="data_batch_3")
    with pytest.raises(ValueError, match=r"cifar10: the files .* incomplete or damaged"):
        data.load("cifar10", root=tmp_path)


@pytest.mark.parametrize(("name", "where"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_files_that_are_not_mnists_are_named(tmp_path, name, where):
    folder = tmp_path / where / "raw"
    folder.mkdir(parents=True)
    two, side = (n.to_bytes(4, "big") for n in (2, 28))
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + two + side + side + bytes(2 * 28 * 28))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + two + bytes(2))
    with pytest.raises(ValueError, match="MNIST are not the official ones"):
        data.load(name, root=tmp_path)


def test_a_download_is_moved_in_whole_and_found_again(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    source, calls = tmp_path / "cifar-10-batches-py", []

    def download(self):
        calls.append(self.root)
        shutil.copytree(source, Path(self.root) / source.name)
        (Path(self.root) / "cifar-10-python.tar.gz").touch()

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", download)
    first, again = (data.load("cifar10", root=tmp_path / "fresh") for _ in range(2))
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == [source.name]
    assert first.train.fingerprint == again.train.fingerprint == data.load("cifar10", root=tmp_path).train.fingerprint


def test_an_archive_in_the_data_folder_is_unpacked_without_network(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    folder = tmp_path / "fresh"
    archive = Path(shutil.make_archive(folder / "cifar-10-python", "gztar", tmp_path, "cifar-10-batches-py"))
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("no download expected"))
    unpacked = data.load("cifar10", root=folder)
    assert unpacked.train.fingerprint == data.load("cifar10", root=tmp_path).train.fingerprint
    assert {path.name for path in folder.iterdir()} == {archive.name, "cifar-10-batches-py"}


def test_failed_download_leaves_nothing_behind(tmp_path, monkeypatch):
    def download(self):
        (self.root / "half").mkdir() if hasattr(self.root, "mkdir") else open(f"{self.root}/half", "w").close()
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", download)
    with pytest.raises(ConnectionError, match="could not download cifar10") as caught:
        data.load("cifar10", root=tmp_path / "fresh")
    assert isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    with pytest.raises(ConnectionError):
        data.load("cifar10", root=tmp_path / "old")
    assert list((tmp_path / "old").iterdir()) == []


def test_spoken_digits_are_cut_padded_and_split(tmp_path):
    folder = tmp_path / "spoken-digits/recordings"
    folder.mkdir(parents=True)
    tone = np.arange(100, 10100, dtype="<i2")
    for digit in range(10):
        for number, length in ((0, 50), (7, 10000)):
            with wave.open(str(folder / f"{digit}_ann_{number}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(tone[:length].tobytes())
    split = data.load("spoken-digits", root=tmp_path)
    np.testing.assert_array_equal(split.train.images[0, 0, 0], tone[:8192])
    np.testing.assert_array_equal(split.test.images[0, 0, 0], np.pad(tone[:50], (0, 8142)))
    assert (len(split.train), len(split.test)) == (10, 10)
    for name, form in (("1_ann_7 (1)", (1, 2)), ("12_ann_7", (1, 2)), ("2_ann_8", (2, 2)), ("3_ann_9", (1, 1))):
        path = folder / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((*form, 8000, 0, "NONE", ""))
            file.writeframes(tone.tobytes())
        with pytest.raises(ValueError, match=re.escape(path.name)):
            data.load("spoken-digits", root=tmp_path)
        path.unlink()
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"holds no \.wav files"):
        data.load("spoken-digits", root=tmp_path)


def test_spoken_digits_have_the_labels_of_their_names_and_the_first_five_recordings_for_the_test(tmp_path):
    folder = tmp_path / "spoken-digits/recordings"
    folder.mkdir(parents=True)
    names = {(digit, speaker, number) for digit in (0, 1, 8) for speaker in (1, 2) for number in (0, 1, 4, 5, 11)}
    for digit, speaker, number in names:
        with wave.open(str(folder / f"{digit}_speaker{speaker}_{number}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(np.array([digit, speaker, number], dtype="<i2").tobytes())  # a sound that says its name
    split = data.load("spoken-digits", root=tmp_path)
    for part, numbers in ((split.train, (5, 11)), (split.test, (0, 1, 4))):
        said = part.images[:, 0, 0, :3]
        assert {tuple(name) for name in said.tolist()} == {name for name in names if name[2] in numbers}
        assert part.labels.tolist() == said[:, 0].tolist()


# ----------------------------------------------------------------------------------------------------------- own folders


def image_folder(root, classes=("ant", "bee"), size=(4, 5), count=3):
    for part in ("train", "test"):
        for c, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", size, (c, i, 7)).save(root / part / name / f"{i}.png")
    return root


def test_folder_is_read_in_the_order_of_names(tmp_path):
    split = data.load(str(image_folder(tmp_path)))
    assert split.train.classes == ("ant", "bee")
    assert split.train.images.shape == (6, 3, 5, 4)
    assert split.train.images[:, :, 0, 0].tolist() == [[c, i, 7] for c in range(2) for i in range(3)]
    assert split.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert split.train.files == tuple(f"train/{c}/{i}.png" for c in ("ant", "bee") for i in range(3))
    assert split.test.files[0] == "test/ant/0.png"


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda f: Image.new("RGB", (9, 9)).save(f / "train/bee/9.png"), ValueError, "9.png has size"),
        (lambda f: (f / "test/ant/0.png").write_bytes(b"not an image"), ValueError, "cannot read .*0.png"),
        (lambda f: [p.unlink() for p in (f / "train/bee").iterdir()], ValueError, "bee is empty"),
        (lambda f: (f / "train/cat").mkdir(), ValueError, "cat is empty|same classes"),
        (lambda f: (f / "test").rename(f / "elsewhere"), FileNotFoundError, "test is missing"),
    ],
)
def test_bad_folders_are_named(tmp_path, spoil, error, message):
    folder = image_folder(tmp_path)
    spoil(folder)
    with pytest.raises(error, match=message):
        data.load(str(folder))


def plain_folder(path, **parts):
    """train/ and test/ with two classes of one image each, of the mode and size given."""
    for part, (mode, size) in parts.items():
        for name in ("a", "b"):
            (path / part / name).mkdir(parents=True)
            Image.new(mode, (size, size), 100 if mode == "L" else (100, 150, 200)).save(path / part / name / "0.png")
    return path


def test_both_parts_of_a_folder_have_one_mode_and_size(tmp_path):
    train, test = data.load(str(plain_folder(tmp_path / "modes", train=("RGB", 8), test=("L", 8))))
    assert train.images.shape == test.images.shape == (2, 3, 8, 8)
    assert (test.images == 100).all()
    assert test.index.tolist() == [0, 1]
    with pytest.raises(ValueError, match="all must have one size"):
        data.load(str(plain_folder(tmp_path / "sizes", train=("L", 8), test=("L", 10))))


def test_sixteen_bits_are_scaled_and_thirty_two_refused(tmp_path):
    ramp = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(ramp).save(tmp_path / name / "0.png")
    with Image.open(tmp_path / "a" / "0.png") as image:
        if image.mode != "I;16":
            pytest.skip("this Pillow reads 16 bits as 32")
    np.testing.assert_array_equal(data.from_classes(tmp_path).images[0, 0], ramp // 256)
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "a" / "1.tiff")
    with pytest.raises(ValueError, match=r"1\.tiff.*32 bits"):
        data.from_classes(tmp_path)


def test_a_damaged_image_is_named_whatever_pillow_raises(tmp_path):
    plain_folder(tmp_path, train=("L", 8))
    path = tmp_path / "train" / "a" / "0.png"
    pixels = path.read_bytes()
    at = pixels.index(b"IDAT")
    path.write_bytes(
        pixels[: at - 4] + (5).to_bytes(4, "big") + pixels[at:]
    )  # a length that is wrong: SyntaxError in Pillow
    with pytest.raises(ValueError, match=r"0\.png as an image"):
        data.from_classes(tmp_path / "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 1, 8, 8), np.uint8)}, "images must be a tensor, not ndarray"),
        ({"labels": [0, 1]}, "labels must be a tensor, not list"),
        ({"labels": torch.zeros(2, dtype=torch.uint8)}, r"labels must be int64 of shape \(N,\), not torch.uint8"),
        ({"labels": torch.zeros(2, 1, dtype=torch.int64)}, "labels must be int64 of shape"),
    ],
)
def test_images_of_other_types_are_named(change, message):
    made = {"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "labels": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        data.Images(**made | change, classes=("a", "b"), name="mine")


def test_a_mask_selects_and_indexes_as_its_positions_do():
    images = replace(data.load("digits").train, index=None)
    mask = images.labels == 3
    by_mask, by_place = images.select(mask), images.select(torch.where(mask)[0])
    assert torch.equal(by_mask.images, by_place.images)
    assert torch.equal(by_mask.index, by_place.index)


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    plain_folder(tmp_path / "mine", train=("L", 8), test=("L", 8))
    assert len(data.load("~/mine").train) == 2
    assert data.find("mine", "~") == tmp_path / "mine"


def test_single_class_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two class folders"):
        data.load(str(image_folder(tmp_path, classes=("ant",))))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.load("nonsense"), ValueError, "name must be one of"),
        (lambda: data.load("./no/such/folder"), FileNotFoundError, "no folder"),
        (lambda: data.load("./no/such/folder"), ValueError, "no folder"),  # bad input, like any other
        (lambda: data.load("mnist", root=__file__), ValueError, "root must be a folder"),
        (lambda: data.load("mnist", root=5), ValueError, "root must be a folder"),
        (lambda: data.load("digits").train.with_labels(None), ValueError, "labels must be int64"),
        (lambda: data.load(None), ValueError, "name must be one of"),
        (lambda: data.load("digits", train_size=0), ValueError, "train_size"),
        (lambda: data.load("digits", train_size=9999), ValueError, "train_size"),
        (lambda: data.load("digits", train_size=True), ValueError, "train_size"),
        (lambda: data.synthetic("subtracting", length=8, train=2, test=2), ValueError, "name must be"),
        (lambda: data.load("digits").train.with_labels([0, 1]), ValueError, "labels must be int64"),
        (lambda: data.as_sequence(torch.zeros(3, 4)), ValueError, "images must have shape"),
        (
            lambda: data.as_sequence(torch.zeros(3, 1, 4, 4).long()),
            ValueError,
            "uint8, int16 or floating, not torch.int64",
        ),
        (lambda: data.as_sequence(np.zeros((2, 1, 4, 4))), ValueError, "a torch tensor, not ndarray"),
        (lambda: data.synthetic("adding", length=2), ValueError, "length"),
        (lambda: data.synthetic("adding", length="8"), ValueError, "length"),
        (lambda: data.synthetic("adding", length=8, train=-1), ValueError, "train must be"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_selection_keeps_places_and_refuses_a_mask_of_another_length():
    images = data.load("digits").test
    mask = images.labels == 3
    assert torch.equal(images.select(mask).index, images.index[mask])
    assert len(images.select([])) == 0
    last = replace(images, index=None).select([-1, 0])
    assert last.index.tolist() == [len(images) - 1, 0]
    with pytest.raises(IndexError):
        images.select(mask[:-1])


@pytest.mark.parametrize("seed", [None, "a", 0.5])
def test_a_subset_is_drawn_with_a_whole_seed(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        data.load("digits", train_size=50, seed=seed)
