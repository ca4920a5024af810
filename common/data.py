"""Datasets as tensors: found or downloaded, checked, and handed out in augmented batches."""

import hashlib
import math
import os
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.download import DataError, fetch_cifar10, fetch_mnist
from common.files import hash_files
from common.image_folder import read_folder
from common.utils import ROOT

NAMES = ("mnist", "cifar10", "digits")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Split(NamedTuple):
    """`images` as uint8 (N, C, H, W), `labels` as int64 (N,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """`mean` and `std` are those of the training images, one number a channel, for pixels from 0 to 1."""

    name: str  # as shown to readers
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str  # over the bytes of its files, or of its images and labels


# ---------------------------------------------------------------------------------------------------------------
# Reading


def load(name, root=""):
    """Read the data set `name`: "mnist", "cifar10", "digits" or "folder:PATH" with train/<class>/* and test/<class>/*.

    `root` is the folder of the data sets: by default that in the environment variable COURSE_DATA, else data/ beside
    common/. What is already there is not downloaded. Raises DataError, a sentence that says what to do.
    """
    root = Path(root or os.environ.get("COURSE_DATA") or ROOT / "data")
    if name.startswith("folder:"):
        return _load_folder(root / name.removeprefix("folder:"))
    if name not in NAMES:
        raise DataError(f"There is no data set {name!r}; there are {', '.join(NAMES)} and folder:PATH.")
    return {"mnist": _load_mnist, "cifar10": _load_cifar10, "digits": _load_digits}[name](root)


def hold_out(split, count=5000):
    """Divide a split in two, (rest, held out): always the same `count` images, chosen at random once."""
    if not 0 < count < len(split.labels):
        raise DataError(f"Cannot hold out {count} of {len(split.labels)} images: take at least 1 and leave at least 1.")
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))
    held_out, rest = order[:count], order[count:]
    return Split(split.images[rest], split.labels[rest]), Split(split.images[held_out], split.labels[held_out])


def with_splits(dataset, train, test, classes):
    """The data set with other splits, such as new labels; its mean and standard deviation stay."""
    _check_labels(train, test, classes)
    return replace(dataset, train=train, test=test, classes=tuple(classes))


def _check_labels(train, test, classes):
    """Raise DataError unless both splits have images, each with a label that is the number of a class."""
    for name, (images, labels) in (("training", train), ("test", test)):
        if not len(images):
            raise DataError(f"There are no {name} images.")
        if len(images) != len(labels):
            raise DataError(f"There are {len(images)} {name} images with {len(labels)} labels; each must have its own.")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            raise DataError(f"Labels of {name} images are from {low} to {high}; there are {len(classes)} classes.")


def zero_one_or_neither(dataset, classes=3):
    """Digits for the task of session 5: class 0 is neither, 1 the digit 0, 2 the digit 1.

    With 2 classes there are only zeros, class 0, and ones, class 1.
    """
    names = {3: ("neither", "zero", "one"), 2: ("zero", "one")}[classes]
    splits = []
    for images, labels in (dataset.train, dataset.test):
        if classes == 2:
            images, labels = images[labels < 2], labels[labels < 2]
        else:
            labels = torch.where(labels < 2, labels + 1, 0)
        splits.append(Split(images, labels))
    return with_splits(dataset, *splits, names)


def normalise(dataset, images):
    """Byte images (N, C, H, W) as floats whose training pixels have mean 0 and standard deviation 1."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (dataset.mean, dataset.std))
    return (images.float() / 255 - mean) / std


def _dataset(name, train, test, classes, sha256):
    """Make a Dataset, with the pixel statistics of its training images."""
    _check_labels(train, test, classes)
    pixels = train.images.transpose(0, 1).flatten(1)  # (C, N * H * W)
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels])  # of each value: (C, 256)
    values, pixels_each = torch.arange(256), pixels.shape[1]
    # Whole numbers until the last step: their sums are the same on every processor.
    sums, squares = (counts @ values).tolist(), (counts @ values**2).tolist()
    mean = tuple(total / pixels_each / 255 for total in sums)
    spreads = [square * pixels_each - total**2 for total, square in zip(sums, squares, strict=True)]
    std = tuple(math.sqrt(spread) / pixels_each / 255 for spread in spreads)
    if min(std) < 1e-6:
        raise DataError(f"{name}: all pixels of a colour channel are the same, so there is nothing to learn from it.")
    return Dataset(name, train, test, tuple(classes), mean, std, sha256)


def _load_digits(root):
    """Scikit-learn's 1,797 handwritten digits, which need no download, enlarged to look like MNIST's."""
    # From its file, because importing scikit-learn takes as long as training on these digits.
    try:
        path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        table = torch.from_numpy(np.loadtxt(path, dtype=np.uint8, delimiter=","))  # (N, 65), the label comes last
    except (PackageNotFoundError, OSError) as error:
        raise DataError(f"The digits come with scikit-learn, whose file was not found ({error}): install it.") from None
    # Bilinear enlargement to 20 x 20, in whole numbers: they are the same on every processor. (8, 20), in tenths.
    weights = (10 * F.interpolate(torch.eye(8)[None], size=20, mode="linear")[0]).round().long()
    images = weights.T @ table[:, :-1].view(-1, 1, 8, 8).long() @ weights  # grey levels from 0 to 16 * 100
    images = F.pad((255 * images + 800) // 1600, (4, 4, 4, 4)).byte()  # (N, 1, 28, 28)
    labels = table[:, -1].long()
    train, test = hold_out(Split(images, labels), 360)
    content = b"".join(part.numpy().tobytes() for part in (*train, *test))
    sha256 = hashlib.sha256(content).hexdigest()
    return _dataset("digits", train, test, [str(digit) for digit in range(10)], sha256)


def _load_mnist(root):
    from torchvision.datasets.mnist import read_image_file, read_label_file  # here, because it takes two seconds

    files = fetch_mnist(root)
    splits = []
    for part in ("train", "t10k"):
        images, labels = (files[0].with_name(f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        splits.append(Split(read_image_file(images)[:, None], read_label_file(labels)))
    return _dataset("MNIST", *splits, [str(digit) for digit in range(10)], hash_files(files))


def _load_cifar10(root):
    files = fetch_cifar10(root)
    rows = [np.fromfile(path, dtype=np.uint8).reshape(-1, 1 + 3 * 32 * 32) for path in files]
    splits = []
    for part in (np.concatenate(rows[:-1]), rows[-1]):  # a row is an image: its label, then red, green and blue
        labels, pixels = torch.from_numpy(part[:, 0]).long(), torch.from_numpy(part[:, 1:].copy())
        splits.append(Split(pixels.view(-1, 3, 32, 32), labels))
    return _dataset("CIFAR-10", *splits, CIFAR10_CLASSES, hash_files(files))


def _load_folder(folder):
    title, splits, classes, files = read_folder(folder)
    return _dataset(title, *(Split(*split) for split in splits), classes, hash_files(files))


# ---------------------------------------------------------------------------------------------------------------
# Batches


@dataclass(frozen=True)
class Augment:
    """Random changes, drawn anew for each image; pixels from outside the image are black."""

    rotate: float = 0.0  # by up to so many degrees, either way
    shift: float = 0.0  # by up to so many pixels, in x and in y
    scale: float = 0.0  # larger or smaller by up to this fraction
    flip: bool = False  # left and right swapped, with probability 1/2
    crop_padding: int = 0  # pixels put around the image before a window of its size is cut out

    def __call__(self, images, generator):
        """Change float images (N, C, H, W); `generator` must be on their device."""
        if self.rotate or self.shift or self.scale:
            images = self._affine(images, generator)
        if self.crop_padding:
            images = self._crop(images, generator)
        if self.flip:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator) < 0.5
            images = torch.where(chosen, images.flip(3), images)
        return images

    def _affine(self, images, generator):
        n, _, height, width = images.shape
        rotate, scale, shift_x, shift_y = torch.rand(4, n, device=images.device, generator=generator) * 2 - 1
        angle = rotate * math.radians(self.rotate)
        cos, sin = angle.cos() / (1 + scale * self.scale), angle.sin() / (1 + scale * self.scale)
        shift_x, shift_y = shift_x * 2 * self.shift / width, shift_y * 2 * self.shift / height  # -1 to 1 is one image
        matrix = torch.stack(
            [
                torch.stack([cos, -sin * height / width, shift_x], dim=1),
                torch.stack([sin * width / height, cos, shift_y], dim=1),
            ],
            dim=1,
        )  # (N, 2, 3): where in the old image each pixel of the new one comes from
        grid = F.affine_grid(matrix, images.shape, align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    def _crop(self, images, generator):
        n, channels, height, width = images.shape
        options = {"device": images.device, "generator": generator}
        top, left = torch.randint(2 * self.crop_padding + 1, (2, n), **options)
        rows = top[:, None] + torch.arange(height, device=images.device)  # (N, H)
        columns = left[:, None] + torch.arange(width, device=images.device)  # (N, W)
        padded = F.pad(images, (self.crop_padding,) * 4)
        image = torch.arange(n, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[:, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]  # (N, C, H, W)


def loaders(data, batch_size, augment=None, seed=0, device="cpu"):
    """The two loaders of a Dataset: its training images shuffled and augmented, its test images as they are."""
    shared = {"mean": data.mean, "std": data.std, "device": device}
    train = Loader(data.train, batch_size, augment=augment, shuffle=True, seed=seed, **shared)
    return train, Loader(data.test, 1000, **shared)


class Loader:
    """Batches of (images, targets): float (B, C, H, W), augmented, then normalised, and int64 (B,), on the device.

    The whole split lies on the device as uint8, so there is nothing to wait for and no worker process. Order and
    augmentation come from the loader's own `generator`: the same seed gives the same batches.
    """

    def __init__(self, split, batch_size, mean, std, augment=None, shuffle=False, seed=0, device="cpu"):
        self.images, self.targets = split.images.to(device), split.labels.to(device)
        self.batch_size, self.augment, self.shuffle = batch_size, augment, shuffle
        self.mean = torch.tensor(mean, device=device)[:, None, None]
        self.std = torch.tensor(std, device=device)[:, None, None]
        self.generator = torch.Generator(device).manual_seed(seed)

    def __len__(self):
        return math.ceil(len(self.targets) / self.batch_size)

    def __iter__(self):
        order = torch.arange(len(self.targets), device=self.targets.device)
        if self.shuffle:
            order = torch.randperm(len(order), device=order.device, generator=self.generator)
        for chosen in order.split(self.batch_size):
            yield self.batch(chosen)

    def batch(self, chosen):
        """The batch of the images with these numbers, int64 (B,)."""
        images = self.images[chosen].float() / 255
        if self.augment:
            images = self.augment(images, self.generator)
        return (images - self.mean) / self.std, self.targets[chosen]


class DigitSumLoader(Loader):
    """Batches of ((images, digits), targets): a random digit 0 to 9 with each image, float (B, 1).

    The targets, int64 (B, 2), are the label of the image and the sum of label and digit. A loader that shuffles draws
    new digits in every epoch; others keep their first, which are the same on every device.
    """

    def __init__(self, split, batch_size, mean, std, augment=None, shuffle=False, seed=0, device="cpu"):
        super().__init__(split, batch_size, mean, std, augment, shuffle, seed, device)
        self.labels = self.targets
        self._draw(torch.Generator().manual_seed(seed))

    def __iter__(self):
        if self.shuffle:
            self._draw(self.generator)
        return super().__iter__()

    def batch(self, chosen):
        images, targets = super().batch(chosen)
        return (images, self.digits[chosen]), targets

    def _draw(self, generator):
        digits = torch.randint(10, self.labels.shape, device=generator.device, generator=generator)
        digits = digits.to(self.labels.device)
        self.digits = digits[:, None].float()
        self.targets = torch.stack([self.labels, self.labels + digits], dim=1)
