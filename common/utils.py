"""Small helpers: where the course lies, seeds, the device, the table of layers, the versions in use."""

import os
import platform
import random
import sys
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds common/


def interactive():
    """Whether somebody is watching: in a terminal or in Colab a progress bar is shown, else plain lines."""
    return sys.stderr.isatty() or "google.colab" in sys.modules


def set_seed(seed):
    """Seed every generator, and choose algorithms that give the same result every time on the same machine."""
    random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def choose_device(name="auto"):
    """Return the torch.device `name`, "cpu" or "cuda"; "auto" is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("There is no CUDA GPU here: set device to 'auto' or 'cpu'.")
    return torch.device(name)
