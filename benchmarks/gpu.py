"""Checks on a GPU, then a benchmark; ``make gpu``. Needs this checkout, PyTorch and NumPy, and at most eight minutes.

    python benchmarks/gpu.py [--device cpu] [--small] [--out FILE]

All data is drawn at random. A check that fails ends the run. Each figure becomes a row of ``results/gpu.csv`` with the
card's name. Training is by CUDA graphs unless ``CAPTION_GRAPHS`` is 0. ResNet-101 has random weights here, and is left
out where torchvision is missing.
"""

import argparse
import csv
import io
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import stand_ins  # noqa: E402

stand_ins.provide()

import bench_training as bench  # noqa: E402
from drawn import Size, Task  # noqa: E402

from caption_utils.config import DecoderConfig, TrainConfig  # noqa: E402
from caption_utils.errors import InputError  # noqa: E402
from caption_utils.fast.graphs import Graphed  # noqa: E402
from caption_utils.model.decoder import Batch, Decoder, build_decoder  # noqa: E402
from caption_utils.search.beam import beam_search  # noqa: E402
from caption_utils.training.checkpoint import LAST  # noqa: E402
from caption_utils.training.loss import TeacherForcing, caption_loss  # noqa: E402
from caption_utils.training.progress import load_progress  # noqa: E402
from caption_utils.training.trainer import teacher_forcing  # noqa: E402

ATTENTIONS = "bahdanau", "luong"
CPU = torch.device("cpu")
FIELDS = "card", "torch", "task", "value", "unit"
CHECK, FULL = Size(1200, 200, 4, 512), Size(6000, 1000, 20, 2048)
SMALL = Size(20, 10, 1, 16, words=60, hidden=16)
TO_KILL = 12  # epochs of the run that is killed
Row = tuple[str, float, str]  # task, value, unit
Check = Callable[[torch.device, Size, Path], None]


def check_equal_to_the_cpu(place: torch.device, size: Size, folder: Path) -> None:
    """Logits, alphas and gradients of both decoders in float32, plain and as training computes them, within 1e-4.

    The norm of each difference is also below a thousandth of the tensor's.
    """
    rich = {"region_dim": size.hidden, "deep_output": True, "tie_weights": True, "normalizer": "entmax"}
    for attention, settings in itertools.product(ATTENTIONS, ({}, rich)):
        task, found = Task(replace(size, images=8), CPU, attention, **settings), []
        decoder = task.decoder()
        decoder.dropout.p = 0.0
        for task.place in (CPU, place):
            for forward in (decoder.to(task.place), teacher_forcing(decoder, task.place)):
                found.append(outputs_and_gradients(decoder, forward, [*task.batches(5).in_order()]))
        if isinstance(forward, Graphed):
            assert len(forward.passes) == 2, f"{attention}: {len(forward.passes)} of 2 shapes have graphs"
        for there in found[1:]:
            far = [
                ((a - b).abs().max().item(), ((a - b).norm() / a.norm()).item())
                for a, b in zip(found[0], there, strict=True)
            ]
            assert all(most < 1e-4 and share < 1e-3 for most, share in far), f"{attention}: {far}"


def outputs_and_gradients(decoder: Decoder, forward: TeacherForcing, batches: list[Batch]) -> list[Tensor]:
    """Logits and alphas of two batches of different sizes, the first one twice, and the sum of all gradients."""
    decoder.zero_grad()
    found: list[Tensor] = []
    for batch in (*batches, batches[0]):
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs = forward(batch.features, batch.tokens, batch.owner)
            caption_loss(decoder, batch, TrainConfig(), forward=lambda *_, outputs=outputs: outputs).backward()
        found += [output.detach().clone() for output in outputs]
        del outputs  # no graph can be captured while gradients of the last step are still wanted
    found += [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]
    return [value.detach().cpu().clone() for value in found]


def check_half_precision(place: torch.device, size: Size, folder: Path) -> None:
    """Training in float16, with its losses scaled, and in bfloat16 ends within 5 % of the loss in float32."""
    for attention in ATTENTIONS:
        task, losses = Task(size, place, attention), {}
        for precision in ("float32", "float16", "bfloat16"):
            _, history = task.fit(folder / attention / precision, precision=precision)
            losses[precision] = history[-1]["train_loss"]
        worst = max(abs(loss / losses["float32"] - 1) for loss in losses.values())
        assert worst < 0.05, f"{attention}: {losses}"


def check_resume_after_kill(place: torch.device, size: Size, folder: Path) -> None:
    """A run killed after its first epochs goes on, and ends as one that was left alone, within 1 %."""
    size = replace(size, epochs=TO_KILL)
    command = [sys.executable, __file__, "--device", str(place), "--into", str(folder / "killed")]
    command += ["--small"] * (size.words == SMALL.words)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while not (folder / "killed" / LAST).exists() and run.poll() is None:
            time.sleep(0.01)
        run.kill()
    assert run.returncode == -signal.SIGKILL, f"it ended with {run.returncode} before it could be killed"
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    left_alone = Task(size, place).fit(folder / "left alone")[1]
    resumed = load_progress(folder / "killed").history
    assert len(resumed) == size.epochs
    ratio = resumed[-1]["train_loss"] / left_alone[-1]["train_loss"]
    assert abs(ratio - 1) < 0.01, f"{ratio} of the loss of a run that was left alone"


def check_captions(place: torch.device, size: Size, folder: Path) -> None:
    """At least 99 % of the captions found by beam search are those found on the CPU."""
    for attention in ATTENTIONS:
        task = Task(size, place, attention)
        decoder, features = task.fit(folder / attention)[0].eval(), task.val.features.float()
        there = [captions[0].ids for captions in beam_search(decoder, features)]
        here = [captions[0].ids for captions in beam_search(decoder.cpu(), features.cpu())]
        same = statistics.mean(a == b for a, b in zip(here, there, strict=True))
        assert same >= 0.99, f"{attention}: {same:.1%} are the same"


def check_out_of_memory(place: torch.device, size: Size, folder: Path) -> None:
    """A batch that is too large is an ``InputError``, which is one line."""
    if place.type != "cuda":
        return
    task = Task(size, place)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + (64 << 20)
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        with redirect_stderr(io.StringIO()):  # for graphs it is too small, too
            task.fit(folder, images_per_batch=size.images)
    except InputError as error:
        assert "accumulate" in str(error), error
    else:
        raise AssertionError("a batch that is too large was trained on")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def run_check(check: Check, place: torch.device, size: Size, folder: Path) -> None:
    """Raise ``AssertionError`` if a check fails, or if training in this process did without CUDA graphs."""
    with redirect_stderr(io.StringIO()) as told:
        check(place, size, folder)
    assert "without CUDA graphs" not in told.getvalue(), told.getvalue()


CHECKS = (
    check_equal_to_the_cpu,
    check_half_precision,
    check_resume_after_kill,
    check_captions,
    check_out_of_memory,
)


def training(place: torch.device, width: int) -> Iterator[Row]:
    """Captions trained per second, at 49 regions, and how many times as many as by the textbook loop and plainly."""
    for attention in ATTENTIONS:
        with place:
            batch, padded, features = bench.make_batch(width)
            decoder = build_decoder(DecoderConfig(3500, width, attention))
            textbook = bench.textbook_step(width, attention == "luong", padded, features)
            plain = bench.step_of(decoder, decoder, batch)
            ours = bench.step_of(decoder, teacher_forcing(decoder, place), batch)
            times = bench.take_turns({"textbook": textbook, "plain": plain, "ours": ours})
        seconds = statistics.median(times["ours"])
        yield f"{attention}: training at 49x{width}", len(batch.owner) / seconds, "captions/s"
        yield f"{attention}: beside the textbook loop", statistics.median(times["textbook"]) / seconds, "times"
        yield f"{attention}: beside the plain decoder", statistics.median(times["plain"]) / seconds, "times"


def full_run(place: torch.device, size: Size, folder: Path) -> Iterator[Row]:
    """All of a run as in Flickr8k, validation and saving included."""
    for attention in ATTENTIONS:
        task = Task(size, place, attention)
        if place.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        task.fit(folder / f"full {attention}")
        yield f"{attention}: {5 * size.images} captions, {size.epochs} epochs", time.perf_counter() - start, "s"
        if place.type == "cuda":
            yield f"{attention}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB"


def extraction(place: torch.device, images: int) -> Iterator[Row]:
    """Images per second through ResNet-101, from bytes in memory."""
    try:
        from torchvision.models import resnet101

        from caption_utils.encoders.encoder import ENCODERS, Encoder
    except ImportError as error:
        print(f"extraction is left out: {error}")
        return
    encoder = Encoder("resnet101", replace(ENCODERS["resnet101"], load=resnet101)).to(place)
    batch = torch.randint(256, (images, 3, 224, 224), dtype=torch.uint8, device=place)
    encoder(batch).sum().item()
    start = time.perf_counter()
    for _ in range(5):
        features = encoder(batch)
    features.sum().item()
    yield "resnet101: extraction", 5 * images / (time.perf_counter() - start), "images/s"


def append(path: Path, card: str, row: Row) -> None:
    """Add a row to the csv, which gets a header if it is new."""
    task, value, unit = row
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([FIELDS] * new + [(card, torch.__version__, task, f"{value:.4g}", unit)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cpu (%(default)s)")
    parser.add_argument("--small", action="store_true", help="little of everything, to try the script itself")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu.csv", help="csv for the rows (%(default)s)")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # the run that is killed
    arguments = parser.parse_args()
    place, size = torch.device(arguments.device), SMALL if arguments.small else CHECK
    os.environ.setdefault("CAPTION_GRAPHS", "1")
    if place.type == "cuda" and not torch.cuda.is_available():
        return print("No GPU that runs CUDA is here, so nothing was checked and nothing was measured.")
    if arguments.into:
        return print(Task(replace(size, epochs=TO_KILL), place).fit(arguments.into)[1][-1])
    card = torch.cuda.get_device_name() if place.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        for check in CHECKS:
            start = time.perf_counter()
            run_check(check, place, size, Path(folder, check.__name__))
            print(f"{check.__name__}: passed in {time.perf_counter() - start:.0f} s", flush=True)
        full, images = FULL, 64
        if arguments.small:
            full, images, bench.TURNS, bench.IMAGES = SMALL, 1, 1, 1
        for rows in (training(place, full.width), full_run(place, full, Path(folder)), extraction(place, images)):
            for row in rows:
                print("{}: {:.4g} {}".format(*row), flush=True)
                append(arguments.out, card, row)


if __name__ == "__main__":
    main()
