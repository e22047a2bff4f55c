"""Files are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caption_utils.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, in a folder that is created; at the end it takes the place of ``path``.

    If anything fails, ``path`` stays as it was and nothing is left beside it. Raises ``InputError`` when the disk will
    not take it.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name[-50:]}.tmp")  # the whole of a long name would leave no room for the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); check permissions and free disk space; "
            "what was there before is kept"
        ) from None
    finally:
        with suppress(OSError):  # a folder that could not be made holds nothing to remove
            temporary.unlink()
