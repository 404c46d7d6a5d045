"""A workflow of shell commands that is run through submitit, for what has nothing to do with language models."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

OPTIONS = (
    *("--executor", "submitit", "--nolock", "--rerun-incomplete", "--jobs", "20", "--latency-wait", "2"),
    *("--seconds-between-status-checks", "1", "--default-resources", "runtime=10", "mem_mb=100"),
)
WAIT_S = 40.0

# A rule whose jobs note that they have begun, wait until they may end, and say what they were asked to make.
GATED = """\
rule all:
    input:
        expand("{{name}}.out", name={names!r})

rule make:
    output:
        "{{name}}.out"
    resources:
        pack={pack}
    shell:
        "echo {{wildcards.name}} $SUBMITIT_LOCAL_JOB_ID >> begun;"
        " while [ ! -e {{wildcards.name}}.go ]; do sleep 0.05; done; echo {word} > {{output}}"
"""


class SubmititWorkflow:
    """A Snakefile in a directory of its own."""

    def __init__(self, directory: Path, text: str, cluster: str = "local") -> None:
        """Write the Snakefile."""
        self.directory, self.cluster = directory, cluster
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))
        }
        self._started: list[subprocess.Popen[bytes]] = []
        self.write(text)

    def write(self, text: str) -> None:
        """Write another Snakefile."""
        (self.directory / "Snakefile").write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake; what it says goes to the file `said`, for jobs may outlive it."""
        command = [sys.executable, "-m", "snakemake", *OPTIONS, "--submitit-cluster", self.cluster, *arguments]
        with (self.directory / "said").open("ab") as said:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # a process group of its own, as a shell on a terminal gives it
            )
        self._started.append(process)
        return process

    def run(self, *arguments: str, status: int = 0) -> str:
        """Run Snakemake to its end, which is to be this, and return what it said."""
        return self.end(self.start(*arguments), status)

    def end(self, process: subprocess.Popen[bytes], status: int = 0) -> str:
        """Wait for the end of Snakemake, which is to be this, and return what was said since the last time."""
        try:
            ended = process.wait(WAIT_S)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(self.said()) from error
        said = self.said()
        assert ended == status, said
        return said

    def said(self) -> str:
        """Return what was said since the last time."""
        path = self.directory / "said"
        text = path.read_text()
        path.write_text("")
        return text

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End Snakemake so that it can do nothing about it."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file; none where there is no file."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def allow(self, *names: str) -> None:
        """Let jobs end."""
        for name in names:
            (self.directory / f"{name}.go").touch()

    def begun(self) -> list[str]:
        """Return the names of the jobs that have begun, as often as they have."""
        return sorted(line.split()[0] for line in self.lines("begun"))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}\n{(self.directory / 'said').read_text()}"
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that run in the directory, or below."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                place = Path(process.cwd())
                if process.status() != psutil.STATUS_ZOMBIE and place.is_relative_to(self.directory):
                    found.append(process)
        return found

    def steps(self, name: str) -> list[psutil.Process]:
        """Return the shells of a job that are still there."""
        return [process for process in self.processes() if f"while [ ! -e {name}.go ]" in command_of(process)]

    def clean(self) -> None:
        """End all that runs in the directory."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for started in self._started:
            started.wait()


def command_of(process: psutil.Process) -> str:
    """Return what a process was called with; nothing if it is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
