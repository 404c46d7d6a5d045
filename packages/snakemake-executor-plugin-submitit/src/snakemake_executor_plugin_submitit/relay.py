"""A stand-in for `srun` that survives the announcement of preemption.

SLURM announces preemption by SIGTERM to all processes of all job steps. An `srun` that it reaches kills its own step at
once, before the processes there can save their state; and it reaches each `srun` that a job step starts. The batch
script alone is left out. So the batch script starts this file to wait for orders, and jobs call it in place of `srun`:
their arguments, environment and streams go to the one that waits, which calls `srun` and returns its status. Both are
run as a file, which needs nothing but Python.
"""

import json
import logging
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from threading import Thread

_SERVE = "--serve"
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)


def command() -> list[str]:
    """Return what a job is to call in place of `srun`."""
    return [sys.executable, __file__]


def setup() -> list[str]:
    """Return the lines of a batch script that have it wait for orders until the script ends."""
    return [f"{shlex.join([*command(), _SERVE])} < /dev/null &", 'trap "kill $!" EXIT']


def serve() -> None:
    """Call `srun` for every caller that connects, until killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_address())
        listener.listen()
        while True:
            connection, _ = listener.accept()
            Thread(target=_attend, args=(connection,), daemon=True).start()


def call(arguments: Sequence[str]) -> int:
    """Have `srun` called with these arguments, and return its status; SIGTERM alone is not passed on.

    Where the batch script does not answer, this process becomes `srun`, and says so.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        if connection.connect_ex(_address()) or not _is_ours(connection):
            logging.warning("no answer from the batch script: srun, called from here, will not survive preemption")
            os.execvp("srun", ["srun", *arguments])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until the order is out
        for number in _PASSED_ON:
            signal.signal(number, lambda number, _: _send(connection, number))
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        order = {"arguments": arguments, "environment": dict(os.environ), "directory": str(Path.cwd())}
        connection.sendall(json.dumps(order).encode() + b"\n")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        if not (status := connection.recv(1)):
            logging.error("srun could not be called by the batch script; its log may say why")
    return status[0] if status else 1


def _attend(connection: socket.socket) -> None:
    """Call `srun` as one asks who has connected, and say how it ended."""
    with connection, connection.makefile("rb") as asked:
        if not _is_ours(connection):
            return
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        order = json.loads(asked.readline())
        arguments, directory = ["srun", *order["arguments"]], order["directory"]
        stdin, stdout, stderr = streams
        try:
            srun = subprocess.Popen(
                arguments, stdin=stdin, stdout=stdout, stderr=stderr, env=order["environment"], cwd=directory
            )
        finally:  # a reader of these pipes would wait for ever
            for stream in streams:
                os.close(stream)
        Thread(target=_pass_on, args=(asked, srun), daemon=True).start()
        status = srun.wait()
        _send(connection, status if status >= 0 else 128 - status)


def _send(connection: socket.socket, number: int) -> None:
    """Send a number, unless the other side has gone meanwhile."""
    with suppress(ConnectionError):
        connection.sendall(bytes([number]))


def _pass_on(asked: BufferedReader, srun: "subprocess.Popen[bytes]") -> None:
    """Pass signals on, and end `srun` when nobody waits for it any more."""
    while number := asked.read(1):
        srun.send_signal(number[0])
    srun.terminate()


def _address() -> str:
    """Return the name, in Linux's abstract namespace of this node, at which the batch script's waits."""
    return f"\0submitit-srun-{os.environ['SLURM_JOB_ID']}"


def _is_ours(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


if __name__ == "__main__":
    if sys.argv[1:] == [_SERVE]:
        serve()
    sys.exit(call(sys.argv[1:]))
