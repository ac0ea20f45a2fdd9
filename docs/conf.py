"""The documentation site: the pages of this folder, its notebooks, which are run, and the API from
the docstrings.

`make docs` builds it into out/docs; warnings are errors.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from repsim_fast import __version__

ROOT = Path(__file__).resolve().parents[1]

project = "repsim_fast"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "repsim_fast"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["notebooks.css", "figures.css"]

# The pages are written for a repository's browser: headings are what links go to.
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_in_temp = True  # what notebooks write is no part of the site
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell, on a machine with other work
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
# Docstrings put code into single backticks as often as into two.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses are documented once, by the class
napoleon_custom_sections = [
    "Returns on call",
    ("Raises on call", "params_style"),
    ("Warns", "params_style"),
]

_INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
_FROM_HERE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")  # links, no pictures


def _with_included(app: Any, page: str, source: list[str]) -> None:
    """A file of the repository as a page: its links are from where the page is."""
    folder = (ROOT / "docs" / page).parent

    def included(directive: re.Match[str]) -> str:
        file = (folder / directive[1]).resolve()
        app.env.note_dependency(str(file))
        return _FROM_HERE.sub(
            lambda link: f"[{link[1]}]({os.path.relpath(file.parent / link[2], folder)})",
            file.read_text(),
        )

    source[0] = _INCLUDE.sub(included, source[0])


def _without_links_outside(app: Any, page: str, source: list[str]) -> None:
    """What is in the repository and not on the site is named, not linked; it must exist."""
    folder = (ROOT / "docs" / page).parent

    def named(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        if not (folder / path).exists():
            raise FileNotFoundError(f"{page}: {path} is linked and does not exist")
        return f"`{(folder / path).resolve().relative_to(ROOT)}`" if "/" in text else text

    source[0] = _OUTSIDE.sub(named, source[0])


def _with_absolute_values(
    app: Any, what: str, name: str, of: Any, options: Any, lines: Any
) -> None:
    """|x| is an absolute value, not a substitution, outside of code; sections are words alone."""
    for i, line in enumerate(lines):
        code = line.replace(" (on call):", " on call:").split("`")
        code[::2] = [text.replace("|", r"\|") for text in code[::2]]
        lines[i] = "`".join(code)


def _with_download(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    """A notebook's page says where to have the notebook, with its outputs."""
    if not page.startswith("notebooks/"):
        return
    executed = Path(app.outdir).parent / "jupyter_execute" / f"{page}.ipynb"
    copied = Path(app.outdir) / f"{page}.ipynb"
    copied.parent.mkdir(exist_ok=True)
    shutil.copyfile(executed, copied)
    link = f'<p>To run and to change: <a href="{copied.name}" download>{copied.name}</a></p>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _with_included)
    app.connect("html-page-context", _with_download)
    app.connect("source-read", _without_links_outside)
    # Before napoleon, which makes reStructuredText of the sections.
    app.connect("autodoc-process-docstring", _with_absolute_values, priority=400)
