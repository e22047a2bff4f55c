"""Train, evaluate and use captioning models: what the notebooks do, for scripts and clusters."""

import argparse
import atexit
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

from caption_utils.commands import caption, confidence, evaluate, train
from caption_utils.errors import InputError
from caption_utils.runtime import DEVICES, sleep_while_waiting

COMMANDS = {"train": train, "evaluate": evaluate, "confidence": confidence, "caption": caption}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 if a photo failed, 2 if the input was wrong."""
    options = vars(_parser().parse_args(arguments))
    run, device = options.pop("run"), options.pop("device")
    if device:
        os.environ["CAPTION_DEVICE"] = device
    try:
        _check(options)
        status = run(**options)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"caption_utils: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; run the same command again to resume after the last complete epoch" if run is train.run else ""
        print(f"caption_utils: interrupted{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output has seen enough
        return 141
    except OSError as error:
        print(f"caption_utils: {error}; check the path, its permissions and the disk space", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m caption_utils", description=__doc__)
    subparsers = parser.add_subparsers(required=True)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.__doc__, description=command.__doc__)
        command.add_options(subparser)
        subparser.add_argument("--device", choices=DEVICES, default=None, help="default: a working GPU, else the CPU")
        subparser.set_defaults(run=command.run)
    return parser


def _check(options: dict[str, Any]) -> None:
    if "" in [*options.values(), *options.get("photos", [])]:
        raise InputError("one of the arguments is empty; check the variable or file it came from")
    if "-" in options.values():
        raise InputError("- stands for standard input, and only among the photos; a file of that name is ./-")


def _complete_streams() -> None:
    """Streams where the caller closed them, and all able to carry file names that are not text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name) or open(os.devnull, mode)  # noqa: SIM115
        stream.reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")
        setattr(sys, name, stream)


def _end(status: int) -> NoReturn:
    """End the process at once: to take PyTorch apart takes Python as long as a caption, and 100 MB."""
    atexit._run_exitfuncs()
    with suppress(OSError):  # whoever reads it may be gone
        sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    sleep_while_waiting()
    _complete_streams()
    _end(main())
