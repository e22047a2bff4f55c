"""What others have trained: files that installed packages carry, and files that a host with a connection fetches."""

from importlib.util import find_spec
from pathlib import Path

from caption_utils.errors import InputError


def packaged(package: str, *inside: str) -> list[Path] | None:
    """The paths of files ``inside`` an installed package, which is not imported; ``None`` if there is no such one."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return [Path(folders[0]) / name for name in inside] if folders else None


def fetched(repository: str, name: str, advice: str) -> Path:
    """A file of a repository on huggingface.co, from the cache if it is there.

    Raises ``InputError`` with ``advice`` where it can be had from neither, or without the library that fetches it.
    """
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repository, name))
    except (ImportError, OSError) as error:
        reason = str(error).partition(".")[0]
        raise InputError(f"{name}: cannot be fetched from huggingface.co/{repository} ({reason}); {advice}") from None
