"""A data set of your own: images in folders, one for each class."""

from pathlib import Path

import torch

from common.download import DataError


def read_folder(folder):
    """Read train/<class>/* and test/<class>/*, all images of one size.

    Returns the name shown to readers (from the folder's file name.txt, else the folder's own); images (N, 3, H, W) as
    uint8 and labels (N,) of both splits; the names of the classes; the files. Raises DataError.
    """
    from torchvision import datasets

    parts = []
    for split in ("train", "test"):
        try:
            parts.append(datasets.ImageFolder(folder / split, is_valid_file=_is_visible))
        except OSError as error:
            raise DataError(f"{folder / split}: expected a folder with <class>/<image> in it ({error}).") from None
    train, test = parts
    if train.classes != test.classes:
        raise DataError(f"{folder}: train has the classes {train.classes}, test {test.classes}; they must be the same.")
    if len(train.classes) < 2:
        raise DataError(f"{folder}: a classification needs two classes or more, found {train.classes}.")
    title = folder / "name.txt"
    try:
        name = title.read_text(encoding="utf-8").strip() if title.exists() else folder.name
    except ValueError:
        raise DataError(f"{title} is not text in UTF-8.") from None
    for text in (name, *train.classes):
        if not _is_unicode(text):
            raise DataError(f"The name of the folder {text!r} is not text in UTF-8: give it another name.")
    first = _read_image(train.samples[0][0])
    splits = []
    for part in parts:
        images = torch.empty(len(part.samples), *first.shape, dtype=torch.uint8)
        for number, (path, _) in enumerate(part.samples):
            image = _read_image(path)
            if image.shape != first.shape:
                expected, found = list(first.shape), list(image.shape)
                raise DataError(f"{path} is {found} (channels, height, width), expected {expected} like the first.")
            images[number] = image
        splits.append((images, torch.tensor(part.targets)))
    return name, splits, train.classes, [path for part in parts for path, _ in part.samples]


def _is_visible(path):
    """Every file counts as an image, so that none is silently left out, except hidden ones."""
    return not Path(path).name.startswith(".")


def _is_unicode(text):
    """Whether a text can be written: Python reads bytes of a file name that are not UTF-8 as half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_image(path):
    """An image file as uint8 (3, H, W), turned upright."""
    from PIL import Image, ImageOps
    from torchvision.transforms.functional import pil_to_tensor

    try:
        with Image.open(path) as image:
            fine, frames = _is_finer_than_bytes(image), getattr(image, "n_frames", 1)
            pixels = pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{path} is not a readable image: {error}.") from None
    if fine:
        raise DataError(f"{path} has more than 8 bits a channel: save it with 8.")
    if frames > 1:
        raise DataError(f"{path} has {frames} pictures in it, expected one.")
    return pixels


def _is_finer_than_bytes(image):
    """Whether an opened image has 16 or 32 bits per channel, which Pillow cuts off or rounds."""
    if image.mode[0] in "IF":
        return True
    # How its parts are decoded: "RGB;16B" of a PNG or TIFF, or ("RGB", 65535) with the highest value of a PPM.
    return any(";16" in str(part.args) or (part.codec_name == "ppm" and part.args[1] > 255) for part in image.tile)
