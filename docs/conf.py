"""Sphinx configuration of the documentation site; `make docs` builds it."""

import os
import re
import sys
from functools import partial
from pathlib import Path

import jupyter_cache.executors.utils as executors

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
# The notebook calls `mmaction-lite`, which need not be on the PATH of whoever builds the site.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import generated_pages  # noqa: E402

import mmaction_lite  # noqa: E402

project = "mmaction-lite"
author = "the mmaction-lite authors"
project_copyright = "the mmaction-lite authors, Apache-2.0"
version = release = mmaction_lite.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated/*.md"]  # included by other pages
generated_pages.write(DOCS / "generated")

# Markdown
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The notebook runs at every build, so that its pictures show the current code.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = True
# Join the pieces in which a command's output arrives; MyST-NB has no setting for it.
executors.executenb = partial(executors.executenb, coalesce_streams=True)
nb_output_stderr = "remove"  # progress; errors of a cell fail the build

# API reference
default_role = "code"  # docstrings write `name`, as in Markdown
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False

# Pages. Nothing is loaded from other hosts: the site works from a folder, without a network.
html_theme = "furo"
html_title = f"mmaction-lite {release}"
html_static_path = []
html_show_sourcelink = False
html_copy_source = False


def setup(app):
    """Connect the changes to what autodoc finds."""
    app.connect("autodoc-process-docstring", write_as_restructured_text)
    app.connect("autodoc-skip-member", skip_fields_of_named_tuples)


def write_as_restructured_text(app, what, name, obj, options, lines):
    """Accept two habits of docstrings that reStructuredText writes otherwise."""
    # `name`s: a letter directly after code.
    lines[:] = re.sub(r"(`[^`]+`)(\w)?", _separated, "\n".join(lines)).split("\n")
    if what != "module":
        return  # elsewhere indented blocks are sections such as "Args:"
    # An indented block after a colon is shown as it is written, such as a drawing.
    for number, (line, after, block) in enumerate(zip(lines, lines[1:], lines[2:], strict=False)):
        if line.endswith(":") and not line.endswith("::") and not after and block.startswith("    "):
            lines[number] = f"{line}:"


def _separated(code):
    return code[0] if code[2] is None else f"{code[1]}\\ {code[2]}"


def skip_fields_of_named_tuples(app, what, name, obj, skip, options):
    """Skip "Alias for field number 0": the docstring of the class describes the fields."""
    return True if type(obj).__name__ == "_tuplegetter" else None
