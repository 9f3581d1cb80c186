"""The documentation: ``make docs`` builds it, running its pages' code, into docs/_build/html."""

import importlib

import avalanche_branchtune

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

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False

html_theme = "furo"
html_title = "avalanche-branchtune"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_show_copyright = False

# Packages import their public names when they are asked for; autodoc looks for those that are there.
for package in (
    "avalanche_branchtune",
    "avalanche_branchtune.checkpoints",
    "avalanche_branchtune.evaluation",
    "solo_bridge",
    "solo_bridge.comparison",
    "solo_bridge.study",
):
    module = importlib.import_module(package)
    for name in module.__all__:
        setattr(module, name, getattr(module, name))
