"""Putting finished directories in their place. Imports nothing heavy, since some jobs do no more than that."""

import os
import shutil
from pathlib import Path


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a finished directory to its final path, replacing what is there."""
    if path.exists():
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.rename(old)
        partial.rename(path)
        shutil.rmtree(old)
    else:
        partial.rename(path)
