"""The training loop: fit() trains epoch by epoch, predict() and evaluate() measure, a checkpoint survives a kill."""

import hashlib
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from tqdm import tqdm

from common.files import replacing
from common.utils import interactive, modes_kept


@dataclass
class History:
    """What happened: one row per epoch, its log line, and the seconds that training and evaluation took."""

    epochs: list[dict] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    seconds: dict = field(default_factory=lambda: {"train": 0.0, "eval": 0.0})

    def __getitem__(self, key):
        """One column, such as "test_accuracy", as a list with one number per epoch."""
        return [row[key] for row in self.epochs]


def accuracy(logits, targets):
    """Which answers are right, bool (N,): the class with the highest score in (N, classes) is the target (N,)."""
    return logits.argmax(dim=1) == targets


ACCURACY = {"accuracy": accuracy}


def fit(
    model,
    train,
    test,
    optimizer,
    *,
    epochs,
    schedule=None,
    held_out=None,
    loss=F.cross_entropy,
    metrics=ACCURACY,
    bfloat16=False,
    checkpoint=None,
    log=print,
):
    """Train `model` for `epochs` passes over the loader `train` and return the History.

    `test` and `held_out` are loaders to measure on after each epoch; `test` may be None, and decides nothing. `loss`
    and `metrics` {name: function} take the model's outputs and the targets of a batch; a metric, one of which is
    "accuracy", says for each image whether it is right.

    `schedule` is a scheduler of torch.optim: OneCycleLR steps after each batch, ReduceLROnPlateau after each epoch
    on the loss of `held_out`, any other after each epoch. `bfloat16` runs the training's forward pass in bfloat16
    where that is safe, which is faster on hardware that supports it.

    `checkpoint` is a file to save to after each epoch. If it exists, training resumes from it: on a CPU it ends with
    the same weights and history, to the bit, as a run that was never interrupted.

    A network is trained once: to go on from its weights, load them into a new one.

    Raises ValueError if the model was already trained, the optimiser has already made steps, the checkpoint belongs to
    another training, or ReduceLROnPlateau has no loss to watch; ArithmeticError if the loss is no longer finite.
    """
    if isinstance(schedule, ReduceLROnPlateau) and not held_out:
        raise ValueError("ReduceLROnPlateau needs the loader held_out: the test set must not decide the learning rate.")
    if optimizer.state:
        raise ValueError("This optimiser has made steps already: make model and optimiser anew before training again.")
    check_untrained(model)
    history = History()
    if checkpoint:
        measures = ", ".join([_describe(loss), *metrics])
        state = TrainingState(model, train, optimizer, schedule, epochs, bfloat16, measures)
        if Path(checkpoint).exists():
            history = state.load(checkpoint)
            for line in history.log:
                log(line)
            log(f"Resuming after epoch {len(history.epochs)} of {epochs}, from the checkpoint {Path(checkpoint).name}")

    model.was_trained = True  # from here on, even if somebody interrupts
    for epoch in range(len(history.epochs) + 1, epochs + 1):
        row = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"]}
        started = time.perf_counter()
        per_batch = schedule if isinstance(schedule, OneCycleLR) else None
        row |= _named("train", train_epoch(model, train, optimizer, per_batch, loss, metrics, bfloat16))
        trained = time.perf_counter()
        if test:
            row |= _named("test", evaluate(model, test, loss, metrics))
        if held_out:
            row |= _named("held_out", evaluate(model, held_out, loss, metrics))
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(row["held_out_loss"])
        elif schedule and not per_batch:
            schedule.step()

        history.epochs.append(row)
        history.seconds["train"] += trained - started
        history.seconds["eval"] += time.perf_counter() - trained
        history.log.append(log_line(row, len(test.targets) if test else 0, time.perf_counter() - started))
        finite = math.isfinite(row["train_loss"])
        if checkpoint and finite:
            state.save(checkpoint, history)
        log(history.log[-1])  # only now: an epoch that was printed survives a kill
        if not finite:
            raise ArithmeticError(f"The loss is {row['train_loss']} in epoch {epoch}: try a smaller learning rate.")
    return history


def check_untrained(model):
    """Raise ValueError for a model that fit() or fit_many() trained: a new history would not tell the whole story."""
    if getattr(model, "was_trained", False):
        raise ValueError(
            "This network was trained already: before training again, run the cell that makes it, and the one that "
            "makes its optimiser."
        )


def one_cycle(model, loader, lr, epochs, weight_decay=1e-4):
    """The optimiser and schedule of recipe B in session 6: SGD whose rate rises, then falls to 0 in a line.

    SGD with Nesterov momentum 0.9; `lr` is the peak of the rate, in `epochs` passes over the loader. Returns both, for
    fit().
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return optimizer, rise_and_fall(optimizer, lr, epochs * len(loader))


def rise_and_fall(optimizer, lr, steps):
    """OneCycle (Smith & Topin 2018): the rate rises to `lr` in a fifth of `steps`, then falls to 0, both in a line.

    Raises ValueError for fewer than three steps, which have no room for both.
    """
    if steps < 3:
        raise ValueError(f"OneCycle needs three steps or more, not {steps}: take more epochs or smaller batches.")
    rise = max(0.2, 2 / steps)  # at least from the first step to the second
    return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise, anneal_strategy="linear", cycle_momentum=False)


def train_epoch(model, loader, optimizer, schedule=None, loss=F.cross_entropy, metrics=ACCURACY, bfloat16=False):
    """One pass over the loader. Returns {"loss", *metrics}, means over its images, each measured before its step."""
    model.train()
    totals = dict.fromkeys(["loss", *metrics], 0)  # tensors on the device: to read a number at each step stalls a GPU
    for inputs, targets in tqdm(loader, unit="batch", leave=False, disable=not interactive()):
        with torch.autocast(targets.device.type, torch.bfloat16, enabled=bfloat16):
            outputs = answer(model, inputs)
            batch_loss = loss(outputs, targets)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
        totals["loss"] += batch_loss.detach() * len(targets)
        for name, metric in metrics.items():
            totals[name] += metric(outputs.detach(), targets).sum()
    return {name: float(total) / len(loader.targets) for name, total in totals.items()}


def answer(model, inputs):
    """The model's outputs for a batch; `inputs` is a tensor, or a tuple of tensors if the model has several inputs."""
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@torch.no_grad()
def predict(model, loader):
    """The model's outputs, such as logits (N, classes), for all images of a loader; its modules keep their modes.

    Raises ValueError for a loader that shuffles, whose batches do not fit its targets, or augments.
    """
    if loader.shuffle or loader.augment:
        raise ValueError("Measure with a loader that neither shuffles nor augments.")
    with modes_kept(model):
        model.eval()
        return torch.cat([answer(model, inputs) for inputs, _ in loader])


def evaluate(model, loader, loss=F.cross_entropy, metrics=ACCURACY):
    """Mean loss and metrics over a loader that neither shuffles nor augments, as {"loss", *metrics}."""
    outputs = predict(model, loader)
    shares = {name: float(metric(outputs, loader.targets).double().mean()) for name, metric in metrics.items()}
    return {"loss": float(loss(outputs, loader.targets)), **shares}


def _describe(loss):
    """A loss as a text that is the same in every process."""
    if isinstance(loss, partial):
        return f"{_describe(loss.func)} with {loss.keywords}"
    return getattr(loss, "__name__", str(loss))


def _named(prefix, measures):
    return {f"{prefix}_{name}": value for name, value in measures.items()}


def log_line(row, test_size, seconds):
    """The line printed after an epoch, from its row of the history."""
    line = f"Epoch {row['epoch']:2d}  learning rate {row['lr']:.5f}  "
    line += f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.2%}  "
    if "held_out_accuracy" in row:
        line += f"held out {row['held_out_accuracy']:.2%}  "
    if "test_loss" in row:
        right = round(row["test_accuracy"] * test_size)
        line += f"Test set: Average loss: {row['test_loss']:.4f}, "
        line += f"Accuracy: {right}/{test_size} ({row['test_accuracy']:.2%})  "
    return line + f"{seconds:.1f} s"


class TrainingState:
    """Everything that decides how training continues; saved to and loaded from a checkpoint file."""

    def __init__(self, model, train, optimizer, schedule, epochs, bfloat16, measures):
        self.parts = {"model": model, "optimizer": optimizer}
        if schedule:
            self.parts["schedule"] = schedule
        self.generator = train.generator
        self.device = train.targets.device.type
        # A checkpoint is for one training only. These texts tell trainings apart before the first step.
        self.settings = {
            "network": str(model),
            "first weights": _digest(model.state_dict().values()),
            "optimizer": str(optimizer),
            "schedule": f"{type(schedule).__name__} {schedule.state_dict()}" if schedule else "None",
            "epochs": str(epochs),
            "loss and metrics": measures,
            "training images": _digest([train.images, train.targets, train.mean, train.std]),
            "batches": f"{train.batch_size}, {train.augment}, shuffle {train.shuffle}",
            "generator": _digest([train.generator.get_state()]),
            "precision": "bfloat16" if bfloat16 else "float32",
            "device": self.device,
        }

    def save(self, path, history):
        """Write the checkpoint in one step: after a kill at any moment, the old one or the new one is there."""
        state = {
            "settings": self.settings,
            "epochs": history.epochs,
            "log": history.log,
            "seconds": history.seconds,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "loader": self.generator.get_state(),
            "cpu": torch.get_rng_state(),
            "gpu": torch.cuda.get_rng_state() if self.device == "cuda" else None,
        }
        with replacing(path) as unfinished:
            torch.save(state, unfinished)

    def load(self, path):
        """Put everything back to the end of the checkpoint's last epoch, and return the history so far."""
        if Path(path).is_dir():
            raise ValueError(f"The checkpoint {path} is a folder: name a file.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            settings = state["settings"]
        except PermissionError:
            raise
        except Exception:  # torch.load has no exception for a damaged file, and advises to trust it
            raise ValueError(f"{path} is damaged or not a checkpoint of this course: delete it.") from None
        other = [key for key, value in self.settings.items() if settings.get(key) != value]
        if other:
            raise ValueError(
                f"The checkpoint {path} belongs to another training, with a different {', '.join(other)}: "
                "delete it, or give another file name."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.generator.set_state(state["loader"])
        torch.set_rng_state(state["cpu"])
        if self.device == "cuda":
            torch.cuda.set_rng_state(state["gpu"])
        return History(state["epochs"], state["log"], state["seconds"])


def _digest(tensors):
    """A short fingerprint of the tensors' bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
