"""Voilà and JupyterLab for automated browsers: started as the Makefile starts them, stopped at the end."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "of-the-tests"
SECONDS = 120
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()  # Chromium runs unattended, also as root


def arguments_of(target: str) -> list[str]:
    """The program, with its arguments, that the Makefile runs for ``target``."""
    recipe = re.search(rf"^{target}:.*\n\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    return recipe.split()


class Servers:
    """Servers on free ports, each started once, with copies of the notebooks, since JupyterLab saves what it runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self.processes: list[subprocess.Popen] = []
        shutil.copytree(ROOT / "notebooks", folder / "notebooks")

    def start(self, target: str, *options: str) -> str:
        """The address of the server of a Makefile target, started if necessary."""
        if target not in self.addresses:
            port = free_port()
            log = self.folder / f"{target}.log"
            self.processes.append(self._run(log, *arguments_of(target), f"--port={port}", "--no-browser", *options))
            self.addresses[target] = f"http://127.0.0.1:{port}"
            wait_for(f"{self.addresses[target]}/static/", log)
        return self.addresses[target]

    def _run(self, log: Path, program: str, *arguments: str) -> subprocess.Popen:
        copies = [argument.replace("notebooks/", f"{self.folder}/notebooks/") for argument in arguments]
        command = [Path(sys.executable).with_name(program), *copies]
        own = {name: str(self.folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
        environment = os.environ | own | {"PYTHONPATH": str(ROOT), "CAPTION_DATA": "demo"}
        with log.open("w") as output:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """Stop all servers and their kernels."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port that is not in use."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(address: str, log: Path) -> None:
    """Wait until the server answers anything. Raises ``AssertionError`` with its log if it does not."""
    for _ in range(SECONDS * 5):
        try:
            urlopen(address)
        except HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no answer from {address}:\n{log.read_text()}")
