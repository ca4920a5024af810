"""Small helpers: the course's folder, missing packages, seeds, the device, the table of layers, the versions."""

import contextlib
import copy
import io
import math
import os
import platform
import subprocess
import sys
import timeit
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent  # the folder that holds common/
KEPT = ("torch", "numpy", "ipython", "ipykernel")  # changing their version breaks a running Colab machine


def install(*packages):
    """Install missing packages, with what they need, but nothing that changes a package in KEPT."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        kept = [f"{package}=={metadata.version(package)}" for package in KEPT]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing, *kept], check=True)


def is_installed(package):
    """Whether a package is installed, by its name in pip."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def interactive():
    """Whether somebody is watching: in a terminal or in Colab a progress bar is shown, else plain lines.

    The environment variable TQDM_DISABLE says that nobody is, as in a batch in Colab.
    """
    return "TQDM_DISABLE" not in os.environ and (sys.stderr.isatty() or "google.colab" in sys.modules)


def set_seed(seed):
    """Seed PyTorch's generators, and choose algorithms that give the same results on the same machine."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def choose_device(name="auto"):
    """Return the torch.device `name`, "cpu" or "cuda"; "auto" is the GPU if there is one.

    On a GPU convolutions then compute in full float32, as on a CPU; PyTorch would cut 13 bits off the inputs (TF32).
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("There is no CUDA GPU here: set device to 'auto' or 'cpu'.")
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    return torch.device(name)


def has_bfloat16(device):
    """Whether a device is faster in bfloat16 than in float32.

    A processor's own word is not enough: some know bfloat16 and yet need twice as long. So a product is measured.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return matrix_speed(device, torch.bfloat16, size=512) > matrix_speed(device, size=512)


def matrix_speed(device, dtype=torch.float32, size=2048, repeats=5):
    """How many operations a second a device reaches in a product of two large matrices."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    fastest = min(timeit.repeat(lambda: (a @ a)[0, 0].item(), number=1, repeat=repeats))  # item() waits for a GPU
    return 2 * size**3 / fastest


def device_name(device):
    """The name of a device in the record: "CPU", or the name of the GPU."""
    return torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "CPU"


def processor():
    """The name of the processor, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


@contextlib.contextmanager
def modes_kept(model):
    """After the block, put each module of a model back into its mode, training or evaluation."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def count_parameters(model):
    """Number of weights that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def summary(model, *input_sizes):
    """The familiar table of torchsummary as a text; `input_sizes` are (C, H, W) or (features,), one for each input.

    Works on a copy, in evaluation mode: the model, its batch-norm statistics and the random numbers stay as they are.
    """
    from torchsummary import summary as print_summary

    text = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(text):
        print_summary(copy.deepcopy(model).cpu().float().eval(), _Sizes(input_sizes), device="cpu")
    return text.getvalue().strip()


class _Sizes(list):
    """Sizes of several inputs; torchsummary calls numpy.prod on them, which fails for sizes of unlike length."""

    def prod(self, **_):
        return sum(math.prod(size) for size in self)


def output_size(size, kernel, stride=1, padding=0):
    """How many positions a kernel has along a side of `size` pixels."""
    return (size + 2 * padding - kernel) // stride + 1


def receptive_field(model, input_size):
    """Follow one image of `input_size` (C, H, W) through a chain of convolutions and pools.

    Layers of a `shortcut` are left out: they lie beside the chain and see less.
    Returns one dict per layer: the kind of `layer`, its `output` as "CxHxW", `kernel`, `stride`, `padding`, the `jump`
    between neighbouring outputs and the receptive `field`, both in pixels of the input (Araujo et al. 2019, doi
    10.23915/distill.00021), and its `parameters`.
    """
    rows = []

    def add(layer, _, output):
        kernel, stride, padding = (side(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        jump, field = (rows[-1]["jump"], rows[-1]["field"]) if rows else (1, 1)
        rows.append(
            {
                "layer": type(layer).__name__,
                "output": "x".join(str(size) for size in output.shape[1:]),
                "kernel": kernel,
                "stride": stride,
                "padding": padding,
                "jump": jump * stride,
                "field": field + (kernel - 1) * jump,
                "parameters": count_parameters(layer),
            }
        )

    model = copy.deepcopy(model).cpu().float().eval()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and "shortcut" not in name:
            layer.register_forward_hook(add)
    with torch.no_grad():
        model(torch.zeros(1, *input_size))
    return rows


def side(value):
    """A kernel size, stride or padding, given as one number or two; in this course they are square."""
    return value if isinstance(value, int) else value[0]


def versions():
    """Versions of Python and of what decides a result; for the course its commit, if it is in a Git repository."""
    packages = ("torch", "torchvision", "numpy", "scikit-learn")
    found = {"python": platform.python_version(), **{package: metadata.version(package) for package in packages}}
    return {**found, **({"course": commit()} if commit() else {})}


def commit():
    """The commit of the course's files, followed by "changed" if they differ from it; None outside Git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty= changed"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
