"""The documentation: ``make docs`` builds it, running its pages' code, into docs/_build/html."""

import importlib

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

import avalanche_branchtune

logger = logging.getLogger(__name__)

project = "avalanche-branchtune"
author = "The authors of avalanche-branchtune"
version = release = avalanche_branchtune.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_render_markdown_format = "myst"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "avalanche-branchtune"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_show_copyright = False

# Packages import their public names when asked for them; autodoc lists those that are there.
PACKAGES = (
    *("avalanche_branchtune", "avalanche_branchtune.analysis", "avalanche_branchtune.checkpoints"),
    *("avalanche_branchtune.evaluation", "avalanche_branchtune.metrics"),
    *("avalanche_branchtune.records", "avalanche_branchtune.report"),
    *("avalanche_branchtune.streams", "solo_bridge", "solo_bridge.comparison"),
    *("solo_bridge.config", "solo_bridge.lessons", "solo_bridge.plugins", "solo_bridge.presets"),
    *("solo_bridge.study", "solo_bridge.views"),
)
PUBLIC = {name: importlib.import_module(name) for name in PACKAGES}
for module in PUBLIC.values():
    for name in module.__all__:
        setattr(module, name, getattr(module, name))


def check_reference(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that the reference lacks."""
    there = {name.rpartition(".")[2] for name in env.domains["py"].objects}
    for package, module in PUBLIC.items():
        if missing := sorted(set(module.__all__) - there):
            logger.warning("docs/reference lacks %s of %s", ", ".join(missing), package)


def formula(writer: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as browsers draw it by themselves: the pages need no network."""
    inline = isinstance(node, nodes.math)
    writer.body.append(convert(node.astext(), display="inline" if inline else "block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Let Sphinx check what it has read, and write formulas."""
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("env-check-consistency", check_reference)
