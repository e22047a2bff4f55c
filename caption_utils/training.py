"""Teacher forcing until the validation perplexity no longer falls: epochs, checkpoints, resume, progress."""

import csv
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from caption_utils.batches import Batch, CaptionBatches
from caption_utils.checkpoint import LAST, WEIGHTS, Model, save_model, save_tensors
from caption_utils.decoder import Decoder
from caption_utils.errors import InputError
from caption_utils.files import replacing
from caption_utils.metrics import perplexity
from caption_utils.recipe import SCHEDULES, TrainConfig

LOG_FIELDS = ("epoch", "train_loss", "val_perplexity", "learning_rate", "captions_per_second", "seconds")


def caption_loss(decoder: Decoder, batch: Batch, config: TrainConfig) -> Tensor:
    """Mean cross-entropy of the real tokens, plus the doubly stochastic penalty of Xu et al. 2015, equation 14."""
    logits, alphas = decoder(batch.features, batch.tokens, batch.owner)
    loss = F.cross_entropy(logits, batch.targets, label_smoothing=config.label_smoothing)
    if config.doubly_stochastic:
        caption = torch.cat([torch.arange(size) for size in batch.tokens.batch_sizes.tolist()]).to(alphas.device)
        looked = alphas.new_zeros(len(batch.owner), alphas.shape[1]).index_add(0, caption, alphas)  # (B, N)
        loss = loss + config.doubly_stochastic * ((1 - looked) ** 2).sum(dim=1).mean()
    return loss


class Trainer:
    """One run: a model, its optimiser and how far it has come. The folder holds what survives a crash."""

    def __init__(self, model: Model, config: TrainConfig, folder: Path, batches: CaptionBatches):
        if config.schedule not in SCHEDULES:
            raise InputError(f"schedule {config.schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")
        self.model, self.config, self.folder, self.batches = model, config, folder, batches
        self.optimizer = torch.optim.AdamW(
            model.decoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.steps = 0
        self.history: list[dict[str, float]] = []

    def settings(self) -> dict[str, object]:
        """What must not change between a run and its continuation."""
        words = hashlib.blake2b(repr(self.model.vocab.words).encode(), digest_size=8).hexdigest()
        data = {"encoder": self.model.fingerprint, "vocabulary": words, "captions": self.batches.fingerprint()}
        return {**asdict(self.model.decoder.config), **asdict(self.config), **data}

    def best(self) -> dict[str, float]:
        """The log row of the best epoch so far."""
        return min(self.history, key=lambda row: row["val_perplexity"])

    def learning_rate(self) -> float:
        """The rate for the next step."""
        progress = self.steps / (self.config.epochs * len(self.batches))
        return self.config.learning_rate * SCHEDULES[self.config.schedule](progress, self.config.warmup)

    def finished(self) -> bool:
        """All epochs done, or no new best for ``patience`` epochs."""
        waited = self.history and len(self.history) - self.best()["epoch"] >= self.config.patience
        return len(self.history) >= self.config.epochs or bool(waited)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the data. Its randomness depends on seed and epoch alone, so a repeated epoch is the same."""
        epoch, start, captions = len(self.history) + 1, time.perf_counter(), 0
        torch.manual_seed(self.config.seed * 100_003 + epoch)
        self.model.decoder.train()
        losses = []
        title, steps = f"epoch {epoch}/{self.config.epochs}", len(self.batches)
        bar = tqdm(self.batches.shuffled(epoch), total=steps, desc=title, leave=False)
        for batch in bar:
            losses.append(self.train_step(batch))
            captions += len(batch.owner)
        seconds = time.perf_counter() - start
        return {"epoch": epoch, "train_loss": torch.stack(losses).mean().item(),
                "learning_rate": self.learning_rate(), "captions_per_second": captions / seconds,
                "seconds": seconds}

    def train_step(self, batch: Batch) -> Tensor:
        """One update; returns the loss, detached."""
        self.optimizer.zero_grad()
        loss = caption_loss(self.model.decoder, batch, self.config)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.decoder.parameters(), self.config.clip_norm)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate()
        self.optimizer.step()
        self.steps += 1
        return loss.detach()

    def save(self) -> None:
        """After an epoch: everything needed to go on, then the model folder if it is the best epoch yet."""
        state = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": tensor.clone() for name, tensor in self.model.decoder.state_dict().items()}
        tensors |= {f"adam.{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}
        progress = {"history": json.dumps(self.history), "settings": json.dumps(self.settings())}
        save_tensors(self.folder / LAST, tensors, progress)
        self.publish()

    def publish(self) -> None:
        """Write the model folder if the last epoch is the best yet, and the history as ``log.csv``."""
        if self.best() is self.history[-1]:
            training = {**self.model.training, **asdict(self.config), "best": self.best()}
            save_model(self.folder, replace(self.model, training=training))
        with replacing(self.folder / "log.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            rows = [[round(row[name], 6) for name in LOG_FIELDS] for row in self.history]
            csv.writer(file, lineterminator="\n").writerows([LOG_FIELDS, *rows])

    def resume(self) -> None:
        """Go on from the folder's last epoch, if any.

        Raises ``InputError`` if it is damaged or another run's, or if there is a model but nothing to go on from.
        """
        path = self.folder / LAST
        if not path.exists():
            if (self.folder / WEIGHTS).exists():
                raise InputError(f"{self.folder}: holds a finished model; choose a new folder, or delete this one")
            return
        try:
            with safe_open(path, "pt") as file:
                progress = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            settings, self.history = json.loads(progress["settings"]), json.loads(progress["history"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: damaged ({error}); delete its folder to start again") from None
        changed = [name for name, value in self.settings().items() if settings.get(name) != value]
        if changed:
            raise InputError(f"{path}: another run, which differs in {', '.join(changed)}; choose a new folder")
        self.model.decoder.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model.")})
        self._restore_optimizer(tensors)
        self.publish()

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, index, entry = name.split(".")
                state.setdefault(int(index), {})[entry] = tensor
        stored = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**stored, "state": state})
        self.steps = len(self.history) * len(self.batches)


def fit(
    model: Model, train: CaptionBatches, val: CaptionBatches, config: TrainConfig, folder: str | Path
) -> pd.DataFrame:
    """Train ``model.decoder`` until it is finished and return the history, one row an epoch.

    ``folder`` becomes a model folder with the best weights by validation perplexity. If a run with the same settings
    was interrupted there, it goes on after its last whole epoch, as if nothing had happened: on a CPU the final
    weights are the same to the last bit. Raises ``InputError`` if the folder holds another run.
    """
    trainer = Trainer(model, config, Path(folder), train)
    trainer.resume()
    with torch.random.fork_rng():
        while not trainer.finished():
            row = trainer.train_epoch()
            trainer.history.append({**row, "val_perplexity": perplexity(model.decoder, val.in_order())})
            trainer.save()
            row = trainer.history[-1]
            tqdm.write(f"epoch {row['epoch']}: loss {row['train_loss']:.3f}, validation perplexity "
                       f"{row['val_perplexity']:.2f}, {row['captions_per_second']:.0f} captions/s")
    return pd.DataFrame(trainer.history)
