"""Where the executor writes: which paths will do, and what is to be done where nothing can be written."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

_REMEDIES = {
    errno.ENOSPC: "free space or files there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "have the file system made writable",
    errno.EACCES: "make it writable for you",
    errno.EPERM: "make it writable for you",
}
_BLOCK = 1 << 16


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what is to be done where something cannot be written.

    Args:
        path: named where the system does not say what it could not write.

    Raises:
        WorkflowError: it cannot, for want of space or permission.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise WorkflowError(why_unwritten(error, path)) from error


def why_unwritten(error: OSError, path: Path) -> str:
    """Return what could not be written, why, and what is to be done."""
    remedy = _REMEDIES.get(error.errno or 0, "see to it that it can be written")
    return f"{error.filename or path}: {error.strerror}; {remedy}, and call the same command again: nothing is lost"


def find_fault(directory: Path) -> str:
    """Return why nothing can be written to a directory, and what is to be done; empty where something can."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_BLOCK))
    except OSError as error:
        return why_unwritten(error, directory) if error.errno in _REMEDIES else ""
    return ""


def check_path(path: Path, meaning: str, reserved: str = "") -> None:
    """Check that a path survives Snakemake's quoting and the shell.

    Args:
        path: part of a job's command.
        meaning: what it is.
        reserved: further characters that have a meaning where it is used.

    Raises:
        WorkflowError: it does not.
    """
    text = str(path)
    wrong = {character for character in text if character == "\\" or not character.isprintable()}
    if "'" in text:  # then Snakemake quotes it by ", within which the shell reads these
        wrong |= set(text) & set('$`"')
    wrong |= set(text) & set(reserved)
    if wrong:
        shown = " and ".join(repr(character) for character in sorted(wrong))
        raise WorkflowError(f"{meaning} {text!r}: {shown} in a path cannot be passed to jobs; rename or move it")
