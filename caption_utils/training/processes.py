"""One process or several: Hugging Face Accelerate starts them (``accelerate launch``, ``notebook_launcher``).

A process that was started alone imports none of it, so that a notebook can still launch several later.
"""

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from caption_utils.runtime import device

if TYPE_CHECKING:
    from accelerate import PartialState

LONGEST_WAIT = timedelta(days=1)  # for the last to have extracted its features


@dataclass(frozen=True)
class OneProcess:
    """A process that was started alone, with the names of ``accelerate.PartialState``."""

    process_index: ClassVar[int] = 0
    num_processes: ClassVar[int] = 1
    is_main_process: ClassVar[bool] = True
    device: ClassVar[None] = None
    wait_for_everyone = staticmethod(lambda: None)


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
