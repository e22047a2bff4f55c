"""``python -m caption_utils train | evaluate | confidence | caption``: what notebooks do, for scripts and clusters."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caption_utils.config import (
    BEAMS,
    ENCODER,
    FROM_DATA,
    DecoderConfig,
    SearchConfig,
    SelfCriticalConfig,
    TrainConfig,
)
from caption_utils.data.folders import pictures_of
from caption_utils.errors import InputError
from caption_utils.runtime import DEVICES, sleep_while_waiting
from caption_utils.sidecars import CaptionFiles, json_fields

if TYPE_CHECKING:  # takes PyTorch
    from caption_utils.captioner import Caption, Captioner

    Found = list[Caption] | InputError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 if a photo failed, 2 if the input was wrong."""
    options = vars(_parser().parse_args(arguments))
    run, wanted = options.pop("run"), options.pop("device")
    if wanted:
        os.environ["CAPTION_DEVICE"] = wanted
    try:
        if "" in [*options.values(), *options.get("photos", [])]:
            raise InputError("one of the arguments is empty; check what it was taken from")
        return run(**options)
    except InputError as error:
        print(f"caption_utils: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; train goes on after its last whole epoch if started again" if run is train else ""
        print(f"caption_utils: interrupted{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 141
    except OSError as error:
        print(f"caption_utils: {error}; check the path, its permissions and the disk space", file=sys.stderr)
        return 2


def train(data: str, out: str, self_critical: str | None = None, **given: Any) -> int:
    """Train a model into the folder ``out``, or go on with the run that was interrupted there.

    ``given`` are the other options of the command line; ``self_critical`` is the folder of a model to refine.
    """
    from caption_utils.training.processes import join_processes
    from caption_utils.training.progress import best, found
    from caption_utils.training.run import refine_model, train_model

    if self_critical is not None:
        history = refine_model(data, self_critical, out, given)
    else:
        named = {name: given.pop(name) for name in signature(train_model).parameters if name in given}
        history = train_model(data, out, **named, settings=given)
    row = best(history.to_dict("records"))
    if join_processes().is_main_process:
        print(f"{out}: best {found(row)} after epoch {row['epoch']:.4g}")
    return 0


def evaluate(
    model: str,
    data: str,
    split: str,
    beams: int,
    against: str | None,
    as_json: bool,
    captions: str | None,
    record: str | None,
) -> int:
    """Print how a model does on one split, and how far it is from the model ``against``.

    ``captions`` names the file for what it said, ``record`` the csv that takes the row as well.
    """
    from caption_utils.evaluation.report import append_row, compare, evaluate_model, write_captions

    found = evaluate_model(model, data, split, beams)
    report = found.report()
    apart = compare(found, evaluate_model(against, data, split, beams)) if against else {}
    if as_json:
        differences = {name: {k: round(v, 4) for k, v in asdict(d).items()} for name, d in apart.items()}
        report |= {"against": {"model": against, **differences}} if against else {}
        valid = json.loads(json.dumps(report), parse_constant=lambda name: None)  # JSON knows no NaN and no infinity
        print(json.dumps(valid), flush=True)
    else:
        print("\n".join([*_score_lines(report, found.missing), *_difference_lines(against, apart)]), flush=True)
    if captions:
        write_captions(captions, found)
    if record:
        append_row(record, found.row())
    return 0


def confidence(model: str, data: str) -> int:
    """Fit how sure a model may be of its captions, which its folder keeps, and print what that is worth."""
    from caption_utils.evaluation.confidence import fit_confidence

    found = fit_confidence(model, data)
    print(f"fitted to {found.fitted} validation photos, measured on {found.table['captions'].sum()} others")
    print(f"rank correlation with CIDEr  {found.rank_correlation:.3f}")
    print(found.table.round(3).to_string(index=False), flush=True)
    return 0


def caption(
    photos: list[str],
    recursive: bool,
    model: str | None,
    beams: int,
    top: int,
    attention_map: str | None,
    as_json: bool,
    min_confidence: float | None,
    **outputs: Any,
) -> int:
    """Print a line for each photo: its caption, or why it has none; ``top`` adds that many of the best captions.

    Captions with less than ``min_confidence`` are left out everywhere.
    """
    from caption_utils.captioner import caption_photos

    if not 1 <= top <= SearchConfig(beams).beams:
        raise InputError(f"top={top}: choose 1 to {beams}, or more beams with --beam")
    paths, empty, notes = pictures_of(_named(photos), recursive)
    maps: dict[Path, Path] = {}
    if attention_map:
        from caption_utils.app.heatmaps import map_paths  # matplotlib takes a second

        maps = map_paths(attention_map, paths)
    files = CaptionFiles(paths, **outputs)
    captions = caption_photos(_captioner(model, min_confidence), files.left, beams)
    _tell(*notes, *files.notes)
    failed, left_out = 0, 0
    for path, found in _beside_a_bar([*empty, *files.left], chain(empty.values(), captions)):
        if _too_unsure(found, min_confidence):
            left_out += 1
            continue
        _save_map(path, found, maps.get(path))
        found = files.write(path, found)
        failed += isinstance(found, InputError)
        _print_caption(str(path), found, top, as_json)
    if left_out:
        _tell(f"captions with a confidence below {min_confidence:g}: {left_out} (left out)")
    return 1 if failed else 0


def _beside_a_bar(photos: list[Path], captions: "Iterable[Found]") -> "Iterator[tuple[Path, Found]]":
    """Each photo with what was found of it; the bar of their progress is not there while they are used."""
    from tqdm import tqdm

    with tqdm(total=len(photos), unit="photo", smoothing=0, disable=None if len(photos) > 1 else True) as bar:
        for pair in zip(photos, captions, strict=True):
            bar.clear()
            yield pair
            bar.update()
            bar.refresh()  # many come at once, and after them the bar stands until the next


def _captioner(model: str | None, min_confidence: float | None) -> "Captioner":
    """Of a model folder or the default one. Raises ``InputError`` if it cannot tell whether it is that confident."""
    from caption_utils.calibration import CONFIDENCE
    from caption_utils.captioner import Captioner
    from caption_utils.runtime import device
    from caption_utils.training.zoo import default_model

    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise InputError(f"min_confidence={min_confidence:g} is out of range; choose a value from 0 to 1")
    folder = model or default_model()
    captioner = Captioner.load(folder, device())
    if min_confidence is not None and captioner.calibration is None:
        raise InputError(
            f"{folder}: has no {CONFIDENCE}, which --min-confidence needs; write it with python -m caption_utils "
            "confidence"
        )
    return captioner


def _save_map(photo: Path, found: "Found", out: Path | None) -> None:
    if out and not isinstance(found, InputError):
        from caption_utils.app.heatmaps import save_map

        save_map(photo, found[0], out)


def _too_unsure(found: "Found", least: float | None) -> bool:
    return least is not None and not isinstance(found, InputError) and not (found[0].confidence or 0) >= least


def _tell(*notes: str) -> None:
    for note in notes:
        print(f"caption_utils: {note}", file=sys.stderr)


def _named(photos: Iterable[str]) -> Iterator[str]:
    """The arguments, and in the place of ``-`` the lines of standard input."""
    for photo in photos:
        listed = (line.rstrip("\r\n") for line in sys.stdin if line.strip() and line.strip() != "-")
        yield from listed if photo == "-" else [photo]


def _score_lines(row: dict, missing: dict[str, str]) -> list[str]:
    """A line for each value of a row, with the bounds of its 95 % interval or the reason why it is missing."""
    lines = []
    for name, value in row.items():
        if not name.endswith(("_low", "_high")):
            shown = f"missing: {missing[name]}" if name in missing else value
            within = "" if row.get(f"{name}_low") is None else f"  {row[f'{name}_low']} to {row[f'{name}_high']}"
            lines.append(f"{name:<20} {shown}{within}")
    return lines


def _difference_lines(against: str | None, apart: dict) -> list[str]:
    """The differences from the model ``against``, which may be none."""
    lines = [f"difference from {against}, 95 % interval, share of resamples without its sign"] if apart else []
    for name, d in apart.items():
        lines.append(f"{name:<20} {d.value:+.4f}  {d.low:+.4f} to {d.high:+.4f}  p {d.p:.3f}")
    return lines


def _print_caption(image: str, found: "Found", top: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": image, **json_fields(found, top)}, ensure_ascii=False), flush=True)
    elif isinstance(found, InputError):
        print(f"caption_utils: {found}", file=sys.stderr, flush=True)
    else:
        doubt = f" ({found[0].doubt})" if found[0].doubt else ""
        lines = [f"{image}: {found[0].text}{doubt}"]
        if top > 1:
            lines = [f"{image}:{doubt}", *(f"  {best.per_word:.2f} {best.text}" for best in found[:top])]
        print("\n".join(lines), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m caption_utils", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_train(
        commands.add_parser(
            "train",
            help="train a model, or go on with an interrupted run",
            argument_default=argparse.SUPPRESS,  # whoever trains knows the defaults
        )
    )

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

    command = commands.add_parser("confidence", help="fit how sure a model may be of a caption")
    command.add_argument("--model", required=True, help="model folder, which gets confidence.safetensors")
    command.add_argument("--data", required=True, help="the data set that it was trained on: folder or caption file")
    command.set_defaults(run=confidence)

    command = commands.add_parser("caption", help="caption photographs")
    command.add_argument("photos", nargs="+", metavar="PHOTO", help="file, folder, or - for paths from standard input")
    command.add_argument("--model", help="model folder (default: the best of those that are shipped)")
    _add_beam(command)
    command.add_argument("--top", type=int, default=1, help="show this many captions of each photo (%(default)s)")
    command.add_argument(
        "--attention-map",
        metavar="FILE",
        help="save where the model looked for each word, as .png, .jpg, .pdf or .svg; of several photos as FILE-PHOTO",
    )
    command.add_argument("--json", action="store_true", dest="as_json", help="one JSON object for each photo and line")
    command.add_argument("--recursive", action="store_true", help="of a folder, the pictures in its subfolders too")
    command.add_argument("--write", choices=["txt"], help="put each caption into a text file beside its photo")
    command.add_argument(
        "--csv", dest="table", metavar="FILE", help="write photo, caption, log-probability and confidence to it"
    )
    command.add_argument(
        "--min-confidence", type=float, metavar="SHARE", help="leave out captions of less confidence, from 0 to 1"
    )
    existing = command.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace text files and a table that exist already")
    existing.add_argument("--skip-existing", action="store_true", help="leave out photos that have their captions")
    command.set_defaults(run=caption)
    for command in commands.choices.values():
        command.add_argument("--device", choices=DEVICES, default=None, help="default: a GPU that works, else the CPU")
    return parser


def _add_beam(command: argparse.ArgumentParser) -> None:
    command.add_argument("--beam", type=int, default=BEAMS, dest="beams", help="beams, 1 for greedy (%(default)s)")


def _add_train(command: argparse.ArgumentParser) -> None:
    """Options for data and folder, and one for each field of the configurations."""
    command.add_argument("--data", required=True, help="data set: folder or caption file")
    command.add_argument("--out", required=True, help="model folder to write")
    command.add_argument(
        "--self-critical", metavar="MODEL", help="go on with this model folder, by what captions that it draws score"
    )
    command.add_argument(
        "--encoder",
        dest="encoder_name",
        metavar="NAME",
        help="efficientnet_lite2 or resnet101; with _local, regions know their own surroundings alone; the first also "
        f"with _260px at its end ({ENCODER})",
    )
    command.add_argument("--split", help="official, first6k, source or random (official)")
    command.add_argument("--min-count", type=int, help="a word, or a piece of one, needs this many uses (default 3)")
    command.add_argument(
        "--teacher",
        action="append",
        dest="teachers",
        metavar="MODEL",
        help="a model folder to learn from; may be given several times",
    )
    command.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="words, wordpiece for BERT's pieces of words, or a tokenizer.json (words)",
    )
    command.add_argument(
        "--word-vectors",
        metavar="FILE",
        help="start from the word vectors of a GloVe or word2vec text file, of glove-50d or of glove.6B.300d",
    )
    refined = {field.name: field for field in fields(SelfCriticalConfig)}
    plain = {field.name: field for config in (DecoderConfig, TrainConfig) for field in fields(config)}
    for name, field in (refined | plain).items():
        if name in FROM_DATA:
            continue
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        defaults = [str(field.default)] if name in plain else []
        if name in refined and [str(refined[name].default)] != defaults:
            defaults.append(f"{refined[name].default} with --self-critical")
        command.add_argument(f"--{name.replace('_', '-')}", help=f"({'; '.join(defaults)})", **kind)
    command.set_defaults(run=train)


if __name__ == "__main__":
    sleep_while_waiting()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115  (whoever started this closed it)
        stream.reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")  # names that are no text
        setattr(sys, name, stream)
    sys.exit(main())
