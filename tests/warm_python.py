"""A `python` for small workflows: it starts with the libraries imported, most of what a job of theirs takes.

A server imports what Snakemake and the scripts import, and forks for each `python -m snakemake` and each
`python scripts/<name>.py`. The fork takes over the
arguments, directory, environment and open files of its caller, and runs the script. Whatever else is asked of this
`python` goes to the real one. That scripts run in processes of their own is seen in the default experiment, in
tests/cluster, and wherever a test says nothing else of a workflow for which something is set.
"""

import atexit
import functools
import gc
import importlib
import json
import multiprocessing.process
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import chronocoder

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"

CLIENT = """#!{python} -IS
import os, sys
if sys.argv[1:3] != ["-m", "snakemake"] and os.path.dirname(os.path.realpath((sys.argv + [""])[1])) != {scripts!r}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
import json, signal, socket
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [b" "], [0, 1, 2])
connection.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
answers = connection.makefile("r")
process = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(process, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@functools.cache
def warm_path(**environment: str) -> str:
    """Start a server, which ends with this process, and return the directory of its `python`.

    Args:
        environment: what is set while libraries are imported, which may read it.
    """
    temporary = tempfile.TemporaryDirectory(prefix="warm-")
    directory = Path(temporary.name)
    address = str(directory / "socket")
    client = directory / "python"
    client.write_text(CLIENT.format(python=sys.executable, scripts=str(SCRIPTS.resolve()), address=address))
    client.chmod(0o755)
    command = [sys.executable, __file__, address]
    paths = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # as for a job
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths, **environment}
    )
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    _kept.extend((temporary, server))
    return str(directory)


def warm_python() -> str:
    """Return the program to call scripts with."""
    return f"{warm_path()}/python"


_kept: list[Any] = []  # as long as this process lives: then the server's standard input ends, and the directory goes


def import_libraries() -> None:
    """Import all that a script may import."""
    for module in pkgutil.walk_packages(chronocoder.__path__, "chronocoder."):
        with suppress(ModuleNotFoundError):  # of what only GPUs need
            importlib.import_module(module.name)
    for name in ("transformers.models.gpt_neox.modeling_gpt_neox", "snakemake.cli"):
        importlib.import_module(name)


def next_request(listening: socket.socket) -> list[str]:
    """Return, in a process of its own for each request, the command line that was asked for; its caller's state is set.

    The server's own process never returns: it ends when its standard input does.
    """
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
            os._exit(0)
        connection = listening.accept()[0]
        if os.fork() == 0:
            return _begin(connection)
        connection.close()


def _begin(connection: socket.socket) -> list[str]:
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as lines:
        arguments, directory, environment = json.loads(lines.readline())
    process = os.fork()
    if process:
        _follow(connection, process)
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(directory)
    multiprocessing.process.ORIGINAL_DIR = directory  # from which its processes look for the script
    os.environ.clear()
    os.environ.update(environment)
    return arguments


def _follow(connection: socket.socket, process: int) -> None:
    """Tell the caller how its process ends, or end that where the caller has ended."""
    connection.sendall(f"{process}\n".encode())
    ended = os.pidfd_open(process)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        connection.sendall(f"{status}\n".encode())
    finally:
        os._exit(0)


def main(address: str) -> None:
    """Serve at an address; in the processes that are asked for, run the script."""
    import_libraries()
    gc.freeze()  # else each fork copies all of it, to look for garbage
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(16)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.argv = next_request(listening)
    listening.close()
    torch.set_num_threads(1)  # tests run beside each other
    statuses: list[int] = []
    atexit.register(end_at_once, statuses)  # the first one is called last
    statuses.append(run())


def run() -> int:
    """Run the module or script that the command line names, and return its exit status."""
    try:
        if sys.argv[0] == "-m":
            sys.argv = sys.argv[1:]
            sys.path[0] = str(Path.cwd())
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def end_at_once(statuses: list[int]) -> None:
    """End without taking apart all that was imported, unless there is an exception to show."""
    if statuses:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


if __name__ == "__main__":
    main(sys.argv[1])
