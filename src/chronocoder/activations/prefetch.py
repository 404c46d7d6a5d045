"""Making the items of an iterator in a thread, ahead of their use."""

import queue
import threading
import weakref
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Line(Generic[Item]):
    """What the thread and its consumer share.

    Attributes:
        room: how many more items may be made.
        closed: set once the consumer has gone.
        ready: items made, or what making one raised.
    """

    room: threading.Semaphore
    closed: threading.Event
    ready: "queue.SimpleQueue[Item | _Failure]" = field(default_factory=queue.SimpleQueue)


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class Prefetched(Generic[Item]):
    """The items of a generator, up to `ahead` of them made in a thread before they are asked for.

    An item is begun only once the one `ahead + 1` before it has been given back, that is, once the next one has been
    asked for: at most `ahead + 1` are alive. What the generator raises reaches the consumer in its place. The thread
    ends, and the generator is closed, with `close`, or when nothing refers to this object any more.
    """

    def __init__(self, items: Generator[Item, None, None], ahead: int, closed: threading.Event) -> None:
        """Start the thread.

        Args:
            items: makes the items; used from the thread only.
            ahead: items that may wait.
            closed: is set when the items are no longer wanted; a generator that takes long looks at it.
        """
        self._line: _Line[Item] = _Line(threading.Semaphore(ahead), closed)
        thread = threading.Thread(target=_make, args=(items, self._line), name="prefetch", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, self._line, thread)

    def __iter__(self) -> "Prefetched[Item]":
        return self

    def __next__(self) -> Item:
        if not self._end.alive:
            raise StopIteration
        item = self._line.ready.get()
        if isinstance(item, _Failure):
            self.close()
            raise item.error
        self._line.room.release()
        return item

    def close(self) -> None:
        """End the thread; no item comes after it."""
        self._end()


def _make(items: Generator[Item, None, None], line: _Line[Item]) -> None:
    try:
        while line.room.acquire() and not line.closed.is_set():
            line.ready.put(next(items))
        line.ready.put(_Failure(StopIteration()))
    except BaseException as error:
        line.ready.put(_Failure(error))
    finally:
        items.close()


def _end(line: _Line[Item], thread: threading.Thread) -> None:
    line.closed.set()
    line.room.release()
    thread.join()
