from sphinx.util.inspect import TypeAliasForwardRef

import ase_sensitivity

project = "ase_sensitivity"
author = "The ase_sensitivity developers"
copyright = author
version = release = ase_sensitivity.__version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
# The gallery is written beside these pages when they are built, and runs then.
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d_",  # all of them run
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 1e9,
}
myst_enable_extensions = ["dollarmath"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    "Floats": "ase_sensitivity.types.Floats",
    "Ints": "ase_sensitivity.types.Ints",
}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # Sphinx shows it inside of unions
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
numpydoc_show_class_members = False
# Every reference has to have its target. The build has no network, so that what is defined in other
# packages has none; and a name that only type checkers import is known to none of these by module.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(ase|collections|concurrent|matplotlib|numpy|pathlib|scipy|torch)\..*"),
    ("py:class", r"Atoms|Axes|Tensor|TorchFunction|EdgeFunction|AutogradJacobian"),
    # Not in the reference.
    ("py:class", r"ase_sensitivity\..*\.(Fourier|Origin|Query|RowSet|Sparsity|System|Task)"),
]


def _plain_defaults(app, what, name, obj, options, signature, returns):
    """Defaults as in ``errors: list = <factory>`` are no Python, and types beside them get lost."""
    return (signature or "").replace("<factory>", "...") or None, returns


def setup(app):
    app.connect("autodoc-process-signature", _plain_defaults)
