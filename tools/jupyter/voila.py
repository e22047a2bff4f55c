"""Settings of ``make app`` and ``make lab``: local only, with uploads of up to ``UPLOAD_MEGABYTES``."""

import os
from pathlib import Path

UPLOAD_MEGABYTES = 50
PAGE = {"bootstrap", "page"}  # tags of the cells that make up the page


def only_the_page(handler, notebook, cwd):
    """Remove all other cells before anything runs."""
    notebook.cells = [cell for cell in notebook.cells if PAGE & set(cell.metadata.get("tags", []))]
    notebook.metadata["title"] = "Caption your photographs"
    handler.xsrf_token  # noqa: B018  sets the cookie without which the page, when it is left, may not end its kernel
    return notebook


os.environ["CAPTION_UPLOAD_MB"] = str(UPLOAD_MEGABYTES)  # kernels inherit it, and the widget shows it
here = str(Path(__file__).parent)  # with Voilà's template
os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [here, os.environ.get("JUPYTER_PATH")]))

# An upload is one message, and tornado silently closes the connection if it is longer than this. It is far more than
# the widget takes, so that the widget can say so.
settings = {"websocket_max_message_size": 2**30}

c = get_config()  # noqa: F821
for server in (c.ServerApp, c.Voila):
    server.ip = "127.0.0.1"
    server.tornado_settings = settings
c.LabApp.news_url = None  # no requests to other servers
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.VoilaConfiguration.show_tracebacks = True  # of an InputError, its message
c.VoilaConfiguration.template = "captions"
c.VoilaConfiguration.prelaunch_hook = only_the_page
