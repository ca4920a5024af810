"""A training by PyTorch Lightning's Trainer, for loops.py."""

import logging
import time

import pytorch_lightning
import torch.nn.functional as F


class Classifier(pytorch_lightning.LightningModule):
    """A network that Lightning trains; notes for each epoch the seconds and the accuracy."""

    def __init__(self, net, optimizer, schedule):
        super().__init__()
        self.net, self.prepared, self.rows = net, (optimizer, schedule), []

    def configure_optimizers(self):
        optimizer, schedule = self.prepared
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch, number):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def optimizer_step(self, epoch, batch, optimizer, closure):
        closure()  # the gradients, which Lightning computes inside of step: session 11 changes them before it
        optimizer.step()

    def validation_step(self, batch, number):
        images, labels = batch
        self.right += int((self.net(images).argmax(dim=1) == labels).sum())
        self.asked += len(labels)

    def on_train_epoch_start(self):
        self.started, self.stepping, self.evaluating = time.perf_counter(), 0.0, 0.0

    def on_train_batch_start(self, batch, number):
        self.stepped = time.perf_counter()

    def on_train_batch_end(self, outputs, batch, number):
        self.stepping += time.perf_counter() - self.stepped

    def on_validation_start(self):
        self.evaluated, self.right, self.asked = time.perf_counter(), 0, 0

    def on_validation_end(self):
        self.evaluating = time.perf_counter() - self.evaluated

    def on_train_epoch_end(self):  # comes after the validation
        train = time.perf_counter() - self.started - self.evaluating
        row = {"train": train, "data": train - self.stepping, "eval": self.evaluating}
        self.rows.append({**row, "accuracy": self.right / self.asked})


def fit(net, batches, tests, optimizer, schedule, epochs, device):
    """Train and return one row an epoch: seconds of training, of it of data, of evaluation; the test accuracy."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    module = Classifier(net, optimizer, schedule)
    trainer = pytorch_lightning.Trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, batches, tests)
    return module.rows
