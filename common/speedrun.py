"""What session 11 needs: filters that whiten, gradients that are orthogonal, and where the time of a step goes."""

from collections import Counter

import torch
import torch.nn.functional as F
from torch.autograd import DeviceType
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from common.train import rise_and_fall


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


def orthogonal(gradient):
    """The gradient (out, in, H, W) of a convolution, but all its directions have nearly the same length.

    A gradient, with a row for each filter, is long in a few directions, and its steps go back and forth along them.
    Whitened like the patches of an image, it is equally long in all; only those that were hardly there, and may be
    noise, stay shorter. This is the idea of Muon (Jordan 2024), which does it after the momentum.
    """
    rows = gradient.flatten(1)
    squares, directions = torch.linalg.eigh((rows @ rows.T).double())
    lengths = (squares + 1e-3 * squares.sum()).sqrt()
    return ((directions / lengths) @ directions.T).to(rows.dtype).mm(rows).view_as(gradient)


def one_cycle(network, loader, lr, epochs, weight_decay, filter_lr):
    """OneCycle as in session 6, but convolutions follow orthogonal gradients, with the rate `filter_lr`.

    Batch norm takes no notice of how long filters are. So they are kept at a length of 1 on average, and the rate says
    how far a step turns them. They have no weight decay and a momentum of 0.6.
    """
    # Only the weights of convolutions have four dimensions; those of the whitening layer are not trained.
    filters = [weights for weights in network.parameters() if weights.dim() == 4 and weights.requires_grad]
    others = [weights for weights in network.parameters() if weights.dim() != 4]
    own = {"params": filters, "lr": filter_lr, "momentum": 0.6, "weight_decay": 0.0}
    options = {"lr": lr, "momentum": 0.9, "nesterov": True, "weight_decay": weight_decay}
    optimizer = torch.optim.SGD([{"params": others}, own], **options)

    @torch.no_grad()
    def prepare(*_):
        for weights in filters:
            weights *= len(weights) ** 0.5 / weights.norm()
            weights.grad = orthogonal(weights.grad)

    optimizer.register_step_pre_hook(prepare)
    return optimizer, rise_and_fall(optimizer, [lr, filter_lr], epochs * len(loader))


# Parts of the names of PyTorch operators, by kind
KINDS = {
    "convolutions": ("convolution",),
    "batch norm": ("batch_norm",),
    "pooling": ("pool",),
    "ReLU": ("clamp_min", "threshold"),
    "matrix products": ("mm",),  # of fully connected layers, and of the optimiser
}


def time_by_kind(step, repeats=3):
    """Where the time of a training step goes: rows {"kind", "seconds", "flop"}, the most seconds first.

    `step` is a function that makes one step. A `flop` is an operation, so that multiplying and adding are two; those of
    convolutions and matrix products are counted, forwards and backwards. All else is "other".
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
