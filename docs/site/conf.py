"""The manuals as a site: README and docs/ are its pages as they are, docs/api.md takes the docstrings. `make docs`."""

import re
import tomllib
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.special import TextLexer

ROOT = Path(__file__).parents[2]
with (ROOT / "pyproject.toml").open("rb") as file:
    _PROJECT = tomllib.load(file)["project"]

project = _PROJECT["name"]
version = release = _PROJECT["version"]
html_title = f"{project} {version}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# The repository is the source folder, so that links between README, docs/ and other files lead to the same place on the
# site as on a forge: to a page, or to a file to download.
root_doc = "README"
include_patterns = ["README.md", "C*.md", "data/README.md", "docs/**.md"]
exclude_patterns = ["docs/site/contents.md"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
myst_links_external_new_tab = False

# In docstrings, what stands in single backticks is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
maximum_signature_line_length = 88

templates_path = ["."]
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_additional_pages = {"index": "to_first_page.html"}
html_math_renderer = "mathml"


def _with_contents(app, docname, source):
    """README is the first page: the contents of the site are appended, which a forge has no use for."""
    if docname == root_doc:
        source[0] += (ROOT / "docs" / "site" / "contents.md").read_text("utf-8")


def _with_maths(app, what, name, thing, options, lines):
    """Maths between dollars in docstrings, as in the manuals."""
    text = re.sub(r"(?<![`$])\$([^$]+)\$", lambda found: f":math:`{' '.join(found[1].split())}`", "\n".join(lines))
    lines[:] = text.split("\n")


def _with_defaults(app, what, name, thing, options, signature, returns):
    """A default that a dataclass makes anew each time is no Python, and would keep the signature from being parsed."""
    return signature and signature.replace("<factory>", "..."), returns


def _mathml(self, node):
    """Maths as MathML, which browsers draw themselves: nothing is fetched when a page is read."""
    self.body.append(tex2mathml(node.astext(), as_block=node.tagname == "math_block"))
    raise SkipNode


def setup(app):
    """Called by Sphinx."""
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", _with_contents)
    app.connect("autodoc-process-docstring", _with_maths, priority=400)
    app.connect("autodoc-process-signature", _with_defaults)
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
