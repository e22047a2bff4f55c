"""Train a model, or resume an interrupted run."""

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction
from dataclasses import fields
from inspect import signature
from typing import Any

from caption_utils.config import ENCODER, FROM_DATA, DecoderConfig, FineTuneConfig, SelfCriticalConfig, TrainConfig
from caption_utils.errors import InputError


def add_options(parser: ArgumentParser) -> None:
    """Options for data, folder and vocabulary, and one for each field of the configurations."""
    parser.argument_default = SUPPRESS  # ``train_model`` and the configurations hold the defaults
    parser.add_argument("--data", required=True, help="data set: folder or caption file")
    parser.add_argument("--out", required=True, help="model folder to write")
    parser.add_argument("--self-critical", metavar="MODEL", help="refine this model by the scores of its captions")
    parser.add_argument("--start", metavar="MODEL", help="refine this model and the encoder: needs --fine-tune")
    parser.add_argument(
        "--fine-tune",
        metavar="STAGES",
        type=int,
        help="also train this many of the encoder's last stages; needs --start",
    )
    parser.add_argument(
        "--encoder",
        dest="encoder_name",
        metavar="NAME",
        help="efficientnet_lite2 or resnet101; with _local added, regions see only their own surroundings; "
        f"efficientnet_lite2 also takes _260px at the end ({ENCODER})",
    )
    parser.add_argument("--split", help="official, first6k, source or random (official)")
    parser.add_argument("--min-count", type=int, help="leave out words, or word pieces, used less often than this (3)")
    parser.add_argument(
        "--teacher", action="append", dest="teachers", metavar="MODEL", help="learn from this model too; repeatable"
    )
    parser.add_argument(
        "--tokenizer", metavar="NAME", help="words, wordpiece (BERT's word pieces) or a tokenizer.json (words)"
    )
    parser.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="start from the word vectors of a GloVe or word2vec text file, or of glove-50d or glove.6B.300d",
    )
    _add_settings(parser)


def _add_settings(parser: ArgumentParser) -> None:
    """An option for each field of the configurations; its help tells the default of each kind of training."""
    plain = {field.name: field for config in (DecoderConfig, TrainConfig) for field in fields(config)}
    scored, tuned = ({field.name: field for field in fields(kind)} for kind in (SelfCriticalConfig, FineTuneConfig))
    for name, field in (tuned | scored | plain).items():
        if name in {*FROM_DATA, "fine_tune"}:
            continue
        kind = {"action": BooleanOptionalAction} if field.type is bool else {"type": field.type}
        defaults = [str(field.default)] if name in plain else []
        for run, own in {"--self-critical": scored, "--fine-tune": tuned}.items():
            if name in own and [str(own[name].default)] != defaults[:1]:
                defaults.append(f"{own[name].default} with {run}")
        values = ", ".join(field.metadata.get("choices", ()))
        shown = f"{values} ({'; '.join(defaults)})".strip()
        parser.add_argument(f"--{name.replace('_', '-')}", help=shown, **kind)


def run(data: str, out: str, self_critical: str | None = None, start: str | None = None, **given: Any) -> int:
    """Train a model into the folder ``out``, or resume the run that was interrupted there.

    ``given`` are the other options of the command line; ``self_critical`` is the folder of a model to refine, ``start``
    that of one to refine together with its encoder.
    """
    from caption_utils.training.processes import join_processes
    from caption_utils.training.progress import best, measure_of
    from caption_utils.training.refinement import fine_tune_model, refine_model
    from caption_utils.training.run import train_model

    if (start is not None) != ("fine_tune" in given):
        raise InputError("fine-tuning needs a model and a number of stages; give both --start and --fine-tune")
    if start is not None and self_critical is not None:
        raise InputError("--self-critical and --fine-tune are two runs; start the second from the first one's folder")
    if self_critical is not None:
        history = refine_model(data, self_critical, out, given)
    elif start is not None:
        history = fine_tune_model(data, start, out, given)
    else:
        if "score" in given and given.get("attention") != "luong":
            raise InputError("--score is for --attention luong; give both, or leave it out")
        named = {name: given.pop(name) for name in signature(train_model).parameters if name in given}
        history = train_model(data, out, **named, settings=given)
    row = best(history.to_dict("records"))
    if join_processes().is_main_process:
        print(f"{out}: best {measure_of(row)} after epoch {row['epoch']:.4g}")
    return 0
