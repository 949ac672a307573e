"""How Sphinx builds the documentation. Nothing here needs the network."""

from flask_contenthub_webhook._version import __version__

project = "flask-contenthub-webhook"
author = "the flask_contenthub_webhook authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"{project} {release}"
