"""Threads in place of the processes that train together: nothing is started, and nothing sent."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class ThreadedDistributed:
    """What a team asks of `torch.distributed`, among the threads that `run` starts; a group is its members' ranks."""

    def __init__(self, processes: int) -> None:
        self._all = tuple(range(processes))
        self.group = SimpleNamespace(WORLD=self._all)
        self._local = threading.local()
        self._meetings: dict[tuple[int, ...], threading.Barrier] = {}
        self._lock, self._given = threading.Lock(), dict[tuple[tuple[int, ...], int], Any]()

    def run(self, work: Callable[[int], Result]) -> list[Result]:
        """Return what the work of each rank returns."""

        def as_rank(rank: int) -> Result:
            self._local.rank = rank
            try:
                return work(rank)
            except BaseException:
                for barrier in self._meetings.values():
                    barrier.abort()
                raise

        with ThreadPoolExecutor(len(self._all)) as pool:
            return list(pool.map(as_rank, self._all))

    def new_group(self, members: Sequence[int]) -> tuple[int, ...]:
        return tuple(members)

    def get_world_size(self, group: Sequence[int]) -> int:
        return len(group)

    def all_reduce(self, value: Tensor, group: tuple[int, ...]) -> None:
        value.copy_(sum(self._exchanged(value.clone(), group)))

    def all_gather(self, into: list[Tensor], value: Tensor, group: tuple[int, ...]) -> None:
        for room, given in zip(into, self._exchanged(value.clone(), group), strict=True):
            room.copy_(given)

    def all_to_all_single(
        self, into: Tensor, value: Tensor, got: list[int], sent: list[int], group: tuple[int, ...]
    ) -> None:
        own = group.index(self._local.rank)
        given = [parts[own] for parts in self._exchanged(value.clone().split(sent), group)]
        assert [len(part) for part in given] == got
        into.copy_(torch.cat(given))

    def _exchanged(self, value: Any, group: tuple[int, ...]) -> list[Any]:
        with self._lock:
            barrier = self._meetings.setdefault(group, threading.Barrier(len(group)))
            self._given[group, self._local.rank] = value
        barrier.wait()
        found = [self._given[group, rank] for rank in group]
        barrier.wait()
        return found
