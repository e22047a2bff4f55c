"""Training until the validation finds nothing better: epochs, checkpoints, resume, progress."""

import hashlib
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from caption_utils.config import SCHEDULES, DecoderConfig, RunConfig, TrainConfig
from caption_utils.errors import InputError
from caption_utils.fast import bahdanau, graphs
from caption_utils.metrics.perplexity import perplexity
from caption_utils.model.decoder import BahdanauDecoder, Batch, Decoder
from caption_utils.runtime import cuda_graphs, progress_bar
from caption_utils.training.batches import CaptionBatches, Share
from caption_utils.training.checkpoint import LAST, Model, check_words, save_model
from caption_utils.training.loss import TeacherForcing, caption_loss, hard_loss
from caption_utils.training.processes import all_reduce, broadcast, join_processes
from caption_utils.training.progress import (
    History,
    Progress,
    best,
    load_progress,
    measure_of,
    moments_of,
    restore_moments,
    restore_weights,
    save_progress,
    weights_of,
    write_log,
)


def precision(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The numbers to compute with; ``auto``: bfloat16 where a GPU has it, float16 on an older one, float32 on a CPU."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def teacher_forcing(decoder: Decoder, device: torch.device) -> TeacherForcing:
    """``decoder`` itself, or what computes the same sooner on this device."""
    if isinstance(decoder, BahdanauDecoder) and bahdanau.suits(decoder.config) and device.type == "cpu":
        return partial(bahdanau.teacher_forcing, decoder)
    if device.type == "cuda" and cuda_graphs() and graphs.suits(decoder.config):
        return graphs.Graphed(decoder)
    return decoder


class Trainer:
    """One run: a model, its optimiser and how far it has come. The folder holds what survives a crash.

    This one learns by teacher forcing; a subclass may say in ``objective`` what else a step lowers, and in ``validate``
    by what the best weights are chosen.

    Weights are float32 throughout; products are computed in ``precision``, and float16 has its losses scaled up so
    that small gradients do not vanish (Micikevicius et al. 2018).
    """

    def __init__(
        self,
        model: Model,
        config: RunConfig,
        folder: Path,
        batches: CaptionBatches,
        val: CaptionBatches,
        teachers: Sequence[Decoder] = (),
    ):
        self.model, self.config, self.folder, self.batches = model, config, folder, batches
        self.val, self.teachers = val, teachers
        self.rounds = min(config.validations, len(batches))  # an epoch has so many, each with a validation at its end
        self.forward = teacher_forcing(model.decoder, batches.device)
        self.processes = join_processes()
        rates = self.rates()
        groups: list[dict[str, Any]] = [
            {"params": [each for each in module.parameters() if each.requires_grad], "peak": rates[name]}
            for name, module in self.modules().items()
        ]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self.precision = precision(batches.device, config.precision)
        self.scaler = torch.amp.GradScaler(batches.device.type, enabled=self.precision is torch.float16)
        self.steps = 0
        self.history: History = []
        self.start = weights_of(self.modules())

    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the name under which it is saved."""
        return {"model": self.model.decoder}

    def rates(self) -> dict[str, float]:
        """The peak of the learning rate of each of ``modules``."""
        return {"model": self.config.learning_rate}

    @cached_property
    def settings(self) -> dict[str, object]:
        """What must not change between a run and its continuation."""
        pretrained = self.model.decoder.config.word_dim
        data = {
            "encoder": self.model.fingerprint,
            "vocabulary": self.model.vocab.fingerprint(),
            "captions": self.batches.fingerprint(),
            "validation": self.val.fingerprint(),
            "teachers": [weights_digest(teacher.state_dict().values()) for teacher in self.teachers],
            "word_vectors": weights_digest([self.start["model.embedding.weight"]]) if pretrained else None,
        }
        return {**asdict(self.model.decoder.config), **asdict(self.config), **data}

    def done(self) -> int:
        """Rounds of training so far."""
        return sum(row["epoch"] > 0 for row in self.history)

    def pace(self) -> float:
        """The rate for the next step, as a share of its peak."""
        progress = self.steps / (self.config.epochs * len(self.batches))
        return SCHEDULES[self.config.schedule](progress, self.config.warmup)

    def finished(self) -> bool:
        """All epochs done, or no new best for ``patience`` epochs."""
        waited = len(self.history) - 1 - self.history.index(best(self.history)) if self.history else 0
        return self.done() >= self.config.epochs * self.rounds or waited >= self.config.patience * self.rounds

    def run_round(self) -> None:
        """Train for an epoch, or the part of one that has its own validation, validate and save."""
        self.note(self.train_round())
        row = self.history[-1]
        speed = f"{row['captions_per_second']:.0f} captions/s"
        self.say(f"epoch {row['epoch']:.4g}: loss {row['train_loss']:.3f}, {measure_of(row)}, {speed}")

    def note(self, row: dict[str, float]) -> None:
        """Validate, add what is found to the log and save. Raises ``InputError`` if the model has diverged."""
        name, value = self.validate()
        shared = broadcast(torch.tensor(value, dtype=torch.float64, device=self.processes.device)).item()
        usable = all(weights.half().isfinite().all() for weights in self.parameters)  # as model folders hold them
        if not usable or not math.isfinite(shared):  # a loss may overflow in a step that the scaler leaves out
            if row["epoch"] == 0:
                raise InputError("the model to start from gives no finite value; take another")
            raise InputError(
                f"{self.folder}: diverged in epoch {row['epoch']:.4g}; train into a new folder at a lower learning_rate"
                + "; the best model before that is kept" * bool(self.history)
            )
        self.history.append({**row, name: shared})
        if self.processes.is_main_process:
            self.save()

    def validate(self) -> tuple[str, float]:
        """One of ``MEASURES`` and its value."""
        return "val_perplexity", perplexity(self.model.decoder, self.val.in_order())

    def train_round(self) -> dict[str, float]:
        """One pass over the data, or a part of one. Its randomness depends on seed and its number alone, so a repeated
        round is the same.
        """
        number, start, captions = self.done() + 1, time.perf_counter(), 0
        who, total = self.processes, len(self.batches)
        self.model.decoder.train()
        # dropout masks of its own; a CPU takes only the low 32 bits of a seed
        torch.manual_seed(self.config.seed * 100_003 + number + who.process_index * 2**24)
        epoch, first = 1 + self.done() // self.rounds, self.done() // self.rounds * total
        steps = slice(self.steps - first, number * total // self.rounds - first)
        shares = self.batches.shuffled(epoch, who.process_index, who.num_processes, self.config.accumulate, steps)
        losses, title = [], f"epoch {epoch}/{self.config.epochs}"
        size = steps.stop - steps.start
        for share in progress_bar(shares, total=size, desc=title, leave=False, disable=not who.is_main_process):
            losses.append(self.train_step(share))
            captions += share.captions
        loss = all_reduce([torch.stack(losses)])[0].mean().item()
        seconds = time.perf_counter() - start
        return {
            "epoch": number / self.rounds if number % self.rounds else epoch,
            "train_loss": loss,
            "learning_rate": self.config.learning_rate * self.pace(),
            "captions_per_second": captions / seconds,
            "seconds": seconds,
        }

    def train_step(self, share: Share) -> Tensor:
        """One update by all processes; returns what this one's share adds to the loss, detached."""
        self.optimizer.zero_grad()
        loss, self.log_words = torch.zeros(2, device=self.batches.device)
        for part in share.parts:
            loss += self.backward(part, share)
        if not share.parts:
            self.scaler.scale(loss)  # its scale begins to exist where it is first used
        if self.model.decoder.config.hard:
            self.move_baseline(share)
        self.add_up_gradients()
        self.scaler.unscale_(self.optimizer)
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)  # Pascanu et al. 2013
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.pace()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        return loss

    def backward(self, part: Batch, share: Share) -> Tensor:
        """Add the gradients of a part; returns what it adds to the loss of the whole batch, detached."""
        lower = self.precision is not torch.float32
        part = replace(part, features=part.features.to(self.precision))  # once, not at each step that attends to them
        with torch.autocast(part.features.device.type, self.precision, enabled=lower):
            loss = self.objective(part, share)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def objective(self, part: Batch, share: Share) -> Tensor:
        """What a part adds to the loss of the whole batch."""
        decoder, config = self.model.decoder, cast(TrainConfig, self.config)
        rest = part, config, share.tokens, share.captions, self.teachers
        if not decoder.config.hard:
            return caption_loss(decoder, *rest, self.forward)
        loss, log_words = hard_loss(decoder, decoder.baseline, *rest)
        self.log_words += log_words.sum()
        return loss

    def move_baseline(self, share: Share) -> None:
        """``b ← 0.9 b + 0.1 log p(y | s, a)``, the mean over a batch's captions: Xu et al. 2015, section 4.1."""
        mean = all_reduce([self.log_words])[0] / share.captions
        self.model.decoder.baseline.lerp_(mean, 0.1)

    def add_up_gradients(self) -> None:
        """Give each parameter the sum of its gradients in all processes; in some it may have none."""
        if self.processes.num_processes > 1:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            for parameter, gradient in zip(self.parameters, all_reduce(gradients), strict=True):
                parameter.grad = gradient

    def say(self, text: str) -> None:
        """Print a line above the progress bar, once for all processes."""
        if self.processes.is_main_process:
            tqdm.write(text)
            sys.stdout.flush()  # into a file or a pipe, too

    def save(self) -> None:
        """After a validation: everything needed to go on, then the model folder if it is the best yet.

        Raises ``InputError`` if another run has saved first in a folder that was new.
        """
        if len(self.history) == 1 and (self.folder / LAST).exists():
            raise InputError(f"{self.folder}: another run has begun here meanwhile; choose a new folder")
        tensors = weights_of(self.modules()) | moments_of(self.optimizer)
        save_progress(self.folder, Progress(tensors, self.history, self.settings, self.scaler.state_dict()))
        self.publish()

    def publish(self) -> None:
        """Write the model folder if the last validation is the best yet, and the log."""
        if best(self.history) is self.history[-1]:
            used = {"precision": str(self.precision).removeprefix("torch.")}
            training = {**self.model.training, **asdict(self.config), **used, "best": self.history[-1]}
            save_model(self.folder, replace(self.result(), training=training))
        write_log(self.folder, self.history)

    def result(self) -> Model:
        """The model as it is now."""
        return self.model

    def resume(self) -> None:
        """Go on from the folder's last validation, if any. Raises ``InputError`` if it is damaged or another run's."""
        progress = load_progress(self.folder)
        if progress is None:
            self.history = []
            restore_weights(self.start, self.modules())
            return
        self._check_settings(progress.settings)
        try:
            restore_weights(progress.tensors, self.modules())
            restore_moments(progress.tensors, self.optimizer)
        except RuntimeError:
            raise InputError(f"{self.folder / LAST}: written by an older version; train into a new folder") from None
        self.history = progress.history
        self.steps = self.done() * len(self.batches) // self.rounds
        if progress.scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(progress.scaler)
        if self.processes.is_main_process:
            self.publish()

    def _check_settings(self, before: dict[str, object]) -> None:
        """A rate that never changes allows for more epochs; how a batch is divided changes no result."""
        free = {"accumulate", "epochs"} if self.config.schedule == "constant" else {"accumulate"}
        before = asdict(DecoderConfig(1, 1)) | asdict(type(self.config)()) | before  # older versions had fewer
        changed = [name for name, value in self.settings.items() if name not in free and before.get(name) != value]
        if changed:
            path = self.folder / LAST
            raise InputError(f"{path}: another run, which differs in {', '.join(changed)}; choose a new folder")

    def run(self) -> pd.DataFrame:
        """Train, or go on, until it is finished, see ``fit``; returns the history."""
        self.resume()
        check_words(self.model)
        if len({each.vocab.fingerprint() for each in (self.model, self.batches, self.val)}) > 1:
            raise InputError("model and batches have different vocabularies; make them with the same one")
        device = self.batches.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            try:
                while not self.finished():
                    self.run_round()
            except KeyboardInterrupt:
                kept = load_progress(self.folder)
                epochs = kept.history[-1]["epoch"] if kept else 0
                self.say(f"interrupted: {self.folder} keeps {epochs:.4g} epochs; the same call goes on from there")
                self.resume()  # after the line: the GPU may wait for ever for another process that was interrupted
                raise
            except torch.OutOfMemoryError:
                raise InputError(f"{self.config.images_per_batch} images a batch {self._remedy()}") from None
            finally:
                self.model.decoder.eval()  # or a search would drop units
        return pd.DataFrame(self.history)

    def _remedy(self) -> str:
        """What helps where the memory is too small."""
        if self.config.accumulate * self.processes.num_processes >= self.config.images_per_batch:
            return (
                "are computed one by one, and one needs more memory than is free; take a smaller model or another "
                "device"
            )
        return (
            f"need more memory than is free; set accumulate to {2 * self.config.accumulate}, which gives the same "
            "gradient in smaller parts"
        )


class Refinement(Trainer):
    """A run that goes on from a trained model. It is measured as it came, so that nothing worse is kept."""

    @cached_property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "start": weights_digest(self.start.values())}

    def run_round(self) -> None:
        if not self.history:
            self.note({"epoch": 0})
            self.say(f"epoch 0: {measure_of(self.history[-1])}")
        super().run_round()


def weights_digest(weights: Iterable[Tensor]) -> str:
    """Hash of weights in their order."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in weights:
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def fit(
    model: Model,
    train: CaptionBatches,
    val: CaptionBatches,
    config: TrainConfig,
    folder: str | Path,
    teachers: Sequence[Decoder] = (),
) -> pd.DataFrame:
    """Train ``model.decoder`` until it is finished and return the history, one row a validation.

    It learns from ``teachers`` too, if any: decoders for the same features and vocabulary, in evaluation mode.

    ``folder`` becomes a model folder with the best weights by validation perplexity. If a run with the same settings
    was interrupted there, it goes on after its last validation, as if nothing had happened: on a CPU, with as many
    threads as before, the final weights are the same to the last bit. Raises ``InputError`` if the folder holds
    another run, if model and batches differ in vocabulary, if the model diverges, or if a GPU's memory is too small.

    Several processes call it alike, each with the same weights to start from. ``KeyboardInterrupt`` leaves weights and
    folder as they were after the last validation, and is raised again. The decoder is left in evaluation mode.
    """
    return Trainer(model, config, Path(folder), train, val, teachers).run()
