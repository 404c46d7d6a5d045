"""Workflows of shell commands, for what has nothing to do with language models."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from private_slurm import PrivateSlurm
from snakemake_executor_plugin_submitit.journal import Journal

OPTIONS = (
    *("--executor", "submitit", "--nolock", "--rerun-incomplete", "--jobs", "300", "--latency-wait", "3"),
    *("--max-jobs-per-timespan", "300/1s", "--seconds-between-status-checks", "1"),
    *("--default-resources", "runtime=5", "mem_mb=500"),
)


class SmallWorkflow:
    """A Snakefile in a directory of its own, run through submitit on a SLURM."""

    def __init__(self, directory: Path, text: str, slurm: PrivateSlurm, user: str = "root") -> None:
        """Write the Snakefile, and give the directory to the user who is to run it."""
        self.directory, self.slurm, self.user = directory, slurm, user
        (directory / "Snakefile").write_text(text)
        self.environment = {**os.environ, **slurm.environment}
        self._python = sys.executable
        if user != "root":
            shutil.chown(directory, user)
            self._python = _python_of_all()
            self.environment |= {"HOME": str(directory), "PYTHONPATH": os.pathsep.join(_packages())}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start Snakemake and return its process; output and errors go to one pipe."""
        command = [self._python, "-m", "snakemake", *OPTIONS, *arguments]
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment,
            user=self.user,
            group=pwd.getpwnam(self.user).pw_gid,
            extra_groups=[],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run Snakemake to its end, which is to be this, and return what it says."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == status, said
        return said

    def replace(self, program: str, script: str) -> None:
        """Put a script before a program of SLURM."""
        directory = self.directory / "bin"
        directory.mkdir(exist_ok=True)
        (directory / program).write_text(f"#!/bin/sh\n{script}\n")
        (directory / program).chmod(0o755)
        if not self.environment["PATH"].startswith(str(directory)):
            self.environment["PATH"] = f"{directory}{os.pathsep}{self.environment['PATH']}"

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file; none where there is no file."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_lines(self, name: str, count: int = 1) -> None:
        """Wait until a file has so many lines."""
        self.slurm.wait_until(lambda: len(self.lines(name)) >= count, f"{count} lines in {name}", 60)

    def jobs(self, *fields: str) -> list[list[str]]:
        """Return what accounting has on each job of this directory: these fields, a list each."""
        form = f"--format={','.join(fields)},WorkDir%0"
        query = ("sacct", "--allocations", "--noheader", "--parsable2", form)
        rows = [line.split("|") for line in self.slurm.run(*query).splitlines()]
        return [row[:-1] for row in rows if row[-1] == str(self.directory)]

    def job_numbers(self) -> list[str]:
        """Return the numbers of the jobs that have been submitted and not been taken note of."""
        entries = Journal(self.directory / ".snakemake" / "submitit").entries()
        return sorted({entry.job_id for entry in entries if entry.job_id})


def _python_of_all() -> str:
    """Return an interpreter of this version that every user may run; root's own may lie in root's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return shutil.which(version, path="/usr/local/bin:/usr/bin") or sys.executable


def _packages() -> list[str]:
    """Return where this interpreter finds all that is not its own."""
    return [path for path in sys.path if path and not Path(path).is_relative_to(sys.base_prefix)]
