"""Work that the jobs of a stage share, each with a task of its own, so that models are loaded once for many tasks.

A job is told its companions, tasks that wait for jobs of their own. Once its own task is done it works on those that
nobody works on, and leaves each result beside the place where it belongs. The companion's job then only moves it there,
which takes no longer than starting Python: nothing imported here is heavy.

    <results>/.shared/<result>/.claim          locked by the process that works on the task
    <results>/.shared/<result>/<key>/store     the result; the key tells what it was made of, and how
    <results>/.shared/<result>/<key>/maker     whose job made it, and where that job's log is
"""

import argparse
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from chronocoder.errors import ChronocoderError
from chronocoder.renaming import put_in_place

SPOOL = ".shared"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CLAIM, _STORE, _MAKER = ".claim", "store", "maker"
_CLAIMED = "CHRONOCODER_CLAIMED"  # output of the task that was claimed for the processes that share out its examples

_log = logging.getLogger(__name__)


class Slot:
    """Where the result of a task waits for the task's job, and the claim of the process that works on it."""

    def __init__(self, output: Path, key: str) -> None:
        """Name a result.

        Args:
            output: where it belongs.
            key: tells what it is made of, and how.
        """
        self.output = output
        self._directory = output.parent / SPOOL / output.name
        self._entry = self._directory / key
        self._lock: TextIO | None = None
        self._adopted = False

    @property
    def is_claimed(self) -> bool:
        """Whether this process works on the task."""
        return self._adopted or self._lock is not None

    @property
    def holds_result(self) -> bool:
        """Whether the result is there."""
        return (self._entry / _STORE).exists()

    def claim(self, wait: bool = False) -> bool:
        """Claim the task and say whether it is this process's now; anything but its result is removed.

        A claim ends with its process, however that ends.

        Args:
            wait: until another process that has claimed it is done.

        Raises:
            NoLocksError: the file system has no locks.
        """
        while not self.is_claimed:
            with suppress(FileNotFoundError, FileExistsError):  # another process has just left nothing here
                self._directory.mkdir(parents=True, exist_ok=True)
                file = (self._directory / _CLAIM).open("a", encoding="utf-8")
                if not _lock(file, wait):
                    file.close()
                    return False
                if _is_at(file, self._directory / _CLAIM):
                    self._lock = file
                    self._clear(_CLAIM, *([self._entry.name] if self.holds_result else []))
                else:
                    file.close()
        return True

    def adopt(self) -> None:
        """Work on the task without a claim, or with that of the process that started this one."""
        self._adopted = True

    def put(self, write: Callable[[Path], None], maker: dict[str, str]) -> None:
        """Have the result written, to appear whole; there is none yet.

        Args:
            write: writes it to a path.
            maker: the task whose job makes it, and that job's log.
        """
        unfinished = self._entry.with_name(f".{self._entry.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed, where there are no locks
        unfinished.mkdir(parents=True)
        write(unfinished / _STORE)
        (unfinished / _MAKER).write_text(json.dumps(maker), encoding="utf-8")
        unfinished.rename(self._entry)

    def take(self) -> dict[str, str]:
        """Move the result where it belongs, leave nothing here, and return who made it."""
        maker: dict[str, str] = json.loads((self._entry / _MAKER).read_text(encoding="utf-8"))
        put_in_place(self._entry / _STORE, self.output)
        self._leave_nothing()
        return maker

    def release(self) -> None:
        """Give up the claim; where there is no result, nothing is left."""
        if self._lock is not None and not self.holds_result:
            self._leave_nothing()
        self._unlock()

    def _leave_nothing(self) -> None:
        self._clear()
        self._unlock()  # before the directories go: network file systems keep a file that is open
        with suppress(OSError):  # another process has begun to use them
            self._directory.rmdir()
            self._directory.parent.rmdir()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock, self._adopted = None, False

    def _clear(self, *but: str) -> None:
        """Remove what is here, the claim last: once it has gone, another process may have begun to work here."""
        for path in sorted(self._directory.iterdir(), key=lambda path: path.name == _CLAIM):
            if path.name not in but:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class NoLocksError(OSError):
    """The file system has no locks."""


class Tasks:
    """Tasks that a script is given by hand: it works on all of them and writes the results where they belong."""

    def __init__(self, outputs: Sequence[Path]) -> None:
        """Take note of where the results belong."""
        self._outputs = list(outputs)

    def turns(self) -> Iterator[Path]:
        """Yield where the result of each task belongs, one task after another."""
        yield from self._outputs

    def together(self, work: Callable[[list[Path]], None]) -> None:
        """Have all tasks worked on at once.

        Args:
            work: is given where their results belong.
        """
        work(self._outputs)

    def failed(self, output: Path, error: ChronocoderError) -> None:
        """Take note that a task has failed.

        Raises:
            ChronocoderError: the error, unless the task can be left to another job.
        """
        raise error

    def put(self, output: Path, write: Callable[[Path], None]) -> None:
        """Have a result written.

        Args:
            output: where it belongs.
            write: writes it to a path.
        """
        write(output)


class SharedTasks(Tasks):
    """What a job works on: its own task, and companions that nobody works on."""

    def __init__(self, own: Slot, companions: Sequence[Slot], limit: int, log: str) -> None:
        """Take note of the tasks.

        Args:
            own: the job's task.
            companions: tasks that wait for jobs of their own.
            limit: tasks that the job may work on, its own included.
            log: the job's log, for those whose results it makes.
        """
        super().__init__([own.output])
        self._own, self._waiting, self._left = own, deque(companions), limit - 1
        self._slots = {slot.output: slot for slot in (own, *companions)}
        self._before = {output: _state(output) for output in self._slots}
        self._maker = {"task": own.output.stem, "log": log}
        self._begun: list[Slot] = []

    @property
    def output(self) -> Path:
        """Where the result of the job's own task belongs."""
        return self._own.output

    @property
    def has_result(self) -> bool:
        """Whether the result of the job's own task is there."""
        return self._own.holds_result

    def adopt(self, output: Path) -> None:
        """Begin with a task that the process that started this one has claimed."""
        self._slots[output].adopt()
        self._begun = [self._slots[output]]

    def begin(self) -> Path | None:
        """Claim what to work on first: the job's own task or, while another job works on it, a companion.

        Returns:
            Where its result belongs; None once the job's own result is there, for which this may wait.
        """
        self._release(*self._begun)  # what other processes have worked on
        self._begun = []
        try:
            ours = self._own.claim()
        except NoLocksError as error:
            _log.warning("%s; tasks are not shared", error)
            self._waiting.clear()
            self._own.adopt()
            ours = True
        if not ours and (companion := self._claim_companion()) is not None:
            self._begun = [companion]
        elif self._own.claim(wait=True) and not self.has_result:
            self._begun = [self._own]
        return self._begun[0].output if self._begun else None

    def turns(self) -> Iterator[Path]:
        """Yield where the result of each task belongs; a task is claimed until the next one is asked for."""
        for slot in self._in_turn():
            try:
                yield slot.output
            finally:
                self._release(slot)

    def together(self, work: Callable[[list[Path]], None]) -> None:
        """Have all tasks worked on at once, or, should that fail, the job's own alone."""
        claimed = list(self._in_turn())
        try:
            work([slot.output for slot in claimed])
        except ChronocoderError as error:
            if claimed == [self._own]:
                raise
            _log.warning("%d tasks failed together, and are left to their own jobs: %s", len(claimed), error)
            if self._own in claimed and not self.has_result:
                work([self._own.output])
        finally:
            self._release(*claimed)

    def failed(self, output: Path, error: ChronocoderError) -> None:
        """Leave a companion that has failed to its own job; raise the error of the job's own task."""
        if output == self._own.output:
            raise error
        _log.warning("Task %s is left to its own job, since it failed: %s", output.stem, error)

    def put(self, output: Path, write: Callable[[Path], None]) -> None:
        """Have a result written, to wait for the job of its task."""
        self._slots[output].put(write, self._maker)
        if output != self._own.output:
            _log.info("The result of task %s waits for its own job", output.stem)

    def leave(self) -> None:
        """Give up the job's own task."""
        self._own.release()

    def take(self) -> None:
        """Move the result of the job's own task where it belongs."""
        self._own.claim(wait=True)
        maker = self._own.take()
        if maker["task"] != self._maker["task"]:
            _log.info("The result was made by the job of task %s; its log: %s", maker["task"], maker["log"])

    def _in_turn(self) -> Iterator[Slot]:
        while (slot := self._begun.pop() if self._begun else self._claim_companion()) is not None:
            yield slot

    def _release(self, *slots: Slot) -> None:
        """Give up claims, but for that of the job's own task."""
        for slot in slots:
            if slot is not self._own:
                slot.release()

    def _claim_companion(self) -> Slot | None:
        """Claim the next companion that waits; none once another job has made the result of the job's own task."""
        while self._waiting and self._left > 0 and (self._own.is_claimed or not self.has_result):
            companion = self._waiting.popleft()
            if self._waits(companion) and companion.claim():
                if self._waits(companion):
                    self._left -= 1
                    return companion
                companion.release()
        return None

    def _waits(self, companion: Slot) -> bool:
        """Say whether a task has no result yet, neither here nor taken by its own job."""
        return not companion.holds_result and _state(companion.output) == self._before[companion.output]


def waiting_in_allocation() -> set[str] | None:
    """Return the results of the steps after this one in an allocation of a cluster; None outside of one."""
    listed = os.environ.get("SUBMITIT_WAITING")
    return None if listed is None else set(json.loads(listed))


def add_task_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which a script takes tasks, and shares them with other jobs."""
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of the tasks")
    parser.add_argument("--outputs", type=Path, nargs="+", required=True, help="stores to write, in the same order")
    parser.add_argument(
        "--share",
        type=int,
        help="only the first task is to be done; so many, with it, may be, as far as no other job works on them, and"
        " their results wait for their own jobs",
    )
    parser.add_argument("--log", help="where the errors of this call go, for those jobs to say")


def run_shared(main: Callable[[Tasks], None], *lists: str) -> None:
    """Run a script's main function, unless another job has made the result.

    Args:
        main: is given the tasks to work on; an error of a companion does not fail the job.
        lists: flags beside `--tasks` and `--outputs` that list something for each task.
    """
    tasks = _given(sys.argv, ["tasks", *lists])
    if not isinstance(tasks, SharedTasks):
        _run(main, tasks)
    elif _CLAIMED in os.environ:
        tasks.adopt(Path(os.environ[_CLAIMED]))
        _run(main, tasks)
    else:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        while (first := tasks.begin()) is not None:
            os.environ[_CLAIMED] = str(first)
            try:
                _run(main, tasks)
            except (Exception, SystemExit) as end:
                if getattr(end, "code", 1) and not tasks.has_result and first == tasks.output:
                    tasks.leave()
                    raise
                if getattr(end, "code", 1):
                    _log.exception("Tasks that failed are left to their own jobs")
        tasks.take()


def _run(main: Callable[[Tasks], None], tasks: Tasks) -> None:
    from chronocoder.command_line import run_script

    run_script(partial(main, tasks))


def _given(argv: Sequence[str], lists: Sequence[str]) -> Tasks:
    """Return the tasks that a command line names; what is wrong with it is left for the script to say."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--share", type=int)
    parser.add_argument("--log", default="")
    parser.add_argument("--processes")
    for name in ("outputs", *lists):
        parser.add_argument(f"--{name}", nargs="+", default=[])
    given, common = parser.parse_known_args(argv[1:])
    outputs = [Path(output) for output in given.outputs]
    inputs = [getattr(given, name) for name in lists]
    if given.share is None or not outputs or any(len(paths) != len(outputs) for paths in inputs):
        return Tasks(outputs)
    made_by = [_code(Path(argv[0])), [(word, _state(Path(word))) for word in common]]
    slots = [
        Slot(output, _digest([made_by, [(path, _state(Path(path))) for path in paths]]))
        for output, *paths in zip(outputs, *inputs, strict=True)
    ]
    return SharedTasks(slots[0], slots[1:], given.share, given.log)


def _code(script: Path) -> list[Any]:
    """Return what tells whether a script or this package has changed."""
    package = Path(__file__).parent
    return [(str(path), _state(path)) for path in (script, *sorted(package.rglob("*.py")))]


def _state(path: Path) -> list[Any] | None:
    """Return what tells whether a file, or a directory with its entries, has changed; None where nothing is."""
    try:
        status = path.stat()
        if not path.is_dir():
            return [status.st_mtime_ns, status.st_size]
        entries = [(entry.name, entry.stat()) for entry in os.scandir(path) if not entry.name.startswith(".")]
    except OSError:
        return None
    return [status.st_ino, *sorted([name, found.st_mtime_ns, found.st_size] for name, found in entries)]


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:16]


def _lock(file: TextIO, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        file.close()
        raise NoLocksError(f"{file.name}: no lock ({error})") from error
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Say whether an open file is still the one at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
