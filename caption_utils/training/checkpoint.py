"""Model folders: weights as safetensors, everything else as JSON, nothing that can run code.

A model folder holds ``model.safetensors`` (float16), ``config.json`` (decoder, encoder, how and on which photos it was
trained) and ``vocab.json``, and if stages of the encoder were fine-tuned ``encoder.safetensors`` (float16). Training
adds ``last.safetensors``, from which it resumes, and ``log.csv``.

An ensemble is a folder whose ``config.json`` is ``{"models": [...]}``, the names of model folders beside it.
"""

import base64
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from caption_utils.config import DecoderConfig
from caption_utils.data.splits import digests_of, name_digest
from caption_utils.data.vocab import Vocabulary
from caption_utils.errors import InputError
from caption_utils.files import replacing
from caption_utils.model.decoder import Decoder, build_decoder
from caption_utils.model.ensemble import Ensemble

if TYPE_CHECKING:
    from caption_utils.encoders.encoder import Encoder

RENAMED = {
    "attention.score.feature_projection": "attention.W_f",
    "attention.score.query_projection": "attention.W_h",
    "attention.score.v": "attention.v",
    "combine.": "W_c.",
    "project.1.": "project.",
}
WEIGHTS, CONFIG, VOCAB, LAST = "model.safetensors", "config.json", "vocab.json", "last.safetensors"
ENCODER_WEIGHTS = "encoder.safetensors"


@dataclass(frozen=True)
class Model:
    """A decoder, or an ``Ensemble``, with all that is needed to use it.

    ``training`` tells how it came about; ``trained_on`` holds digests of its training photos' names, none in older
    folders. ``encoder_weights`` are those that fine-tuning changed, by their names in the encoder.
    """

    decoder: Decoder
    vocab: Vocabulary
    encoder: str
    fingerprint: str
    training: dict[str, Any] = field(default_factory=dict)
    trained_on: frozenset[bytes] = frozenset()
    encoder_weights: dict[str, Tensor] = field(default_factory=dict)

    def own_encoder(self, published: "Encoder") -> "Encoder":
        """The ``published`` encoder with what fine-tuning changed. Raises ``InputError`` if that does not fit."""
        return published.with_weights(self.encoder_weights) if self.encoder_weights else published

    def saw(self, photo: str) -> bool:
        """Whether it was trained on a photo of this name, with or without the folders that it begins with."""
        parts = photo.split("/")
        return any(name_digest("/".join(parts[start:])) in self.trained_on for start in range(len(parts)))


def check_encoder(model: Model, name: str, fingerprint: str) -> None:
    """Raises ``InputError`` if the model was trained on another encoder's features."""
    if fingerprint != model.fingerprint:
        raise InputError(
            f"encoder {name}: its weights differ from those the model was trained with "
            f"({fingerprint}, not {model.fingerprint}); install the locked packages, or train again"
        )


def check_words(model: Model) -> None:
    """Raises ``InputError`` if decoder and vocabulary differ in size."""
    words, size = len(model.vocab), model.decoder.config.vocab_size
    if words != size:
        raise InputError(f"a decoder for {size} words, but a vocabulary of {words}; build it with len(vocab)")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all. Raises ``InputError`` when the disk will not take it."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(ready, temporary, metadata)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from None


def save_model(folder: str | Path, model: Model) -> None:
    """Write the model folder; the weights come last, so that a new folder which has them is whole.

    Raises ``InputError`` for an ensemble, and if decoder and vocabulary differ in size.
    """
    folder = Path(folder)
    check_words(model)
    if isinstance(model.decoder, Ensemble):
        raise InputError(f"{folder}: an ensemble has no weights of its own; write a config.json that names its models")
    model.vocab.save(folder / VOCAB)
    config: dict[str, Any] = {
        "decoder": asdict(model.decoder.config),
        "encoder": {"name": model.encoder, "fingerprint": model.fingerprint},
        "vocabulary": model.vocab.fingerprint(),
        "training": model.training,
        "trained_on": base64.b64encode(b"".join(sorted(model.trained_on))).decode(),
    }
    if model.encoder_weights:
        config["encoder"] |= {"weights": ENCODER_WEIGHTS}
    write_json(folder / CONFIG, config)
    if model.encoder_weights:
        save_tensors(folder / ENCODER_WEIGHTS, {name: tensor.half() for name, tensor in model.encoder_weights.items()})
    tied = {"output.weight"} if model.decoder.config.tie_weights else set()
    weights = {name: tensor.half() for name, tensor in model.decoder.state_dict().items() if name not in tied}
    save_tensors(folder / WEIGHTS, weights, {"encoder": model.fingerprint})


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> Model:
    """Read a model folder, the decoder ready for evaluation in float32.

    Raises ``InputError`` for a missing or damaged file, for weights, configuration and vocabulary that differ in size,
    for other words than the model's, and for an ensemble of models that do not fit together.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    members = member_folders(folder, config)
    if not members:
        return _load_one(folder, config, device)
    models = [_load_one(member, read_json(member / CONFIG), device) for member in members]
    for member, model in zip(members, models, strict=True):
        if (model.vocab.fingerprint(), model.fingerprint) != (models[0].vocab.fingerprint(), models[0].fingerprint):
            raise InputError(
                f"{folder / CONFIG}: {member.name} has other words or another encoder than the first model"
            )
    decoder = cast(Decoder, Ensemble([model.decoder for model in models]).eval())
    seen = frozenset().union(*(model.trained_on for model in models))
    training = {"split": models[0].training.get("split", "official"), "models": [member.name for member in members]}
    return replace(models[0], decoder=decoder, training=training, trained_on=seen)


def member_folders(folder: Path, config: dict[str, Any]) -> list[Path]:
    """The folders of an ensemble's models, none if it is a single model. Raises ``InputError`` for any other list."""
    if "models" not in config:
        return []
    names = config["models"]
    if not (names and isinstance(names, list)) or any(
        not isinstance(name, str) or Path(name).name != name or name in ("", "..") for name in names
    ):
        raise InputError(f"{folder / CONFIG}: models should be a list of names of model folders beside {folder}")
    return [folder.absolute().parent / name for name in names]


def folder_digest(folder: Path) -> str:
    """Hash of the weights in a model folder, or of those of an ensemble's models."""
    digest = hashlib.blake2b(digest_size=8)
    for member in member_folders(folder, read_json(folder / CONFIG)) or [folder]:
        digest.update((member / WEIGHTS).read_bytes())
    return digest.hexdigest()


def _load_one(folder: Path, config: dict[str, Any], device: torch.device | str) -> Model:
    if "models" in config:
        raise InputError(f"{folder}: an ensemble, which cannot be part of another; name its models there instead")
    vocab = Vocabulary.load(_inside(folder, VOCAB))
    try:
        decoder = build_decoder(DecoderConfig(**config["decoder"]))
        encoder = str(config["encoder"]["name"]), str(config["encoder"]["fingerprint"])
        training, seen = dict(config.get("training", {})), digests_of(config.get("trained_on", ""))
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder / CONFIG}: setting missing or unknown ({error}); restore the file") from None
    if len(vocab) != decoder.config.vocab_size:
        raise InputError(
            f"{folder / VOCAB}: {len(vocab)} words, but the model was trained with {decoder.config.vocab_size}; "
            "restore the vocabulary that belongs to it"
        )
    if config.get("vocabulary", words := vocab.fingerprint()) != words:
        raise InputError(f"{folder / VOCAB}: other words than the model's; restore the vocabulary that belongs to it")
    load_weights(decoder, folder)
    changed = {}
    if "weights" in config["encoder"]:
        changed = read_weights(folder, ENCODER_WEIGHTS)
        _check_pair(folder, encoder[1])
    return Model(decoder.to(device).eval(), vocab, *encoder, training, frozenset(seen), changed)


def load_weights(decoder: Decoder, folder: Path) -> None:
    """Fill ``decoder`` from ``model.safetensors``. Raises ``InputError`` if file and decoder do not fit."""
    weights = read_weights(folder, WEIGHTS)
    try:
        weights = upgraded(weights)
        if decoder.config.tie_weights:
            weights["output.weight"] = weights["embedding.weight"]
        decoder.load_state_dict(weights)
    except KeyError as error:
        raise InputError(f"{folder / WEIGHTS}: damaged ({error}); restore the file or train again") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{folder / WEIGHTS}: does not fit {folder / CONFIG} ({reason}); restore the pair") from None


def _check_pair(folder: Path, fingerprint: str) -> None:
    """Raises ``InputError`` if the decoder was saved with another encoder, as when a run is killed between the two."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        saved_with = (file.metadata() or {}).get("encoder", fingerprint)  # none in older folders
    if saved_with != fingerprint:
        raise InputError(
            f"{folder}: {WEIGHTS} and {ENCODER_WEIGHTS} are of two epochs; run the training again, which goes on"
        )


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Float32 tensors of a safetensors file. Raises ``InputError`` if it is missing or damaged."""
    path = _inside(folder, name)
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except OSError:
        raise InputError(f"{path}: no weights here; train a model into this folder first") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); restore the file or train again") from None


def upgraded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as the first version named them (0.1, before ``nn.LSTMCell``), under their present names."""
    if not {"fed_gates.weight", "combine.weight"} & weights.keys():
        return weights
    renamed = {}
    for name, tensor in weights.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    if "fed_gates.weight" in renamed:  # LSTM cells: the embedding's columns, then those of what is fed beside it
        renamed = {name.removesuffix("_l0"): tensor for name, tensor in renamed.items()}
        renamed["lstm.weight_ih"] = torch.cat([renamed["lstm.weight_ih"], renamed.pop("fed_gates.weight")], dim=1)
    return renamed


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ``InputError`` if it is missing or damaged, or may not be read."""
    path = _inside(path.parent, path.name)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise InputError(f"{path}: not found; point to a model folder that training wrote") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); restore the file or train again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON object is expected; restore the file or train again")
    return content


def _inside(folder: Path, name: str) -> Path:
    """``folder/name``, refused if a link leads it out of the folder, and if it is a file that may not be read."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path}: leads outside its model folder; copy the file into it")
    if os.path.isfile(path) and not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions")
    return path
