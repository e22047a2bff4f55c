"""``python -m caption_utils train | evaluate | caption``: what the notebooks do, for scripts and clusters."""

import argparse
import json
import sys
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from caption_utils.decoder import DecoderConfig
from caption_utils.errors import InputError
from caption_utils.recipe import TrainConfig
from caption_utils.search import BEAMS

FROM_DATA = {"vocab_size", "feature_dim"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 if a photo failed, 2 if the input was wrong."""
    options = vars(_parser().parse_args(arguments))
    try:
        return options.pop("run")(**options)
    except InputError as error:
        print(f"caption_utils: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("caption_utils: interrupted; train goes on after its last whole epoch if started again", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"caption_utils: {error}; check the path, its permissions and the disk space", file=sys.stderr)
        return 2


def train(data: str, out: str, encoder: str, split: str, min_count: int, **settings: object) -> int:
    """Train a model into the folder ``out``, or go on with the run that was interrupted there."""
    from caption_utils.experiment import train_model
    from caption_utils.parallel import join_processes

    history = train_model(data, out, encoder, split, min_count, settings)
    best = history.loc[history["val_perplexity"].idxmin()]
    if join_processes().is_first:
        print(f"{out}: best validation perplexity {best['val_perplexity']:.2f} after epoch {int(best['epoch'])}")
    return 0


def evaluate(
    model: str, data: str, split: str, beams: int, against: str | None, as_json: bool, captions: str | None,
    record: str | None,
) -> int:
    """Print how a model does on one split, and how far it is from the model ``against``.

    ``captions`` names the file for what it said, ``record`` the csv that takes the row as well.
    """
    from caption_utils.evaluation import append_row, compare, evaluate_model, write_captions

    found = evaluate_model(model, data, split, beams)
    row = found.row()
    apart = compare(found, evaluate_model(against, data, split, beams)) if against else {}
    if as_json:
        differences = {name: {k: round(v, 4) for k, v in asdict(d).items()} for name, d in apart.items()}
        print(json.dumps(row | ({"against": {"model": against, **differences}} if against else {})), flush=True)
    else:
        print("\n".join([*_score_lines(row, found.missing), *_difference_lines(against, apart)]), flush=True)
    if captions:
        write_captions(captions, found)
    if record:
        append_row(record, row)
    return 0


def caption(model: str, photos: list[str], beams: int, as_json: bool) -> int:
    """Print a line for each photo: its caption, or why it has none."""
    from caption_utils.captioner import Captioner
    from caption_utils.runtime import device

    captioner = Captioner.load(model, device())
    failed = 0
    for photo in photos:
        try:
            found = captioner.caption(Path(photo), beams)
            line = {"image": photo, "caption": found.text, "log_probability": round(found.log_probability, 4),
                    "tokens": found.tokens, "attention": found.attention.round(4).tolist()}
        except InputError as error:
            failed, line = failed + 1, {"image": photo, "error": str(error)}
        _print_caption(line, as_json)
    return 1 if failed else 0


def _score_lines(row: dict, missing: dict[str, str]) -> list[str]:
    """A line for each value of a row, with the bounds of its 95 % interval or the reason why it is missing."""
    lines = []
    for name, value in row.items():
        if not name.endswith(("_low", "_high")):
            shown = f"missing: {missing[name]}" if name in missing else value
            within = "" if row.get(f"{name}_low") is None else f"  {row[f'{name}_low']} to {row[f'{name}_high']}"
            lines.append(f"{name:<16} {shown}{within}")
    return lines


def _difference_lines(against: str | None, apart: dict) -> list[str]:
    """The differences from the model ``against``, which may be none."""
    lines = [f"difference from {against}, 95 % interval, share of resamples without its sign"] if apart else []
    for name, d in apart.items():
        lines.append(f"{name:<16} {d.value:+.4f}  {d.low:+.4f} to {d.high:+.4f}  p {d.p:.3f}")
    return lines


def _print_caption(line: dict, as_json: bool) -> None:
    if as_json:
        print(json.dumps(line, ensure_ascii=False), flush=True)
    elif "error" in line:
        print(f"caption_utils: {line['error']}", file=sys.stderr, flush=True)
    else:
        print(f"{line['image']}: {line['caption']}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m caption_utils", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_train(commands.add_parser("train", help="train a model, or go on with an interrupted run"))

    command = commands.add_parser("evaluate", help="measure a model on one split")
    command.add_argument("--model", required=True, help="model folder")
    command.add_argument("--data", required=True, help="data set: folder or caption file")
    command.add_argument("--split", default="val", help="train, val or test")
    _add_beam(command)
    command.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    command.add_argument("--record", help="append the row to this csv")
    command.add_argument("--captions", help="write the captions to this file, in COCO's result format")
    command.add_argument("--against", metavar="MODEL", help="another model folder, to compare with on the same images")
    command.set_defaults(run=evaluate)

    command = commands.add_parser("caption", help="caption photographs")
    command.add_argument("--model", required=True, help="model folder")
    command.add_argument("photos", nargs="+", metavar="PHOTO")
    _add_beam(command)
    command.add_argument("--json", action="store_true", dest="as_json", help="one JSON object for each photo and line")
    command.set_defaults(run=caption)
    return parser


def _add_beam(command: argparse.ArgumentParser) -> None:
    command.add_argument("--beam", type=int, default=BEAMS, dest="beams", help="beams, 1 for greedy (%(default)s)")


def _add_train(command: argparse.ArgumentParser) -> None:
    """Options for data and folder, and one for each field of ``DecoderConfig`` and ``TrainConfig``."""
    command.add_argument("--data", required=True, help="data set: folder or caption file")
    command.add_argument("--out", required=True, help="model folder to write")
    command.add_argument("--encoder", default="efficientnet_lite2", help="efficientnet_lite2 or resnet101")
    command.add_argument("--split", default="official", help="official, first6k or random")
    command.add_argument("--min-count", type=int, default=3, help="a word needs this many uses (default 3)")
    for field in (*fields(DecoderConfig), *fields(TrainConfig)):
        if field.name in FROM_DATA or field.default is MISSING:
            continue
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        command.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, help="(%(default)s)", **kind)
    command.set_defaults(run=train)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a photo's name may hold bytes that are no text
    sys.exit(main())
