"""Caption photographs."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caption_utils.commands.sidecars import CaptionFiles, json_fields, map_paths, valid_json, without_maps
from caption_utils.config import BEAMS, SearchConfig
from caption_utils.data.folders import pictures_of
from caption_utils.errors import InputError

if TYPE_CHECKING:  # takes PyTorch
    from caption_utils.captioner import Caption, Captioner

    Found = list[Caption] | InputError


def add_options(parser: ArgumentParser) -> None:
    """Photos, model and search, and where the captions go."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="file, folder, or - for paths from standard input")
    parser.add_argument("--model", help="model folder (default: the best of the shipped models)")
    parser.add_argument("--beam", type=int, default=BEAMS, dest="beams", help="beams, 1 for greedy (%(default)s)")
    parser.add_argument("--top", type=int, default=1, help="show this many captions of each photo (%(default)s)")
    parser.add_argument(
        "--attention-map",
        metavar="FILE",
        help="save where the model looked for each word, as .png, .jpg, .pdf or .svg; FILE-PHOTO for several photos",
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="print a line of JSON for each photo")
    parser.add_argument("--recursive", action="store_true", help="caption the pictures in subfolders, too")
    parser.add_argument("--write", choices=["txt"], help="put each caption into a text file beside its photo")
    parser.add_argument(
        "--csv", dest="table", metavar="FILE", help="write photos, captions, log-probabilities and confidence to a csv"
    )
    parser.add_argument(
        "--min-confidence", type=float, metavar="SHARE", help="leave out captions less confident than this (0 to 1)"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace existing text files, csv and maps")
    existing.add_argument("--skip-existing", action="store_true", help="skip photos that have their captions and maps")


def run(
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
    """Print a line for each photo: its caption, or why it has none; with ``top``, that many of the best captions.

    Captions less confident than ``min_confidence`` are neither printed nor written.
    """
    import torch

    from caption_utils.captioner import caption_photos

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # one half for the encoder, the other for the search
    if not 1 <= top <= SearchConfig(beams).beams:
        raise InputError(f"top={top}: choose 1 to {beams}, or more beams with --beam")
    paths, empty, notes = pictures_of(_listed(photos), recursive)
    if attention_map and outputs["skip_existing"]:
        paths = without_maps(attention_map, paths, notes)
    maps = map_paths(attention_map, paths) if attention_map else {}
    files = CaptionFiles(paths, maps=maps, **outputs)
    captions = caption_photos(_captioner(model, min_confidence), files.left, beams)
    files.begin()
    _tell(*notes, *files.notes)
    failed, left_out = 0, 0
    for photo, found in _with_progress([*empty, *files.left], chain(empty.values(), captions)):
        if _too_unsure(found, min_confidence):
            left_out += 1
            continue
        found = _with_map(photo, files.write(photo, found), files.map_of(photo))
        failed += isinstance(found, InputError)
        _print_captions(str(photo), found, top, as_json)
    if left_out:
        stay = "; earlier text files and maps stay" if files.overwrite and (files.texts or files.maps) else ""
        _tell(f"captions with a confidence below {min_confidence:g}: {left_out} (left out{stay})")
    return 1 if failed else 0


def _listed(photos: Iterable[str]) -> Iterator[str]:
    """The arguments, with the lines of standard input in place of ``-``. Raises ``InputError`` for null bytes there."""
    for photo in photos:
        if photo != "-":
            yield photo
            continue
        for line in sys.stdin:
            path = line.rstrip("\r\n").removeprefix("\ufeff")  # the byte-order mark
            if "\0" in path:
                raise InputError(
                    "standard input: holds null bytes; give UTF-8 text with one path a line (find without -print0)"
                )
            if path.strip() not in ("", "-"):
                yield path


def _captioner(model: str | None, min_confidence: float | None) -> "Captioner":
    """The captioner of a model folder, or of the default one.

    Raises ``InputError`` for a ``min_confidence`` that is out of range or that the model cannot apply.
    """
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


def _tell(*notes: str) -> None:
    for note in notes:
        print(f"caption_utils: {note}", file=sys.stderr)


def _with_progress(photos: list[Path], captions: "Iterable[Found]") -> "Iterator[tuple[Path, Found]]":
    """Each photo with its captions, and a progress bar that is off the screen while they are printed."""
    from tqdm import tqdm

    with tqdm(total=len(photos), unit="photo", smoothing=0, disable=None if len(photos) > 1 else True) as bar:
        for pair in zip(photos, captions, strict=True):
            bar.clear()
            yield pair
            bar.update()
            bar.refresh()  # captions come in batches, and the bar is looked at between them


def _too_unsure(found: "Found", least: float | None) -> bool:
    return least is not None and not isinstance(found, InputError) and not (found[0].confidence or 0) >= least


def _with_map(photo: Path, found: "Found", path: Path | None) -> "Found":
    """What was found, its attention map saved, or why that failed."""
    if path is None or isinstance(found, InputError):
        return found
    from caption_utils.app.heatmaps import save_map  # Matplotlib takes a second

    try:
        save_map(photo, found[0], path)
    except InputError as error:
        return error
    return found


def _print_captions(photo: str, found: "Found", top: int, as_json: bool) -> None:
    if as_json:
        utf8 = str(sys.stdout.encoding).lower() in ("utf-8", "utf8")  # others may write \xe9, which is no JSON
        print(valid_json({"image": photo, **json_fields(found, top)}, ensure_ascii=not utf8), flush=True)
    elif isinstance(found, InputError):
        print(f"caption_utils: {found}", file=sys.stderr, flush=True)
    else:
        doubt = f" ({found[0].doubt})" if found[0].doubt else ""
        lines = [f"{photo}: {found[0].text}{doubt}"]
        if top > 1:
            lines = [f"{photo}:{doubt}", *(f"  {each.per_word:.2f} {each.text}" for each in found[:top])]
        print("\n".join(lines), flush=True)
