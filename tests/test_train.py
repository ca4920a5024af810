"""The training loop: what it computes, and that a killed run ends as if never killed."""

import copy
import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from common import data, report, train, utils
from common.lr_finder import find_lr
from common.model import under_10k


def parts(digits, shuffle=True, augment=None, dropout=0.0, seed=0):
    """A small network, its loaders and its optimiser."""
    few = data.Split(digits.train.images[:200], digits.train.labels[:200])
    statistics = {"mean": digits.mean, "std": digits.std}
    utils.set_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 10))
    train_loader = data.Loader(few, 32, augment=augment, shuffle=shuffle, seed=seed, **statistics)
    test_loader = data.Loader(digits.test, 100, **statistics)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    return model, train_loader, test_loader, optimizer


def test_the_loop_does_what_a_plain_loop_does(digits):
    model, train_loader, test_loader, optimizer = parts(digits, shuffle=False)
    schedule = OneCycleLR(optimizer, 0.02, total_steps=2 * len(train_loader))
    history = train.fit(model, train_loader, test_loader, optimizer, epochs=2, schedule=schedule)

    plain, train_loader, _, optimizer = parts(digits, shuffle=False)
    schedule = OneCycleLR(optimizer, 0.02, total_steps=2 * len(train_loader))
    losses = []
    for _ in range(2):
        for images, labels in train_loader:
            loss = nn.CrossEntropyLoss()(plain(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append((loss.item(), len(labels)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    second = losses[len(losses) // 2 :]
    mean = sum(loss * count for loss, count in second) / sum(count for _, count in second)
    assert history["train_loss"][1] == pytest.approx(mean, rel=1e-5)


def test_evaluation_agrees_with_scikit_learn_and_keeps_the_mode(digits):
    from sklearn.metrics import accuracy_score, log_loss

    model, _, test_loader, _ = parts(digits, dropout=0.5)
    loss, accuracy = train.evaluate(model, test_loader).values()
    logits = train.predict(model, test_loader)
    labels = digits.test.labels.numpy()
    assert model.training
    model[1].eval()  # a layer that somebody froze
    train.predict(model, test_loader)
    assert [module.training for module in model[:3]] == [True, False, True]
    assert accuracy == pytest.approx(accuracy_score(labels, logits.argmax(dim=1).numpy()))
    assert loss == pytest.approx(log_loss(labels, logits.double().softmax(dim=1).numpy()), rel=1e-5)


def test_each_scheduler_steps_when_it_should(digits):
    def run(make, **options):
        model, train_loader, test_loader, optimizer = parts(digits)
        return train.fit(model, train_loader, test_loader, optimizer, epochs=4, schedule=make(optimizer), **options)

    step = run(lambda optimizer: StepLR(optimizer, 2, 0.1))
    assert step["lr"] == pytest.approx([0.02, 0.02, 0.002, 0.002])
    one_cycle = run(lambda optimizer: OneCycleLR(optimizer, 0.02, total_steps=28, pct_start=0.25))["lr"]
    assert one_cycle[0] == pytest.approx(0.02 / 25)
    assert one_cycle[1] > one_cycle[2] > one_cycle[3]


def test_reduce_on_plateau_watches_the_held_out_loss(digits):
    """PyTorch's scheduler, fed with the losses of the history, gives the same rates."""
    model, train_loader, test_loader, optimizer = parts(digits)
    schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.3)
    held_out = data.Loader(data.Split(digits.train.images[200:250], digits.train.labels[200:250]), 50, (0,), (1,))
    history = train.fit(model, train_loader, test_loader, optimizer, epochs=6, schedule=schedule, held_out=held_out)
    _, _, _, optimizer = parts(digits)
    schedule, rates = ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.3), []
    for loss in history["held_out_loss"]:
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(loss)
    assert history["lr"] == rates
    assert len(set(rates)) > 1
    with pytest.raises(ValueError, match="held_out"):
        train.fit(*parts(digits), epochs=1, schedule=schedule)


def test_the_test_set_decides_nothing(digits):
    def weights(labels):
        model, train_loader, _, optimizer = parts(digits)
        test_loader = data.Loader(data.Split(digits.test.images, labels), 100, digits.mean, digits.std)
        measured = data.Loader(digits.train, 500, digits.mean, digits.std)
        schedule = ReduceLROnPlateau(optimizer, patience=0)
        train.fit(model, train_loader, test_loader, optimizer, epochs=3, schedule=schedule, held_out=measured)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    shuffled = digits.test.labels[torch.randperm(360, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(weights(digits.test.labels), weights(shuffled))


def test_the_log_line_and_the_history_agree(digits, capsys):
    model, train_loader, test_loader, optimizer = parts(digits)
    history = train.fit(model, train_loader, test_loader, optimizer, epochs=1)
    row = history.epochs[0]
    printed = capsys.readouterr().out
    correct = round(row["test_accuracy"] * 360)
    expected = f"Test set: Average loss: {row['test_loss']:.4f}, Accuracy: {correct}/360 ({100 * correct / 360:.2f}%)"
    assert expected in printed
    assert "Epoch  1  learning rate 0.02000" in printed


def test_a_loss_that_is_not_finite_ends_the_training(digits):
    model, train_loader, test_loader, optimizer = parts(digits)
    optimizer.param_groups[0]["lr"] = 1e30
    with pytest.raises(ArithmeticError, match="smaller learning rate"):
        train.fit(model, train_loader, test_loader, optimizer, epochs=3)


def test_bfloat16_learns_too(digits):
    model, train_loader, test_loader, optimizer = parts(digits)
    history = train.fit(model, train_loader, test_loader, optimizer, epochs=8, bfloat16=True)
    assert next(model.parameters()).dtype == torch.float32
    assert history["test_accuracy"][-1] > 0.6


# ---------------------------------------------------------------------------------------------------------------
# Checkpoints

# Processes to be killed: copies of one that has imported what they need.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["common.data", "common.model", "common.train", "sklearn.datasets", "torch._dynamo"])


def train_in_a_process(kind, checkpoint, result, printed):
    torch.set_num_threads(1)
    digits = data.load("digits")
    utils.set_seed(3)
    model = under_10k(dropout=0.1)
    few = data.Split(digits.train.images[:200], digits.train.labels[:200])
    statistics = {"mean": digits.mean, "std": digits.std}
    augment = data.Augment(rotate=10, shift=2, scale=0.1)
    loader = data.Loader(few, 25, augment=augment, shuffle=True, seed=3, **statistics)
    test = data.Loader(digits.test, 360, **statistics)
    if kind == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        schedule = StepLR(optimizer, 2, 0.5)
    elif kind == "plateau":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
        schedule = OneCycleLR(optimizer, 0.1, total_steps=6 * len(loader))
    options = {"schedule": schedule, "held_out": test, "checkpoint": checkpoint, "log": printed.send}
    history = train.fit(model, loader, test, optimizer, epochs=6, **options)
    torch.save({"weights": model.state_dict(), "history": history.epochs}, result)


def start(kind, folder, name):
    """A process that trains, and what it prints."""
    printed, sender = PROCESSES.Pipe(duplex=False)
    files = folder / f"{name}.checkpoint", folder / f"{name}.pt"
    process = PROCESSES.Process(target=train_in_a_process, args=(kind, *files, sender))
    process.start()
    sender.close()  # here, so that reading ends when the process does
    return process, printed


@pytest.mark.parametrize("kind", ["onecycle", "adam", "plateau"])
def test_a_run_killed_twice_ends_with_the_same_bits(tmp_path, kind):
    """SIGKILL in the middle of an epoch, twice, then to the end: weights and history equal an uninterrupted run's."""
    unbroken, _unread = start(kind, tmp_path, "unbroken")
    for epoch in (2, 4):
        process, printed = start(kind, tmp_path, "killed")
        while not printed.recv().startswith(f"Epoch {epoch:2d}"):
            pass
        time.sleep(random.uniform(0, 0.15))  # into the next epoch, at some moment of it
        process.kill()
        process.join()
        assert (tmp_path / "killed.checkpoint").exists()
        assert not (tmp_path / "killed.pt").exists()
    last, printed = start(kind, tmp_path, "killed")
    lines = [printed.recv()]
    while "Resuming after epoch" not in lines[-1]:
        lines.append(printed.recv())
    assert len(lines) > 4, "the epochs of the checkpoint are printed again"
    assert all(line.startswith(f"Epoch {number:2d}") for number, line in enumerate(lines[:-1], 1))
    for process in (last, unbroken):
        process.join()
        assert process.exitcode == 0
    expected, found = torch.load(tmp_path / "unbroken.pt"), torch.load(tmp_path / "killed.pt")
    assert json.dumps(expected["history"]) == json.dumps(found["history"])
    for name, tensor in expected["weights"].items():
        assert torch.equal(tensor, found["weights"][name]), name


def test_a_finished_checkpoint_returns_its_result(digits, tmp_path):
    def run():
        model, train_loader, test_loader, optimizer = parts(digits)
        lines = []
        options = {"epochs": 2, "checkpoint": tmp_path / "c", "log": lines.append}
        return train.fit(model, train_loader, test_loader, optimizer, **options), model, lines

    (first, model, lines), (again, same, printed) = run(), run()
    assert lines == first.log
    assert printed == [*first.log, "Resuming after epoch 2 of 2, from the checkpoint c"]
    assert first.epochs == again.epochs
    assert first.seconds == again.seconds
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "first weights"),
        ({"augment": data.Augment(flip=True)}, "batches"),
        ({"dropout": 0.2}, "network"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(digits, tmp_path, change, named):
    model, train_loader, test_loader, optimizer = parts(digits)
    train.fit(model, train_loader, test_loader, optimizer, epochs=1, checkpoint=tmp_path / "c")
    model, train_loader, test_loader, optimizer = parts(digits, **change)
    with pytest.raises(ValueError, match=f"another training.*{named}.*delete it"):
        train.fit(model, train_loader, test_loader, optimizer, epochs=1, checkpoint=tmp_path / "c")


def test_other_epochs_rate_or_data_count_as_another_training(digits, tmp_path):
    model, train_loader, test_loader, optimizer = parts(digits)
    train.fit(model, train_loader, test_loader, optimizer, epochs=1, checkpoint=tmp_path / "c")
    for name in ("epochs", "optimizer", "training images"):
        model, train_loader, test_loader, optimizer = parts(digits)
        if name == "optimizer":
            optimizer.param_groups[0]["lr"] = 0.1
        if name == "training images":
            train_loader.targets = train_loader.targets.flip(0)
        epochs = 2 if name == "epochs" else 1
        with pytest.raises(ValueError, match=name):
            train.fit(model, train_loader, test_loader, optimizer, epochs=epochs, checkpoint=tmp_path / "c")


def test_a_damaged_checkpoint_is_refused(digits, tmp_path):
    model, train_loader, test_loader, optimizer = parts(digits)
    train.fit(model, train_loader, test_loader, optimizer, epochs=1, checkpoint=tmp_path / "c")
    whole = (tmp_path / "c").read_bytes()
    for damaged in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        (tmp_path / "c").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"not a checkpoint.*delete it"):
            train.fit(*parts(digits), epochs=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="is a folder"):
        train.fit(*parts(digits), epochs=1, checkpoint=tmp_path)


def test_a_fault_while_the_checkpoint_is_written_leaves_the_old_one(digits, tmp_path, monkeypatch):
    model, train_loader, test_loader, optimizer = parts(digits)
    unbroken = train.fit(*parts(digits), epochs=3)
    saves = []

    def save(state, path):
        saves.append(path)
        if len(saves) == 2:
            Path(path).write_bytes(b"half of it")  # whatever file it was told to write
            raise OSError("No space left on device")
        real(state, path)

    real = torch.save
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="No space"):
        train.fit(model, train_loader, test_loader, optimizer, epochs=3, checkpoint=tmp_path / "c")
    (tmp_path / "c.unfinished").write_bytes(b"half of it")  # a kill leaves this
    lines = []
    history = train.fit(*parts(digits), epochs=3, checkpoint=tmp_path / "c", log=lines.append)
    assert lines[0].rsplit("  ", 1)[0] == unbroken.log[0].rsplit("  ", 1)[0]  # all but the seconds
    assert lines[1] == "Resuming after epoch 1 of 3, from the checkpoint c"
    assert lines[2:] == history.log[1:]
    assert history.epochs == unbroken.epochs


def test_a_trained_optimiser_and_a_shuffled_test_set_are_refused(digits):
    model, train_loader, test_loader, optimizer = parts(digits)
    train.fit(model, train_loader, test_loader, optimizer, epochs=1)
    with pytest.raises(ValueError, match="made steps already"):
        train.fit(model, train_loader, test_loader, optimizer, epochs=1)
    with pytest.raises(ValueError, match="neither shuffles nor augments"):
        train.evaluate(model, train_loader)


def test_a_network_is_trained_only_once(digits):
    """Else its history would begin in the middle: a learner may rerun the training cell without the one before."""

    def again(model, train_loader, test_loader, _):
        optimizer, schedule = train.one_cycle(model, train_loader, 0.02, 1)
        return train.fit(model, train_loader, test_loader, optimizer, epochs=1, schedule=schedule)

    first = parts(digits)
    history = again(*first)
    for model in (first[0], copy.deepcopy(first[0])):
        with pytest.raises(ValueError, match=r"trained already: before training again, run the cell that makes it"):
            again(model, *first[1:])
    assert again(*parts(digits)).epochs == history.epochs
    new = parts(digits)
    new[0].load_state_dict(first[0].state_dict())  # who wants to go on says so
    assert again(*new)["train_loss"] < history["train_loss"]


def test_an_interrupted_network_is_not_trained_again(digits):
    def interrupt(line):
        raise KeyboardInterrupt

    first = parts(digits)
    with pytest.raises(KeyboardInterrupt):
        train.fit(*first, epochs=2, log=interrupt)
    optimizer = torch.optim.SGD(first[0].parameters(), lr=0.02)
    with pytest.raises(ValueError, match="trained already"):
        train.fit(*first[:3], optimizer, epochs=2)


def test_a_refused_training_or_a_search_leaves_the_network_untrained(digits, tmp_path):
    """A wrong checkpoint or a search for the rate leaves the network as it was."""
    model, train_loader, test_loader, optimizer = parts(digits)
    (tmp_path / "c").write_text("no checkpoint")
    with pytest.raises(ValueError, match="not a checkpoint"):
        train.fit(model, train_loader, test_loader, optimizer, epochs=1, checkpoint=tmp_path / "c")
    find_lr(model, train_loader, optimizer, steps=3)
    history = train.fit(model, train_loader, test_loader, optimizer, epochs=1)
    assert history.epochs == train.fit(*parts(digits), epochs=1).epochs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_training_and_resuming_work_on_a_gpu(digits, tmp_path):
    def run(epochs):
        few = data.with_splits(digits, digits.train, digits.test, digits.classes)
        loaders = data.loaders(few, 64, data.Augment(rotate=10, flip=True, crop_padding=2), device="cuda")
        utils.set_seed(0)
        model = under_10k(dropout=0.1).cuda()
        optimizer, schedule = train.one_cycle(model, loaders[0], 0.1, 3)
        return train.fit(model, *loaders, optimizer, epochs=epochs, schedule=schedule, bfloat16=True, checkpoint=path)

    path = tmp_path / "c"
    assert run(3)["test_accuracy"][-1] > 0.8
    assert run(3).epochs[-1]["epoch"] == 3


def test_a_checkpoint_runs_no_code(digits, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"settings": Evil()}, tmp_path / "c")
    model, train_loader, test_loader, optimizer = parts(digits)
    with pytest.raises(ValueError, match="not a checkpoint"):
        train.fit(model, train_loader, test_loader, optimizer, epochs=1, checkpoint=tmp_path / "c")
    assert not (tmp_path / "executed").exists()


def test_the_network_of_session_6_learns_the_digits(digits):
    utils.set_seed(0)
    model = under_10k()
    augment = data.Augment(rotate=10, shift=2, scale=0.1)
    train_loader = data.Loader(digits.train, 32, digits.mean, digits.std, augment=augment, shuffle=True)
    test_loader = data.Loader(digits.test, 360, digits.mean, digits.std)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    schedule = OneCycleLR(optimizer, 0.1, total_steps=5 * len(train_loader))
    history = train.fit(model, train_loader, test_loader, optimizer, epochs=5, schedule=schedule)
    assert history["test_accuracy"][-1] > 0.93
    summary = report.final_and_best(history)
    assert summary[1]["last epoch"] == f"{history['test_accuracy'][-1]:.2%}"
    assert summary[1]["highest"] == f"{max(history['test_accuracy']):.2%}"
    best = max(history["test_accuracy"])
    assert history["test_accuracy"].index(best) == report.first_epoch(history, best) - 1
    assert report.first_epoch(history, 1.01) is None


def test_one_cycle_works_for_few_steps(digits):
    with pytest.raises(ValueError, match="three steps or more, not 2"):
        train.one_cycle(under_10k(), data.loaders(digits, 1000)[0], 0.1, epochs=1)
    for batch_size in (300, 500):  # five steps, three steps
        loader, _ = data.loaders(digits, batch_size)
        optimizer, schedule = train.one_cycle(under_10k(), loader, 0.1, epochs=1)
        rates = []
        for _ in loader:
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert max(rates) == pytest.approx(0.1), rates
