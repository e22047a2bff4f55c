# @title Set-up: finds caption_utils installed, in a folder above or below, attached on Kaggle, or clones it
import importlib.util
import os
import sys
from pathlib import Path

if not importlib.util.find_spec("caption_utils"):
    here, attached = Path.cwd(), Path(os.environ.get("CAPTION_INPUT") or "/kaggle/input")
    above, address = [folder / "caption_utils" for folder in (here, *here.parents)], os.environ.get("CAPTION_REPO", "")
    places = [*above, *here.glob("*/caption_utils"), *here.glob("*/*/caption_utils"), *attached.rglob("caption_utils")]
    found = [path.parent for path in places if (path / "bootstrap.py").is_file()]
    if not found and (not address or os.system(f'git clone --quiet --depth 1 "{address}" captioning')):
        raise ImportError("attach the repository, or set CAPTION_REPO (needs internet and no folder named captioning)")
    sys.path.insert(0, str(found[0] if found else here / "captioning"))
importlib.import_module("caption_utils.bootstrap").complete()
