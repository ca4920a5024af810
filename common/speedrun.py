"""What session 11 needs: filters that whiten an image, and where the time of a training step goes."""

import timeit
from collections import Counter

import torch
import torch.nn.functional as F
from torch.autograd import DeviceType
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode


def whitening(images, size=2):
    """Filters (2 * d, C, size, size), d = C * size * size, that whiten patches of normalised images.

    Neighbouring pixels are nearly the same, so the patches of an image vary far more in some directions than in others.
    Each of the first d filters is a direction in which they vary (an eigenvector of the covariance matrix of the
    patches), divided by how far: all answers have nearly the same variance, and tell different things. The other d
    filters are the same with a minus, because ReLU keeps positive answers only (as in Jordan 2024, arXiv 2404.00498).
    """
    patches = F.unfold(images, size).transpose(1, 2).flatten(0, 1).double()  # (N * places, d)
    patches -= patches.mean(dim=0)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + 5e-4).sqrt()).T.float().view(-1, images.shape[1], size, size)
    return torch.cat([filters, -filters])


# What the operators of PyTorch that take most of the time have in their names
KINDS = {
    "convolutions": ("convolution",),
    "batch norm": ("batch_norm",),
    "pooling": ("pool",),
    "ReLU": ("clamp_min", "threshold"),
    "fully connected": ("mm",),
}


def time_by_kind(step, repeats=3):
    """Where the time of a training step goes: rows {"kind", "seconds", "flop"}, the slowest kind first.

    `step` is a function that makes one step. A `flop` is an operation, so that multiplying and adding are two; those of
    convolutions and fully connected layers are counted, forwards and backwards. All else is "other".
    """
    step()  # the first step makes ready
    with FlopCounterMode(display=False) as counter:
        step()
    with profile() as profiler:
        for _ in range(repeats):
            step()
    seconds, flop = Counter(), Counter()
    events = [
        event for event in profiler.key_averages() if event.device_type == DeviceType.CPU
    ]  # operators, not kernels
    clock = "self_device_time_total" if any(event.self_device_time_total for event in events) else "self_cpu_time_total"
    for event in events:
        seconds[_kind(event.key)] += getattr(event, clock) / 1e6 / repeats
    for operator, count in counter.get_flop_counts()["Global"].items():
        flop[_kind(str(operator))] += count
    return [{"kind": kind, "seconds": spent, "flop": flop[kind]} for kind, spent in seconds.most_common()]


def _kind(operator):
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "other")


def matrix_speed(device, dtype=torch.float32, size=2048, repeats=5):
    """How many operations a second a device reaches in a product of two large matrices."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    fastest = min(timeit.repeat(lambda: (a @ a)[0, 0].item(), number=1, repeat=repeats))  # item() waits for a GPU
    return 2 * size**3 / fastest
