"""Paths that jobs can be told of, and what is said where nothing can be written."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_executor_plugin_submitit import Executor
from snakemake_executor_plugin_submitit.storage import check_path, find_fault, writing
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import SharedFSUsage
from snakemake_interface_executor_plugins.utils import format_cli_arg

CONTROL = {*map(chr, range(1, 32)), "\x7f", "\xa0", "\u2028", "\u200b"}
CHARACTERS = {*map(chr, range(1, 128)), *CONTROL, "ü", "\U0001f600"} - {"/"}


@pytest.mark.parametrize(
    ("form", "refused"),
    [("/a{}b", {"\\"}), ("/{} b", {"\\"}), ("/it's {}b", {"\\", "$", "`", '"'}), ('/"{}"', {"\\", "'"})],
)
def test_the_shell_reads_the_paths_that_will_do_as_snakemake_quotes_them(form: str, refused: set[str]) -> None:
    paths = {character: form.format(character) for character in sorted(CHARACTERS)}
    taken = {character: path for character, path in paths.items() if _is_taken(path)}
    assert CHARACTERS - set(taken) == CONTROL | refused
    command = "; ".join(f"printf '%s\\0' {format_cli_arg('', path)}" for path in taken.values())
    printed = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout.decode()
    assert printed.split("\0")[:-1] == list(taken.values())


def _is_taken(path: str) -> bool:
    try:
        check_path(Path(path), "the working directory")
    except WorkflowError:
        return False
    return True


def test_a_path_that_would_be_taken_for_a_pattern_is_refused() -> None:
    assert _is_taken("/50%/j")
    text = r"^submitit-folder '/50%/j': '%' in a path cannot be passed to jobs; rename or move it$"
    with pytest.raises(WorkflowError, match=text):
        check_path(Path("/50%/j"), "submitit-folder", reserved="%")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "No space left on device; free space or files there"),
        (errno.EDQUOT, "Disk quota exceeded; free some of your quota there"),
        (errno.EROFS, "Read-only file system; have the file system made writable"),
        (errno.EACCES, "Permission denied; make it writable for you"),
    ],
)
def test_what_cannot_be_written_is_named_with_a_remedy(number: int, text: str) -> None:
    said = f"^/folder/jobs: {text}, and call the same command again: nothing is lost$"
    with pytest.raises(WorkflowError, match=said), writing(Path("/folder")):
        raise OSError(number, os.strerror(number), "/folder/jobs")
    with pytest.raises(WorkflowError, match=said), writing(Path("/folder/jobs")):
        raise OSError(number, os.strerror(number))


def test_other_errors_are_no_matter_of_space() -> None:
    with pytest.raises(FileNotFoundError), writing(Path("/folder")):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "sbatch")


def test_a_directory_is_tried(tmp_path: Path) -> None:
    assert find_fault(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    assert find_fault(tmp_path / "missing") == ""


def test_the_path_of_python_is_quoted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor.__new__(Executor)
    settings = SimpleNamespace(shared_fs_usage=[SharedFSUsage.SOFTWARE_DEPLOYMENT])
    executor.workflow = SimpleNamespace(storage_settings=settings)
    monkeypatch.setattr(sys, "executable", "/a $HOME/bin/python")
    assert executor.get_python_executable() == "'/a $HOME/bin/python'"
