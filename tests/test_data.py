"""Data sets: what is read, refused and downloaded, and what the batches hold."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hostile import (
    few,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from common import data, download, image_folder

# ---------------------------------------------------------------------------------------------------------------
# Reading


def test_digits_match_scikit_learn(digits):
    from sklearn.datasets import load_digits
    from torchvision.transforms.functional import resize

    assert digits.name == "digits"
    assert (len(digits.train.labels), len(digits.test.labels)) == (1437, 360)
    theirs, order = load_digits(), torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    labels = torch.cat([digits.test.labels, digits.train.labels])
    assert torch.equal(labels, torch.from_numpy(theirs.target)[order])
    images = torch.cat([digits.test.images, digits.train.images])
    assert images.shape == (1797, 1, 28, 28)
    enlarged = resize(torch.from_numpy(theirs.images)[order][:, None] * 255 / 16, [20, 20], antialias=False)
    assert (images[:, :, 4:24, 4:24] - enlarged).abs().max() <= 0.5 + 1e-4
    assert images.sum() == images[:, :, 4:24, 4:24].sum()
    assert digits.train.images.dtype == torch.uint8
    pixels = digits.train.images.double() / 255
    assert digits.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-9)
    assert digits.std[0] == pytest.approx(float(pixels.std(correction=0)), abs=1e-9)


def test_the_digits_are_the_same_on_an_older_processor(digits):
    """PyTorch without the vector instructions of newer processors rounds floats in another way."""
    code = "from common import data; digits = data.load('digits'); print(digits.sha256, digits.mean, digits.std)"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == f"{digits.sha256} {digits.mean} {digits.std}"


def test_no_image_is_in_both_splits(digits):
    train = {image.numpy().tobytes() for image in digits.train.images}
    assert not any(image.numpy().tobytes() in train for image in digits.test.images)


def test_held_out_images_are_always_the_same_and_nothing_is_lost(digits):
    rest, held_out = data.hold_out(digits.train, 100)
    assert len(held_out.labels) == 100
    again = data.hold_out(digits.train, 100)[1]
    assert torch.equal(held_out.images, again.images)
    labels = torch.cat([rest.labels, held_out.labels])
    assert torch.equal(labels.bincount(), digits.train.labels.bincount())
    with pytest.raises(data.DataError, match="hold out"):
        data.hold_out(digits.train, len(digits.train.labels))


def test_an_unknown_data_set_is_refused_with_the_known_names():
    with pytest.raises(data.DataError, match=r"no data set 'mnits'.*mnist, cifar10, digits"):
        data.load("mnits")


@pytest.fixture
def folder(tmp_path):
    """A tiny folder of images, two classes, with a display name."""
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            path = tmp_path / "pets" / split / name
            path.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((6, 8, 3), 40 * label + number, dtype=np.uint8)
                Image.fromarray(pixels).save(path / f"{number}.png")
    (tmp_path / "pets" / "name.txt").write_text("Two pets\n")
    return tmp_path


def test_a_folder_of_images_is_read(folder):
    pets = data.load("folder:pets", folder)
    assert pets.name == "Two pets"
    assert pets.classes == ("cat", "dog")
    assert pets.train.images.shape == (6, 3, 6, 8)
    assert pets.test.labels.tolist() == [0, 0, 1, 1]
    assert pets.train.images[4, 0, 0, 0] == 41
    before = pets.sha256
    Image.new("RGB", (8, 6), "red").save(folder / "pets" / "train" / "cat" / "0.png")
    assert data.load("folder:pets", folder).sha256 != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda pets: Image.new("RGB", (9, 6)).save(pets / "train" / "dog" / "1.png"),
            r"1\.png is \[3, 6, 9\].*expected",
        ),
        (lambda pets: (pets / "test" / "cat" / "0.png").write_bytes(b"no image"), r"0\.png is not a readable image"),
        (lambda pets: (pets / "test" / "cat").rename(pets / "test" / "cow"), r"must be the same"),
        (lambda pets: (pets / "test").rename(pets / "tset"), r"test: expected a folder"),
    ],
)
def test_a_bad_folder_is_refused_and_named(folder, damage, message):
    damage(folder / "pets")
    with pytest.raises(data.DataError, match=message):
        data.load("folder:pets", folder)


# ---------------------------------------------------------------------------------------------------------------
# Downloading, from servers on this machine


@pytest.fixture
def serve(monkeypatch):
    """Start a server for some files {path: bytes}; returns its address. There are no other mirrors."""
    servers = []

    def start(files, cut=None, endless=None):
        """`cut` is how many bytes of a file are sent; `endless` makes bytes to send after it, again and again."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = files.get(self.path)
                self.send_response(200 if content is not None else 404)
                if not endless:
                    self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write((content or b"")[:cut])
                with contextlib.suppress(OSError):  # until nobody listens any more
                    while endless:
                        self.wfile.write(endless())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    monkeypatch.setattr(download, "MNIST_MIRRORS", [])
    monkeypatch.setattr(download, "CIFAR10_MIRRORS", [])
    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def mnist(monkeypatch):
    """An MNIST of 30 + 10 images in its real file format, archives by path; the checksums are set to theirs."""
    generator = np.random.default_rng(0)
    archives, files = {}, {}
    for split, count in (("train", 30), ("t10k", 10)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        header = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        raw = {f"{split}-images-idx3-ubyte": header + images.tobytes()}
        raw[f"{split}-labels-idx1-ubyte"] = np.array([0x801, count], dtype=">i4").tobytes() + labels.tobytes()
        for name, content in raw.items():
            archive = gzip.compress(content)
            archives[f"/{name}.gz"] = archive
            files[name] = (len(archive), hashlib.md5(archive).hexdigest(), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(download, "MNIST_FILES", files)
    return archives


def left_over(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".lock")


def test_file_names_and_checksums_match_torchvision():
    assert sorted(download.MNIST_FILES) == [
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
    ]
    from torchvision.datasets import CIFAR10, MNIST

    assert {f"{name}.gz": md5 for name, (_, md5, _) in download.MNIST_FILES.items()} == dict(MNIST.resources)
    assert (CIFAR10.filename, CIFAR10.tgz_md5) == download.CIFAR10_PYTHON[::2]


def test_mnist_is_downloaded_once(tmp_path, serve, mnist, monkeypatch):
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    first = data.load("mnist", tmp_path)
    assert first.train.images.shape == (30, 1, 28, 28)
    assert first.test.labels.tolist() == list(range(10))
    assert left_over(tmp_path) == sorted(f"MNIST/raw/{name}" for name in download.MNIST_FILES)
    monkeypatch.setattr(download, "MNIST_MIRRORS", ["http://127.0.0.1:9/gone"])
    assert data.load("mnist", tmp_path).sha256 == first.sha256


def test_only_the_files_that_were_checked_are_read(tmp_path, serve, mnist, monkeypatch):
    """Old versions of torchvision left tensors in MNIST/processed, which new ones read without a check."""
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    (tmp_path / "MNIST" / "processed").mkdir(parents=True)
    for name in ("training", "test"):
        torch.save((torch.zeros(5, 28, 28).byte(), torch.arange(5)), tmp_path / "MNIST" / "processed" / f"{name}.pt")
    assert len(data.load("mnist", tmp_path).train.labels) == 30


def test_the_next_mirror_is_taken_when_one_fails(tmp_path, serve, mnist, monkeypatch):
    wrong = {path: gzip.compress(b"something else") for path in mnist}
    mirrors = ["http://127.0.0.1:9", serve({}), serve(wrong), serve(mnist, cut=20), serve(mnist)]
    monkeypatch.setattr(download, "MNIST_MIRRORS", mirrors)
    assert len(data.load("mnist", tmp_path).train.labels) == 30


def test_the_users_own_mirror_comes_first(tmp_path, serve, mnist, monkeypatch, capsys):
    own = serve(mnist)
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    monkeypatch.setenv("COURSE_MIRROR", own + "/")
    assert len(data.load("mnist", tmp_path).train.labels) == 30
    assert capsys.readouterr().out.splitlines() == [f"Downloading {own}/{name}.gz" for name in download.MNIST_FILES]


@pytest.mark.parametrize("cut", [None, 20])
def test_a_failed_download_leaves_nothing(tmp_path, serve, mnist, monkeypatch, cut):
    files = dict.fromkeys(mnist, b"wrong") if cut is None else mnist
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(files, cut)])
    with pytest.raises(data.DataError, match=r"could not be downloaded.*COURSE_MIRROR") as error:
        data.load("mnist", tmp_path)
    assert "\n  http://127.0.0.1" in str(error.value)
    assert left_over(tmp_path) == []


def test_an_endless_mirror_is_dropped_at_the_known_size(tmp_path, serve, mnist, monkeypatch):
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist, endless=lambda: bytes(1 << 20)), serve(mnist)])
    assert len(data.load("mnist", tmp_path).train.labels) == 30
    monkeypatch.setattr(download, "MNIST_MIRRORS", download.MNIST_MIRRORS[:1])
    with pytest.raises(data.DataError, match=r"sends more than the [\d,]+ bytes of the file"):
        data.load("mnist", tmp_path / "other")
    assert left_over(tmp_path / "other") == []


def test_a_slow_mirror_is_dropped(tmp_path, serve, mnist, monkeypatch):
    """A byte now and then is enough to keep a connection alive for hours."""

    def drip():
        time.sleep(0.02)
        return b"x"

    monkeypatch.setattr(download, "PATIENCE", 0.2)
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist, cut=10, endless=drip)])
    with pytest.raises(data.DataError, match="it sent less than 10,000 bytes a second"):
        data.load("mnist", tmp_path)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    "mirror",
    [
        "http://me:secret@127.0.0.1:9",
        "http://me:secret@127.0.0.1:{port}",
        "http://me:sec/ret@127.0.0.1:9",
        "http://me:secret@[::1",
        "me:secret@127.0.0.1",
        "ftp://me:secret@127.0.0.1",
    ],
)
def test_the_password_of_a_mirror_is_not_shown(tmp_path, serve, mnist, monkeypatch, capsys, mirror):
    mirror = mirror.format(port=serve({}).rsplit(":", 1)[1])
    monkeypatch.setenv("COURSE_MIRROR", mirror)
    with pytest.raises(data.DataError) as error:
        data.load("mnist", tmp_path)
    shown = str(error.value) + capsys.readouterr().out
    assert mirror.rsplit("@", 1)[1] in shown
    assert not any(part in shown for part in ("secret", "sec/", "me:"))


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: bytes([content[0] ^ 1]) + content[1:]]
)
def test_a_damaged_file_is_named(tmp_path, serve, mnist, monkeypatch, damage):
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    data.load("mnist", tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=r"train-images-idx3-ubyte is damaged: expected SHA-256"):
        data.load("mnist", tmp_path)


def test_of_several_threads_only_one_downloads(tmp_path, serve, mnist, monkeypatch, capsys):
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download.fetch_mnist(tmp_path), range(4)))
    assert capsys.readouterr().out.count("Downloading") == len(mnist)
    assert left_over(tmp_path) == sorted(f"MNIST/raw/{name}" for name in download.MNIST_FILES)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, serve, mnist, monkeypatch):
    monkeypatch.setattr(download, "MNIST_MIRRORS", [serve(mnist)])
    (tmp_path / "MNIST").write_text("a file where a folder should be")
    with pytest.raises(data.DataError, match="Cannot write to"):
        data.load("mnist", tmp_path)


def packed(folder, files):
    """A tar.gz of {name: content} in a folder, as bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def cifar10(monkeypatch):
    """A CIFAR-10 of 20 + 10 images in its three real forms; the checksums are set to theirs.

    `binary` and `python` are what a mirror serves, {path: bytes}; `pickles` are the files of the Python version.
    """
    from torchvision.datasets import CIFAR10

    binary, pickles = {}, {}
    for name, count in [(f"data_batch_{number}", 4) for number in range(1, 6)] + [("test_batch", 10)]:
        images = np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 3072)
        labels = np.arange(count, dtype=np.uint8)
        pickles[name] = pickle.dumps({"data": images, "labels": labels.tolist()})
        binary[f"{name}.bin"] = np.column_stack([labels, images]).tobytes()
    pickles["batches.meta"] = pickle.dumps({"label_names": list(data.CIFAR10_CLASSES)})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in pickles.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{n}", md5[f"data_batch_{n}"]] for n in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in binary.items()}
    monkeypatch.setattr(download, "CIFAR10_FILES", hashes)
    archives = {"binary": packed("cifar-10-batches-bin", binary), "python": packed("cifar-10-batches-py", pickles)}
    served = {}
    for kind, content in archives.items():
        source = (f"cifar-10-{kind}.tar.gz", len(content), hashlib.md5(content).hexdigest())
        monkeypatch.setattr(download, f"CIFAR10_{kind.upper()}", source)
        served[kind] = {f"/{source[0]}": content}
    return SimpleNamespace(**served, files=binary, pickles=pickles)


def mirrors(*sources):
    """The mirrors as the course lists them: the address of each and the archive that it serves."""
    return [(address, getattr(download, f"CIFAR10_{kind.upper()}")) for address, kind in sources]


def lay(root, folder, files):
    (root / folder).mkdir()
    for name, content in files.items():
        (root / folder / name).write_bytes(content)


def test_cifar10_is_the_same_from_every_source(tmp_path, serve, cifar10, monkeypatch):
    roots = [tmp_path / name for name in ("files", "torchvision", "archive", "download", "pickles")]
    for root in roots:
        root.mkdir()
    lay(roots[0], "cifar-10-batches-bin", cifar10.files)
    lay(roots[1], "cifar-10-batches-py", cifar10.pickles)
    (roots[2] / "cifar-10-python.tar.gz").write_bytes(cifar10.python["/cifar-10-python.tar.gz"])
    found = [data.load("cifar10", root) for root in roots[:3]]
    monkeypatch.setattr(download, "CIFAR10_MIRRORS", mirrors((serve({}), "binary"), (serve(cifar10.binary), "binary")))
    found.append(data.load("cifar10", roots[3]))
    monkeypatch.setattr(download, "CIFAR10_MIRRORS", mirrors((serve({}), "binary"), (serve(cifar10.python), "python")))
    found.append(data.load("cifar10", roots[4]))
    first = found[0]
    assert first.train.images.shape == (20, 3, 32, 32)
    assert first.test.labels.tolist() == list(range(10))
    assert first.classes[3] == "cat"
    # the first image counts through red, then green: the order of the bytes is channels, rows, columns
    assert first.train.images[0, 1, 0, :3].tolist() == [1024 % 256, 1025 % 256, 1026 % 256]
    for other, root in zip(found, roots, strict=True):
        assert other.sha256 == first.sha256
        assert torch.equal(other.train.images, first.train.images)
        assert {path.name: path.read_bytes() for path in (root / "cifar-10-batches-bin").iterdir()} == cifar10.files
    assert left_over(roots[3]) == left_over(roots[4]) == [f"cifar-10-batches-bin/{name}" for name in cifar10.files]
    assert (roots[2] / "cifar-10-python.tar.gz").exists(), "an archive that the user put there stays"


def test_a_users_mirror_may_have_either_archive(tmp_path, serve, cifar10, monkeypatch):
    monkeypatch.setattr(download, "CIFAR10_MIRRORS", mirrors((serve({}), "binary"), (serve({}), "python")))
    monkeypatch.setenv("COURSE_MIRROR", serve(cifar10.python))
    assert len(data.load("cifar10", tmp_path).test.labels) == 10


def test_a_damaged_file_of_cifar10_is_named(tmp_path, cifar10):
    lay(tmp_path, "cifar-10-batches-bin", {**cifar10.files, "data_batch_3.bin": b"spoilt"})
    with pytest.raises(data.DataError, match=r"data_batch_3\.bin is damaged.*Delete"):
        data.load("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(data.DataError, match=r"data_batch_3\.bin is missing.*Delete"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_no_pickle_of_a_damaged_cifar10_is_loaded(tmp_path, cifar10, form):
    """A pickle can run code: this one would make a folder."""
    trap = tmp_path / "trap"
    bad = {**cifar10.pickles, "data_batch_2": f"cos\nmkdir\n(V{trap}\ntR.".encode()}
    if form == "folder":
        lay(tmp_path, "cifar-10-batches-py", bad)
    else:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(packed("cifar-10-batches-py", bad))
    with pytest.raises(data.DataError, match=r"cifar-10-(batches-py|python\.tar\.gz) is damaged"):
        data.load("cifar10", tmp_path)
    assert not trap.exists()
    pickle.loads(bad["data_batch_2"])
    assert trap.exists(), "the trap does not work, so this test shows nothing"
    assert not (tmp_path / "cifar-10-batches-bin").exists()


@pytest.mark.skipif(
    not Path(os.environ.get("COURSE_DATA", ""), "cifar-10-batches-bin").is_dir(), reason="COURSE_DATA has no CIFAR-10"
)
def test_the_real_cifar10_has_the_known_mean_and_deviation():
    """The mean and standard deviation that public projects list for its training images."""
    cifar10 = data.load("cifar10")
    assert (len(cifar10.train.labels), len(cifar10.test.labels)) == (50_000, 10_000)
    assert cifar10.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert cifar10.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert cifar10.train.labels.bincount().tolist() == [5000] * 10


# ---------------------------------------------------------------------------------------------------------------
# Batches


def loader(digits, **options):
    return data.Loader(digits.train, 100, digits.mean, digits.std, **options)


def test_an_epoch_has_each_image_once_normalised(digits):
    batches = list(loader(digits, shuffle=True))
    assert len(batches) == len(loader(digits)) == 15
    images = torch.cat([images for images, _ in batches])
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)
    pixels = (images * digits.std[0] + digits.mean[0]).mul(255).round().byte()
    assert sorted(image.numpy().tobytes() for image in pixels) == sorted(
        image.numpy().tobytes() for image in digits.train.images
    )
    assert torch.equal(torch.cat([labels for _, labels in batches]).bincount(), digits.train.labels.bincount())


def test_the_seed_decides_order_and_augmentation(digits):
    augment = data.Augment(rotate=10, shift=2, scale=0.1, flip=True, crop_padding=2)

    def first_two_epochs(seed):
        batches = loader(digits, shuffle=True, augment=augment, seed=seed)
        return [torch.cat([images for images, _ in batches]) for _ in range(2)]

    one, again, other = first_two_epochs(1), first_two_epochs(1), first_two_epochs(2)
    assert torch.equal(torch.stack(one), torch.stack(again))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 24)])
@pytest.mark.parametrize(
    ("angle", "zoom", "right", "down"), [(10, 1, 0, 0), (-7, 1, 0, 0), (0, 1.1, 0, 0), (8, 0.9, 0, 0), (0, 1, 2, -1)]
)
def test_affine_changes_match_torchvision(monkeypatch, shape, angle, zoom, right, down):
    images = torch.rand(2, *shape)
    # The draws from 0 to 1 that give this change. Ours says where a pixel comes from: the image moves the other way.
    augment = data.Augment(rotate=20, shift=4, scale=0.5)
    draws = torch.tensor([angle / 20, (zoom - 1) / 0.5, right / 4, down / 4])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: ((draws + 1) / 2)[:, None].repeat(1, 2))
    ours = augment(images, None)
    theirs = transforms.affine(
        images,
        angle=-angle,
        translate=[-right, -down],
        scale=zoom,
        shear=[0, 0],
        interpolation=InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_crops_are_windows_of_the_padded_image():
    image = torch.arange(1, 26, dtype=torch.float)[None, None].reshape(1, 1, 5, 5)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))[0, 0]
    windows = {tuple(padded[y : y + 5, x : x + 5].flatten().tolist()) for y in range(5) for x in range(5)}
    crops = data.Augment(crop_padding=2)(image.repeat(500, 1, 1, 1), torch.Generator().manual_seed(0))
    assert {tuple(crop.flatten().tolist()) for crop in crops} == windows


def test_half_of_the_images_are_flipped(digits):
    images = digits.train.images.float()
    flipped = data.Augment(flip=True)(images, torch.Generator().manual_seed(0))
    chosen = (flipped != images).flatten(1).any(dim=1)
    assert torch.equal(flipped[chosen], images[chosen].flip(3))
    assert 0.4 < chosen.double().mean() < 0.6


def test_digits_to_add_are_new_in_each_epoch_but_fixed_for_the_test(digits):
    def epoch(loader):
        batches = list(loader)
        labels = torch.cat([targets[:, 0] for _, targets in batches])
        sums = torch.cat([targets[:, 1] for _, targets in batches])
        numbers = torch.cat([numbers for (_, numbers), _ in batches])[:, 0]
        assert torch.equal(labels + numbers.long(), sums)
        assert set(numbers.tolist()) == set(range(10))
        return labels, numbers

    options = {"mean": digits.mean, "std": digits.std, "seed": 3}
    train, again = (data.DigitSumLoader(digits.train, 100, shuffle=True, **options) for _ in range(2))
    first, second = epoch(train), epoch(train)
    assert not torch.equal(first[1], second[1])
    assert first[0].bincount().equal(digits.train.labels.bincount())
    for known in (first, second):
        assert all(map(torch.equal, known, epoch(again)))
    test = data.DigitSumLoader(digits.test, 100, **options)
    known = epoch(test)
    assert torch.equal(known[0], digits.test.labels)
    assert all(map(torch.equal, known, epoch(test)))
    assert torch.equal(test.targets[:, 0] + known[1].long(), test.targets[:, 1])


def test_digits_become_zero_one_or_neither(digits):
    three, two = (data.zero_one_or_neither(digits, classes) for classes in (3, 2))
    counts = digits.test.labels.bincount()
    assert three.test.labels.bincount().tolist() == [int(counts[2:].sum()), *counts[:2].tolist()]
    assert two.test.labels.bincount().tolist() == counts[:2].tolist()
    assert torch.equal(three.test.images[three.test.labels == 2], digits.test.images[digits.test.labels == 1])
    assert torch.equal(two.test.images[two.test.labels == 1], digits.test.images[digits.test.labels == 1])
    assert three.classes == ("neither", "zero", "one")


@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_images_keep_their_memory_layout(channels):
    """Channels first: torch's convolutions crash with few channels in channels-last layout (2.15, CPU)."""
    images = torch.rand(4, channels, 12, 12)
    changed = data.Augment(rotate=5, flip=True, crop_padding=2)(images, torch.Generator().manual_seed(0))
    assert changed.stride() == images.stride()


# ---------------------------------------------------------------------------------------------------------------
# Hostile input: malformed images, labels and archives


@few(30)
@given(st.binary(max_size=200))
@pytest.mark.parametrize("start", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"])
def test_an_unreadable_image_is_named(tmp_path_factory, start, content):
    path = tmp_path_factory.getbasetemp() / "image.png"
    path.write_bytes(start + content)
    with pytest.raises(data.DataError, match=r"image\.png"):
        image_folder._read_image(path)


@pytest.mark.parametrize(
    ("mode", "colour"),  # 76 is the luminance of pure red
    [("L", [76] * 3), ("LA", [76] * 3), ("P", [255, 0, 0]), ("RGBA", [255, 0, 0]), ("CMYK", [255, 0, 0])],
)
def test_images_with_other_channels_become_red_green_and_blue(folder, mode, colour):
    path = folder / "pets" / "train" / "cat" / "0.tiff"
    path.with_suffix(".png").unlink()
    Image.new("RGB", (8, 6), "red").convert(mode).save(path)
    images = data.load("folder:pets", folder).train.images
    assert images.shape == (6, 3, 6, 8)
    assert images[0, :, 0, 0].tolist() == colour


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_images_with_more_than_eight_bits_are_refused(folder, mode):
    """Converted, everything above 255 would be white."""
    path = folder / "pets" / "train" / "cat" / "0.tiff"
    Image.new(mode, (8, 6), 40000).save(path)
    with pytest.raises(data.DataError, match=r"0\.tiff (has more than 8 bits a channel|is not a readable image)"):
        data.load("folder:pets", folder)


def fine_png(channels):
    """The bytes of a PNG of 8 x 6 pixels with 16 bits per channel, which Pillow does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">2I5B", 8, 6, 16, {3: 2, 4: 6}[channels], 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(6 * (b"\0" + 8 * channels * b"\x9c\x40")))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("png", fine_png(3)),
        ("png", fine_png(4)),
        ("ppm", b"P6 8 6 65535\n" + 8 * 6 * 3 * b"\x9c\x40"),
        ("ppm", b"P6 8 6 1023\n" + 8 * 6 * 3 * b"\x01\x40"),
    ],
)
def test_colour_images_with_more_than_eight_bits_are_refused(folder, ending, content):
    """Pillow says that these are plain red, green and blue, and rounds them."""
    path = folder / "pets" / "train" / "cat" / f"0.{ending}"
    path.with_suffix(".png").unlink()
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=rf"0\.{ending} has more than 8 bits a channel: save it with 8"):
        data.load("folder:pets", folder)


def test_an_animated_gif_is_refused_and_a_still_one_is_read(folder):
    """A GIF is an image like any other: it is not silently left out."""
    path = folder / "pets" / "train" / "cat" / "0.gif"
    path.with_suffix(".png").unlink()
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    red.save(path)
    assert data.load("folder:pets", folder).train.images[0, :, 0, 0].tolist() == [255, 0, 0]
    red.save(path, save_all=True, append_images=[blue])
    with pytest.raises(data.DataError, match=r"0\.gif has 2 pictures in it, expected one"):
        data.load("folder:pets", folder)


def test_a_file_that_is_not_an_image_is_named_unless_it_is_hidden(folder):
    (folder / "pets" / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    assert len(data.load("folder:pets", folder).train.labels) == 6
    (folder / "pets" / "train" / "cat" / "notes.txt").write_text("x")
    with pytest.raises(data.DataError, match=r"notes\.txt is not a readable image"):
        data.load("folder:pets", folder)


def test_a_photo_is_turned_upright(folder):
    """A camera stores how it was held in Exif's tag 274: 6 is a quarter turn."""
    path = folder / "pets" / "train" / "cat" / "0.png"
    lying = np.zeros((8, 6, 3), dtype=np.uint8)
    lying[0, 0] = 255  # top left; turned, it is top right
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(lying).save(path, exif=exif)
    image = data.load("folder:pets", folder).train.images[0]
    assert image.shape == (3, 6, 8)
    assert image[0].nonzero().tolist() == [[0, 7]]


@pytest.mark.parametrize("renamed", ["pets/train/cat", "pets"])
def test_a_folder_name_that_is_not_utf8_is_named_at_once(folder, renamed):
    (folder / "pets" / "name.txt").unlink()
    name = os.fsdecode(b"caf\xe9")  # Latin-1
    with pytest.raises(data.DataError, match=r"The name of the folder 'caf\\udce9' is not text in UTF-8") as error:
        for split in ("train", "test") if "cat" in renamed else ("",):
            path = folder / renamed.replace("train", split or "train")
            path.rename(path.with_name(name))
        data.load("folder:pets" if "cat" in renamed else f"folder:{name}", folder)
    str(error.value).encode()


def clear(path):
    for file in path.iterdir():
        file.unlink()


def paint_black(pets):
    for path in pets.glob("train/*/*.png"):
        Image.new("RGB", (8, 6)).save(path)


def keep_one_class(pets):
    for split in ("train", "test"):
        clear(pets / split / "dog")
        (pets / split / "dog").rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (keep_one_class, "needs two classes or more"),
        (lambda pets: clear(pets / "test" / "dog"), "expected a folder with <class>/<image>"),
        (lambda pets: (pets / "train" / "cat" / "0.png").write_bytes(b""), "is not a readable image"),
        (lambda pets: (pets / "name.txt").write_bytes(b"\xff\xfe\x00"), "name.txt is not text in UTF-8"),
        (paint_black, "all pixels of a colour channel are the same"),
    ],
)
def test_an_empty_or_meaningless_data_set_is_refused(folder, spoil, message):
    spoil(folder / "pets")
    with pytest.raises(data.DataError, match=message):
        data.load("folder:pets", folder)


@few(50)
@given(st.lists(st.integers(-3, 5), max_size=4), st.integers(0, 4))
def test_each_image_needs_the_label_of_a_class(labels, images):
    split = data.Split(torch.zeros(images, 1, 2, 2, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))
    dataset = data.Dataset("x", split, split, ("a", "b"), (0.0,), (1.0,), "0")
    if labels and len(labels) == images and set(labels) <= {0, 1}:
        assert data.with_splits(dataset, split, split, ("a", "b")).train is split
    else:
        with pytest.raises(data.DataError, match=r"(?i)label|There are no training images"):
            data.with_splits(dataset, split, split, ("a", "b"))


def member(name, **options):
    found = tarfile.TarInfo(name)
    for key, value in options.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("cifar-10-batches-py/../../outside"),
        member("cifar-10-batches-py/link", type=tarfile.SYMTYPE, linkname="../../outside"),
        member("cifar-10-batches-py/device", type=tarfile.CHRTYPE),
        None,
    ],
)
def test_an_archive_writes_nothing_outside_its_folder(tmp_path, monkeypatch, bad):
    """Not even if its checksum is right. None stands for a truncated archive."""
    root = tmp_path / "deep" / "data"
    root.mkdir(parents=True)
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        target.addfile(member("cifar-10-batches-py/first"))
        if bad:
            target.addfile(bad)
    if not bad:
        archive.write_bytes(archive.read_bytes()[:60])
    content = archive.read_bytes()
    monkeypatch.setattr(download, "CIFAR10_PYTHON", (archive.name, len(content), hashlib.md5(content).hexdigest()))
    with pytest.raises(data.DataError, match=r"cifar-10-python\.tar\.gz cannot be unpacked"):
        data.load("cifar10", root)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"] == [archive]
    assert not (root / "cifar-10-batches-py").exists()


@pytest.mark.parametrize("mirror", ["nonsense", "ftp://127.0.0.1", "file:///etc", "http://[::1", "http://.example"])
def test_an_invalid_mirror_is_named(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("COURSE_MIRROR", mirror)
    monkeypatch.setattr(download, "MNIST_MIRRORS", [])
    with pytest.raises(data.DataError, match=r"could not be downloaded.*COURSE_MIRROR") as error:
        data.load("mnist", tmp_path)
    assert mirror in str(error.value)
