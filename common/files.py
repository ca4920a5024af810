"""Files: written in one step, and their checksums."""

import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Give a path beside `path` for a file or folder, and rename it to `path` if the block succeeds.

    So at any moment the old one or the new one is there, never half of it. What a killed process left is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    _delete(unfinished)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:  # Ctrl-C too
        _delete(unfinished)
        raise


def _delete(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def hash_file(path):
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hash_files([path])


def hash_files(paths, algorithm="sha256"):
    """Hexadecimal digest over the bytes of the files, one after the other."""
    digest = hashlib.new(algorithm)
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
