"""The documentation site: `make docs` builds it into docs/_build/html, warnings as errors."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from cherimoya import __version__  # noqa: E402

project = "cherimoya-train"
author = "the cherimoya-train authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = f"cherimoya-train {__version__}"
html_static_path = ["_static"]
html_show_sourcelink = False
html_show_copyright = False
smartquotes = False  # -- is two dashes
html_theme_options = {"navigation_with_keys": True}
