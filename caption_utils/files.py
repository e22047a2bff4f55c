"""Files: read as text; written whole or not at all; found in an installed package; downloaded once."""

import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from caption_utils.errors import InputError


def read_text(path: Path, most: int = -1, errors: str = "strict") -> str:
    """UTF-8 text, or UTF-16 with its byte-order mark, of the first ``most`` bytes; line ends as ``\\n``.

    Raises ``InputError`` for a file that cannot be read, and with ``errors="strict"`` for other encodings.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most)
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig", errors)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"line {line} is not {error.encoding.upper()}"
        raise InputError(f"{path}: {what}; save the file as UTF-8 and try again") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which then replaces ``path``; its folder is created.

    If anything fails, ``path`` stays as it was and nothing is left beside it. Raises ``InputError`` if it cannot be
    written.
    """
    path = Path(path)
    kept = path.name[-50:]  # a longer name would leave no room for the suffix
    temporary = path.with_name(f"{kept}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        with suppress(OSError):  # where files have no permissions of their own
            temporary.chmod(mode)  # safetensors makes files for their owner alone
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); check permissions and free disk space"
            + "; the earlier file is kept" * path.is_file()
        ) from None
    finally:
        with suppress(OSError):  # a folder that could not be made holds nothing to remove
            temporary.unlink()


def key_of(path: str | Path) -> str:
    """Equal for paths that may name one file: through links, and where case does not count."""
    return os.path.realpath(path).casefold()


def packaged(package: str, *inside: str) -> list[Path] | None:
    """The paths of files ``inside`` an installed package, without importing it; ``None`` if it is not installed."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return [Path(folders[0]) / name for name in inside] if folders else None


def fetched(repository: str, name: str, advice: str) -> Path:
    """A file of a repository on huggingface.co, downloaded once and cached.

    Raises ``InputError`` with ``advice`` if that fails, or if the library for it is not installed.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

        cached = try_to_load_from_cache(repository, name)
        if not isinstance(cached, str):
            get_hf_file_metadata(hf_hub_url(repository, name))  # fails at once offline; a download tries for 23 seconds
            cached = hf_hub_download(repository, name)
        return Path(cached)
    except Exception as error:  # the library raises errors of its own and of whichever HTTP client it uses
        reason = str(error).partition(".")[0]
        raise InputError(f"{name}: cannot be fetched from huggingface.co/{repository} ({reason}); {advice}") from None
