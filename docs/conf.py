"""Sphinx configuration: Markdown pages, an API reference from the docstrings, tutorials run at build time."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent / "src")]

from public_names import home_of_public_names  # noqa: E402 - found on the path set above

from dosemover import __version__  # noqa: E402

project = "dosemover"
author = "The dosemover developers"
copyright = "The dosemover developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinxcontrib.bibtex",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "plain_docstrings",
    "command_line",
    "metric_catalogue",
    "example_report",
    "optional_pages",
]
exclude_patterns = [
    "_build",
    "_extensions",
    "_templates",
    "calibration/*.md",  # tables that pages include
    "moments/*.md",
    "readings.md",
    "tables/*.md",
    "tutorials/*",  # scripts: the gallery writes their pages
    "auto_tutorials/**/*.ipynb",
    "paper/*",
]
nitpicky = True
suppress_warnings = ["config.cache"]
default_role = "code"
highlight_language = "none"
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "amsmath", "attrs_inline"]
myst_dmath_double_inline = True
myst_heading_anchors = 3

autodoc_typehints = "none"  # types, shapes and units stand in the docstrings
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_context = {"home": home_of_public_names()}
autosummary_imported_members = True
autosummary_ignore_module_all = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "filename_pattern": r"[\\/]\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "default_thumb_file": str(HERE / "images" / "report.png"),
    "remove_config_comments": True,
}

toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "dosemover"
html_static_path = ["_static"]
html_css_files = ["dosemover.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "dosemover"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
    "show_toc_level": 2,
}
html_sidebars = {"index": [], "install": [], "validation": [], "references": []}
