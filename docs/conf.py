"""Configuration of the site for Sphinx: `make site` builds it into docs/_build/html."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import pages
from check_site import check_site
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import inspect, logging
from sphinx.util.inspect import stringify_signature

project = "Convolutional networks, one notebook at a time"
html_title = project
html_baseurl = pages.index.site_address()
exclude_patterns = ["_build", "demo"]
suppress_warnings = ["myst.header"]  # the first heading of a part of a README is no title

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["attrs_inline", "dollarmath", "substitution"]
myst_heading_anchors = 4
pages.write()  # before the tables and lists, whose links lead to these pages
myst_substitutions = {
    name: pages.local(getattr(pages, name)(), "docs/index.md", "docs/index.md")
    for name in ("begin", "cards", "glance", "runs")
}

# The lesson's packages, which are large, are not needed to read its docstrings.
autodoc_mock_imports = [
    "IPython",
    "PIL",
    "matplotlib",
    "numpy",
    "pooch",
    "torch",
    "torchsummary",
    "torchvision",
    "tqdm",
]
viewcode_follow_imported_members = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_logo = html_favicon = "_static/logo.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_sidebars = {"**": ["navbar-logo.html", "search-button-field.html", "draw.html", "sbt-sidebar-nav.html"]}
templates_path = ["_templates"]
html_context = {"default_mode": "auto"}  # light or dark as the reader's system has it
html_use_index = html_domain_indices = html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    "repository_url": pages.REPOSITORY,
    "repository_branch": pages.RELEASE,
    "use_repository_button": True,
    "use_download_button": False,
    "show_navbar_depth": 1,
    "navbar_persistent": [],
    "logo": {"text": "Convolutional networks"},
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

log = logging.getLogger(__name__)


def setup(app):
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-process-signature", own_signature)
    app.connect("build-finished", finish)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


def read_page(app, docname, content):
    content[0] = localized(app, content[0], f"docs/{docname}.md")


def read_included(app, path, _, content):
    content[0] = localized(app, content[0], (pages.DOCS / path).resolve().relative_to(pages.ROOT).as_posix())


def localized(app, text, origin):
    """The text for the page that Sphinx reads; a link that leads nowhere is a warning, which fails the build."""
    try:
        return pages.local(text, origin, f"docs/{app.env.docname}.md")
    except pages.PageError as error:
        log.warning(str(error), location=app.env.docname)
        return text


def plain_docstring(app, what, name, thing, options, lines):
    """Docstrings are plain text with code in backticks: no other sign in them means anything to Sphinx."""
    lines[:] = pages.plain(lines)


def own_signature(app, what, name, thing, options, signature, returns):
    """That of a class's own __init__, because a base class that is not installed takes anything."""
    if what == "class" and "__init__" in vars(thing):
        return stringify_signature(inspect.signature(thing.__init__, bound_method=True)), returns


def finish(app, error):
    """Copy what Sphinx does not make, the demo and the weights that it runs, then check the whole site."""
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    shutil.copytree(pages.DOCS / "demo", site / "demo", dirs_exist_ok=True)
    for path in pages.ROOT.glob("sessions/*/*.safetensors"):
        folder = site / "sessions" / path.parent.name
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    for problem in check_site(site, pages.REPOSITORY, pages.RELEASE, pages.ROOT):
        log.warning(problem)


# Formulas are MathML, which browsers show without a script: docutils translates them.


def inline_math(writer, node):
    writer.body.append(f"<math>{tex2mathml(node.astext())}</math>")


def block_math(writer, node):
    writer.body.append(f'<math display="block">{tex2mathml(node.astext(), as_block=True)}</math>')
