"""How ``make book`` makes pages of the README, the documents and the notebooks: nothing is run, nothing is fetched."""

import re
import shutil
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "From photograph to caption"
root_doc = "README"
extensions = ["myst_nb"]
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "notebooks/*.ipynb"]
include_patterns += ["data/*.md", "results/*.md", "results/checkpoints/*/*.md", "benchmarks/*.md"]
exclude_patterns = [".*", "**/.*", "build", "caption_utils", "data/*/*", "shared", "tests", "tools"]
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_copy_source = html_show_sphinx = False

CONTENTS = {
    "The notebooks": ["notebooks/*"],
    "More": [
        "docs/FAQ",
        "docs/*",
        "data/README",
        "results/*",
        "results/checkpoints/*/*",
        "benchmarks/README",
        "CONTRIBUTING",
        "CHANGELOG",
    ],
}


def prepare(app, name: str, source: list[str]) -> None:
    """A link to a folder leads to its README; the first page gets the list of all others."""
    folder = Path(app.srcdir, name).parent
    links = re.compile(r"(?<=\]\()[\w./-]+(?=\))")
    source[0] = links.sub(lambda link: f"{link[0]}/README.md" * (folder / link[0]).is_dir() or link[0], source[0])
    if name == root_doc:
        for caption, pages in CONTENTS.items():
            options = f":hidden:\n:glob:\n:titlesonly:\n:caption: {caption}\n"
            source[0] += "\n".join(["\n\n```{toctree}", options, *pages, "```\n"])


def mathml(formula: str, block: bool) -> str:
    """A formula that the browser draws by itself."""
    known = re.sub(r"\\([Bb]igg?)(?![a-zA-Z])", r"\\\1l", formula)  # docutils knows no size without a side
    return tex2mathml(known.replace(r"\dots", r"\ldots").replace(r"\textit", r"\text"), as_block=block)


def add_index(app, error: Exception | None) -> None:
    """The first page under the name that servers look for, too."""
    if not error:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def draw(block: bool):
    def visit(translator, node) -> None:
        translator.body.append(mathml(node.astext(), block))
        raise nodes.SkipNode

    return visit, None


def setup(app) -> None:
    app.connect("source-read", prepare)
    app.connect("build-finished", add_index)
    app.add_html_math_renderer("mathml", inline_renderers=draw(False), block_renderers=draw(True))
