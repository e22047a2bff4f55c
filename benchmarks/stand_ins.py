"""What training uses of packages that a bare host may lack, for ``gpu.py`` alone: just enough to run without them."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

import torch


class Progress:
    """``tqdm`` without a bar."""

    def __new__(cls, items, **options):
        return items

    write = staticmethod(print)


class Opened:
    """``safe_open`` of what ``save_file`` below wrote."""

    def __init__(self, path, framework):
        with open(path, "rb") as file:  # by its name, ``torch.load`` would hand it to the package that is missing
            self.tensors, self.notes = torch.load(file)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def metadata(self):
        return self.notes

    def keys(self):
        return self.tensors.keys()

    def get_tensor(self, name):
        return self.tensors[name]


def save_file(tensors, path, metadata=None):
    torch.save((tensors, metadata), path)


STAND_INS = {
    "lazy_loader": {"lazy_loader": {"attach": lambda *names, **more: (None, dir, [])}},
    "pandas": {"pandas": {"DataFrame": list}},
    "tqdm": {"tqdm": {}, "tqdm.auto": {"tqdm": Progress}},
    "safetensors": {
        "safetensors": {"SafetensorError": OSError, "safe_open": Opened},
        "safetensors.torch": {"save_file": save_file, "load_file": lambda path: Opened(path, "pt").tensors},
    },
}


def provide() -> None:
    """Stand in for each package that cannot be imported here."""
    for package, modules in STAND_INS.items():
        if not find_spec(package):
            for name, content in modules.items():
                sys.modules[name] = module_from_spec(ModuleSpec(name, None))
                vars(sys.modules[name]).update(content)
