"""Measure a model on one split."""

from argparse import ArgumentParser
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from caption_utils.commands.sidecars import valid_json
from caption_utils.config import BEAMS

if TYPE_CHECKING:
    from caption_utils.evaluation.report import Evaluation
    from caption_utils.metrics.bootstrap import Difference

FEW = 30  # images; the bootstrap intervals of fewer are too narrow


def add_options(parser: ArgumentParser) -> None:
    """Model, data and search, and where the results go."""
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--data", required=True, help="data set: folder or caption file")
    parser.add_argument("--split", default="val", help="train, val or test (%(default)s)")
    parser.add_argument("--beam", type=int, default=BEAMS, dest="beams", help="beams, 1 for greedy (%(default)s)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
    parser.add_argument("--record", metavar="FILE", help="append the row to this csv")
    parser.add_argument("--captions", metavar="FILE", help="write the captions to a new file in COCO's result format")
    parser.add_argument("--against", metavar="MODEL", help="compare with this model folder on the same images")


def run(
    model: str,
    data: str,
    split: str,
    beams: int,
    against: str | None,
    as_json: bool,
    captions: str | None,
    record: str | None,
) -> int:
    """Print the scores of a model on one split, and the differences from the model ``against``, if given.

    ``captions`` names a new file for the captions, ``record`` a csv to which the row is appended.
    """
    from caption_utils.evaluation.records import append_row, check_new, check_place, rows_with, write_captions
    from caption_utils.evaluation.report import COLUMNS, compare, evaluate_model
    from caption_utils.training.checkpoint import load_model

    for path in filter(None, (record, captions)):  # what is wrong is told before anything is measured
        check_place(path)
    if record:
        rows_with(record, COLUMNS)
    if captions:
        check_new(captions, record)
    if against:
        load_model(against)
    found = evaluate_model(model, data, split, beams)
    differences: dict[str, Difference] = {}
    with ExitStack() as results:  # what was measured is told and written, whatever becomes of the rest; the last first
        if captions:
            results.callback(write_captions, captions, found)
        if record:
            results.callback(append_row, record, found.row())
        results.callback(lambda: _print(found, as_json, against, differences))
        if against:
            differences = compare(found, evaluate_model(against, data, split, beams))
    return 0


def _print(found: "Evaluation", as_json: bool, against: str | None, differences: Mapping[str, "Difference"]) -> None:
    if as_json:
        print(_as_json(found.report(), against, differences), flush=True)
    else:
        lines = [*_score_lines(found.report(), found.missing), *_difference_lines(against, differences)]
        if len(found.images) < FEW:
            lines.append(f"fewer than {FEW} images: others may move the scores farther than the intervals say")
        print("\n".join(lines), flush=True)


def _as_json(report: dict, against: str | None, differences: Mapping[str, "Difference"]) -> str:
    if differences:
        rounded = {name: {k: round(v, 4) for k, v in asdict(d).items()} for name, d in differences.items()}
        report = report | {"against": {"model": against, **rounded}}
    return valid_json(report)


def _score_lines(row: Mapping, missing: Mapping[str, str]) -> list[str]:
    """A line for each value of a row, with the bounds of its 95 % interval or the reason why it is missing."""
    lines = []
    for name, value in row.items():
        if not name.endswith(("_low", "_high")):
            shown = f"missing: {missing[name]}" if name in missing else value
            within = "" if row.get(f"{name}_low") is None else f"  {row[f'{name}_low']} to {row[f'{name}_high']}"
            lines.append(f"{name:<20} {shown}{within}")
    return lines


def _difference_lines(against: str | None, differences: Mapping[str, "Difference"]) -> list[str]:
    if not differences:
        return []
    heading = f"difference from {against}, 95 % interval, share of resamples without its sign"
    return [heading] + [
        f"{name:<20} {d.value:+.4f}  {d.low:+.4f} to {d.high:+.4f}  p {d.p:.3f}" for name, d in differences.items()
    ]
