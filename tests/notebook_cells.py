"""Running a notebook's cells without Jupyter."""

import ast
import json
from pathlib import Path
from typing import Any


def cells_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """The cells of a kind, `code` or `markdown`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == kind]


def run_cells(path: Path) -> list[Any]:
    """Run the code cells in order, and return what they show: the values of last expressions other than None."""
    names: dict[str, Any] = {}
    shown = []
    for number, cell in enumerate(cells_of(path, "code"), start=1):
        body = ast.parse("".join(cell["source"])).body
        where = f"{path.name}, cell {number}"
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), where, "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), where, "eval"), names))
    return [value for value in shown if value is not None]
