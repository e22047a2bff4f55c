"""One process or several: ``accelerate launch`` or ``call_in_forks`` starts them, and Accelerate connects them.

A process that was started alone imports none of it, so that a notebook can still start several later.
"""

import atexit
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import cache
from multiprocessing import active_children, get_context
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.multiprocessing import start_processes
from torch.multiprocessing.spawn import ProcessException

from caption_utils.errors import InputError
from caption_utils.runtime import device

if TYPE_CHECKING:
    from accelerate import PartialState

LONGEST_WAIT = timedelta(days=1)  # for the last to have extracted its features
GRACE = 10  # seconds that an interrupted process has to end by itself


class OneProcess:
    """A process that was started alone, with the names of ``accelerate.PartialState``."""

    process_index, num_processes, is_main_process, device = 0, 1, True, None

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""


def join_processes() -> "OneProcess | PartialState":
    """Connect with the processes that were started together with this one, if any; a second call finds them again."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return OneProcess()
    return _joined()


@cache
def _joined() -> "PartialState":
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or device().type != "cuda"
    state = PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    atexit.register(state.destroy_process_group)
    return state


def all_reduce(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums over all processes of tensors that are equal in shape."""
    if join_processes().num_processes == 1:
        return list(tensors)
    from accelerate.utils import reduce

    return reduce(list(tensors), reduction="sum")


def broadcast(tensor: Tensor) -> Tensor:
    """The main process's tensor."""
    if join_processes().num_processes == 1:
        return tensor
    from accelerate.utils import broadcast

    return broadcast(tensor)


def call_in_forks(count: int, function: Callable[..., object], *arguments: Any) -> None:
    """Call ``function`` in forks of this process, which ``join_processes`` connects; returns when all have ended.

    What they print goes to this one's output. Raises the ``InputError`` of a fork, and ``ProcessException`` if one is
    killed or fails otherwise; then, and after an interruption, all are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    errors = get_context("fork").SimpleQueue()
    others, ended = active_children(), False
    try:
        given = (place, errors, function, arguments)
        forks = start_processes(_in_fork, given, count, join=False, start_method="fork")
        while not (ended := forks.join()):
            pass
    except ProcessException:  # of the first to end, which may be one that waited for another
        if errors.empty():
            raise
        raise InputError(errors.get()) from None
    finally:
        # also if only some could be started; after success, other children may be another thread's
        started = [child for child in active_children() if not (ended or child in others)]
        try:
            for fork in started:
                fork.join(GRACE)
        finally:  # after a second interruption, too
            for fork in started:
                fork.kill()  # it may wait for another on its GPU, and then heeds no interruption
                fork.join()


def _in_fork(rank: int, place: dict[str, str], errors: Any, function: Callable[..., object], arguments: tuple) -> None:
    os.environ |= {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)  # those that the parent's work on the CPU has started are not there in a fork
    # nor is a notebook's thread for what is printed
    with open(1, "w", buffering=1, closefd=False) as out, redirect_stdout(out), redirect_stderr(out):
        try:
            function(*arguments)
        except InputError as error:
            errors.put(str(error))
            raise
