"""Sphinx configuration of the documentation site; `make docs` builds it."""

import os
import re
import sys
from functools import partial
from pathlib import Path

import jupyter_cache.executors.utils as executors

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
# The notebook calls `mmaction-lite`, which is not on the PATH unless the environment is active.
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
    app.connect("autodoc-process-docstring", write_as_restructured_text, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields_of_named_tuples)


def write_as_restructured_text(app, what, name, obj, options, lines):
    """Accept habits of docstrings that reStructuredText writes otherwise.

    * `name`s: a letter directly after code, and `name: `: a space at the end of code.
    * An indented block after a blank line is shown as it is written, such as a drawing or an example.
    """
    lines[:] = re.sub(r"`([^`]+)`(\w)?", _code, "\n".join(lines)).split("\n")
    found, indent = [], 0
    for number, line in enumerate(lines):
        is_block = number > 1 and not lines[number - 1] and line.startswith(" " * (indent + 4))
        if line:
            indent = len(line) - len(line.lstrip())
        if is_block and not found[-2].lstrip().startswith(("* ", "- ")):
            marker = ":" if found[-2].endswith(":") and not found[-2].endswith("::") else "\n\n::"
            found[-2:] = [*f"{found[-2]}{marker}".split("\n"), ""]
        found.append(line)
    lines[:] = found


def _code(found):
    return f"`{found[1].strip()}`" + (f"\\ {found[2]}" if found[2] else "")


def skip_fields_of_named_tuples(app, what, name, obj, skip, options):
    """Skip "Alias for field number 0": the docstring of the class describes the fields."""
    return True if type(obj).__name__ == "_tuplegetter" else None
