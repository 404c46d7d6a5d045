"""DataTables, out of the package itables, as a script and a style sheet that pages opened from disk may load."""

import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from chronocoder.errors import ChronocoderError

EXPORT = re.compile(r"\bexport\s*\{([^{}]*)\};?(?=\s*(?:/\*.*\*/\s*)?\Z)", re.DOTALL)
"""The statement at the end of the bundle by which it exports its names; notices of licences follow."""
DEFAULT = re.compile(r"([\w$]+)\s+as\s+default")
MODULE_ONLY = re.compile(r"(?:^|[;}\n])\s*(?:import\s*[\w{*\"']|export\b)|\bimport\.meta\b")


def add_table_component(directory: Path) -> None:
    """Write `static/datatables.js`, which defines `DataTable`, and `static/datatables.css` below a report's directory.

    Raises:
        ChronocoderError: the package looks otherwise than expected.
    """
    bundle = files("itables").joinpath("html")
    target = directory / "static"
    target.mkdir(parents=True, exist_ok=True)
    script = as_classic_script(bundle.joinpath("dt_bundle.js").read_text(encoding="utf-8"))
    (target / "datatables.js").write_text(script, encoding="utf-8")
    (target / "datatables.css").write_bytes(bundle.joinpath("dt_bundle.css").read_bytes())


def as_classic_script(module: str) -> str:
    """Return an ES module as a script that sets `window.DataTable` to its default export.

    Browsers refuse to load modules from disk.

    Raises:
        ChronocoderError: it does not end in one export statement with a default, or imports something.
    """
    found = list(EXPORT.finditer(module))
    exported = DEFAULT.findall(found[0].group(1)) if len(found) == 1 else []
    code = module[: found[0].start()] if found else module
    if len(exported) != 1 or MODULE_ONLY.search(code):
        raise ChronocoderError(
            f"itables {version('itables')}: dt_bundle.js is no module that imports nothing and ends in one export with"
            " a default; install a version of itables that envs/constraints.txt names"
        )
    notices = module[found[0].end() :]
    return f'(() => {{\n"use strict";\n{code};\nwindow.DataTable = {exported[0]};\n}})();\n{notices}'
