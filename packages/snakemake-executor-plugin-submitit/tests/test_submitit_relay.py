"""Calling `srun` through a process that preemption spares."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from allocations import lines
from snakemake_executor_plugin_submitit import relay

# An srun that says how it was called, and does what its first argument says.
SRUN = """
import json, os, signal, sys, time
def note(number, _):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(9)
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, note)
print(json.dumps([sys.argv[1:], os.environ.get("WORD"), os.getcwd(), os.getppid()]), flush=True)
print("an error", file=sys.stderr)
exec(sys.argv[1])
"""
WAIT = "while not os.path.exists('go'): time.sleep(0.05)"
Call = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a job of a number of its own, with an `srun`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(f"#!{sys.executable}\n{SRUN}")
    (tmp_path / "bin" / "srun").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_JOB_ID": uuid.uuid4().hex, "WORD": "batch"}


@pytest.fixture
def script(environment: dict[str, str]) -> Iterator[psutil.Process]:
    """The process that the batch script starts."""
    text = "\n".join([*relay.setup(), "echo $!", "read"])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["bash", "-c", text], env=environment, **pipes) as batch:
        assert batch.stdout is not None
        relayed = psutil.Process(int(batch.stdout.readline()))
        names = Path("/proc/net/unix")
        while environment["SLURM_JOB_ID"] not in names.read_text():
            time.sleep(0.02)
        yield relayed
        batch.communicate(b"\n")
    relayed.wait(10)  # it ends with the script


@pytest.fixture
def call(environment: dict[str, str], tmp_path: Path) -> Iterator[Call]:
    """Return a function that calls what jobs call in place of `srun`, in a directory that says what was said."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "said").open("ab") as said, (tmp_path / "errors").open("ab") as errors:
            own = {**environment, "WORD": "job"}
            command = [*relay.command(), *arguments]
            started.append(subprocess.Popen(command, stdout=said, stderr=errors, env=own, cwd=tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def await_lines(path: Path, count: int) -> list[str]:
    deadline = time.monotonic() + 20
    while not path.exists() or len(lines(path)) < count:
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.02)
    return lines(path)


@pytest.mark.parametrize(("end", "status"), [("sys.exit(7)", 7), ("pass", 0), ("os.kill(os.getpid(), 9)", 137)])
def test_the_batch_script_calls_srun_as_the_job_would(
    script: psutil.Process, call: Call, tmp_path: Path, end: str, status: int
) -> None:
    assert call(end, "--with a word", "").wait(20) == status
    (said,) = lines(tmp_path / "said")
    assert json.loads(said) == [[end, "--with a word", ""], "job", str(tmp_path), script.pid]
    assert lines(tmp_path / "errors") == ["an error"]


def test_signals_are_passed_on_but_for_the_one_that_would_end_srun(
    script: psutil.Process, call: Call, tmp_path: Path
) -> None:
    process = call(WAIT)
    await_lines(tmp_path / "said", 1)
    process.send_signal(signal.SIGTERM)
    for count, number in enumerate((signal.SIGUSR2, signal.SIGUSR1), start=2):
        process.send_signal(number)
        await_lines(tmp_path / "said", count)
    (tmp_path / "go").touch()
    assert process.wait(20) == 0
    assert lines(tmp_path / "said")[1:] == ["SIGUSR2", "SIGUSR1"]


def test_srun_ends_with_the_job_that_called_it(script: psutil.Process, call: Call, tmp_path: Path) -> None:
    process = call(WAIT)
    await_lines(tmp_path / "said", 1)
    (srun,) = script.children()
    process.kill()
    srun.wait(20)
    assert lines(tmp_path / "said")[1:] == ["SIGTERM"]


def test_several_are_called_beside_each_other(script: psutil.Process, call: Call, tmp_path: Path) -> None:
    processes = [call(WAIT, str(number)) for number in range(3)]
    await_lines(tmp_path / "said", 3)
    (tmp_path / "go").touch()
    assert [process.wait(20) for process in processes] == [0, 0, 0]


def test_where_nobody_answers_srun_is_called_all_the_same(call: Call, tmp_path: Path) -> None:
    process = call("sys.exit(7)")
    assert process.wait(20) == 7
    (said,) = lines(tmp_path / "said")
    assert json.loads(said)[:2] == [["sys.exit(7)"], "job"]
    warning = "WARNING:root:no answer from the batch script: srun, called from here, will not survive preemption"
    assert lines(tmp_path / "errors") == [warning, "an error"]


def test_an_srun_that_cannot_be_started_has_failed(script: psutil.Process, environment: dict[str, str]) -> None:
    command, lost = [*relay.command(), "pass"], {**environment, "PATH": "/none"}
    done = subprocess.run(command, env=lost, capture_output=True, text=True, timeout=20)  # no pipe is held open
    error = "ERROR:root:srun could not be called by the batch script; its log may say why\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", error)
